//! Row 77, and 78 over HTTP/2: frames by hand over a socket, as no library would send them.
//!
//! What is asked of each: the connection ends or stays within its bounds, and everybody else is served.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Stage;
use crate::support::atoll::{TENANT, host_name};
use crate::support::canary::assert_clean;
use crate::support::worker::Worker;

/// Rows of the table that live here.
pub(super) const ROWS: &[u32] = &[77];

/// Growth of the gateway that an attack may cause, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// A bound on how long an attack is kept up, in seconds: one that is not cut off ends here.
const ATTACK_SECONDS_MAX: u64 = 5;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A field as a literal that nobody remembers.
fn field(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        out.push(u8::try_from(text.len()).expect("below 127"));
        out.extend(text.as_bytes());
    }
}

fn get(host: &str, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![];
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", host)] {
        field(name, value, &mut block);
    }
    extra.iter().for_each(|(name, value)| field(name, value, &mut block));
    block
}

fn preface(settings: &[u8]) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(SETTINGS, 0, 0, settings));
    out
}

/// What the server did.
#[derive(Debug, Default)]
struct Seen {
    goaway: bool,
    closed: bool,
    resets: usize,
    /// The first byte of each header block: a status, if it is one of the static table's.
    heads: Vec<u8>,
}

/// Sends pieces, the first once and the others again and again, and reads what comes, until the server has had enough or the
/// time is up. `reads` says whether the client takes answers at all.
async fn attack(
    stage: &Stage,
    first: Vec<u8>,
    mut next: impl FnMut(u32) -> Option<Vec<u8>>,
    reads: bool,
) -> Seen {
    let stream = TcpStream::connect(stage.atoll.address()).await.expect("the gateway listens");
    let (mut reader, mut writer) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut seen = Seen::default();
        if !reads {
            tokio::time::sleep(Duration::from_secs(ATTACK_SECONDS_MAX)).await;
            return seen;
        }
        let mut head = [0; 9];
        let ended = async {
            while reader.read_exact(&mut head).await.is_ok() {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let mut payload = vec![0; length];
                if reader.read_exact(&mut payload).await.is_err() {
                    break;
                }
                assert_clean(&payload, "a frame");
                match head[3] {
                    GOAWAY => seen.goaway = true,
                    RST_STREAM => seen.resets += 1,
                    HEADERS => seen.heads.extend(payload.first()),
                    _ => {}
                }
            }
            seen.closed = true;
        };
        let _ = tokio::time::timeout(Duration::from_secs(ATTACK_SECONDS_MAX), ended).await;
        seen
    });
    let begin = Instant::now();
    let sending = async {
        writer.write_all(&first).await?;
        for number in 0.. {
            let Some(piece) = next(number) else { break };
            writer.write_all(&piece).await?;
            if begin.elapsed() > Duration::from_secs(ATTACK_SECONDS_MAX) {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(ATTACK_SECONDS_MAX), sending).await;
    let seen = reading.await.expect("no panic");
    drop(writer);
    seen
}

/// Number of the `n`-th request's stream.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_of_http2_ends_its_connection_and_nobody_elses() {
    let mut stage = Stage::open().await;
    let source = "export default { fetch: (r) => new URL(r.url).pathname === '/' ? new Response('x'.repeat(1e6)) : new Response('y') }";
    stage.atoll.deploy(&Worker::single("target", source)).await;
    let host = host_name(TENANT, "target");
    let request = get(&host, &[]);
    let open = |n: u32, flags: u8| frame(HEADERS, flags, stream(n), &request);
    let before = super::aftermath::status_field(stage.atoll.pid(), "VmRSS:");
    let ends = |seen: &Seen| seen.goaway || seen.closed;

    let both = END_STREAM | END_HEADERS;
    let rapid = attack(
        &stage,
        preface(&[]),
        |n| Some([open(n, both), frame(RST_STREAM, 0, stream(n), &8u32.to_be_bytes())].concat()),
        true,
    );
    let seen = rapid.await;
    stage.require("77a", "rapid reset", ends(&seen), &format!("{seen:?}"));
    stage.told("77a", "rapid reset", if ends(&seen) { "goaway" } else { "goes on" }).await;

    let made = attack(
        &stage,
        preface(&[]),
        |n| Some([open(n, END_HEADERS), frame(WINDOW_UPDATE, 0, stream(n), &[0; 4])].concat()),
        true,
    );
    let seen = made.await;
    stage.require("77b", "MadeYouReset", ends(&seen), &format!("{seen:?}"));
    stage.told("77b", "MadeYouReset", if ends(&seen) { "goaway" } else { "goes on" }).await;

    let mut junk = vec![];
    field("x-junk", &"j".repeat(100), &mut junk);
    let junk = junk.repeat(100);
    let first = [preface(&[]), frame(HEADERS, END_STREAM, 1, &request)].concat();
    let seen = attack(&stage, first, |_| Some(frame(CONTINUATION, 0, 1, &junk)), true).await;
    stage.require("77c", "CONTINUATION flood", ends(&seen), &format!("{seen:?}"));
    stage.told("77c", "CONTINUATION flood", if ends(&seen) { "goaway" } else { "goes on" }).await;

    for (id, name, kind, payload) in
        [("77d", "PING flood", PING, &[0u8; 8][..]), ("77e", "SETTINGS flood", SETTINGS, &[][..])]
    {
        let piece = frame(kind, 0, 0, payload).repeat(100);
        attack(&stage, preface(&[]), |_| Some(piece.clone()), false).await;
        stage.told(id, name, "bounded").await;
    }

    // Nothing may ever be sent: the initial window is 0. A hundred answers of a megabyte wait.
    let no_window = [0, 4, 0, 0, 0, 0];
    let seen = attack(&stage, preface(&no_window), |n| (n < 100).then(|| open(n, both)), true).await;
    stage.require("77f", "zero window", !seen.heads.is_empty() || ends(&seen), &format!("{seen:?}"));
    stage.told("77f", "zero window", "bounded").await;

    // One long field in the dynamic table, named two thousand times: 200 KiB of fields in 2 KiB.
    let mut bomb = get(&host, &[]);
    bomb.extend([0x40, 6]);
    bomb.extend(b"x-bomb");
    bomb.push(100);
    bomb.extend([b'b'; 100]);
    bomb.extend([0x80 | 62; 2_000]);
    let first = [preface(&[]), frame(HEADERS, both, 1, &bomb)].concat();
    let seen = attack(&stage, first, |_| None, true).await;
    let refused = ends(&seen) || seen.resets > 0 || seen.heads.iter().any(|head| *head != 0x88);
    stage.require("77g", "HPACK bomb", refused, &format!("{seen:?}"));
    stage.told("77g", "HPACK bomb", "refused").await;

    // `:authority` and Host that differ.
    let two = get(&host, &[("host", "other.test")]);
    let first = [preface(&[]), frame(HEADERS, both, 1, &two)].concat();
    let seen = attack(&stage, first, |_| None, true).await;
    let refused =
        ends(&seen) && seen.heads.is_empty() || seen.resets > 0 || seen.heads.first() == Some(&0x8c);
    stage.require("78c", ":authority is not Host", refused, &format!("{seen:?}"));
    stage.told("78c", ":authority is not Host", "refused").await;

    let growth = super::aftermath::status_field(stage.atoll.pid(), "VmRSS:").saturating_sub(before);
    stage.require("77", "memory", growth <= GROWTH_KIB_MAX, &format!("the gateway grew by {growth} KiB"));
    stage.close();
}
