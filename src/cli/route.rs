//! `atoll route explain`: where a step would run, and why, without running it.

use std::path::Path;

use atoll::config::{Config, Overrides};
use atoll::route::{Decision, Language, Step, decide};
use atoll_loader::{Deployment, Snippet, WorkerCode};
use serde_json::{Value, json};

use super::args::route::{Explain, Route};
use super::exit::{Failure, Kind, Result};
use super::{output, package};

/// `atoll route`.
pub(crate) fn route(command: Route) -> Result<()> {
    match command {
        Route::Explain(args) => explain(&args),
    }
}

fn explain(args: &Explain) -> Result<()> {
    let config = match &args.config {
        Some(file) => Config::load(Some(file), Overrides::default())
            .map_err(|error| Failure::usage(error).hint("`atoll help route explain` shows a rule"))?,
        None => Config::parse("", Overrides::default()).map_err(Failure::usage)?,
    };
    let step = step(args)?;
    let decision = decide(&step, &config.routes);
    if args.json {
        output::json_line(&document(&step, &decision));
    } else {
        output::line(&output::printable(&text(&decision)));
    }
    Ok(())
}

/// The step that the file holds, as the policy sees it.
fn step(args: &Explain) -> Result<Step> {
    let tenant = args.tenant.clone().unwrap_or_default();
    let mut step = match source(args)? {
        Source::Script(language, text) => Step::new(tenant, language, text.len() as u64),
        Source::Code(language, code) => Step::new(tenant, language, 0).analysed(&code),
    };
    step.needs = args.needs.iter().copied().map(Into::into).collect();
    step.memory_mib = args.memory_mib;
    step.wall_ms = args.wall_ms;
    Ok(step)
}

enum Source {
    Script(Language, String),
    Code(Language, WorkerCode),
}

fn source(args: &Explain) -> Result<Source> {
    let language = args.language.map_or_else(|| language_of(&args.path), Into::into);
    if args.path.is_dir() {
        let Deployment { code, .. } = package::deployment(&args.path)?;
        return Ok(Source::Code(language, code));
    }
    let (text, _) = package::snippet_text(&args.path, false)?;
    let Some(of_snippet) = language.of_snippet() else { return Ok(Source::Script(language, text)) };
    let code = Snippet::new(text, of_snippet).into_code();
    let code = code.map_err(|error| {
        Failure::new(Kind::Refused, error).hint("--language says what the file is written in")
    })?;
    Ok(Source::Code(language, code))
}

/// By the file's ending; JavaScript if it says nothing.
fn language_of(path: &Path) -> Language {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("ts" | "mts" | "tsx") => Language::Ts,
        Some("py") => Language::Python,
        Some("sh" | "bash") => Language::Shell,
        _ => Language::Js,
    }
}

fn text(decision: &Decision) -> String {
    let mut lines = vec![format!("{}, by the rule `{}`", decision.runtime.name(), decision.rule_name())];
    lines.extend(decision.reasons.iter().map(|reason| format!("  because {reason}")));
    if decision.retry_in_sandbox {
        lines
            .push("  and a sandbox next, if it turns out to lack something there and may be repeated".into());
    }
    let cost = &decision.cost;
    lines.push(format!("  costs about {} ms to start and {} MiB", cost.start_ms, cost.memory_mib));
    lines.join("\n")
}

fn document(step: &Step, decision: &Decision) -> Value {
    let needs: Vec<_> = step.needs.iter().map(|need| need.name()).collect();
    let globals: Vec<_> = step.globals.iter().map(|global| global.name()).collect();
    json!({
        "runtime": decision.runtime,
        "rule": decision.rule_name(),
        "reasons": decision.reasons,
        "retryInSandbox": decision.retry_in_sandbox,
        "cost": decision.cost,
        "step": {
            "language": step.language,
            "needs": needs,
            "network": step.network(),
            "imports": step.imports,
            "globals": globals,
            "sizeBytes": step.size_bytes,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_say_the_language() {
        for (path, expect) in [
            ("a.js", Language::Js),
            ("a.mts", Language::Ts),
            ("a.py", Language::Python),
            ("a.sh", Language::Shell),
            ("-", Language::Js),
        ] {
            assert_eq!(language_of(Path::new(path)), expect, "{path}");
        }
    }
}
