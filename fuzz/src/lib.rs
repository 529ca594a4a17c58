//! Fuzz targets: what each does with an input, whoever makes the inputs up. libFuzzer does on nightly (`cargo fuzz`);
//! on stable [`driver`] replays files and mutates the committed corpora by a seed, which the tests do some thousand
//! times. A target panics when what it holds to be always true is not; otherwise it returns.
#![forbid(unsafe_code)]

mod answer;
mod connection;
mod decide;
pub mod driver;
mod frames;
mod input;
mod listener;
mod naive;
mod rows;
mod wire;

/// A fuzz target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The XDP program's decision about any frame.
    Decide,
    /// What the XDP program answers to any frame.
    Answer,
    /// The stack's parsers: any frame to a stack on which nobody listens, any options to one on which somebody does.
    Wire,
    /// Frames that hold together to a listener and an established connection.
    Listener,
    /// Segments, time, application calls and ICMP errors for one connection.
    Connection,
}

impl Target {
    /// Every target.
    pub const ALL: [Target; 5] = [Target::Decide, Target::Answer, Target::Wire, Target::Listener, Target::Connection];

    /// The name of its program and of its corpus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Target::Decide => "decide",
            Target::Answer => "answer",
            Target::Wire => "wire",
            Target::Listener => "listener",
            Target::Connection => "connection",
        }
    }

    /// Runs it on an input.
    ///
    /// # Panics
    /// When something that must hold does not.
    pub fn run(self, input: &[u8]) {
        match self {
            Target::Decide => decide::run(input),
            Target::Answer => answer::run(input),
            Target::Wire => wire::run(input),
            Target::Listener => listener::run(input),
            Target::Connection => connection::run(input),
        }
    }
}
