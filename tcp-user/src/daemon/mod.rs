//! The daemon's main thread: starts everything in the right order, keeps it true (interface, heartbeat,
//! log), answers the control socket, and stops everything in the right order.
//!
//! Start: ports, maps and program, sockets, workers, attach. Stop: detach, workers with their sockets, pins.

#[cfg(test)]
mod agreement;
mod context;
mod cookie_mode;
mod cookies;
mod error;
mod interface;
mod limits;
mod memory;
mod start;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, select_all, try_join_all};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

use crate::afxdp::Readable;
use crate::config::Config;
use crate::control::{ControlSocket, server};
use crate::net::{InterfaceWatch, Network, Seen};
use crate::worker::{self, Command, Worker, WorkerError, WorkerHandle};
use crate::xdp::{Program, ProgramLog};
use context::Context;
use cookie_mode::CookieLog;
use cookies::Sweep;
use error::system;
use limits::LimitLog;

pub use cookies::KeyRing;
pub use error::DaemonError;
pub use start::{load, unload};

/// How often the program is told that the daemon lives; it believes so for 3 s.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long resets may take to be sent when connections are aborted.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until a signal ends it; `ready` is called once it serves. Call it inside a single-threaded runtime.
///
/// # Errors
/// What prevented the start or ended the daemon otherwise than by a drain.
pub async fn run(config: Config, ready: impl FnOnce()) -> Result<(), DaemonError> {
    LocalSet::new().run_until(start_and_serve(config, ready)).await
}

