//! A step in any language as files and a command line.
//!
//! | language | files | command |
//! |---|---|---|
//! | js, ts | its modules, a harness that calls the default export | `node atoll-step.mjs` |
//! | python | `main.py` | `python3 main.py` |
//! | shell | `main.sh` | `sh main.sh` |
//! | command | none | the line, split at blanks outside of quotes |
//!
//! Every step finds its input in `$ATOLL_INPUT` and may write a result to `$ATOLL_RESULT`, both JSON files; the
//! harness does it for JavaScript.

use atoll_loader::bundle::{Bundle, ModuleBody};
use bytes::Bytes;

use super::runner::{INPUT_FILE, RESULT_FILE, STEP_DIR};
use super::step::Language;

/// Most words of a command line.
const WORDS_MAX: usize = 4_096;
/// Name of the harness.
const HARNESS_FILE: &str = "atoll-step.mjs";
/// Calls the default export and keeps its result. Its own names cannot collide: it is a module of its own.
const HARNESS: &str = include_str!("harness.mjs");

/// Files and a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Files by relative path.
    pub files: Vec<(String, Bytes)>,
    /// Environment.
    pub env: Vec<(String, String)>,
}

/// Why a step cannot be lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// A quote that is never closed.
    #[error("a quote in the command is not closed")]
    OpenQuote,
    /// Nothing to run.
    #[error("the command is empty")]
    Empty,
    /// More words than any command has.
    #[error("the command has more than 4096 words")]
    TooManyWords,
    /// Text that no program can be given.
    #[error("the command holds a NUL character")]
    Nul,
}

/// A script or a command.
///
/// # Errors
/// If a command cannot be split into words.
pub fn script(language: Language, code: &str, input: &str) -> Result<Lowered, LowerError> {
    let (argv, file) = match language {
        Language::Python => (vec!["python3".to_owned(), "main.py".to_owned()], Some("main.py")),
        Language::Shell => (vec!["sh".to_owned(), "main.sh".to_owned()], Some("main.sh")),
        Language::Command | Language::Js | Language::Ts => (words(code)?, None),
    };
    let files = file.map(|name| (name.to_owned(), Bytes::copy_from_slice(code.as_bytes())));
    Ok(finish(argv, files.into_iter().collect(), input))
}

/// A bundle of JavaScript, types stripped already. `env` is what its second argument holds, as JSON.
#[must_use]
pub fn bundle(bundle: &Bundle, env: &str, input: &str) -> Lowered {
    let mut files: Vec<(String, Bytes)> = bundle.modules().iter().map(file_of).collect();
    // An ending that Node.js takes for a module, whatever the main module's own is.
    let main = &bundle.main().name;
    let folder = main.rfind('/').map_or("", |at| &main[..=at]);
    let entry = format!("{folder}atoll-main.{}", if is_cjs(bundle) { "cjs" } else { "mjs" });
    if let Some((_, body)) = files.iter().find(|(name, _)| **name == **main) {
        let body = body.clone();
        files.push((entry.clone(), body));
    }
    let has_package = files.iter().any(|(name, _)| name == "package.json");
    if !has_package {
        files.push(("package.json".to_owned(), Bytes::from_static(b"{\"type\":\"module\"}")));
    }
    files.push((HARNESS_FILE.to_owned(), Bytes::from_static(HARNESS.as_bytes())));
    files.push(("env.json".to_owned(), Bytes::copy_from_slice(env.as_bytes())));
    let argv = vec!["node".to_owned(), HARNESS_FILE.to_owned(), format!("./{entry}")];
    finish(argv, files, input)
}

fn is_cjs(bundle: &Bundle) -> bool {
    matches!(bundle.main().body, ModuleBody::Cjs(_))
}

fn file_of(module: &atoll_loader::bundle::Module) -> (String, Bytes) {
    let text = |text: &std::sync::Arc<str>| Bytes::copy_from_slice(text.as_bytes());
    let body = match &module.body {
        ModuleBody::Js(body) | ModuleBody::Cjs(body) | ModuleBody::Text(body) | ModuleBody::Json(body) => {
            text(body)
        }
        ModuleBody::Data(body) | ModuleBody::Wasm(body) => body.clone(),
    };
    (module.name.to_string(), body)
}

fn finish(argv: Vec<String>, mut files: Vec<(String, Bytes)>, input: &str) -> Lowered {
    files.push((INPUT_FILE.to_owned(), Bytes::copy_from_slice(input.as_bytes())));
    let env = vec![
        ("ATOLL_INPUT".to_owned(), format!("{STEP_DIR}/{INPUT_FILE}")),
        ("ATOLL_RESULT".to_owned(), format!("{STEP_DIR}/{RESULT_FILE}")),
    ];
    Lowered { argv, files, env }
}

/// Splits at blanks outside of quotes; a backslash keeps the next character outside of single quotes. Nothing
/// else of a shell: no variables, no patterns, no pipes.
fn words(line: &str) -> Result<Vec<String>, LowerError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\0', _) => return Err(LowerError::Nul),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().push(characters.next().ok_or(LowerError::OpenQuote)?);
            }
            (c @ ('\'' | '"'), None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
        if words.len() > WORDS_MAX {
            return Err(LowerError::TooManyWords);
        }
    }
    if quote.is_some() {
        return Err(LowerError::OpenQuote);
    }
    words.extend(word);
    if words.is_empty() { Err(LowerError::Empty) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_become_words() {
        for (line, expect) in [
            ("ls -l", &["ls", "-l"][..]),
            ("  echo  'a b'\t\"c d\" e\\ f ", &["echo", "a b", "c d", "e f"]),
            ("printf '%s\\n' \"\\\"\"", &["printf", "%s\\n", "\""]),
            ("x '' y''z", &["x", "", "yz"]),
            ("echo $HOME; rm *", &["echo", "$HOME;", "rm", "*"]),
        ] {
            assert_eq!(words(line).unwrap(), expect, "{line}");
        }
        for (line, error) in [
            ("", LowerError::Empty),
            (" \n", LowerError::Empty),
            ("echo 'a", LowerError::OpenQuote),
            ("echo \\", LowerError::OpenQuote),
            ("a\0b", LowerError::Nul),
        ] {
            assert_eq!(words(line), Err(error), "{line:?}");
        }
        assert_eq!(words(&"x ".repeat(WORDS_MAX + 2)), Err(LowerError::TooManyWords));
    }
}
