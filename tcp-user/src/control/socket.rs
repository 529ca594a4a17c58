//! The socket file: made with its final mode, replaced when its daemon is dead, refused when it lives,
//! removed at the end.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::net::UnixListener;

use crate::process;

/// Mode of the socket, and of one that a group may use.
const MODES: (u32, u32) = (0o600, 0o660);

/// A listening control socket; dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that only our own is removed.
    identity: (u64, u64),
}

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error(
        "control socket {}: {holder} is listening there already; stop it or set another control_socket",
        path.display()
    )]
    Live {
        /// Its path.
        path: PathBuf,
        /// The process, as far as it can be told.
        holder: String,
    },
    /// Something else has the name.
    #[error("control socket {}: there is something else of that name; remove it or set another control_socket", .0.display())]
    NotASocket(PathBuf),
    /// The group is not known.
    #[error("control_group \"{0}\": no such group in /etc/group; name one, or give its number")]
    NoSuchGroup(String),
    /// Anything else.
    #[error("control socket {}: can't {doing}: {source}", path.display())]
    System {
        /// Its path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl ControlSocket {
    /// Makes the socket at `path`, and its directory if that is missing; inside a runtime with I/O.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path, group: Option<&str>) -> Result<ControlSocket, SocketError> {
        let failed = |doing| move |source| SocketError::System { path: path.to_owned(), doing, source };
        let group = group.map(group_id).transpose()?;
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(failed("make its directory"))?;
        }
        make_way(path)?;
        let listener = with_private_mode(|| UnixListener::bind(path)).map_err(failed("make it"))?;
        if group.is_some() {
            std::os::unix::fs::chown(path, None, group).map_err(failed("give it to control_group"))?;
        }
        let mode = if group.is_some() { MODES.1 } else { MODES.0 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed("set its mode"))?;
        let metadata = std::fs::metadata(path).map_err(failed("look at it"))?;
        Ok(ControlSocket { listener, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            // Failing that, the next daemon replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket whose daemon is dead.
fn make_way(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    let connected = UnixStream::connect(path).and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    match connected {
        Ok(socket) => Err(SocketError::Live { path: path.to_owned(), holder: listener(socket) }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|source| SocketError::System { path: path.to_owned(), doing: "remove the stale one", source }),
        Err(source) => Err(SocketError::System { path: path.to_owned(), doing: "find out whether it is live", source }),
    }
}

/// Who listens at the other end.
fn listener(socket: UnixStream) -> String {
    let credentials = || tokio::net::UnixStream::from_std(socket)?.peer_cred();
    let pid = credentials().ok().and_then(|who| u32::try_from(who.pid()?).ok());
    pid.map_or_else(|| "a daemon".to_owned(), process::describe)
}

/// A file made by `make` is its owner's only, from its first moment on.
fn with_private_mode<T>(make: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let made = make();
    rustix::process::umask(before);
    made
}

fn group_id(group: &str) -> Result<u32, SocketError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    find_group(&groups, group).ok_or_else(|| SocketError::NoSuchGroup(group.to_owned()))
}

/// Finds the number of `group` in lines of `name:password:number:members`.
fn find_group(groups: &str, group: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes away with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xtcp-control-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_only_and_goes_away_at_the_end() {
        let directory = Directory::new("mode");
        let path = directory.0.join("below/control.sock");
        let socket = ControlSocket::bind(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_refused() {
        let directory = Directory::new("stale");
        let path = directory.0.join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = ControlSocket::bind(&path, None).unwrap();
        let error = ControlSocket::bind(&path, None).expect_err("it is live").to_string();
        assert!(error.contains(&format!("(pid {}) is listening there", std::process::id())), "{error}");
        drop(socket);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = Directory::new("file");
        let path = directory.0.join("control.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path, None), Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn an_unknown_group_is_refused() {
        let path = Path::new("/nonexistent/control.sock");
        assert!(matches!(ControlSocket::bind(path, Some("no such group")), Err(SocketError::NoSuchGroup(_))));
    }

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let groups = "root:x:0:\nadmins:x:104:ann,bob\nadmin:x:105:\n";
        assert_eq!(find_group(groups, "admin"), Some(105));
        assert_eq!(find_group(groups, "adm"), None);
    }
}
