//! bpf(2) where aya has no call for it: updates and deletions of many elements at once, the interface of a
//! pinned link; and the promise to aya that tcp-common's map types are plain data.

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tcp_common::Counters;
use tcp_common::cookie::CookieKeys;
use tcp_common::gauge::Gauge;
use tcp_common::layout::{Config, ListenerKey, ListenerValue, PrefixValue};
use tcp_common::rate::RateLimit;
use tcp_common::{ConnectionKey, ConnectionValue};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;

/// Flag of an update: the element must not be there yet.
pub(crate) const BPF_NOEXIST: u64 = 1;
/// Flag of an update: the element must be there already.
pub(crate) const BPF_EXIST: u64 = 2;

/// A value of tcp-common as aya wants it: plain data of a type that is local to this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(crate) struct Plain<T>(pub(crate) T);

// SAFETY: integers and arrays of integers only, `repr(C)`, without padding (const-asserted beside the types).
unsafe impl aya::Pod for Plain<Config> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<Counters> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<ListenerKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<ListenerValue> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<ConnectionKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<CookieKeys> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<Gauge> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<PrefixValue> {}
// SAFETY: as above; it is one integer.
unsafe impl aya::Pod for Plain<RateLimit> {}

/// Key and value types of a map that has batch operations. Values are only ever written: what lies in the map
/// may have been put there by anybody, and need not be valid.
pub(crate) trait Element {
    /// Integers and arrays of integers: any bytes are a key.
    type Key: Copy;
    type Value: Copy;
}

/// The elements of CONNECTIONS.
#[derive(Debug)]
pub(crate) enum Connections {}

impl Element for Connections {
    type Key = ConnectionKey;
    type Value = ConnectionValue;
}

/// A hash map whose elements have the sizes of `E`'s types.
#[derive(Debug)]
pub(crate) struct BatchMap<E> {
    fd: OwnedFd,
    element: PhantomData<fn(E)>,
}

/// How far a batch got: elements before `done` are dealt with; `error` is about the one after them.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) done: usize,
    pub(crate) error: io::Error,
}

