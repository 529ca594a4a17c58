//! Send and receive buffers made of pooled blocks. A buffer takes blocks when there is data and gives them
//! back as soon as it is empty, so that an idle connection owns none. Out-of-order data are kept where they
//! belong (RFC 9293 SHLD-31); gaps own no block. The pool accounts for what buffers need besides blocks, too.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::limits::MAX_GAPS;
use crate::seq::{SeqNum, Span};
use crate::wire::tcp::MAX_SACK_BLOCKS;

/// Size of a block, bytes.
pub(crate) const BLOCK: usize = 4096;
/// Free blocks kept for reuse, at most; more go back to the allocator.
const KEPT: usize = 1024;

type Block = Box<[u8; BLOCK]>;

/// The memory of all buffers of a stack.
pub(crate) struct Pool {
    /// Blocks to hand out again. They were in use before, so that with them, too, there are never more than `limit`
    /// bytes of blocks.
    free: Vec<Block>,
    /// Bytes in blocks that are handed out, and in the bookkeeping of the buffers that have them.
    in_use: usize,
    /// Blocks that went back to the allocator so far.
    freed: u64,
    limit: usize,
}

impl Pool {
    /// A pool that hands out no block that would make more than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Pool { free: Vec::new(), in_use: 0, freed: 0, limit }
    }

    /// Bytes that all buffers need now.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }

    /// A buffer whose bookkeeping needed `accounted` bytes now needs `bytes`.
    fn account(&mut self, accounted: &mut usize, bytes: usize) {
        self.in_use = self.in_use - *accounted + bytes;
        *accounted = bytes;
    }

    /// Bytes that went back to the allocator so far.
    pub(crate) fn freed(&self) -> u64 {
        self.freed * BLOCK as u64
    }

    /// Whether it has a block for whoever can wait: the last quarter is kept for bytes that arrive in order,
    /// so that neither slow readers nor bytes behind gaps shut everybody else out.
    pub(crate) fn has_room(&self) -> bool {
        self.has_spare(1)
    }

    /// Whether it has `blocks` blocks for what can wait.
    fn has_spare(&self, blocks: usize) -> bool {
        self.in_use + blocks * BLOCK <= self.limit - self.limit / 4
    }

    /// Whether it has `blocks` blocks.
    fn has(&self, blocks: usize) -> bool {
        self.in_use + blocks * BLOCK <= self.limit
    }

    /// A block for what can wait.
    fn take_spare(&mut self) -> Option<Block> {
        if self.has_room() { self.take() } else { None }
    }

    fn take(&mut self) -> Option<Block> {
        self.has(1).then(|| self.hand_out())
    }

    fn hand_out(&mut self) -> Block {
        self.in_use += BLOCK;
        self.free.pop().unwrap_or_else(|| Box::new([0; BLOCK]))
    }

    fn give(&mut self, block: Block) {
        self.in_use -= BLOCK;
        if self.free.len() < KEPT {
            self.free.push(block);
        } else {
            self.freed += 1;
        }
    }
}

/// Pieces of a run of bytes that starts `position` bytes into a chain of blocks: block index, where in the
/// block, and which part of the run.
fn pieces(
    position: usize,
    length: usize,
) -> impl Iterator<Item = (usize, core::ops::Range<usize>, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = position + done;
        let size = (BLOCK - at % BLOCK).min(length - done);
        let piece = (at / BLOCK, at % BLOCK..at % BLOCK + size, done..done + size);
        done += size;
        (size > 0).then_some(piece)
    })
}

/// A list of blocks that was once much longer gives memory back.
fn shrink<T>(blocks: &mut VecDeque<T>) {
    if blocks.capacity() > 4 * blocks.len() + 16 {
        blocks.shrink_to(2 * blocks.len());
    }
}

/// Bytes that wait to be sent or to be acknowledged, in stream order.
#[derive(Default)]
pub(crate) struct SendBuffer {
    blocks: VecDeque<Block>,
    /// Where the first byte is in the first block.
    head: usize,
    len: usize,
    /// Bytes of this and of `blocks` that the pool knows of.
    accounted: usize,
}

