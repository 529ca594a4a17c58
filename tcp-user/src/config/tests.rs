//! What the configuration accepts, what it makes of it, and the one line it answers to what it refuses.

use super::*;

fn config(text: &str) -> Result<Config, ConfigError> {
    resolve(parse("xtcp.toml", text)?, Overrides { interface: Some("veth0".into()), ..Overrides::default() })
}

fn refusal(text: &str) -> String {
    let error = config(text).expect_err("refused").to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    error
}

const EXAMPLE: &str = r#"
interface = "eth0"
control_socket = "/run/xtcp/control.sock"
pin_path = "/sys/fs/bpf/xtcp/eth0"
metrics = "127.0.0.1:9464"
xdp_mode = "auto"
xdp_tx = "auto"
rx_checksum = "verify"
vlans = []
ephemeral_ports = "40000-49999"
max_connections = 65536
[tcp]
[[listen]]
address = "10.77.0.2:7"
service = "echo"
tcp = { keepalive = true, keepalive_time = "1s", keepalive_interval = "1s", keepalive_probes = 3 }
[[listen]]
address = "[::]:80"
service = { proxy = ["127.0.0.1:8080"], proxy_protocol = "v2", balance = "least-connections" }
"#;

#[test]
fn the_documented_example_is_accepted_and_means_what_it_says() {
    let config = resolve(parse("xtcp.toml", EXAMPLE).unwrap(), Overrides::default()).unwrap();
    assert_eq!(config.interface, "eth0");
    assert_eq!(config.ephemeral_ports, 40_000..=49_999);
    let [echo, proxy] = &config.listeners[..] else { panic!("two listeners") };
    assert_eq!(echo.address, "10.77.0.2:7".parse().unwrap());
    assert_eq!(echo.service, Service::Echo);
    assert!(echo.tcp.keepalive);
    assert_eq!(echo.tcp.keepalive_time, Duration::from_secs(1));
    assert_eq!(echo.tcp.keepalive_probes, 3);
    assert_eq!(proxy.service.to_string(), "proxy:127.0.0.1:8080");
    assert_eq!(*proxy.tcp, TcpConfig::default());
}

#[test]
fn keys_without_effect_yet_warn_only_when_they_ask_for_something_that_is_missing() {
    let warnings = config(EXAMPLE).unwrap().warnings.join("\n");
    for key in ["`metrics`", "`proxy_protocol`", "`balance`"] {
        assert!(warnings.contains(key), "{key} in {warnings}");
    }
    for cookies in ["auto", "always", "never"] {
        let present = format!("[tcp]\nsyn_cookies = \"{cookies}\"\n");
        assert_eq!(config(&present).unwrap().warnings, Vec::<String>::new());
    }
}

#[test]
fn the_pins_of_an_interface_with_a_dot_in_its_name_are_where_a_bpf_filesystem_takes_them() {
    let file = parse("xtcp.toml", "interface = \"eth0.100\"\n").unwrap();
    let config = resolve(file, Overrides::default()).unwrap();
    assert_eq!((config.interface.as_str(), config.pin_path), ("eth0.100", "/sys/fs/bpf/xtcp/eth0_100".into()));
}

#[test]
fn an_empty_file_gives_the_defaults_of_the_contract() {
    let config = config("").unwrap();
    assert_eq!(config.control_socket, Path::new("/run/xtcp/control.sock"));
    assert_eq!(config.pin_path, Path::new("/sys/fs/bpf/xtcp/veth0"));
    assert_eq!(config.max_connections, 65_536);
    assert_eq!((config.max_orphans, config.max_buffer_memory), (16_384, 1 << 30));
    assert_eq!(config.rst_rate, 1000);
    assert!(config.prefixes.is_empty() && config.source_limit == Rate::default());
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!(*config.tcp, TcpConfig::default());
    assert!(config.listeners.is_empty() && config.warnings.is_empty());
}

