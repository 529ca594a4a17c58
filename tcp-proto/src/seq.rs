//! Sequence numbers: modulo 2^32, so they have a before and an after but no order (RFC 9293 section 3.4).

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A sequence number. Comparisons hold for numbers less than 2^31 apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Whether `self` comes before `other`.
    #[must_use]
    pub const fn before(self, other: SeqNum) -> bool {
        self.distance_from(other) < 0
    }

    /// Whether `self` comes after `other`.
    #[must_use]
    pub const fn after(self, other: SeqNum) -> bool {
        self.distance_from(other) > 0
    }

    /// Whether `self` comes before `other` or is it.
    #[must_use]
    pub const fn at_or_before(self, other: SeqNum) -> bool {
        self.distance_from(other) <= 0
    }

    /// Whether `self` comes after `other` or is it.
    #[must_use]
    pub const fn at_or_after(self, other: SeqNum) -> bool {
        self.distance_from(other) >= 0
    }

    /// Bytes from `other` to `self`: negative when `self` comes before.
    #[must_use]
    pub const fn distance_from(self, other: SeqNum) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// The later of the two.
    #[must_use]
    pub const fn latest(self, other: SeqNum) -> SeqNum {
        if other.after(self) { other } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub const fn earliest(self, other: SeqNum) -> SeqNum {
        if other.before(self) { other } else { self }
    }
}

/// Consecutive sequence numbers: `start` is the first of them, `end` the first after them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) start: SeqNum,
    pub(crate) end: SeqNum,
}

impl Span {
    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// How many numbers.
    pub(crate) fn len(self) -> u32 {
        self.end - self.start
    }

    /// Whether all of `other` is in it.
    pub(crate) fn holds(self, other: Span) -> bool {
        self.start.at_or_before(other.start) && other.end.at_or_before(self.end)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start.0, self.end.0)
    }
}

impl Add<u32> for SeqNum {
    type Output = SeqNum;
    fn add(self, rhs: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(rhs))
    }
}

impl AddAssign<u32> for SeqNum {
    fn add_assign(&mut self, rhs: u32) {
        *self = *self + rhs;
    }
}

impl Sub<u32> for SeqNum {
    type Output = SeqNum;
    fn sub(self, rhs: u32) -> SeqNum {
        SeqNum(self.0.wrapping_sub(rhs))
    }
}

impl Sub<SeqNum> for SeqNum {
    type Output = u32;
    /// Bytes from `rhs` up to `self`, modulo 2^32: `rhs` must not come after `self`.
    fn sub(self, rhs: SeqNum) -> u32 {
        self.0.wrapping_sub(rhs.0)
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNum;

    #[test]
    fn order_holds_across_the_wrap() {
        let (low, high) = (SeqNum(u32::MAX - 1), SeqNum(3));
        assert!(low.before(high) && high.after(low));
        assert_eq!(high - low, 5);
        assert_eq!(low.distance_from(high), -5);
        assert_eq!(low.latest(high), high);
        assert_eq!(low.earliest(high), low);
        assert_eq!(low + 5, high);
    }
}
