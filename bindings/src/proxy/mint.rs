//! Credentials that live minutes: made from the secret when needed, kept until shortly before they end.
//!
//! ```text
//!  token(now) ─▶ kept and fresh? ──yes──▶ it
//!                   └─no─▶ one at a time: ask the server ─▶ keep ─▶ it
//!  401 from upstream ─▶ forget
//! ```
//!
//! A leak of what servers see is then worth minutes. The secret itself only goes to the token endpoint that the operator named.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderValue};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::scrub::SECRET_BYTES_MIN;
use super::secret::{SECRET_BYTES_MAX, Secret};
use crate::body::RequestBody;
use crate::egress::HttpClient;

/// Largest answer of a token endpoint, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for one, in seconds.
const ANSWER_SECONDS_MAX: u64 = 10;
/// A token is renewed this long before its end, in seconds.
const EARLY_SECONDS: u64 = 60;
/// How long a token is kept whose end is not told, in seconds. RFC 6749 leaves it to the documentation; an hour is usual.
const KEPT_SECONDS: u64 = 300;
/// Longest time that any token is kept, in seconds.
const KEPT_SECONDS_MAX: u64 = 3_000;
/// Nobody asks again this soon after a failure, in milliseconds: a broken endpoint must not be flooded.
const FAILED_MS: u64 = 1_000;
/// Life of the token with which an app signs itself in, in seconds; GitHub takes at most 600.
const APP_SECONDS: u64 = 540;

/// How a credential is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// OAuth 2.0 client credentials (RFC 6749, section 4.4); the secret is the client's.
    ClientCredentials {
        /// Where tokens are had.
        token_url: Url,
        /// The client's name.
        client_id: String,
        /// What to ask for.
        scope: Option<String>,
    },
    /// An installation of a GitHub App
    /// (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app>); the secret is the app's
    /// private key as PEM.
    GithubApp {
        /// Where the API is, such as `https://api.github.com/`.
        api: Url,
        /// The app.
        app_id: u64,
        /// The installation.
        installation_id: u64,
    },
}

/// No credential. Why is the operator's business: see the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum MintError {
    #[error("the secret is not a usable private key")]
    Key,
    #[error("the token endpoint cannot be asked")]
    Request,
    #[error("the token endpoint does not answer")]
    Silent,
    #[error("the token endpoint answered {0}")]
    Refused(u16),
    #[error("the token endpoint's answer is no token")]
    Answer,
    #[error("the last attempt failed a moment ago")]
    Again,
}

/// Keeps one proxy's credential of one tenant.
#[derive(Default)]
pub(super) struct Mint {
    kept: Mutex<Kept>,
    /// One request to the endpoint at a time: all others wait for its result.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    token: Option<Token>,
    failed: Option<Instant>,
}

struct Token {
    value: Arc<Zeroizing<String>>,
    until: Instant,
    /// Of the secret that it was made with.
    version: u64,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(alias = "token")]
    access_token: String,
    expires_in: Option<u64>,
}

/// What an app says of itself (RFC 7519).
#[derive(Serialize)]
struct Claims {
    iat: u64,
    exp: u64,
    iss: String,
}

impl Mint {
    /// The credential, made if need be.
    pub(super) async fn token(
        &self,
        recipe: &Recipe,
        secret: &Secret,
        client: &HttpClient,
    ) -> Result<Arc<Zeroizing<String>>, MintError> {
        if let Some(token) = self.fresh(secret) {
            return Ok(token);
        }
        let _flight = self.flight.lock().await;
        if let Some(token) = self.fresh(secret) {
            return Ok(token);
        }
        let failed = self.kept().failed;
        if failed.is_some_and(|at| at.elapsed() < Duration::from_millis(FAILED_MS)) {
            return Err(MintError::Again);
        }
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        let made = match tokio::time::timeout(limit, ask(recipe, secret, client)).await {
            Ok(made) => made,
            Err(_) => Err(MintError::Silent),
        };
        let mut kept = self.kept();
        match made {
            Err(error) => {
                kept.failed = Some(Instant::now());
                Err(error)
            }
            Ok((value, seconds)) => {
                let value = Arc::new(value);
                let until = Instant::now() + Duration::from_secs(seconds);
                kept.failed = None;
                kept.token = Some(Token { value: Arc::clone(&value), until, version: secret.version() });
                Ok(value)
            }
        }
    }

    /// The server did not take this credential.
    pub(super) fn forget(&self, token: &Arc<Zeroizing<String>>) {
        let mut kept = self.kept();
        if kept.token.as_ref().is_some_and(|own| Arc::ptr_eq(&own.value, token)) {
            kept.token = None;
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, secret: &Secret) -> Option<Arc<Zeroizing<String>>> {
        let kept = self.kept();
        let token = kept.token.as_ref()?;
        let fresh = token.version == secret.version() && Instant::now() < token.until;
        fresh.then(|| Arc::clone(&token.value))
    }
}

/// The token, and for how many seconds to keep it.
async fn ask(
    recipe: &Recipe,
    secret: &Secret,
    client: &HttpClient,
) -> Result<(Zeroizing<String>, u64), MintError> {
    let response = client.request(request(recipe, secret)?).await.map_err(|_| MintError::Silent)?;
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() {
        return Err(MintError::Refused(parts.status.as_u16()));
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| MintError::Answer)?;
    let bytes = Zeroizing::new(body.to_bytes().to_vec());
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| MintError::Answer)?;
    let token = Zeroizing::new(answer.access_token);
    let usable = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !usable {
        return Err(MintError::Answer);
    }
    let told = answer.expires_in.map(|seconds| seconds.saturating_sub(EARLY_SECONDS));
    Ok((token, told.unwrap_or(KEPT_SECONDS).min(KEPT_SECONDS_MAX)))
}

fn request(recipe: &Recipe, secret: &Secret) -> Result<Request<RequestBody>, MintError> {
    let (url, authorization, body) = match recipe {
        Recipe::ClientCredentials { token_url, client_id, scope } => {
            let form = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let password = Zeroizing::new(form(secret.text().ok_or(MintError::Key)?));
            let pair = Zeroizing::new(format!("{}:{}", form(client_id), *password));
            let mut body = "grant_type=client_credentials".to_owned();
            if let Some(scope) = scope {
                body = format!("{body}&scope={}", form(scope));
            }
            (token_url.clone(), Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair))), body)
        }
        Recipe::GithubApp { api, app_id, installation_id } => {
            let path = format!("app/installations/{installation_id}/access_tokens");
            let url = api.join(&path).map_err(|_| MintError::Request)?;
            (url, Zeroizing::new(format!("Bearer {}", *app_token(*app_id, secret)?)), String::new())
        }
    };
    let mut authorization = HeaderValue::from_str(&authorization).map_err(|_| MintError::Key)?;
    authorization.set_sensitive(true);
    Request::builder()
        .method(Method::POST)
        .uri(url.as_str())
        .header(header::AUTHORIZATION, authorization)
        .header(header::ACCEPT, "application/json")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::USER_AGENT, "atoll")
        .body(RequestBody::Full(body.into()))
        .map_err(|_| MintError::Request)
}

/// The app's own token, signed with its key.
fn app_token(app_id: u64, secret: &Secret) -> Result<Zeroizing<String>, MintError> {
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(secret.expose()).map_err(|_| MintError::Key)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // A minute back, as GitHub advises, for clocks that differ.
    let claims = Claims { iat: now.saturating_sub(60), exp: now + APP_SECONDS, iss: app_id.to_string() };
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    jsonwebtoken::encode(&header, &claims, &key).map(Zeroizing::new).map_err(|_| MintError::Key)
}
