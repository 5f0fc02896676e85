//! A snippet of code to a worker whose default export is the function to call.
//!
//! ```text
//! has `export default`       → a module, as it is
//! one function expression    → export default <it>
//! anything else              → export default async function (input, env, ctx) { <it> }
//! ```
//! Everything added is on the first line or after the last, so line numbers stay the author's.

use std::sync::Arc;

use oxc_allocator::Allocator;
use oxc_ast::ast::{Expression, Statement};
use oxc_parser::{ParseOptions, Parser};
use oxc_span::{GetSpan, SourceType, Span};

use crate::code::{ModuleSource, WorkerCode};
use crate::error::CodeError;
use crate::json::Modules;
use crate::syntax::{self, Dialect};

/// Language of a snippet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub enum Language {
    /// JavaScript.
    #[default]
    #[serde(rename = "js", alias = "javascript")]
    Js,
    /// TypeScript.
    #[serde(rename = "ts", alias = "typescript")]
    Ts,
}

/// What `POST /v1/execute` runs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snippet {
    /// A module, a function expression, or the body of an async function of `(input, env, ctx)`.
    pub code: String,
    /// Its language.
    #[serde(default)]
    pub language: Language,
    /// Modules that it may import.
    #[serde(default)]
    pub modules: Modules,
}

/// What a snippet is.
enum Shape {
    /// A module.
    Module,
    /// A function expression that begins at this byte.
    Function(usize),
    /// Statements; the imports among them must move out.
    Body(Vec<Span>),
}

impl Snippet {
    /// A snippet without modules.
    #[must_use]
    pub fn new(code: impl Into<String>, language: Language) -> Self {
        Self { code: code.into(), language, modules: Modules::default() }
    }

    /// Worker code that runs the snippet, at the default compatibility date. The main module is `main.js` or
    /// `main.ts`.
    ///
    /// # Errors
    /// If the snippet has a syntax error, or cannot be parsed safely.
    pub fn into_code(self) -> Result<WorkerCode, CodeError> {
        let (name, dialect) = match self.language {
            Language::Js => ("main.js", Dialect::Js),
            Language::Ts => ("main.ts", Dialect::Ts),
        };
        let text: Arc<str> = Arc::from(self.code.as_str());
        let shape = match syntax::stack_levels(&Arc::from(name), &text, dialect)? {
            Some(levels) => syntax::with_stack(levels, || shape(name, &text, dialect.source_type()))??,
            // Too large and intricate to look into: only a module makes sense at that size.
            None => Shape::Module,
        };
        let source: Arc<str> = Arc::from(wrap(&self.code, &shape));
        let mut code = WorkerCode::new(name);
        code.modules = self.modules.0;
        let source = match self.language {
            Language::Js => ModuleSource::Js(source),
            Language::Ts => ModuleSource::Ts(source),
        };
        Ok(code.module(name, source))
    }
}