impl SendBuffer {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends as much of `bytes` as the pool has blocks for; how many bytes.
    pub(crate) fn append(&mut self, pool: &mut Pool, bytes: &[u8]) -> usize {
        let end = self.head + self.len;
        while self.blocks.len() * BLOCK < end + bytes.len() {
            let Some(block) = pool.take_spare() else { break };
            self.blocks.push_back(block);
        }
        self.account(pool);
        let length = bytes.len().min(self.blocks.len() * BLOCK - end);
        for (block, within, part) in pieces(end, length) {
            self.blocks[block][within].copy_from_slice(&bytes[part]);
        }
        self.len += length;
        length
    }

    /// Copies the bytes from `offset` on into all of `into`; they must be there.
    pub(crate) fn copy(&self, offset: usize, into: &mut [u8]) {
        debug_assert!(offset + into.len() <= self.len, "only queued bytes are sent");
        for (block, within, part) in pieces(self.head + offset, into.len()) {
            into[part].copy_from_slice(&self.blocks[block][within]);
        }
    }

    /// Forgets the first `length` bytes: they are acknowledged.
    pub(crate) fn release(&mut self, pool: &mut Pool, length: usize) {
        debug_assert!(length <= self.len, "only queued bytes are acknowledged");
        self.head += length;
        self.len -= length;
        while self.head >= BLOCK || self.len == 0 {
            let Some(block) = self.blocks.pop_front() else { break };
            pool.give(block);
            self.head = self.head.saturating_sub(BLOCK);
        }
        if self.len == 0 {
            self.head = 0;
        }
        shrink(&mut self.blocks);
        self.account(pool);
    }

    /// Tells the pool what this needs besides blocks; without any it is about to go.
    fn account(&mut self, pool: &mut Pool) {
        let list = self.blocks.capacity() * size_of::<Block>();
        pool.account(&mut self.accounted, if self.blocks.is_empty() { 0 } else { size_of::<Self>() + list });
    }
}

/// Why received bytes can't be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The pool has no memory for them.
    Memory,
    /// There are as many runs of out-of-order data as there may be.
    Gaps,
    /// They lie beyond the receive buffer.
    Buffer,
}

/// Bytes that arrived: in order and unread, then out of order.
#[derive(Default)]
pub(crate) struct ReceiveBuffer {
    /// Each with its number: the stream is cut into blocks, but only those are here that hold something.
    blocks: VecDeque<(u64, Block)>,
    /// Number of the block that the first unread byte is in.
    first: u64,
    /// Where it is in that block.
    head: usize,
    /// Unread bytes in order.
    len: usize,
    /// Out-of-order runs, in sequence order, with gaps between them.
    runs: Vec<Span>,
    /// Where segments that arrived out of order last began, the latest first.
    latest: [Option<SeqNum>; MAX_SACK_BLOCKS],
    /// Bytes of this, of `blocks` and of `runs` that the pool knows of.
    accounted: usize,
}

impl ReceiveBuffer {
    /// Bytes that can be read.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether data wait behind a gap.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Number of out-of-order runs.
    pub(crate) fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// The run that holds all of `span`.
    pub(crate) fn run_around(&self, span: Span) -> Option<Span> {
        self.runs.iter().copied().find(|run| run.holds(span))
    }

    /// The first part of `span` that is in a run.
    pub(crate) fn overlap(&self, span: Span) -> Option<Span> {
        let run = self.runs.iter().find(|run| run.start.before(span.end) && span.start.before(run.end))?;
        Some(Span { start: span.start.latest(run.start), end: span.end.earliest(run.end) })
    }

