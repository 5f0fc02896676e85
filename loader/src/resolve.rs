//! Module resolution: names of this bundle and builtins, nothing else.

use crate::bundle::Bundle;
use crate::name::scheme;

/// Schemes whose specifiers are absolute and belong to the runtime.
const BUILTIN_SCHEMES: [&str; 3] = ["node", "cloudflare", "workerd"];

/// Node.js's modules that need no `node:` in front under `nodejs_compat_v2`, in alphabetical order.
const NODE_MODULES: [&str; 51] = [
    "node:_stream_duplex",
    "node:_stream_passthrough",
    "node:_stream_readable",
    "node:_stream_transform",
    "node:_stream_writable",
    "node:assert",
    "node:assert/strict",
    "node:async_hooks",
    "node:buffer",
    "node:child_process",
    "node:console",
    "node:constants",
    "node:crypto",
    "node:dgram",
    "node:diagnostics_channel",
    "node:dns",
    "node:dns/promises",
    "node:events",
    "node:fs",
    "node:fs/promises",
    "node:http",
    "node:http2",
    "node:https",
    "node:module",
    "node:net",
    "node:os",
    "node:path",
    "node:path/posix",
    "node:path/win32",
    "node:perf_hooks",
    "node:process",
    "node:punycode",
    "node:querystring",
    "node:readline",
    "node:stream",
    "node:stream/consumers",
    "node:stream/promises",
    "node:stream/web",
    "node:string_decoder",
    "node:sys",
    "node:timers",
    "node:timers/promises",
    "node:tls",
    "node:tty",
    "node:url",
    "node:util",
    "node:util/types",
    "node:v8",
    "node:vm",
    "node:worker_threads",
    "node:zlib",
];

/// The full specifier of a bare name that is one of Node.js's modules.
pub(crate) fn node_module(name: &str) -> Option<&'static str> {
    let bare = |full: &&str| full["node:".len()..].cmp(name);
    NODE_MODULES.binary_search_by(bare).ok().map(|at| NODE_MODULES[at])
}

/// What a specifier means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved<'a> {
    /// Index of a module of the bundle.
    Module(usize),
    /// A builtin by its full specifier; the runtime decides whether it exists.
    Builtin(&'a str),
}

/// A specifier that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("No such module \"{specifier}\".\n  imported from \"{referrer}\"")]
pub struct ResolveError {
    /// The path that was looked for, or the specifier where it cannot be a path.
    pub specifier: String,
    /// Who asked.
    pub referrer: String,
}

impl Bundle {
    /// Resolves `specifier` as imported by the module `referrer`. Everything that is not a builtin resolves
    /// against the referrer's directory, bare names included; under `nodejs_compat_v2`, the names of Node.js's modules
    /// are theirs, whatever the bundle has.
    ///
    /// # Errors
    /// If the bundle has no such module; also for `http:`, `file:`, `data:`, `blob:` and every other scheme.
    pub fn resolve<'a>(&self, referrer: &str, specifier: &'a str) -> Result<Resolved<'a>, ResolveError> {
        let not_found =
            |path: &str| ResolveError { specifier: path.to_owned(), referrer: referrer.to_owned() };
        match scheme(specifier) {
            Some(scheme) if BUILTIN_SCHEMES.contains(&scheme) => return Ok(Resolved::Builtin(specifier)),
            Some(_) => return Err(not_found(specifier)),
            None => {}
        }
        if let Some(full) = node_module(specifier)
            && self.compatibility().has("nodejs_compat_v2")
        {
            return Ok(Resolved::Builtin(full));
        }
        let path = join(referrer, specifier).ok_or_else(|| not_found(specifier))?;
        self.index_of(&path).map(Resolved::Module).ok_or_else(|| not_found(&path))
    }
}

