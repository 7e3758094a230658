//! Lines counted: over time, and by the values of their fields. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::grammar::fields;
use crate::model::{Level, Line, Nanos};

/// Most fields that one question counts by.
pub const FIELDS_MAX: usize = 16;
/// Most values that are told apart for one field; what comes beyond them is counted together.
const VALUES_MAX: usize = 10_000;
/// Most steps of time; a shorter step is made longer until they suffice.
const STEPS_MAX: usize = 1440;

/// Counts while lines are looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tallies {
    step: u64,
    /// How many lines were counted.
    pub lines: u64,
    steps: BTreeMap<u64, Step>,
    facets: Vec<(String, HashMap<String, u64>, u64)>,
}

/// Lines of a step of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// All of them.
    pub lines: u64,
    /// Those that warn.
    pub warnings: u64,
    /// Errors, and what is worse.
    pub errors: u64,
}

impl Step {
    const fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.warnings += other.warnings;
        self.errors += other.errors;
    }
}

/// What was counted, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    /// How long a step is, in nanoseconds; zero for no steps.
    pub step: u64,
    /// How many lines.
    pub lines: u64,
    /// Steps that have lines, by their place since 1970.
    pub steps: Vec<(u64, Step)>,
    /// Of each field: lines by value, and lines with other values.
    pub facets: Vec<(HashMap<String, u64>, u64)>,
}

/// How often values of a field occur.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facet {
    /// The field.
    pub field: String,
    /// Values and lines, the most frequent first.
    pub values: Vec<(String, u64)>,
    /// Lines with other values.
    pub others: u64,
}

impl Tallies {
    /// Begins to count; a step of zero is none. More than [`FIELDS_MAX`] fields are left out.
    pub fn new(step: u64, fields: &[String]) -> Self {
        let facets = fields.iter().take(FIELDS_MAX).map(|field| (field.clone(), HashMap::new(), 0)).collect();
        Self { step, lines: 0, steps: BTreeMap::new(), facets }
    }

