//! Connections that stand in line, the first come first served. Who leaves before its turn is only counted out: its id
//! stays until many have left, so that joining, leaving and being served cost O(1) on average, however long the line.

use alloc::collections::VecDeque;

use crate::api::ConnectionId;

/// Ids of connections that have left, kept at most beyond one for each that still stands.
const SLACK: usize = 64;

/// A line of connections; nobody joins it again before having been taken from it.
#[derive(Default)]
pub(crate) struct Line {
    ids: VecDeque<ConnectionId>,
    standing: usize,
}

impl Line {
    /// How many stand in it.
    pub(crate) fn len(&self) -> usize {
        self.standing
    }

    /// Joins at the end. `stands` tells whether a connection is still in this line.
    pub(crate) fn join(&mut self, id: ConnectionId, stands: impl Fn(ConnectionId) -> bool) {
        if self.ids.len() > 2 * self.standing + SLACK {
            self.ids.retain(|&id| stands(id));
        }
        self.ids.push_back(id);
        self.standing += 1;
    }

    /// Somebody has left.
    pub(crate) fn leave(&mut self) {
        self.standing -= 1;
    }

    /// Takes the first that still stands; it is to leave then.
    pub(crate) fn take(&mut self, stands: impl Fn(ConnectionId) -> bool) -> Option<ConnectionId> {
        loop {
            let id = self.ids.pop_front()?;
            if stands(id) {
                return Some(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnectionId {
        ConnectionId { index, generation: 0 }
    }

    #[test]
    fn the_first_that_still_stands_is_taken() {
        let mut line = Line::default();
        (0..4).for_each(|index| line.join(id(index), |_| true));
        line.leave();
        line.leave();
        assert_eq!(line.len(), 2);
        let stands = |id: ConnectionId| id.index % 2 == 1;
        assert_eq!([line.take(stands), line.take(stands), line.take(stands)], [Some(id(1)), Some(id(3)), None]);
    }

    #[test]
    fn those_who_left_take_no_more_room_than_those_who_stand() {
        let mut line = Line::default();
        line.join(id(0), |_| true);
        for index in 1..100_000 {
            line.join(id(index), |id| id.index == 0);
            line.leave();
            assert!(line.ids.len() <= 2 * line.len() + SLACK + 2, "{} ids for {}", line.ids.len(), line.len());
        }
        assert_eq!(line.take(|_| true), Some(id(0)));
    }
}
