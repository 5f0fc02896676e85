//! The decision: named rules, asked one after the other; the first that answers decides.

use serde::{Deserialize, Serialize};

use super::cost::Cost;
use super::missing::Missing;
use super::modules::{self, Offer};
use super::overrides::RouteRule;
use super::step::Step;
use atoll_loader::limits::{Limits, MIB};
use atoll_loader::uses::Use;

/// Most reasons of one decision; further ones are left out and counted.
pub const REASONS_MAX: usize = 16;
/// Largest source that goes to an isolate without being asked to, in bytes: more is an application with its
/// dependencies, whose start costs more than a sandbox's.
pub const ISOLATE_SOURCE_BYTES_MAX: u64 = 16 * MIB as u64;

/// Where a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// A V8 isolate.
    Isolate,
    /// A container sandbox.
    Sandbox,
}

impl Runtime {
    /// As configurations, requests and answers write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Isolate => "isolate",
            Self::Sandbox => "sandbox",
        }
    }
}

/// What decided. The order here is the order in which rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The caller named the runtime.
    Requested,
    /// There is no sandbox, and the caller did not ask.
    NoSandbox,
    /// A rule of the operator.
    Override,
    /// The language runs in one of them only.
    Language,
    /// The author declared a need.
    Needs,
    /// An earlier run of the same code in an isolate lacked something.
    Learned,
    /// This very run in an isolate lacked something.
    Retried,
    /// The code imports what an isolate does not offer.
    Imports,
    /// The code uses a global that an isolate does not have.
    Globals,
    /// It asks for more memory, time or code than an isolate may have.
    Size,
    /// Nothing speaks against an isolate.
    Default,
}

impl Rule {
    /// Its name: stable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::NoSandbox => "no-sandbox",
            Self::Override => "override",
            Self::Language => "language",
            Self::Needs => "needs",
            Self::Learned => "learned",
            Self::Retried => "retried",
            Self::Imports => "imports",
            Self::Globals => "globals",
            Self::Size => "size",
            Self::Default => "default",
        }
    }
}

/// Where a step runs, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where.
    pub runtime: Runtime,
    /// What decided.
    pub rule: Rule,
    /// With [`Rule::Override`], which of the operator's rules.
    pub named: Option<String>,
    /// Sentences for people, at least one, the deciding one first.
    pub reasons: Vec<String>,
    /// Whether a step that turns out to lack something in the isolate may go to the sandbox.
    pub retry_in_sandbox: bool,
    /// What the choice is expected to cost.
    pub cost: Cost,
}

impl Decision {
    fn new(step: &Step, runtime: Runtime, rule: Rule, mut reasons: Vec<String>) -> Self {
        if reasons.len() > REASONS_MAX {
            let more = reasons.len() - (REASONS_MAX - 1);
            reasons.truncate(REASONS_MAX - 1);
            reasons.push(format!("and {more} more"));
        }
        let cost = Cost::of(step, runtime);
        Self { runtime, rule, named: None, reasons, retry_in_sandbox: false, cost }
    }

    /// The rule's name, with that of the operator's rule: `override:acme-builds`.
    #[must_use]
    pub fn rule_name(&self) -> String {
        match &self.named {
            Some(name) => format!("{}:{name}", self.rule.name()),
            None => self.rule.name().to_owned(),
        }
    }

    /// The decision in one line, rule and reasons included.
    #[must_use]
    pub fn explain(&self) -> String {
        format!("{} by rule `{}`: {}", self.runtime.name(), self.rule_name(), self.reasons.join("; "))
    }
}

/// A caller asked for an isolate and declared what no isolate can satisfy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the step cannot run in an isolate: {0}")]
pub struct Contradiction(pub String);

/// Follows a caller who names the runtime.
///
/// # Errors
/// If it is an isolate and the step declares what no isolate has.
pub fn requested(step: &Step, runtime: Runtime) -> Result<Decision, Contradiction> {
    match step.must_have() {
        Some(reason) if runtime == Runtime::Isolate => Err(Contradiction(reason)),
        _ => {
            let reason = format!("the request says runtime `{}`", runtime.name());
            Ok(Decision::new(step, runtime, Rule::Requested, vec![reason]))
        }
    }
}

