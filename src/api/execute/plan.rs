//! From what a client sent to where it runs: built, looked through, decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_loader::bundle::Bundle;
use atoll_loader::compat::DEFAULT_COMPATIBILITY_DATE;
use atoll_loader::limits::Limits;
use atoll_loader::{CheckConfig, CodeError, Snippet, WorkerCode};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ExecuteInput;
use crate::api::input;
use crate::audit::entry::Routed;
use crate::config::Tenant;
use crate::deploy::to_var;
use crate::dispatch::Var;
use crate::problem::Problem;
use crate::route::decide::{self, Contradiction};
use crate::route::lower::{self, Lowered};
use crate::route::runner::{SandboxStep, StepLimits};
use crate::route::step::CodeHash;
use crate::route::{Decision, Need, Runtime, Step};
use crate::server::Gateway;

/// Longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 128;
/// Whose sandbox it is where the client does not say.
const USER_DEFAULT: &str = "default";

/// What a client may say about the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Choice {
    Auto,
    Isolate,
    Sandbox,
}

/// A decision, as clients see it.
#[derive(Clone, Serialize)]
pub(super) struct RouteOutput {
    runtime: Runtime,
    rule: String,
    reasons: Vec<String>,
}

impl From<&Decision> for RouteOutput {
    fn from(decision: &Decision) -> Self {
        let reasons = decision.reasons.clone();
        Self { runtime: decision.runtime, rule: decision.rule_name(), reasons }
    }
}

/// What runs.
enum Work {
    Code(Arc<Bundle>),
    Script(String),
}

/// A step that was built and decided.
pub(super) struct Plan {
    pub(super) step: Step,
    pub(super) decision: Decision,
    pub(super) hash: CodeHash,
    pub(super) idempotent: bool,
    pub(super) limits: Limits,
    work: Work,
    /// What it needs to run in a sandbox; `None` if it never will.
    sandbox: Option<ForSandbox>,
}

/// What only a sandbox is told.
struct ForSandbox {
    user: Arc<str>,
    input: String,
    env: BTreeMap<String, Value>,
    outbound: Vec<String>,
    memory_mib: Option<u32>,
}

/// Builds and decides. It is work: not for a thread that moves bytes.
pub(super) fn plan(
    gateway: &Gateway,
    tenant: &Tenant,
    mut parsed: ExecuteInput,
    checks: &CheckConfig,
    input: String,
) -> Result<Plan, Problem> {
    let (heap_mib, wall_ms) = parsed.limits.sizes();
    let limits = parsed.limits.lower(tenant.limits);
    let runtime = parsed.runtime;
    let idempotent = parsed.idempotent;
    let for_sandbox = ForSandbox {
        user: user(parsed.user.take())?,
        input,
        env: std::mem::take(&mut parsed.env.0),
        outbound: std::mem::take(&mut parsed.outbound),
        memory_mib: heap_mib,
    };
    let mut step = Step::new(tenant.name.as_str(), parsed.language, 0);
    step.needs = needs(&mut parsed, &for_sandbox);
    (step.memory_mib, step.wall_ms) = (heap_mib, wall_ms);
    let (hash, code, script) = source(parsed)?;
    step.size_bytes = script.as_ref().map_or(0, |text| text.len() as u64);
    let decision = {
        let looked_at = code.as_ref().filter(|_| looks(gateway, runtime));
        if let Some(code) = looked_at {
            step = step.analysed(code);
            step.learned = gateway.steps.lookup(tenant.name.as_str(), hash);
        }
        choose(gateway, &step, runtime)?
    };
    let work = match (code, script) {
        (Some(code), _) => {
            Work::Code(Arc::new(code.build_with(checks).map_err(|error| input::code_problem(&error))?))
        }
        (None, script) => Work::Script(script.unwrap_or_default()),
    };
    let wanted = decision.runtime == Runtime::Sandbox || decision.retry_in_sandbox;
    let keep = wanted && gateway.steps.runner().is_some();
    Ok(Plan { step, decision, hash, idempotent, limits, work, sandbox: keep.then_some(for_sandbox) })
}

/// Whether the code must be looked through: only where that can change anything.
fn looks(gateway: &Gateway, runtime: Option<Choice>) -> bool {
    match runtime {
        Some(Choice::Auto) => true,
        None => gateway.steps.runner().is_some(),
        Some(Choice::Isolate | Choice::Sandbox) => false,
    }
}

fn choose(gateway: &Gateway, step: &Step, runtime: Option<Choice>) -> Result<Decision, Problem> {
    let has_sandbox = gateway.steps.runner().is_some();
    let contradiction =
        |error: Contradiction| Problem::unprocessable("route_contradiction", format!("{error}."));
    let decision = match runtime {
        Some(Choice::Isolate) => decide::requested(step, Runtime::Isolate).map_err(contradiction)?,
        Some(Choice::Sandbox) => decide::requested(step, Runtime::Sandbox).map_err(contradiction)?,
        None if !has_sandbox => {
            decide::without_sandbox(step).unwrap_or_else(|| decide::decide(step, &gateway.config.routes))
        }
        Some(Choice::Auto) | None => decide::decide(step, &gateway.config.routes),
    };
    if decision.runtime == Runtime::Sandbox && !has_sandbox {
        return Err(no_sandbox(&decision));
    }
    Ok(Decision { retry_in_sandbox: decision.retry_in_sandbox && has_sandbox, ..decision })
}

