//! Operators between two parts.

use std::collections::{HashMap, HashSet};

use crate::error::Error;
use crate::eval::{Eval, Part, Row, joined, wrong};
use crate::labels::{Labels, NAME};
use crate::model::Point;
use crate::syntax::{Binary, Grouping, Many};

/// An operator on numbers.
#[derive(Clone, Copy)]
enum Operator {
    Math(fn(f64, f64) -> f64),
    Compare(fn(f64, f64) -> bool),
}

/// What an operator does to two points. `None` where it makes no point.
#[derive(Clone, Copy)]
struct Apply<'n> {
    name: &'n str,
    operator: Operator,
    /// Whether a comparison tells 0 or 1, rather than to keep or to drop.
    is_bool: bool,
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "+" => Operator::Math(|left, right| left + right),
        "-" => Operator::Math(|left, right| left - right),
        "*" => Operator::Math(|left, right| left * right),
        "/" => Operator::Math(|left, right| left / right),
        "%" => Operator::Math(|left, right| left % right),
        "^" => Operator::Math(f64::powf),
        "atan2" => Operator::Math(f64::atan2),
        // Of numbers there is nothing to cut.
        "</" | ">/" => Operator::Math(|_, _| f64::NAN),
        #[expect(clippy::float_cmp, reason = "PromQL compares exactly")]
        "==" => Operator::Compare(|left, right| left == right),
        #[expect(clippy::float_cmp, reason = "PromQL compares exactly")]
        "!=" => Operator::Compare(|left, right| left != right),
        ">" => Operator::Compare(|left, right| left > right),
        "<" => Operator::Compare(|left, right| left < right),
        ">=" => Operator::Compare(|left, right| left >= right),
        "<=" => Operator::Compare(|left, right| left <= right),
        _ => return None,
    })
}

impl Apply<'_> {
    /// A comparison that drops keeps the point that is called `kept`.
    fn to(&self, left: &Point, right: &Point, kept: &Point) -> Option<Point> {
        match (left, right) {
            (Point::Float(_), Point::Float(_)) if self.is_cut() => None,
            (Point::Float(left), Point::Float(right)) => match self.operator {
                Operator::Math(math) => Some(math(*left, *right).into()),
                Operator::Compare(holds) if self.is_bool => Some(f64::from(u8::from(holds(*left, *right))).into()),
                Operator::Compare(holds) => holds(*left, *right).then(|| kept.clone()),
            },
            (Point::Histogram(left), Point::Histogram(right)) => match self.name {
                "+" => left.plus(right).map(Point::from),
                "-" => left.minus(right).map(Point::from),
                "==" | "!=" => {
                    let holds = (left == right) == (self.name == "==");
                    if self.is_bool { Some(f64::from(u8::from(holds)).into()) } else { holds.then(|| kept.clone()) }
                }
                _ => None,
            },
            (Point::Histogram(histogram), Point::Float(value)) => match self.name {
                "*" => Some(histogram.scaled(*value).into()),
                "/" => Some(histogram.divided(*value).into()),
                "</" | ">/" => Some(histogram.trimmed(*value, self.name == "</").into()),
                _ => None,
            },
            (Point::Float(value), Point::Histogram(histogram)) => {
                (self.name == "*").then(|| histogram.scaled(*value).into())
            }
        }
    }

    fn is_cut(&self) -> bool {
        matches!(self.name, "</" | ">/")
    }

    /// Whether the name of the metric says no longer what the answer is.
    fn drops_name(&self) -> bool {
        self.is_bool || matches!(self.operator, Operator::Math(_)) && !self.is_cut()
    }
}

