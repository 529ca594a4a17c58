//! The language of the control socket: one request a connection, a line of JSON; answers are lines of JSON.
//! After a successful `connect` the connection carries [frames](super::frame).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tcp_common::State;
use tcp_common::prefix::Rule;
use tcp_proto::ConnectionInfo;

use crate::worker::ListenerReport;

/// Longest line of a request, bytes.
pub const MAX_REQUEST: usize = 4096;
/// Longest line of an answer, bytes: a slice of the connection table, or the figures of many listeners.
pub const MAX_ANSWER: usize = 16 << 20;

/// Most prefixes in a request: the longest ones fit its line.
pub const MAX_PREFIXES_OF_REQUEST: usize = 64;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The connection table.
    Conns {
        /// Only rows in this state, by its contract name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<String>,
    },
    /// Figures.
    Stats,
    /// An active open.
    Connect {
        /// The peer.
        remote: SocketAddr,
    },
    /// Allows or denies prefixes, or ends that, one after the other up to the first that fails.
    Change {
        /// Which list is changed.
        rule: RuleName,
        /// What is done to it.
        change: Change,
        /// The prefixes.
        prefixes: Vec<String>,
    },
    /// The prefixes that are allowed, or those that are denied.
    Prefixes {
        /// Which.
        rule: RuleName,
    },
}

/// A [`Rule`] in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleName {
    /// [`Rule::Allow`]
    Allow,
    /// [`Rule::Deny`]
    Deny,
}

impl From<RuleName> for Rule {
    fn from(name: RuleName) -> Rule {
        match name {
            RuleName::Allow => Rule::Allow,
            RuleName::Deny => Rule::Deny,
        }
    }
}

/// What can be done to the prefixes that are allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// They become so.
    Add,
    /// They are so no longer.
    Del,
}

/// What was done to one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is in the list now.
    Added,
    /// It is in this list now, and no longer in the other one.
    Replaced,
    /// It was in the list already.
    Unchanged,
    /// It is in the list no longer.
    Removed,
}

/// What the daemon answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Some rows; more may follow.
    Rows(Vec<Row>),
    /// No more rows.
    Done,
    /// Figures.
    Stats(serde_json::Value),
    /// The connection is established; frames follow.
    Connected {
        /// Our address.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
    },
    /// What became of each prefix of a change that did not fail.
    Changed(Vec<(String, Outcome)>),
    /// Prefixes, by address.
    Prefixes(Vec<String>),
    /// It failed; why, in one line.
    Error(String),
}

/// One row of `xtcp conns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Our address, `10.77.0.2:7` or `[fd00::2]:7`.
    pub local: String,
    /// The peer's address; of a listener `0.0.0.0:0` or `[::]:0`.
    pub remote: String,
    /// Name of the state.
    pub state: String,
    /// Time since the connection was made, ms.
    pub age_ms: u64,
    /// Time since the state was entered, ms.
    pub state_age_ms: u64,
    /// Armed timers: name and ms left.
    pub timers: BTreeMap<String, u64>,
    /// Effective send MSS, bytes.
    pub mss: u16,
    /// Smoothed round-trip time, us; null before the first sample.
    pub srtt_us: Option<u64>,
    /// Retransmission timeout, ms.
    pub rto_ms: u64,
    /// Congestion window, bytes.
    pub cwnd: u32,
    /// Slow-start threshold, bytes; null before the first loss.
    pub ssthresh: Option<u32>,
    /// Oldest sequence number not yet acknowledged.
    pub snd_una: u32,
    /// Next sequence number to send.
    pub snd_nxt: u32,
    /// Next sequence number expected.
    pub rcv_nxt: u32,
    /// The peer's window, bytes.
    pub snd_wnd: u32,
    /// Our window, bytes.
    pub rcv_wnd: u32,
    /// Stream bytes received, each once.
    pub bytes_in: u64,
    /// Stream bytes sent, each once.
    pub bytes_out: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// What a listener serves; null on connections.
    pub service: Option<String>,
    /// Name of the congestion control; null on listeners.
    pub congestion: Option<String>,
    /// RX queue whose worker owns the connection; null on listeners, which every worker has.
    pub queue: Option<u16>,
}

impl Row {
    /// The row of a connection of the worker of `queue`.
    #[must_use]
    pub fn of_connection(info: &ConnectionInfo, queue: u16) -> Row {
        Row {
            local: info.key.local().to_string(),
            remote: info.key.remote().to_string(),
            state: info.state.name().to_owned(),
            age_ms: millis(info.age),
            state_age_ms: millis(info.state_age),
            timers: info.timers.iter().map(|&(name, left)| (name.to_owned(), millis(left))).collect(),
            mss: info.mss,
            srtt_us: info.srtt.map(|srtt| srtt.as_micros() as u64),
            rto_ms: millis(info.rto),
            cwnd: info.cwnd,
            ssthresh: info.ssthresh,
            snd_una: info.snd_una,
            snd_nxt: info.snd_nxt,
            rcv_nxt: info.rcv_nxt,
            snd_wnd: info.snd_wnd,
            rcv_wnd: info.rcv_wnd,
            bytes_in: info.bytes_in,
            bytes_out: info.bytes_out,
            retransmits: info.retransmits,
            service: None,
            congestion: Some(info.congestion.to_owned()),
            queue: Some(queue),
        }
    }

