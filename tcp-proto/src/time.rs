//! A point in time: nanoseconds of the driver's monotonic clock (the daemon's is CLOCK_MONOTONIC,
//! which is also the XDP program's).

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
pub use core::time::Duration;

/// Nanoseconds since an epoch that the driver chooses and never changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The latest instant there is: later than every deadline.
    pub const MAX: Instant = Instant(u64::MAX);

    /// The instant `nanos` ns after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// The instant `millis` ms after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Instant(millis * 1_000_000)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// An instant in four bytes: milliseconds that start over every 49 days. It means something only beside an instant that
/// is less than [`Compact::REACH`] away from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Compact(u32);

impl Compact {
    /// How far it may be from the instant that it is read beside: 24 days.
    pub(crate) const REACH: Duration = Duration::from_secs(24 * 24 * 3600);

    /// Of something that never was.
    pub(crate) const NEVER: Compact = Compact(0);

    /// The first whole millisecond at or after `instant`.
    pub(crate) const fn at_or_after(instant: Instant) -> Self {
        Compact(instant.0.div_ceil(1_000_000) as u32)
    }

    /// The instant it stands for, read at `now`.
    pub(crate) const fn near(self, now: Instant) -> Instant {
        Instant(now.as_millis().saturating_add_signed(self.from(now) as i64).saturating_mul(1_000_000))
    }

    /// How far it is from `now`, ms.
    pub(crate) const fn from(self, now: Instant) -> i32 {
        self.0.wrapping_sub(now.as_millis() as u32) as i32
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, rhs: Instant) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}
