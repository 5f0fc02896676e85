//! How a credential gets into a request: exactly one, in the one place that the operator named.
//!
//! What is injected is searched for in the answer, the secret and everything made from it: a signature or a token is worth
//! something too.

use std::time::SystemTime;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode_str;
use url::Url;
use zeroize::Zeroizing;

use super::mint::Recipe;
use super::secret::Secret;
use super::sigv4::{self, SigV4};
use crate::body::{BoxError, RequestBody};
use crate::egress::meter::OverCap;

/// Largest request body that is signed, in bytes: it must be read whole first.
pub const SIGNED_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Query parameters that carry credentials by RFC 6750 or by custom.
const CREDENTIAL_PARAMETERS: [&str; 5] = ["access_token", "api_key", "apikey", "key", "token"];

/// Where the credential goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injection {
    /// A header: `before`, the secret, `after`.
    Header {
        /// Its name.
        name: HeaderName,
        /// What stands before the secret.
        before: String,
        /// What stands after it.
        after: String,
    },
    /// `authorization: Bearer …` (RFC 6750).
    Bearer,
    /// `authorization: Basic …` (RFC 7617); the secret is the password.
    Basic {
        /// The user's name.
        user: String,
    },
    /// A query parameter.
    Query {
        /// Its name.
        name: String,
    },
    /// HMAC-SHA256 in hexadecimal over four lines: the timestamp (seconds since 1970), the method, path with query, and the
    /// SHA-256 of the body in hexadecimal. The secret is the key, and is not sent.
    Hmac {
        /// Header of the signature.
        signature: HeaderName,
        /// Header of the timestamp.
        timestamp: HeaderName,
    },
    /// AWS Signature Version 4; the secret is the secret access key, and is not sent.
    SigV4(SigV4),
    /// `authorization: Bearer …` with a credential that is made from the secret.
    Minted(Recipe),
}

/// The credential does not fit into a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum InjectError {
    #[error("the secret cannot stand in a header")]
    Unsendable,
    #[error("the body is too large to be signed")]
    BodyTooLarge,
    #[error("the body broke off")]
    Body,
}

/// What was put into a request, to be searched for in the answer.
pub(super) type Worn = Vec<Zeroizing<Vec<u8>>>;

/// A request on its way to be dressed.
pub(super) struct Naked<'a> {
    pub(super) method: &'a Method,
    pub(super) url: &'a mut Url,
    pub(super) headers: &'a mut HeaderMap,
    pub(super) body: RequestBody,
}

impl Injection {
    /// Headers that it sets.
    pub(super) fn headers(&self) -> Vec<&str> {
        match self {
            Self::Header { name, .. } => vec![name.as_str()],
            Self::Hmac { signature, timestamp } => vec![signature.as_str(), timestamp.as_str()],
            Self::SigV4(_) => vec!["x-amz-date", "x-amz-content-sha256"],
            Self::Bearer | Self::Basic { .. } | Self::Minted(_) | Self::Query { .. } => Vec::new(),
        }
    }

    /// Query parameters that guests may not send.
    fn owns(&self, parameter: &str) -> bool {
        let bare = parameter.to_ascii_lowercase();
        match self {
            Self::Query { name } if bare == name.to_ascii_lowercase() => true,
            Self::SigV4(_) => bare.starts_with("x-amz-"),
            _ => CREDENTIAL_PARAMETERS.contains(&bare.as_str()),
        }
    }

