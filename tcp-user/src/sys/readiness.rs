//! Waiting in a tokio runtime until a descriptor is readable.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells when a descriptor has become readable (edges, not levels).
///
/// It holds a duplicate of the descriptor: what that stands for stays open until both are dropped.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Watches `descriptor` in the current runtime, which needs I/O enabled.
    ///
    /// # Errors
    /// When it can't be duplicated or polled.
    pub fn new(descriptor: BorrowedFd<'_>) -> io::Result<Readable> {
        let own = descriptor.try_clone_to_owned()?;
        // SAFETY: the duplicate is open until `self` is dropped, and nobody can take it out or put another in its
        // place: the field is private and lent to nobody.
        let registered = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
        Ok(Readable(registered?))
    }

    /// Waits until the descriptor has become readable since the last wait. What was there before may have been
    /// told already: look for it before waiting. May return early. Can be dropped and called again at any time.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn every_arrival_ends_a_wait() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        let readable = Readable::new(ours.as_fd()).expect("registered");
        for _ in 0..3 {
            theirs.write_all(b"x").expect("written");
            readable.wait().await.expect("readable");
            assert_eq!(ours.read(&mut [0; 8]).expect("read"), 1);
        }
    }

    #[tokio::test]
    async fn without_an_arrival_a_wait_does_not_end() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let readable = Readable::new(ours.as_fd()).expect("registered");
        tokio::select! {
            biased;
            outcome = readable.wait() => panic!("{outcome:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
}
