//! The life of one sandbox, as pure policy: no clock, no task, no I/O.
//!
//! ```text
//!           want              started              idle, too old, destroy
//!  Absent ───────▶ Starting ──────────▶ Running ──────────────────────────▶ Stopping
//!                     │ failed, late       │ lost                              │ stopped
//!                     ▼                    ▼                                   ▼
//!                    Gone                 Gone                                Gone
//! ```
//!
//! One driver feeds events and carries out the [`Action`]s. Time is a [`Duration`] since some fixed moment of a
//! monotonic clock, so a jump of the wall clock changes nothing; time that seems to go backwards counts as standing
//! still. A sandbox that is gone stays gone: the next use gets a new one, so nobody meets another's leftovers.

use std::time::Duration;

use crate::limits::{START_MAX, STOP_MAX};

/// Bounds of one life.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Longest time without any use.
    pub idle: Duration,
    /// Longest life, from start to stop.
    pub lifetime: Duration,
}

/// Why a sandbox ended or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nobody used it for the idle time.
    Idle,
    /// Its lifetime was over.
    Lifetime,
    /// Somebody asked for it.
    Destroyed,
    /// The backend could not start it, or not in time.
    StartFailed,
    /// It ended by itself: killed, out of memory, or its agent broke the protocol.
    Lost,
}

impl Ending {
    /// The stable word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Destroyed => "destroyed",
            Self::StartFailed => "start_failed",
            Self::Lost => "lost",
        }
    }
}

/// Where a sandbox is in its life.
#[allow(missing_docs, reason = "the fields are told by the variants' texts")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was asked for yet.
    Absent,
    /// The backend makes it.
    Starting { since: Duration },
    /// It can be used.
    Running { since: Duration, last_use: Duration, users: u32 },
    /// The backend removes it.
    Stopping { since: Duration, why: Ending },
    /// It is over.
    Gone { why: Ending },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants to use it.
    Want,
    /// The backend has made it.
    Started,
    /// The backend could not.
    StartFailed,
    /// A use begins.
    UseBegins,
    /// A use ends.
    UseEnds,
    /// Somebody wants it gone.
    Destroy,
    /// It ended by itself.
    Lost,
    /// The backend has removed it.
    Stopped,
    /// Time has passed.
    Tick,
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Have the backend make it.
    Launch,
    /// Drop the launch that is under way; what it made ends with it.
    AbandonLaunch,
    /// Have the backend remove it.
    Stop,
}

/// One sandbox's life.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    terms: Terms,
    state: State,
    now: Duration,
}

impl Lifecycle {
    /// A life that has not begun.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms, state: State::Absent, now: Duration::ZERO }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// When the next [`Event::Tick`] can change something.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        match self.state {
            State::Absent | State::Gone { .. } => None,
            State::Starting { since } => Some(since + START_MAX),
            State::Running { since, last_use, users } => {
                let end = since + self.terms.lifetime;
                Some(if users > 0 { end } else { end.min(last_use + self.terms.idle) })
            }
            State::Stopping { since, .. } => Some(since + 2 * STOP_MAX),
        }
    }

    /// Takes one event at a time of the monotonic clock.
    pub fn on(&mut self, event: Event, now: Duration) -> Action {
        self.now = self.now.max(now);
        let now = self.now;
        let (state, action) = match (self.state, event) {
            (State::Absent, Event::Want) => (State::Starting { since: now }, Action::Launch),
            (State::Absent, Event::Destroy) => (State::Gone { why: Ending::Destroyed }, Action::None),

            (State::Starting { .. }, Event::Started) => {
                (State::Running { since: now, last_use: now, users: 0 }, Action::None)
            }
            (State::Starting { .. }, Event::StartFailed) => {
                (State::Gone { why: Ending::StartFailed }, Action::None)
            }
            (State::Starting { .. }, Event::Destroy) => {
                (State::Gone { why: Ending::Destroyed }, Action::AbandonLaunch)
            }
            (State::Starting { since }, Event::Tick) if now >= since + START_MAX => {
                (State::Gone { why: Ending::StartFailed }, Action::AbandonLaunch)
            }

            (State::Running { since, users, .. }, Event::UseBegins) => {
                (State::Running { since, last_use: now, users: users.saturating_add(1) }, Action::None)
            }
            (State::Running { since, users, .. }, Event::UseEnds) => {
                (State::Running { since, last_use: now, users: users.saturating_sub(1) }, Action::None)
            }
            (State::Running { .. }, Event::Destroy) => stop(now, Ending::Destroyed),
            // Lost, too, goes through a stop: what is left of it must be removed.
            (State::Running { .. }, Event::Lost) => stop(now, Ending::Lost),
            (State::Running { since, .. }, Event::Tick) if now >= since + self.terms.lifetime => {
                stop(now, Ending::Lifetime)
            }
            (State::Running { last_use, users: 0, .. }, Event::Tick) if now >= last_use + self.terms.idle => {
                stop(now, Ending::Idle)
            }

            (State::Stopping { why, .. }, Event::Stopped) => (State::Gone { why }, Action::None),
            (State::Stopping { since, why }, Event::Tick) if now >= since + 2 * STOP_MAX => {
                (State::Gone { why }, Action::None)
            }
            (state, _) => (state, Action::None),
        };
        self.state = state;
        action
    }
}

