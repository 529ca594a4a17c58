//! The command line: arguments, and one function a command.

mod prefixes;
mod table;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use tcp_common::State;
use tracing_subscriber::EnvFilter;
use xtcp::config::{Config, DEFAULT_CONTROL_SOCKET, Overrides};
use xtcp::control::RuleName;
use xtcp::control::client::Client;
use xtcp::daemon;
use xtcp::xdp::Attached;

use prefixes::PrefixArguments;

/// How often `conns --watch` looks again.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// A TCP endpoint outside the kernel's TCP: an XDP program steers the ports it owns to this daemon.
#[derive(Debug, Parser)]
#[command(name = "xtcp", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; prints `ready` once it does, and logs on standard error.
    Run(RunArguments),
    /// Check a configuration file.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Show connections and listeners.
    Conns(ConnsArguments),
    /// Show figures.
    Stats {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// Open a connection through the daemon: standard input and output are the stream.
    Connect {
        /// The peer.
        #[arg(value_name = "ADDR:PORT")]
        remote: SocketAddr,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// Change or show the prefixes that are taken within denied ones and whose SYNs have no limit.
    Allow(PrefixArguments),
    /// Change or show the prefixes from which nobody may connect; connections that there are live on.
    Deny(PrefixArguments),
    /// Load and pin the program, its link and its maps without a daemon.
    Load(LoadArguments),
    /// Remove what `load` or a daemon that died left behind.
    Unload(LoadArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Network interface to serve; goes before the configuration's.
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// A listener besides those of the configuration; repeatable.
    #[arg(long, value_name = "ADDR:PORT=SERVICE")]
    listen: Vec<String>,
    /// Control socket; goes before the configuration's.
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct LoadArguments {
    /// Network interface.
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// Configuration file, for pin_path, xdp_mode, max_connections and vlans.
    #[arg(long, value_name = "FILE", required_unless_present = "interface")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ClientArguments {
    /// Control socket of the daemon.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_CONTROL_SOCKET)]
    control_socket: PathBuf,
}

#[derive(Debug, Args)]
struct ConnsArguments {
    /// As a JSON array.
    #[arg(long)]
    json: bool,
    /// Only those in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(State::ALL.map(State::name)), ignore_case = true)]
    state: Option<String>,
    /// Again every second until interrupted.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Runs a command.
pub fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Run(run) => serve(run),
        Command::CheckConfig { file } => check_config(&file),
        Command::Conns(conns) => block_on(show_connections(conns)),
        Command::Stats { json, client } => block_on(show_stats(json, client)),
        Command::Connect { remote, client } => block_on(connect(remote, client)),
        Command::Allow(allow) => block_on(prefixes::run(RuleName::Allow, allow)),
        Command::Deny(deny) => block_on(prefixes::run(RuleName::Deny, deny)),
        Command::Load(load) => block_on(load_program(load)),
        Command::Unload(unload) => unload_program(unload),
    }
}

/// Runs `command` in a runtime of this thread, and leaves behind what still blocks (reading standard input).
fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}

fn serve(arguments: RunArguments) -> Result<()> {
    let RunArguments { config, interface, listen, control_socket } = arguments;
    let config = Config::load(config.as_deref(), Overrides { interface, control_socket, listen })?;
    start_log();
    abort_on_panic();
    block_on(async {
        daemon::run(config, say_ready).await?;
        Ok(())
    })
}

/// A thread that panicked leaves connections behind that nobody turns: better an end that a supervisor sees.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn say_ready() {
    let mut out = std::io::stdout();
    // A supervisor that does not listen must not stop the daemon.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
}

/// Logs on standard error; `XTCP_LOG` (as tracing's `RUST_LOG`) chooses what, by default `info`.
fn start_log() {
    let filter = EnvFilter::try_from_env("XTCP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        // A line that can't be written is lost. Told of on standard error, it would end the daemon.
        .log_internal_errors(false)
        .init();
}

fn check_config(file: &std::path::Path) -> Result<()> {
    for warning in Config::check(file)? {
        eprintln!("{}: {warning}", file.display());
    }
    writeln!(std::io::stdout(), "{}: ok", file.display())?;
    Ok(())
}

async fn show_connections(arguments: ConnsArguments) -> Result<()> {
    let ConnsArguments { json, state, watch, client } = arguments;
    loop {
        let mut rows = Vec::new();
        let state = state.as_ref().map(|state| state.to_ascii_uppercase());
        Client::open(&client.control_socket).await?.connections(state, |row| rows.push(row)).await?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        if json {
            serde_json::to_writer(&mut out, &rows).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            if watch && std::io::stdout().is_terminal() {
                // Home, and clear the screen.
                write!(out, "\x1b[H\x1b[2J")?;
            }
            write!(out, "{}", table::connections(&rows))?;
        }
        out.flush()?;
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

async fn show_stats(json: bool, client: ClientArguments) -> Result<()> {
    let stats = Client::open(&client.control_socket).await?.stats().await?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{stats:#}")?;
    } else {
        write!(out, "{}", table::stats(&stats))?;
    }
    Ok(())
}

async fn connect(remote: SocketAddr, client: ClientArguments) -> Result<()> {
    let client = Client::open(&client.control_socket).await?;
    client.connect(remote, tokio::io::stdin(), tokio::io::stdout()).await?;
    Ok(())
}

async fn load_program(arguments: LoadArguments) -> Result<()> {
    start_log();
    let config = load_config(arguments)?;
    let mode = match daemon::load(&config).await? {
        Attached::Native => "in the driver",
        Attached::Generic => "in generic mode",
        Attached::Adopted => "as it already was",
    };
    writeln!(std::io::stdout(), "loaded on {} {mode}, pinned at {}", config.interface, config.pin_path.display())?;
    Ok(())
}

fn unload_program(arguments: LoadArguments) -> Result<()> {
    start_log();
    let config = load_config(arguments)?;
    let done = if daemon::unload(&config)? { "unloaded from" } else { "nothing was loaded on" };
    writeln!(std::io::stdout(), "{done} {}", config.interface)?;
    Ok(())
}

fn load_config(arguments: LoadArguments) -> Result<Config> {
    let LoadArguments { interface, config } = arguments;
    Ok(Config::load(config.as_deref(), Overrides { interface, ..Overrides::default() })?)
}
