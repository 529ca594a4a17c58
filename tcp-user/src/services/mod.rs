//! The built-in services. Each takes an accepted stream and runs it to its end; all are generic over the
//! stream, so that they are tested over memory.

pub mod copy;
mod http;
mod proxy;
mod simple;

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Service;

/// How long a service that has said everything still takes (and throws away) what the peer sends, so that
/// closing does not reset the connection before the peer has read the answer.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// Renders the status page.
pub type StatusPage = Rc<dyn Fn() -> String>;

/// Runs one connection of a listener to its end. The stream's errors end it and are not reported: the
/// connection table shows them. Boxed, so that a connection costs what its own service needs.
pub fn serve<S>(service: &Service, stream: S, status: &StatusPage) -> Pin<Box<dyn Future<Output = ()>>>
where
    S: AsyncRead + AsyncWrite + Reset + Park + Unpin + 'static,
{
    match service {
        Service::Echo => Box::pin(simple::echo(stream)),
        Service::Discard => Box::pin(simple::discard(stream)),
        Service::Daytime => Box::pin(simple::daytime(stream, jiff::Timestamp::now())),
        Service::Chargen => Box::pin(simple::chargen(stream)),
        Service::Http => Box::pin(http::serve(stream, Rc::clone(status))),
        Service::Proxy(proxy) => Box::pin(proxy::serve(stream, proxy.backends[0].clone())),
    }
}

/// Whether a service keeps nothing of a connection whose peer is silent, so that it need not run until the peer speaks.
/// (The http service keeps the time in which the request has to come, a proxy its backend's socket.)
pub fn parks(service: &Service) -> bool {
    matches!(service, Service::Echo | Service::Discard)
}

/// A connection that needs no task while its peer says nothing.
pub trait Park {
    /// Whether the peer has said nothing for a while, and nothing else is waited for. Who is woken to see it and does
    /// not park is not asked again until something has moved.
    fn is_idle(&self) -> bool;

    /// Leaves the connection open. Its service starts again when there is something to read, or the end.
    fn park(self);
}

/// Ends a connection with a reset, where there is such a thing, rather than a close.
pub trait Reset {
    /// Resets.
    fn reset(self);
}

impl Reset for TcpStream {
    fn reset(self) {
        // Failing that, dropping closes it, which the peer sees as an end.
        let _ = self.set_zero_linger();
    }
}

impl Reset for UnixStream {
    fn reset(self) {}
}

#[cfg(test)]
impl Reset for tokio::io::DuplexStream {
    fn reset(self) {}
}

#[cfg(test)]
impl Park for tokio::io::DuplexStream {
    fn is_idle(&self) -> bool {
        false
    }
    fn park(self) {}
}
