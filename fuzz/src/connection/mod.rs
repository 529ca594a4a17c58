//! One connection with a peer that says anything, an application that does anything, and time that passes as it likes:
//! the first bytes choose the [`Setup`], then every eight are a step. The peer aims at the numbers that the stack is at,
//! reports what it may or may not have, and lies; what it said is kept. [`judge`] says what must be true at each step.
//! If the setup says so, the peer comes to its senses in the end: then all that the application wrote must be
//! acknowledged. At the very end the application goes, nobody says anything any more, and everything must end by itself
//! and give back what it held.

mod bench;
mod judge;
mod peer;
mod setup;
mod steps;

use crate::input::Input;
use bench::Bench;
use setup::Setup;

/// Steps of an input, at most.
const MAX_STEPS: usize = 256;

/// Runs the target.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let setup = Setup::read(&mut input);
    let mut bench = Bench::new(&setup);
    if setup.shakes_hands {
        bench.shake_hands();
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        bench.step(input.array());
    }
    if setup.heals {
        bench.heal();
    }
    bench.finish(setup.aborts);
}
