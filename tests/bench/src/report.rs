//! What a bench reports: medians of rounds, the ratio of xtcp to the kernel, the bar, and the baseline of ratios that a
//! regression is judged by. Pure but for reading and writing the files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// A ratio that is worse than the baseline's by more than this is a regression.
const TOLERANCE: f64 = 0.2;

/// Which ratios are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Good {
    /// At most the bar: costs.
    AtMost,
    /// At least the bar: rates.
    AtLeast,
}

/// Figures of all rounds of one variant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle one; of an even number the mean of the two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// Of at least one figure.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(figures: &[f64]) -> Result<Summary> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = sorted.first().zip(sorted.last()).context("no round was measured")?;
        let upper = sorted[sorted.len() / 2];
        let lower = sorted[(sorted.len() - 1) / 2];
        Ok(Summary { median: f64::midpoint(lower, upper), min: *min, max: *max })
    }
}

/// One comparison, as target/bench/NAME.json has it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the file.
    #[serde(skip)]
    pub name: String,
    /// Unit of the figures.
    #[serde(skip)]
    pub unit: &'static str,
    /// Which ratios are good.
    #[serde(skip)]
    pub good: Good,
    /// Whether its ratio is much the same in each run, so that it is held against a baseline.
    #[serde(skip)]
    pub steady: bool,
    /// What was done and measured, and in which unit.
    pub workload: String,
    /// The kernel's TCP (or what else the workload names as the reference).
    pub kernel: Summary,
    /// xtcp.
    pub xtcp: Summary,
    /// xtcp's median by the kernel's.
    pub ratio: f64,
    /// The bar of that ratio.
    pub bar: f64,
    /// Whether the ratio meets it.
    pub met: bool,
}

impl Report {
    /// Compares two sets of rounds.
    ///
    /// # Errors
    /// When one is empty.
    pub fn new(
        name: &str,
        (workload, unit): (impl Into<String>, &'static str),
        (kernel, xtcp): (&[f64], &[f64]),
        (good, bar): (Good, f64),
    ) -> Result<Report> {
        let (kernel, xtcp) = (Summary::of(kernel)?, Summary::of(xtcp)?);
        let ratio = xtcp.median / kernel.median;
        let met = good.holds(ratio, bar);
        let workload = format!("{} [{unit}]", workload.into());
        Ok(Report { name: name.to_owned(), unit, good, steady: true, workload, kernel, xtcp, ratio, bar, met })
    }

    /// The same, for a bar that is a figure of xtcp's and not a ratio.
    ///
    /// # Errors
    /// As [`Report::new`].
    pub fn absolute(
        name: &str,
        what: (impl Into<String>, &'static str),
        (kernel, xtcp): (&[f64], &[f64]),
        (good, bar): (Good, f64),
    ) -> Result<Report> {
        let reference = Summary::of(kernel)?.median;
        Report::new(name, what, (kernel, xtcp), (good, bar / reference))
    }

    /// Of which one frame lost, or one thread that came late, makes the most: it has no baseline.
    #[must_use]
    pub fn unsteady(self) -> Report {
        Report { steady: false, ..self }
    }

    /// Writes DIRECTORY/NAME.json.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(directory).with_context(|| format!("can't make {}", directory.display()))?;
        let path = directory.join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        Ok(path)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = |summary: &Summary| format!("{:.4} ({:.4}..{:.4})", summary.median, summary.min, summary.max);
        let (sign, verdict) = (self.good.sign(), if self.met { "met" } else { "MISSED" });
        writeln!(f, "{}: {}", self.name, self.workload)?;
        writeln!(f, "  kernel {}   xtcp {}   {}", figures(&self.kernel), figures(&self.xtcp), self.unit)?;
        write!(f, "  ratio {:.3}, bar {sign} {:.3}: {verdict}", self.ratio, self.bar)
    }
}

impl Good {
    fn holds(self, ratio: f64, bar: f64) -> bool {
        match self {
            Good::AtMost => ratio <= bar,
            Good::AtLeast => ratio >= bar,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Good::AtMost => "<=",
            Good::AtLeast => ">=",
        }
    }
}

/// Ratios by name, as they were when somebody last looked at them and found them right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline(BTreeMap<String, f64>);

impl Baseline {
    /// Reads it; a file that is not there is an empty one.
    ///
    /// # Errors
    /// When it is there and no map of names to numbers.
    pub fn read(path: &Path) -> Result<Baseline> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Baseline(serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Baseline::default()),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// Takes the ratios of `reports` over and leaves the others as they are.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn update(mut self, reports: &[Report], path: &Path) -> Result<()> {
        let rounded = |ratio: f64| (ratio * 1000.0).round() / 1000.0;
        let steady = reports.iter().filter(|report| report.steady);
        self.0.extend(steady.map(|report| (report.name.clone(), rounded(report.ratio))));
        let text = serde_json::to_string_pretty(&self.0)? + "\n";
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }

