//! What comes out piece by piece: events whose data repeats their name, and text that survives being cut.

use serde::Serialize;

use crate::api::events::{Events, Gone};
use crate::deploy::now_ms;
use crate::problem::Problem;

/// A piece of output.
#[derive(Serialize)]
pub(super) struct Piece {
    pub(super) data: String,
}

/// An event, whose data repeats its name: some readers look at nothing else.
#[derive(Serialize)]
struct Event<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "timestampMs")]
    timestamp_ms: u64,
    #[serde(flatten)]
    data: &'a T,
}

/// Sends one.
pub(super) async fn send(events: &Events, kind: &'static str, data: &impl Serialize) -> Result<(), Gone> {
    events.send(kind, &Event { kind, timestamp_ms: now_ms(), data }).await
}

#[derive(Serialize)]
struct Failed<'a> {
    error: &'a str,
    code: &'static str,
    status: u16,
}

/// Says why there is nothing more.
pub(super) async fn send_error(events: &Events, problem: &Problem) -> Result<(), Gone> {
    let (error, code, status) = (problem.detail(), problem.code(), problem.status().as_u16());
    send(events, "error", &Failed { error, code, status }).await
}

/// Bytes that come in pieces as text: a character that is cut in two waits for its rest.
#[derive(Default)]
pub(super) struct Text(Vec<u8>);

impl Text {
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let rest = self.0.split_off(self.0.len() - cut_off(&self.0));
        String::from_utf8_lossy(&std::mem::replace(&mut self.0, rest)).into_owned()
    }

    pub(super) fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// Bytes at the end that may be the beginning of a character.
fn cut_off(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let length = match bytes[bytes.len() - back] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if length > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_survive_any_cut() {
        let text = "aé€😀z";
        for cut in 0..=text.len() {
            let mut pieces = Text::default();
            let (front, back) = text.as_bytes().split_at(cut);
            let all = [pieces.push(front), pieces.push(back), pieces.rest()].concat();
            assert_eq!(all, text, "{cut}");
        }
        let mut broken = Text::default();
        assert_eq!(broken.push(b"a\xffb\xf0\x9f"), "a\u{fffd}b");
        assert_eq!(broken.push(b"z"), "\u{fffd}z");
        assert_eq!(broken.push(b"\xe2"), "");
        assert_eq!(broken.rest(), "\u{fffd}");
    }
}