    /// The fields that are counted by.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.facets.iter().map(|(field, ..)| field.as_str())
    }

    /// Counts a line.
    pub fn add(&mut self, line: &Line) {
        self.add_alike(line, 1);
    }

    /// Counts so many lines that have the step of time, the level and the values of all fields of this one.
    pub fn add_alike(&mut self, line: &Line, lines: u64) {
        self.lines += lines;
        if let Some(at) = line.time.0.checked_div(self.step) {
            let step = self.steps.entry(at).or_default();
            step.lines += lines;
            step.warnings += if line.level == Level::Warn { lines } else { 0 };
            step.errors += if line.level >= Level::Error { lines } else { 0 };
            if self.steps.len() > STEPS_MAX {
                self.coarsen();
            }
        }
        for (field, values, others) in &mut self.facets {
            for value in fields(line, field) {
                if let Some(known) = values.get_mut(value.as_ref()) {
                    *known += lines;
                } else if values.len() < VALUES_MAX {
                    values.insert(value.into_owned(), lines);
                } else {
                    *others += lines;
                }
            }
        }
    }

    /// Puts what was counted together; [`Tallies::into_counted`] takes it apart. Steps that are not in order of place do
    /// not matter.
    pub fn of_counted(counted: Counted) -> Self {
        let Counted { step, lines, steps, facets } = counted;
        let facets = facets.into_iter().map(|(values, others)| (String::new(), values, others)).collect();
        Self { step, lines, steps: steps.into_iter().collect(), facets }
    }

    /// Takes apart what was counted, for whoever adds it to what another counted.
    pub fn into_counted(self) -> Counted {
        let facets = self.facets.into_iter().map(|(_, values, others)| (values, others)).collect();
        Counted { step: self.step, lines: self.lines, steps: self.steps.into_iter().collect(), facets }
    }

    /// Adds what another counted by the same fields, and by steps that began as long as these.
    pub fn join(&mut self, mut other: Self) {
        self.lines += other.lines;
        if self.step > 0 && other.step > 0 {
            while self.step < other.step {
                self.coarsen();
            }
            while other.step < self.step {
                other.coarsen();
            }
            for (place, step) in other.steps {
                self.steps.entry(place).or_default().add(step);
            }
            while self.steps.len() > STEPS_MAX {
                self.coarsen();
            }
        }
        for ((_, values, others), (_, more, more_others)) in self.facets.iter_mut().zip(other.facets) {
            *others += more_others;
            for (value, lines) in more {
                if let Some(known) = values.get_mut(&value) {
                    *known += lines;
                } else if values.len() < VALUES_MAX {
                    values.insert(value, lines);
                } else {
                    *others += lines;
                }
            }
        }
    }

    fn coarsen(&mut self) {
        self.step = self.step.saturating_mul(2);
        let mut steps: BTreeMap<u64, Step> = BTreeMap::new();
        for (place, step) in std::mem::take(&mut self.steps) {
            steps.entry(place / 2).or_default().add(step);
        }
        self.steps = steps;
    }

    /// How long a step is, in nanoseconds.
    pub const fn step(&self) -> u64 {
        self.step
    }

    /// The steps that have lines, with their beginnings, in order.
    pub fn steps(&self) -> Vec<(Nanos, Step)> {
        self.steps.iter().map(|(place, step)| (Nanos(place.saturating_mul(self.step)), *step)).collect()
    }

    /// What was counted by fields, of each at most so many values.
    pub fn facets(self, values_max: usize) -> Vec<Facet> {
        let facet = |(field, values, others): (String, HashMap<String, u64>, u64)| {
            let mut values: Vec<_> = values.into_iter().collect();
            values.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
            let rest: u64 = values.iter().skip(values_max).map(|(_, lines)| lines).sum();
            values.truncate(values_max);
            Facet { field, values, others: others + rest }
        };
        self.facets.into_iter().map(facet).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: u64, level: Level, color: &str) -> Line {
        Line { time: Nanos(time), level, attributes: vec![("color".into(), color.into())], ..Line::default() }
    }

    #[test]
    fn lines_are_counted_over_time_and_by_value() {
        let mut tallies = Tallies::new(10, &["color".to_owned(), "level".to_owned()]);
        for (time, level, color) in
            [(1, Level::Info, "blue"), (9, Level::Error, "red"), (31, Level::Fatal, "blue"), (32, Level::Warn, "green")]
        {
            tallies.add(&line(time, level, color));
        }
        let step = |lines, warnings, errors| Step { lines, warnings, errors };
        assert_eq!(tallies.steps(), [(Nanos(0), step(2, 0, 1)), (Nanos(30), step(2, 1, 1))]);
        let facets = tallies.facets(2);
        assert_eq!(facets[0].values, [("blue".to_owned(), 2), ("green".to_owned(), 1)]);
        assert_eq!((facets[0].others, facets[1].values.len(), facets[1].others), (1, 2, 2));
    }

    #[test]
    fn what_two_counted_adds_up_as_if_one_had() {
        let fields = ["color".to_owned()];
        let (mut one, mut other, mut all) =
            (Tallies::new(1, &fields), Tallies::new(1, &fields), Tallies::new(1, &fields));
        for time in 0..4000 {
            let line = line(time, if time % 7 == 0 { Level::Error } else { Level::Info }, &format!("c{}", time % 5));
            if time < 100 { &mut one } else { &mut other }.add(&line);
            all.add(&line);
        }
        one.join(Tallies::of_counted(other.into_counted()));
        assert_eq!(one, all);
    }

    #[test]
    fn steps_get_longer_rather_than_too_many() {
        let mut tallies = Tallies::new(1, &[]);
        for time in 0..10_000 {
            tallies.add(&line(time, Level::Info, ""));
        }
        assert!(tallies.steps().len() <= STEPS_MAX);
        assert_eq!(tallies.steps().iter().map(|(_, step)| step.lines).sum::<u64>(), 10_000);
    }
}
