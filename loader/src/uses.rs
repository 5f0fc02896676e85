//! What code needs from outside of itself, found without running it: foreign imports and telling globals.
//!
//! ```text
//! WorkerCode ── every source ──▶ parse ──▶ imports, import("…"), require("…")  ── own modules left out
//!                                  └─────▶ globals that nothing in the source declares: process, Deno, eval …
//! ```
//! This is a guess that helps to choose where code runs; nothing is permitted or refused by it. Code that hides
//! what it does (`globalThis['pro' + 'cess']`) is found out when it runs.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use oxc_allocator::Allocator;
use oxc_ast::AstKind;
use oxc_ast::ast::{Argument, CallExpression, Expression, IdentifierReference, UnaryOperator};
use oxc_parser::{ParseOptions, Parser};
use oxc_semantic::{IsGlobalReference as _, Scoping, Semantic, SemanticBuilder};

use crate::code::{ModuleSource, WorkerCode};
use crate::error::CodeError;
use crate::imports;
use crate::resolve::join;
use crate::syntax::{self, Dialect};

/// Most specifiers kept of one kind; code that imports more is as clear as it will get.
const SPECIFIERS_MAX: usize = 1_000;
/// Longest specifier kept, in bytes.
const SPECIFIER_BYTES_MAX: usize = 256;

/// A global, or something done with one, that says where code expects to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Use {
    /// `process`, as Node.js has it.
    #[serde(rename = "process")]
    Process,
    /// `Deno`.
    #[serde(rename = "Deno")]
    Deno,
    /// `Bun`.
    #[serde(rename = "Bun")]
    Bun,
    /// `require` with something that is not plain text, or without a call.
    #[serde(rename = "require")]
    Require,
    /// `__dirname` or `__filename`.
    #[serde(rename = "__dirname")]
    Dirname,
    /// WebAssembly compiled from bytes while running, which an isolate refuses.
    #[serde(rename = "WebAssembly.compile")]
    WasmCompile,
    /// `eval` or `new Function`, which an isolate refuses.
    #[serde(rename = "eval")]
    Eval,
}

impl Use {
    /// As it is written in code.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Deno => "Deno",
            Self::Bun => "Bun",
            Self::Require => "require",
            Self::Dirname => "__dirname",
            Self::WasmCompile => "WebAssembly.compile",
            Self::Eval => "eval",
        }
    }
}

/// What was found. Specifiers of the code's own modules are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Static imports and re-exports.
    pub imports: BTreeSet<String>,
    /// `import("…")` of a plain string.
    pub dynamic_imports: BTreeSet<String>,
    /// `require("…")` of a plain string.
    pub requires: BTreeSet<String>,
    /// Telling globals.
    pub globals: BTreeSet<Use>,
    /// Whether a source could not be parsed (or not safely), so that its uses are not known.
    pub incomplete: bool,
}

impl Uses {
    /// All specifiers, however they are imported.
    pub fn specifiers(&self) -> impl Iterator<Item = &str> {
        self.imports.iter().chain(&self.dynamic_imports).chain(&self.requires).map(String::as_str)
    }
}

/// Looks through every source of the code.
///
/// # Errors
/// If a source is nested too deep to be parsed at all, or no thread can be had to parse it.
pub fn of(code: &WorkerCode) -> Result<Uses, CodeError> {
    let names: HashSet<&str> = code.modules.iter().map(|(name, _)| name.as_str()).collect();
    let mut uses = Uses::default();
    for (name, source) in &code.modules {
        let Some((text, dialect)) = source_of(name, source) else { continue };
        let found = of_source(&Arc::from(name.as_str()), text, dialect)?;
        let foreign = |specifiers: BTreeSet<String>| {
            let own = |specifier: &String| join(name, specifier).is_some_and(|path| names.contains(&*path));
            specifiers.into_iter().filter(move |specifier| !own(specifier))
        };
        extend(&mut uses.imports, foreign(found.imports));
        extend(&mut uses.dynamic_imports, foreign(found.dynamic_imports));
        extend(&mut uses.requires, foreign(found.requires));
        uses.globals.extend(found.globals);
        uses.incomplete |= found.incomplete;
    }
    Ok(uses)
}

fn source_of<'a>(name: &str, source: &'a ModuleSource) -> Option<(&'a Arc<str>, Dialect)> {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    Some(match (source, ending) {
        (ModuleSource::Js(text), _) | (ModuleSource::Plain(text), "js" | "mjs") => (text, Dialect::Js),
        (ModuleSource::Cjs(text), _) | (ModuleSource::Plain(text), "cjs") => (text, Dialect::Cjs),
        (ModuleSource::Ts(text), _) | (ModuleSource::Plain(text), "ts" | "mts" | "tsx" | "jsx") => {
            (text, Dialect::of_name(name))
        }
        _ => return None,
    })
}

