//! The policy as a table, and its properties on any step.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::Name;
use crate::route::{Language, Missing, Need};

fn step(change: impl FnOnce(&mut Step)) -> Step {
    let mut step = Step::new("acme", Language::Js, 100);
    change(&mut step);
    step
}

fn rule(name: &str, runtime: Runtime) -> RouteRule {
    RouteRule {
        name: Name::parse(name).unwrap(),
        tenant: None,
        language: None,
        import: None,
        size_bytes_min: None,
        size_bytes_max: None,
        runtime,
    }
}

#[test]
fn the_first_rule_that_answers_decides() {
    let import = |specifier: &str| step(|step| step.imports = [specifier.to_owned()].into());
    for (name, step, runtime, rule) in [
        ("plain code", step(|_| {}), Runtime::Isolate, Rule::Default),
        ("TypeScript", step(|s| s.language = Language::Ts), Runtime::Isolate, Rule::Default),
        ("HTTP", step(|s| s.needs = [Need::Http].into()), Runtime::Isolate, Rule::Default),
        ("Python", step(|s| s.language = Language::Python), Runtime::Sandbox, Rule::Language),
        ("a shell script", step(|s| s.language = Language::Shell), Runtime::Sandbox, Rule::Language),
        ("a command", step(|s| s.language = Language::Command), Runtime::Sandbox, Rule::Language),
        ("a declared need", step(|s| s.needs = [Need::Process].into()), Runtime::Sandbox, Rule::Needs),
        ("sockets", step(|s| s.needs = [Need::Sockets].into()), Runtime::Sandbox, Rule::Needs),
        ("history", step(|s| s.learned = Some(Missing::Process)), Runtime::Sandbox, Rule::Learned),
        ("a file module", import("node:fs"), Runtime::Sandbox, Rule::Imports),
        ("a package", import("left-pad"), Runtime::Sandbox, Rule::Imports),
        ("a module of Workers", import("cloudflare:workers"), Runtime::Isolate, Rule::Default),
        ("process", step(|s| s.globals = [Use::Process].into()), Runtime::Sandbox, Rule::Globals),
        ("eval", step(|s| s.globals = [Use::Eval].into()), Runtime::Sandbox, Rule::Globals),
        ("much memory", step(|s| s.memory_mib = Some(u32::MAX)), Runtime::Sandbox, Rule::Size),
        ("much time", step(|s| s.wall_ms = Some(u32::MAX)), Runtime::Sandbox, Rule::Size),
        ("much code", step(|s| s.size_bytes = u64::MAX), Runtime::Sandbox, Rule::Size),
    ] {
        let decision = decide(&step, &[]);
        assert_eq!((decision.runtime, decision.rule), (runtime, rule), "{name}: {}", decision.explain());
    }
}

#[test]
fn an_operator_overrules_findings_but_not_what_cannot_be() {
    let to_isolate = [rule("stay", Runtime::Isolate), rule("never-asked", Runtime::Sandbox)];
    let finding = step(|s| s.imports = ["node:fs".to_owned()].into());
    let decision = decide(&finding, &to_isolate);
    assert_eq!((decision.runtime, decision.rule_name().as_str()), (Runtime::Isolate, "override:stay"));
    assert!(!decision.retry_in_sandbox, "the operator said isolate");

    let declared = step(|s| s.needs = [Need::Filesystem].into());
    let decision = decide(&declared, &to_isolate);
    assert_eq!((decision.runtime, decision.rule_name().as_str()), (Runtime::Sandbox, "override:never-asked"));
    assert!(decision.explain().contains("`stay`"), "it says what was passed over: {}", decision.explain());
}

#[test]
fn a_caller_gets_what_it_names_unless_that_cannot_be() {
    let decision = requested(&step(|s| s.globals = [Use::Process].into()), Runtime::Isolate).unwrap();
    assert_eq!((decision.runtime, decision.rule), (Runtime::Isolate, Rule::Requested));
    assert!(!decision.retry_in_sandbox);
    assert_eq!(requested(&step(|_| {}), Runtime::Sandbox).unwrap().runtime, Runtime::Sandbox);
    for impossible in [step(|s| s.language = Language::Python), step(|s| s.needs = [Need::Python].into())] {
        assert!(requested(&impossible, Runtime::Isolate).is_err(), "{impossible:?}");
        assert!(requested(&impossible, Runtime::Sandbox).is_ok(), "{impossible:?}");
    }
}

#[test]
fn reasons_are_bounded() {
    let many = step(|s| s.imports = (0..100).map(|n| format!("package-{n}")).collect());
    let reasons = decide(&many, &[]).reasons;
    assert_eq!(reasons.len(), REASONS_MAX);
    assert_eq!(reasons.last().map(String::as_str), Some("and 85 more"));
}

