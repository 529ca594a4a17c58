//! The configuration: a TOML file and the command line become one checked [`Config`].
//!
//! Errors are one line each and say where, what and which values are allowed. Whether the interface
//! exists, has the addresses and so on is found out at start, not here.

mod explain;
mod file;
pub mod service;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tcp_common::layout::MAX_PREFIXES;
use tcp_common::prefix::{Prefix, Rule};
use tcp_common::rate::Rate;
use tcp_proto::TcpConfig;

pub use file::{RxChecksum, XdpMode, XdpTx};
pub use service::{Backend, Proxy, Service};
pub use values::{BadPrefix, read_prefix};

use crate::xdp::default_pin_path;
use file::{Congestion, File, ListenTable, NoConnection, RttEstimator, SynCookies, TcpTable};

/// Where the control socket is unless configured.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/xtcp/control.sock";
/// Most listeners in one configuration.
pub const MAX_LISTENERS: usize = 1024;
/// Largest configuration file, bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Longest name of an interface, bytes (IFNAMSIZ without its NUL).
const MAX_INTERFACE_NAME: usize = 15;

/// What a daemon is asked to do; checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the network interface.
    pub interface: String,
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// Group that may use the control socket.
    pub control_group: Option<String>,
    /// Directory of the pinned maps.
    pub pin_path: PathBuf,
    /// Where the XDP program runs.
    pub xdp_mode: XdpMode,
    /// Whether the program answers by itself.
    pub xdp_tx: XdpTx,
    /// What to do with received checksums.
    pub rx_checksum: RxChecksum,
    /// VLAN ids served besides untagged frames.
    pub vlans: Vec<u16>,
    /// Local ports of active opens.
    pub ephemeral_ports: RangeInclusive<u16>,
    /// Most connections in any state.
    pub max_connections: u32,
    /// Most orphans of all workers together.
    pub max_orphans: u32,
    /// Most memory in buffers of all connections of all workers, bytes.
    pub max_buffer_memory: usize,
    /// Resets per second and CPU for segments without a connection.
    pub rst_rate: u32,
    /// Prefixes that are allowed or denied, at most [`MAX_PREFIXES`].
    pub prefixes: BTreeMap<Prefix, Rule>,
    /// How many SYNs a source may send.
    pub source_limit: Rate,
    /// How long a drain waits for connections to end.
    pub drain_timeout: Duration,
    /// Parameters of active opens.
    pub tcp: Arc<TcpConfig>,
    /// Listeners, at most [`MAX_LISTENERS`].
    pub listeners: Vec<Listener>,
    /// Keys that were set and have no effect yet, one line each.
    pub warnings: Vec<String>,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address; unspecified: every address of its family on the interface.
    pub address: SocketAddr,
    /// What happens to its connections.
    pub service: Service,
    /// Parameters of its connections.
    pub tcp: Arc<TcpConfig>,
    /// Whether the address need not be on the interface.
    pub foreign_address: bool,
}

/// What the command line adds to the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Replaces `interface`.
    pub interface: Option<String>,
    /// Replaces `control_socket`.
    pub control_socket: Option<PathBuf>,
    /// Further listeners, spelled `ADDR:PORT=SERVICE`.
    pub listen: Vec<String>,
}