fn of_source(name: &Arc<str>, text: &Arc<str>, dialect: Dialect) -> Result<Uses, CodeError> {
    match syntax::stack_levels(name, text, dialect)? {
        Some(levels) => syntax::with_stack(levels, || parse(text, dialect)),
        None => guess(name, text, dialect),
    }
}

fn parse(text: &str, dialect: Dialect) -> Uses {
    let allocator = Allocator::default();
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed = Parser::new(&allocator, text, dialect.source_type()).with_options(options).parse();
    let mut uses = Uses { incomplete: parsed.panicked || parsed.diagnostics.has_errors(), ..Uses::default() };
    let imported = parsed.module_record.requested_modules.iter();
    let at_run_time = imported.filter(|(_, requests)| requests.iter().any(|request| !request.is_type));
    extend(&mut uses.imports, at_run_time.map(|(specifier, _)| specifier.to_string()));
    let semantic = SemanticBuilder::new().with_build_nodes(true).build(&parsed.program).semantic;
    walk(&semantic, &mut uses);
    uses
}

fn walk(semantic: &Semantic<'_>, uses: &mut Uses) {
    let (nodes, scoping) = (semantic.nodes(), semantic.scoping());
    for (id, node) in nodes.iter_enumerated() {
        match node.kind() {
            AstKind::ImportExpression(import) => {
                extend(&mut uses.dynamic_imports, literal(&import.source));
            }
            AstKind::CallExpression(call) => extend(&mut uses.requires, required(call, scoping)),
            AstKind::IdentifierReference(name) if name.is_global_reference(scoping) => {
                uses.globals.extend(telling(name, nodes.parent_kind(id)));
            }
            _ => {}
        }
    }
}

/// What `require` is called with, if it is plain text and `require` is the global one.
fn required(call: &CallExpression<'_>, scoping: &Scoping) -> Option<String> {
    let Expression::Identifier(callee) = &call.callee else { return None };
    if callee.name != "require" || !callee.is_global_reference(scoping) {
        return None;
    }
    call.arguments.first().and_then(Argument::as_expression).and_then(literal)
}

/// What a global tells, seen with what stands around it.
fn telling(name: &IdentifierReference<'_>, parent: AstKind<'_>) -> Option<Use> {
    // `typeof process` asks whether it exists; code that asks can do without.
    if matches!(parent, AstKind::UnaryExpression(unary) if unary.operator == UnaryOperator::Typeof) {
        return None;
    }
    match name.name.as_str() {
        "process" => Some(Use::Process),
        "Deno" => Some(Use::Deno),
        "Bun" => Some(Use::Bun),
        "__dirname" | "__filename" => Some(Use::Dirname),
        "eval" => Some(Use::Eval),
        "Function" => match parent {
            AstKind::NewExpression(_) => Some(Use::Eval),
            AstKind::CallExpression(call) if call.callee.is_specific_id("Function") => Some(Use::Eval),
            _ => None,
        },
        "require" => match parent {
            AstKind::CallExpression(call) if plain_call(call) => None,
            _ => Some(Use::Require),
        },
        // `new WebAssembly.Module`, `compile`, `compileStreaming`; `instantiate` also takes a compiled module.
        "WebAssembly" => match parent {
            AstKind::StaticMemberExpression(member) => {
                matches!(member.property.name.as_str(), "compile" | "compileStreaming" | "Module")
                    .then_some(Use::WasmCompile)
            }
            _ => None,
        },
        _ => None,
    }
}

fn plain_call(call: &CallExpression<'_>) -> bool {
    call.arguments.first().and_then(Argument::as_expression).and_then(literal).is_some()
}

/// The text of a string, or of a template without holes.
fn literal(expression: &Expression<'_>) -> Option<String> {
    match expression.without_parentheses() {
        Expression::StringLiteral(text) => Some(text.value.to_string()),
        Expression::TemplateLiteral(template) => template.single_quasi().map(|text| text.to_string()),
        _ => None,
    }
}

/// Code that cannot be parsed safely: its imports by their look, nothing about globals.
fn guess(name: &Arc<str>, text: &Arc<str>, dialect: Dialect) -> Result<Uses, CodeError> {
    let found = imports::of(name, text, dialect)?;
    let mut uses = Uses { incomplete: true, ..Uses::default() };
    extend(&mut uses.imports, found.required);
    extend(&mut uses.dynamic_imports, found.optional);
    Ok(uses)
}