fn any_step() -> impl Strategy<Value = Step> {
    let globals = [Use::Process, Use::Deno, Use::Require, Use::Eval, Use::WasmCompile];
    let imports = prop_oneof![
        Just("node:fs".to_owned()),
        Just("cloudflare:workers".to_owned()),
        Just("./x.js".to_owned()),
        ".{0,12}",
    ];
    let missing = [Missing::Filesystem, Missing::Process, Missing::Module];
    (
        prop_oneof![Just("acme".to_owned()), Just("other".to_owned())],
        prop::sample::select(Language::ALL.to_vec()),
        prop::collection::btree_set(prop::sample::select(Need::ALL.to_vec()), 0..3),
        prop::collection::btree_set(imports, 0..3),
        prop::collection::btree_set(prop::sample::select(globals.to_vec()), 0..2),
        any::<u64>(),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        prop::option::of(prop::sample::select(missing.to_vec())),
    )
        .prop_map(
            |(tenant, language, needs, imports, globals, size_bytes, memory_mib, wall_ms, learned)| Step {
                tenant,
                language,
                needs,
                imports,
                globals,
                size_bytes,
                memory_mib,
                wall_ms,
                learned,
            },
        )
}

fn any_rule() -> impl Strategy<Value = RouteRule> {
    (
        "[a-z]{1,8}",
        prop::option::of(Just(Name::parse("acme").unwrap())),
        prop::option::of(prop::sample::select(Language::ALL.to_vec())),
        prop::option::of(prop_oneof![Just("fs".to_owned()), Just("*".to_owned())]),
        prop::option::of(any::<u64>()),
        prop::sample::select(vec![Runtime::Isolate, Runtime::Sandbox]),
    )
        .prop_map(|(name, tenant, language, import, size_bytes_min, runtime)| RouteRule {
            tenant,
            language,
            import,
            size_bytes_min,
            ..rule(&name, runtime)
        })
}

proptest! {
    #[test]
    fn always_decides_and_says_why(step in any_step(), rules in prop::collection::vec(any_rule(), 0..4)) {
        let decision = decide(&step, &rules);
        prop_assert_eq!(&decision, &decide(&step.clone(), &rules), "the same question, the same answer");
        prop_assert!(!decision.reasons.is_empty() && decision.reasons.len() <= REASONS_MAX);
        let named = format!("`{}`", decision.rule_name());
        prop_assert!(decision.explain().contains(&named));
        prop_assert!(decision.explain().starts_with(decision.runtime.name()));
        prop_assert!(!decision.retry_in_sandbox || decision.runtime == Runtime::Isolate);
        prop_assert_eq!(decision.cost, Cost::of(&step, decision.runtime));
    }

    #[test]
    fn overrides_win_in_order(step in any_step(), rules in prop::collection::vec(any_rule(), 0..4)) {
        let decision = decide(&step, &rules);
        let can = |rule: &&RouteRule| rule.runtime == Runtime::Sandbox || step.must_have().is_none();
        match rules.iter().filter(|rule| rule.matches(&step)).find(can) {
            Some(first) => {
                prop_assert_eq!(decision.rule, Rule::Override);
                prop_assert_eq!(decision.named.as_deref(), Some(first.name.as_str()));
                prop_assert_eq!(decision.runtime, first.runtime);
            }
            None => {
                prop_assert_ne!(decision.rule, Rule::Override);
                prop_assert_eq!(decision.runtime, decide(&step, &[]).runtime);
            }
        }
    }

    /// What no isolate has never ends in one, whatever the operator or the caller says.
    #[test]
    fn a_declared_need_never_ends_in_an_isolate(
        step in any_step(),
        need in prop::sample::select(Need::ALL.to_vec()),
        rules in prop::collection::vec(any_rule(), 0..4),
    ) {
        prop_assume!(need.needs_sandbox());
        let mut needs: BTreeSet<Need> = step.needs.clone();
        needs.insert(need);
        let step = Step { needs, ..step };
        prop_assert_eq!(decide(&step, &rules).runtime, Runtime::Sandbox);
        prop_assert!(requested(&step, Runtime::Isolate).is_err());
    }

    /// Without overrides, knowing of more needs never takes a step out of the sandbox.
    #[test]
    fn more_needs_never_lead_back_to_an_isolate(step in any_step(), need in prop::sample::select(Need::ALL.to_vec())) {
        let before = decide(&step, &[]).runtime;
        let mut more = step;
        more.needs.insert(need);
        prop_assert!(decide(&more, &[]).runtime >= before);
    }
}
