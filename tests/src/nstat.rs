//! What the kernel's TCP of a namespace has counted: the figures of `nstat`, by its names (`TcpRetransSegs`,
//! `TcpExtTCPDSACKRecv`).

use std::collections::BTreeMap;
use std::fmt;

use crate::net::Namespace;

/// Figures of a namespace, at one moment.
#[derive(Clone)]
pub struct Figures(BTreeMap<String, u64>);

/// Only TCP's, and only what happened.
impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().filter(|(name, figure)| name.starts_with("Tcp") && **figure > 0)).finish()
    }
}

impl Figures {
    /// Reads them.
    ///
    /// # Panics
    /// When the kernel does not tell.
    #[must_use]
    pub fn of(namespace: &Namespace) -> Figures {
        // Not /proc/net: that is the network of the process, not of this thread.
        let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let text = namespace.enter(|| Ok::<_, std::io::Error>(read("snmp")? + &read("netstat")?));
        Figures(parse(&text.expect("/proc is mounted")))
    }

    /// One figure.
    ///
    /// # Panics
    /// When the kernel has none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("the kernel counts no {name}"))
    }
}

/// Segments that the kernel's TCP of `namespace` has sent again.
///
/// # Panics
/// When the kernel does not tell.
#[must_use]
pub fn retransmits(namespace: &Namespace) -> u64 {
    Figures::of(namespace).get("TcpRetransSegs")
}

/// Pairs of lines, names and figures, both after the group's name; figures below zero (a limit) are left out.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let (pairs, _) = lines.as_chunks::<2>();
    let of_pair = |[names, figures]: &[&str; 2]| {
        let (group, names) = names.split_once(": ").unwrap_or_default();
        let (_, figures) = figures.split_once(": ").unwrap_or_default();
        let pairs = names.split(' ').zip(figures.split(' '));
        let parsed = pairs.filter_map(|(name, figure)| Some((format!("{group}{name}"), figure.parse().ok()?)));
        parsed.collect::<Vec<_>>()
    };
    pairs.iter().flat_map(of_pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_named_after_their_group() {
        let parsed = parse("Tcp: MaxConn RetransSegs\nTcp: -1 7\nTcpExt: TCPDSACKRecv\nTcpExt: 3\n");
        let expected = [("TcpRetransSegs", 7), ("TcpExtTCPDSACKRecv", 3)];
        assert_eq!(parsed, expected.map(|(name, figure)| (name.to_owned(), figure)).into());
    }
}
