//! The figures of `xtcp stats`, gathered from the XDP program and every worker, and the status page that
//! shows those of one worker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::Serialize;
use tcp_common::State;
use tcp_common::counters::Counters;
use tcp_common::layout::ListenerValue;
use tcp_proto::ListenerInfo;

use crate::afxdp::RingStatistics;
use crate::worker::{ListenerReport, Report};

/// `xtcp stats --json`.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// Version of the daemon.
    pub version: &'static str,
    /// Interface it serves.
    pub interface: String,
    /// Listeners, in the order of the configuration.
    pub listeners: Vec<ListenerStats>,
    /// Frames, segments, answers and connections dropped by reason, by the program and by the stack.
    pub drops: BTreeMap<&'static str, u64>,
    /// How often an application could not queue all that it wanted to send: the `send_buffer` was full, or there was no
    /// `memory`.
    pub waits: BTreeMap<&'static str, u64>,
    /// What happened on connections: timers that fired, losses and their repairs, probes, marks, and so on.
    pub figures: BTreeMap<&'static str, u64>,
    /// What became of the frames that the program saw.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Segments of owned ports by kind.
    pub classes: BTreeMap<&'static str, u64>,
    /// AF_XDP sockets.
    pub rings: Vec<RingStatistics>,
    /// SYN cookies.
    pub cookies: Cookies,
    /// How often clients of the control socket had to wait, because as many as may be were being served.
    pub clients_waited: u64,
    /// Connections by state.
    pub connections: BTreeMap<&'static str, usize>,
    /// Bytes in send and receive buffers, with their bookkeeping.
    pub buffer_bytes: usize,
    /// Bytes of such buffers that went back to the allocator so far.
    pub buffer_bytes_freed: u64,
}

/// Figures of a listener, over all workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerStats {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves.
    pub service: String,
    /// Connections in SYN_RCVD.
    pub syn_queue: u32,
    /// Most ever in SYN_RCVD; over several workers the sum of their peaks.
    pub syn_queue_max: u32,
    /// Connections that wait for their service.
    pub accept_queue: u32,
    /// Most that ever waited; over several workers the sum of their peaks.
    pub accept_queue_max: u32,
    /// SYNs and last ACKs dropped because a queue was full: the sum of the next two.
    pub overflows: u64,
    /// SYNs dropped because the SYN queue was full.
    pub syn_overflows: u64,
    /// Last ACKs dropped because the accept queue was full.
    pub accept_overflows: u64,
    /// Whether SYNs are answered with cookies now, by any worker or the program.
    pub cookie_mode: CookieMode,
    /// SYNs that workers answered with cookies because the SYN queue was full; for the log.
    #[serde(skip)]
    pub(crate) cookie_overflows: u64,
    /// Whether the program answers SYNs with cookies now, because there are many; for the log.
    #[serde(skip)]
    pub(crate) program_sends_cookies: bool,
}

/// Whether a listener answers SYNs with cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CookieMode {
    /// It keeps SYNs.
    #[default]
    Off,
    /// It answers them with cookies.
    On,
}

/// Figures of SYN cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cookies {
    /// Sent.
    pub sent: u64,
    /// Came back and were right.
    pub ok: u64,
    /// Came back and were wrong.
    pub bad: u64,
}

impl Stats {
    /// Sums up.
    #[must_use]
    pub fn gather(interface: &str, program: &Counters, workers: &[Report]) -> Stats {
        let mut stats = Stats {
            version: env!("CARGO_PKG_VERSION"),
            interface: interface.to_owned(),
            listeners: Vec::new(),
            drops: program.drops().collect(),
            waits: BTreeMap::new(),
            figures: BTreeMap::new(),
            verdicts: program.verdicts().collect(),
            classes: program.classes().collect(),
            rings: Vec::new(),
            cookies: Cookies {
                sent: program.answer_cookie,
                // The daemon checks, and counts, what the program found good.
                ok: 0,
                bad: program.answer_bad_cookie + program.drop_bad_cookie,
            },
            clients_waited: 0,
            connections: BTreeMap::new(),
            buffer_bytes: 0,
            buffer_bytes_freed: 0,
        };
        workers.iter().for_each(|worker| stats.add(worker));
        stats
    }

