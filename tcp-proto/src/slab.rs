//! Connections by index: chunks that never move, a free list, and generations, so that the id of an ended
//! connection never names its successor.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::api::ConnectionId;

const CHUNK: usize = 256;

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values with stable indices.
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[Slot<T>]>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Slab { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Indices are below this.
    pub(crate) fn end(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Stores what `make` makes of its own id.
    pub(crate) fn insert(&mut self, make: impl FnOnce(ConnectionId) -> T) -> ConnectionId {
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = self.slot_mut(index);
        let id = ConnectionId { index, generation: slot.generation };
        slot.value = Some(make(id));
        self.len += 1;
        id
    }

    /// Adds a chunk; its first index.
    fn grow(&mut self) -> u32 {
        let first = self.end();
        self.chunks.push((0..CHUNK).map(|_| Slot { generation: 0, value: None }).collect());
        self.free.extend((first + 1..self.end()).rev());
        first
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slot_mut(index);
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.len -= 1;
        Some(value)
    }

    /// The index that `id` names, if what it named is still there.
    pub(crate) fn resolve(&self, id: ConnectionId) -> Option<u32> {
        let slot = self.chunks.get(id.index as usize / CHUNK)?.get(id.index as usize % CHUNK)?;
        (slot.generation == id.generation && slot.value.is_some()).then_some(id.index)
    }

    /// The id of what is at `index`.
    pub(crate) fn id(&self, index: u32) -> Option<ConnectionId> {
        let slot = self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)?;
        slot.value.is_some().then_some(ConnectionId { index, generation: slot.generation })
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.chunks.get(index as usize / CHUNK)?[index as usize % CHUNK].value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunks.get_mut(index as usize / CHUNK)?[index as usize % CHUNK].value.as_mut()
    }

    fn slot_mut(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_never_names_a_new_value() {
        let mut slab = Slab::new();
        let ids: Vec<_> = (0..600).map(|n| slab.insert(|_| n)).collect();
        assert_eq!(slab.len(), 600);
        assert_eq!(slab.remove(ids[300].index), Some(300));
        let again = slab.insert(|_| 1000);
        assert_eq!(again.index, ids[300].index);
        assert_eq!(slab.resolve(ids[300]), None);
        assert_eq!(slab.resolve(again).and_then(|index| slab.get(index)), Some(&1000));
        assert_eq!(slab.resolve(ids[599]).and_then(|index| slab.get(index)), Some(&599));
    }
}