impl Eval<'_> {
    pub(crate) fn binary(&self, binary: &Binary) -> Result<Part, Error> {
        let name = binary.op;
        let (left, right) = (self.part(&binary.left)?, self.part(&binary.right)?);
        if matches!(name, "and" | "or" | "unless") {
            return match (left, right) {
                (Part::Vector(left), Part::Vector(right)) => {
                    Ok(Part::Vector(set(name, left, right, binary.matching.as_ref())))
                }
                (Part::Vector(_), other) | (other, _) => Err(wrong(name, "two instant vectors", &other)),
            };
        }
        let operator = operator(name).ok_or_else(|| Error::Unsupported(name.to_owned()))?;
        let apply = Apply { name, operator, is_bool: binary.is_bool };
        match (left, right) {
            (Part::Scalar(left), Part::Scalar(right)) => {
                // Between scalars a comparison always tells 0 or 1.
                let both = left.iter().zip(&right).map(|(left, right)| match operator {
                    Operator::Math(math) => math(*left, *right),
                    Operator::Compare(holds) => f64::from(u8::from(holds(*left, *right))),
                });
                Ok(Part::Scalar(both.collect()))
            }
            (Part::Vector(rows), Part::Scalar(values)) => Ok(Part::Vector(one_sided(rows, &values, apply, false))),
            (Part::Scalar(values), Part::Vector(rows)) => Ok(Part::Vector(one_sided(rows, &values, apply, true))),
            (Part::Vector(left), Part::Vector(right)) => {
                self.touch((left.len() + right.len()).saturating_mul(self.steps()))?;
                Ok(Part::Vector(self.matched(left, right, binary, apply)?))
            }
            (text @ Part::Text(_), _) | (_, text) => Err(wrong(name, "scalars and instant vectors", &text)),
        }
    }

    /// Pairs rows of both sides by their labels.
    fn matched(&self, left: Vec<Row>, right: Vec<Row>, by: &Binary, apply: Apply<'_>) -> Result<Vec<Row>, Error> {
        // "One" is the side with one row a group; the other has as many as it likes, if that was said.
        let (is_left_one, extra) = (by.many == Many::Right, by.extra.as_slice());
        let is_one_to_one = by.many == Many::Neither;
        let (one, many) = if is_left_one { (left, right) } else { (right, left) };
        let [left, right] = by.fill;
        let (fill_one, fill_many) = if is_left_one { (left, right) } else { (right, left) };
        let mut groups = HashMap::<Labels, (Vec<&Row>, Vec<&Row>)>::new();
        let mut order = Vec::new();
        for (is_one, row) in many.iter().map(|row| (false, row)).chain(one.iter().map(|row| (true, row))) {
            let key = signature(&row.labels, by.matching.as_ref());
            let group = groups.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                Default::default()
            });
            if is_one { group.0.push(row) } else { group.1.push(row) }
        }
        let mut rows = Vec::new();
        for key in order {
            let (ones, manies) = &groups[&key];
            check(ones, &key, if is_left_one { "left" } else { "right" }, self.steps())?;
            if is_one_to_one {
                check(manies, &key, "left", self.steps())?;
            }
            let filled = |value: Option<f64>| {
                value.map(|value| Row { labels: key.clone(), points: vec![Some(value.into()); self.steps()] })
            };
            let (spare_one, spare_many) = (filled(fill_one), filled(fill_many));
            let pairing = Pairing { apply, by, extra, is_one_to_one, is_left_one };
            for many in manies {
                for one in ones {
                    rows.push(pairing.row(many, one));
                }
                if let Some(spare) = &spare_one {
                    rows.push(pairing.row_where(many, spare, |step| ones.iter().all(|one| one.points[step].is_none())));
                }
            }
            if let Some(spare) = &spare_many {
                for one in ones {
                    let none = |step: usize| manies.iter().all(|many| many.points[step].is_none());
                    rows.push(pairing.row_where(spare, one, none));
                }
            }
        }
        rows.retain(|row| row.points.iter().any(Option::is_some));
        joined(rows)
    }
}

/// How a row of one side becomes one with a row of the other.
struct Pairing<'p> {
    apply: Apply<'p>,
    by: &'p Binary,
    extra: &'p [String],
    is_one_to_one: bool,
    is_left_one: bool,
}

