//! What belongs to one sandbox beside what the bridge keeps: its exposed ports and its way out.
//!
//! ```text
//!  Started ─▶ Life ─▶ ports by token, outlets ─▶ Ended: tokens gone, usage on the user's bill, told
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use atoll_bindings::crossing::OfSandbox;
use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::limits::EGRESS_PORT;
use atoll_container_bridge::manager::{AuditEvent, Owner, Usage};
use dashmap::DashMap;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};

use super::bills::Bills;
use super::egress::{Outlet, Way};
use super::tunnel::{TUNNELS_MAX, held};
use crate::admission::Bucket;
use crate::audit::{Audit, entry};
use crate::observe::{Observer, SandboxEvent};

/// Ports of one sandbox that are exposed at once.
const PORTS_EXPOSED_MAX: usize = 16;
/// Lowest port that can be exposed, as without privileges.
const PORT_MIN: u16 = 1024;
/// Identities, and refusals, of one sandbox per second, sustained.
const ASKS_PER_SECOND: u32 = 10;
/// The same at once after a quiet time.
const ASKS_BURST: u32 = 50;
/// Longest name of an exposed port, in bytes.
const PORT_NAME_BYTES_MAX: usize = 128;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port that can be seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exposed {
    pub(crate) port: u16,
    /// 128 random bits; who knows it may use the port.
    pub(crate) token: String,
    pub(crate) name: Option<String>,
}

/// What belongs to one sandbox.
pub(crate) struct Life {
    owner: Owner,
    id: String,
    ports: Mutex<BTreeMap<u16, Exposed>>,
    way_out: Mutex<WayOut>,
    tunnels: Arc<Semaphore>,
    /// For what it asks of the gateway itself.
    asks: Mutex<Bucket>,
    began: Instant,
}

#[derive(Default)]
struct WayOut {
    /// For the sandbox's whole life.
    standing: Option<Given>,
    /// For as long as a step runs.
    lent: Option<Given>,
    serving: bool,
}

/// An outlet that was given; with its drop, all that goes through it is cut.
struct Given {
    outlet: Outlet,
    held: watch::Sender<()>,
}

impl Given {
    fn new(outlet: Outlet) -> Self {
        Self { outlet, held: held().0 }
    }

    fn way(&self) -> Way {
        Way::new(self.outlet.clone(), self.held.subscribe())
    }
}

impl Life {
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The sandbox's name, unique on the machine.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Exposed ports, in order.
    pub(crate) fn ports(&self) -> Vec<Exposed> {
        lock(&self.ports).values().cloned().collect()
    }

    /// The way out that holds now.
    pub(super) fn way_out(&self) -> Option<Way> {
        let way = lock(&self.way_out);
        way.lent.as_ref().or(way.standing.as_ref()).map(Given::way)
    }

    /// Whether any way out that it has now comes with the right to use this proxy.
    pub(super) fn may_use(&self, proxy: &str) -> bool {
        let way = lock(&self.way_out);
        [&way.lent, &way.standing].into_iter().flatten().any(|given| given.outlet.rights().has_proxy(proxy))
    }

    /// Whether it may ask the gateway itself for something now: each ask is work, and a line in a log.
    pub(super) fn may_ask(&self) -> bool {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        lock(&self.asks).take(ASKS_PER_SECOND, ASKS_BURST, now_ms).is_ok()
    }

    /// Places for tunnels.
    pub(super) fn tunnels(&self) -> &Arc<Semaphore> {
        &self.tunnels
    }

    /// What the audit trail says of it.
    pub(crate) fn inside(&self) -> OfSandbox {
        OfSandbox { user: self.owner.user.as_str().into(), id: self.id.as_str().into() }
    }

    /// Gives the sandbox a way out for its life; whether that is news.
    pub(super) fn stand(&self, outlet: Outlet) -> bool {
        let mut way = lock(&self.way_out);
        let news = way.standing.as_ref().is_none_or(|given| given.outlet != outlet);
        if news {
            way.standing = Some(Given::new(outlet));
        }
        news
    }

    /// Takes that back.
    pub(super) fn fall(&self) {
        lock(&self.way_out).standing = None;
    }

    /// The sandbox is over: so is all that goes out of it.
    fn ends(&self) {
        let mut way = lock(&self.way_out);
        (way.standing, way.lent) = (None, None);
    }