/// Why there is no configuration; its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("{}: larger than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Not TOML, an unknown key or a bad value; with place.
    #[error("{0}")]
    File(String),
    /// A `--listen` argument is not `ADDR:PORT=SERVICE`.
    #[error("--listen '{argument}': {problem}")]
    Argument {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Neither file nor command line name an interface.
    #[error("no interface: give --interface IF or set interface = \"IF\" in the configuration")]
    NoInterface,
    /// No interface can have this name.
    #[error("interface \"{0}\": a name has 1 to 15 characters without '/' and white space")]
    InterfaceName(String),
    /// A listener can't have this address.
    #[error("listener {address}: {problem}")]
    Listener {
        /// Its address.
        address: SocketAddr,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two keys contradict each other.
    #[error("{table}: {problem}")]
    Contradiction {
        /// Which `tcp` table.
        table: String,
        /// Which keys, with their values.
        problem: String,
    },
    /// A prefix is in `allow` and in `deny`.
    #[error("{0} is in `allow` and in `deny`: remove it from one")]
    AllowedAndDenied(Prefix),
    /// Too many prefixes.
    #[error("{0} prefixes in `allow` and `deny` are more than {MAX_PREFIXES}")]
    TooManyPrefixes(usize),
    /// Too many listeners.
    #[error("{0} listeners are more than {MAX_LISTENERS}")]
    TooManyListeners(usize),
}

impl Config {
    /// Reads `path`, if any, and applies the command line.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Config, ConfigError> {
        let file = match path {
            Some(path) => parse(&path.display().to_string(), &read(path)?)?,
            None => File::default(),
        };
        resolve(file, overrides)
    }

    /// Checks `path` by itself: an interface may also come from the command line, so it may be missing.
    /// Returns what [`Config::warnings`] would hold.
    pub fn check(path: &Path) -> Result<Vec<String>, ConfigError> {
        let file = parse(&path.display().to_string(), &read(path)?)?;
        let interface = file.interface.is_none().then(|| "any".to_owned());
        Ok(resolve(file, Overrides { interface, ..Overrides::default() })?.warnings)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn parse(name: &str, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::File(explain::explain(name, text, &error)))
}

fn resolve(file: File, overrides: Overrides) -> Result<Config, ConfigError> {
    let mut warnings = global_warnings(&file);
    let (prefixes, source_limit) = (prefixes(&file)?, source_limit(&file));
    let interface = overrides.interface.or(file.interface).ok_or(ConfigError::NoInterface)?;
    check_interface_name(&interface)?;
    let default_tcp = file.tcp.unwrap_or_default();
    let tcp = Arc::new(merge("[tcp]", &TcpConfig::default(), &default_tcp)?);
    let mut listeners = Vec::new();
    for table in file.listen {
        listeners.push(listener(table, &tcp, &mut warnings)?);
    }
    for argument in overrides.listen {
        listeners.push(listener_from_argument(&argument, &tcp)?);
    }
    check_listeners(&listeners)?;
    Ok(Config {
        control_socket: overrides
            .control_socket
            .or(file.control_socket)
            .unwrap_or_else(|| DEFAULT_CONTROL_SOCKET.into()),
        control_group: file.control_group,
        pin_path: file.pin_path.unwrap_or_else(|| default_pin_path(&interface)),
        interface,
        xdp_mode: file.xdp_mode.unwrap_or_default(),
        xdp_tx: file.xdp_tx.unwrap_or_default(),
        rx_checksum: file.rx_checksum.unwrap_or_default(),
        vlans: file.vlans.unwrap_or_default().into_iter().map(values::Bounded::to).collect(),
        ephemeral_ports: file.ephemeral_ports.map_or(40_000..=49_999, |range| range.get()),
        max_connections: file.max_connections.map_or(65_536, values::Bounded::to),
        max_orphans: file.max_orphans.map_or(16_384, values::Bounded::to),
        max_buffer_memory: file.max_buffer_memory.map_or(1 << 30, values::ByteSize::to),
        rst_rate: file.rst_rate.map_or(1000, values::Bounded::to),
        prefixes,
        source_limit,
        drain_timeout: file.drain_timeout.map_or(Duration::from_secs(30), values::Interval::get),
        tcp,
        listeners,
        warnings,
    })
}

fn check_interface_name(name: &str) -> Result<(), ConfigError> {
    let bad = name.is_empty()
        || name.len() > MAX_INTERFACE_NAME
        || name == "."
        || name == ".."
        || name.contains(|c: char| c == '/' || c.is_whitespace());
    if bad { Err(ConfigError::InterfaceName(name.to_owned())) } else { Ok(()) }
}

fn prefixes(file: &File) -> Result<BTreeMap<Prefix, Rule>, ConfigError> {
    let mut prefixes = BTreeMap::new();
    for (list, rule) in [(&file.allow, Rule::Allow), (&file.deny, Rule::Deny)] {
        for prefix in list.iter().flatten().map(|cidr| cidr.get()) {
            if prefixes.insert(prefix, rule).is_some_and(|before| before != rule) {
                return Err(ConfigError::AllowedAndDenied(prefix));
            }
        }
    }
    if prefixes.len() > MAX_PREFIXES as usize {
        return Err(ConfigError::TooManyPrefixes(prefixes.len()));
    }
    Ok(prefixes)
}

fn source_limit(file: &File) -> Rate {
    let rate = file.source_syn_rate.map_or(0, values::Bounded::to);
    Rate::per_second(rate, file.source_syn_burst.map_or(rate, values::Bounded::to))
}

fn listener(table: ListenTable, default: &Arc<TcpConfig>, warnings: &mut Vec<String>) -> Result<Listener, ConfigError> {
    let ListenTable { address, service, foreign_address, tcp } = table;
    let place = format!("listener {address}");
    service_warnings(&place, &service, warnings);
    let tcp = match tcp {
        Some(own) => Arc::new(merge(&place, default, &own)?),
        None => Arc::clone(default),
    };
    Ok(Listener { address, service, tcp, foreign_address: foreign_address.unwrap_or(false) })
}

fn listener_from_argument(argument: &str, default: &Arc<TcpConfig>) -> Result<Listener, ConfigError> {
    let wrong = |problem: String| ConfigError::Argument { argument: argument.to_owned(), problem };
    let (address, service) = argument.split_once('=').ok_or_else(|| wrong("not ADDR:PORT=SERVICE".to_owned()))?;
    let address =
        address.parse().map_err(|_| wrong(format!("`{address}` is not ADDR:PORT (an IPv6 address in brackets)")))?;
    let service = service.parse().map_err(|error: service::ServiceError| wrong(error.to_string()))?;
    Ok(Listener { address, service, tcp: Arc::clone(default), foreign_address: false })
}

fn check_listeners(listeners: &[Listener]) -> Result<(), ConfigError> {
    if listeners.len() > MAX_LISTENERS {
        return Err(ConfigError::TooManyListeners(listeners.len()));
    }
    for (index, listener) in listeners.iter().enumerate() {
        let address = listener.address;
        let twice = listeners[..index].iter().any(|earlier| earlier.address == address);
        let problem = if twice { Some("is there twice") } else { unlistenable(address) };
        if let Some(problem) = problem {
            return Err(ConfigError::Listener { address, problem });
        }
    }
    Ok(())
}

/// Why nothing can listen on `address`, if so.
fn unlistenable(address: SocketAddr) -> Option<&'static str> {
    if address.port() == 0 {
        return Some("the port must be 1 to 65535");
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => Some("the address must be unicast"),
        IpAddr::V6(ip) if ip.is_multicast() => Some("the address must be unicast"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("write the IPv4 address itself, not ::ffff:"),
        _ => None,
    }
}

/// `base` with what `table` sets.
fn merge(place: &str, base: &TcpConfig, table: &TcpTable) -> Result<TcpConfig, ConfigError> {
    let merged = overlay_timers(overlay_features(base.clone(), table), table);
    check_tcp(place, &merged)?;
    Ok(merged)
}

/// Replaces each `$field` of `$config` by `$convert` of the `$value` of the same key, if it is set.
macro_rules! overlay {
    ($config:ident, $table:ident, $value:ident => $convert:expr; $($field:ident)*) => {
        $(if let Some($value) = $table.$field { $config.$field = $convert; })*
    };
}

fn overlay_timers(mut config: TcpConfig, table: &TcpTable) -> TcpConfig {
    overlay!(config, table, value => value.get();
        initial_rto min_rto max_rto user_timeout delayed_ack persist_max
        keepalive_time keepalive_interval fin_wait2_timeout msl);
    overlay!(config, table, value => Some(value.get()); persist_initial linger);
    config
}

fn overlay_features(mut config: TcpConfig, table: &TcpTable) -> TcpConfig {
    overlay!(config, table, value => value.to();
        syn_retries synack_retries retries1 retries2 orphan_retries keepalive_probes backlog syn_backlog
        recv_buffer send_buffer ttl dscp);
    overlay!(config, table, value => value; keepalive time_wait_reuse nodelay window_scale timestamps sack ecn autotune);
    overlay!(config, table, value => Some(value.to()); mss);
    if let Some(answer) = table.no_connection {
        config.reset_unknown = answer == NoConnection::Reset;
    }
    if let Some(cookies) = table.syn_cookies {
        config.syn_cookies = match cookies {
            SynCookies::Auto => tcp_proto::SynCookies::Auto,
            SynCookies::Always => tcp_proto::SynCookies::Always,
            SynCookies::Never => tcp_proto::SynCookies::Never,
        };
    }
    if let Some(estimator) = table.rtt_estimator {
        config.rtt_estimator = match estimator {
            RttEstimator::Rfc6298 => tcp_proto::RttEstimator::Rfc6298,
            RttEstimator::Rfc793 => tcp_proto::RttEstimator::Rfc793,
        };
    }
    if let Some(algorithm) = table.congestion {
        config.congestion = match algorithm {
            Congestion::Cubic => tcp_proto::CongestionAlgorithm::Cubic,
            Congestion::Reno => tcp_proto::CongestionAlgorithm::Reno,
        };
    }
    config
}

/// What no single value shows to be wrong.
fn check_tcp(place: &str, tcp: &TcpConfig) -> Result<(), ConfigError> {
    let spell = values::spell;
    let problem = if tcp.min_rto > tcp.max_rto {
        format!("min_rto ({}) is above max_rto ({})", spell(tcp.min_rto), spell(tcp.max_rto))
    } else if tcp.initial_rto > tcp.max_rto {
        format!("initial_rto ({}) is above max_rto ({})", spell(tcp.initial_rto), spell(tcp.max_rto))
    } else if let Some(initial) = tcp.persist_initial.filter(|&initial| initial > tcp.persist_max) {
        format!("persist_initial ({}) is above persist_max ({})", spell(initial), spell(tcp.persist_max))
    } else if tcp.retries1 > tcp.retries2 {
        format!("retries1 ({}) is above retries2 ({})", tcp.retries1, tcp.retries2)
    } else {
        return Ok(());
    };
    Err(ConfigError::Contradiction { table: place.to_owned(), problem })
}

fn global_warnings(file: &File) -> Vec<String> {
    let mut warnings = Vec::new();
    if file.metrics.is_some() {
        warnings.push("`metrics` has no effect yet: there is no metrics endpoint".to_owned());
    }
    if file.source_syn_burst.is_some() && source_limit(file) == Rate::default() {
        warnings.push("`source_syn_burst` has no effect without `source_syn_rate`".to_owned());
    }
    warnings
}

fn service_warnings(place: &str, service: &Service, warnings: &mut Vec<String>) {
    let Service::Proxy(proxy) = service else { return };
    if proxy.backends.len() > 1 {
        warnings.push(format!("{place}: only the first backend ({}) is used yet", proxy.backends[0]));
    }
    if proxy.proxy_protocol.is_some() {
        warnings.push(format!("{place}: `proxy_protocol` has no effect yet: no header is sent"));
    }
    if proxy.balance.is_some() {
        warnings.push(format!("{place}: `balance` has no effect yet"));
    }
}

#[cfg(test)]
mod tests;
