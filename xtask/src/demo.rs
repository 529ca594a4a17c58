//! `cargo xtask demo`: an unmodified curl fetches pages over connections that xtcp accepts, runs and closes itself.
//!
//! Everything happens in a lab of its own, which is gone at the end: two network namespaces, a veth pair, xtcp's
//! `http` service, an ordinary web server behind xtcp's proxy, and the tables that show the connections.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;
use tests::Lab;
use tests::daemon::Daemon;
use tests::maps::Entry;
use tests::net::{CLIENT_V4, SERVER_V4};
use tests::peer::Program;
use tests::wait::until;

use crate::process::{read, workspace};
use crate::{build, root, setup};

/// Port of xtcp's own status page.
const HTTP: u16 = 80;
/// Port of xtcp's proxy.
const PROXY: u16 = 8080;
/// Port of the web server behind the proxy, on the server's loopback address.
const WEB_SERVER: u16 = 8000;
/// Size in bytes of the file that is fetched slowly, and the rate that makes it last a few seconds.
const SLOW_FILE: usize = 3 << 20;
const SLOW_RATE: &str = "1M";
/// The client's largest receive buffer, so that its kernel can't take the whole slow file at once.
const CLIENT_BUFFER: &str = "4096 65536 262144";
/// Lines of a command's output that are shown.
const SHOWN_LINES: usize = 60;

/// Builds, and shows the whole path.
pub fn run(raised: bool) -> Result<ExitCode> {
    if !raised {
        root::ensure_available("the demo (its lab is made of network namespaces)")?;
        setup::ensure()?;
        build::release()?;
    }
    if !root::is_root() {
        return root::rerun();
    }
    show()?;
    Ok(ExitCode::SUCCESS)
}

fn show() -> Result<()> {
    let lab = Lab::new();
    lab.client.set_sysctl("net.ipv4.tcp_rmem", CLIENT_BUFFER)?;
    let pages = pages()?;
    let _web_server = start_web_server(&lab, pages.path());
    let daemon = start_daemon(&lab)?;
    introduce(&lab);
    show_pages(&lab)?;
    show_live_connection(&lab, &daemon)?;
    show_after(&daemon)?;
    drop(daemon);
    heading("Everything is taken down again");
    say("xtcp has removed its program and its maps; the namespaces go with this program.");
    let checked = lab.checker().checked();
    ensure!(checked > 0, "the capture saw no segment of xtcp's");
    say(&format!(
        "All {checked} segments that xtcp sent were captured and checked: flags, options, checksums, window."
    ));
    Ok(())
}

fn pages() -> Result<TempDir> {
    let pages = tempfile::tempdir().context("can't make a temporary directory")?;
    let page = "<!doctype html><title>Behind xtcp</title><p>This page came from python3's web server.</p>\n";
    std::fs::write(pages.path().join("index.html"), page)?;
    std::fs::write(pages.path().join("slow"), tests::peer::bytes(SLOW_FILE, 1))?;
    Ok(pages)
}

/// An ordinary web server on the kernel's TCP, reachable only on the server's loopback address.
fn start_web_server(lab: &Lab, pages: &Path) -> Program {
    let mut command = lab.server.command("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(pages).arg(WEB_SERVER.to_string());
    let server = Program::start(&mut command);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], WEB_SERVER));
    until("the web server", || lab.server.enter(|| std::net::TcpStream::connect(address).ok()));
    server
}

fn start_daemon(lab: &Lab) -> Result<Daemon> {
    let proxy = format!("proxy:127.0.0.1:{WEB_SERVER}");
    let daemon = lab.daemon().listen(SERVER_V4, HTTP, "http").listen(SERVER_V4, PROXY, &proxy);
    daemon.try_start().map_err(|refusal| anyhow!("xtcp did not start: {}", refusal.stderr.join("\n")))
}

