//! `xtcp load`, `run`, `unload`, the end and the sudden death of a daemon, in every order: a table says what each does
//! in each state, and a walk takes every two operations in a row from every state.

use std::collections::{BTreeSet, VecDeque};
use std::net::TcpStream;
use std::path::Path;

use tests::Lab;
use tests::daemon::{Daemon, output, xtcp_binary};
use tests::net::SERVER_V4;
use tests::peer::{self, assert_same};
use tests::wait::until;

use crate::{ECHO, server};

/// What is on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Nothing,
    /// `xtcp load` has left a program that passes everything.
    Loaded,
    /// A daemon serves with a program of its own.
    Serving,
    /// A daemon serves with what `xtcp load` left.
    ServingLoaded,
    /// A daemon was killed; its program went with it, its pins did not.
    Dead,
    /// The same, and the loaded program is still there.
    DeadLoaded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Do {
    Load,
    Run,
    Unload,
    Terminate,
    Kill,
}

use At::{Dead, DeadLoaded, Loaded, Nothing, Serving, ServingLoaded};
use Do::{Kill, Load, Run, Terminate, Unload};

/// In which state an operation leads to which, and what it says; `refused` is exit code 1, one line, and no change.
const TABLE: [Row; 22] = [
    (Nothing, Load, Loaded, "loaded on IF in the driver"),
    (Nothing, Run, Serving, "attached to IF in the driver"),
    (Nothing, Unload, Nothing, "nothing was loaded on IF"),
    (Loaded, Load, Loaded, "loaded on IF as it already was"),
    (Loaded, Run, ServingLoaded, "adopted what `xtcp load` attached to IF"),
    (Loaded, Unload, Nothing, "unloaded from IF"),
    (Serving, Load, Serving, REFUSED),
    (Serving, Run, Serving, REFUSED),
    (Serving, Unload, Serving, REFUSED),
    (Serving, Terminate, Nothing, ""),
    (Serving, Kill, Dead, ""),
    (ServingLoaded, Load, ServingLoaded, REFUSED),
    (ServingLoaded, Run, ServingLoaded, REFUSED),
    (ServingLoaded, Unload, ServingLoaded, REFUSED),
    (ServingLoaded, Terminate, Loaded, ""),
    (ServingLoaded, Kill, DeadLoaded, ""),
    (Dead, Load, Loaded, "loaded on IF in the driver"),
    (Dead, Run, Serving, "attached to IF in the driver"),
    (Dead, Unload, Nothing, "unloaded from IF"),
    (DeadLoaded, Load, Loaded, "loaded on IF as it already was"),
    (DeadLoaded, Run, ServingLoaded, "adopted what `xtcp load` attached to IF"),
    (DeadLoaded, Unload, Nothing, "unloaded from IF"),
];

/// What whoever is refused is told, with the daemon's process id.
const REFUSED: &str = "xtcp (pid PID";

#[test]
fn load_run_unload_and_every_end_of_a_daemon_do_what_the_table_says_in_every_order() {
    let lab = Lab::new();
    let mut host = Host {
        lab: &lab,
        socket: &tempfile::tempdir().unwrap().path().join("kept.sock"),
        daemon: None,
        dead: Vec::new(),
    };
    let mut done = Vec::new();
    for (from, operation, to, says) in walk() {
        done.push(operation);
        let said = host.perform(operation);
        let wanted = says.replace("IF", lab.server.interface()).replace("PID", &host.pid());
        assert!(said.contains(&wanted), "{operation:?} in {from:?} said {said:?}, not {wanted:?}; after {done:?}");
        host.assert_is(to, &done);
    }
    assert!(done.len() > 60 && !host.dead.is_empty(), "a short walk: {done:?}");
}