impl<E: Element> BatchMap<E> {
    /// A handle to the map `fd`; an error when its sizes are not those of `E`'s types.
    pub(crate) fn new(fd: OwnedFd, key_size: u32, value_size: u32) -> io::Result<Self> {
        if key_size as usize != size_of::<E::Key>() || value_size as usize != size_of::<E::Value>() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "key or value size differs"));
        }
        Ok(BatchMap { fd, element: PhantomData })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(BatchMap { fd: self.fd.try_clone()?, element: PhantomData })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Inserts or overwrites elements, `keys[i]` with `values[i]`, in one call.
    pub(crate) fn update(&self, keys: &[E::Key], values: &[E::Value]) -> Result<(), Stopped> {
        assert_eq!(keys.len(), values.len(), "a batch needs a value for each key");
        self.batch(BPF_MAP_UPDATE_BATCH, keys, values.as_ptr() as u64)
    }

    /// Deletes elements in one call.
    pub(crate) fn delete(&self, keys: &[E::Key]) -> Result<(), Stopped> {
        self.batch(BPF_MAP_DELETE_BATCH, keys, 0)
    }

    /// Writes one element; `Ok(false)`: not as `flags` want it, because it is not there ([`BPF_EXIST`]) or is
    /// ([`BPF_NOEXIST`]). (The kernel takes no such flags for a batch.)
    pub(crate) fn update_one(&self, key: &E::Key, value: &E::Value, flags: u64) -> io::Result<bool> {
        let mut attribute = ElementAttribute {
            map_fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: std::ptr::from_ref(key) as u64,
            value: std::ptr::from_ref(value) as u64,
            flags,
        };
        // SAFETY: the kernel reads one key and one value of the sizes checked in `new`.
        match unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attribute) } {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bytes of one element, `SIZE` of them as a value has; `None`: it is not there.
    pub(crate) fn lookup<const SIZE: usize>(&self, key: &E::Key) -> io::Result<Option<[u8; SIZE]>> {
        const { assert!(SIZE == size_of::<E::Value>()) };
        let mut bytes = [0; SIZE];
        let mut attribute = ElementAttribute {
            map_fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: std::ptr::from_ref(key) as u64,
            value: std::ptr::from_mut(&mut bytes) as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads one key of the size checked in `new` and writes one value, for which `bytes` has room.
        match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attribute) } {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Appends about `count` elements from `cursor` on, each value as its `SIZE` bytes, and returns where to go on; `None`:
    /// that was the end. Start without a cursor. What is written meanwhile may appear twice or not at all.
    pub(crate) fn slice<const SIZE: usize>(
        &self,
        cursor: Option<u32>,
        count: usize,
        elements: &mut Vec<(E::Key, [u8; SIZE])>,
    ) -> io::Result<Option<u32>>
    where
        E::Key: Default,
    {
        const { assert!(SIZE == size_of::<E::Value>()) };
        let mut room = count.max(1);
        loop {
            let (mut keys, mut values) = (vec![E::Key::default(); room], vec![[0; SIZE]; room]);
            let (from, mut to) = (cursor.unwrap_or(0), 0u32);
            let mut attribute = BatchAttribute {
                in_batch: if cursor.is_some() { std::ptr::from_ref(&from) as u64 } else { 0 },
                out_batch: std::ptr::from_mut(&mut to) as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: room as u32,
                map_fd: self.fd.as_raw_fd() as u32,
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: the kernel writes at most `count` keys and values of the sizes checked in `new`, for which there is
            // room, and a cursor of four bytes; keys and values take any bytes.
            let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attribute) };
            let next = match result {
                Ok(_) => Some(to),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
                // More elements share a bucket than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    room *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            elements.extend(keys.into_iter().zip(values).take(attribute.count as usize));
            return Ok(next);
        }
    }

    fn batch(&self, command: libc::c_int, keys: &[E::Key], values: u64) -> Result<(), Stopped> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut attribute = BatchAttribute {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values,
            count: keys.len() as u32,
            map_fd: self.fd.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads `count` keys and, for an update, as many values (asserted by `update`), of the
        // sizes checked in `new`; it writes only `count`.
        let result = unsafe { bpf(command, &mut attribute) };
        result.map(drop).map_err(|error| Stopped { done: attribute.count as usize, error })
    }
}

/// `BPF_MAP_*_ELEM` in `union bpf_attr`.
#[repr(C)]
struct ElementAttribute {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `BPF_MAP_*_BATCH` in `union bpf_attr`.
#[repr(C)]
struct BatchAttribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Index of the interface that the XDP link pinned at `path` is attached to; 0: it is gone.
pub(crate) fn pinned_link_interface(path: &Path) -> io::Result<u32> {
    let link = open_pin(path)?;
    let mut info = LinkInfo::default();
    let mut attribute = InfoAttribute {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to `info`, which takes any bytes.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attribute) }?;
    const BPF_LINK_TYPE_XDP: u32 = 6;
    if info.kind != BPF_LINK_TYPE_XDP {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an XDP link"));
    }
    Ok(info.interface)
}

fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = PinAttribute { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the kernel reads the path up to its NUL.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attribute) }?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_OBJ_GET` in `union bpf_attr`.
#[repr(C)]
struct PinAttribute {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `BPF_OBJ_GET_INFO_BY_FD` in `union bpf_attr`.
#[repr(C)]
struct InfoAttribute {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, for an XDP link.
#[derive(Default)]
#[repr(C)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    interface: u32,
    rest: [u32; 3],
}

/// # Safety
///
/// `attribute` must be laid out as `union bpf_attr` for `command`, and the addresses in it must be good for what
/// the command reads and writes there.
unsafe fn bpf<T>(command: libc::c_int, attribute: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the caller's promise; the kernel reads and writes no more than `size_of::<T>()` bytes of the attribute.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
