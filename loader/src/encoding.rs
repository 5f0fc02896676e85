//! The canonical bytes of a bundle: what is hashed, stored and sent through the wall.
//!
//! ```text
//! magic "ATB1" | date | u32 flags { flag } | u32 main | u32 modules { u8 kind | name | body | u8 map? | map }
//! ```
//! Every string and body is a `u32` length and its bytes; integers are little-endian. Equal bundles have equal
//! bytes, and there is only one way to write a bundle, so the decoder refuses every other.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::bundle::{Bundle, CodeHash, Compatibility, Module, ModuleBody, Parts};
use crate::limits::{CODE_BYTES_MAX, FRAME_BYTES_MAX, MIB, MODULES_MAX};
use crate::name;

const MAGIC: &[u8; 4] = b"ATB1";
/// Most flags in an encoding: the explicit ones plus all that a date can imply.
const FLAGS_MAX: usize = 1_000;
/// Largest encoding, in bytes; it must fit a frame of the seam together with the message around it.
pub const ENCODED_BYTES_MAX: usize = FRAME_BYTES_MAX - MIB;
const _: () = assert!(CODE_BYTES_MAX < ENCODED_BYTES_MAX);

/// Why bytes are not a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Over [`ENCODED_BYTES_MAX`].
    #[error("the encoded bundle is larger than {ENCODED_BYTES_MAX} bytes")]
    TooLarge,
    /// The bytes are not those that the hash names.
    #[error("the encoded bundle does not match its hash")]
    HashMismatch,
    /// Another format, or another version of it.
    #[error("the bytes are not an encoded bundle of this version")]
    Magic,
    /// The bytes end too early, go on too long, or hold text that is not UTF-8.
    #[error("the encoded bundle is malformed")]
    Malformed,
    /// Well-formed, but not what a builder makes: names, order, main module or sizes break the rules.
    #[error("the encoded bundle breaks the rules for bundles")]
    Invalid,
}

pub(crate) fn encode(parts: &Parts) -> Bytes {
    let mut out = BytesMut::with_capacity(capacity(parts));
    out.put_slice(MAGIC);
    put(&mut out, parts.compatibility.date.as_bytes());
    put_u32(&mut out, parts.compatibility.flags.len());
    for flag in &parts.compatibility.flags {
        put(&mut out, flag.as_bytes());
    }
    put_u32(&mut out, parts.main);
    put_u32(&mut out, parts.modules.len());
    for module in &parts.modules {
        out.put_u8(kind_byte(&module.body));
        put(&mut out, module.name.as_bytes());
        put(&mut out, module.body.as_bytes());
        match &module.source_map {
            None => out.put_u8(0),
            Some(map) => {
                out.put_u8(1);
                put(&mut out, map.as_bytes());
            }
        }
    }
    out.freeze()
}

fn capacity(parts: &Parts) -> usize {
    let modules: usize = parts
        .modules
        .iter()
        .map(|m| {
            16 + m.name.len() + m.body.as_bytes().len() + m.source_map.as_ref().map_or(0, |map| map.len())
        })
        .sum();
    let flags: usize = parts.compatibility.flags.iter().map(|flag| 4 + flag.len()).sum();
    64 + flags + modules
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.put_slice(bytes);
}

fn put_u32(out: &mut BytesMut, n: usize) {
    // The builders bound every count and length far below 4 GiB; saturating keeps a mistake decodable as one.
    out.put_u32_le(u32::try_from(n).unwrap_or(u32::MAX));
}

fn kind_byte(body: &ModuleBody) -> u8 {
    match body {
        ModuleBody::Js(_) => 0,
        ModuleBody::Cjs(_) => 1,
        ModuleBody::Text(_) => 2,
        ModuleBody::Data(_) => 3,
        ModuleBody::Json(_) => 4,
        ModuleBody::Wasm(_) => 5,
    }
}

