//! `atoll serve`: configuration, telemetry, isolate hosts, server; then an orderly end.

use std::sync::Arc;
use std::time::Duration;

use atoll::audit::Audit;
use atoll::config::{Config, Hosting, Overrides, TlsFiles};
use atoll::dispatch::Isolates as _;
use atoll::observe::{Observer, Recorded};
use atoll::route::runner::StepRunner;
use atoll::sandboxes::Sandboxes;
use atoll::server::{Server, open_audit};
use atoll::telemetry::{self, LogFormat, OtlpConfig, OtlpGuard, Telemetry, TelemetryObserver};
use tokio::signal::unix::{SignalKind, signal};

use super::args::serve::{Hosts, LogForm, Serve};
use super::engine::Engine;
use super::exit::{Failure, Kind, Result};
use super::output;

/// How often the isolate hosts' numbers are taken over into the metrics, in milliseconds.
const HOST_NUMBERS_MS: u64 = 1_000;

/// `atoll serve`.
pub(crate) fn serve(args: Serve) -> Result<()> {
    let tls = match (args.tls_cert, args.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        _ => None, // clap lets neither come alone
    };
    let overrides = Overrides {
        listen: args.listen,
        base_domain: args.base_domain,
        data_dir: args.data_dir,
        tls,
        dev: args.dev,
        hosting: args.hosts.map(hosting),
        require_sandbox: args.require_sandbox,
    };
    let config = Config::load(args.config.as_deref(), overrides)
        .map_err(|error| Failure::usage(error).hint("`atoll help serve` shows a small configuration"))?;
    if config.tenants.is_empty() {
        output::warning("no tenants are configured, so nobody can deploy; `atoll help serve` shows how");
    }
    let format = match args.log_format {
        LogForm::Text => LogFormat::Text,
        LogForm::Json => LogFormat::Json,
    };
    runtime()?.block_on(async {
        let running = start(config, format, &args.log).await?;
        let rolls = tokio::spawn(roll_on_hangup(running.engine.clone()));
        let signal = stop_signal().await?;
        rolls.abort();
        tracing::info!(signal, "stopping: running requests may finish");
        running.stop().await;
        Ok(())
    })
}

/// The flag's value in the configuration's words.
pub(crate) fn hosting(hosts: Hosts) -> Hosting {
    match hosts {
        Hosts::InProcess => Hosting::InProcess,
        Hosts::Processes(count) => Hosting::Processes(count),
    }
}

/// The event loop of the gateway.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    super::engine::answer_soon();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("gateway")
        .build()
        .map_err(|error| Failure::new(Kind::Internal, format!("cannot start: {error}")))
}

/// A server with everything behind it.
pub(crate) struct RunningServer {
    /// The listener and what it leads to.
    pub(crate) server: Server,
    /// Where guests run.
    pub(crate) engine: Arc<Engine>,
    sandboxes: Option<Arc<Sandboxes>>,
    otlp: Option<OtlpGuard>,
}

/// Starts everything, in the order in which it is needed.
pub(crate) async fn start(config: Config, format: LogFormat, filter: &str) -> Result<RunningServer> {
    let (telemetry, otlp) = match OtlpConfig::from_env(|name| std::env::var(name).ok()) {
        None => (Telemetry::new(), None),
        Some(config) => {
            let (telemetry, guard) = Telemetry::with_otlp(config).map_err(Failure::usage)?;
            (telemetry, Some(guard))
        }
    };
    telemetry::install(&telemetry, format, filter);
    let numbers = Arc::new(TelemetryObserver::new(telemetry));
    let unusable =
        |error| Failure::usage(error).hint("change it with --listen, --data-dir or the configuration file");
    // First of all: what becomes of isolate hosts is in it from the beginning.
    let audit = open_audit(&config).await.map_err(unusable)?;
    let observer: Arc<dyn Observer> = Arc::new(Recorded::new(numbers.clone(), audit.clone()));
    let engine = Arc::new(Engine::start(&config, observer.clone())?);
    if config.require_sandbox {
        engine.require_sandbox().await?;
    }
    let sandboxes = Sandboxes::start(&config, observer.clone()).await.map_err(|error| {
        Failure::usage(format!("sandboxes cannot be had: {error}"))
            .hint("leave [sandbox] out of the configuration, or see \"Sandboxes\" in the README")
    })?;
    let sandboxes = sandboxes.map(Arc::new);
    let runner = sandboxes.clone().map(|sandboxes| sandboxes as Arc<dyn StepRunner>);
    let started =
        Server::start_with(config, audit, engine.clone(), observer, runner, sandboxes.clone()).await;
    let server = started.map_err(unusable)?;
    tokio::spawn(take_over_numbers(engine.clone(), numbers, server.audit()));
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    Ok(RunningServer { server, engine, sandboxes, otlp })
}

impl RunningServer {
    /// Drains the server, then sends the last telemetry.
    pub(crate) async fn stop(self) {
        let audit = self.server.audit();
        if !self.server.shutdown().await {
            tracing::warn!("some requests were cut off: they ran longer than the drain timeout");
        }
        self.engine.shutdown().await;
        if let Some(sandboxes) = self.sandboxes {
            sandboxes.stop().await;
        }
        // Last of all: whatever ended until now has its record.
        if let Err(error) = tokio::task::spawn_blocking(move || audit.close()).await {
            tracing::error!(%error, "the audit log was not closed");
        }
        if let Some(otlp) = self.otlp {
            otlp.flush().await;
        }
    }
}

async fn take_over_numbers(engine: Arc<Engine>, observer: Arc<TelemetryObserver>, audit: Audit) {
    let mut ticks = tokio::time::interval(Duration::from_millis(HOST_NUMBERS_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        observer.hosts(&engine.heartbeats());
        observer.audit(&audit);
    }
}

/// Replaces all isolate hosts at each SIGHUP.
async fn roll_on_hangup(engine: Arc<Engine>) {
    match signal(SignalKind::hangup()) {
        Ok(mut hangup) => {
            while hangup.recv().await.is_some() {
                if !engine.roll() {
                    tracing::warn!("there are no isolate hosts to be replaced");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "SIGHUP cannot be taken"),
    }
}

/// Waits for SIGTERM or SIGINT. A second one ends the process at once, as if nobody listened.
pub(crate) async fn stop_signal() -> Result<&'static str> {
    let failed =
        |error: std::io::Error| Failure::new(Kind::Internal, format!("cannot wait for signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let name = tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    };
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        std::process::exit(130);
    });
    Ok(name)
}