    /// The figures of the listeners, as the map LISTENERS has them.
    pub fn listener_figures(&self) -> impl Iterator<Item = (SocketAddr, ListenerValue)> + '_ {
        self.listeners.iter().map(|listener| (listener.address, listener.map_figures()))
    }

    /// Cookies that came back so far, whether the program or a worker saw them: it moves with each.
    pub(crate) fn cookies_returned(&self) -> u64 {
        self.cookies.ok + self.verdicts.get("steer_cookie").copied().unwrap_or_default()
    }

    fn add(&mut self, worker: &Report) {
        for &(reason, count) in &worker.drops {
            *self.drops.entry(reason).or_default() += count;
        }
        for (cause, count) in worker.waits {
            *self.waits.entry(cause).or_default() += count;
        }
        for &(figure, count) in &worker.figures {
            *self.figures.entry(figure).or_default() += count;
            self.cookies.add(figure, count);
        }
        for &(state, count) in &worker.states {
            *self.connections.entry(state.name()).or_default() += count;
        }
        for listener in &worker.listeners {
            self.add_listener(listener);
        }
        self.rings.extend(worker.rings.clone());
        self.buffer_bytes += worker.buffer_memory;
        self.buffer_bytes_freed += worker.buffers_freed;
    }

    fn add_listener(&mut self, report: &ListenerReport) {
        let info = &report.info;
        match self.listeners.iter_mut().find(|known| known.address == info.address) {
            Some(known) => known.add(info),
            None => {
                let mut new = ListenerStats::new(info.address, report.service.to_string());
                new.add(info);
                self.listeners.push(new);
            }
        }
    }
}

impl Cookies {
    /// Adds a figure of a worker's, if it is about cookies.
    fn add(&mut self, figure: &str, count: u64) {
        match figure {
            "cookie_sent" => self.sent += count,
            "cookie_ok" => self.ok += count,
            "cookie_bad" => self.bad += count,
            _ => {}
        }
    }
}

impl ListenerStats {
    /// A listener that nothing has come to yet.
    #[must_use]
    pub fn new(address: SocketAddr, service: String) -> Self {
        ListenerStats {
            address,
            service,
            syn_queue: 0,
            syn_queue_max: 0,
            accept_queue: 0,
            accept_queue_max: 0,
            overflows: 0,
            syn_overflows: 0,
            accept_overflows: 0,
            cookie_mode: CookieMode::Off,
            cookie_overflows: 0,
            program_sends_cookies: false,
        }
    }

    /// Adds one worker's figures.
    fn add(&mut self, info: &ListenerInfo) {
        if info.sends_cookies {
            self.cookie_mode = CookieMode::On;
        }
        self.syn_queue += info.syn_queue;
        self.syn_queue_max += info.syn_queue_max;
        self.accept_queue += info.accept_queue;
        self.accept_queue_max += info.accept_queue_max;
        self.overflows += info.syn_overflows + info.accept_overflows;
        self.syn_overflows += info.syn_overflows;
        self.accept_overflows += info.accept_overflows;
        self.cookie_overflows += info.cookie_overflows;
    }

    /// The same figures as the map LISTENERS has them, and nothing else.
    fn map_figures(&self) -> ListenerValue {
        ListenerValue {
            cookie_mode: u8::from(self.cookie_mode == CookieMode::On),
            syn_queue: self.syn_queue,
            syn_queue_max: self.syn_queue_max,
            accept_queue: self.accept_queue,
            accept_queue_max: self.accept_queue_max,
            overflows: self.overflows,
            syn_overflows: self.syn_overflows,
            accept_overflows: self.accept_overflows,
            ..ListenerValue::default()
        }
    }
}