impl Bundle {
    /// Reads a bundle whose hash is known. Binary bodies stay slices of `encoded`.
    ///
    /// The hash proves that the bytes are the ones meant; the rules are checked again all the same, because the
    /// bytes may come from a store or a peer.
    ///
    /// # Errors
    /// If the bytes are not exactly what [`Bundle::encode`] gave for a bundle of this hash.
    pub fn decode(encoded: Bytes, expected: CodeHash) -> Result<Self, DecodeError> {
        if encoded.len() > ENCODED_BYTES_MAX {
            return Err(DecodeError::TooLarge);
        }
        if CodeHash::of(&encoded) != expected {
            return Err(DecodeError::HashMismatch);
        }
        let parts = read(encoded.clone())?;
        Ok(Self::with_encoding(parts, expected, encoded))
    }
}

fn read(encoded: Bytes) -> Result<Parts, DecodeError> {
    let mut input = Reader { rest: encoded };
    if input.take(MAGIC.len()).ok().as_deref() != Some(MAGIC.as_slice()) {
        return Err(DecodeError::Magic);
    }
    let date = input.string()?;
    let flag_count = input.count(FLAGS_MAX)?;
    let flags = (0..flag_count).map(|_| input.string()).collect::<Result<Vec<_>, _>>()?;
    let main = input.count(MODULES_MAX)?;
    let module_count = input.count(MODULES_MAX)?;
    let modules = (0..module_count).map(|_| input.module()).collect::<Result<Vec<_>, _>>()?;
    if !input.rest.is_empty() {
        return Err(DecodeError::Malformed);
    }
    let parts = Parts { main, modules, compatibility: Compatibility { date, flags } };
    if keeps_the_rules(&parts) { Ok(parts) } else { Err(DecodeError::Invalid) }
}

fn keeps_the_rules(parts: &Parts) -> bool {
    let names_fit = parts.modules.iter().all(|m| name::fault(&m.name).is_none());
    let sorted = parts.modules.windows(2).all(|pair| pair[0].name < pair[1].name);
    let flags_sorted = parts.compatibility.flags.windows(2).all(|pair| pair[0] < pair[1]);
    let main_is_js = parts.modules.get(parts.main).is_some_and(|m| matches!(m.body, ModuleBody::Js(_)));
    names_fit && sorted && flags_sorted && main_is_js
}

struct Reader {
    rest: Bytes,
}

impl Reader {
    fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.rest.len() {
            return Err(DecodeError::Malformed);
        }
        Ok(self.rest.split_to(len))
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Result<usize, DecodeError> {
        let bytes = self.take(4)?;
        let n = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        usize::try_from(n).map_err(|_| DecodeError::Malformed)
    }

    fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        self.u32().and_then(|n| if n > max { Err(DecodeError::Invalid) } else { Ok(n) })
    }

    fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()?;
        self.take(len)
    }

    fn string(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| DecodeError::Malformed)
    }

    fn text(&mut self) -> Result<Arc<str>, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(Arc::from).map_err(|_| DecodeError::Malformed)
    }

    fn module(&mut self) -> Result<Module, DecodeError> {
        let kind = self.byte()?;
        let name = self.text()?;
        let body = match kind {
            0 => ModuleBody::Js(self.text()?),
            1 => ModuleBody::Cjs(self.text()?),
            2 => ModuleBody::Text(self.text()?),
            3 => ModuleBody::Data(self.bytes()?),
            4 => ModuleBody::Json(self.text()?),
            5 => ModuleBody::Wasm(self.bytes()?),
            _ => return Err(DecodeError::Malformed),
        };
        let source_map = match self.byte()? {
            0 => None,
            1 => Some(self.text()?),
            _ => return Err(DecodeError::Malformed),
        };
        Ok(Module { name, body, source_map })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code::{ModuleSource, WorkerCode};

    fn sample() -> Bundle {
        WorkerCode::new("main.ts")
            .module(
                "main.ts",
                ModuleSource::Ts("import x from './x.json';\nexport default { a: x as number };".into()),
            )
            .module("x.json", ModuleSource::Json("[1, 2]".into()))
            .module("d", ModuleSource::Data(Bytes::from_static(&[0, 255, 7])))
            .module("t", ModuleSource::Text("héllo".into()))
            .module("c.cjs", ModuleSource::Cjs("module.exports = 1".into()))
            .module("w", ModuleSource::Wasm(Bytes::from_static(b"\0asm\x01\0\0\0")))
            .build()
            .unwrap()
    }

    #[test]
    fn survives_a_round_trip_and_shares_binary_bodies() {
        let bundle = sample();
        let encoded = bundle.encode();
        let again = Bundle::decode(encoded.clone(), bundle.hash()).unwrap();
        assert_eq!(again.modules(), bundle.modules());
        assert_eq!(again.main().name, bundle.main().name);
        assert_eq!(again.compatibility(), bundle.compatibility());
        assert_eq!(again.encode(), encoded);
        let ModuleBody::Data(data) = &again.module(again.index_of("d").unwrap()).unwrap().body else {
            panic!()
        };
        let range = encoded.as_ptr_range();
        assert!(range.contains(&data.as_ptr()), "data is a slice of the encoding");
    }

    #[test]
    fn every_truncation_and_the_wrong_hash_are_refused() {
        let bundle = sample();
        let encoded = bundle.encode();
        assert_eq!(Bundle::decode(encoded.clone(), CodeHash([0; 32])), Err(DecodeError::HashMismatch));
        for len in 0..encoded.len() {
            let cut = encoded.slice(..len);
            assert!(Bundle::decode(cut.clone(), CodeHash::of(&cut)).is_err(), "{len}");
        }
        let mut longer = encoded.to_vec();
        longer.push(0);
        assert_eq!(read(Bytes::from(longer)).err(), Some(DecodeError::Malformed));
    }

    #[test]
    fn breaking_the_rules_is_refused() {
        let module = |name: &str, body| Module { name: Arc::from(name), body, source_map: None };
        let js = || ModuleBody::Js(Arc::from(""));
        let flags = |flags: &[&str]| Compatibility {
            date: "2025-01-01".into(),
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
        };
        for (main, modules, compatibility) in [
            (0, vec![], flags(&[])),
            (1, vec![module("a", js())], flags(&[])),
            (0, vec![module("a", ModuleBody::Text(Arc::from("")))], flags(&[])),
            (0, vec![module("../a", js())], flags(&[])),
            (0, vec![module("b", js()), module("a", js())], flags(&[])),
            (0, vec![module("a", js()), module("a", js())], flags(&[])),
            (0, vec![module("a", js())], flags(&["b", "a"])),
        ] {
            let encoded = encode(&Parts { main, modules, compatibility });
            assert_eq!(read(encoded).err(), Some(DecodeError::Invalid));
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics_on_mutated_bytes(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            cuts in any::<bool>(),
        ) {
            let mut bytes = sample_bytes().to_vec();
            for (index, value) in edits {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            let bytes = Bytes::from(bytes);
            if let Ok(bundle) = Bundle::decode(bytes.clone(), CodeHash::of(&bytes)) {
                // What decodes is canonical: it encodes to the very same bytes.
                let parts = Parts {
                    main: bundle.main_index(),
                    modules: bundle.modules().to_vec(),
                    compatibility: bundle.compatibility().clone(),
                };
                prop_assert_eq!(encode(&parts), bytes);
            }
        }

        #[test]
        fn decoding_never_panics_on_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            bytes.splice(0..0, *MAGIC);
            let _ = read(Bytes::from(bytes));
        }
    }

    fn sample_bytes() -> Bytes {
        use std::sync::OnceLock;
        static SAMPLE: OnceLock<Bytes> = OnceLock::new();
        SAMPLE.get_or_init(|| sample().encode()).clone()
    }
}
