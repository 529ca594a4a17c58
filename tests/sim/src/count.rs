//! Counts of named things.

use std::collections::BTreeMap;

/// How often each name was counted; in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Counts `name` once.
    pub fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// Counts `name` so many times; zero times makes it known.
    pub fn add(&mut self, name: &'static str, times: u64) {
        *self.0.entry(name).or_default() += times;
    }

    /// Adds what others counted.
    pub fn merge(&mut self, other: impl IntoIterator<Item = (&'static str, u64)>) {
        other.into_iter().for_each(|(name, times)| self.add(name, times));
    }

    /// How often `name` was counted.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Every name and its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(&name, &count)| (name, count))
    }
}