/// 501: it would run in a sandbox, and there is none.
fn no_sandbox(decision: &Decision) -> Problem {
    let detail = format!(
        "This step runs in a sandbox ({}), and this server has no sandboxes: its operator must configure \
         `[sandbox]`. Code that can do without may be sent with `runtime`: \"isolate\".",
        decision.explain()
    );
    Problem::new(StatusCode::NOT_IMPLEMENTED, "sandbox_not_configured", detail)
        .with("route", serde_json::to_value(RouteOutput::from(decision)).unwrap_or_default())
}

fn user(user: Option<String>) -> Result<Arc<str>, Problem> {
    let user = user.unwrap_or_else(|| USER_DEFAULT.to_owned());
    let fits = !user.is_empty() && user.len() <= USER_BYTES_MAX && user.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        return Ok(user.into());
    }
    Err(Problem::unprocessable("user", "`user` is 1 to 128 visible ASCII characters, without blanks."))
}

/// What is declared, and what follows from being allowed to reach a host.
fn needs(parsed: &mut ExecuteInput, sandbox: &ForSandbox) -> BTreeSet<Need> {
    let mut needs = std::mem::take(&mut parsed.needs);
    if !sandbox.outbound.is_empty() {
        needs.insert(Need::Http);
    }
    needs
}

/// Code to build, or a script to hand over, with its hash.
fn source(parsed: ExecuteInput) -> Result<(CodeHash, Option<WorkerCode>, Option<String>), Problem> {
    let refused = |error: CodeError| input::code_problem(&error);
    let language = parsed.language;
    let mut code = match (parsed.code, parsed.main_module, language.of_snippet()) {
        (Some(code), None, Some(of_snippet)) => {
            let snippet = Snippet { code, language: of_snippet, modules: parsed.modules };
            snippet.into_code().map_err(refused)?
        }
        (None, Some(main), Some(_)) => {
            let mut code = WorkerCode::new(main);
            code.modules = parsed.modules.0;
            code
        }
        (Some(script), None, None) if parsed.modules.0.is_empty() => {
            return Ok((CodeHash::of(language, [script.as_bytes()]), None, Some(script)));
        }
        (_, _, None) => {
            let detail = "Give `code`, and neither `modules` nor `mainModule`: only JavaScript has them.";
            return Err(Problem::bad_request(detail));
        }
        _ => return Err(Problem::bad_request("Give either `code`, or `modules` and `mainModule`.")),
    };
    code.compatibility_date =
        parsed.compatibility_date.unwrap_or_else(|| DEFAULT_COMPATIBILITY_DATE.to_owned());
    code.compatibility_flags = parsed.compatibility_flags;
    Ok((CodeHash::of_code(language, &code), Some(code), None))
}

impl From<&Decision> for Routed {
    fn from(decision: &Decision) -> Self {
        Self { runtime: decision.runtime.name(), rule: decision.rule_name() }
    }
}

impl Plan {
    /// For which of the tenant's users it runs in a sandbox.
    pub(super) fn user(&self) -> Option<&Arc<str>> {
        self.sandbox.as_ref().map(|told| &told.user)
    }

    /// The bundle that an isolate runs; `None` for a script, which never gets there.
    pub(super) fn bundle(&self) -> Option<&Arc<Bundle>> {
        match &self.work {
            Work::Code(bundle) => Some(bundle),
            Work::Script(_) => None,
        }
    }

    /// What a runner gets.
    pub(super) fn sandbox_step(&self, id: &Arc<str>) -> Result<SandboxStep, Problem> {
        let missing = || Problem::internal(&"a step without what a sandbox needs");
        let told = self.sandbox.as_ref().ok_or_else(missing)?;
        let lowered = match &self.work {
            Work::Code(bundle) => {
                let env = serde_json::to_string(&told.env).map_err(|error| Problem::internal(&error))?;
                lower::bundle(bundle, &env, &told.input)
            }
            Work::Script(code) => lower::script(self.step.language, code, &told.input)
                .map_err(|error| Problem::unprocessable("command", format!("{error}.")))?,
        };
        let Lowered { argv, files, env: own } = lowered;
        let mut env: Vec<(String, String)> = told.env.iter().map(variable).collect();
        env.extend(own);
        Ok(SandboxStep {
            id: id.clone(),
            tenant: self.step.tenant.as_str().into(),
            user: told.user.clone(),
            argv,
            files,
            env,
            limits: StepLimits {
                wall_ms: self.limits.wall_ms,
                memory_mib: told.memory_mib,
                output_bytes: self.limits.log_bytes,
            },
            outbound: told.outbound.clone(),
        })
    }
}

/// A value of `env` as an environment variable: text as it is, anything else as JSON.
fn variable((name, value): (&String, &Value)) -> (String, String) {
    match to_var(value) {
        Var::Text(text) | Var::Json(text) => (name.clone(), text),
        Var::Loader => (name.clone(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_plain_names() {
        assert_eq!(&*user(None).unwrap(), USER_DEFAULT);
        assert_eq!(&*user(Some("user-1@example.com".into())).unwrap(), "user-1@example.com");
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(USER_BYTES_MAX + 1)] {
            assert_eq!(user(Some(bad.into())).unwrap_err().code(), "user", "{bad:?}");
        }
    }
}