    /// Out-of-order runs in the order in which a peer is to be told of them: those that changed last first (RFC 2018
    /// section 4).
    //= docs/rfc/rfc2018.md#4-first
    //= docs/rfc/rfc2018.md#4-recent
    pub(crate) fn runs_to_report(&self) -> impl Iterator<Item = Span> + '_ {
        let at = |seq: SeqNum| self.run_around(Span { start: seq, end: seq + 1 });
        let latest = move |n: usize| self.latest[n].and_then(at);
        let seen = move |n: usize, run: Span| (0..n).any(|earlier| latest(earlier) == Some(run));
        let recent = (0..MAX_SACK_BLOCKS).filter_map(move |n| latest(n).filter(|run| !seen(n, *run)));
        let others = self.runs.iter().copied().filter(move |run| !seen(MAX_SACK_BLOCKS, *run));
        recent.chain(others)
    }

    /// Whether it holds nothing, in order or out of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0 && self.runs.is_empty()
    }

    /// Stores `bytes`, the first of which has number `seq`, not before `next` (RCV.NXT); how far RCV.NXT
    /// moves. Fails, and stores nothing, when memory or runs are used up. What is next goes before what waits behind a
    /// gap: that is forgotten if there is no memory for both (RFC 2018 section 8), or else neither would ever be read.
    pub(crate) fn insert(&mut self, pool: &mut Pool, next: SeqNum, seq: SeqNum, bytes: &[u8]) -> Result<u32, NoRoom> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let run = Span { start: seq, end: seq + bytes.len() as u32 };
        if seq != next && self.runs.len() >= MAX_GAPS && !self.touches_a_run(run) {
            return Err(NoRoom::Gaps);
        }
        let offset = self.len + (seq - next) as usize;
        let missing = self.missing_blocks(offset, bytes.len());
        let room = if seq == next { pool.has(missing) } else { missing == 0 || pool.has_spare(missing) };
        if !room {
            return Err(NoRoom::Memory);
        }
        self.store(pool, offset, bytes);
        if seq != next {
            self.note_latest(seq);
        }
        let advance = self.note_run(next, run);
        self.account(pool);
        Ok(advance)
    }

    /// Forgets what waits behind gaps, so that bytes in order can have its memory; whether there was any. A peer must
    /// be ready for that even where it was told of them (RFC 2018 section 8).
    //= docs/rfc/rfc2018.md#8-discard
    pub(crate) fn forget_behind_gaps(&mut self, pool: &mut Pool) -> bool {
        let some = self.has_gaps();
        self.runs.clear();
        self.latest = [None; MAX_SACK_BLOCKS];
        let kept = self.first + (self.head + self.len).div_ceil(BLOCK) as u64;
        while let Some((_, block)) = self.blocks.pop_back_if(|(number, _)| *number >= kept) {
            pool.give(block);
        }
        self.release(pool);
        some
    }

    fn touches_a_run(&self, run: Span) -> bool {
        self.runs.iter().any(|r| run.start.at_or_before(r.end) && r.start.at_or_before(run.end))
    }

    /// How many blocks are not here yet of those that `length` bytes need, `offset` bytes after the first unread one.
    fn missing_blocks(&self, offset: usize, length: usize) -> usize {
        let numbers = pieces(self.head + offset, length).map(|(block, ..)| self.first + block as u64);
        numbers.filter(|&number| self.find(number).is_err()).count()
    }

    /// Copies `bytes` to where they belong, `offset` bytes after the first unread one; the pool has the blocks.
    fn store(&mut self, pool: &mut Pool, offset: usize, bytes: &[u8]) {
        for (block, within, part) in pieces(self.head + offset, bytes.len()) {
            let number = self.first + block as u64;
            let at = self.find(number).unwrap_or_else(|at| {
                self.blocks.insert(at, (number, pool.hand_out()));
                at
            });
            self.blocks[at].1[within].copy_from_slice(&bytes[part]);
        }
    }

    /// Where a block is in the list, or where it would be.
    fn find(&self, number: u64) -> Result<usize, usize> {
        self.blocks.binary_search_by_key(&number, |&(number, _)| number)
    }

    /// Merges a stored run with those it touches; if it starts in order, it becomes readable.
    fn note_run(&mut self, next: SeqNum, mut run: Span) -> u32 {
        let first = self.runs.iter().position(|r| run.start.at_or_before(r.end)).unwrap_or(self.runs.len());
        let mut last = first;
        while let Some(r) = self.runs.get(last).filter(|r| r.start.at_or_before(run.end)) {
            run = Span { start: run.start.earliest(r.start), end: run.end.latest(r.end) };
            last += 1;
        }
        if run.start == next {
            self.runs.drain(first..last);
            let advance = run.end - next;
            self.len += advance as usize;
            return advance;
        }
        self.runs.splice(first..last, [run]);
        0
    }

    /// A segment that began at `seq` arrived out of order.
    fn note_latest(&mut self, seq: SeqNum) {
        let room = self.latest.len() - 1;
        self.latest.copy_within(..room, 1);
        self.latest[0] = Some(seq);
    }

    /// Moves unread bytes out; how many.
    pub(crate) fn read(&mut self, pool: &mut Pool, into: &mut [u8]) -> usize {
        let length = into.len().min(self.len);
        for (block, within, part) in pieces(self.head, length) {
            if let Ok(at) = self.find(self.first + block as u64) {
                into[part].copy_from_slice(&self.blocks[at].1[within]);
            }
        }
        self.len -= length;
        self.head += length;
        self.release(pool);
        length
    }

    /// Gives back the blocks that nothing unread or out of order needs.
    pub(crate) fn release(&mut self, pool: &mut Pool) {
        self.first += (self.head / BLOCK) as u64;
        self.head %= BLOCK;
        let (first, empty) = (self.first, self.is_empty());
        while let Some((_, block)) = self.blocks.pop_front_if(|(number, _)| empty || *number < first) {
            pool.give(block);
        }
        shrink(&mut self.blocks);
        self.account(pool);
    }

    /// Tells the pool what this needs besides blocks; without any it is about to go.
    fn account(&mut self, pool: &mut Pool) {
        let lists = self.blocks.capacity() * size_of::<(u64, Block)>() + self.runs.capacity() * size_of::<Span>();
        pool.account(&mut self.accounted, if self.blocks.is_empty() { 0 } else { size_of::<Self>() + lists });
    }

    /// Forgets everything and gives every block back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.len = 0;
        self.runs.clear();
        self.release(pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_is_sent_is_what_was_queued_and_blocks_go_back() {
        let mut pool = Pool::new(16 * BLOCK);
        let mut buffer = SendBuffer::default();
        let bytes: Vec<u8> = (0..3 * BLOCK + 7).map(|i| (i % 251) as u8).collect();
        assert_eq!(buffer.append(&mut pool, &bytes[..100]), 100);
        assert_eq!(buffer.append(&mut pool, &bytes[100..]), bytes.len() - 100);
        let mut out = alloc::vec![0; 5000];
        buffer.copy(90, &mut out);
        assert_eq!(out, bytes[90..5090]);
        buffer.release(&mut pool, 4097);
        assert_eq!(pool.in_use() / BLOCK, 3);
        let mut rest = alloc::vec![0; buffer.len()];
        buffer.copy(0, &mut rest);
        assert_eq!(rest, bytes[4097..]);
        buffer.release(&mut pool, rest.len());
        assert_eq!((buffer.len(), pool.in_use()), (0, 0));
    }

    #[test]
    fn a_send_buffer_takes_no_more_than_the_pool_has() {
        let mut pool = Pool::new(4 * BLOCK);
        let mut buffer = SendBuffer::default();
        assert_eq!(buffer.append(&mut pool, &[1; 5 * BLOCK]), 3 * BLOCK, "the last quarter is kept");
        assert_eq!(buffer.append(&mut pool, &[1; 1]), 0);
    }

    #[test]
    fn pieces_in_any_order_come_out_as_the_stream() {
        let mut random = Random::new([3, 4]);
        let bytes: Vec<u8> = (0..60_000u32).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect();
        for _ in 0..20 {
            let start = SeqNum(random.next());
            let (mut pool, mut buffer) = (Pool::new(1 << 20), ReceiveBuffer::default());
            let (mut next, mut out) = (start, Vec::new());
            while out.len() < bytes.len() {
                let done = (next - start) as usize;
                let from = (done + random.below(9000) as usize).min(bytes.len());
                let to = (from + random.below(3000) as usize).min(bytes.len());
                let from = if random.below(4) == 0 { done } else { from };
                next += buffer.insert(&mut pool, next, start + from as u32, &bytes[from..to.max(from)]).unwrap_or(0);
                let mut into = alloc::vec![0; random.below(4000) as usize];
                let read = buffer.read(&mut pool, &mut into);
                out.extend_from_slice(&into[..read]);
            }
            assert_eq!(out, bytes);
            assert!(buffer.is_empty());
            assert_eq!(pool.in_use(), 0, "an empty buffer owns no block");
        }
    }

    #[test]
    fn too_many_gaps_are_refused_and_nothing_is_lost() {
        let (mut pool, mut buffer) = (Pool::new(1 << 20), ReceiveBuffer::default());
        let next = SeqNum(0);
        for i in 0..MAX_GAPS as u32 {
            assert_eq!(buffer.insert(&mut pool, next, SeqNum(10 + 10 * i), b"abc"), Ok(0));
        }
        assert_eq!(buffer.insert(&mut pool, next, SeqNum(5), b"x"), Err(NoRoom::Gaps));
        assert_eq!(buffer.insert(&mut pool, next, SeqNum(13), b"d"), Ok(0), "extending a run is no new gap");
        assert_eq!(buffer.insert(&mut pool, next, next, b"0123456789"), Ok(14));
        buffer.clear(&mut pool);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn without_memory_for_both_what_is_next_drives_out_what_is_out_of_order() {
        let mut pool = Pool::new(4 * BLOCK);
        let mut buffer = ReceiveBuffer::default();
        let next = SeqNum(0);
        for block in [2, 4] {
            assert_eq!(buffer.insert(&mut pool, next, next + block * BLOCK as u32, b"x"), Ok(0));
        }
        let other = [pool.take(), pool.take()];
        assert_eq!(other.iter().flatten().count(), 1);
        assert_eq!(buffer.insert(&mut pool, next, next, &[7; BLOCK]), Err(NoRoom::Memory));
        assert!(buffer.forget_behind_gaps(&mut pool) && !buffer.has_gaps());
        assert_eq!(buffer.insert(&mut pool, next, next, &[7; BLOCK]), Ok(BLOCK as u32));
        let mut read = [0; 2 * BLOCK];
        assert_eq!(buffer.read(&mut pool, &mut read), BLOCK);
        assert!(read[..BLOCK].iter().all(|byte| *byte == 7));
        other.into_iter().flatten().for_each(|block| pool.give(block));
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn runs_are_reported_in_the_order_in_which_they_changed() {
        let (mut pool, mut buffer) = (Pool::new(1 << 20), ReceiveBuffer::default());
        let mut arrives = |start: u32, end: u32| {
            let bytes = alloc::vec![0; (end - start) as usize];
            buffer.insert(&mut pool, SeqNum(0), SeqNum(start), &bytes).unwrap();
            buffer.runs_to_report().map(|run| (run.start.0, run.end.0)).collect::<Vec<_>>()
        };
        assert_eq!(arrives(100, 200), [(100, 200)]);
        assert_eq!(arrives(500, 600), [(500, 600), (100, 200)]);
        assert_eq!(arrives(300, 400), [(300, 400), (500, 600), (100, 200)]);
        assert_eq!(arrives(200, 250), [(100, 250), (300, 400), (500, 600)]);
        assert_eq!(arrives(700, 800), [(700, 800), (100, 250), (300, 400), (500, 600)]);
        assert_eq!(arrives(900, 950), [(900, 950), (700, 800), (100, 250), (300, 400), (500, 600)]);
        assert_eq!(arrives(250, 300), [(100, 400), (900, 950), (700, 800), (500, 600)]);
    }

    #[test]
    fn a_gap_owns_no_block() {
        let (mut pool, mut buffer) = (Pool::new(1 << 20), ReceiveBuffer::default());
        assert_eq!(buffer.insert(&mut pool, SeqNum(0), SeqNum(500_000), b"far"), Ok(0));
        assert_eq!(pool.in_use() / BLOCK, 1);
    }

    #[test]
    fn what_buffers_need_besides_blocks_stays_small_however_long_they_were() {
        let bytes = alloc::vec![7; 1000 * BLOCK];
        let (mut pool, mut sent, mut received) = (Pool::new(1 << 30), SendBuffer::default(), ReceiveBuffer::default());
        sent.append(&mut pool, &bytes);
        sent.release(&mut pool, bytes.len() - 1);
        assert!(pool.in_use() < BLOCK + 1024, "{}", pool.in_use());
        assert_eq!(received.insert(&mut pool, SeqNum(0), SeqNum(0), &bytes), Ok(bytes.len() as u32));
        let mut into = alloc::vec![0; bytes.len() - 1];
        received.read(&mut pool, &mut into);
        assert!(pool.in_use() < 2 * (BLOCK + 1024), "{}", pool.in_use());
        sent.release(&mut pool, 1);
        received.read(&mut pool, &mut into);
        assert_eq!(pool.in_use(), 0);
    }
}
