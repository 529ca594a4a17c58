//! What is left when a bench is ended in the middle: nothing. The work is done by a child process, because signals and
//! crashes run no destructors; whoever started it waits for its end, ends it when told to, and removes what it left behind:
//! processes, labs, temporary files. Leaves out the supervisor's own end by SIGKILL, after which
//! `tests::net::leftovers` has what is to be removed by hand.

use std::future::Future;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use ::tests::net::remove_labs_of;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::signal::unix::{SignalKind, signal};

/// The signals that end a bench, and what a shell calls an end by each.
const ENDS: [(SignalKind, &str, u8); 3] = [
    (SignalKind::hangup(), "SIGHUP", 129),
    (SignalKind::interrupt(), "SIGINT", 130),
    (SignalKind::terminate(), "SIGTERM", 143),
];

/// How the work ended.
#[derive(Debug)]
enum End<S> {
    /// By itself.
    Done(ExitStatus),
    /// It was stopped for this.
    Stopped(S),
}

/// Runs the work of this program: `command`. The exit code is the work's, or that of an end by a signal.
///
/// # Errors
/// When it can't be started, or something that it left can't be removed.
pub fn supervise(mut command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("can't make a runtime")?;
    match runtime.block_on(run(&mut command, told_to_end))? {
        End::Done(status) => Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))),
        End::Stopped((name, code)) => {
            eprintln!("bench: ended by {name}");
            Ok(ExitCode::from(code))
        }
    }
}

/// Runs `command` until it ends by itself or what `stops` begins to wait for happens.
async fn run<S, F: Future<Output = S>>(command: &mut Command, stops: impl FnOnce() -> io::Result<F>) -> Result<End<S>> {
    let directory = tempfile::tempdir().context("can't make a temporary directory")?;
    // Before there is anything that they would leave behind.
    let mut children = signal(SignalKind::child()).context("can't wait for children")?;
    let stopped = stops().context("can't wait for signals")?;
    // A group of its own, so that all that it starts can be killed with it.
    let mut child = command
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .context("can't start this program again")?;
    let stopped = tokio::select! {
        stopped = stopped => Some(stopped),
        ended = async { while !has_ended(&child)? { children.recv().await; } Ok::<_, io::Error>(()) } => {
            ended.context("can't wait for the work")?;
            None
        }
    };
    let status = clean_up(&mut child)?;
    Ok(stopped.map_or(End::Done(status), End::Stopped))
}

/// When one of the signals comes that end a bench.
fn told_to_end() -> io::Result<impl Future<Output = (&'static str, u8)>> {
    let mut signals = Vec::new();
    for (kind, name, code) in ENDS {
        signals.push((signal(kind)?, name, code));
    }
    Ok(std::future::poll_fn(move |cx| {
        let came = signals
            .iter_mut()
            .find_map(|(signal, name, code)| signal.poll_recv(cx).is_ready().then_some((*name, *code)));
        came.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
    }))
}

/// Whether the child has ended. It stays a zombie, so that its number is not given to another process (group).
fn has_ended(child: &Child) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(Pid::from_child(child)), options)?.is_some())
}

/// Kills what is left of the work, and removes its labs.
fn clean_up(child: &mut Child) -> Result<ExitStatus> {
    // A group without processes is no error.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let status = child.wait().context("can't wait for the work")?;
    for left in remove_labs_of(child.id())? {
        eprintln!("bench: removed what the work left: {left}");
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn the_exit_code_is_that_of_the_work() {
        let never = || Ok(std::future::pending::<()>());
        let ended = block_on(run(&mut shell("test -d $TMPDIR && exit 7"), never)).unwrap();
        assert!(matches!(ended, End::Done(status) if status.code() == Some(7)), "{ended:?}");
    }

    #[test]
    fn work_that_is_stopped_ends_with_all_that_it_started_and_its_temporary_files() {
        let note = tempfile::tempdir().unwrap();
        let note = note.path().join("note");
        let script = format!("sleep 1000 & echo $! $TMPDIR > {0}.new; mv {0}.new {0}; wait", note.display());
        let read = || std::fs::read_to_string(&note).ok();
        let noted = async {
            loop {
                if let Some(text) = read() {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let End::Stopped(text) = block_on(run(&mut shell(&script), || Ok(noted))).unwrap() else { panic!("it ended") };
        let (pid, directory) = text.trim().split_once(' ').unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(!status.contains("sleeping") && !status.contains("running"), "{status}");
        assert!(!PathBuf::from(directory).exists());
    }
}
