//! Listeners: where SYNs are welcome, and the two queues between a SYN and the application.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::api::{ConnectionId, ListenError, ListenerId, ListenerInfo};
use crate::config::{StackConfig, TcpConfig};
use crate::line::Line;
use crate::time::Instant;

/// One listener.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) config: Arc<TcpConfig>,
    /// Half-open connections (SYN_RCVD): the SYN queue's length.
    half_open: u32,
    half_open_max: u32,
    /// Room for them.
    syn_backlog: u32,
    /// Established connections that wait to be accepted.
    pub(crate) accept_queue: Line,
    accept_queue_max: u32,
    /// Room for them.
    backlog: u32,
    /// Until when ACKs may bring cookies back that it sent, or the XDP program for it; `None`: none are known of.
    pub(crate) cookies_until: Option<Instant>,
    /// When the XDP program is to be told again that it sends them.
    pub(crate) cookie_demand_due: Option<Instant>,
    /// SYNs dropped because the SYN queue was full.
    pub(crate) syn_overflows: u64,
    /// Last ACKs dropped because the accept queue was full.
    pub(crate) accept_overflows: u64,
    /// SYNs answered with cookies because the SYN queue was full.
    pub(crate) cookie_overflows: u64,
}

impl Listener {
    fn new(address: SocketAddr, config: Arc<TcpConfig>, stack: &StackConfig) -> Self {
        Listener {
            address,
            half_open: 0,
            half_open_max: 0,
            syn_backlog: stack.share(config.syn_backlog as usize) as u32,
            accept_queue: Line::default(),
            accept_queue_max: 0,
            backlog: stack.share(config.backlog as usize) as u32,
            cookies_until: None,
            cookie_demand_due: None,
            syn_overflows: 0,
            accept_overflows: 0,
            cookie_overflows: 0,
            config,
        }
    }

    pub(crate) fn syn_queue_is_full(&self) -> bool {
        self.half_open >= self.syn_backlog
    }

    pub(crate) fn accept_queue_is_full(&self) -> bool {
        self.accept_queue.len() >= self.backlog as usize
    }

    pub(crate) fn half_open_begins(&mut self) {
        self.half_open += 1;
        self.half_open_max = self.half_open_max.max(self.half_open);
    }

    pub(crate) fn half_open_ends(&mut self) {
        self.half_open -= 1;
    }

    /// The handshake is done: it waits to be accepted. `waits` tells whether another still does.
    pub(crate) fn is_established(&mut self, id: ConnectionId, waits: impl Fn(ConnectionId) -> bool) {
        self.accept_queue.join(id, waits);
        self.accept_queue_max = self.accept_queue_max.max(self.accept_queue.len() as u32);
    }

    pub(crate) fn info(&self) -> ListenerInfo {
        ListenerInfo {
            address: self.address,
            syn_queue: self.half_open,
            syn_queue_max: self.half_open_max,
            accept_queue: self.accept_queue.len() as u32,
            accept_queue_max: self.accept_queue_max,
            sends_cookies: self.sends_cookies(),
            syn_overflows: self.syn_overflows,
            accept_overflows: self.accept_overflows,
            cookie_overflows: self.cookie_overflows,
        }
    }
}

/// The listeners of a stack.
#[derive(Default)]
pub(crate) struct Listeners {
    list: Vec<Option<Listener>>,
    by_address: BTreeMap<SocketAddr, ListenerId>,
}

impl Listeners {
    pub(crate) fn add(
        &mut self,
        address: SocketAddr,
        config: Arc<TcpConfig>,
        stack: &StackConfig,
    ) -> Result<ListenerId, ListenError> {
        if self.by_address.contains_key(&address) {
            return Err(ListenError::AddressInUse);
        }
        let id = ListenerId(self.list.len() as u32);
        self.list.push(Some(Listener::new(address, config, stack)));
        self.by_address.insert(address, id);
        Ok(id)
    }

    pub(crate) fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        let listener = self.list.get_mut(id.0 as usize)?.take()?;
        self.by_address.remove(&listener.address);
        Some(listener)
    }

    /// The listener for a segment to `local`: the exact address before the wildcard of its family.
    //= docs/rfc/rfc9293.md#MUST-43
    pub(crate) fn find(&self, local: SocketAddr) -> Option<ListenerId> {
        let wildcard: IpAddr = match local {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let exact = self.by_address.get(&local);
        exact.or_else(|| self.by_address.get(&SocketAddr::new(wildcard, local.port()))).copied()
    }

    pub(crate) fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.list.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.list.get_mut(id.0 as usize)?.as_mut()
    }
}
