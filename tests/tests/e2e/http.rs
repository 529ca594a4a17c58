//! curl, unmodified: xtcp's own status page, and an ordinary web server behind its proxy.

use std::net::{IpAddr, SocketAddr};
use std::process::Output;

use tests::Lab;
use tests::daemon::output;
use tests::net::{SERVER_V4, SERVER_V6};
use tests::peer::{Program, bytes};
use tests::segment::Segment;
use tests::wait::until;

use crate::{PROXY, SERVERS, loopback};

const HTTP: u16 = 80;
const WEB_SERVER: u16 = 8000;

#[test]
fn curl_fetches_the_status_page() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, HTTP, "http").listen(SERVER_V6, HTTP, "http").start();
    for address in SERVERS {
        let page = curl(&lab, address, HTTP, "");
        let text = String::from_utf8_lossy(&page.stdout);
        assert!(text.starts_with("HTTP/1.1 200 "), "{page:?}");
        assert!(text.to_lowercase().contains("\r\ncontent-type: text/"), "{page:?}");
    }
}

#[test]
fn curl_fetches_pages_of_a_kernel_web_server_through_the_proxy() {
    let lab = Lab::new();
    let pages = tempfile::tempdir().unwrap();
    let large = bytes(2_000_000, 3);
    std::fs::write(pages.path().join("index.html"), "behind the proxy\n").unwrap();
    std::fs::write(pages.path().join("large"), &large).unwrap();
    let _web_server = web_server(&lab, pages.path());
    let proxy = format!("proxy:{}", loopback(WEB_SERVER));
    let _daemon = lab.daemon().listen(SERVER_V4, PROXY, &proxy).listen(SERVER_V6, PROXY, &proxy).start();
    for address in SERVERS {
        let page = curl(&lab, address, PROXY, "");
        let text = String::from_utf8_lossy(&page.stdout);
        assert!(text.starts_with("HTTP/1.0 200 ") && text.ends_with("\r\n\r\nbehind the proxy\n"), "{page:?}");
        let page = curl(&lab, address, PROXY, "large");
        assert!(page.stdout.ends_with(&large), "the large file differs; {} bytes came", page.stdout.len());
    }
}

#[test]
fn a_proxy_without_its_backend_resets_the_client() {
    let lab = Lab::new();
    let _daemon = lab.daemon().listen(SERVER_V4, PROXY, &format!("proxy:{}", loopback(WEB_SERVER))).start();
    let mut curl = lab.client.command("curl");
    let refused = output(curl.args(["-sS", "--max-time", "30", &format!("http://{SERVER_V4}:{PROXY}/")]));
    assert!(!refused.status.success(), "{refused:?}");
    // The capture may be behind curl.
    let is_reset = |segment: &Segment| segment.source.port() == PROXY && segment.flags.rst;
    until("the reset", || lab.segments(is_reset).pop());
}

fn curl(lab: &Lab, address: IpAddr, port: u16, page: &str) -> Output {
    let url = format!("http://{}/{page}", SocketAddr::new(address, port));
    let fetched = output(lab.client.command("curl").args(["-sSi", "--max-time", "30", &url]));
    assert!(fetched.status.success(), "curl {url} failed: {fetched:?}");
    fetched
}

/// Python's web server on the kernel's TCP, reachable only on the server's loopback address.
fn web_server(lab: &Lab, pages: &std::path::Path) -> Program {
    let mut command = lab.server.command("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(pages).arg(WEB_SERVER.to_string());
    let server = Program::start(&mut command);
    until("the web server", || lab.server.enter(|| std::net::TcpStream::connect(loopback(WEB_SERVER)).ok()));
    server
}
