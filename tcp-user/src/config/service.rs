//! What a listener does with its connections, and how that is spelled: on the command line and as a
//! string in the configuration (`echo`, `proxy:HOST:PORT`), or as a table (`{ proxy = [...] }`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

/// A built-in service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Sends back what it receives. RFC 862.
    Echo,
    /// Throws away what it receives. RFC 863.
    Discard,
    /// Sends the date and time. RFC 867.
    Daytime,
    /// Sends a pattern of characters for as long as the peer takes it. RFC 864.
    Chargen,
    /// The status page over HTTP/1.1.
    Http,
    /// Passes the stream on to a backend through the kernel's sockets.
    Proxy(Proxy),
}

/// Where and how the proxy passes streams on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// At least one; today only the first is used.
    pub backends: Vec<Backend>,
    /// Version of the PROXY protocol header sent to the backend; without effect yet.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How a backend is chosen; without effect yet.
    pub balance: Option<Balance>,
}

/// A backend of the proxy, reached through the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A TCP port; the host is an address or a name, resolved at every connection.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port, 1 to 65535.
        port: u16,
    },
    /// A UNIX stream socket.
    Unix(PathBuf),
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// The text header.
    V1,
    /// The binary header.
    V2,
}

/// How one of several backends is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// The one with the fewest connections.
    LeastConnections,
    /// By the client's address.
    Source,
}

/// Why a service's spelling was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// No such service.
    #[error("unknown service `{0}`: use echo, discard, daytime, chargen, http, proxy:HOST:PORT or proxy:unix:PATH")]
    Unknown(String),
    /// The backend is neither HOST:PORT nor unix:PATH.
    #[error("backend `{0}` is neither HOST:PORT (an IPv6 address in brackets) nor unix:PATH")]
    Backend(String),
    /// The list of backends is empty.
    #[error("a proxy needs at least one backend: proxy = [\"HOST:PORT\"]")]
    NoBackend,
}

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        match text {
            "echo" => Ok(Service::Echo),
            "discard" => Ok(Service::Discard),
            "daytime" => Ok(Service::Daytime),
            "chargen" => Ok(Service::Chargen),
            "http" => Ok(Service::Http),
            _ => match text.strip_prefix("proxy:") {
                Some(backend) => Ok(Service::Proxy(Proxy::to(backend.parse()?))),
                None => Err(ServiceError::Unknown(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Service::Echo => f.write_str("echo"),
            Service::Discard => f.write_str("discard"),
            Service::Daytime => f.write_str("daytime"),
            Service::Chargen => f.write_str("chargen"),
            Service::Http => f.write_str("http"),
            Service::Proxy(proxy) => write!(f, "proxy:{}", proxy.backends[0]),
        }
    }
}

impl Proxy {
    /// A plain proxy to one backend.
    #[must_use]
    pub fn to(backend: Backend) -> Self {
        Proxy { backends: vec![backend], proxy_protocol: None, balance: None }
    }
}

impl FromStr for Backend {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let refused = || ServiceError::Backend(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(refused()) } else { Ok(Backend::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner,
            None if host.contains([':', '[', ']']) => return Err(refused()),
            None => host,
        };
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(refused)?;
        if host.is_empty() { Err(refused()) } else { Ok(Backend::Tcp { host: host.to_owned(), port }) }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backend::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Backend::Tcp { host, port } => write!(f, "{host}:{port}"),
            Backend::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The table spelling of a proxy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyTable {
    /// Backends: `HOST:PORT` or `unix:PATH`.
    proxy: Vec<Backend>,
    /// `v1` or `v2`: tell the backend the client's address. Unset: off.
    proxy_protocol: Option<ProxyProtocol>,
    /// `round-robin`, `least-connections` or `source`.
    balance: Option<Balance>,
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ServiceVisitor;
        impl<'de> Visitor<'de> for ServiceVisitor {
            type Value = Service;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a service such as \"echo\", or { proxy = [\"HOST:PORT\"] }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Service, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Service, A::Error> {
                let table = ProxyTable::deserialize(MapAccessDeserializer::new(map))?;
                if table.proxy.is_empty() {
                    return Err(de::Error::custom(ServiceError::NoBackend));
                }
                let ProxyTable { proxy: backends, proxy_protocol, balance } = table;
                Ok(Service::Proxy(Proxy { backends, proxy_protocol, balance }))
            }
        }
        deserializer.deserialize_any(ServiceVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_service_survives_a_round_trip() {
        for text in [
            "echo",
            "discard",
            "daytime",
            "chargen",
            "http",
            "proxy:127.0.0.1:8080",
            "proxy:[::1]:8080",
            "proxy:web.internal:80",
            "proxy:unix:/run/web.sock",
        ] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn backends_without_host_port_or_brackets_are_refused() {
        for text in ["", "web", "web:", ":80", "web:0", "web:70000", "::1:80", "[::1]80", "unix:"] {
            assert_eq!(text.parse::<Backend>(), Err(ServiceError::Backend(text.to_owned())), "{text}");
        }
        assert_eq!("finger".parse::<Service>(), Err(ServiceError::Unknown("finger".to_owned())));
    }
}
