//! Which modules a source imports: static imports, re-exports, and `import()` and `require()` of a plain string.

use std::sync::Arc;

use oxc_allocator::Allocator;
use oxc_ast::ast::{Program, Statement};
use oxc_parser::{ParseOptions, Parser};
use oxc_span::{GetSpan, SourceType};

use crate::error::CodeError;
use crate::syntax::{self, Dialect};

/// Most specifiers taken from one source.
const SPECIFIERS_MAX: usize = 10_000;

/// What a source imports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Imports {
    /// Specifiers that must resolve.
    pub(crate) required: Vec<String>,
    /// Specifiers that may (in `import()`, `require()`, or found without parsing).
    pub(crate) optional: Vec<String>,
    /// Whether the source has a default export.
    pub(crate) has_default: bool,
}

/// Reads the imports of a source. Syntax errors are not its business; the build reports them.
pub(crate) fn of(name: &Arc<str>, text: &Arc<str>, dialect: Dialect) -> Result<Imports, CodeError> {
    match syntax::stack_levels(name, text, dialect)? {
        Some(levels) => syntax::with_stack(levels, || parse(text, dialect.source_type())),
        None => Ok(guess(text)),
    }
}

fn parse(text: &str, source_type: SourceType) -> Imports {
    let allocator = Allocator::default();
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed = Parser::new(&allocator, text, source_type).with_options(options).parse();
    let record = &parsed.module_record;
    let mut imports = Imports { has_default: exports_default(&parsed.program), ..Imports::default() };
    for (specifier, requests) in &record.requested_modules {
        // `import type` leaves nothing behind when types are stripped.
        if requests.iter().any(|request| !request.is_type) {
            imports.required.push(specifier.to_string());
        }
    }
    imports.required.sort();
    imports.required.truncate(SPECIFIERS_MAX);
    for dynamic in &record.dynamic_imports {
        let span = dynamic.module_request.span();
        let literal = text.get(span.start as usize..span.end as usize).and_then(unquote);
        imports.optional.extend(literal);
    }
    if source_type.is_commonjs() || source_type.is_script() {
        imports.optional.extend(quoted_after(text, "require("));
    }
    imports.optional.truncate(SPECIFIERS_MAX);
    imports
}

fn exports_default(program: &Program<'_>) -> bool {
    program.body.iter().any(|statement| match statement {
        Statement::ExportDefaultDeclaration(_) => true,
        Statement::ExportNamedDeclaration(export) => {
            export.specifiers.iter().any(|specifier| specifier.exported.name() == "default")
        }
        _ => false,
    })
}

/// Imports of a source that cannot be parsed safely, found by their look. Too many rather than too few.
fn guess(text: &str) -> Imports {
    let mut imports = Imports { has_default: true, ..Imports::default() };
    for word in ["import", "from", "import(", "require("] {
        imports.optional.extend(quoted_after(text, word));
    }
    imports.optional.truncate(SPECIFIERS_MAX);
    imports
}

fn quoted_after(text: &str, word: &str) -> Vec<String> {
    memchr::memmem::find_iter(text.as_bytes(), word.as_bytes())
        .filter_map(|at| {
            let rest = text[at + word.len()..].trim_start();
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let end = rest[1..].find([quote, '\n'])?;
            unquote(&rest[..end + 2])
        })
        .take(SPECIFIERS_MAX)
        .collect()
}

/// The text of a string literal without escapes.
fn unquote(literal: &str) -> Option<String> {
    let quote = literal.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let inner = literal.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(['\\', quote, '\n', '$'])).then(|| inner.to_owned())
}
