//! What the program counts: one declaration makes the value of the map COUNTERS, the enums that
//! choose its fields, and the names that `xtcp stats` prints.
//!
//! Every frame has one [`Outcome`]; one that is ours and well-formed also has one [`Class`], and a
//! dropped one has one [`DropReason`].

use core::mem::offset_of;
use core::ops::AddAssign;

macro_rules! counters {
    ($(
        $(#[$group_doc:meta])*
        enum $group:ident, $read:ident {
            $( $(#[$doc:meta])* $variant:ident, $name:literal, $field:ident; )+
        }
    )+) => {
        /// Value of COUNTERS, one per CPU: frames since the map was made.
        ///
        /// `u64` fields without padding, so the program may also see it as an array of [`Counters::SLOTS`]
        /// numbers, in which the `slot()` of each enum is an index.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Counters {
            $($( $(#[$doc])* pub $field: u64, )+)+
        }

        impl Counters {
            /// The counters that lie in `slots`.
            #[must_use]
            pub fn from_slots(slots: [u64; Counters::SLOTS]) -> Counters {
                Counters { $($( $field: slots[$group::$variant.slot()], )+)+ }
            }

            $(
                /// The name and value of each counter of this group.
                pub fn $read(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                    [$( ($name, self.$field), )+].into_iter()
                }
            )+
        }

        impl AddAssign for Counters {
            fn add_assign(&mut self, other: Self) {
                $($( self.$field += other.$field; )+)+
            }
        }

        $(
            $(#[$group_doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            #[repr(u8)]
            pub enum $group {
                $( $(#[$doc])* $variant, )+
            }

            impl $group {
                /// Every one, in the order of the fields of [`Counters`].
                pub const ALL: &[$group] = &[$( $group::$variant, )+];

                const SLOTS: &[usize] = &[$( offset_of!(Counters, $field) / size_of::<u64>(), )+];

                /// The name under which `xtcp stats` prints it.
                #[must_use]
                pub const fn name(self) -> &'static str {
                    match self {
                        $( $group::$variant => $name, )+
                    }
                }

                /// Its index when [`Counters`] is seen as an array of numbers.
                #[must_use]
                #[inline(always)]
                pub const fn slot(self) -> usize {
                    const FIRST: usize = $group::SLOTS[0];
                    FIRST + self as usize
                }
            }

            const _: () = {
                let mut i = 0;
                while i < $group::ALL.len() {
                    assert!($group::ALL[i].slot() == $group::SLOTS[i]);
                    i += 1;
                }
            };
        )+
    };
}

counters! {
    /// What a segment of an owned port is. The first that fits counts: a FIN with data is a FIN.
    enum Class, classes {
        /// SYN without ACK.
        Syn, "syn", syn;
        /// SYN with ACK.
        SynAck, "syn_ack", syn_ack;
        /// FIN.
        Fin, "fin", fin;
        /// RST.
        Rst, "rst", rst;
        /// ACK without payload.
        Ack, "ack", ack;
        /// ACK with payload.
        Data, "data", data;
        /// An ICMP error that quotes a segment of one of our connections.
        Icmp, "icmp", icmp;
    }

    /// What became of a frame.
    enum Outcome, verdicts {
        /// Left to the kernel.
        Pass, "pass", pass;
        /// Dropped; a [`DropReason`] says why.
        Drop, "drop", drop;
        /// A connection's own segment, given to the daemon.
        SteerConnection, "steer_connection", steer_connection;
        /// A SYN to a listener, given to the daemon.
        SteerSyn, "steer_syn", steer_syn;
        /// Another segment of an owned port that belongs to no connection, given to the daemon to be answered.
        SteerNoConnection, "steer_no_connection", steer_no_connection;
        /// An ICMP error about a connection, given to the daemon.
        SteerIcmp, "steer_icmp", steer_icmp;
        /// A segment that brought a cookie back, given to the daemon.
        SteerCookie, "steer_cookie", steer_cookie;
        /// A SYN that the program answered with a cookie.
        AnswerCookie, "answer_cookie", answer_cookie;
        /// A segment without connection that the program answered with a reset.
        AnswerReset, "answer_reset", answer_reset;
        /// A segment with a bad cookie that the program answered with a reset.
        AnswerBadCookie, "answer_bad_cookie", answer_bad_cookie;
        /// A segment of a connection in TIME_WAIT that the program acknowledged.
        AnswerTimeWait, "answer_time_wait", answer_time_wait;
    }

    /// Why a frame was dropped.
    enum DropReason, drops {
        /// The TCP header is cut short, or its length is below 20 bytes or beyond the packet.
        HeaderLength, "header_length", drop_header_length;
        /// None of FIN, SYN, RST, PSH, ACK, URG.
        Null, "null", drop_null;
        /// FIN, PSH and URG without ACK.
        Xmas, "xmas", drop_xmas;
        /// SYN and FIN.
        SynFin, "syn_fin", drop_syn_fin;
        /// SYN and RST.
        SynRst, "syn_rst", drop_syn_rst;
        /// FIN without ACK.
        FinWithoutAck, "fin_without_ack", drop_fin_without_ack;
        /// PSH or URG, but none of SYN, RST, ACK.
        WithoutAck, "without_ack", drop_without_ack;
        /// The first fragment of a packet: the rest carries no ports, so none of it can be steered.
        Fragment, "fragment", drop_fragment;
        /// More IPv6 extension headers than are looked through: it could be a segment of an owned port.
        Extensions, "extensions", drop_extensions;
        /// RST that belongs to no connection.
        StrayRst, "stray_rst", drop_stray_rst;
        /// More ICMP errors about connections than a CPU lets through.
        IcmpRate, "icmp_rate", drop_icmp_rate;
        /// The daemon lives, but has no socket on the queue that the frame came from.
        NoSocket, "no_socket", drop_no_socket;
        /// A checksum is wrong. (Only of what the program would answer; the daemon counts the others.)
        BadChecksum, "bad_checksum", drop_bad_checksum;
        /// The source is no host's address, or our own.
        Martian, "martian", drop_martian;
        /// Without connection and without a good cookie at a listener that takes cookies: data, which are never reset, and
        /// what `rst_rate` or `no_connection` leave unanswered.
        BadCookie, "bad_cookie", drop_bad_cookie;
        /// A SYN with data, and this CPU has let through as many to listeners that send cookies as it may.
        SynData, "syn_data", drop_syn_data;
        /// No connection, and the listener is to be silent (`no_connection = "drop"`).
        NoConnection, "no_connection", drop_no_connection;
        /// No connection, and this CPU has sent as many resets as it may (`rst_rate`).
        ResetRate, "rst_rate", drop_rst_rate;
        /// The driver's frame had no room for an answer.
        NoRoom, "no_room", drop_no_room;
        /// A connection in TIME_WAIT has nothing to say to it, or not so often.
        TimeWait, "time_wait", drop_time_wait;
        /// Without a connection, from a denied prefix.
        Denied, "denied", drop_denied;
        /// A SYN of a source that sends more of them than it may.
        SourceRate, "source_rate", drop_source_rate;
    }
}

impl Counters {
    /// How many numbers it holds.
    pub const SLOTS: usize = size_of::<Counters>() / size_of::<u64>();
}