fn introduce(lab: &Lab) {
    heading("The lab: two network namespaces joined by a veth pair");
    say(&format!("client: {CLIENT_V4}, the kernel's TCP; curl runs here."));
    say(&format!("server: {SERVER_V4}, interface {}; target/release/xtcp runs here.", lab.server.interface()));
    say(&format!("Its XDP program steers ports {HTTP} and {PROXY} around the kernel's TCP; all else passes."));
    say(&format!("Behind port {PROXY}: python3 -m http.server on 127.0.0.1:{WEB_SERVER}, over the kernel's TCP."));
}

fn show_pages(lab: &Lab) -> Result<()> {
    heading("An unmodified curl fetches xtcp's own status page (its `http` service)");
    print_output(lab.client.command("curl").args([
        "-sSi",
        "--max-time",
        "30",
        &format!("http://{SERVER_V4}:{HTTP}/"),
    ]))?;
    heading("And a page of the ordinary web server, through xtcp's proxy");
    print_output(lab.client.command("curl").args(["-sSi", "--max-time", "30", &format!("http://{SERVER_V4}:{PROXY}/")]))
}

fn show_live_connection(lab: &Lab, daemon: &Daemon) -> Result<()> {
    heading("The tables while a third curl downloads slowly through the proxy");
    let url = format!("http://{SERVER_V4}:{PROXY}/slow");
    let mut download = lab.client.command("curl");
    download.args(["-sS", "--max-time", "60", "--limit-rate", SLOW_RATE, "-o", "/dev/null", "-w", "%{size_download}"]);
    let download = std::thread::spawn(move || read(download.arg(url)));
    let under_way = |entry: &Entry| entry.state() == "ESTABLISHED" && entry.number("bytes_out") > 0;
    until("the download in the map", || daemon.maps().connections().iter().any(under_way).then_some(()));
    print_output(&mut daemon.client("conns", &[]))?;
    say("The kernel's TCP in the server's namespace knows no connection of the client's:");
    print_output(lab.server.command("ss").args(["-tan", "dst", &CLIENT_V4.to_string()]))?;
    say("The XDP program decides by this pinned map; anything may read it:");
    print_output(Command::new("bpftool").args(["map", "dump", "pinned"]).arg(daemon.pin_path().join("CONNECTIONS")))?;
    let received = download.join().map_err(|_| anyhow!("the downloading thread panicked"))??;
    ensure!(received.trim() == SLOW_FILE.to_string(), "curl received {received} bytes of {SLOW_FILE}");
    say(&format!("The download is complete: {received} bytes."));
    Ok(())
}

fn show_after(daemon: &Daemon) -> Result<()> {
    heading("Afterwards: who closes first stays in TIME_WAIT, and the program has counted every frame");
    daemon.wait_for_state(PROXY, &["TIME_WAIT"]);
    print_output(&mut daemon.client("conns", &[]))?;
    print_output(Command::new("bpftool").args(["map", "dump", "pinned"]).arg(daemon.pin_path().join("COUNTERS")))
}

fn heading(text: &str) {
    println!("\n=== {text}");
}

fn say(text: &str) {
    println!("{text}");
}

/// Shows a command as a person would type it, and the beginning of its output.
fn print_output(command: &mut Command) -> Result<()> {
    let words = command.get_args().map(|word| word.to_string_lossy());
    let words: Vec<_> = std::iter::once(command.get_program().to_string_lossy()).chain(words).collect();
    let line = words.join(" ").replace(&format!("{}/", workspace().display()), "");
    println!("\n$ {}", line.split_once(" -- ").map_or(&*line, |(_, inner)| inner));
    let output = read(command)?;
    let hidden = output.lines().count().saturating_sub(SHOWN_LINES);
    output.lines().take(SHOWN_LINES).for_each(|line| println!("{line}"));
    if hidden > 0 {
        println!("... ({hidden} more lines)");
    }
    println!();
    Ok(())
}