/// The status page of one worker as HTML.
#[must_use]
pub fn status_page(listeners: &[ListenerReport], states: &[(State, usize)], buffer_memory: usize) -> String {
    let mut rows = String::new();
    for ListenerReport { info, service, .. } in listeners {
        // Writing to a string never fails.
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            info.address,
            escape(&service.to_string()),
            info.syn_queue,
            info.accept_queue,
            info.syn_overflows + info.accept_overflows
        );
    }
    let mut counts = String::new();
    for (state, count) in states.iter().filter(|(state, _)| *state != State::CLOSED) {
        let _ = writeln!(counts, "<tr><td>{}</td><td>{count}</td></tr>", state.name());
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>xtcp</title></head>\n<body>\n\
         <h1>xtcp {}</h1>\n\
         <p>This page came over a TCP connection that ran outside the kernel's TCP.</p>\n\
         <h2>Listeners</h2>\n<table>\n\
         <tr><th>address</th><th>service</th><th>SYN queue</th><th>accept queue</th><th>overflows</th></tr>\n\
         {rows}</table>\n\
         <h2>Connections</h2>\n<table>\n{counts}</table>\n\
         <p>{buffer_memory} bytes in buffers.</p>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Backend, Proxy, Service};

    fn report(address: &str, service: Service) -> Report {
        let info = ListenerInfo {
            address: address.parse().unwrap(),
            syn_queue: 1,
            syn_queue_max: 2,
            accept_queue: 3,
            accept_queue_max: 4,
            sends_cookies: true,
            syn_overflows: 5,
            accept_overflows: 6,
            cookie_overflows: 7,
        };
        Report {
            listeners: vec![ListenerReport { info, service, age: Duration::ZERO }],
            states: vec![(State::LISTEN, 1), (State::ESTABLISHED, 5)],
            drops: vec![("checksum", 1), ("stray_rst", 2)],
            waits: [("send_buffer", 1), ("memory", 2)],
            figures: vec![("recovered", 1), ("cookie_sent", 3), ("cookie_ok", 4), ("cookie_bad", 5)],
            rings: None,
            buffer_memory: 10,
            buffers_freed: 20,
        }
    }

    #[test]
    fn figures_of_all_workers_and_the_program_are_summed_up() {
        let program = Counters { drop_stray_rst: 40, syn: 7, pass: 9, ..Counters::default() };
        let workers = [report("[::]:80", Service::Echo), report("[::]:80", Service::Echo)];
        let stats = serde_json::to_value(Stats::gather("veth0", &program, &workers)).unwrap();
        let listener = serde_json::json!({
            "address": "[::]:80", "service": "echo", "syn_queue": 2, "syn_queue_max": 4, "accept_queue": 6,
            "accept_queue_max": 8, "overflows": 22, "syn_overflows": 10, "accept_overflows": 12, "cookie_mode": "on",
        });
        assert_eq!(stats["listeners"], serde_json::json!([listener]));
        assert_eq!(stats["drops"]["stray_rst"], 44);
        assert_eq!(stats["drops"]["checksum"], 2);
        assert_eq!(stats["waits"], serde_json::json!({ "send_buffer": 2, "memory": 4 }));
        assert_eq!(
            stats["figures"],
            serde_json::json!({ "recovered": 2, "cookie_sent": 6, "cookie_ok": 8, "cookie_bad": 10 })
        );
        assert_eq!(stats["connections"]["ESTABLISHED"], 10);
        assert_eq!(stats["verdicts"]["pass"], 9);
        assert_eq!(stats["cookies"], serde_json::json!({ "sent": 6, "ok": 8, "bad": 10 }));
        let classes: Vec<_> = stats["classes"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(classes, ["ack", "data", "fin", "icmp", "rst", "syn", "syn_ack"]);
    }

    #[test]
    fn the_status_page_shows_listeners_and_connections_and_escapes_what_the_configuration_says() {
        let service = Service::Proxy(Proxy::to(Backend::Unix("/run/<b>.sock".into())));
        let report = report("10.77.0.2:80", service);
        let page = status_page(&report.listeners, &report.states, 10);
        assert!(page.contains("<td>10.77.0.2:80</td><td>proxy:unix:/run/&lt;b&gt;.sock</td>"), "{page}");
        assert!(page.contains("<td>ESTABLISHED</td><td>5</td>"), "{page}");
    }
}
