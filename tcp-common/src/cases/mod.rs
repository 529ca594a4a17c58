//! The cases by which the decision is tested, on the host and in the kernel: what the maps hold, a frame, what
//! becomes of it. [`frames`] builds the frames, [`world`] the maps; [`answers`] are cases of what the program answers.

pub mod answers;
pub mod frames;
mod table;
pub mod world;

use alloc::vec::Vec;

use crate::counters::{Class, DropReason};
use crate::decide::{Steer, Verdict};

use world::World;

pub use table::cases;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows, as a sentence.
    pub name: &'static str,
    /// What the maps hold.
    pub world: World,
    /// What arrives.
    pub frame: Vec<u8>,
    /// What the segment is.
    pub class: Option<Class>,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl Case {
    /// A frame that is left to the kernel in the ordinary world.
    fn passes(name: &'static str, frame: Vec<u8>) -> Case {
        Case { name, world: World::default(), frame, class: None, verdict: Verdict::Pass }
    }

    /// A frame of ours that the daemon gets in the ordinary world.
    fn steered(name: &'static str, frame: Vec<u8>, class: Class, steer: Steer) -> Case {
        Case { name, world: World::default(), frame, class: Some(class), verdict: Verdict::Steer(steer) }
    }

    /// A frame of ours that is dropped in the ordinary world.
    fn dropped(name: &'static str, frame: Vec<u8>, class: Option<Class>, reason: DropReason) -> Case {
        Case { name, world: World::default(), frame, class, verdict: Verdict::Drop(reason) }
    }

    /// The same in another world.
    fn when(mut self, change: impl FnOnce(&mut World)) -> Case {
        change(&mut self.world);
        self
    }
}