    /// Gives it a way out until the guard is dropped. Only one step of a user runs at a time.
    pub(super) fn lend(self: &Arc<Self>, outlet: Outlet) -> Lent {
        lock(&self.way_out).lent = Some(Given::new(outlet));
        Lent(Arc::clone(self))
    }

    /// Whether nobody serves its proxy yet; from now on somebody does.
    pub(super) fn begins_to_serve(&self) -> bool {
        !std::mem::replace(&mut lock(&self.way_out).serving, true)
    }

    pub(super) fn serves_no_more(&self) {
        lock(&self.way_out).serving = false;
    }
}

/// A way out that ends with this guard.
pub(super) struct Lent(Arc<Life>);

impl Drop for Lent {
    fn drop(&mut self) {
        lock(&self.0.way_out).lent = None;
    }
}

/// All lives.
pub(super) struct Lives {
    alive: DashMap<String, Arc<Life>>,
    /// By the token's hash: a look-up by the token itself would tell by its time how near a guess was.
    previews: DashMap<[u8; 32], (Arc<Life>, u16)>,
    bills: Arc<Bills>,
    observer: Arc<dyn Observer>,
    /// Set once, by the server.
    audit: OnceLock<Audit>,
}

impl Lives {
    pub(super) fn new(observer: Arc<dyn Observer>, bills: Arc<Bills>) -> Self {
        Self { alive: DashMap::new(), previews: DashMap::new(), bills, observer, audit: OnceLock::new() }
    }

    /// From now on, lives are told here as well.
    pub(super) fn tell_to(&self, audit: Audit) {
        let _first_wins = self.audit.set(audit);
    }

    /// Takes what the manager tells.
    pub(super) fn on(&self, event: AuditEvent) {
        match &event {
            AuditEvent::Started { owner, sandbox } => {
                let id = sandbox.as_str().to_owned();
                let (ports, way_out) = Default::default();
                let tunnels = Arc::new(Semaphore::new(TUNNELS_MAX));
                let asks = Mutex::new(Bucket::full(ASKS_BURST, 0));
                let (owner_of, began) = (owner.clone(), Instant::now());
                let life = Life { owner: owner_of, id: id.clone(), ports, way_out, tunnels, asks, began };
                self.alive.insert(id, Arc::new(life));
                self.tell(owner, sandbox.as_str(), "started", Usage::default());
            }
            AuditEvent::StartFailed { owner, sandbox, error } => {
                tracing::warn!(sandbox = sandbox.as_str(), %error, "a sandbox did not start");
                self.tell(owner, sandbox.as_str(), error.code.as_str(), Usage::default());
            }
            AuditEvent::Refused { owner, code } => {
                self.observe(owner, "", code.as_str(), Usage::default());
                // As often as somebody asks: counted.
                if let Some(audit) = self.audit.get() {
                    audit.refused(&owner.tenant.as_str().into(), code.as_str());
                }
            }
            // Told by who uses it, with what for.
            AuditEvent::Used { .. } => {}
            AuditEvent::Ended { owner, sandbox, why, usage } => {
                if let Some((_, life)) = self.alive.remove(sandbox.as_str()) {
                    life.ends();
                    for exposed in lock(&life.ports).values() {
                        self.previews.remove(&hash(&exposed.token));
                    }
                }
                self.bills.add(owner.clone(), *usage);
                self.tell(owner, sandbox.as_str(), why.as_str(), *usage);
            }
        }
    }

    fn tell(&self, owner: &Owner, sandbox: &str, what: &'static str, usage: Usage) {
        self.observe(owner, sandbox, what, usage);
        if let Some(audit) = self.audit.get() {
            let told = entry::Sandbox::new(&owner.tenant, &owner.user, sandbox, what, &usage);
            audit.note(entry::Entry::Sandbox(Box::new(told)));
        }
    }

