//! Runs the `xtcp` binary in a lab: writes its configuration, waits for `ready`, keeps its log, stops it on drop.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use crate::Lab;
use crate::maps::Maps;
use crate::net::{EPHEMERAL_PORTS, Namespace};
use crate::wait::{DEADLINE, until, until_it};

/// How long a daemon may drain on drop before a second signal tells it to give up what is open.
const DRAIN: Duration = Duration::from_millis(300);

/// The `xtcp` binary under test: `XTCP_BIN`, else the release build of this workspace.
#[must_use]
pub fn xtcp_binary() -> PathBuf {
    let built = || {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        package.parent().unwrap_or(package).join("target/release/xtcp")
    };
    std::env::var_os("XTCP_BIN").map_or_else(built, PathBuf::from)
}

/// A command that runs the `xtcp` binary outside of any lab.
#[must_use]
pub fn xtcp<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(xtcp_binary());
    command.args(arguments);
    command
}

/// A daemon's configuration while a test writes it.
#[derive(Debug)]
pub struct DaemonBuilder<'lab> {
    server: &'lab Namespace,
    /// Whose checker is to judge what the daemon sends.
    lab: Option<&'lab Lab>,
    interface: String,
    control_socket: Option<PathBuf>,
    hide_bpffs: bool,
    top: String,
    tcp: String,
    listeners: String,
    ports: Vec<u16>,
}

/// A daemon that serves.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    control_socket: PathBuf,
    /// Holds the configuration and, unless it was put elsewhere, the control socket.
    _directory: TempDir,
    pin_path: PathBuf,
    was_killed: bool,
}

/// How a daemon ended that did not start.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stderr.
    pub stderr: Vec<String>,
}

/// A running child and what it has written.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Whether the test has seen its end; else it must still run when it is dropped.
    end_is_known: bool,
    stdout: Lines,
    stderr: Lines,
}

/// Lines of a pipe, collected as they come.
#[derive(Debug)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// A row of `xtcp conns --json`. A LISTEN row has no figures of a connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Connection {
    /// Our end, for example `10.77.0.2:7` or `[fd00:77::2]:7`.
    pub local: String,
    /// The peer's end.
    pub remote: String,
    /// Name of the state.
    pub state: String,
    /// Milliseconds left of every armed timer, by name.
    #[serde(default)]
    pub timers: BTreeMap<String, f64>,
    /// Every other field.
    #[serde(flatten)]
    pub figures: BTreeMap<String, Value>,
}

impl Connection {
    /// A figure that the contract says every connection has.
    ///
    /// # Panics
    /// When the row has no such number.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        let figure = self.figures.get(name).and_then(Value::as_u64);
        figure.unwrap_or_else(|| panic!("the row has no number {name}: {self:#?}"))
    }
}