    /// Takes the guest's variants of the credential out of the query.
    pub(super) fn strip(&self, url: &mut Url) {
        let Some(query) = url.query() else { return };
        let keep = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
            // `name[]` and `name[0]` are the same parameter to many servers.
            let name = percent_decode_str(&name).decode_utf8_lossy().into_owned();
            !self.owns(name.split('[').next().unwrap_or_default().trim())
        };
        let kept: Vec<&str> = query.split(['&', ';']).filter(keep).collect();
        if kept.len() < query.split(['&', ';']).count() {
            let kept = kept.join("&");
            url.set_query((!kept.is_empty()).then_some(kept.as_str()));
        }
    }

    /// Puts the credential in. `token` is what was minted, for those that are.
    pub(super) async fn dress(
        &self,
        naked: Naked<'_>,
        secret: &Secret,
        token: Option<&str>,
    ) -> Result<(RequestBody, Worn), InjectError> {
        let mut worn: Worn = vec![Zeroizing::new(secret.expose().to_vec())];
        let text = secret.text().ok_or(InjectError::Unsendable)?;
        let Naked { method, url, headers, body } = naked;
        match self {
            Self::Header { name, before, after } => {
                set(headers, name, &Zeroizing::new(format!("{before}{text}{after}")))?;
            }
            Self::Bearer => set(headers, &header::AUTHORIZATION, &Zeroizing::new(format!("Bearer {text}")))?,
            Self::Minted(_) => {
                let token = token.ok_or(InjectError::Unsendable)?;
                worn.push(Zeroizing::new(token.as_bytes().to_vec()));
                set(headers, &header::AUTHORIZATION, &Zeroizing::new(format!("Bearer {token}")))?;
            }
            Self::Basic { user } => {
                let pair = Zeroizing::new(format!("{user}:{text}"));
                let coded = Zeroizing::new(STANDARD.encode(&*pair));
                set(headers, &header::AUTHORIZATION, &Zeroizing::new(format!("Basic {}", *coded)))?;
                worn.push(Zeroizing::new(coded.as_bytes().to_vec()));
            }
            Self::Query { name } => {
                url.query_pairs_mut().append_pair(name, text);
            }
            Self::Hmac { signature, timestamp } => {
                let whole = whole(body).await?;
                let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
                let (now, body_hash) = (seconds(), sigv4::sha256_hex(&whole));
                let signed = format!("{now}\n{method}\n{target}\n{body_hash}");
                let key = Key::new(HMAC_SHA256, secret.expose());
                let value = sigv4::hex(hmac::sign(&key, signed.as_bytes()).as_ref());
                set(headers, timestamp, &now.to_string())?;
                set(headers, signature, &value)?;
                worn.push(Zeroizing::new(value.into_bytes()));
                return Ok((full(whole), worn));
            }
            Self::SigV4(signer) => {
                let whole = whole(body).await?;
                let value = aws(signer, method, url, headers, text, &whole)?;
                worn.push(Zeroizing::new(value.into_bytes()));
                return Ok((full(whole), worn));
            }
        }
        Ok((body, worn))
    }
}

/// Signs for AWS; gives the signature.
fn aws(
    signer: &SigV4,
    method: &Method,
    url: &mut Url,
    headers: &mut HeaderMap,
    secret: &str,
    body: &[u8],
) -> Result<String, InjectError> {
    sigv4::canonicalize(url);
    // Guests' own fields of this family are instructions to the service: all of them are signed.
    let amz: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned().collect();
    let payload = sigv4::sha256_hex(body);
    let date = sigv4::amz_date(SystemTime::now());
    let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
    set(headers, &HeaderName::from_static("x-amz-date"), &date)?;
    set(headers, &HeaderName::from_static("x-amz-content-sha256"), &payload)?;
    let mut signed = vec![("host".to_owned(), host)];
    let own = ["x-amz-date", "x-amz-content-sha256"].map(HeaderName::from_static);
    for name in amz.iter().chain(&own) {
        let values: Vec<&str> =
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        signed.push((name.as_str().to_owned(), values.join(",")));
    }
    signed.sort_unstable();
    signed.dedup_by(|a, b| a.0 == b.0);
    let signed: Vec<(&str, &str)> =
        signed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let made = signer.sign(secret, method.as_str(), url, &signed, &payload, &date);
    set(headers, &header::AUTHORIZATION, &made.authorization)?;
    Ok(made.signature)
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str) -> Result<(), InjectError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| InjectError::Unsendable)?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

async fn whole(body: RequestBody) -> Result<Bytes, InjectError> {
    match body {
        RequestBody::Empty => Ok(Bytes::new()),
        RequestBody::Full(bytes) if bytes.len() <= SIGNED_BODY_BYTES_MAX => Ok(bytes),
        RequestBody::Full(_) => Err(InjectError::BodyTooLarge),
        RequestBody::Stream(mut body) => {
            let mut whole = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let broken = |error: BoxError| match error.is::<OverCap>() {
                    true => InjectError::BodyTooLarge,
                    false => InjectError::Body,
                };
                let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
                if whole.len() + data.len() > SIGNED_BODY_BYTES_MAX {
                    return Err(InjectError::BodyTooLarge);
                }
                whole.extend_from_slice(&data);
            }
            Ok(whole.freeze())
        }
    }
}

fn full(bytes: Bytes) -> RequestBody {
    if bytes.is_empty() { RequestBody::Empty } else { RequestBody::Full(bytes) }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