/// The path of `specifier` seen from `referrer`, or `None` if it leaves the root.
pub(crate) fn join(referrer: &str, specifier: &str) -> Option<String> {
    let mut segments: Vec<&str> = Vec::new();
    if !specifier.starts_with('/') {
        segments.extend(referrer.split('/'));
        segments.pop();
    }
    for segment in specifier.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            segment => segments.push(segment),
        }
    }
    Some(segments.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code::{ModuleSource, WorkerCode};

    fn bundle(names: &[&str]) -> Bundle {
        let mut code = WorkerCode::new(names[0]);
        for name in names {
            code = code.js(*name, "export default 1");
        }
        code.build().unwrap()
    }

    #[test]
    fn resolves_against_the_referrers_directory() {
        let bundle = bundle(&["executor.js", "helpers.js", "lib/a.js", "lib/b.js", "lib/t.ts"]);
        let name = |referrer: &str, specifier: &str| match bundle.resolve(referrer, specifier) {
            Ok(Resolved::Module(index)) => bundle.module(index).unwrap().name.to_string(),
            other => format!("{other:?}"),
        };
        for (referrer, specifier, want) in [
            ("executor.js", "helpers.js", "helpers.js"),
            ("executor.js", "./helpers.js", "helpers.js"),
            ("executor.js", "/lib/a.js", "lib/a.js"),
            ("lib/a.js", "b.js", "lib/b.js"),
            ("lib/a.js", "./b.js", "lib/b.js"),
            ("lib/a.js", "../helpers.js", "helpers.js"),
            ("lib/a.js", ".././lib/t.ts", "lib/t.ts"),
            ("executor.js", "lib//a.js", "lib/a.js"),
        ] {
            assert_eq!(name(referrer, specifier), want, "{referrer} {specifier}");
        }
        for builtin in ["node:fs", "cloudflare:workers", "workerd:x"] {
            assert_eq!(bundle.resolve("lib/a.js", builtin), Ok(Resolved::Builtin(builtin)));
        }
    }

    #[test]
    fn bare_names_of_node_are_nodes_where_it_is_compatible() {
        assert!(NODE_MODULES.is_sorted());
        let of = |date: &str| {
            let empty = || ModuleSource::Js("".into());
            let mut code = WorkerCode::new("worker.js")
                .module("worker.js", empty())
                .module("events", empty())
                .module("lib/path", empty());
            code.compatibility_date = date.to_owned();
            code.build().unwrap()
        };
        let (new, old) = (of("2026-08-04"), of("2026-08-03"));
        for (specifier, full) in
            [("events", "node:events"), ("fs/promises", "node:fs/promises"), ("sys", "node:sys")]
        {
            assert_eq!(new.resolve("worker.js", specifier), Ok(Resolved::Builtin(full)));
        }
        assert_eq!(new.resolve("lib/a.js", "path"), Ok(Resolved::Builtin("node:path")));
        for (referrer, specifier) in
            [("worker.js", "./events"), ("lib/a.js", "./path"), ("lib/a.js", "../events")]
        {
            assert!(matches!(new.resolve(referrer, specifier), Ok(Resolved::Module(_))), "{specifier}");
        }
        assert!(matches!(old.resolve("worker.js", "events"), Ok(Resolved::Module(_))));
        assert!(old.resolve("worker.js", "buffer").is_err() && new.resolve("worker.js", "hono").is_err());
    }

    #[test]
    fn says_exactly_what_is_missing() {
        let bundle = bundle(&["worker.js", "lib/a.js"]);
        for (referrer, specifier, path) in [
            ("worker.js", "./missing.js", "missing.js"),
            ("lib/a.js", "missing.js", "lib/missing.js"),
            ("lib/a.js", "worker.js", "lib/worker.js"),
            ("worker.js", "../worker.js", "../worker.js"),
            ("worker.js", "lib/a", "lib/a"),
            ("worker.js", "", ""),
            ("worker.js", "http://x/y.js", "http://x/y.js"),
            ("worker.js", "file:///etc/passwd", "file:///etc/passwd"),
            ("worker.js", "data:text/javascript,1", "data:text/javascript,1"),
            ("worker.js", "blob:x", "blob:x"),
            ("worker.js", "ext:core/ops", "ext:core/ops"),
            ("worker.js", "NODE:fs", "NODE:fs"),
        ] {
            let error = bundle.resolve(referrer, specifier).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("No such module \"{path}\".\n  imported from \"{referrer}\"")
            );
        }
    }

    proptest! {
        #[test]
        fn never_leaves_the_root(referrer in "[a-c./]{0,12}", specifier in "[a-c./%\\\\:]{0,16}") {
            if let Some(path) = join(&referrer, &specifier) {
                let tail = if specifier.starts_with('/') { path.as_str() } else { path.trim_start_matches('/') };
                // `..` in a path can only come from a referrer that is no module name.
                if !referrer.split('/').any(|s| s == "..") {
                    prop_assert!(!tail.split('/').any(|s| s == ".."), "{path}");
                }
            }
        }
    }
}
