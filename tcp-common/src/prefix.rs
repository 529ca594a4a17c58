//! Address prefixes of both families, as PREFIXES holds them: 128 bits, IPv4 mapped; and how they are written
//! (`10.0.0.0/8`, `2001:db8::/32`; an address alone is a prefix of its whole length). Leaves out zones and netmasks.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

use crate::layout::{PrefixValue, V4_PREFIX_LENGTH, from_bytes, to_bytes};

/// A prefix without bits behind its length. Sorted by address, then by length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

/// What is done with segments from a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// They are taken, and not counted towards the limit of their source.
    Allow,
    /// They are dropped, unless they belong to a connection.
    Deny,
}

/// Why something is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrefixError {
    /// Neither an address nor one with a length.
    Unreadable,
    /// The length is beyond that of the family's addresses, in bits.
    Length {
        /// The longest there is.
        longest: u8,
    },
    /// Bits behind the length are set.
    HostBits {
        /// The prefix without them.
        meant: Prefix,
    },
    /// An IPv4 prefix in the clothes of an IPv6 one.
    Mapped {
        /// How to write it.
        meant: Prefix,
    },
}

impl Prefix {
    /// The prefix of so many bits (of IPv4 0 to 32, of IPv6 0 to 128) of an address.
    ///
    /// # Errors
    /// The length is too long, bits behind it are set, or the address is an IPv4-mapped one.
    pub fn new(address: IpAddr, length: u8) -> Result<Prefix, PrefixError> {
        let (longest, before) = if address.is_ipv4() { (32, V4_PREFIX_LENGTH as u8) } else { (128, 0) };
        if length > longest {
            return Err(PrefixError::Length { longest });
        }
        let given = Prefix { bits: u128::from_be_bytes(to_bytes(address)), length: before + length };
        let meant = Prefix { bits: given.bits & given.mask(), ..given };
        if address.is_ipv6() && meant.is_ipv4() {
            return Err(PrefixError::Mapped { meant });
        }
        if given == meant { Ok(meant) } else { Err(PrefixError::HostBits { meant }) }
    }

    /// Its address as maps hold it: 16 bytes, IPv4 mapped.
    #[must_use]
    pub fn address(&self) -> [u8; 16] {
        self.bits.to_be_bytes()
    }

    /// Its length as maps hold it, in bits of a mapped address: 0 to 128.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Its entry in PREFIXES.
    #[must_use]
    pub fn value(&self, rule: Rule) -> PrefixValue {
        PrefixValue { rule: rule.value(), length: self.length.into() }
    }

    /// Whether an address, as maps hold it, begins with it. An IPv6 prefix may be so short that IPv4-mapped addresses
    /// do.
    #[must_use]
    pub fn is_prefix_of(&self, address: &[u8; 16]) -> bool {
        u128::from_be_bytes(*address) & self.mask() == self.bits
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0)
    }

    fn is_ipv4(&self) -> bool {
        u32::from(self.length) >= V4_PREFIX_LENGTH && from_bytes(self.address()).is_ipv4()
    }
}

impl Rule {
    /// What [`PrefixValue::rule`] holds.
    #[must_use]
    #[inline(always)]
    pub const fn value(self) -> u32 {
        match self {
            Rule::Allow => 1,
            Rule::Deny => 2,
        }
    }

    /// `allow` or `deny`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Allow => "allow",
            Rule::Deny => "deny",
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Unreadable)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().map_err(|_| PrefixError::Length { longest })?
            }
            Some(_) => return Err(PrefixError::Unreadable),
        };
        Prefix::new(address, length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ipv4() {
            write!(f, "{}/{}", from_bytes(self.address()), u32::from(self.length) - V4_PREFIX_LENGTH)
        } else {
            write!(f, "{}/{}", Ipv6Addr::from_bits(self.bits), self.length)
        }
    }
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefixError::Unreadable => f.write_str("is no prefix such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1"),
            PrefixError::Length { longest } => {
                let family = if *longest == 32 { "IPv4" } else { "IPv6" };
                write!(f, "the length of an {family} prefix is 0 to {longest}")
            }
            PrefixError::HostBits { meant } => write!(f, "bits behind the length are set; is {meant} meant?"),
            PrefixError::Mapped { meant } => write!(f, "write the IPv4 prefix itself, not ::ffff:; is {meant} meant?"),
        }
    }
}

impl core::error::Error for PrefixError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_prefix_is_written_as_it_was_read_and_an_address_alone_has_its_whole_length() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "::/0", "::/96", "2001:db8::/32", "fd00::1/128"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("192.0.2.1").to_string(), "192.0.2.1/32");
        assert_eq!(prefix("fd00::1").to_string(), "fd00::1/128");
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_what_may_be_meant() {
        for (text, says) in [
            ("", "is no prefix such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1"),
            ("example.com/8", "is no prefix such as"),
            ("10.0.0.0/", "is no prefix such as"),
            ("10.0.0.0/+8", "is no prefix such as"),
            ("10.0.0.0/255.0.0.0", "is no prefix such as"),
            ("10.0.0.0/33", "the length of an IPv4 prefix is 0 to 32"),
            ("10.0.0.0/4096", "the length of an IPv4 prefix is 0 to 32"),
            ("fd00::/129", "the length of an IPv6 prefix is 0 to 128"),
            ("10.1.2.3/8", "bits behind the length are set; is 10.0.0.0/8 meant?"),
            ("10.1.2.3/0", "bits behind the length are set; is 0.0.0.0/0 meant?"),
            ("fd00::1/64", "bits behind the length are set; is fd00::/64 meant?"),
            ("::ffff:10.0.0.0/104", "write the IPv4 prefix itself, not ::ffff:; is 10.0.0.0/8 meant?"),
            ("::ffff:10.0.0.1", "write the IPv4 prefix itself, not ::ffff:; is 10.0.0.1/32 meant?"),
        ] {
            let error = text.parse::<Prefix>().unwrap_err().to_string();
            assert!(error.starts_with(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_prefix_is_one_of_the_addresses_within_it() {
        let within = |text, address: &str| prefix(text).is_prefix_of(&to_bytes(address.parse().unwrap()));
        assert!(within("10.0.0.0/8", "10.255.0.1") && !within("10.0.0.0/8", "11.0.0.0"));
        assert!(within("fd00::/64", "fd00::1") && !within("fd00::/64", "fd00:0:0:1::"));
        assert!(within("0.0.0.0/0", "192.0.2.1") && !within("0.0.0.0/0", "fd00::1"));
        assert!(within("::/0", "fd00::1") && within("192.0.2.1/32", "192.0.2.1"));
    }
}
