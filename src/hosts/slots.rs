//! Who is active, who stands by. No clocks, no tasks: the supervisor applies what happens, callers ask where to go.

use std::hash::{DefaultHasher, Hash, Hasher};

use atoll_bindings::link::Link;

/// Names one host of one supervisor; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HostId(pub(super) u64);

#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) link: Link,
}

impl Host {
    fn is_up(&self) -> bool {
        self.link.close_reason().is_none()
    }
}

#[derive(Debug)]
pub(super) struct Slots {
    active: Vec<Option<Host>>,
    standby: Option<Host>,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self { active: vec![None; count.max(1)], standby: None }
    }

    /// Where this tenant's work goes: always the same slot while it is up, so that its warm isolates are found again. A slot
    /// whose host is lost takes the standby at once, without waiting for the supervisor to notice.
    pub(super) fn pick(&mut self, tenant: &str) -> Option<Link> {
        let mut hasher = DefaultHasher::new();
        tenant.hash(&mut hasher);
        let slot = (hasher.finish() % self.active.len() as u64) as usize;
        if !self.active[slot].as_ref().is_some_and(Host::is_up)
            && let Some(standby) = self.standby.take_if(|standby| standby.is_up())
        {
            self.active[slot] = Some(standby);
        }
        let own = self.active[slot].iter();
        own.chain(self.active.iter().flatten()).find(|host| host.is_up()).map(|host| host.link.clone())
    }

    /// A host is ready: it fills an empty slot, or stands by.
    pub(super) fn add(&mut self, host: Host) {
        match self.active.iter_mut().find(|slot| !slot.as_ref().is_some_and(Host::is_up)) {
            Some(slot) => *slot = Some(host),
            None => self.standby = Some(host),
        }
    }

    /// A host takes no more work; the standby takes its place.
    pub(super) fn remove(&mut self, id: HostId) {
        if self.standby.as_ref().is_some_and(|host| host.id == id) {
            self.standby = None;
        }
        for slot in &mut self.active {
            if slot.as_ref().is_some_and(|host| host.id == id) {
                *slot = self.standby.take();
            }
        }
    }

    /// Hosts to be started, given how many are being started: all slots and one standby shall be filled.
    pub(super) fn missing(&self, starting: usize) -> usize {
        let have = self.active.iter().flatten().count() + usize::from(self.standby.is_some());
        (self.active.len() + 1).saturating_sub(have + starting)
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Host> {
        self.active.iter().flatten().filter(|host| host.is_up())
    }

    pub(super) fn has_standby(&self) -> bool {
        self.standby.as_ref().is_some_and(Host::is_up)
    }

    /// Empties every slot.
    pub(super) fn take_all(&mut self) -> Vec<Host> {
        let active = self.active.iter_mut().filter_map(Option::take);
        active.chain(self.standby.take()).collect()
    }
}
