//! The rtnetlink connection: requests and their answers.

use std::io;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::AsyncSocket;
use rtnetlink::{Handle, MulticastGroup};

use super::error::NetError;

/// A connection to the kernel's routing tables. Clones share it.
#[derive(Clone, Debug)]
pub struct Network {
    handle: Handle,
}

/// Where the kernel's own notices arrive.
pub(super) type Notices = BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>;

impl Network {
    /// Opens the connection; call it inside a tokio runtime with I/O, one of whose tasks serves it from then on.
    ///
    /// # Errors
    /// When netlink sockets can't be had.
    pub fn open() -> Result<Network, NetError> {
        connect(&[]).map(|(network, _)| network)
    }

    /// Sends one request; every message of the answer.
    pub(super) async fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, io::Error> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).map_err(io::Error::other)?;
        let mut collected = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => collected.push(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                // A list that the kernel could not give ends with the reason.
                NetlinkPayload::Done(done) if done.code != 0 => {
                    return Err(io::Error::from_raw_os_error(done.code.abs()));
                }
                NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                _ => {}
            }
        }
        Ok(collected)
    }
}

/// Opens a connection that also receives the notices of `groups`.
pub(super) fn connect(groups: &[MulticastGroup]) -> Result<(Network, Notices), NetError> {
    let failed = |source| NetError::Netlink { doing: "open a socket", source };
    let (mut connection, handle, notices) = rtnetlink::new_multicast_connection(groups).map_err(failed)?;
    // Lets the kernel filter dumps by interface instead of sending every address of the host.
    connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true).map_err(failed)?;
    connection.set_forward_done(true);
    tokio::spawn(connection);
    Ok((Network { handle }, notices.map(|(message, _)| message.payload).boxed()))
}
