//! The program's log (aya-log) as lines of the daemon's.

use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::XdpError;

/// What the program has to say. When its descriptor is readable, [`ProgramLog::flush`] forwards the lines to
/// `tracing` with the target `xtcp::program`.
pub struct ProgramLog {
    logger: EbpfLogger<Forward>,
}

impl ProgramLog {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<ProgramLog, XdpError> {
        let logger = EbpfLogger::init_with_logger(ebpf, Forward).map_err(|source| XdpError::Log { source })?;
        Ok(ProgramLog { logger })
    }

    /// Forwards every line that waits.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}

impl AsFd for ProgramLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.logger.as_fd()
    }
}

impl std::fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProgramLog").field("fd", &self.as_fd()).finish()
    }
}

/// aya-log speaks `log`, the daemon `tracing`.
#[derive(Clone, Copy, Debug)]
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = readable(&record.args().to_string());
        match record.level() {
            log::Level::Error => tracing::error!(target: "xtcp::program", "{line}"),
            log::Level::Warn => tracing::warn!(target: "xtcp::program", "{line}"),
            _ => tracing::info!(target: "xtcp::program", "{line}"),
        }
    }

    fn flush(&self) {}
}

/// The program writes IPv4 addresses mapped and names padded: it has one length for each.
fn readable(line: &str) -> String {
    line.replace("::ffff:", "").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_and_padding_become_what_a_person_reads() {
        let line = "dropped ::ffff:10.77.0.1 50001 > fd00::2 7: xmas            ";
        assert_eq!(readable(line), "dropped 10.77.0.1 50001 > fd00::2 7: xmas");
    }
}