#[test]
fn a_listeners_table_overrides_the_defaults_key_by_key() {
    let config = config(
        "[tcp]\nmsl = \"1s\"\nttl = 9\nlinger = \"0s\"\n\
         [[listen]]\naddress = \"10.0.0.1:7\"\nservice = \"echo\"\ntcp = { ttl = 10, no_connection = \"drop\" }\n",
    )
    .unwrap();
    let tcp = &config.listeners[0].tcp;
    assert_eq!((tcp.msl, tcp.ttl, tcp.linger), (Duration::from_secs(1), 10, Some(Duration::ZERO)));
    assert!(!tcp.reset_unknown && config.tcp.reset_unknown);
    assert_eq!(config.tcp.ttl, 9);
}

#[test]
fn every_tcp_key_reaches_the_stack() {
    let config = config(
        r#"[tcp]
        syn_retries = 1
        synack_retries = 2
        initial_rto = "3s"
        min_rto = "4ms"
        max_rto = "5s"
        retries1 = 6
        retries2 = 7
        orphan_retries = 9
        user_timeout = "9s"
        delayed_ack = 0
        persist_initial = "10ms"
        persist_max = "11s"
        keepalive = true
        keepalive_time = "12s"
        keepalive_interval = "13s"
        keepalive_probes = 14
        fin_wait2_timeout = "15s"
        msl = "16s"
        time_wait_reuse = false
        nodelay = true
        linger = "17s"
        backlog = 18
        syn_backlog = 19
        syn_cookies = "always"
        no_connection = "drop"
        mss = 1000
        window_scale = false
        timestamps = false
        sack = false
        ecn = false
        congestion = "reno"
        autotune = false
        recv_buffer = "64KiB"
        send_buffer = 8192
        ttl = 21
        dscp = 22
        rtt_estimator = "rfc793"
        "#,
    )
    .unwrap();
    let seconds = Duration::from_secs;
    let expected = TcpConfig {
        syn_retries: 1,
        synack_retries: 2,
        initial_rto: seconds(3),
        min_rto: Duration::from_millis(4),
        max_rto: seconds(5),
        retries1: 6,
        retries2: 7,
        orphan_retries: 9,
        user_timeout: seconds(9),
        delayed_ack: Duration::ZERO,
        persist_initial: Some(Duration::from_millis(10)),
        persist_max: seconds(11),
        keepalive: true,
        keepalive_time: seconds(12),
        keepalive_interval: seconds(13),
        keepalive_probes: 14,
        fin_wait2_timeout: seconds(15),
        msl: seconds(16),
        time_wait_reuse: false,
        nodelay: true,
        linger: Some(seconds(17)),
        backlog: 18,
        syn_backlog: 19,
        syn_cookies: tcp_proto::SynCookies::Always,
        mss: Some(1000),
        window_scale: false,
        timestamps: false,
        sack: false,
        ecn: false,
        congestion: tcp_proto::CongestionAlgorithm::Reno,
        autotune: false,
        reset_unknown: false,
        recv_buffer: 65_536,
        send_buffer: 8192,
        ttl: 21,
        dscp: 22,
        rtt_estimator: tcp_proto::RttEstimator::Rfc793,
    };
    assert_eq!(*config.tcp, expected);
}

#[test]
fn prefixes_and_the_limit_of_a_source_reach_the_program() {
    let limits = "allow = [\"10.1.0.0/16\", \"fd00::1\"]\ndeny = [\"10.0.0.0/8\"]\nsource_syn_rate = 100\n";
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let known = config(limits).unwrap();
    let expected = [("10.0.0.0/8", Rule::Deny), ("10.1.0.0/16", Rule::Allow), ("fd00::1/128", Rule::Allow)];
    assert_eq!(known.prefixes, expected.map(|(text, rule)| (prefix(text), rule)).into());
    assert_eq!(known.source_limit, Rate { interval_ns: 10_000_000, burst: 100, pad: 0 });
    let burst = config(&format!("{limits}source_syn_burst = 5\n")).unwrap().source_limit.burst;
    assert_eq!(burst, 5);
    let useless = config("source_syn_burst = 5\n").unwrap();
    assert_eq!(useless.source_limit, Rate::default());
    assert_eq!(useless.warnings, ["`source_syn_burst` has no effect without `source_syn_rate`"]);
}