impl<'lab> DaemonBuilder<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        DaemonBuilder { lab: Some(lab), ..DaemonBuilder::on(&lab.server) }
    }

    /// A daemon in a namespace without a capture, which would cost more than what is to be measured.
    #[must_use]
    pub fn on(server: &'lab Namespace) -> Self {
        let interface = server.interface().to_owned();
        DaemonBuilder {
            server,
            lab: None,
            interface,
            control_socket: None,
            hide_bpffs: false,
            top: String::new(),
            tcp: String::new(),
            listeners: String::new(),
            ports: Vec::new(),
        }
    }

    /// Another interface than the lab's.
    #[must_use]
    pub fn interface(mut self, name: &str) -> Self {
        name.clone_into(&mut self.interface);
        self
    }

    /// Another control socket than one in a directory of the daemon's own.
    #[must_use]
    pub fn control_socket(mut self, path: &Path) -> Self {
        self.control_socket = Some(path.to_owned());
        self
    }

    /// Starts the daemon by `ip netns exec`, which mounts another /sys and so hides bpffs.
    #[must_use]
    pub fn inside_ip_netns_exec(mut self) -> Self {
        self.hide_bpffs = true;
        self
    }

    /// A listener; `service` is a command-line spelling.
    #[must_use]
    pub fn listen(self, address: IpAddr, port: u16, service: &str) -> Self {
        self.listen_with(SocketAddr::new(address, port), &format!("service = \"{service}\""))
    }

    /// A listener with lines of its own in its table.
    #[must_use]
    pub fn listen_with(mut self, address: SocketAddr, lines: &str) -> Self {
        self.ports.push(address.port());
        write!(self.listeners, "[[listen]]\naddress = \"{address}\"\n{lines}\n").expect("writing to a string");
        self
    }

    /// A top-level line.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.top.push_str(line);
        self.top.push('\n');
        self
    }

    /// A line of the `[tcp]` table.
    #[must_use]
    pub fn tcp(mut self, line: &str) -> Self {
        self.tcp.push_str(line);
        self.tcp.push('\n');
        self
    }

    /// Starts the daemon and waits until it serves.
    ///
    /// # Panics
    /// When it does not start; the message holds its log.
    #[must_use]
    pub fn start(self) -> Daemon {
        self.try_start().unwrap_or_else(|refusal| panic!("xtcp did not start: {refusal:#?}"))
    }

    /// Starts the daemon and waits until it serves or has ended.
    ///
    /// # Errors
    /// When it ended before it was ready.
    ///
    /// # Panics
    /// When the binary is missing, and when the daemon does neither within [`DEADLINE`].
    pub fn try_start(self) -> Result<Daemon, Refusal> {
        if let Some(mut checker) = self.lab.map(Lab::checker) {
            checker.own(EPHEMERAL_PORTS);
            self.ports.iter().for_each(|port| checker.own(*port..=*port));
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control_socket = self.control_socket.clone().unwrap_or_else(|| directory.path().join("control.sock"));
        let config = directory.path().join("xtcp.toml");
        std::fs::write(&config, self.text(&control_socket)).expect("writing a file");
        let process = Process::spawn(self.command().arg(config));
        let pin_path = pin_path(&self.interface);
        Daemon { process, _directory: directory, control_socket, pin_path, was_killed: false }.wait_until_ready()
    }

    fn command(&self) -> Command {
        let binary = xtcp_binary();
        let mut command =
            if self.hide_bpffs { self.server.command_without_bpffs(binary) } else { self.server.command(binary) };
        command.args(["run", "--config"]);
        command
    }

    /// The configuration file.
    fn text(&self, control_socket: &Path) -> String {
        let DaemonBuilder { interface, top, tcp, listeners, .. } = self;
        let control_socket = control_socket.display();
        format!("interface = \"{interface}\"\ncontrol_socket = \"{control_socket}\"\n{top}[tcp]\n{tcp}{listeners}")
    }
}

impl Daemon {
    /// Rows of `xtcp conns --json`, the listeners' among them.
    ///
    /// # Panics
    /// When the command fails or prints something else.
    #[must_use]
    pub fn rows(&self) -> Vec<Connection> {
        self.json("conns")
    }

    /// Connections (no LISTEN rows) with a local port.
    #[must_use]
    pub fn connections(&self, local_port: u16) -> Vec<Connection> {
        let suffix = format!(":{local_port}");
        self.rows().into_iter().filter(|row| row.state != "LISTEN" && row.local.ends_with(&suffix)).collect()
    }

