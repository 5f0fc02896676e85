//! Checks of one module's source that need no parser of JavaScript.

use std::sync::Arc;

use memchr::memmem;

use super::{CheckConfig, Draft, DraftBody};
use crate::error::{CodeError, Place};
use crate::limits::JSON_DEPTH_MAX;

const WASM_MAGIC: &[u8] = b"\0asm";

/// Where the byte at `offset` is, for people.
pub(crate) fn place(name: &Arc<str>, source: &str, offset: usize) -> Place {
    let mut offset = offset.min(source.len());
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &source[..offset];
    let line = 1 + memchr::memchr_iter(b'\n', before.as_bytes()).count();
    let line_begin = before.rfind('\n').map_or(0, |at| at + 1);
    let column = 1 + before[line_begin..].chars().count();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { module: name.clone(), line: number(line), column: number(column) }
}

fn source(draft: &Draft) -> Option<&str> {
    match &draft.body {
        DraftBody::Js(text) | DraftBody::Cjs(text) | DraftBody::Ts(text) => Some(text),
        _ => None,
    }
}

/// The operator's bounds on the length of a source and of its lines.
pub(super) fn length(draft: &Draft, config: &CheckConfig) -> Result<(), CodeError> {
    let Some(text) = source(draft) else { return Ok(()) };
    if text.len() > config.source_bytes_max {
        let (bytes, bytes_max) = (text.len(), config.source_bytes_max);
        return Err(CodeError::SourceTooLarge { name: draft.name.clone(), bytes, bytes_max });
    }
    let Some(bytes_max) = config.line_bytes_max else { return Ok(()) };
    let mut begin = 0;
    for line in text.split('\n') {
        if line.len() > bytes_max {
            let place = place(&draft.name, text, begin);
            return Err(CodeError::LineTooLong { place, bytes: line.len(), bytes_max });
        }
        begin += line.len() + 1;
    }
    Ok(())
}

/// The operator's forbidden texts.
pub(super) fn forbidden(draft: &Draft, config: &CheckConfig) -> Result<(), CodeError> {
    let Some(text) = source(draft) else { return Ok(()) };
    for pattern in config.forbidden.iter().filter(|pattern| !pattern.text.is_empty()) {
        if let Some(offset) = memmem::find(text.as_bytes(), pattern.text.as_bytes()) {
            let place = place(&draft.name, text, offset);
            let pattern = pattern.name.as_ref().unwrap_or(&pattern.text).clone();
            return Err(CodeError::Forbidden { place, pattern });
        }
    }
    Ok(())
}

/// JSON must parse, WebAssembly must look like it.
pub(super) fn data(draft: &Draft) -> Result<(), CodeError> {
    match &draft.body {
        DraftBody::Json(text) => json(&draft.name, text),
        DraftBody::Wasm(bytes) if !bytes.starts_with(WASM_MAGIC) => Err(CodeError::Wasm(draft.name.clone())),
        _ => Ok(()),
    }
}

fn json(name: &Arc<str>, text: &str) -> Result<(), CodeError> {
    // The depth first: this parser skips values without recursion, V8's does not.
    if let Some(offset) = too_deep_at(text, JSON_DEPTH_MAX) {
        let message = format!("nested deeper than {JSON_DEPTH_MAX} levels");
        return Err(CodeError::Json { place: place(name, text, offset), message });
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let place =
                Place { module: name.clone(), line: number(error.line()), column: number(error.column()) };
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            Err(CodeError::Json { place, message })
        }
    }
}

/// The byte at which JSON text nests deeper than `depth_max`, if it does. Only exact for valid JSON, which is
/// enough: invalid JSON is refused anyway, and nothing here recurses.
pub(crate) fn too_deep_at(text: &str, depth_max: usize) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (offset, byte) in text.bytes().enumerate() {
        if in_string {
            (in_string, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return Some(offset);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}
