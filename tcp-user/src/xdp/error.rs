//! What can go wrong between the daemon and its XDP program: what, where, and what to do.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;

/// Why the XDP program could not be loaded, attached or talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// Neither root nor the capabilities that stand in for it.
    #[error("no privilege to {doing}: run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON")]
    NoPrivilege {
        /// What was refused.
        doing: String,
    },
    /// The pin directory would not lie on a BPF filesystem.
    #[error("{} is not on a BPF filesystem: mount one there (mount -t bpf bpf DIRECTORY) or set pin_path to a directory below /sys/fs/bpf", path.display())]
    NotBpffs {
        /// The pin directory.
        path: PathBuf,
    },
    /// The pin directory has a name that a BPF filesystem does not take.
    #[error("{}: a BPF filesystem takes no name with a dot: set pin_path to a directory without", path.display())]
    DotInPinPath {
        /// The pin directory.
        path: PathBuf,
    },
    /// There is no BPF filesystem, and none could be mounted.
    #[error("can't mount a BPF filesystem at {}: {source}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another live process owns the pin directory.
    #[error("{} is locked by {holder}: stop it first, or give this one another interface", path.display())]
    Locked {
        /// The pin directory.
        path: PathBuf,
        /// The process, as far as it can be told.
        holder: String,
    },
    /// The pin directory can't be made, read or emptied.
    #[error("pin directory {}: {source}", path.display())]
    Pins {
        /// The directory or the pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pin can't be made.
    #[error("can't pin {}: {source}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pinned link can't be opened.
    #[error("can't adopt the link {}: {source}; `xtcp unload` removes it", path.display())]
    Link {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: LinkError,
    },
    /// The kernel has no room for the maps, or doesn't take the object.
    #[error("can't make the maps of the XDP program for {interface}: {}", chain(source))]
    Load {
        /// The interface.
        interface: String,
        /// Why.
        source: Box<EbpfError>,
    },
    /// The kernel's verifier refuses the program.
    #[error("the kernel refuses the XDP program (Linux 6.1 or later is needed): {reason}")]
    Verifier {
        /// What the verifier said last.
        reason: String,
        /// Everything that it said.
        source: Box<ProgramError>,
    },
    /// Another XDP program is attached to the interface.
    #[error(
        "{interface} has another XDP program: stop its owner, or detach it with `ip link set dev {interface} xdp off`"
    )]
    OtherProgram {
        /// The interface.
        interface: String,
    },
    /// The driver takes no XDP program with this MTU.
    #[error(
        "the MTU of {interface} (for a veth: of its peer) is too large for XDP: lower it, for example with `ip link set dev {interface} mtu 1500`"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
    },
    /// A veth has fewer RX queues than its peer has TX queues.
    #[error(
        "{interface} has fewer RX queues than its peer has TX queues: make them equal with `ethtool -L {interface} rx N`"
    )]
    TooFewQueues {
        /// The interface.
        interface: String,
    },
    /// `xdp_mode = "native"`, but the driver has no XDP.
    #[error("the driver of {interface} has no native XDP: set xdp_mode to \"auto\" or \"generic\"")]
    NoNativeXdp {
        /// The interface.
        interface: String,
    },
    /// The program can't be attached for another reason.
    #[error("can't attach the XDP program to {interface}: {}", chain(source))]
    Attach {
        /// The interface.
        interface: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The object lacks a part that the daemon knows: it was built from another source.
    #[error("the XDP program has no `{name}`: build program and daemon together")]
    Missing {
        /// The map or program.
        name: &'static str,
    },
    /// A map can't be read or written.
    #[error("map {name}: {}", chain(source))]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// CONNECTIONS can't be written.
    #[error("map CONNECTIONS: {source}")]
    Connections {
        /// Why.
        source: io::Error,
    },
    /// More of something than there is room for.
    #[error("{given} {what} are too many: at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A number outside its range.
    #[error("{given} {what}: must be 1 to {limit}")]
    OutOfRange {
        /// Of what.
        what: &'static str,
        /// How many are asked for.
        given: u32,
        /// How many there may be.
        limit: u32,
    },
    /// A socket for a queue that the interface does not have.
    #[error("{interface} has no RX queue {queue}: it has {queues}")]
    NoSuchQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// How many it has.
        queues: u32,
    },
    /// The program's log can't be read.
    #[error("the log of the XDP program can't be read: {source}")]
    Log {
        /// Why.
        source: aya_log::Error,
    },
}

impl XdpError {
    pub(super) fn map(name: &'static str) -> impl Fn(MapError) -> XdpError {
        move |source| XdpError::Map { name, source: source.into() }
    }

    pub(super) fn verifier(source: ProgramError) -> XdpError {
        let reason = match &source {
            ProgramError::LoadError { io_error, verifier_log } => {
                format!("{io_error}: {}", last_finding(&verifier_log.to_string()))
            }
            other => chain(other),
        };
        XdpError::Verifier { reason, source: source.into() }
    }

    pub(super) fn table(source: io::Error) -> XdpError {
        XdpError::Connections { source }
    }
}

/// The last line of a verifier's log that is about the program; figures about the verification follow it.
fn last_finding(log: &str) -> &str {
    let figures = ["processed ", "stack depth ", "verification time "];
    let is_finding = |line: &&str| !line.is_empty() && !figures.iter().any(|figure| line.starts_with(figure));
    log.lines().map(str::trim).rfind(is_finding).unwrap_or("it does not say why")
}

/// The error number at the root of an error.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        next = error.source();
    }
    None
}

/// An error and its causes on one line; the causes that only repeat their effect are left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_line = cause.to_string();
        if !line.ends_with(&cause_line) {
            line = format!("{line}: {cause_line}");
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_the_last_line_before_its_figures() {
        let log = "0: R1=ctx()\ninvalid access to packet, off=0 size=1\nverification time 41 usec\nprocessed 9 insns\n";
        assert_eq!(last_finding(log), "invalid access to packet, off=0 size=1");
        assert_eq!(last_finding("processed 0 insns\n"), "it does not say why");
    }

    #[test]
    fn the_number_of_an_error_is_found_below_the_errors_that_wrap_it() {
        let create = MapError::CreateError { name: "X".into(), io_error: io::Error::from_raw_os_error(libc::EPERM) };
        assert_eq!(errno(&EbpfError::MapError(create)), Some(libc::EPERM));
        assert_eq!(errno(&MapError::KeyNotFound), None);
    }

    #[test]
    fn causes_follow_on_one_line_and_none_twice() {
        let io_error = io::Error::from_raw_os_error(libc::ENOMEM);
        let error = EbpfError::MapError(MapError::CreateError { name: "X".into(), io_error });
        let line = chain(&error);
        assert_eq!(line.matches("failed to create map `X`").count(), 1, "{line}");
        assert!(line.ends_with("Cannot allocate memory (os error 12)"), "{line}");
    }
}