    /// Waits until a connection with a local port is in one of `states`, and returns its row.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn wait_for_state(&self, local_port: u16, states: &[&str]) -> Connection {
        let wanted = |row: &Connection| states.contains(&row.state.as_str());
        let what = format!("a connection of port {local_port} in {states:?}");
        let rows = until_it(&what, || self.connections(local_port), |rows| rows.iter().any(wanted));
        rows.into_iter().find(wanted).expect("it was there")
    }

    /// Waits until no connection with a local port is left, TIME_WAIT and CLOSED ones aside.
    ///
    /// # Panics
    /// When one stays.
    pub fn wait_for_no_connection(&self, local_port: u16) {
        let over = |row: &Connection| row.state == "TIME_WAIT" || row.state == "CLOSED";
        until_it("no open connection", || self.connections(local_port), |rows| rows.iter().all(over));
    }

    /// `xtcp stats --json`.
    ///
    /// # Panics
    /// When the command fails or prints something else.
    #[must_use]
    pub fn stats(&self) -> Value {
        self.json("stats")
    }

    /// The pinned maps, read by bpftool.
    #[must_use]
    pub fn maps(&self) -> Maps {
        Maps::at(&self.pin_path)
    }

    /// Where the daemon pins its maps.
    #[must_use]
    pub fn pin_path(&self) -> &Path {
        &self.pin_path
    }

    /// A client command (`conns`, `stats`, `connect`) that speaks to this daemon.
    #[must_use]
    pub fn client(&self, subcommand: &str, arguments: &[&str]) -> Command {
        let mut command = xtcp([subcommand]);
        command.arg("--control-socket").arg(&self.control_socket).args(arguments);
        command
    }

    /// Starts `xtcp connect`, its stdin, stdout and stderr pipes.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn connect(&self, to: SocketAddr) -> Child {
        let mut connect = self.client("connect", &[&to.to_string()]);
        connect.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        connect.spawn().expect("xtcp can be run")
    }

    /// The daemon's log so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.process.stderr.get()
    }

    /// Waits for a line of the log that contains all `words`, and returns it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for_log(&self, words: &[&str]) -> String {
        let wanted = |line: &String| words.iter().all(|word| line.contains(word));
        until(&format!("a log line with {words:?}"), || self.log().into_iter().find(wanted))
    }

    /// The daemon's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Sends SIGTERM: drain and stop.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Stops every thread of the daemon where it is until the returned value is dropped; what arrives waits for it.
    #[must_use]
    pub fn pause(&mut self) -> impl Drop + '_ {
        struct Paused<'a>(&'a mut Process);
        impl Drop for Paused<'_> {
            fn drop(&mut self) {
                self.0.signal(Signal::CONT);
            }
        }
        self.process.signal(Signal::STOP);
        Paused(&mut self.process)
    }

    /// Sends SIGKILL and reaps: the daemon dies without cleaning up. What it leaves goes when this is dropped.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.wait();
        self.was_killed = true;
    }

    /// Whether the daemon still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().is_none()
    }

    /// Waits for the daemon's end.
    ///
    /// # Panics
    /// When it does not end within [`DEADLINE`].
    pub fn wait(&mut self) -> ExitStatus {
        let status = until("the end of the daemon", || self.process.try_wait());
        self.process.end_is_known = true;
        // Its last words may still be on their way.
        self.process.stderr.all();
        status
    }

    fn json<T: DeserializeOwned>(&self, subcommand: &str) -> T {
        let output = self.client(subcommand, &["--json"]).output().expect("xtcp can be run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "xtcp {subcommand} failed: {output:?}; daemon's log: {:#?}", self.log());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("xtcp {subcommand} --json: {error} in {text}"))
    }

    fn wait_until_ready(mut self) -> Result<Daemon, Refusal> {
        let deadline = Instant::now() + DEADLINE;
        while !self.process.stdout.get().iter().any(|line| line == "ready") {
            if let Some(status) = self.process.try_wait() {
                self.process.end_is_known = true;
                return Err(Refusal { code: status.code(), stderr: self.process.stderr.all() });
            }
            assert!(Instant::now() < deadline, "the daemon is neither ready nor gone; its log: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(self)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let trouble = self.process.stop();
        self.process.end_is_known = true;
        if self.was_killed {
            remove_pins(&self.pin_path);
        }
        if std::thread::panicking() {
            eprintln!("log of xtcp ({}):\n{}", self.pin_path.display(), self.process.stderr.all().join("\n"));
        } else if let Some(trouble) = trouble {
            panic!("{trouble}; its log: {:#?}", self.process.stderr.all());
        }
    }
}

impl Process {
    fn spawn(command: &mut Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let binary = xtcp_binary();
        assert!(binary.exists(), "{} is not there: run `cargo xtask build`, or set XTCP_BIN", binary.display());
        let mut child = command.spawn().expect("nsenter can be run (package util-linux)");
        let stdout = Lines::collect(child.stdout.take().expect("a pipe"));
        let stderr = Lines::collect(child.stderr.take().expect("a pipe"));
        Process { child, end_is_known: false, stdout, stderr }
    }

    fn signal(&mut self, signal: Signal) {
        // A child that was not reaped keeps its process id, so this can't hit another process.
        if self.try_wait().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Ends the process: SIGTERM, again when it drains, SIGKILL at last. Says what was not as it should be.
    fn stop(&mut self) -> Option<String> {
        if self.end_is_known {
            return None;
        }
        if let Some(status) = self.try_wait() {
            return Some(format!("xtcp ended by itself ({status})"));
        }
        for (signal, patience) in [(Signal::TERM, DRAIN), (Signal::TERM, DEADLINE), (Signal::KILL, DEADLINE)] {
            self.signal(signal);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if let Some(status) = self.try_wait() {
                    let crashed = status.code().is_none();
                    return crashed.then(|| format!("xtcp did not stop as SIGTERM asks for ({status})"));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Some("xtcp survived SIGKILL".to_owned())
    }
}

impl Lines {
    fn collect(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Lines { lines, reader: Some(reader) }
    }

    /// The lines so far.
    fn get(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All lines; the writer has ended.
    fn all(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.get()
    }
}

/// Where the daemon of an interface pins its maps.
#[must_use]
pub fn pin_path(interface: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/xtcp").join(interface)
}

/// Removes pins that nobody else will: their daemon was killed, or the test failed.
pub(crate) fn remove_pins(pin_path: &Path) {
    let _ = std::fs::remove_dir_all(pin_path);
    if let Some(parent) = pin_path.parent() {
        let _ = std::fs::remove_dir(parent); // Unless others are in it.
    }
}

/// Runs a command to its end with nothing on stdin.
///
/// # Panics
/// When it can't be run.
#[must_use]
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("can't run {command:?}: {error}"))
}
