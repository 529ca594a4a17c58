//! The stack's parsers through its public face. An input's first byte chooses what the rest is: a frame as it is, a
//! frame whose length and checksums are put right, or the options of a SYN. Held to be true of a frame to a stack on
//! which nobody listens: it is counted once as dropped or answered once; the answer is the reset of RFC 9293 section
//! 3.10.7.1 to a segment that another parser finds too; and nothing stays behind. Of options: the SYN-ACK reflects
//! those that another reader finds.

use std::sync::Arc;
use std::time::Duration;

use tcp_common::cases::world::{OUR_MAC, PEER_MAC};
use tcp_proto::{Instant, ListenOptions, Stack, StackConfig, State, TcpConfig};
use tests::segment::Segment;

use crate::frames::{self, addresses};
use crate::input::{Input, bit};
use crate::naive::{self, What};
use crate::rows::rows;

const NOW: Instant = Instant::from_millis(1_000_000);
/// MTU of the interface.
const MTU: u16 = 1500;

/// Runs the target.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mode = input.byte();
    match mode & 3 {
        0 => frame_arrives(input.rest(), bit(mode, 2)),
        1 | 2 => {
            let mut frame = input.rest().to_vec();
            if bit(mode, 1) {
                frames::fit(&mut frame);
            }
            frames::seal(&mut frame);
            frame_arrives(&frame, bit(mode, 2));
        }
        _ => syn_arrives(bit(mode, 2), bit(mode, 3), input.rest()),
    }
}

/// The next frame of a stack that has been told everything else.
pub fn transmitted(stack: &mut Stack, now: Instant) -> Option<Vec<u8>> {
    let mut frame = vec![0; usize::from(MTU) + 18];
    let length = stack.poll_transmit(now, &mut frame)?;
    frame.truncate(length);
    Some(frame)
}

/// Reads a frame that a stack sent, by a parser that shares nothing with it.
///
/// # Panics
/// When it is no segment, or a wrong one.
pub fn read(frame: &[u8]) -> Segment {
    let segment = Segment::parse(Duration::ZERO, frame).expect("a segment");
    assert!(segment.ip_checksum_ok && segment.tcp_checksum_ok, "checksums of {segment}");
    assert!(!segment.bad_option && segment.flags.reserved == 0, "options and reserved bits of {segment}");
    assert_eq!(segment.source_mac, OUR_MAC);
    segment
}

fn frame_arrives(frame: &[u8], accept_partial_checksum: bool) {
    let config = StackConfig { mac: OUR_MAC, max_connections: 8, accept_partial_checksum, ..StackConfig::default() };
    let mut stack = Stack::new(config, [7; 32], NOW);
    stack.handle_frame(NOW, frame);
    let drops: u64 = stack.drops().iter().map(|(_, count)| count).sum();
    let answer = transmitted(&mut stack, NOW);
    assert_eq!(drops + u64::from(answer.is_some()), 1, "either dropped or answered: {:?}", stack.drops());
    if let Some(answer) = answer {
        judge_reset(frame, &answer);
    }
    assert_eq!(transmitted(&mut stack, NOW), None, "one answer is enough");
    assert_eq!((stack.poll_event(), stack.poll_timeout(), stack.buffer_memory()), (None, None, 0));
    assert!(State::ALL.iter().all(|state| stack.count(*state) == 0));
}

/// The reset of section 3.10.7.1 makes itself acceptable to whoever sent the segment.
fn judge_reset(frame: &[u8], answer: &[u8]) {
    let reset = read(answer);
    let found = naive::find(frame).expect("an answer to something");
    let What::Segment { flags, .. } = found.what else { panic!("an answer to {found:?}") };
    assert_eq!((reset.source, reset.destination), (found.key.local(), found.key.remote()));
    assert_eq!(answer[..6], frame[6..12], "back to where it came from");
    assert!(reset.flags.rst && !bit(flags, 2), "{reset} in answer to flags {flags:#x}");
    let place = frames::place(frame).expect("a packet");
    let tcp = &frame[place.body..place.end];
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four"));
    let length = tcp.len() - usize::from(tcp[12] >> 4) * 4 + usize::from(bit(flags, 0)) + usize::from(bit(flags, 1));
    let expected = match bit(flags, 4) {
        true => (word(8), 0, false),
        false => (0, word(4).wrapping_add(length as u32), true),
    };
    assert_eq!((reset.seq, reset.ack, reset.flags.ack), expected);
}

fn syn_arrives(v6: bool, ack_follows: bool, list: &[u8]) {
    let list = frames::pad_options(list);
    let (local, remote) = addresses(v6);
    let config = StackConfig { mac: OUR_MAC, mtu: MTU, max_connections: 8, ..StackConfig::default() };
    let mut stack = Stack::new(config, [7; 32], NOW);
    stack.listen(local, ListenOptions { tcp: Arc::new(TcpConfig::default()) }).expect("the first listener");
    let syn = frames::Segment { flags: 2, seq: 1000, window: 5000, options: list.clone(), ..Default::default() };
    stack.handle_frame(NOW, &frames::segment(remote, local, &syn));
    stack.take_table_writes(NOW, &mut Vec::new(), &mut Vec::new());
    let answer = transmitted(&mut stack, NOW).expect("a SYN-ACK");
    assert_eq!(answer[..6], PEER_MAC);
    let answer = read(&answer);
    let offered = naive::options(&list);
    let (scales, sacks) = (answer.window_scale.is_some(), answer.sack_permitted);
    assert_eq!((scales, sacks), (offered.scale.is_some(), offered.sack_permitted), "{offered:?}");
    let echo = answer.timestamps.map(|(_, echo)| echo);
    assert_eq!(echo, offered.timestamps.map(|(value, _)| value), "{offered:?}");
    let mss = offered.mss.unwrap_or(if v6 { 1220 } else { 536 }).max(64).min(MTU - if v6 { 60 } else { 40 });
    assert_eq!(mss_of(&stack), mss - if offered.timestamps.is_some() { 12 } else { 0 });
    if ack_follows {
        let ack = frames::Segment { flags: 16, seq: 1001, ack: answer.seq.wrapping_add(1), window: 5000, ..syn };
        stack.handle_frame(NOW, &frames::segment(remote, local, &ack));
        let old =
            offered.timestamps.is_some_and(|(value, _)| naive::options(&list).timestamps.is_none_or(|t| t.0 != value));
        assert!(old || stack.count(State::ESTABLISHED) == 1, "the same options on the ACK");
    }
}

fn mss_of(stack: &Stack) -> u16 {
    rows(stack, NOW).first().expect("a connection").mss
}
