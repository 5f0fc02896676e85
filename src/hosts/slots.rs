//! Who is active, who stands by, who has a host of its own. No clocks, no tasks: the supervisor applies what happens, callers
//! ask where to go.
//!
//! ```text
//!  active   [ host ] [ host ] …      everybody's, a tenant always the same
//!  standby  [ host ]                 takes the place of one that is lost
//!  own      [ host: bad ] …          tenants that ended hosts, alone or among their like
//! ```
//!
//! One of these per host class, so that tenants of different classes never meet. A roll makes every host one of an older
//! generation; each new host then takes the place of an old one, which serves until that moment and ends what it runs after it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use atoll_bindings::link::Link;
use serde::Serialize;
use tokio::sync::Notify;

/// Hosts of one class for tenants that may not be with others; with more such tenants, they share them among themselves.
pub(super) const OWN_MAX: usize = 4;

/// Names one host of one supervisor; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HostId(pub(super) u64);

/// Which roll a host was started after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(pub(super) u64);

#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) link: Link,
    pub(super) generation: Generation,
    /// Its process; 0 if it is in this one.
    pub(super) pid: u32,
    pub(super) born: Instant,
    /// Tells its task that it is out of its place and shall end when what it runs has ended.
    pub(super) retire: Arc<Notify>,
    /// Held by whoever is about to start something there.
    pub(super) lease: Arc<()>,
}

impl Host {
    fn is_up(&self) -> bool {
        self.link.close_reason().is_none()
    }
}

/// Where a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// It runs everybody's code.
    Active,
    /// It waits to take another's place.
    Standby,
    /// It runs the code of tenants that were moved away from the others.
    Own,
}

#[derive(Debug, Default)]
struct Own {
    host: Option<Host>,
    tenants: usize,
}

