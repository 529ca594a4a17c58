//! Bad input: exactly one line on stderr that says what is wrong, where, and what to do; exit code 1 or 2.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use tests::Lab;
use tests::daemon::{DaemonBuilder, output, xtcp, xtcp_binary};
use tests::net::{SERVER_V4, WireOptions, reserved_ports};
use tests::peer;

use crate::{ECHO, server};

#[test]
fn an_unknown_key_is_named_with_its_place() {
    let lab = Lab::new();
    assert_refused(lab.daemon().line("no_such_key = 1"), &["xtcp.toml:3:1", "no_such_key"]);
}

#[test]
fn a_key_that_is_almost_right_is_suggested() {
    let lab = Lab::new();
    assert_refused(lab.daemon().tcp("keep_alive = true"), &["keep_alive", "`keepalive`"]);
}

#[test]
fn an_unknown_interface_is_named() {
    let lab = Lab::new();
    assert_refused(lab.daemon().interface("nosuch0").listen(SERVER_V4, ECHO, "echo"), &["nosuch0"]);
}

#[test]
fn a_port_that_another_program_listens_on_is_named_with_its_owner() {
    let lab = Lab::new();
    let _owner = peer::listen(&lab.server, server(ECHO));
    let own_pid = std::process::id().to_string();
    assert_refused(lab.daemon().listen(SERVER_V4, ECHO, "echo"), &["10.77.0.2:7", &own_pid]);
}

#[test]
fn an_address_that_is_not_on_the_interface_is_named_and_foreign_address_allows_it() {
    let lab = Lab::new();
    let stranger: SocketAddr = "10.77.0.77:7".parse().unwrap();
    let interface = lab.server.interface();
    let daemon = lab.daemon().listen_with(stranger, "service = \"echo\"");
    assert_refused(daemon, &["10.77.0.77", interface, "foreign_address"]);
    let allowed = lab.daemon().listen_with(stranger, "service = \"echo\"\nforeign_address = true").start();
    drop(allowed);
}

#[test]
fn an_mtu_that_is_too_large_is_named_with_a_remedy_that_works() {
    let lab = Lab::with(&WireOptions { mtu: 9000, ..WireOptions::default() });
    let daemon = || lab.daemon().listen(SERVER_V4, ECHO, "echo");
    assert_refused(daemon(), &[lab.server.interface(), "MTU 9000", "`ip link set"]);
    // What AF_XDP takes may still be too much for the driver: two remedies at most.
    let remedied = (0..2).find_map(|_| {
        let refusal = daemon().try_start().expect_err("it starts only after the remedy");
        follow_remedy(&lab, &refusal.stderr[0]);
        daemon().try_start().ok()
    });
    let _daemon = remedied.expect("it starts once the remedies are applied");
    assert_eq!(peer::exchange(&lab.connect(server(ECHO)), b"x"), b"x");
}

/// Runs the command that a refusal names between backticks, at both ends of the wire.
fn follow_remedy(lab: &Lab, refusal: &str) {
    let rest = refusal.split_once("`ip ").map(|(_, rest)| rest);
    let (command, _) = rest.and_then(|rest| rest.split_once('`')).expect("a command between backticks");
    for end in [&lab.client, &lab.server] {
        end.ip(&command.replace(lab.server.interface(), end.interface())).unwrap();
    }
}

#[test]
fn an_interface_with_another_xdp_program_is_left_alone() {
    let (other, lab) = (Lab::new(), Lab::new());
    // Some XDP program that this daemon knows nothing about: another daemon's, attached here too.
    let _owner = other.daemon().listen(SERVER_V4, ECHO, "echo").start();
    let id = other.server.xdp_program().unwrap().expect("the other lab has a program");
    lab.server.run(&format!("bpftool net attach xdp id {id} dev {}", lab.server.interface())).unwrap();
    let refused = lab.daemon().listen(SERVER_V4, ECHO, "echo");
    assert_refused(refused, &[lab.server.interface(), "XDP program"]);
    assert_eq!(lab.server.xdp_program().unwrap(), Some(id), "the other program was touched");
}

#[test]
fn missing_privilege_is_named() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    // The workspace may lie where this user can't go.
    let binary = directory.path().join("xtcp");
    std::fs::copy(xtcp_binary(), &binary).unwrap();
    let mut command = lab.server.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(binary);
    command.args(["run", "--interface", lab.server.interface(), "--listen", "10.77.0.2:7=echo", "--control-socket"]);
    let refused = output(command.arg(directory.path().join("control.sock")));
    assert_one_line(&refused, &["root"]);
}

#[test]
fn ephemeral_ports_that_the_kernel_uses_are_refused_with_the_line_that_reserves_them() {
    let lab = Lab::new();
    lab.server.set_sysctl("net.ipv4.ip_local_reserved_ports", "\n").unwrap();
    let remedy = format!("net.ipv4.ip_local_reserved_ports={}", reserved_ports());
    let refusal = lab.daemon().listen(SERVER_V4, ECHO, "echo").try_start().unwrap_err();
    let line = refusal.stderr.join("\n").replace(" = ", "=").replace(['\'', '"'], "");
    assert!(refusal.stderr.len() == 1 && line.contains("sysctl") && line.contains(&remedy), "{refusal:#?}");
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() {
    assert_one_line(&output(&mut xtcp(["run", "--config", "/nonexistent/xtcp.toml"])), &["/nonexistent/xtcp.toml"]);
}

#[test]
fn a_bad_listen_argument_is_shown_with_what_is_expected() {
    let refused = output(&mut xtcp(["run", "--interface", "lo", "--listen", "10.77.0.2:7"]));
    assert_one_line(&refused, &["10.77.0.2:7", "ADDR:PORT=SERVICE"]);
}

#[test]
fn an_unknown_service_is_named() {
    let lab = Lab::new();
    assert_refused(lab.daemon().listen(SERVER_V4, ECHO, "ecko"), &["xtcp.toml", "ecko"]);
}

#[test]
fn check_config_accepts_a_good_file_and_names_the_place_in_a_bad_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("xtcp.toml");
    let check = || output(xtcp(["check-config"]).arg(&file));
    std::fs::write(&file, "interface = \"eth0\"\n[[listen]]\naddress = \"10.77.0.2:7\"\nservice = \"echo\"\n").unwrap();
    assert_eq!(check().status.code(), Some(0));
    std::fs::write(&file, "interface = \"eth0\"\n\n[tcp]\nmsl = \"soon\"\n").unwrap();
    assert_one_line(&check(), &["xtcp.toml:4", "msl"]);
}

#[test]
fn an_unknown_argument_is_a_usage_error() {
    assert_eq!(output(&mut xtcp(["run", "--no-such-flag"])).status.code(), Some(2));
}

fn assert_refused(daemon: DaemonBuilder<'_>, words: &[&str]) {
    let refusal = daemon.try_start().unwrap_err();
    assert!(matches!(refusal.code, Some(1 | 2)), "{refusal:#?}");
    let [line] = &refusal.stderr[..] else { panic!("not exactly one line: {refusal:#?}") };
    assert!(words.iter().all(|word| line.contains(word)), "{line} lacks one of {words:?}");
}

fn assert_one_line(output: &Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(words.iter().all(|word| stderr.contains(word)), "{stderr} lacks one of {words:?}");
}