    /// The row of a listener; what only connections have is 0.
    #[must_use]
    pub fn of_listener(report: &ListenerReport) -> Row {
        let address = report.info.address;
        Row {
            local: address.to_string(),
            remote: if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.to_owned(),
            state: State::LISTEN.name().to_owned(),
            age_ms: millis(report.age),
            state_age_ms: millis(report.age),
            timers: BTreeMap::new(),
            mss: 0,
            srtt_us: None,
            rto_ms: 0,
            cwnd: 0,
            ssthresh: None,
            snd_una: 0,
            snd_nxt: 0,
            rcv_nxt: 0,
            snd_wnd: 0,
            rcv_wnd: 0,
            bytes_in: 0,
            bytes_out: 0,
            retransmits: 0,
            service: Some(report.service.to_string()),
            congestion: None,
            queue: None,
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tcp_common::ConnectionKey;
    use tcp_common::prefix::Prefix;

    use super::*;

    #[test]
    fn as_many_of_the_longest_prefixes_as_a_request_may_have_fit_its_line() {
        let longest = "1111:2222:3333:4444:5555:6666:7777:8888/128".parse::<Prefix>().unwrap().to_string();
        let prefixes = vec![longest; MAX_PREFIXES_OF_REQUEST];
        let request = Request::Change { rule: RuleName::Allow, change: Change::Add, prefixes };
        assert!(serde_json::to_vec(&request).unwrap().len() < MAX_REQUEST);
    }

    fn info(local: &str, remote: &str) -> ConnectionInfo {
        ConnectionInfo {
            key: ConnectionKey::new(local.parse().unwrap(), remote.parse().unwrap()),
            state: State::FIN_WAIT_2,
            is_record: false,
            age: Duration::from_micros(12_345_678),
            state_age: Duration::from_millis(1),
            timers: vec![("fin_wait_2", Duration::from_secs(59))],
            mss: 1448,
            srtt: None,
            rto: Duration::from_secs(1),
            cwnd: 14_480,
            in_flight: 0,
            ssthresh: None,
            snd_una: 1,
            snd_nxt: u32::MAX,
            rcv_nxt: 3,
            snd_wnd: 65_535,
            rcv_wnd: 1 << 20,
            bytes_in: 5,
            bytes_out: 6,
            retransmits: 7,
            congestion: "reno",
        }
    }

    #[test]
    fn a_row_has_every_field_of_the_contract_in_its_unit() {
        let row = serde_json::to_value(Row::of_connection(&info("10.77.0.2:7", "10.77.0.1:4000"), 0)).unwrap();
        let expected = serde_json::json!({
            "local": "10.77.0.2:7", "remote": "10.77.0.1:4000", "state": "FIN_WAIT_2",
            "age_ms": 12_345, "state_age_ms": 1, "timers": { "fin_wait_2": 59_000 },
            "mss": 1448, "srtt_us": null, "rto_ms": 1000, "cwnd": 14_480, "ssthresh": null,
            "snd_una": 1, "snd_nxt": 4_294_967_295u32, "rcv_nxt": 3, "snd_wnd": 65_535, "rcv_wnd": 1_048_576,
            "bytes_in": 5, "bytes_out": 6, "retransmits": 7,
            "service": null, "congestion": "reno", "queue": 0,
        });
        assert_eq!(row, expected);
    }

    #[test]
    fn addresses_are_bracketed_in_ipv6_and_never_mapped() {
        let row = Row::of_connection(&info("[fd00::2]:7", "[fd00::1]:9"), 0);
        assert_eq!((row.local.as_str(), row.remote.as_str()), ("[fd00::2]:7", "[fd00::1]:9"));
        let row = Row::of_connection(&info("10.0.0.1:7", "[::ffff:10.0.0.2]:9"), 0);
        assert_eq!(row.remote, "10.0.0.2:9");
    }

    #[test]
    fn requests_are_refused_when_they_are_not_understood() {
        let parse = |text| serde_json::from_str::<Request>(text);
        assert_eq!(parse(r#"{"command":"conns"}"#).unwrap(), Request::Conns { state: None });
        assert_eq!(parse(r#"{"command":"stats"}"#).unwrap(), Request::Stats);
        let connect = parse(r#"{"command":"connect","remote":"[fd00::1]:80"}"#).unwrap();
        assert_eq!(connect, Request::Connect { remote: "[fd00::1]:80".parse().unwrap() });
        assert!(parse(r#"{"command":"reboot"}"#).is_err());
        assert!(parse(r#"{"command":"connect","remote":"web:80"}"#).is_err());
    }
}