impl Pairing<'_> {
    fn row(&self, many: &Row, one: &Row) -> Row {
        self.row_where(many, one, |_| true)
    }

    fn row_where(&self, many: &Row, one: &Row, is_there: impl Fn(usize) -> bool) -> Row {
        let mut labels = if self.apply.drops_name() { many.labels.without_name() } else { many.labels.clone() };
        if self.is_one_to_one {
            labels = match &self.by.matching {
                Some(Grouping::Only(on)) => labels.only(on),
                Some(Grouping::Without(ignoring)) => labels.without(ignoring),
                None => labels,
            };
        }
        for name in self.extra {
            labels = labels.with(name, one.labels.get(name));
        }
        let both = many.points.iter().zip(&one.points).enumerate().map(|(step, (many, one))| {
            let (many, one) = (many.as_ref()?, one.as_ref()?);
            let (left, right) = if self.is_left_one { (one, many) } else { (many, one) };
            // A comparison keeps what stands left.
            is_there(step).then(|| self.apply.to(left, right, left)).flatten()
        });
        Row { points: both.collect(), labels }
    }
}

/// What rows that belong together have in common.
fn signature(labels: &Labels, matching: Option<&Grouping>) -> Labels {
    match matching {
        Some(Grouping::Only(on)) => labels.only(on),
        Some(Grouping::Without(ignoring)) => labels.without(ignoring).without(&[NAME]),
        None => labels.without_name(),
    }
}

/// Refuses a group with more than one row at a step.
fn check(rows: &[&Row], group: &Labels, side: &'static str, steps: usize) -> Result<(), Error> {
    if rows.len() < 2 {
        return Ok(());
    }
    let at = |step: usize| rows.iter().filter(|row| row.points[step].is_some()).count();
    match (0..steps).map(at).max() {
        Some(many) if many > 1 => Err(Error::Ambiguous { side, group: group.clone(), many }),
        _ => Ok(()),
    }
}

fn one_sided(rows: Vec<Row>, values: &[f64], apply: Apply<'_>, is_scalar_left: bool) -> Vec<Row> {
    let of = |row: Row| {
        let points = row.points.iter().zip(values).map(|(point, value)| {
            let (point, value) = (point.as_ref()?, Point::Float(*value));
            if is_scalar_left { apply.to(&value, point, point) } else { apply.to(point, &value, point) }
        });
        let points = points.collect();
        Row { labels: if apply.drops_name() { row.labels.without_name() } else { row.labels }, points }
    };
    rows.into_iter().map(of).filter(|row| row.points.iter().any(Option::is_some)).collect()
}

/// `and`, `or`, `unless`: rows by whether the other side has any like them, at each step.
fn set(name: &str, left: Vec<Row>, right: Vec<Row>, by: Option<&Grouping>) -> Vec<Row> {
    let steps = left.first().or(right.first()).map_or(0, |row| row.points.len());
    let there = |rows: &[Row]| {
        let mut steps = vec![HashSet::<Labels>::new(); steps];
        for row in rows {
            let key = signature(&row.labels, by);
            for (step, _) in row.points.iter().enumerate().filter(|(_, point)| point.is_some()) {
                steps[step].insert(key.clone());
            }
        }
        steps
    };
    let filtered = |rows: Vec<Row>, others: &[HashSet<Labels>], wants: bool| {
        let of = |row: Row| {
            let key = signature(&row.labels, by);
            let points = row.points.into_iter().zip(others);
            let points = points.map(|(point, others)| point.filter(|_| others.contains(&key) == wants)).collect();
            Row { labels: row.labels, points }
        };
        rows.into_iter().map(of).filter(|row| row.points.iter().any(Option::is_some)).collect::<Vec<_>>()
    };
    match name {
        "and" => filtered(left, &there(&right), true),
        "unless" => filtered(left, &there(&right), false),
        _ => {
            let others = there(&left);
            let mut rows = left;
            for row in filtered(right, &others, false) {
                // The same series may be left at some steps and right at others.
                match rows.iter_mut().find(|other| other.labels == row.labels) {
                    Some(other) => {
                        for (into, point) in other.points.iter_mut().zip(row.points) {
                            if into.is_none() {
                                *into = point;
                            }
                        }
                    }
                    None => rows.push(row),
                }
            }
            rows
        }
    }
}
