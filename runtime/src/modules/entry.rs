//! A bundle that several isolates share, and what the first of them leaves for the next.

use std::sync::{Arc, OnceLock};

use atoll_loader::bundle::{Bundle, ModuleBody};
use sourcemap::SourceMap;

/// A bundle as the host keeps it: with the code caches that its first run leaves for the next ones.
pub(crate) struct Entry {
    pub(crate) bundle: Arc<Bundle>,
    pub(super) caches: Vec<OnceLock<Vec<u8>>>,
    pub(super) wasm: Vec<OnceLock<v8::CompiledWasmModule>>,
    /// Source maps, parsed when the first stack needs them; `None` where there is none or it cannot be read.
    maps: Vec<OnceLock<Option<SourceMap>>>,
}

impl Entry {
    pub(crate) fn new(bundle: Arc<Bundle>) -> Arc<Self> {
        let count = bundle.modules().len();
        Arc::new(Self {
            bundle,
            caches: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            wasm: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            maps: std::iter::repeat_with(OnceLock::new).take(count).collect(),
        })
    }

    pub(super) fn source_map(&self, index: usize) -> Option<&SourceMap> {
        let parse = || {
            let module = &self.bundle.modules()[index];
            // The map may come from anyone: a parser that panics here would take the process.
            std::panic::catch_unwind(|| match &module.source_map {
                Some(json) => SourceMap::from_slice(json.as_bytes()).ok(),
                None => inline_map(&module.body),
            })
            .ok()
            .flatten()
        };
        self.maps[index].get_or_init(parse).as_ref()
    }
}

/// The source map that a bundler left in the code's last lines as a `data:` URL.
fn inline_map(body: &ModuleBody) -> Option<SourceMap> {
    const MARK: &str = "//# sourceMappingURL=data:";
    let (ModuleBody::Js(code) | ModuleBody::Cjs(code)) = body else { return None };
    let at = code.rfind(MARK)? + MARK.len() - "data:".len();
    match sourcemap::decode_data_url(code[at..].lines().next()?.trim()).ok()? {
        sourcemap::DecodedMap::Regular(map) => Some(map),
        _ => None,
    }
}
