//! A closed-loop client: N connections, each sends its next request when its last was answered.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::servers::Target;

/// Longest wait for one answer, in seconds; then the connection is given up and counted as a failure.
const ANSWER_SECONDS_MAX: u64 = 5;
/// Part of each measurement that is run before it, unmeasured.
const WARM_UP_SHARE: f64 = 0.25;

/// What one measurement saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Answers with status 200.
    pub(crate) answered: usize,
    /// Other answers, broken connections, and waits that were given up.
    pub(crate) failed: usize,
    /// Length of the measurement, in seconds.
    seconds: f64,
    /// Sorted latencies of the answers, in microseconds.
    latencies_us: Vec<u32>,
}

impl Measured {
    /// Answers per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// A percentile of the latency, in milliseconds; not a number if nothing was answered.
    pub(crate) fn percentile_ms(&self, percent: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let rank = (last as f64 * percent / 100.0).round() as usize;
        self.latencies_us.get(rank).map_or(f64::NAN, |us| f64::from(*us) / 1_000.0)
    }
}

/// When a client stops.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this time, the warm-up before it unmeasured.
    Seconds(f64),
    /// After this many requests in all.
    Requests(usize),
}

/// Runs `connections` clients against one path.
pub(crate) async fn run(target: &Target, connections: usize, path: &str, until: Until) -> Measured {
    let start = Instant::now();
    let (measure_from, end, share) = match until {
        Until::Seconds(seconds) => {
            let from = start + Duration::from_secs_f64(seconds * WARM_UP_SHARE);
            (from, from + Duration::from_secs_f64(seconds), usize::MAX)
        }
        Until::Requests(all) => (start, start + Duration::from_secs(86_400), all.div_ceil(connections)),
    };
    let path: Rc<str> = path.into();
    let local = tokio::task::LocalSet::new();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let (target, path) = (target.clone(), path.clone());
            local.spawn_local(async move { client(&target, &path, measure_from, end, share).await })
        })
        .collect();
    local.await;
    let mut sum = Measured::default();
    for client in clients {
        let part = client.await.expect("a client does not panic");
        sum.answered += part.answered;
        sum.failed += part.failed;
        sum.latencies_us.extend(part.latencies_us);
    }
    sum.latencies_us.sort_unstable();
    sum.seconds = match until {
        Until::Seconds(seconds) => seconds,
        Until::Requests(_) => start.elapsed().as_secs_f64(),
    };
    sum
}

async fn client(target: &Target, path: &str, measure_from: Instant, end: Instant, share: usize) -> Measured {
    let mut out = Measured::default();
    let mut connection = None;
    let mut sent = 0;
    while sent < share && Instant::now() < end {
        sent += 1;
        let begin = Instant::now();
        let wait = Duration::from_secs(ANSWER_SECONDS_MAX);
        let answer = tokio::time::timeout(wait, once(&mut connection, target, path)).await;
        let now = Instant::now();
        if now < measure_from || now > end {
            continue;
        }
        match answer {
            Ok(Ok(200)) => {
                out.answered += 1;
                out.latencies_us.push(u32::try_from((now - begin).as_micros()).unwrap_or(u32::MAX));
            }
            failed => {
                out.failed += 1;
                if !matches!(failed, Ok(Ok(_))) {
                    connection = None;
                }
            }
        }
    }
    out
}

type Sender = SendRequest<Empty<Bytes>>;

/// One request; connects if needed; gives the status once the body was read.
async fn once(
    connection: &mut Option<Sender>,
    target: &Target,
    path: &str,
) -> Result<u16, Box<dyn std::error::Error>> {
    let mut sender = match connection.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => connect(target).await?,
    };
    sender.ready().await?;
    let request = hyper::Request::get(path).header("host", &target.host).body(Empty::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    *connection = Some(sender);
    Ok(status)
}

async fn connect(target: &Target) -> Result<Sender, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}