fn stop(now: Duration, why: Ending) -> (State, Action) {
    (State::Stopping { since: now, why }, Action::Stop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms { idle: Duration::from_secs(20), lifetime: Duration::from_secs(100) };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn running() -> Lifecycle {
        let mut life = Lifecycle::new(TERMS);
        assert_eq!(life.on(Event::Want, seconds(0)), Action::Launch);
        assert_eq!(life.on(Event::Started, seconds(1)), Action::None);
        life
    }

    #[test]
    fn wants_are_one_launch() {
        let mut life = Lifecycle::new(TERMS);
        assert_eq!(life.on(Event::Want, seconds(0)), Action::Launch);
        assert_eq!(life.on(Event::Want, seconds(0)), Action::None);
    }

    #[test]
    fn idle_ends_it_but_not_while_it_is_used() {
        let mut life = running();
        life.on(Event::UseBegins, seconds(2));
        assert_eq!(life.on(Event::Tick, seconds(50)), Action::None);
        life.on(Event::UseEnds, seconds(51));
        assert_eq!(life.on(Event::Tick, seconds(70)), Action::None);
        assert_eq!(life.on(Event::Tick, seconds(71)), Action::Stop);
        assert_eq!(life.on(Event::Stopped, seconds(72)), Action::None);
        assert_eq!(life.state(), State::Gone { why: Ending::Idle });
    }

    #[test]
    fn the_lifetime_ends_it_even_while_it_is_used() {
        let mut life = running();
        life.on(Event::UseBegins, seconds(2));
        assert_eq!(life.on(Event::Tick, seconds(101)), Action::Stop);
        assert!(matches!(life.state(), State::Stopping { why: Ending::Lifetime, .. }));
    }

    #[test]
    fn time_that_goes_back_stands_still() {
        let mut life = running();
        life.on(Event::UseBegins, seconds(15));
        life.on(Event::UseEnds, seconds(3));
        assert_eq!(life.on(Event::Tick, seconds(30)), Action::None);
        assert_eq!(life.on(Event::Tick, seconds(35)), Action::Stop);
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Want),
            Just(Event::Started),
            Just(Event::StartFailed),
            Just(Event::UseBegins),
            Just(Event::UseEnds),
            Just(Event::Destroy),
            Just(Event::Lost),
            Just(Event::Stopped),
            Just(Event::Tick),
        ]
    }

    proptest! {
        /// Any events at any times, even jumping ones: one launch and one stop at most, a stop only after a start,
        /// and never a life after the end.
        #[test]
        fn whatever_happens(events in proptest::collection::vec((event(), 0u64..400), 0..60)) {
            let mut life = Lifecycle::new(TERMS);
            let (mut launches, mut stops, mut abandoned, mut over) = (0, 0, 0, false);
            for (event, at) in events {
                match life.on(event, seconds(at)) {
                    Action::Launch => launches += 1,
                    Action::Stop => stops += 1,
                    Action::AbandonLaunch => abandoned += 1,
                    Action::None => {}
                }
                let gone = matches!(life.state(), State::Gone { .. });
                prop_assert!(!over || gone, "a life after the end");
                over = gone;
                prop_assert!(launches <= 1 && stops + abandoned <= launches);
            }
        }

        /// Ticks alone end any life, within its bounds, and each announced tick does something or moves.
        #[test]
        fn every_life_ends(events in proptest::collection::vec((event(), 0u64..20), 0..30)) {
            let mut life = Lifecycle::new(TERMS);
            life.on(Event::Want, Duration::ZERO);
            let mut now = 0;
            for (event, step) in events {
                now += step;
                life.on(event, seconds(now));
            }
            for _ in 0..4 {
                let Some(at) = life.next_tick() else { break };
                let before = life.state();
                life.on(Event::Tick, at.max(seconds(now)));
                prop_assert_ne!(life.state(), before);
            }
            let ended = matches!(life.state(), State::Gone { .. });
            prop_assert!(ended);
        }
    }
}
