//! What the XDP program answers, over maps in memory that the first two bytes choose, to the frame that follows; another
//! bit has its lengths and checksums put right first. Held to be true: it does not panic; only what is well-formed, with
//! right checksums and without payload, from one host to another is answered, and no RST; the answer is a segment without
//! payload that another parser reads, with right checksums, back to where the question came from, with its tag, no longer
//! than an answer may be, and a reset is the one of RFC 9293 section 3.10.7.1.

use std::net::IpAddr;

use tcp_common::ConnectionValue;
use tcp_common::cases::answers::handle;
use tcp_common::cases::world::{MemoryMaps, World};
use tcp_common::layout::{FLAG_TIMESTAMPS, ListenerValue, STAYS_SILENT};
use tcp_common::reply::MAX_REPLY;
use tcp_common::{Answer, State, Verdict};

use crate::frames;
use crate::input::{Input, bit, pick};
use crate::naive::{self, What};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Runs the target.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let [what, offers] = input.array();
    let world = world(what, offers);
    let mut frame = input.rest().to_vec();
    if bit(what, 7) {
        frames::fit(&mut frame);
        frames::seal(&mut frame);
    }
    let maps = MemoryMaps::new(&world);
    let done = handle(&maps, &frame);
    if let Verdict::Answer(answer) = done.verdict {
        judge(answer, &frame, &done.reply);
    }
}

fn world(what: u8, offers: u8) -> World {
    let mut world = World::that_answers(World::default().now_ns);
    let modes = [ListenerValue::COOKIES_ALWAYS, ListenerValue::COOKIES_AUTO, ListenerValue::COOKIES_NEVER];
    world.listener = ListenerValue { syn_cookies: pick(what & 3, &modes), offers, ..world.listener };
    world.listener.offers &= if bit(what, 2) { 0xff } else { !STAYS_SILENT };
    world.listener.syn_limit = if bit(what, 3) { 0 } else { 9 };
    world.accept_partial = bit(what, 4);
    if bit(what, 5) {
        let flags = offers & FLAG_TIMESTAMPS;
        let (state, numbers) = (State::TIME_WAIT, 1_000);
        world.entry = ConnectionValue { state, flags, snd_nxt: numbers, rcv_nxt: numbers, ..world.entry };
    }
    if bit(what, 6) {
        world.connections.clear();
    }
    world
}

fn judge(answer: Answer, frame: &[u8], reply: &[u8]) {
    let question = naive::find(frame).expect("an answer to something");
    let What::Segment { flags, payload } = question.what else { panic!("an answer to {question:?}") };
    assert!(flags & RST == 0 && !payload, "{answer:?} to flags {flags:#x}, payload {payload}");
    assert!(is_host(question.key.remote().ip()) && question.key.remote_addr != question.key.local_addr, "{question:?}");
    assert!(frame[6] & 1 == 0, "an answer to a group");

    assert!(reply.len() <= MAX_REPLY && frames::is_sealed(reply), "{reply:02x?}");
    assert_eq!([&reply[..6], &reply[6..12]], [&frame[6..12], &frame[..6]], "back to where it came from");
    let said = naive::find(reply).expect("a frame that can be read");
    assert_eq!(said.vlan, question.vlan);
    let back = (said.key.local(), said.key.remote());
    assert_eq!(back, (question.key.remote(), question.key.local()));
    let What::Segment { flags: says, payload: false } = said.what else { panic!("{said:?}") };
    let expected = match answer {
        Answer::Cookie => SYN | ACK,
        Answer::TimeWait => ACK,
        Answer::Reset | Answer::BadCookie if flags & ACK != 0 => RST,
        Answer::Reset | Answer::BadCookie => RST | ACK,
    };
    assert_eq!(says & (FIN | SYN | RST | ACK), expected, "{answer:?}");
    let (asked, said) = (numbers(frame), numbers(reply));
    match (answer, expected) {
        (Answer::Cookie, _) => assert_eq!(said.1, asked.0.wrapping_add(1)),
        (_, RST) => assert_eq!(said, (asked.1, 0)),
        (Answer::TimeWait, _) => assert_eq!(said, (1_000, 1_000)),
        _ => assert_eq!(said, (0, asked.0.wrapping_add(u32::from(flags & SYN != 0)))),
    }
}

/// SEG.SEQ and SEG.ACK.
fn numbers(frame: &[u8]) -> (u32, u32) {
    let tcp = &frame[frames::place(frame).expect("a packet").body..];
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four"));
    (word(4), word(8))
}

fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback() && !is_broadcast
}