type Row = (At, Do, At, &'static str);

/// Rows of the table, one after the other, until every two that can follow each other have.
fn walk() -> Vec<Row> {
    let pairs = |row: &Row| rows_of(row.2).map(|next| (*row, next)).collect::<Vec<_>>();
    let mut missing: BTreeSet<(Row, Row)> = TABLE.iter().flat_map(pairs).collect();
    let mut walk = vec![TABLE[0]];
    while !missing.is_empty() {
        let last = walk[walk.len() - 1];
        for next in way_to_one_of(&missing, last) {
            missing.remove(&(walk[walk.len() - 1], next));
            walk.push(next);
        }
    }
    walk
}

/// The shortest continuation of a walk that ends in `last` whose last two rows are missing.
fn way_to_one_of(missing: &BTreeSet<(Row, Row)>, last: Row) -> Vec<Row> {
    let mut ways = VecDeque::from([vec![last]]);
    while let Some(way) = ways.pop_front() {
        let end = way[way.len() - 1];
        for next in rows_of(end.2) {
            let longer = [way.as_slice(), &[next]].concat();
            if missing.contains(&(end, next)) {
                return longer[1..].to_vec();
            }
            ways.push_back(longer);
        }
    }
    unreachable!("every state can be reached from every other")
}

fn rows_of(state: At) -> impl Iterator<Item = Row> {
    TABLE.into_iter().filter(move |row| row.0 == state)
}

/// The server, and the daemon that may run there.
struct Host<'lab> {
    lab: &'lab Lab,
    socket: &'lab Path,
    daemon: Option<Daemon>,
    /// Dropped last: with them goes whatever is pinned, too.
    dead: Vec<Daemon>,
}

impl Host<'_> {
    /// Does it; what was said.
    fn perform(&mut self, operation: Do) -> String {
        match operation {
            Load => self.xtcp("load"),
            Unload => self.xtcp("unload"),
            Run => self.run(),
            Terminate => {
                let mut daemon = self.daemon.take().expect("a daemon");
                daemon.terminate();
                assert_eq!(daemon.wait().code(), Some(0), "{:#?}", daemon.log());
                String::new()
            }
            Kill => {
                let mut daemon = self.daemon.take().expect("a daemon");
                daemon.kill();
                self.dead.push(daemon);
                String::new()
            }
        }
    }

    fn run(&mut self) -> String {
        let daemon = self.lab.daemon().control_socket(self.socket).listen(SERVER_V4, ECHO, "echo").try_start();
        match daemon {
            Ok(daemon) => {
                let said = daemon.wait_for_log(&[" to "]);
                self.daemon = Some(daemon);
                said
            }
            Err(refusal) => {
                assert!(refusal.code == Some(1) && refusal.stderr.len() == 1, "{refusal:#?}");
                refusal.stderr.concat()
            }
        }
    }

    /// `xtcp load` or `unload`; a refusal is exit code 1 and one line.
    fn xtcp(&self, command: &str) -> String {
        let interface = self.lab.server.interface();
        let done = output(self.lab.server.command(xtcp_binary()).args([command, "--interface", interface]));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
        match done.status.code() {
            Some(0) if stderr.is_empty() => stdout,
            Some(1) if stdout.is_empty() && stderr.lines().count() == 1 => stderr,
            _ => panic!("xtcp {command}: {done:?}"),
        }
    }

    fn pid(&self) -> String {
        self.daemon.as_ref().map_or_else(String::new, |daemon| daemon.pid().to_string())
    }

    /// What is true in a state: who answers on the daemon's port, whether there is a program, whether there are pins.
    fn assert_is(&mut self, state: At, done: &[Do]) {
        let serves = matches!(state, Serving | ServingLoaded);
        if serves {
            assert!(self.daemon.as_mut().is_some_and(Daemon::is_running), "after {done:?}");
            assert_same(&peer::exchange(&self.lab.connect(server(ECHO)), b"served"), b"served");
        } else {
            let refused = || self.lab.client.enter(|| TcpStream::connect(server(ECHO))).err();
            let error = until("the kernel to refuse", refused);
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "after {done:?}");
        }
        let attached = !matches!(state, Nothing | Dead);
        let is_attached = || (self.lab.server.xdp_program().unwrap().is_some() == attached).then_some(());
        until("the program to come or go", is_attached);
        let pins = tests::daemon::pin_path(self.lab.server.interface()).exists();
        assert_eq!(pins, state != Nothing, "pins in {state:?}, after {done:?}");
    }
}
