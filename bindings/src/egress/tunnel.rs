//! Tunnels of sandboxes: connections in which nobody here sees more than host and port, and whom TLS asks for.
//!
//! ```text
//!  CONNECT host:port ─▶ [`Tunnel`] in the request's extensions ─▶ ports, rules, place, rates ─▶ resolve, vet, dial (tcp.rs)
//!                                                                                              └─▶ 200 with [`Terms`]
//! ```
//!
//! Who made the [`Tunnel`] moves the bytes, keeps to the [`Terms`], asks [`Hello`] what may go out first, and ends it by dropping its [`Hold`]. The marker is an extension,
//! which no guest and no isolate host can set: `connect()` of a guest stays under the rules for connections, which are stricter.
//!
//! [`Hello`]: super::hello::Hello

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Grant;
use crate::crossing::Denial;

/// Silence in both directions after which a tunnel is ended, in seconds, unless the class says otherwise.
const IDLE_SECONDS: u64 = 60;
/// Longest life of a tunnel, in seconds, unless the class says otherwise.
const LIFE_SECONDS: u64 = 600;
/// Bytes of a tunnel in each direction, unless the class has a cap for bodies.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What a class says about tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelRules {
    /// The only ports; none: no tunnels.
    pub ports: Vec<u16>,
    /// Silence in both directions after which one is ended.
    pub idle: Duration,
    /// Longest life of one.
    pub life: Duration,
}

impl Default for TunnelRules {
    fn default() -> Self {
        let [idle, life] = [IDLE_SECONDS, LIFE_SECONDS].map(Duration::from_secs);
        Self { ports: vec![443], idle, life }
    }
}

/// Makes a CONNECT one for a tunnel; an extension of the request.
#[derive(Clone, Debug)]
pub struct Tunnel {
    places: Arc<Semaphore>,
    pub(super) over: watch::Receiver<()>,
    pub(super) end: Arc<OnceLock<Denial>>,
}

/// Keeps a tunnel open: with its drop the connection is closed at once, whatever is under way.
#[derive(Debug)]
pub struct Hold {
    _open: watch::Sender<()>,
    end: Arc<OnceLock<Denial>>,
}

impl Hold {
    /// Says why it is ended, for the audit trail. The first reason counts.
    pub fn end(&self, why: Denial) {
        let _first = self.end.set(why);
    }
}

impl Tunnel {
    /// One that needs one of these places.
    #[must_use]
    pub fn new(places: Arc<Semaphore>) -> (Self, Hold) {
        let (open, over) = watch::channel(());
        let end = Arc::default();
        let hold = Hold { _open: open, end: Arc::clone(&end) };
        (Self { places, over, end }, hold)
    }

    /// A place, until the tunnel is over.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Denial> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Denial::Concurrency)
    }
}

/// The bounds of an open tunnel; an extension of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Where it leads, as it was vetted: a name in lower case without a last dot, or an address.
    pub host: Arc<str>,
    /// To which port.
    pub port: u16,
    /// Silence in both directions after which it is to be ended.
    pub idle: Duration,
    /// Its longest life.
    pub life: Duration,
    /// Most bytes from the sandbox.
    pub sent_bytes_max: u64,
    /// Most bytes to the sandbox.
    pub received_bytes_max: u64,
}

impl Grant {
    /// Whether a tunnel may lead there.
    pub(super) fn check_tunnel(&self, host: &str, port: u16) -> Result<(), Denial> {
        self.policies.iter().try_for_each(|policy| policy.check_tunnel(host, port))?;
        if self.tunnels.ports.contains(&port) { Ok(()) } else { Err(Denial::Port) }
    }

    pub(super) fn terms(&self, host: &str, port: u16) -> Terms {
        let (TunnelRules { idle, life, .. }, caps) = (&*self.tunnels, self.gate.caps());
        Terms {
            host: host.into(),
            port,
            idle: *idle,
            life: *life,
            sent_bytes_max: caps.request_bytes_max.unwrap_or(BYTES_MAX),
            received_bytes_max: caps.response_bytes_max.unwrap_or(BYTES_MAX),
        }
    }
}
