//! What the benchmarks' programs and user space share: the frame that a generator varies, and what the client's end of
//! the wire counts. Pure, and tested on the host by the package `bench`.
#![no_std]
#![forbid(unsafe_code)]

/// Sources of generated frames: 198.18.0.0/15, set aside for benchmarks by RFC 2544.
pub const SOURCES_V4: [u8; 4] = [198, 18, 0, 0];
/// Bits of an IPv4 source that vary, at most.
pub const SOURCE_BITS_V4: u32 = 17;
/// Sources of generated IPv6 frames: 2001:2::/48, set aside for benchmarks by RFC 5180; the last 4 bytes vary.
pub const SOURCES_V6: [u8; 12] = [0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];

/// Offset of the last 4 bytes of an IPv4 source, and of the TCP header behind it.
pub const V4: Offsets = Offsets { source: 26, ip_checksum: 24, tcp: 34 };
/// The same of IPv6 without extension headers.
pub const V6: Offsets = Offsets { source: 34, ip_checksum: 0, tcp: 54 };
/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Longest frame that a template holds, bytes.
pub const MAX_FRAME: usize = 128;

/// Where things are in a frame of one family.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    /// The last 4 bytes of the source address.
    pub source: usize,
    /// The IPv4 header's checksum; 0: there is none.
    pub ip_checksum: usize,
    /// The TCP header.
    pub tcp: usize,
}

/// A frame whose source, source port and sequence number are to be filled in.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Template {
    /// The frame with zeros in the places that vary, and after its end.
    pub bytes: [u8; MAX_FRAME],
    /// Length of the frame, bytes.
    pub length: u32,
    /// 1: IPv4; 0: IPv6.
    pub is_v4: u32,
    /// Sum of the IPv4 header's words but for the varying ones.
    pub ip_sum: u32,
    /// The same of the TCP segment with its pseudo-header.
    pub tcp_sum: u32,
    /// The last 4 bytes of the source: these bits,
    pub source_base: u32,
    /// and these at random.
    pub source_mask: u32,
    /// The source port: this,
    pub port_base: u32,
    /// plus these bits at random.
    pub port_mask: u32,
    /// These bits of the sequence number at random, the others zero.
    pub sequence_mask: u32,
    /// Always zero.
    pub pad: u32,
}

/// Words of a [`Template`], as user space writes it to a map.
pub const TEMPLATE_WORDS: usize = size_of::<Template>() / 8;

/// What is written into one frame, in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Varied {
    /// The last 4 bytes of the source.
    pub source: [u8; 4],
    /// The source port.
    pub port: [u8; 2],
    /// The sequence number.
    pub sequence: [u8; 4],
    /// The IPv4 header's checksum.
    pub ip_checksum: [u8; 2],
    /// The TCP checksum.
    pub tcp_checksum: [u8; 2],
}

impl Template {
    /// The frame's fields for three random numbers.
    #[inline(always)]
    pub fn vary(&self, random: [u32; 3]) -> Varied {
        let source = self.source_base | random[0] & self.source_mask;
        let port = (self.port_base + (random[1] & self.port_mask)) & 0xffff;
        self.fill(source, port, random[2] & self.sequence_mask)
    }

    /// The frame's fields for a source, a source port and a sequence number.
    #[inline(always)]
    pub fn fill(&self, source: u32, port: u32, sequence: u32) -> Varied {
        let source_sum = (source >> 16) + (source & 0xffff);
        let tcp_sum = self.tcp_sum + source_sum + port + (sequence >> 16) + (sequence & 0xffff);
        Varied {
            source: source.to_be_bytes(),
            port: (port as u16).to_be_bytes(),
            sequence: sequence.to_be_bytes(),
            ip_checksum: checksum(self.ip_sum + source_sum),
            tcp_checksum: checksum(tcp_sum),
        }
    }
}

/// The Internet checksum of what adds up to `sum` (at most 65,536 words).
#[inline(always)]
pub fn checksum(sum: u32) -> [u8; 2] {
    let folded = (sum >> 16) + (sum & 0xffff);
    let folded = (folded >> 16) + (folded & 0xffff);
    (!(folded as u16)).to_be_bytes()
}

/// What came back to generated sources; one counter per kind of segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Replies {
    /// SYN-ACKs.
    pub syn_ack: u64,
    /// Resets.
    pub rst: u64,
    /// Others.
    pub other: u64,
}

/// Number of counters in [`Replies`].
pub const REPLY_KINDS: usize = size_of::<Replies>() / 8;

/// What a file of programs needs besides: a handler for panics, of which there are none, and the licence that the kernel's
/// helpers ask for. Built for the host it is an empty program, so that the workspace's checks reach its code.
#[macro_export]
macro_rules! program_file {
    () => {
        #[cfg(not(target_arch = "bpf"))]
        fn main() {}

        #[cfg(target_arch = "bpf")]
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            loop {}
        }

        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}