/// What a step gets where no sandbox is configured and the caller did not name a runtime: an isolate, looking at
/// nothing but what is declared. `None` if no isolate can run it.
#[must_use]
pub fn without_sandbox(step: &Step) -> Option<Decision> {
    let reason = "no sandbox is configured, so what the code needs was not looked at".to_owned();
    step.must_have().is_none().then(|| Decision::new(step, Runtime::Isolate, Rule::NoSandbox, vec![reason]))
}

/// The decision after a run in an isolate that lacked something.
#[must_use]
pub fn retried(step: &Step, missing: Missing) -> Decision {
    let reason = format!("it lacked {} in an isolate, and may be repeated", missing.name());
    Decision::new(step, Runtime::Sandbox, Rule::Retried, vec![reason])
}

/// Decides. Always answers, and always the same.
#[must_use]
pub fn decide(step: &Step, overrides: &[RouteRule]) -> Decision {
    let mut passed_over = Vec::new();
    let must_have = step.must_have();
    for rule in overrides.iter().filter(|rule| rule.matches(step)) {
        if rule.runtime == Runtime::Isolate && must_have.is_some() {
            passed_over.push(format!("the operator's rule `{}` says isolate, which cannot be", rule.name));
            continue;
        }
        let mut reasons = vec![format!("the operator's rule for {}", rule.conditions())];
        reasons.append(&mut passed_over);
        let mut decision = Decision::new(step, rule.runtime, Rule::Override, reasons);
        decision.named = Some(rule.name.to_string());
        return decision;
    }
    for (rule, ask) in RULES {
        let mut reasons = ask(step);
        if !reasons.is_empty() {
            reasons.append(&mut passed_over);
            return Decision::new(step, Runtime::Sandbox, *rule, reasons);
        }
    }
    let reasons = vec!["nothing in it needs a filesystem, a process or a native module".to_owned()];
    let decision = Decision::new(step, Runtime::Isolate, Rule::Default, reasons);
    Decision { retry_in_sandbox: true, ..decision }
}

/// Why a step needs a sandbox, as far as one rule can tell.
type Ask = fn(&Step) -> Vec<String>;

/// The built-in rules, in order. Each says why it wants a sandbox, or nothing.
const RULES: &[(Rule, Ask)] = &[
    (Rule::Language, language),
    (Rule::Needs, needs),
    (Rule::Learned, learned),
    (Rule::Imports, imports),
    (Rule::Globals, globals),
    (Rule::Size, size),
];

fn language(step: &Step) -> Vec<String> {
    if step.language.runs_in_isolate() { Vec::new() } else { step.must_have().into_iter().collect() }
}

fn needs(step: &Step) -> Vec<String> {
    let hard = step.needs.iter().filter(|need| need.needs_sandbox());
    hard.map(|need| format!("it declares a need for {}, which no isolate has", need.name())).collect()
}

fn learned(step: &Step) -> Vec<String> {
    let sentence = |missing: Missing| format!("the same code lacked {} in an isolate before", missing.name());
    step.learned.map(sentence).into_iter().collect()
}

fn imports(step: &Step) -> Vec<String> {
    let sentence = |specifier: &String| match modules::offer(specifier) {
        Offer::Isolate => None,
        Offer::Needs(missing) => Some(format!("it imports {specifier:?}, which needs {}", missing.name())),
        Offer::NotOffered => {
            Some(format!("it imports {specifier:?}, which is not part of it and not offered in an isolate"))
        }
    };
    step.imports.iter().filter_map(sentence).collect()
}

fn globals(step: &Step) -> Vec<String> {
    let sentence = |global: &Use| match global {
        Use::Eval | Use::WasmCompile => {
            format!("it uses `{}`, which an isolate refuses", global.name())
        }
        // There is a `process` in an isolate, but none that a step would ask about.
        _ => format!("it uses `{}`, which an isolate does not have", global.name()),
    };
    step.globals.iter().map(sentence).collect()
}

fn size(step: &Step) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut over = |what: &str, asked: u64, most: u64, unit: &str| {
        if asked > most {
            reasons.push(format!("it {what} {asked} {unit}, and an isolate has at most {most}"));
        }
    };
    over("asks for", step.memory_mib.unwrap_or(0).into(), Limits::CEILING.heap_mib.into(), "MiB of memory");
    over("asks for", step.wall_ms.unwrap_or(0).into(), Limits::CEILING.wall_ms.into(), "ms");
    over("has", step.size_bytes, ISOLATE_SOURCE_BYTES_MAX, "bytes of code");
    reasons
}

#[cfg(test)]
mod tests;
