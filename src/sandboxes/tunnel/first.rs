//! What a program says first in a tunnel, in time: [`Hello`] decides, here it is waited.
//!
//! ```text
//!  bytes ─▶ pass ─▶ out ─▶ more: a second hello? ─▶ waits until the peer has said whether it asked for one ─▶ out
//!            └─ a hello under way: late in 10 s
//! ```

use std::time::Duration;

use atoll_bindings::crossing::Denial;
use atoll_bindings::egress::hello::{Answer, HELLO_MS_MAX, Hello};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

/// What the program says first, and what the peer answers.
pub(super) struct First {
    hello: Hello,
    /// Set once; its sender is gone when nothing more comes.
    answer: watch::Receiver<Option<Answer>>,
    /// Since when a hello is under way.
    since: Option<Instant>,
}

impl First {
    pub(super) fn new(hello: Hello, answer: watch::Receiver<Option<Answer>>) -> Self {
        Self { hello, answer, since: None }
    }

    /// Whether a hello has begun and is not whole.
    pub(super) fn is_reading(&self) -> bool {
        self.hello.is_reading()
    }

    /// What of this may go out, at once or when the peer's answer is known.
    pub(super) fn pass(&mut self, bytes: Bytes) -> Result<Bytes, Denial> {
        let known = *self.answer.borrow();
        self.passed(bytes, known)
    }

    /// What may go out as well, once the peer's answer is known; `None` if it does not matter.
    pub(super) async fn more(&mut self) -> Result<Option<Bytes>, Denial> {
        if !self.hello.waits() {
            return Ok(None);
        }
        // Who says nothing more has not asked for a second hello.
        let known = self.answer.wait_for(Option::is_some).await.map_or(Some(Answer::Other), |said| *said);
        self.passed(Bytes::new(), known).map(Some)
    }

    fn passed(&mut self, bytes: Bytes, known: Option<Answer>) -> Result<Bytes, Denial> {
        let out = self.hello.pass(bytes, known)?;
        self.since = self.hello.is_reading().then(|| self.since.unwrap_or_else(Instant::now));
        Ok(out)
    }

    /// Waits until a hello has taken too long.
    pub(super) async fn late(&self) {
        match self.since {
            Some(since) => tokio::time::sleep_until(since + Duration::from_millis(HELLO_MS_MAX)).await,
            None => std::future::pending().await,
        }
    }
}
