//! The pin directory of an interface: whose it is, what of it can be taken over, what is left behind.
//!
//! A process that uses the directory holds a lock on it (flock), which the kernel lets go of when the process
//! dies, however it dies. So pins under a free lock are a dead daemon's, or `xtcp load`'s when the pinned link
//! among them still holds the program to the interface.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapInfo};
use tcp_common::layout::{Config, LAYOUT_VERSION};

use super::XdpError;
use crate::process;
use crate::sys::bpf::{Plain, pinned_link_interface};

/// Where a BPF filesystem belongs, and is mounted if there is none.
const BPFFS: &str = "/sys/fs/bpf";
/// What `statfs` says of a BPF filesystem.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
/// The directory that default pin directories share.
const SHARED_PARENT: &str = "/sys/fs/bpf/xtcp";
/// The pin of the link.
const LINK: &str = "link";
/// How often another process may remove the directory under our hands.
const LOCK_ATTEMPTS: usize = 16;
/// Who has the lock when the kernel does not tell (a process of another PID namespace).
const UNKNOWN_HOLDER: &str = "a running xtcp";

/// A pinned map as it must be to be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapShape {
    pub(super) name: &'static str,
    pub(super) key_size: usize,
    pub(super) value_size: usize,
    pub(super) max_entries: u32,
}

/// A locked pin directory.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    /// The open directory; it carries the lock.
    lock: File,
}

impl Drop for Pins {
    /// Closing the directory would do, were there not children of other threads that have it, too, until they exec.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl Pins {
    /// Makes the directory if need be and locks it.
    pub(super) fn acquire(directory: &Path) -> Result<Pins, XdpError> {
        ensure_bpffs(directory)?;
        if directory.to_string_lossy().contains('.') {
            return Err(XdpError::DotInPinPath { path: directory.to_owned() });
        }
        for _ in 0..LOCK_ATTEMPTS {
            fs::create_dir_all(directory).map_err(pins_error(directory))?;
            if let Some(pins) = Pins::lock(directory)? {
                return Ok(pins);
            }
        }
        Err(XdpError::Locked { path: directory.to_owned(), holder: UNKNOWN_HOLDER.to_owned() })
    }

    /// Locks the directory if there is one.
    pub(super) fn acquire_existing(directory: &Path) -> Result<Option<Pins>, XdpError> {
        if !directory.exists() || !is_bpffs(directory)? {
            return Ok(None);
        }
        Pins::lock(directory)
    }

    /// `None`: somebody removed the directory before it was locked.
    fn lock(directory: &Path) -> Result<Option<Pins>, XdpError> {
        let lock = match File::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(pins_error(directory))?,
        };
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) => {
                let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
                let holder = lock.metadata().ok().and_then(|it| lock_holder(&locks, it.dev(), it.ino()));
                let holder = holder.map_or_else(|| UNKNOWN_HOLDER.to_owned(), process::describe);
                return Err(XdpError::Locked { path: directory.to_owned(), holder });
            }
            Err(fs::TryLockError::Error(error)) => return Err(pins_error(directory)(error)),
            Ok(()) => {}
        }
        Ok(is_still(directory, &lock).then(|| Pins { directory: directory.to_owned(), lock }))
    }

    /// The path of a pin.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The path of the link's pin.
    pub(super) fn link(&self) -> PathBuf {
        self.path(LINK)
    }

    /// Keeps what `xtcp load` left for this interface, map by map; removes everything else. Says whether there
    /// is a link to adopt.
    pub(super) fn adopt(&self, interface_index: u32, shapes: &[MapShape]) -> Result<bool, XdpError> {
        let loaded = pinned_link_interface(&self.link()).is_ok_and(|index| index == interface_index);
        if !loaded || self.layout_version() != Some(LAYOUT_VERSION) {
            self.remove_all()?;
            return Ok(false);
        }
        for shape in shapes.iter().filter(|shape| !self.fits(shape)) {
            remove(&self.path(shape.name))?;
        }
        Ok(true)
    }

    fn layout_version(&self) -> Option<u32> {
        let map = Map::Array(MapData::from_pin(self.path("CONFIG")).ok()?);
        let config: Array<_, Plain<Config>> = map.try_into().ok()?;
        config.get(&0, 0).ok().map(|Plain(config)| config.layout_version)
    }

    fn fits(&self, shape: &MapShape) -> bool {
        MapInfo::from_pin(self.path(shape.name)).is_ok_and(|info| {
            info.key_size() as usize == shape.key_size
                && info.value_size() as usize == shape.value_size
                && info.max_entries() == shape.max_entries
        })
    }

    /// Removes every pin; the link first, so that the program is detached before its maps lose their names.
    pub(super) fn remove_all(&self) -> Result<(), XdpError> {
        remove(&self.link())?;
        for entry in fs::read_dir(&self.directory).map_err(pins_error(&self.directory))? {
            remove(&entry.map_err(pins_error(&self.directory))?.path())?;
        }
        Ok(())
    }

    /// Removes every pin, the directory, and its parent if that is ours and empty; then unlocks.
    pub(super) fn remove_directory(&self) -> Result<(), XdpError> {
        self.remove_all()?;
        fs::remove_dir(&self.directory).map_err(pins_error(&self.directory))?;
        if self.directory.parent() == Some(Path::new(SHARED_PARENT)) {
            // Other interfaces' pins may lie there; then it stays.
            let _ = fs::remove_dir(SHARED_PARENT);
        }
        Ok(())
    }
}

