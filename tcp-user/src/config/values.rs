//! Value types of the configuration: each one parses and checks itself, so that an error carries the
//! line and column of the value it is about.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use tcp_common::prefix::{Prefix, PrefixError};

/// An integer from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// The value as a narrower integer, which the bounds must fit.
    #[must_use]
    pub fn to<T: TryFrom<u64>>(self) -> T {
        T::try_from(self.0).ok().expect("the bounds of the type fit the field")
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = i64::deserialize(deserializer)?;
        match u64::try_from(value) {
            Ok(value) if (MIN..=MAX).contains(&value) => Ok(Bounded(value)),
            _ => Err(de::Error::custom(format_args!("must be {MIN} to {MAX}, is {value}"))),
        }
    }
}

/// A duration from `MIN_MS` to `MAX_MS` milliseconds: a string such as `"40ms"`, `"1s"` or `"2h"`, or plain `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval<const MIN_MS: u64, const MAX_MS: u64>(Duration);

impl<const MIN_MS: u64, const MAX_MS: u64> Interval<MIN_MS, MAX_MS> {
    /// The value.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }

    fn checked(value: Duration) -> Result<Self, String> {
        let (min, max) = (Duration::from_millis(MIN_MS), Duration::from_millis(MAX_MS));
        if value < min || value > max {
            return Err(format!("must be {} to {}, is {}", spell(min), spell(max), spell(value)));
        }
        Ok(Interval(value))
    }
}

/// A duration the way the configuration spells it.
#[must_use]
pub fn spell(value: Duration) -> String {
    humantime::format_duration(value).to_string()
}

impl<'de, const MIN_MS: u64, const MAX_MS: u64> Deserialize<'de> for Interval<MIN_MS, MAX_MS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntervalVisitor<const MIN_MS: u64, const MAX_MS: u64>;
        impl<const MIN_MS: u64, const MAX_MS: u64> Visitor<'_> for IntervalVisitor<MIN_MS, MAX_MS> {
            type Value = Interval<MIN_MS, MAX_MS>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a duration such as \"40ms\", \"1s\" or \"2h\"")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                if value != 0 {
                    return Err(E::custom(format_args!(
                        "a duration needs a unit: write \"{value}s\" or \"{value}ms\""
                    )));
                }
                Interval::checked(Duration::ZERO).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                let parsed = humantime::parse_duration(value)
                    .map_err(|error| E::custom(format_args!("\"{value}\" is no duration such as \"40ms\": {error}")))?;
                Interval::checked(parsed).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(IntervalVisitor)
    }
}

/// A number of bytes from `MIN` to `MAX`: an integer, or a string such as `"64KiB"`, `"1MiB"` or `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> ByteSize<MIN, MAX> {
    /// The value as a narrower integer, which the bounds must fit.
    #[must_use]
    pub fn to<T: TryFrom<u64>>(self) -> T {
        T::try_from(self.0).ok().expect("the bounds of the type fit the field")
    }

    fn checked(value: u64) -> Result<Self, String> {
        if !(MIN..=MAX).contains(&value) {
            return Err(format!("must be {MIN} to {MAX} bytes, is {value}"));
        }
        Ok(ByteSize(value))
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for ByteSize<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> Visitor<'_> for SizeVisitor<MIN, MAX> {
            type Value = ByteSize<MIN, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number of bytes such as 65536 or \"64KiB\"")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                let value =
                    u64::try_from(value).map_err(|_| E::custom(format_args!("must be positive, is {value}")))?;
                ByteSize::checked(value).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                let bytes = parse_bytes(value).ok_or_else(|| {
                    E::custom(format_args!("\"{value}\" is no size such as 65536, \"64KiB\", \"1MiB\" or \"1GiB\""))
                })?;
                ByteSize::checked(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A range of ports, spelled `"40000-49999"`; both ends belong to it, the lower is at least 1024.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

impl PortRange {
    /// The value.
    #[must_use]
    pub fn get(&self) -> RangeInclusive<u16> {
        self.0.clone()
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let range = text.split_once('-').and_then(|(low, high)| {
            let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            (1024 <= low && low <= high).then_some(low..=high)
        });
        range.map(PortRange).ok_or_else(|| {
            de::Error::custom(format_args!(
                "\"{text}\" is no range of ports such as \"40000-49999\" (from 1024, the lower port first)"
            ))
        })
    }
}

/// A prefix of addresses, spelled `"10.0.0.0/8"` or `"2001:db8::/32"`, or an address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(Prefix);

impl Cidr {
    /// The value.
    #[must_use]
    pub fn get(self) -> Prefix {
        self.0
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read_prefix(&text).map(Cidr).map_err(de::Error::custom)
    }
}

/// The prefix that a text spells, as [`Cidr`] does.
///
/// # Errors
/// It spells none.
pub fn read_prefix(text: &str) -> Result<Prefix, BadPrefix> {
    text.parse().map_err(|problem| BadPrefix { text: text.to_owned(), problem })
}

/// A text is no prefix; which, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\": {problem}")]
pub struct BadPrefix {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub problem: PrefixError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units_and_plain_bytes() {
        assert_eq!(parse_bytes("4096"), Some(4096));
        assert_eq!(parse_bytes("64KiB"), Some(65_536));
        assert_eq!(parse_bytes("1 MiB"), Some(1 << 20));
        assert_eq!(parse_bytes("2GiB"), Some(2 << 30));
    }

    #[test]
    fn sizes_refuse_other_units_and_overflow() {
        assert_eq!(parse_bytes("1MB"), None);
        assert_eq!(parse_bytes("KiB"), None);
        assert_eq!(parse_bytes("99999999999GiB"), None);
    }
}
