//! Memory shared with the kernel: one `mmap`ed region, unmapped when the last user lets go of it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Gives memory that is free but still the allocator's back to the system; glibc keeps it otherwise.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc locks each of its arenas meanwhile; memory in use is not touched.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// A mapped region: page-aligned, readable and writable, alive as long as this value.
///
/// It hands out no references by itself; who takes a pointer from it says why its accesses are sound.
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the region is plain memory owned by this value; nothing ties a mapping to the thread that made it.
unsafe impl Send for Region {}
// SAFETY: a shared `Region` only tells its address and length; accesses through them are their makers' concern.
unsafe impl Sync for Region {}

impl Region {
    /// Private zeroed memory of `len` bytes, in huge pages where the kernel has them to give.
    pub(crate) fn anonymous(len: usize) -> io::Result<Region> {
        let region = map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        // SAFETY: the range is the mapping just made. The call is advice; without huge pages it changes nothing,
        // so its result does not matter.
        let _ = unsafe { libc::madvise(region.base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(region)
    }

    /// The `len` bytes that file `fd` shows at `offset`, shared with whoever else maps them.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Region> {
        map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: base and len are those of a live mapping that this value owns; nothing uses it afterwards.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(result, 0, "munmap of a mapping of our own");
    }
}

fn map(len: usize, flags: libc::c_int, fd: libc::c_int, offset: libc::off_t) -> io::Result<Region> {
    // SAFETY: without MAP_FIXED the kernel picks an unused range, so no existing memory changes; it checks the rest.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned address zero"))?;
    Ok(Region { base, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_has_the_length_asked_for_and_is_page_aligned() {
        let region = Region::anonymous(3 * 4096).expect("three pages");
        assert_eq!(region.len(), 3 * 4096);
        assert_eq!(region.base().as_ptr() as usize % 4096, 0);
    }

    #[test]
    fn a_region_of_no_bytes_is_refused() {
        assert_eq!(Region::anonymous(0).err().and_then(|e| e.raw_os_error()), Some(libc::EINVAL));
    }
}