/// Whether `directory` is still the one that `open` was opened as.
fn is_still(directory: &Path, open: &File) -> bool {
    match (fs::metadata(directory), open.metadata()) {
        (Ok(now), Ok(then)) => (now.dev(), now.ino()) == (then.dev(), then.ino()),
        _ => false,
    }
}

/// The process that holds the flock of a file, from the lines of /proc/locks:
/// `1: FLOCK  ADVISORY  WRITE 4711 00:1d:12345 0 EOF`.
fn lock_holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            // With "->" as its second word a line is of a process that waits.
            [_, "FLOCK", _, _, pid, locked, ..] if locked == file => pid.parse().ok(),
            _ => None,
        }
    })
}

/// Makes sure that `directory`, which need not exist yet, lies on a BPF filesystem; mounts one if its place is
/// empty (`ip netns exec` hides the one that is there).
fn ensure_bpffs(directory: &Path) -> Result<(), XdpError> {
    let existing = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if is_bpffs(existing)? {
        return Ok(());
    }
    if !directory.starts_with(BPFFS) || !Path::new(BPFFS).starts_with(existing) {
        return Err(XdpError::NotBpffs { path: directory.to_owned() });
    }
    mount_bpffs().map_err(|error| match error {
        rustix::io::Errno::PERM => XdpError::NoPrivilege { doing: format!("mount a BPF filesystem at {BPFFS}") },
        _ => XdpError::Mount { path: BPFFS.into(), source: error.into() },
    })
}

fn is_bpffs(path: &Path) -> Result<bool, XdpError> {
    let status = rustix::fs::statfs(path).map_err(|error| pins_error(path)(error.into()))?;
    Ok(status.f_type as u64 == BPFFS_MAGIC)
}

fn mount_bpffs() -> rustix::io::Result<()> {
    rustix::mount::mount("bpf", BPFFS, "bpf", rustix::mount::MountFlags::empty(), None)
}

fn remove(path: &Path) -> Result<(), XdpError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(pins_error(path)),
    }
}

fn pins_error(path: &Path) -> impl Fn(io::Error) -> XdpError {
    move |source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => XdpError::NoPrivilege { doing: format!("use {}", path.display()) },
        _ => XdpError::Pins { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1d:5 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 22 00:1d:6 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 33 00:1d:5 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 44 00:1d:5 0 EOF\n";
        let device = rustix::fs::makedev(0, 0x1d);
        assert_eq!(lock_holder(locks, device, 5), Some(33));
        assert_eq!(lock_holder(locks, device, 6), Some(22));
        assert_eq!(lock_holder(locks, device, 7), None);
        assert_eq!(lock_holder(locks, rustix::fs::makedev(1, 0x1d), 5), None);
    }
}
