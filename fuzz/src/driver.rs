//! Runs a target without libFuzzer: on files, or on a seeded mutation of its corpus after the other. What the mutations
//! lack in guidance by coverage they have in that they need nothing but stable Rust.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::Target;

/// Longest input that a mutation makes, bytes.
const MAX_INPUT: usize = 4096;
/// Changes that one mutation makes, at most.
const MAX_CHANGES: u64 = 8;

const USAGE: &str = "usage: TARGET FILE...                    replays inputs
       TARGET --iterations N [--seed S]   mutates the corpus; inputs that fail are kept under fuzz/artifacts";

/// The program of a target.
#[must_use]
pub fn main(target: Target) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1)?.parse::<u64>().ok();
    match (option("--iterations"), arguments.first()) {
        (Some(iterations), _) => run_mutations(target, iterations, option("--seed").unwrap_or(1)),
        (None, Some(first)) if !first.starts_with('-') => replay(target, &arguments),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn replay(target: Target, files: &[String]) -> ExitCode {
    for file in files {
        match std::fs::read(file) {
            Ok(input) => target.run(&input),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    println!("{} inputs, nothing found", files.len());
    ExitCode::SUCCESS
}

fn run_mutations(target: Target, iterations: u64, seed: u64) -> ExitCode {
    let began = Instant::now();
    match mutate_corpus(target, iterations, seed) {
        Ok(runs) => {
            println!("{runs} iterations of {}, seed {seed}: {:.1} s", target.name(), began.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(finding) => {
            eprintln!("{finding}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a target on every file of its corpus, then on `iterations` mutations of them; how many inputs that were.
///
/// # Errors
/// On the first input that panics, which is written to `fuzz/artifacts`: where it is.
pub fn mutate_corpus(target: Target, iterations: u64, seed: u64) -> Result<u64, String> {
    let corpus = corpus(target);
    let mut chance = Chance(seed);
    let mutations = (0..iterations).map(|_| chance.mutate(&corpus));
    let mut runs = 0;
    for input in corpus.iter().cloned().chain(mutations) {
        runs += 1;
        if catch_unwind(AssertUnwindSafe(|| target.run(&input))).is_err() {
            return Err(keep(target, &input));
        }
    }
    Ok(runs)
}

fn keep(target: Target, input: &[u8]) -> String {
    let folder = root().join("artifacts").join(target.name());
    let file = folder.join(format!("mutation-{:016x}", hash(input)));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input));
    match written {
        Ok(()) => format!("{} panicked; replay it by: cargo run -p fuzz --bin {0} {}", target.name(), file.display()),
        Err(error) => {
            format!("{} panicked on {input:?}, which can't be kept in {}: {error}", target.name(), file.display())
        }
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The committed inputs, by name.
///
/// # Panics
/// Where there are none.
#[must_use]
pub fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = root().join("corpus").join(target.name());
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All the chance there is: SplitMix64.
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 when that is 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.draw() % limit.max(1) as u64) as usize
    }

    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.draw() % MAX_CHANGES {
            let other = &corpus[self.below(corpus.len())];
            self.change(&mut input, other);
        }
        input.truncate(MAX_INPUT);
        input
    }

    /// One change: a byte, a few of them, a piece left out, repeated, or taken from another input.
    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len());
        let most = [1, 4, 8, 64][self.below(4)];
        let length = 1 + self.below(most.min(input.len().saturating_sub(at)));
        let piece = at..(at + length).min(input.len());
        match self.below(6) {
            0 | 1 if !input.is_empty() => input[at] = self.draw() as u8,
            2 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            3 => drop(input.drain(piece)),
            4 => {
                let copy = input[piece].to_vec();
                input.splice(at..at, copy);
            }
            _ => {
                let from = self.below(other.len());
                let end = (from + 8 * (1 + self.below(16))).min(other.len());
                let over = if self.below(2) == 0 { at..at } else { at..(at + end - from).min(input.len()) };
                input.splice(over, other[from..end].iter().copied());
            }
        }
    }
}
