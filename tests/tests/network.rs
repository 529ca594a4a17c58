//! What xtcp asks the kernel about the network, against the namespaces of a wire: interfaces, addresses,
//! routes, neighbours, and ports held against the kernel's TCP.
//!
//! Needs root.

use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use tests::net::{CLIENT_V4, CLIENT_V6, EPHEMERAL_PORTS, Namespace, SERVER_V4, SERVER_V6, Wire, WireOptions};
use xtcp::net::{Interface, NetError, Network, PortError, check_ephemeral_ports, kernel_connections, reserve_port};

fn wire() -> Wire {
    Wire::new(&WireOptions::default()).expect("a wire")
}

/// Runs `work` inside `namespace` with a netlink connection and the facts of its interface.
fn within<T: Send, F: Future<Output = T>>(
    namespace: &Namespace,
    work: impl FnOnce(Network, Interface) -> F + Send,
) -> T {
    namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let network = Network::open().expect("netlink");
            let interface = network.interface(namespace.interface()).await.expect("the interface");
            work(network, interface).await
        })
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Addresses of the interface that are not link-local.
async fn global_addresses(network: &Network, interface: &Interface) -> Vec<IpAddr> {
    let mut addresses = network.addresses(interface).await.expect("addresses");
    addresses.retain(|a| !matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    addresses
}

#[test]
fn the_facts_of_an_interface_are_the_kernels() {
    let wire = Wire::new(&WireOptions { queues: 3, mtu: 1400, ..WireOptions::default() }).expect("a wire");
    let mac = wire.server.mac().expect("a MAC address");
    let index = wire.server.ip("-json link show").expect("links");
    let facts = within(&wire.server, |_, interface| async { interface });
    assert_eq!((facts.mac, facts.mtu, facts.receive_queues), (mac, 1400, 3));
    assert!(facts.is_up && facts.is_veth && facts.name == wire.server.interface());
    assert!(index.contains(&format!("\"ifindex\":{}", facts.index)), "{index}");
    wire.server.ip(&format!("link set {} down", wire.server.interface())).expect("down");
    assert!(!within(&wire.server, |_, interface| async { interface }).is_up);
}

#[test]
fn an_interface_that_xtcp_can_not_use_is_refused_by_name() {
    let wire = wire();
    let errors = within(&wire.server, |network, _| async move {
        let mut errors = Vec::new();
        for name in ["no-such-link0", "a-name-of-more-than-fifteen-bytes", "", "lo"] {
            errors.push(network.interface(name).await.expect_err(name));
        }
        errors
    });
    let kinds: Vec<_> = errors.iter().map(|e| matches!(e, NetError::NoSuchInterface { .. })).collect();
    assert_eq!(kinds, [true, true, true, false], "{errors:?}");
    assert!(matches!(errors[3], NetError::NotEthernet { .. }), "{:?}", errors[3]);
}

#[test]
fn an_interface_and_its_addresses_are_followed_until_it_is_gone() {
    let wire = Wire::new(&WireOptions { queues: 3, ..WireOptions::default() }).expect("a wire");
    let dev = format!("dev {}", wire.server.interface());
    within(&wire.server, |network, interface| {
        let (wire, dev) = (&wire, &dev);
        async move {
            assert_eq!(global_addresses(&network, &interface).await, [SERVER_V4, SERVER_V6]);
            let mut watch = network.watch(&interface).expect("a watch");
            assert!(watch.changed().await.expect("the first list").addresses.contains(&SERVER_V4));
            let changes = [
                (format!("address add 10.77.0.9/24 {dev}"), "10.77.0.9", true),
                (format!("address add fd00:77::9/64 {dev} nodad"), "fd00:77::9", true),
                (format!("address del 10.77.0.9/24 {dev}"), "10.77.0.9", false),
            ];
            for (command, address, expected) in changes {
                wire.server.ip(&command).expect("ip");
                while watch.changed().await.expect(&command).addresses.contains(&ip(address)) != expected {}
            }
            let name = wire.server.interface();
            for (command, is_up, has_carrier, queues) in [
                (format!("ip link set {name} down"), false, false, 3),
                (format!("ip link set {name} up"), true, true, 3),
                (format!("ethtool -L {name} rx 2"), true, true, 2),
                (format!("ethtool -L {name} rx 3"), true, true, 3),
            ] {
                wire.server.run(&command).expect("a command");
                let state = |now: &Interface| (now.is_up, now.has_carrier, now.receive_queues);
                while state(&watch.changed().await.expect(&command).interface) != (is_up, has_carrier, queues) {}
            }
            wire.server.ip(&format!("link del {name}")).expect("ip");
            let error = loop {
                if let Err(error) = watch.changed().await {
                    break error;
                }
            };
            assert!(matches!(error, NetError::InterfaceGone { .. }), "{error}");
        }
    });
}

//= docs/rfc/rfc9293.md#MUST-44
#[test]
fn routes_lead_to_the_neighbour_or_the_gateway_or_are_refused() {
    let wire = wire();
    let server = &wire.server;
    let name = server.interface();
    for command in [
        format!("route add 192.0.2.0/24 via {CLIENT_V4} dev {name}"),
        format!("route add 198.51.100.0/24 via inet6 {CLIENT_V6} dev {name}"),
        format!("route add 2001:db8::/32 via {CLIENT_V6} dev {name}"),
        "route add unreachable 203.0.113.0/25".to_owned(),
        "route add prohibit 203.0.113.128/26".to_owned(),
        "route add blackhole 203.0.113.192/26".to_owned(),
        "link add other0 type veth peer name other1".to_owned(),
        "address add 172.16.0.1/24 dev other0".to_owned(),
        "link set other0 up".to_owned(),
        "link set other1 up".to_owned(),
    ] {
        server.ip(&command).expect("ip");
    }
    within(server, |network, interface| async move {
        let hops = [
            (CLIENT_V4, SERVER_V4, CLIENT_V4),
            (CLIENT_V6, SERVER_V6, CLIENT_V6),
            (ip("192.0.2.1"), SERVER_V4, CLIENT_V4),
            (ip("198.51.100.1"), SERVER_V4, CLIENT_V6),
            (ip("2001:db8::1"), SERVER_V6, CLIENT_V6),
        ];
        for (destination, source, next_hop) in hops {
            let route = network.route(&interface, destination).await.expect("a route");
            assert_eq!((route.source, route.next_hop), (source, next_hop), "to {destination}");
        }
        for (destination, expected) in [
            ("8.8.8.8", "no route to 8.8.8.8 (Network is unreachable"),
            ("2001:4860::1", "no route to 2001:4860::1 ("),
            ("203.0.113.1", "no route to 203.0.113.1 ("),
            ("203.0.113.129", "no route to 203.0.113.129 ("),
            ("203.0.113.193", "no route to 203.0.113.193 ("),
            ("172.16.0.2", "the route to 172.16.0.2 leads over other0, not over "),
            ("10.77.0.2", "10.77.0.2 is an address of this host"),
            ("fd00:77::2", "fd00:77::2 is an address of this host"),
            ("127.0.0.1", "127.0.0.1 is an address of this host"),
            ("10.77.0.255", "10.77.0.255 is not the address of one host"),
            ("224.0.0.1", "224.0.0.1 is not the address of one host"),
            ("255.255.255.255", "255.255.255.255 is not the address of one host"),
            ("0.0.0.0", "0.0.0.0 is not the address of one host"),
            ("ff02::1", "ff02::1 is not the address of one host"),
        ] {
            let error = network.route(&interface, ip(destination)).await.expect_err(destination).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    });
}

#[test]
fn a_neighbour_that_the_kernel_does_not_know_is_found() {
    let wire = wire();
    let client = wire.client.mac().expect("a MAC address");
    wire.server.ip(&format!("route add 192.0.2.0/24 via {CLIENT_V4}")).expect("ip");
    within(&wire.server, |network, interface| async move {
        for destination in [CLIENT_V4, CLIENT_V6, ip("192.0.2.1")] {
            let path = network.resolve(&interface, destination).await.expect("a path");
            assert_eq!((path.link.mac, path.link.vlan), (client, None), "to {destination}");
        }
    });
}

#[test]
fn a_link_local_address_is_reached_over_the_interface() {
    let wire = wire();
    let client = wire.client.mac().expect("a MAC address");
    let addresses = within(&wire.client, |network, interface| async move { network.addresses(&interface).await });
    let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let target = addresses.expect("addresses").into_iter().find(link_local).expect("a link-local address");
    let path = within(&wire.server, |network, interface| async move { network.resolve(&interface, target).await });
    assert_eq!(path.expect("a path").link.mac, client);
}

#[test]
fn a_neighbour_not_heard_of_for_a_while_is_used_and_proven_again() {
    let wire = wire();
    let name = wire.server.interface();
    let stale = format!("neigh replace {CLIENT_V4} lladdr 02:00:00:00:00:42 nud stale dev {name}");
    wire.server.ip(&stale).expect("ip");
    let path = within(&wire.server, |network, interface| async move { network.resolve(&interface, CLIENT_V4).await });
    assert_eq!(path.expect("a path").link.mac, [2, 0, 0, 0, 0, 0x42]);
    let after = wire.server.ip(&format!("neigh show {CLIENT_V4}")).expect("ip");
    assert!(after.contains("DELAY") || after.contains("PROBE") || after.contains("REACHABLE"), "{after}");
}

#[test]
fn a_neighbour_that_does_not_answer_is_no_route_to_host() {
    let wire = wire();
    let name = wire.server.interface();
    for (family, timer) in [("ipv4", "retrans_time_ms"), ("ipv6", "retrans_time_ms")] {
        wire.server.set_sysctl(&format!("net.{family}.neigh.{name}.{timer}"), "20").expect("sysctl");
    }
    within(&wire.server, |network, interface| async move {
        for destination in ["10.77.0.99", "fd00:77::99"] {
            // Twice: the failure that the kernel remembers of the first time must not be all there is to it.
            for _ in 0..2 {
                let error = network.resolve(&interface, ip(destination)).await.expect_err("nobody there").to_string();
                let expected = format!("no route to host: {destination} does not answer on {}", interface.name);
                assert!(error.starts_with(&expected), "{error}");
            }
        }
    });
    // Somebody took the address meanwhile.
    wire.client.ip(&format!("address add 10.77.0.99/24 dev {}", wire.client.interface())).expect("ip");
    let client = wire.client.mac().expect("a MAC address");
    let path =
        within(&wire.server, |network, interface| async move { network.resolve(&interface, ip("10.77.0.99")).await });
    assert_eq!(path.expect("a path").link.mac, client);
}

#[test]
fn a_held_port_is_closed_to_the_kernels_servers_and_open_to_nobody() {
    let wire = wire();
    let address = SocketAddr::new(SERVER_V4, 80);
    let everywhere: SocketAddr = "0.0.0.0:80".parse().expect("an address");
    wire.server.enter(|| {
        let held = reserve_port(address, false, None).expect("the port");
        TcpListener::bind(address).expect_err("taken");
        TcpListener::bind(everywhere).expect_err("taken on one address");
        TcpListener::bind("127.0.0.1:80").expect("another address");
        TcpStream::connect(address).expect_err("refused");
        drop(held);
        TcpListener::bind(everywhere).expect("free again");
    });
    let error = wire.server.enter(|| reserve_port(SocketAddr::new(CLIENT_V4, 80), false, None)).expect_err("not here");
    assert!(matches!(error, PortError::NotLocal { .. }), "{error}");
}

#[test]
fn a_wildcard_port_is_held_for_one_interface_and_closed_to_the_kernels_servers_everywhere() {
    let wire = wire();
    let everywhere: SocketAddr = "0.0.0.0:80".parse().expect("an address");
    within(&wire.server, |network, ours| async move {
        let other = Interface { index: 1, name: "lo".to_owned(), ..ours.clone() };
        let _held = reserve_port(everywhere, false, Some(&ours)).expect("the port");
        let _too = reserve_port(everywhere, false, Some(&other)).expect("another interface's");
        for taken in [everywhere, SocketAddr::new(SERVER_V4, 80)] {
            TcpListener::bind(taken).expect_err("taken on an interface");
        }
        let again = reserve_port(everywhere, false, Some(&ours)).expect_err("taken").to_string();
        assert!(again.contains(&format!("pid {}", std::process::id())), "{again}");
        drop(network);
    });
}

#[test]
fn the_kernels_own_ports_must_be_reserved() {
    let wire = wire();
    wire.server.enter(|| check_ephemeral_ports(&EPHEMERAL_PORTS)).expect("reserved by the harness");
    let error = wire.client.enter(|| check_ephemeral_ports(&EPHEMERAL_PORTS)).expect_err("not reserved").to_string();
    let (_, rest) = error.split_once("run `sysctl -w net.ipv4.ip_local_reserved_ports=").expect("the line to run");
    let (value, _) = rest.split_once('`').expect("the end of the line");
    wire.client.set_sysctl("net.ipv4.ip_local_reserved_ports", value).expect("what the message says works");
    wire.client.enter(|| check_ephemeral_ports(&EPHEMERAL_PORTS)).expect("reserved now");
}

#[test]
fn live_kernel_connections_on_our_ports_are_seen() {
    let wire = wire();
    let port = *EPHEMERAL_PORTS.start();
    let found = wire.server.enter(|| {
        let listener = TcpListener::bind((SERVER_V4, port)).expect("a listener");
        let found = kernel_connections(&EPHEMERAL_PORTS).expect("sock_diag");
        drop(listener);
        assert_eq!(kernel_connections(&EPHEMERAL_PORTS).expect("sock_diag"), Vec::new());
        found
    });
    let [holder] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((holder.local, holder.state), (SocketAddr::new(SERVER_V4, port), "LISTEN"));
    assert_eq!(holder.process.as_ref().map(|(pid, _)| *pid), Some(std::process::id()));
}