fn extend(into: &mut BTreeSet<String>, specifiers: impl IntoIterator<Item = String>) {
    for specifier in specifiers {
        if into.len() < SPECIFIERS_MAX && specifier.len() <= SPECIFIER_BYTES_MAX {
            into.insert(specifier);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::{Language, Snippet};

    fn uses(code: &str, language: Language) -> Uses {
        of(&Snippet::new(code, language).into_code().unwrap()).unwrap()
    }

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn finds_specifiers_by_the_way_they_are_imported() {
        let code = "import fs, { readFile } from 'node:fs';\nexport { x } from \"sharp\";\n\
                    const a = await import('left-pad'); const b = await import(`node:os`); import('a' + b);\n\
                    const c = require('child_process');\nexport default () => 1";
        let found = uses(code, Language::Js);
        assert_eq!(found.imports, set(&["node:fs", "sharp"]));
        assert_eq!(found.dynamic_imports, set(&["left-pad", "node:os"]));
        assert_eq!(found.requires, set(&["child_process"]));
        assert!(found.globals.is_empty() && !found.incomplete, "{found:?}");
        assert_eq!(found.specifiers().count(), 5);
    }

    #[test]
    fn finds_globals_that_nothing_in_the_source_declares() {
        for (code, expect) in [
            ("return process.env.HOME", &[Use::Process][..]),
            ("return Deno.readTextFile('x')", &[Use::Deno]),
            ("return Bun.file('x')", &[Use::Bun]),
            ("return __dirname + __filename", &[Use::Dirname]),
            ("return eval('1')", &[Use::Eval]),
            ("return new Function('return 1')()", &[Use::Eval]),
            ("return Function('return 1')()", &[Use::Eval]),
            ("return x instanceof Function", &[]),
            ("const name = 'fs'; return require(name)", &[Use::Require]),
            ("const r = require; return r('fs')", &[Use::Require]),
            ("return WebAssembly.compile(input)", &[Use::WasmCompile]),
            ("return new WebAssembly.Module(input)", &[Use::WasmCompile]),
            ("return WebAssembly.instantiate(input)", &[]),
            ("const process = { env: {} }; return process.env", &[]),
            ("return ((process) => process.env)(input)", &[]),
            ("return input.process + input.eval", &[]),
            ("return { process: 1, Deno: 2 }", &[]),
            ("return typeof process === 'undefined'", &[]),
            ("// process.exit()\nreturn 'Deno.exit()'", &[]),
        ] {
            for language in [Language::Js, Language::Ts] {
                let found = uses(code, language);
                assert_eq!(found.globals.into_iter().collect::<Vec<_>>(), expect, "{code}");
                assert!(!found.incomplete, "{code}");
            }
        }
    }

    #[test]
    fn types_and_own_modules_are_nobodys_business() {
        let code = "import type { Stats } from 'node:fs';\nimport { n } from './n.js';\nimport m from 'lib/m.cjs';\n\
                    return n as Stats";
        let mut snippet = Snippet::new(code, Language::Ts);
        snippet.modules.0 = vec![
            ("n.js".into(), ModuleSource::Plain("import './lib/m.cjs'; export const n = 1".into())),
            ("lib/m.cjs".into(), ModuleSource::Plain("require('../n.js'); require('fs')".into())),
            ("t.txt".into(), ModuleSource::Plain("require('os')".into())),
        ];
        let found = of(&snippet.into_code().unwrap()).unwrap();
        assert_eq!(found.specifiers().collect::<Vec<_>>(), ["fs"], "{found:?}");
    }

    #[test]
    fn what_cannot_be_parsed_is_guessed_and_marked() {
        let mut code = WorkerCode::new("m.js").js("m.js", "import x from 'node:net'; const = ;");
        assert!(of(&code).unwrap().incomplete);
        // A slash that may begin a pattern or divide, in a source too long to look at its every byte as a level.
        let long = format!("import 'node:net';\nlet a = x++ /1/ 2;\n{}", "a /= `${'('}`;\n".repeat(20_000));
        code = WorkerCode::new("m.js").js("m.js", long);
        let found = of(&code).unwrap();
        assert!(found.specifiers().any(|specifier| specifier == "node:net"), "{found:?}");
    }

    #[test]
    fn specifiers_are_bounded_in_number_and_length() {
        let mut code = format!("import('{}');\n", "x".repeat(SPECIFIER_BYTES_MAX + 1));
        for n in 0..SPECIFIERS_MAX + 10 {
            code.push_str(&format!("import('p{n}');\n"));
        }
        let found = uses(&code, Language::Js);
        assert_eq!(found.dynamic_imports.len(), SPECIFIERS_MAX);
        assert!(found.dynamic_imports.iter().all(|name| name.len() <= SPECIFIER_BYTES_MAX));
    }
}
