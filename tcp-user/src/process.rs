//! Other processes, as messages name them.

/// The name of a process (/proc/PID/comm); `?` when it has none any more.
pub(crate) fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned())
}

/// Name and number of a process: `xtcp (pid 4711)`.
pub(crate) fn describe(pid: u32) -> String {
    format!("{} (pid {pid})", name(pid))
}
