//! The immutable, content-addressed form of a worker's code.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::encoding;

/// SHA-256 over a bundle's canonical encoding: names the code in caches, logs and the audit trail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CodeHash(pub [u8; 32]);

impl CodeHash {
    /// The hash of an encoded bundle.
    #[must_use]
    pub fn of(encoded: &[u8]) -> Self {
        Self(Sha256::digest(encoded).into())
    }
}

impl fmt::Display for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeHash({self})")
    }
}

/// A module body, ready for V8: TypeScript is already stripped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleBody {
    /// An ECMAScript module.
    Js(Arc<str>),
    /// A CommonJS module.
    Cjs(Arc<str>),
    /// Default export: a string.
    Text(Arc<str>),
    /// Default export: an ArrayBuffer.
    Data(Bytes),
    /// Default export: the parsed value.
    Json(Arc<str>),
    /// Default export: a `WebAssembly.Module`.
    Wasm(Bytes),
}

impl ModuleBody {
    /// The body's bytes: UTF-8 for the text kinds.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Js(text) | Self::Cjs(text) | Self::Text(text) | Self::Json(text) => text.as_bytes(),
            Self::Data(bytes) | Self::Wasm(bytes) => bytes,
        }
    }

    /// The kind's name as in worker code: `js`, `cjs`, `text`, `data`, `json` or `wasm`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Js(_) => "js",
            Self::Cjs(_) => "cjs",
            Self::Text(_) => "text",
            Self::Data(_) => "data",
            Self::Json(_) => "json",
            Self::Wasm(_) => "wasm",
        }
    }
}

/// One named module of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Normalised name, relative to the bundle's root, `/`-separated, no leading `./`.
    pub name: Arc<str>,
    /// The body.
    pub body: ModuleBody,
    /// Source map (JSON) from the stripped or bundled body to the author's file, if one is known.
    pub source_map: Option<Arc<str>>,
}

/// Compatibility switches that change how the runtime behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatibility {
    /// `YYYY-MM-DD`.
    pub date: String,
    /// Enabled flags, explicit ones plus those that the date implies, sorted. Disabling flags are not in it:
    /// what they disable is absent.
    pub flags: Vec<String>,
}

impl Compatibility {
    /// Whether a flag is in force.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.binary_search_by(|f| f.as_str().cmp(flag)).is_ok()
    }
}

/// Validated code. Made only by this crate's builders, so holding one proves the checks ran.
/// Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct Bundle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hash: CodeHash,
    main: usize,
    modules: Vec<Module>,
    by_name: HashMap<Arc<str>, usize>,
    compatibility: Compatibility,
    encoded: Bytes,
}

impl PartialEq for Bundle {
    /// Equal content: the hash covers all of it.
    fn eq(&self, other: &Self) -> bool {
        self.inner.hash == other.inner.hash
    }
}

impl Eq for Bundle {}

/// The checked parts of a bundle, before they are hashed. Names are unique and in normal form, `main` is the
/// index of an ES module, and `modules` is sorted by name.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) main: usize,
    pub(crate) modules: Vec<Module>,
    pub(crate) compatibility: Compatibility,
}

impl Bundle {
    pub(crate) fn from_parts(parts: Parts) -> Self {
        let encoded = encoding::encode(&parts);
        Self::with_encoding(parts, CodeHash::of(&encoded), encoded)
    }

    pub(crate) fn with_encoding(parts: Parts, hash: CodeHash, encoded: Bytes) -> Self {
        let Parts { main, modules, compatibility } = parts;
        let by_name = modules.iter().enumerate().map(|(index, m)| (m.name.clone(), index)).collect();
        Self { inner: Arc::new(Inner { hash, main, modules, by_name, compatibility, encoded }) }
    }

    /// The content address.
    #[must_use]
    pub fn hash(&self) -> CodeHash {
        self.inner.hash
    }

    /// The main module.
    #[must_use]
    pub fn main(&self) -> &Module {
        &self.inner.modules[self.inner.main]
    }

    /// Index of the main module.
    #[must_use]
    pub fn main_index(&self) -> usize {
        self.inner.main
    }

    /// One module by its index.
    #[must_use]
    pub fn module(&self, index: usize) -> Option<&Module> {
        self.inner.modules.get(index)
    }

    /// Index of the module of this exact name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.inner.by_name.get(name).copied()
    }

    /// All modules, sorted by name, so that the same code always has the same hash.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.inner.modules
    }

    /// The compatibility settings.
    #[must_use]
    pub fn compatibility(&self) -> &Compatibility {
        &self.inner.compatibility
    }

    /// The canonical encoding, whose SHA-256 is [`Bundle::hash`]. Costs nothing: it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.inner.encoded.clone()
    }
}