    /// What is to be said of a report that is worse than its baseline by more than a fifth.
    #[must_use]
    pub fn regression(&self, report: &Report) -> Option<String> {
        let before = *self.0.get(&report.name)?;
        let limit = match report.good {
            Good::AtMost => before * (1.0 + TOLERANCE),
            Good::AtLeast => before / (1.0 + TOLERANCE),
        };
        let Report { name, ratio, .. } = report;
        let worse = !report.good.holds(*ratio, limit);
        worse.then(|| format!("{name}: the ratio {ratio:.3} is worse than the baseline {before:.3} by more than 20 %"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kernel: &[f64], xtcp: &[f64], good: Good, bar: f64) -> Report {
        Report::new("syn", ("a flood", "us"), (kernel, xtcp), (good, bar)).expect("rounds")
    }

    #[test]
    fn a_summary_has_the_median_and_the_extremes() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]).unwrap(), Summary { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert!(Summary::of(&[]).is_err());
    }

    #[test]
    fn costs_meet_a_bar_from_below_and_rates_from_above() {
        assert!(report(&[2.0], &[1.0], Good::AtMost, 0.5).met);
        assert!(!report(&[2.0], &[1.1], Good::AtMost, 0.5).met);
        assert!(report(&[2.0], &[4.0], Good::AtLeast, 2.0).met);
        assert!(!report(&[2.0], &[3.9], Good::AtLeast, 2.0).met);
    }

    #[test]
    fn an_absolute_bar_becomes_one_of_the_ratio() {
        let report = Report::absolute("idle", ("memory", "B"), (&[4000.0], &[600.0]), (Good::AtMost, 640.0)).unwrap();
        assert!(report.met && (report.bar - 0.16).abs() < 1e-9, "{report:?}");
    }

    #[test]
    fn the_file_has_exactly_what_readers_expect() {
        let value = serde_json::to_value(report(&[2.0], &[1.0], Good::AtMost, 0.65)).unwrap();
        let fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["bar", "kernel", "met", "ratio", "workload", "xtcp"]);
        assert_eq!(value["kernel"], serde_json::json!({"median": 2.0, "min": 2.0, "max": 2.0}));
    }

    #[test]
    fn only_a_ratio_worse_by_more_than_a_fifth_is_a_regression() {
        let baseline = Baseline([("syn".to_owned(), 0.5)].into());
        let cost = |ratio| baseline.regression(&report(&[1.0], &[ratio], Good::AtMost, 0.1));
        assert_eq!((cost(0.59), cost(0.1)), (None, None));
        assert!(cost(0.61).is_some());
        let rate = |ratio| baseline.regression(&report(&[1.0], &[ratio], Good::AtLeast, 9.0));
        assert!(rate(0.42).is_none() && rate(0.41).is_some());
        assert_eq!(Baseline::default().regression(&report(&[1.0], &[9.0], Good::AtMost, 0.1)), None);
    }

    #[test]
    fn a_baseline_keeps_what_was_not_measured_again() {
        let path = std::env::temp_dir().join(format!("xtcp-baseline-{}.json", std::process::id()));
        let baseline = Baseline([("syn".to_owned(), 0.5), ("idle".to_owned(), 0.2)].into());
        let late = Report { name: "late".to_owned(), ..report(&[3.0], &[1.0], Good::AtMost, 1.0) }.unsteady();
        baseline.update(&[report(&[3.0], &[1.0], Good::AtMost, 1.0), late], &path).unwrap();
        let read = Baseline::read(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), Baseline([("syn".to_owned(), 0.333), ("idle".to_owned(), 0.2)].into()));
        assert_eq!(Baseline::read(&path).unwrap(), Baseline::default());
    }
}
