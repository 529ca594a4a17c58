//! Waiting for a condition: tests poll for what they want to see and never sleep for as long as something may take.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: a loaded machine is not a failure.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How long to wait between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// Tells threads that a scope waits for to come to their end.
#[derive(Debug, Default)]
pub struct End(AtomicBool);

impl End {
    /// Whether it has come.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Comes when the returned value is dropped, also by a panic.
    #[must_use]
    pub fn comes(&self) -> impl Drop + '_ {
        struct Comes<'a>(&'a End);
        impl Drop for Comes<'_> {
            fn drop(&mut self) {
                self.0.0.store(true, Ordering::Relaxed);
            }
        }
        Comes(self)
    }
}

/// Looks until `look` returns a value, and returns it.
///
/// # Panics
/// When there is none after [`DEADLINE`]; the message says what was awaited.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for: {what}", DEADLINE.as_secs());
        std::thread::sleep(INTERVAL);
    }
}

/// Looks until what `look` returns fulfils `wanted`, and returns it.
///
/// # Panics
/// When it does not by [`DEADLINE`]; the message shows what was seen last.
pub fn until_it<T: Debug>(what: &str, mut look: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen = look();
        if wanted(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for: {what}; last seen: {seen:#?}", DEADLINE.as_secs());
        std::thread::sleep(INTERVAL);
    }
}
