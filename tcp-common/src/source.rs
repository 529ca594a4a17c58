//! What becomes of a segment without a connection because of where it comes from: allowed and denied prefixes, and how
//! many SYNs a source may send.
//!
//! The longest prefix decides; what none covers is taken as if there were no prefixes. What is allowed has no limit of
//! SYNs. Leaves out connections: theirs are never judged here, so that one lives on when its peer is denied.

use crate::counters::{Class, DropReason};
use crate::layout::{Config, ConnectionKey, PrefixValue, V4_PREFIX_LENGTH, is_mapped};
use crate::prefix::Rule;
use crate::rate::Rate;

/// The maps that are asked about a source. Each method is one lookup.
pub trait Sources {
    /// The entry of PREFIXES with the longest prefix of this address.
    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixValue>;
    /// Charges one SYN to this source's limit; `false`: there were too many.
    fn admit_syn(&self, source: &[u8; 16], limit: &Rate) -> bool;
}

/// Why a well-formed segment of an owned port that belongs to no connection goes no further; `None`: it does.
///
/// Without prefixes and without a limit this reads CONFIG alone.
#[inline(always)]
pub fn refusal<M: Sources>(class: Class, key: &ConnectionKey, config: &Config, maps: &M) -> Option<DropReason> {
    if config.prefixes == 0 && config.source.interval_ns == 0 {
        return None;
    }
    judge(class, key, config, maps)
}

/// Not inlined: what it needs of the program's stack is free again when the segment is answered.
#[inline(never)]
fn judge<M: Sources>(class: Class, key: &ConnectionKey, config: &Config, maps: &M) -> Option<DropReason> {
    if config.prefixes != 0
        && let Some(value) = maps.prefix(&key.remote_addr)
        && is_of_family(&value, &key.remote_addr)
    {
        return (value.rule == Rule::Deny.value()).then_some(DropReason::Denied);
    }
    if config.source.interval_ns == 0 || !matches!(class, Class::Syn) {
        return None;
    }
    (!maps.admit_syn(&source(&key.remote_addr), &config.source)).then_some(DropReason::SourceRate)
}

/// Whether a prefix that covers an address is of its family: short IPv6 prefixes cover the mapped IPv4 addresses, too,
/// and nobody means these by `::/0`. A longer IPv4 prefix would have been found before.
#[inline(always)]
fn is_of_family(value: &PrefixValue, address: &[u8; 16]) -> bool {
    value.length >= V4_PREFIX_LENGTH || !is_mapped(address)
}

/// Whom SYNs are counted for: an IPv4 address, or an IPv6 network of 64 bits, of which one host has all addresses.
#[inline(always)]
fn source(address: &[u8; 16]) -> [u8; 16] {
    let mut source = *address;
    if !is_mapped(address) {
        source[8..].fill(0);
    }
    source
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;

    use alloc::vec::Vec;

    use super::*;

    /// Notes what it is asked; has nothing.
    #[derive(Default)]
    struct Asked {
        prefixes: RefCell<Vec<[u8; 16]>>,
        sources: RefCell<Vec<[u8; 16]>>,
    }

    impl Sources for Asked {
        fn prefix(&self, address: &[u8; 16]) -> Option<PrefixValue> {
            self.prefixes.borrow_mut().push(*address);
            None
        }
        fn admit_syn(&self, source: &[u8; 16], _: &Rate) -> bool {
            self.sources.borrow_mut().push(*source);
            false
        }
    }

    fn key(remote: &str) -> ConnectionKey {
        let local = if remote.starts_with('[') { "[fd00::2]:7" } else { "10.77.0.2:7" };
        ConnectionKey::new(local.parse().unwrap(), remote.parse().unwrap())
    }

    #[test]
    fn what_is_off_costs_no_lookup() {
        let maps = Asked::default();
        assert_eq!(refusal(Class::Syn, &key("192.0.2.1:9"), &Config::default(), &maps), None);
        assert!(maps.prefixes.take().is_empty() && maps.sources.take().is_empty());
    }

    #[test]
    fn syns_of_one_ipv4_address_and_of_one_ipv6_network_are_counted_together() {
        let config = Config { source: Rate::per_second(1, 1), ..Config::default() };
        let maps = Asked::default();
        for remote in ["192.0.2.1:9", "192.0.2.2:9", "[fd00:1:2:3::4]:9", "[fd00:1:2:3:ffff::5]:9", "[fd00:1:2:4::]:9"]
        {
            assert_eq!(refusal(Class::Syn, &key(remote), &config, &maps), Some(DropReason::SourceRate));
        }
        assert_eq!(refusal(Class::Ack, &key("192.0.2.1:9"), &config, &maps), None);
        let sources = maps.sources.take();
        let expected = ["192.0.2.1:9", "192.0.2.2:9", "[fd00:1:2:3::]:9", "[fd00:1:2:3::]:9", "[fd00:1:2:4::]:9"];
        assert_eq!(sources, expected.map(|remote| key(remote).remote_addr));
    }
}