#[test]
fn what_is_no_prefix_is_refused_with_its_place_and_what_may_be_meant() {
    assert_eq!(
        refusal("allow = []\ndeny = [\"10.0.0.0/8\",\n  \"10.1.2.3/16\"]\n"),
        "xtcp.toml:2:8: `deny`: \"10.1.2.3/16\": bits behind the length are set; is 10.1.0.0/16 meant?"
    );
    let error = refusal("deny = [\"localhost\"]\n");
    assert!(
        error.contains("xtcp.toml:1:") && error.contains("\"localhost\": is no prefix such as 10.0.0.0/8"),
        "{error}"
    );
    let both = "allow = [\"10.0.0.1\"]\ndeny = [\"10.0.0.1/32\"]\n";
    assert_eq!(refusal(both), "10.0.0.1/32 is in `allow` and in `deny`: remove it from one");
    let error = refusal("source_syn_rate = 1000001\n");
    assert_eq!(error, "xtcp.toml:1:19: `source_syn_rate`: must be 0 to 1000000, is 1000001");
}

#[test]
fn more_prefixes_than_the_program_has_room_for_are_refused() {
    let many = |count: u32| {
        let prefixes: Vec<String> = (0..count).map(|n| format!("\"{}\"", std::net::Ipv4Addr::from_bits(n))).collect();
        format!("deny = [{}]\n", prefixes.join(","))
    };
    assert_eq!(config(&many(MAX_PREFIXES)).unwrap().prefixes.len(), 65_536);
    assert_eq!(refusal(&many(MAX_PREFIXES + 1)), "65537 prefixes in `allow` and `deny` are more than 65536");
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_one_that_was_meant() {
    let error = refusal("[tcp]\nkeepalive_tme = \"1s\"\n");
    assert!(error.starts_with("xtcp.toml:2:1: unknown key `keepalive_tme`; did you mean `keepalive_time`?"), "{error}");
    let error = refusal("interfaces = \"eth0\"\n");
    assert!(error.starts_with("xtcp.toml:1:1: unknown key `interfaces`; did you mean `interface`?"), "{error}");
    let error = refusal("[[listen]]\naddress = \"1.2.3.4:5\"\nservice = { proxy = [\"a:1\"], balanced = 1 }\n");
    assert!(error.contains("xtcp.toml:3:") && error.contains("did you mean `balance`?"), "{error}");
}

#[test]
fn a_value_out_of_range_is_refused_with_its_place_its_key_and_the_range() {
    assert_eq!(refusal("[tcp]\nttl = 256\n"), "xtcp.toml:2:7: `ttl`: must be 1 to 255, is 256");
    assert_eq!(refusal("[tcp]\nttl = -1\n"), "xtcp.toml:2:7: `ttl`: must be 1 to 255, is -1");
    assert_eq!(
        refusal("[tcp]\ndelayed_ack = \"500ms\"\n"),
        "xtcp.toml:2:15: `delayed_ack`: must be 0s to 499ms, is 500ms"
    );
    assert_eq!(
        refusal("[tcp]\nrecv_buffer = \"2GiB\"\n"),
        "xtcp.toml:2:15: `recv_buffer`: must be 4096 to 1073741824 bytes, is 2147483648"
    );
    assert_eq!(refusal("max_orphans = 0\n"), "xtcp.toml:1:15: `max_orphans`: must be 1 to 16777216, is 0");
    assert_eq!(
        refusal("max_buffer_memory = \"4KiB\"\n"),
        "xtcp.toml:1:21: `max_buffer_memory`: must be 16777216 to 1099511627776 bytes, is 4096"
    );
    assert_eq!(refusal("vlans = [1, 4095]\n"), "xtcp.toml:1:9: `vlans`: must be 1 to 4094, is 4095");
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place_and_an_example() {
    assert_eq!(
        refusal("[tcp]\nmsl = 30\n"),
        "xtcp.toml:2:7: `msl`: a duration needs a unit: write \"30s\" or \"30ms\""
    );
    let error = refusal("[tcp]\nmsl = true\n");
    assert!(error.starts_with("xtcp.toml:2:7: `msl`: invalid type: boolean") && error.contains("\"40ms\""), "{error}");
    let error = refusal("ephemeral_ports = \"5000-4000\"\n");
    assert!(error.contains("`ephemeral_ports`") && error.contains("40000-49999"), "{error}");
    let error = refusal("xdp_mode = \"fast\"\n");
    assert!(error.starts_with("xtcp.toml:1:12: `xdp_mode`: unknown variant `fast`"), "{error}");
    let error = refusal("[[listen]]\naddress = \"10.0.0.1\"\nservice = \"echo\"\n");
    assert!(error.starts_with("xtcp.toml:2:11: `address`: "), "{error}");
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    let error = refusal("[tcp\nttl = 1\n");
    assert!(error.starts_with("xtcp.toml:1:"), "{error}");
    let error = refusal("[[listen]]\nservice = \"echo\"\n");
    assert!(error.contains("missing key `address`"), "{error}");
}

#[test]
fn keys_that_contradict_each_other_are_refused_by_name() {
    assert_eq!(refusal("[tcp]\nmin_rto = \"3s\"\nmax_rto = \"2s\"\n"), "[tcp]: min_rto (3s) is above max_rto (2s)");
    assert_eq!(refusal("[tcp]\nretries1 = 16\n"), "[tcp]: retries1 (16) is above retries2 (15)");
    let own = "[[listen]]\naddress = \"10.0.0.1:7\"\nservice = \"echo\"\ntcp = { persist_initial = \"61s\" }\n";
    assert_eq!(refusal(own), "listener 10.0.0.1:7: persist_initial (1m 1s) is above persist_max (1m)");
}

#[test]
fn listeners_that_no_peer_could_reach_are_refused() {
    let listen = |address: &str| format!("[[listen]]\naddress = \"{address}\"\nservice = \"echo\"\n");
    assert_eq!(refusal(&listen("10.0.0.1:0")), "listener 10.0.0.1:0: the port must be 1 to 65535");
    assert_eq!(refusal(&listen("224.0.0.1:7")), "listener 224.0.0.1:7: the address must be unicast");
    assert!(refusal(&listen("[::ffff:10.0.0.1]:7")).contains("write the IPv4 address itself"));
    assert_eq!(refusal(&listen("10.0.0.1:7").repeat(2)), "listener 10.0.0.1:7: is there twice");
}

#[test]
fn listen_arguments_follow_the_file_and_are_checked_alike() {
    let run = |argument: &str| {
        let overrides =
            Overrides { interface: Some("veth0".into()), listen: vec![argument.to_owned()], ..Overrides::default() };
        resolve(File::default(), overrides).map(|config| config.listeners[0].clone()).map_err(|e| e.to_string())
    };
    assert_eq!(run("[fd00::2]:80=http").unwrap().service, Service::Http);
    assert_eq!(run("10.0.0.1:80=proxy:unix:/a=b").unwrap().service.to_string(), "proxy:unix:/a=b");
    assert_eq!(run("10.0.0.1:80").unwrap_err(), "--listen '10.0.0.1:80': not ADDR:PORT=SERVICE");
    assert!(run("80=echo").unwrap_err().contains("is not ADDR:PORT"));
    assert!(run("10.0.0.1:80=finger").unwrap_err().contains("unknown service `finger`"));
}

#[test]
fn without_an_interface_nothing_runs_but_a_file_can_be_checked() {
    assert!(matches!(Config::load(None, Overrides::default()), Err(ConfigError::NoInterface)));
    let bad = Overrides { interface: Some("a/b".into()), ..Overrides::default() };
    assert!(matches!(Config::load(None, bad), Err(ConfigError::InterfaceName(_))));
    let missing = Config::check(Path::new("/nonexistent/xtcp.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/xtcp.toml: No such file"), "{missing}");
}
