//! The `atoll` command.
//!
//! Standard output carries results only; everything else goes to standard error, so that output can be piped.

mod access;
mod args;
mod audit;
mod client;
mod dev;
mod engine;
mod exit;
mod init;
mod kv;
mod output;
mod package;
mod remote;
mod route;
mod run;
mod sandbox;
mod serve;
mod token;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};
use exit::{Failure, Kind, Result};

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    // Before anything else: a sandbox's init must have one thread, and its standard streams are not for people.
    if std::env::args_os().nth(1).is_some_and(|first| first == atoll::sandboxes::INIT_ARGUMENT) {
        return atoll_container_bridge::init::main();
    }
    let cli = Cli::parse(); // prints help and usage errors itself, with exit code 2
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => serve::serve(args),
        Command::Dev(args) => dev::dev(args),
        Command::Run(args) => block_on(run::run(args)),
        Command::Deploy(args) => block_on(remote::deploy(args)),
        Command::Execute(args) => block_on(remote::execute(args)),
        Command::Workers(args) => block_on(remote::workers(args)),
        Command::Sandbox(command) => block_on(sandbox::sandbox(command)),
        Command::Audit(command) => block_on(audit::audit(command)),
        Command::Route(command) => route::route(command),
        Command::Init(args) => init::init(&args),
        Command::Token(args) => token::token(&args),
        Command::Tokens(command) => block_on(access::tokens(command)),
        Command::Secret(command) => block_on(access::secret(command)),
        Command::Kv(command) => block_on(kv::kv(command)),
        Command::Completions { shell } => {
            output::bytes(&completions(shell));
            Ok(())
        }
        Command::IsolateHost(args) => engine::isolate_host(&args),
    }
}

/// Runs a command that needs the network or an isolate host, but no server.
fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(Failure::new(Kind::Internal, format!("cannot start: {error}"))),
    }
}

/// Made in memory first: the generator panics when its reader leaves early, as `head` does.
fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "atoll", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    #[test]
    fn every_shell_has_completions() {
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(super::completions(*shell)).unwrap();
            assert!(script.contains("deploy"), "{shell}");
        }
    }
}
