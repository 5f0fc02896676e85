//! A hash of code that nothing has checked yet, so that the same code need not be checked twice.

use sha2::{Digest, Sha256};

use crate::code::{ModuleSource, WorkerCode};

impl WorkerCode {
    /// SHA-256 over everything that decides what [`WorkerCode::build`] makes. Lengths come before contents, so
    /// that no two descriptions feed the same bytes.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(self.compatibility_date.as_bytes());
        add(&[u8::from(self.allow_experimental)]);
        add(&(self.compatibility_flags.len() as u64).to_le_bytes());
        for flag in &self.compatibility_flags {
            add(flag.as_bytes());
        }
        add(self.main_module.as_bytes());
        for (name, source) in &self.modules {
            add(name.as_bytes());
            let (kind, body): (u8, &[u8]) = match source {
                ModuleSource::Plain(text) => (0, text.as_bytes()),
                ModuleSource::Js(text) => (1, text.as_bytes()),
                ModuleSource::Cjs(text) => (2, text.as_bytes()),
                ModuleSource::Text(text) => (3, text.as_bytes()),
                ModuleSource::Data(bytes) => (4, bytes),
                ModuleSource::Json(text) => (5, text.as_bytes()),
                ModuleSource::Py(text) => (6, text.as_bytes()),
                ModuleSource::Wasm(bytes) => (7, bytes),
                ModuleSource::Ts(text) => (8, text.as_bytes()),
                ModuleSource::Ambiguous { kinds } => (9, &kinds.to_le_bytes()[..]),
                ModuleSource::Compiled { field } => (10, field.as_bytes()),
            };
            add(&[kind]);
            add(body);
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_the_bundle_decides_the_fingerprint() {
        let code = WorkerCode::new("a.js").js("a.js", "export default 1");
        assert_eq!(code.fingerprint(), code.clone().fingerprint());
        assert_ne!(code.fingerprint(), WorkerCode::new("a.js").js("a.js", "export default 2").fingerprint());
        assert_ne!(code.fingerprint(), code.clone().compatibility_flag("nodejs_compat").fingerprint());
        assert_ne!(
            WorkerCode::new("a.js").module("a.js", ModuleSource::Js("x".into())).fingerprint(),
            WorkerCode::new("a.js").module("a.js", ModuleSource::Text("x".into())).fingerprint(),
        );
    }
}