fn wrap(code: &str, shape: &Shape) -> String {
    match shape {
        Shape::Module => code.to_owned(),
        Shape::Function(begin) => format!("{}export default {}", &code[..*begin], &code[*begin..]),
        Shape::Body(imports) => {
            let mut body = String::with_capacity(code.len());
            let mut head = String::new();
            let mut at = 0;
            for span in imports {
                let (begin, end) = (span.start as usize, span.end as usize);
                let import = &code[begin..end];
                head.push_str(&import.replace(is_line_end, " "));
                head.push_str("; ");
                body.push_str(&code[at..begin]);
                body.extend(import.chars().filter(|c| is_line_end(*c)));
                at = end;
            }
            body.push_str(&code[at..]);
            // The line break keeps a comment at the end from swallowing the brace.
            format!("{head}export default async function (input, env, ctx) {{ {body}\n}}")
        }
    }
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

fn shape(name: &str, code: &str, source_type: SourceType) -> Result<Shape, CodeError> {
    let allocator = Allocator::default();
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed = Parser::new(&allocator, code, source_type).with_options(options).parse();
    if parsed.program.body.iter().any(is_export) {
        return Ok(Shape::Module);
    }
    if let [Statement::ExpressionStatement(statement)] = parsed.program.body.as_slice()
        && is_function(statement.expression.without_parentheses())
    {
        return Ok(Shape::Function(statement.expression.span().start as usize));
    }
    if let [statement] = parsed.program.body.as_slice()
        && matches!(statement, Statement::FunctionDeclaration(_))
    {
        return Ok(Shape::Function(statement.span().start as usize));
    }
    if parsed.diagnostics.has_errors() {
        // Refused here, as it was written: inside the wrapper `} f(); {` would be a module after all.
        return anonymous_function(code, source_type)
            .map(Shape::Function)
            .ok_or_else(|| syntax::first_error(&Arc::from(name), code, &parsed.diagnostics));
    }
    Ok(Shape::Body(parsed.program.body.iter().filter_map(|statement| hoistable(code, statement)).collect()))
}

/// Where `function (x) {…}` begins if the snippet is just that: no statement, but an expression in brackets.
fn anonymous_function(code: &str, source_type: SourceType) -> Option<usize> {
    let allocator = Allocator::default();
    let bracketed = format!("({}\n)", code.trim_end().trim_end_matches(';'));
    let parsed = Parser::new(&allocator, &bracketed, source_type).parse();
    let [Statement::ExpressionStatement(statement)] = parsed.program.body.as_slice() else { return None };
    let Expression::ParenthesizedExpression(ours) = &statement.expression else { return None };
    let fits = !parsed.diagnostics.has_errors() && is_function(&ours.expression);
    fits.then(|| (ours.expression.span().start as usize).saturating_sub(1))
}

fn is_export(statement: &Statement<'_>) -> bool {
    matches!(
        statement,
        Statement::ExportDefaultDeclaration(_)
            | Statement::ExportNamedDeclaration(_)
            | Statement::ExportAllDeclaration(_)
    )
}

fn is_function(expression: &Expression<'_>) -> bool {
    matches!(expression, Expression::ArrowFunctionExpression(_) | Expression::FunctionExpression(_))
}

/// The span of an import that can be written on one line. One with a comment stays, for V8 to refuse.
fn hoistable(code: &str, statement: &Statement<'_>) -> Option<Span> {
    let Statement::ImportDeclaration(import) = statement else { return None };
    let text = code.get(import.span.start as usize..import.span.end as usize)?;
    (!text.contains("//") || !text.contains(is_line_end)).then_some(import.span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::ModuleBody;

    fn source(code: &str, language: Language) -> String {
        let code = Snippet::new(code, language).into_code().unwrap();
        match &code.modules[0].1 {
            ModuleSource::Js(text) | ModuleSource::Ts(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wraps_by_shape() {
        for (code, want) in [
            ("export default () => 1", "export default () => 1"),
            ("const f = 1; export { f as default }", "const f = 1; export { f as default }"),
            ("async () => 1", "export default async () => 1"),
            ("// hi\n(x => x);\n// bye", "// hi\nexport default (x => x);\n// bye"),
            (
                "\nasync function (input) { return input }",
                "\nexport default async function (input) { return input }",
            ),
            ("function main(input) {}", "export default function main(input) {}"),
            ("return 1 + 1", "export default async function (input, env, ctx) { return 1 + 1\n}"),
            ("", "export default async function (input, env, ctx) { \n}"),
            (
                "const x = await f();\nreturn x // done",
                "export default async function (input, env, ctx) { const x = await f();\nreturn x // done\n}",
            ),
            (
                "import a from './a.js'\nimport {\n  b\n} from 'b.js';\nreturn a + b",
                "import a from './a.js'; import {   b } from 'b.js';; export default async function \
                 (input, env, ctx) { \n\n\n\nreturn a + b\n}",
            ),
        ] {
            assert_eq!(source(code, Language::Js), want);
        }
        assert_eq!(
            source("(x: number): number => x", Language::Ts),
            "export default (x: number): number => x"
        );
    }

    #[test]
    fn lines_stay_and_the_result_builds() {
        for code in [
            "const a = 1\n\nreturn a",
            "import a from './a.js'\nreturn a",
            "async () => {\n  return 1\n}",
            "export default async (input) => input",
            "async function f() {}",
        ] {
            for language in [Language::Js, Language::Ts] {
                let wrapped = source(code, language);
                assert_eq!(wrapped.lines().count().max(code.lines().count()), wrapped.lines().count());
                for (line, text) in code.lines().enumerate().skip(1) {
                    assert_eq!(wrapped.lines().nth(line), Some(text), "{code}");
                }
            }
            let mut snippet = Snippet::new(code, Language::Ts);
            snippet.modules = Modules(vec![("a.js".into(), ModuleSource::Plain("export default 1".into()))]);
            let built = snippet.into_code().unwrap().build();
            let bundle = built.unwrap();
            assert!(matches!(&bundle.main().body, ModuleBody::Js(text) if text.contains("export default")));
        }
    }

    #[test]
    fn errors_are_those_of_the_snippet_as_written() {
        for (code, place) in [
            ("return (", "main.js:1:9"),
            ("const a = 1;\n} evil(); {", "main.js:2:1"),
            ("x) ; (y", "main.js:1:2"),
            ("function(){} ), (1", "main.js:1:9"),
        ] {
            let error = Snippet::new(code, Language::Js).into_code().unwrap_err();
            assert_eq!(error.code(), "code_syntax");
            assert!(error.to_string().starts_with(&format!("{place}: SyntaxError: ")), "{error}");
        }
    }

    #[test]
    fn reads_json() {
        let snippet: Snippet =
            crate::parse_json(br#"{"code":"return 1","language":"typescript","modules":{"a":{"text":"x"}}}"#)
                .unwrap();
        assert_eq!(snippet.language, Language::Ts);
        assert_eq!(snippet.modules.0.len(), 1);
    }
}