    fn observe(&self, owner: &Owner, sandbox: &str, what: &'static str, usage: Usage) {
        self.observer.sandbox(&SandboxEvent {
            tenant: &owner.tenant,
            user: &owner.user,
            sandbox,
            what,
            usage,
        });
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Life>> {
        self.alive.get(id).map(|life| Arc::clone(&life))
    }

    pub(super) fn spent(&self, owner: &Owner) -> Usage {
        self.bills.get(owner)
    }

    pub(super) fn expose(
        &self,
        life: &Arc<Life>,
        port: u16,
        name: Option<String>,
    ) -> Result<Exposed, SandboxError> {
        let refuse = |code, text: &str| Err(SandboxError::new(code, text));
        if port < PORT_MIN || port == EGRESS_PORT {
            return refuse(
                Code::InvalidArgument,
                "ports from 1024 on can be exposed, but 3128, which is the way out",
            );
        }
        if name.as_ref().is_some_and(|name| name.len() > PORT_NAME_BYTES_MAX) {
            return refuse(Code::InvalidArgument, "a port's name has at most 128 bytes");
        }
        let mut ports = lock(&life.ports);
        if let Some(exposed) = ports.get(&port) {
            return Ok(exposed.clone());
        }
        if ports.len() >= PORTS_EXPOSED_MAX {
            return refuse(Code::TooMany, "too many ports of this sandbox are exposed");
        }
        let token = format!("{:016x}{:016x}", crate::server::random_u64(), crate::server::random_u64());
        let exposed = Exposed { port, token, name };
        ports.insert(port, exposed.clone());
        self.previews.insert(hash(&exposed.token), (Arc::clone(life), port));
        // It may have ended meanwhile: then nobody else would take this away.
        if !self.alive.contains_key(&life.id) {
            self.previews.remove(&hash(&exposed.token));
            return refuse(Code::SandboxGone, "the sandbox has just ended");
        }
        Ok(exposed)
    }

    pub(super) fn hide(&self, life: &Life, port: u16) -> bool {
        let Some(exposed) = lock(&life.ports).remove(&port) else { return false };
        self.previews.remove(&hash(&exposed.token));
        true
    }

    pub(super) fn preview(&self, token: &str) -> Option<(Arc<Life>, u16)> {
        self.previews.get(&hash(token)).map(|found| (Arc::clone(&found.0), found.1))
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use atoll_container_bridge::backend::SandboxId;
    use atoll_container_bridge::lifecycle::Ending;

    use super::*;
    use crate::observe::TracingObserver;
    use crate::sandboxes::bills;

    fn owner(user: &str) -> Owner {
        Owner { tenant: "acme".into(), user: user.into() }
    }

    #[tokio::test]
    async fn ports_are_seen_by_their_token_until_they_are_hidden_or_the_sandbox_ends() {
        let lives = Lives::new(Arc::new(TracingObserver::default()), bills::tests::in_memory().await);
        let sandbox = SandboxId::random().unwrap();
        lives.on(AuditEvent::Started { owner: owner("ann"), sandbox: sandbox.clone() });
        let life = lives.get(sandbox.as_str()).unwrap();
        for bad in [0, 80, PORT_MIN - 1, EGRESS_PORT] {
            assert_eq!(lives.expose(&life, bad, None).unwrap_err().code, Code::InvalidArgument, "{bad}");
        }
        let first = lives.expose(&life, 8080, None).unwrap();
        assert_eq!(lives.expose(&life, 8080, None).unwrap(), first);
        let second = lives.expose(&life, 8081, Some("web".into())).unwrap();
        assert!(first.token.len() == 32 && first.token != second.token);
        let seen = |token: &str| lives.preview(token).map(|(life, port)| (life.id().to_owned(), port));
        assert_eq!(seen(&first.token), Some((sandbox.as_str().to_owned(), 8080)));
        assert_eq!(seen(&first.token.to_uppercase()), None);
        assert!(lives.hide(&life, 8080) && !lives.hide(&life, 8080));
        assert_eq!(seen(&first.token), None);
        for port in 0..PORTS_EXPOSED_MAX as u16 - 1 {
            lives.expose(&life, 9000 + port, None).unwrap();
        }
        assert_eq!(lives.expose(&life, 9999, None).unwrap_err().code, Code::TooMany);
        let usage = Usage { cpu_us: 5, memory_bytes_peak: 7, ..Usage::default() };
        lives.on(AuditEvent::Ended { owner: owner("ann"), sandbox, why: Ending::Idle, usage });
        assert_eq!((seen(&second.token), lives.previews.len()), (None, 0));
        lives.hide(&life, 9000);
        assert_eq!(lives.expose(&life, 9000, None).unwrap_err().code, Code::SandboxGone);
        assert_eq!(lives.previews.len(), 0);
        assert_eq!(lives.spent(&owner("ann")), usage);
    }
}