#[derive(Debug)]
pub(super) struct Slots {
    active: Vec<Option<Host>>,
    standby: Option<Host>,
    own: Vec<Own>,
    /// Which of `own` a tenant is in.
    moved: HashMap<Arc<str>, usize>,
    generation: Generation,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self {
            active: vec![None; count.max(1)],
            standby: None,
            own: Vec::new(),
            moved: HashMap::new(),
            generation: Generation::default(),
        }
    }

    /// Where this tenant's work goes: always the same slot while it is up, so that its warm isolates are found again. A slot
    /// whose host is lost takes the standby at once, without waiting for the supervisor to notice.
    pub(super) fn pick(&mut self, tenant: &str) -> Option<Host> {
        if let Some(at) = self.moved.get(tenant) {
            let place = &mut self.own[*at].host;
            if !place.as_ref().is_some_and(Host::is_up) {
                *place = self.standby.take_if(|standby| standby.is_up());
            }
            // Nowhere else: the others are not to be with it.
            return place.clone();
        }
        let mut hasher = DefaultHasher::new();
        tenant.hash(&mut hasher);
        let slot = (hasher.finish() % self.active.len() as u64) as usize;
        if !self.active[slot].as_ref().is_some_and(Host::is_up)
            && let Some(standby) = self.standby.take_if(|standby| standby.is_up())
        {
            self.active[slot] = Some(standby);
        }
        let own = self.active[slot].iter();
        own.chain(self.active.iter().flatten()).find(|host| host.is_up()).cloned()
    }

    /// Whether [`pick`](Self::pick) would find a host.
    pub(super) fn takes(&self, tenant: &str) -> bool {
        let is_up = |place: &Option<Host>| place.as_ref().is_some_and(Host::is_up);
        let here = match self.moved.get(tenant) {
            Some(at) => is_up(&self.own[*at].host),
            None => self.active.iter().any(is_up),
        };
        here || is_up(&self.standby)
    }

    /// Takes a tenant away from the others. What it runs already goes on where it is.
    pub(super) fn quarantine(&mut self, tenant: &Arc<str>) {
        if self.moved.contains_key(tenant) {
            return;
        }
        let free = self.own.iter().position(|own| own.tenants == 0);
        let at = match free {
            Some(at) => at,
            None if self.own.len() < OWN_MAX => {
                self.own.push(Own::default());
                self.own.len() - 1
            }
            None => {
                let least = self.own.iter().enumerate().min_by_key(|(_, own)| own.tenants);
                least.map_or(0, |(at, _)| at)
            }
        };
        self.own[at].tenants += 1;
        self.moved.insert(Arc::clone(tenant), at);
    }

    /// Lets a tenant back to the others; gives the host that nobody needs any more.
    pub(super) fn release(&mut self, tenant: &str) -> Option<Host> {
        let at = self.moved.remove(tenant)?;
        let own = &mut self.own[at];
        own.tenants = own.tenants.saturating_sub(1);
        if own.tenants == 0 { own.host.take() } else { None }
    }

    /// A host is ready: it fills an empty slot, takes the place of an older one, or stands by. Gives the host whose place it
    /// took, or itself if there is none.
    pub(super) fn add(&mut self, host: Host) -> Option<Host> {
        let own = self.own.iter_mut().filter(|own| own.tenants > 0).map(|own| &mut own.host);
        let mut places: Vec<&mut Option<Host>> = self.active.iter_mut().chain(own).collect();
        places.push(&mut self.standby);
        let empty = places.iter().position(|place| !place.as_ref().is_some_and(Host::is_up));
        let older = |place: &&mut Option<Host>| {
            place.as_ref().is_some_and(|there| there.generation < host.generation)
        };
        match empty.or_else(|| places.iter().position(older)) {
            Some(at) => places[at].replace(host),
            None => Some(host),
        }
    }

    /// A host takes no more work; the standby takes its place.
    pub(super) fn remove(&mut self, id: HostId) {
        let is = |host: &Option<Host>| host.as_ref().is_some_and(|host| host.id == id);
        if is(&self.standby) {
            self.standby = None;
        }
        for slot in &mut self.active {
            if is(slot) {
                *slot = self.standby.take();
            }
        }
        for own in &mut self.own {
            if is(&own.host) {
                own.host = None;
            }
        }
    }

    /// Hosts to be started, given how many are being started: every place shall be filled, and then, one after the other,
    /// with hosts of this generation.
    pub(super) fn missing(&self, starting: usize) -> usize {
        let used = self.own.iter().filter(|own| own.tenants > 0).count();
        let vacant = (self.active.len() + 1 + used).saturating_sub(self.all().count() + starting);
        let old = starting == 0 && self.has_old();
        if vacant == 0 && old { 1 } else { vacant }
    }

    /// Makes every host one of an older generation.
    pub(super) fn roll(&mut self) {
        self.generation.0 += 1;
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether a host of an older generation has a place.
    pub(super) fn has_old(&self) -> bool {
        self.all().any(|host| host.generation < self.generation)
    }

    fn all(&self) -> impl Iterator<Item = &Host> {
        self.places().map(|(_, host)| host)
    }

    /// Every host that has a place.
    pub(super) fn places(&self) -> impl Iterator<Item = (Place, &Host)> {
        let active = self.active.iter().flatten().map(|host| (Place::Active, host));
        let own = self.own.iter().filter_map(|own| Some((Place::Own, own.host.as_ref()?)));
        active.chain(own).chain(self.standby.iter().map(|host| (Place::Standby, host)))
    }

    /// Hosts that get work.
    pub(super) fn active(&self) -> impl Iterator<Item = &Host> {
        let own = self.own.iter().filter_map(|own| own.host.as_ref());
        self.active.iter().flatten().chain(own).filter(|host| host.is_up())
    }

    /// Whether work of everybody can be taken.
    pub(super) fn is_ready(&self) -> bool {
        self.active.iter().flatten().any(Host::is_up)
    }

    pub(super) fn has_standby(&self) -> bool {
        self.standby.as_ref().is_some_and(Host::is_up)
    }

    /// Empties every slot.
    pub(super) fn take_all(&mut self) -> Vec<Host> {
        let own = self.own.iter_mut().filter_map(|own| own.host.take());
        let active = self.active.iter_mut().filter_map(Option::take);
        active.chain(own).chain(self.standby.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(number: u64, generation: Generation) -> (Host, atoll_bindings::link::HostEndpoint) {
        let (link, endpoint) = atoll_bindings::link::in_process();
        let (retire, lease) = Default::default();
        (Host { id: HostId(number), link, generation, pid: 0, born: Instant::now(), retire, lease }, endpoint)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever happens: a quarantined tenant never gets a host that a free one gets, and `missing` leads to full slots.
        #[test]
        fn the_quarantined_are_never_with_others(
            count in 1usize..4,
            steps in proptest::collection::vec((0u8..5, 0usize..8), 1..60)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _inside = runtime.enter();
            let mut slots = Slots::new(count);
            let names: Vec<Arc<str>> = (0..8).map(|number| format!("t{number}").into()).collect();
            let (mut next, mut ends, mut bad) = (0, Vec::new(), std::collections::BTreeSet::new());
            let fill = |slots: &mut Slots, next: &mut u64, ends: &mut Vec<_>| {
                for _ in 0..100 {
                    if slots.missing(0) == 0 { return true; }
                    *next += 1;
                    let (host, end) = host(*next, slots.generation());
                    ends.push(end);
                    slots.add(host);
                }
                false
            };
            prop_assert!(fill(&mut slots, &mut next, &mut ends));
            for (step, who) in steps {
                match step {
                    0 => { slots.quarantine(&names[who]); bad.insert(who); }
                    1 => { slots.release(&names[who]); bad.remove(&who); }
                    2 => if let Some(host) = slots.pick(&names[who]) { slots.remove(host.id); },
                    3 => slots.roll(),
                    _ => {}
                }
                let there = |slots: &mut Slots, of: &dyn Fn(&usize) -> bool| {
                    let who: Vec<usize> = (0..8).filter(of).collect();
                    who.iter().filter_map(|who| slots.pick(&names[*who])).map(|host| host.id.0).collect::<std::collections::BTreeSet<_>>()
                };
                for name in &names {
                    let foretold = slots.takes(name);
                    prop_assert_eq!(foretold, slots.pick(name).is_some());
                }
                let of_bad = there(&mut slots, &|who| bad.contains(who));
                let of_good = there(&mut slots, &|who| !bad.contains(who));
                prop_assert!(of_bad.is_disjoint(&of_good), "{:?} {:?}", of_bad, of_good);
                prop_assert!(of_bad.len() <= OWN_MAX);
                prop_assert!(fill(&mut slots, &mut next, &mut ends), "it never gets full");
                prop_assert!(slots.is_ready() && slots.has_standby() && !slots.has_old());
                let served = (0..8).all(|who| slots.pick(&names[who]).is_some());
                prop_assert!(served);
                prop_assert!(fill(&mut slots, &mut next, &mut ends));
            }
        }
    }
}
