//! The main thread's part in SYN cookies: it makes the keys, gives them to the workers and then to the program, and sweeps
//! up entries of CONNECTIONS that the program made for a cookie and that no worker has a connection for.
//!
//! Such an entry is left when the segment that brought the cookie back was lost between program and worker, or when the
//! worker had no room for the connection. The program would steer the peer's segments to a worker that knows nothing of
//! them for ever.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use tcp_common::ConnectionKey;
use tcp_proto::CookieKeys;

use super::context::Context;
use super::error::{DaemonError, system};
use crate::stats::Stats;
use crate::worker::{self, Command, WorkerHandle};
use crate::xdp::XdpError;

/// How old an entry of the program's must be at least before it is taken for one without connection.
const ENTRY_PATIENCE: Duration = Duration::from_secs(3);
/// How often CONNECTIONS is swept at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Entries of CONNECTIONS looked at in one call.
const SWEEP_SLICE: usize = 1024;

/// The ring of keys, which this thread renews.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: CookieKeys,
}

impl KeyRing {
    /// The ring at `now_ns` (CLOCK_MONOTONIC).
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn new(now_ns: u64) -> Result<KeyRing, DaemonError> {
        let mut ring = KeyRing::default();
        ring.renew(now_ns)?;
        Ok(ring)
    }

    /// The keys, for workers and the program.
    #[must_use]
    pub fn keys(&self) -> CookieKeys {
        self.keys
    }

    /// Makes the keys that are missing at `now_ns` ([`CookieKeys::renew`]); whether there were any.
    ///
    /// # Errors
    /// As [`KeyRing::new`].
    pub fn renew(&mut self, now_ns: u64) -> Result<bool, DaemonError> {
        self.keys.renew(now_ns, secret).map_err(system("get random bytes"))
    }

    /// Once a second: renews the ring, for all who use it.
    pub(super) async fn tick(&mut self, context: &Context) -> Result<(), DaemonError> {
        let to_program = |keys: &CookieKeys| context.program.borrow_mut().set_cookie_keys(keys);
        self.renew_for(worker::now().as_nanos(), &context.workers, to_program).await
    }

    /// Renews the ring at `now_ns` and gives it away if that changed it. Workers check what the program lets through, so
    /// they get it first.
    async fn renew_for(
        &mut self,
        now_ns: u64,
        workers: &[WorkerHandle],
        to_program: impl FnOnce(&CookieKeys) -> Result<(), XdpError>,
    ) -> Result<(), DaemonError> {
        if !self.renew(now_ns)? {
            return Ok(());
        }
        for worker in workers {
            worker.ask(|reply| Command::CookieKeys { keys: self.keys, reply }).await?;
        }
        Ok(to_program(&self.keys)?)
    }
}

fn secret() -> io::Result<[u64; 2]> {
    let mut halves = [[0; 8]; 2];
    for half in &mut halves {
        getrandom(half, GetRandomFlags::empty())?;
    }
    Ok(halves.map(u64::from_ne_bytes))
}

/// When CONNECTIONS is to be swept.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    last: Option<Instant>,
    /// Cookies that came back so far.
    returned: u64,
    /// When the last of those came back whose entries no sweep has judged; `None`: all were judged.
    unjudged: Option<Instant>,
}

impl Sweep {
    /// Once a second: sweeps, if that is due.
    pub(super) async fn tick(&mut self, context: &Context, stats: &Stats) -> Result<(), DaemonError> {
        if self.is_due(Instant::now(), stats.cookies_returned()) { sweep(context).await } else { Ok(()) }
    }

    /// Whether to sweep now, at most every [`SWEEP_INTERVAL`]: `returned` cookies came back so far.
    fn is_due(&mut self, now: Instant, returned: u64) -> bool {
        if std::mem::replace(&mut self.returned, returned) != returned {
            self.unjudged = Some(now);
        }
        let rested = self.last.is_none_or(|last| now.duration_since(last) >= SWEEP_INTERVAL);
        let due = rested && self.unjudged.is_some();
        if due {
            self.last = Some(now);
            // The youngest entries are not judged yet.
            self.unjudged = self.unjudged.filter(|last| now.duration_since(*last) <= 2 * ENTRY_PATIENCE);
        }
        due
    }
}