async fn start_and_serve(config: Config, ready: impl FnOnce()) -> Result<(), DaemonError> {
    // Before anything that they would have to undo.
    let mut signals = Signals::install().map_err(system("install signal handlers"))?;
    let mut daemon = tokio::select! {
        started = Running::start(config) => started?,
        () = signals.next() => return Ok(()),
    };
    ready();
    let outcome = daemon.serve_and_drain(&mut signals).await;
    daemon.stop().await;
    outcome
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A daemon that serves.
struct Running {
    config: Config,
    control: ControlSocket,
    program: Rc<RefCell<Program>>,
    log: (ProgramLog, Readable),
    watch: InterfaceWatch,
    /// The interface as it was at start: what workers, sockets and program are made for.
    served: Seen,
    workers: Vec<Worker>,
    context: Rc<Context>,
    /// Keys of SYN cookies.
    ring: KeyRing,
    /// The kernel's sockets that hold the listeners' ports.
    _ports: Vec<OwnedFd>,
}

impl Running {
    async fn start(config: Config) -> Result<Running, DaemonError> {
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        start::check_privileges()?;
        let network = Network::open()?;
        let interface = network.interface(&config.interface).await?;
        start::check_interface(&interface)?;
        let mut watch = network.watch(&interface)?;
        let served = watch.changed().await?;
        start::check_listen_addresses(&config, &served.addresses)?;
        start::check_ephemeral_ports(&config)?;
        let ports = start::reserve_ports(&config.listeners, &interface)?;
        let control = ControlSocket::bind(&config.control_socket, config.control_group.as_deref())?;
        let mut program = start::open_program(&config, &interface, &served.addresses)?;
        let log = watch_log(&mut program)?;
        let ring = KeyRing::new(worker::now().as_nanos())?;
        let workers = start::start_workers(&config, &interface, &mut program, ring.keys()).await?;
        start::report_attached(&interface, program.attach()?);
        program.heartbeat(worker::now().as_nanos())?;
        let program = Rc::new(RefCell::new(program));
        let context = Rc::new(Context {
            workers: workers.iter().map(Worker::commands).collect(),
            program: Rc::clone(&program),
            network,
            interface,
            tcp: config.tcp.clone(),
            clients_waited: Cell::new(0),
            opens: Cell::new(0),
        });
        Ok(Running { config, control, program, log, watch, served, workers, context, ring, _ports: ports })
    }

    /// Serves until a signal comes; then stops accepting and waits for connections to end, for `drain_timeout`
    /// at most or until a second signal.
    async fn serve_and_drain(&mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        let (workers, program) = (self.context.workers.clone(), Rc::clone(&self.program));
        let patience = self.config.drain_timeout;
        let mut serving = std::pin::pin!(self.serve());
        tokio::select! {
            () = signals.next() => {}
            failed = &mut serving => return failed,
        }
        tracing::info!("draining for at most {}", humantime::format_duration(patience));
        let outcome = tokio::select! {
            drained = drain(&program, &workers) => return drained,
            failed = &mut serving => failed,
            () = signals.next() => Err(DaemonError::Aborted),
            () = tokio::time::sleep(patience) => {
                tracing::warn!("connections are left after drain_timeout: they are reset");
                Ok(())
            }
        };
        abort(&workers).await;
        outcome
    }

    /// Everything that goes on until the end; returns only when something fails.
    async fn serve(&mut self) -> Result<(), DaemonError> {
        let Running { control, program, log, watch, served, workers, context, ring, .. } = self;
        let worker_ended = async { Err::<(), _>(first_end(workers).await.into()) };
        let control =
            async { server::serve(control, Rc::clone(context)).await.map_err(system("serve the control socket")) };
        tokio::try_join!(
            worker_ended,
            control,
            heartbeat(context, ring),
            interface::follow(program, watch, served),
            forward_log(log),
        )
        .map(|_| ())
    }

    /// The end: what was started last is stopped first.
    async fn stop(self) {
        let Running { control, program, log, workers, context, .. } = self;
        if let Err(error) = program.borrow_mut().detach() {
            tracing::warn!(%error, "can't detach the XDP program");
        }
        drop(log);
        drop(context);
        for worker in workers {
            worker.stop().await;
        }
        drop(program);
        drop(control);
    }
}

/// Why the first worker to end has ended.
async fn first_end(workers: &mut [Worker]) -> WorkerError {
    select_all(workers.iter_mut().map(|worker| Box::pin(worker.ended()))).await.0
}

/// Once a second, as long as every worker answers: tells the program that the daemon lives, brings the figures in
/// LISTENERS up to date, and logs the limits that were hit and the turns to SYN cookies and back.
async fn heartbeat(context: &Context, ring: &mut KeyRing) -> Result<(), DaemonError> {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    let (mut limits, mut cookies) = (LimitLog::default(), CookieLog::default());
    let (mut ebb, mut sweep) = (memory::Ebb::default(), Sweep::default());
    loop {
        ticks.tick().await;
        ring.tick(context).await?;
        let stats = context.gather().await?;
        context.program.borrow_mut().heartbeat(worker::now().as_nanos())?;
        sweep.tick(context, &stats).await?;
        if ebb.is_low(stats.buffer_bytes, stats.buffer_bytes_freed) {
            // Besides the workers: it walks over all free memory. A worker waits for it only where it allocates.
            drop(tokio::task::spawn_blocking(crate::sys::memory::give_back));
        }
        let mut program = context.program.borrow_mut();
        program.set_listener_figures(stats.listener_figures())?;
        let now = Instant::now();
        limits.look(&stats, now).iter().for_each(|line| tracing::warn!("{line}"));
        cookies.look(&stats, now).iter().for_each(|line| tracing::info!("{line}"));
    }
}

/// The program's log, and when there is something in it.
fn watch_log(program: &mut Program) -> Result<(ProgramLog, Readable), DaemonError> {
    let log = program.take_log().expect("nobody else takes it");
    let changed = Readable::new(log.as_fd()).map_err(system("watch the program's log"))?;
    Ok((log, changed))
}

async fn forward_log((log, changed): &mut (ProgramLog, Readable)) -> Result<(), DaemonError> {
    loop {
        log.flush();
        changed.wait().await.map_err(system("wait for the program's log"))?;
    }
}

/// Stops accepting and waits until no connection is left but those in TIME_WAIT.
async fn drain(program: &RefCell<Program>, workers: &[WorkerHandle]) -> Result<(), DaemonError> {
    if let Err(error) = program.borrow_mut().set_listeners(&[]) {
        tracing::warn!(%error, "can't take the listeners from the program");
    }
    try_join_all(workers.iter().map(|worker| worker.ask(Command::Drain))).await?;
    Ok(())
}

/// Resets every connection, as far as the workers get to it in time.
async fn abort(workers: &[WorkerHandle]) {
    // A worker that has ended has no connections any more.
    let aborted = join_all(workers.iter().map(|worker| worker.ask(Command::Abort)));
    if tokio::time::timeout(ABORT_TIMEOUT, aborted).await.is_err() {
        tracing::warn!("not all connections could be reset in time");
    }
}
