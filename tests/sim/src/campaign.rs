//! Many seeds: runs them on all cores, and adds up what they reached.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::count::Counts;
use crate::trace;
use crate::{Outcome, Plan, World};

/// Lines of a trace that a failure shows.
const SHOWN: usize = 120;

/// A seed that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was wrong, the plan, and the end of the trace.
    pub report: String,
}

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Segments of each seed.
    pub segments: Vec<u64>,
    /// Everything else, added up.
    pub sum: Outcome,
    /// Seeds that failed; the campaign ends soon after the first.
    pub failures: Vec<Failure>,
}

/// Runs the seeds from `first` on, `count` of them.
#[must_use]
pub fn run(first: u64, count: u64) -> Total {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Total::default());
    silence_panics();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let result = run_seed(first + n);
                    stop.fetch_or(result.is_err(), Ordering::Relaxed);
                    total.lock().expect("nobody panics with it").add(result);
                }
            });
        }
    });
    total.into_inner().expect("nobody panicked with it")
}

/// Runs one seed.
///
/// # Errors
/// What was wrong, with the plan and the end of the trace.
pub fn run_seed(seed: u64) -> Result<Outcome, Failure> {
    let run = || World::new(Plan::random(seed)).run();
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let place = PLACE.with_borrow(Clone::clone);
        let what = text.unwrap_or("a panic without a message");
        let plan = Plan::random(seed);
        let trace = trace::last(SHOWN);
        Failure {
            seed,
            report: format!("seed {seed}: {what}\nat {place}\n\n{plan:#?}\n\nthe last {SHOWN} lines:\n{trace}"),
        }
    })
}

thread_local! {
    static PLACE: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// What a panic says is shown with its seed.
fn silence_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, ToString::to_string);
        PLACE.with_borrow_mut(|kept| *kept = place);
    }));
}

impl Total {
    fn add(&mut self, result: Result<Outcome, Failure>) {
        match result {
            Ok(outcome) => {
                self.segments.push(outcome.segments);
                self.sum.merge(outcome);
            }
            Err(failure) => self.failures.push(failure),
        }
    }

    /// The median of the seeds' segments.
    #[must_use]
    pub fn median(&self) -> u64 {
        let mut segments = self.segments.clone();
        segments.sort_unstable();
        segments.get(segments.len() / 2).copied().unwrap_or(0)
    }
}

impl Outcome {
    /// Adds what another run did.
    pub fn merge(&mut self, other: Outcome) {
        self.segments += other.segments;
        self.digest ^= other.digest;
        self.took += other.took;
        let merge = |mine: &mut Counts, theirs: &Counts| mine.merge(theirs.iter());
        merge(&mut self.figures, &other.figures);
        merge(&mut self.drops, &other.drops);
        merge(&mut self.faults, &other.faults);
        for (state, cause, count) in other.transitions {
            match self.transitions.iter_mut().find(|(s, c, _)| (*s, *c) == (state, cause)) {
                Some((.., sum)) => *sum += count,
                None => self.transitions.push((state, cause, count)),
            }
        }
    }
}