/// Looks through all of CONNECTIONS and has the workers delete what they do not know.
async fn sweep(context: &Context) -> Result<(), DaemonError> {
    let table = context.program.borrow().connections()?;
    let made_before = worker::now().as_nanos().saturating_sub(ENTRY_PATIENCE.as_nanos() as u64);
    let mut cursor = None;
    loop {
        let mut suspects: HashMap<u16, Vec<ConnectionKey>> = HashMap::new();
        let next = table.made_by_program(cursor, SWEEP_SLICE, made_before, |queue, key| {
            suspects.entry(queue).or_default().push(key);
        })?;
        for worker in &context.workers {
            let Some(keys) = suspects.remove(&worker.queue) else { continue };
            let removed = worker.ask(|reply| Command::RemoveUnknown { keys, made_before, reply }).await?;
            tracing::debug!(queue = worker.queue, removed, "entries of cookies without connection");
        }
        match next {
            Some(next) => {
                cursor = Some(next);
                // A sweep of a large table takes longer than the program believes in a silent daemon.
                context.program.borrow_mut().heartbeat(worker::now().as_nanos())?;
            }
            None => return Ok(()),
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::future::join_all;
    use tcp_common::cookie::EPOCH_NS;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn sweeps_follow_returned_cookies_until_all_of_their_entries_were_judged() {
        let (mut sweep, start) = (Sweep::default(), Instant::now());
        let mut due = |second: u64, returned| sweep.is_due(start + Duration::from_secs(second), returned);
        assert!(!due(0, 0), "no cookie came back");
        let sweeps: Vec<u64> = (1..40).filter(|&second| due(second, 5)).collect();
        assert_eq!(sweeps, [1, 11], "the first finds entries that are too young");
        let sweeps: Vec<u64> = (40..80).filter(|&second| due(second, second.min(63))).collect();
        assert_eq!(sweeps, [40, 50, 60, 70]);
    }

    #[test]
    fn the_ring_holds_the_keys_of_the_last_epoch_this_one_and_the_next() {
        let mut ring = KeyRing::new(EPOCH_NS * 5).unwrap();
        let (fifth, sixth) = (ring.keys().get(5).unwrap(), ring.keys().get(6).unwrap());
        assert_ne!(fifth, sixth);
        assert!(!ring.renew(EPOCH_NS * 6 - 1).unwrap(), "nothing to do before the epoch ends");
        assert!(ring.renew(EPOCH_NS * 6).unwrap());
        assert_eq!((ring.keys().get(5), ring.keys().get(6)), (Some(fifth), Some(sixth)));
        assert!(ring.keys().get(7).is_some() && ring.keys().get(4).is_none());
    }

    /// Notes the keys that a worker is given.
    async fn take_keys(mut commands: mpsc::Receiver<Command>, taken: &RefCell<Vec<CookieKeys>>) {
        while let Some(command) = commands.recv().await {
            let Command::CookieKeys { keys, reply } = command else { panic!("no other command") };
            tokio::task::yield_now().await;
            taken.borrow_mut().push(keys);
            reply.send(()).unwrap();
        }
    }

    #[test]
    fn new_keys_go_to_every_worker_and_when_all_have_them_to_the_program() {
        let mut ring = KeyRing::new(0).unwrap();
        let (workers, inboxes): (Vec<_>, Vec<_>) = (0..2).map(WorkerHandle::received_by_test).unzip();
        let (taken, programs) = (RefCell::new(Vec::new()), Cell::new(None));
        let rotations = async {
            for (now_ns, expected) in [(EPOCH_NS - 1, 0), (EPOCH_NS, 2), (EPOCH_NS + 1, 2), (2 * EPOCH_NS, 4)] {
                let to_program = |keys: &CookieKeys| {
                    assert_eq!(taken.borrow().len(), expected, "workers first");
                    programs.set(Some(*keys));
                    Ok(())
                };
                ring.renew_for(now_ns, &workers, to_program).await.unwrap();
                assert_eq!(taken.borrow().len(), expected, "at {now_ns}");
                let last = taken.borrow().last().copied();
                assert_eq!((programs.get(), last), (last, (expected > 0).then_some(ring.keys())));
            }
            drop(workers);
        };
        let takers = join_all(inboxes.into_iter().map(|inbox| take_keys(inbox, &taken)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { tokio::join!(rotations, takers) });
    }
}
