//! Atoll inside another Rust program: load code, give it exactly two things, call it.
//!
//! `cargo run --release -p atoll-runtime --example embed`

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use atoll_bindings::body::{ReplyBody, RequestBody};
use atoll_bindings::channel::{CallContext, Channel};
use atoll_bindings::seam::CallError;
use atoll_loader::WorkerCode;
use atoll_runtime::embed::{Env, Loader};
use bytes::Bytes;
use http_body_util::BodyExt;

/// A service of this program that the worker may call: it knows one joke.
#[derive(Debug)]
struct Jokes;

impl Channel for Jokes {
    fn fetch(
        &self,
        _context: CallContext,
        request: http::Request<RequestBody>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<ReplyBody>, CallError>> + Send>> {
        Box::pin(async move {
            let joke = format!("{}: there are 10 kinds of people", request.uri().path());
            Ok(http::Response::new(ReplyBody::Full(Bytes::from(joke))))
        })
    }

    fn name(&self) -> &str {
        "jokes"
    }
}

const CODE: &str = "export default {
  async fetch(request, env) {
    const joke = await (await env.JOKES.fetch('http://jokes/binary')).text();
    return new Response(`${env.GREETING} ${joke}`);
  },
}";

fn main() -> Result<(), Box<dyn Error>> {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    tokio.block_on(async {
        let loader = Loader::start()?;
        let env = Env::new().text("GREETING", "Listen:").service("JOKES", Arc::new(Jokes));
        let worker = loader.load(WorkerCode::new("main.js").js("main.js", CODE), None, env)?;
        let request = http::Request::get("http://localhost/").body(RequestBody::Empty)?;
        let response = worker.fetch(request).await?;
        let text = response.into_body().collect().await?.to_bytes();
        println!("{}", String::from_utf8_lossy(&text));
        Ok(())
    })
}
