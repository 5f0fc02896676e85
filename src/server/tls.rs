//! TLS: certificate and key from PEM files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// How often the files are looked at.
pub(super) const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// Largest certificate chain or key file, in bytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any certificate.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// A file holds no usable PEM section.
    #[error("{path}: {source}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not go together, or are not supported.
    #[error("the certificate cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
}

#[derive(PartialEq, Eq)]
struct Pems {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate in use, and where it comes from.
pub(super) struct Tls {
    files: TlsFiles,
    current: RwLock<(Pems, Arc<ServerConfig>)>,
}

impl Tls {
    pub(super) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let pems = read(&files)?;
        let config = configure(&files, &pems)?;
        Ok(Self { files, current: RwLock::new((pems, config)) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone().into()
    }

    /// Takes new files if they differ and are sound; true if they were taken. Otherwise the old ones stay.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let pems = read(&self.files)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == pems {
            return Ok(false);
        }
        let config = configure(&self.files, &pems)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (pems, config);
        Ok(true)
    }
}

fn read(files: &TlsFiles) -> Result<Pems, TlsError> {
    let read = |path: &Path| {
        let fail = |source| TlsError::Read { path: path.into(), source };
        if std::fs::metadata(path).map_err(fail)?.len() > PEM_BYTES_MAX {
            return Err(TlsError::TooLarge(path.into()));
        }
        std::fs::read(path).map_err(fail)
    };
    Ok(Pems { certificate: read(&files.certificate)?, key: read(&files.key)? })
}

fn configure(files: &TlsFiles, pems: &Pems) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pems.certificate)
        .collect::<Result<_, _>>()
        .map_err(pem(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_slice(&pems.key).map_err(pem(&files.key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
