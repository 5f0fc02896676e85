//! Which modules an isolate offers, in one table: when the isolate learns a `node:` module, its line changes here.
//!
//! An isolate has them under the compatibility flag `nodejs_compat`, which the date of a step without one implies. Some
//! that need more than an isolate has can be imported there all the same (`node:fs`, `node:http`, `node:process`), for
//! packages that import them without need: what they do is not what the author of a step expects of them.

use super::missing::Missing;

/// Where a module can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// In an isolate too.
    Isolate,
    /// Only in a sandbox, though it needs no operating system: the isolate does not offer it.
    NotOffered,
    /// Only in a sandbox, because it needs this.
    Needs(Missing),
}

use Missing::{Filesystem, NativeModule, Process, Sockets};
use Offer::{Isolate, Needs, NotOffered};

/// Node.js's own modules, by name without `node:`, in alphabetical order.
/// Source: <https://nodejs.org/api/module.html#modulebuiltinmodules>.
pub const NODE_MODULES: &[(&str, Offer)] = &[
    ("assert", Isolate),
    ("async_hooks", Isolate),
    ("buffer", Isolate),
    ("child_process", Needs(Process)),
    ("cluster", Needs(Process)),
    ("console", Isolate),
    ("constants", Isolate),
    ("crypto", Isolate),
    ("dgram", Needs(Sockets)),
    ("diagnostics_channel", Isolate),
    ("dns", Needs(Sockets)),
    ("domain", NotOffered),
    ("events", Isolate),
    ("fs", Needs(Filesystem)),
    ("http", Needs(Sockets)),
    ("http2", Needs(Sockets)),
    ("https", Needs(Sockets)),
    ("inspector", Needs(Process)),
    ("module", Needs(Filesystem)),
    ("net", Needs(Sockets)),
    ("os", Needs(Process)),
    ("path", Isolate),
    ("perf_hooks", Isolate),
    ("process", Needs(Process)),
    ("punycode", Isolate),
    ("querystring", Isolate),
    ("readline", Needs(Process)),
    ("repl", Needs(Process)),
    ("sea", Needs(Process)),
    ("sqlite", Needs(Filesystem)),
    ("stream", Isolate),
    ("string_decoder", Isolate),
    ("sys", Isolate),
    ("test", Needs(Process)),
    ("timers", Isolate),
    ("tls", Needs(Sockets)),
    ("trace_events", Needs(Process)),
    ("tty", Needs(Process)),
    ("url", Isolate),
    ("util", Isolate),
    ("v8", Needs(Process)),
    ("vm", NotOffered),
    ("wasi", Needs(Filesystem)),
    ("worker_threads", Needs(Process)),
    ("zlib", NotOffered),
];

/// Well-known packages that are native modules or start processes: they need a sandbox even when their JavaScript
/// is bundled.
const NATIVE_PACKAGES: &[&str] = &[
    "bcrypt",
    "better-sqlite3",
    "canvas",
    "cpu-features",
    "esbuild",
    "node-gyp-build",
    "node-pty",
    "playwright",
    "puppeteer",
    "sharp",
    "sqlite3",
];

/// What importing a specifier asks for. Names of the step's own modules do not come here.
#[must_use]
pub fn offer(specifier: &str) -> Offer {
    let (bare, is_node) = match specifier.strip_prefix("node:") {
        Some(bare) => (bare, true),
        None => (specifier, false),
    };
    let package = bare.split('/').next().unwrap_or(bare);
    if let Ok(at) = NODE_MODULES.binary_search_by_key(&package, |(name, _)| name) {
        return NODE_MODULES[at].1;
    }
    if is_node {
        return NotOffered;
    }
    if bare.ends_with(".node") || NATIVE_PACKAGES.contains(&package) {
        return Needs(NativeModule);
    }
    // A file that is not part of the step, a URL, or a module of Workers: no sandbox has it, so the isolate says
    // what is wrong.
    if bare.starts_with(['.', '/']) || package.contains(':') {
        return Isolate;
    }
    // A package that is not part of the step: a sandbox may have it installed.
    NotOffered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(NODE_MODULES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(NATIVE_PACKAGES.is_sorted());
    }

    #[test]
    fn specifiers_lead_to_their_line() {
        for (specifier, expect) in [
            ("node:fs", Needs(Filesystem)),
            ("fs", Needs(Filesystem)),
            ("node:fs/promises", Needs(Filesystem)),
            ("child_process", Needs(Process)),
            ("node:net", Needs(Sockets)),
            ("node:path", Isolate),
            ("stream/promises", Isolate),
            ("node:vm", NotOffered),
            ("node:no_such_module", NotOffered),
            ("sharp", Needs(NativeModule)),
            ("./build/Release/addon.node", Needs(NativeModule)),
            ("left-pad", NotOffered),
            ("cloudflare:workers", Isolate),
            ("./missing.js", Isolate),
            ("https://example.com/x.js", Isolate),
            ("", NotOffered),
        ] {
            assert_eq!(offer(specifier), expect, "{specifier}");
        }
    }
}
