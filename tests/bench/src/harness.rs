//! Rounds: every variant once a round, in another order each time; a measurement that others disturbed is repeated.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};

use anyhow::{Context, Result};

/// Share of both cores that others may use during a measurement.
pub const MAX_FOREIGN: f64 = 0.03;
/// Measurements of one variant in one round, at most.
const ATTEMPTS: u32 = 4;

/// How a bench is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds.
    pub rounds: u32,
    /// Take measurements as they are, whoever else uses the CPUs.
    pub noisy: bool,
}

/// What one measurement came to.
#[derive(Clone, Debug)]
pub struct Sample<T> {
    /// The figures.
    pub figures: T,
    /// Share of both cores that others used, 0 to 1.
    pub foreign: f64,
}

/// Every variant's figures.
pub type Rounds<V, T> = BTreeMap<V, Vec<T>>;

/// Measures every variant once in each round.
///
/// # Errors
/// What `measure` says, with the variant.
pub fn rounds<V: Copy + Debug + Ord, T>(
    options: &Options,
    variants: &[V],
    mut measure: impl FnMut(V) -> Result<Sample<T>>,
) -> Result<Rounds<V, T>> {
    let mut figures = Rounds::new();
    for round in 0..options.rounds {
        for variant in shuffled(variants) {
            let sample = undisturbed(options, variant, &mut measure)
                .with_context(|| format!("round {} of {variant:?}", round + 1))?;
            figures.entry(variant).or_insert_with(Vec::new).push(sample.figures);
        }
    }
    Ok(figures)
}

/// Figures of one variant, one per round.
pub fn pick<V: Ord, T>(rounds: &Rounds<V, T>, variant: V, of: impl Fn(&T) -> f64) -> Vec<f64> {
    rounds.get(&variant).map(|samples| samples.iter().map(of).collect()).unwrap_or_default()
}

/// Measures until nobody disturbs, a few times at most; then takes what was disturbed least and says so.
fn undisturbed<V: Copy + Debug, T>(
    options: &Options,
    variant: V,
    measure: &mut impl FnMut(V) -> Result<Sample<T>>,
) -> Result<Sample<T>> {
    let mut best = measure(variant)?;
    for _ in 1..ATTEMPTS {
        if options.noisy || best.foreign <= MAX_FOREIGN {
            return Ok(best);
        }
        println!("  {variant:?}: others used {:.1} % of the CPUs, measured again", best.foreign * 100.0);
        let again = measure(variant)?;
        best = if again.foreign < best.foreign { again } else { best };
    }
    if best.foreign > MAX_FOREIGN {
        println!("  {variant:?}: DISTURBED, others used {:.1} % of the CPUs; kept", best.foreign * 100.0);
    }
    Ok(best)
}

fn shuffled<V: Copy>(variants: &[V]) -> Vec<V> {
    let (mut order, chance) = (variants.to_vec(), RandomState::new());
    for last in (1..order.len()).rev() {
        let other = chance.hash_one(last) % (last as u64 + 1);
        order.swap(last, other as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options { rounds: 3, noisy: false };

    #[test]
    fn every_variant_is_measured_once_a_round() {
        let rounds = rounds(&OPTIONS, &['a', 'b'], |variant| Ok(Sample { figures: variant as u32, foreign: 0.0 }));
        let rounds = rounds.unwrap();
        assert_eq!(pick(&rounds, 'b', |figure| f64::from(*figure)), vec![98.0; 3]);
        assert_eq!(pick(&rounds, 'c', |figure| f64::from(*figure)), Vec::<f64>::new());
    }

    #[test]
    fn a_disturbed_measurement_is_repeated_a_bounded_number_of_times_and_the_best_kept() {
        let run = |foreign: [f64; 4], noisy| {
            let mut attempt = 0;
            let options = Options { rounds: 1, noisy };
            let measured = rounds(&options, &['a'], |_| {
                attempt += 1;
                Ok(Sample { figures: attempt, foreign: foreign[attempt - 1] })
            });
            (measured.unwrap()[&'a'][0], attempt)
        };
        assert_eq!(run([0.01, 0.0, 0.0, 0.0], false), (1, 1));
        assert_eq!(run([0.2, 0.02, 0.0, 0.0], false), (2, 2));
        assert_eq!(run([0.2, 0.3, 0.1, 0.4], false), (3, 4));
        assert_eq!(run([0.2, 0.0, 0.0, 0.0], true), (1, 1));
    }

    #[test]
    fn a_shuffled_order_has_everything_once() {
        let mut order = shuffled(&[1, 2, 3, 4, 5]);
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3, 4, 5]);
    }
}
