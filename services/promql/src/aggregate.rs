//! Aggregations: many rows become one for each group, or the few that stand out.

use std::collections::HashMap;

use crate::error::Error;
use crate::eval::{Eval, Part, Row};
use crate::histogram::Histogram;
use crate::labels::{Labels, NAME};
use crate::math::{self, least_first};
use crate::model::{Point, show};
use crate::syntax::{Fold as Written, Grouping};

/// Rows that are taken together.
struct Group {
    labels: Labels,
    rows: Vec<Row>,
}

impl Eval<'_> {
    pub(crate) fn aggregate(&self, aggregate: &Written) -> Result<Part, Error> {
        let name = aggregate.name.to_owned();
        let rows = self.vector(&name, &aggregate.of)?;
        let groups = grouped(rows, aggregate.grouping.as_ref());
        self.touch(groups.len().saturating_mul(self.steps()))?;
        let param = || {
            let missing = || Error::Argument { function: name.clone(), what: "lacks its parameter".to_owned() };
            aggregate.param.as_ref().ok_or_else(missing)
        };
        let rows = match name.as_str() {
            "topk" | "bottomk" | "limitk" | "limit_ratio" => {
                let many = self.scalar(&name, param()?)?;
                if many.iter().any(|many| many.is_nan()) {
                    return Err(Error::Argument { function: name, what: "takes a number, not NaN".to_owned() });
                }
                groups.into_iter().flat_map(|group| chosen(&name, group, &many)).collect()
            }
            "count_values" => {
                let label = self.text(&name, param()?)?;
                if !is_label(&label) {
                    return Err(Error::Argument { function: name, what: format!("{label:?} is no name of a label") });
                }
                self.counted(&groups, &label)
            }
            "quantile" => {
                let q = self.scalar(&name, param()?)?;
                self.folded(groups, |step, points| {
                    let mut values = floats(points);
                    (!values.is_empty()).then(|| math::quantile(q[step], &mut values).into())
                })
            }
            _ => {
                let fold = fold(&name).ok_or_else(|| Error::Unsupported(name.clone()))?;
                self.folded(groups, |_, points| fold(points))
            }
        };
        Ok(Part::Vector(rows))
    }

    fn folded(&self, groups: Vec<Group>, fold: impl Fn(usize, &[&Point]) -> Option<Point>) -> Vec<Row> {
        let of = |group: Group| {
            let mut points = Vec::with_capacity(group.rows.len());
            let each = (0..self.steps()).map(|step| {
                points.clear();
                points.extend(group.rows.iter().filter_map(|row| row.points[step].as_ref()));
                if points.is_empty() { None } else { fold(step, &points) }
            });
            Row { points: each.collect(), labels: group.labels }
        };
        groups.into_iter().map(of).collect()
    }

    /// How often each value is there. The label that tells the value takes the place of one that groups.
    fn counted(&self, groups: &[Group], label: &str) -> Vec<Row> {
        let mut rows = HashMap::<Labels, Vec<Option<Point>>>::new();
        for group in groups {
            for step in 0..self.steps() {
                for point in group.rows.iter().filter_map(|row| row.points[step].as_ref()) {
                    let value = match point {
                        Point::Float(value) => show(*value),
                        Point::Histogram(histogram) => histogram.to_string(),
                    };
                    let labels = group.labels.with(label, &value);
                    let counts = rows.entry(labels).or_insert_with(|| vec![None; self.steps()]);
                    let before = counts[step].as_ref().and_then(Point::float).unwrap_or_default();
                    counts[step] = Some((before + 1.0).into());
                }
            }
        }
        let mut rows: Vec<Row> = rows.into_iter().map(|(labels, points)| Row { labels, points }).collect();
        rows.sort_by(|left, right| left.labels.cmp(&right.labels));
        rows
    }
}

fn is_label(name: &str) -> bool {
    !name.is_empty()
}

fn grouped(rows: Vec<Row>, grouping: Option<&Grouping>) -> Vec<Group> {
    let labels = |row: &Row| match grouping {
        None => Labels::default(),
        Some(Grouping::Only(by)) => row.labels.only(by),
        Some(Grouping::Without(without)) => row.labels.without(without).without(&[NAME]),
    };
    let mut places = HashMap::<Labels, usize>::new();
    let mut groups = Vec::<Group>::new();
    for row in rows {
        let labels = labels(&row);
        let at = *places.entry(labels.clone()).or_insert_with(|| {
            groups.push(Group { labels, rows: Vec::new() });
            groups.len() - 1
        });
        groups[at].rows.push(row);
    }
    groups
}

fn floats(points: &[&Point]) -> Vec<f64> {
    points.iter().filter_map(|point| point.float()).collect()
}

/// All histograms, if all are.
fn histograms<'p>(points: &[&'p Point]) -> Option<Vec<&'p Histogram>> {
    let of = |point: &&'p Point| match point {
        Point::Histogram(histogram) => Some(histogram.as_ref()),
        Point::Float(_) => None,
    };
    points.iter().map(of).collect()
}

/// All points if all are floats, or all together if all are histograms. `None` of a mixture.
fn total(points: &[&Point]) -> Option<Point> {
    let values = floats(points);
    if values.len() == points.len() {
        return Some(math::sum(values.into_iter()).into());
    }
    Histogram::folded(&histograms(points)?, |values| math::sum(values.iter().copied())).map(Point::from)
}

/// How the points of a group at a step become one.
type Fold = fn(&[&Point]) -> Option<Point>;

fn fold(name: &str) -> Option<Fold> {
    fn of_floats(points: &[&Point], make: impl Fn(&[f64]) -> f64) -> Option<Point> {
        let values = floats(points);
        (!values.is_empty()).then(|| make(&values).into())
    }
    fn extreme(points: &[&Point], is_better: impl Fn(f64, f64) -> bool) -> Option<Point> {
        let best = |best: f64, next: f64| if is_better(next, best) || best.is_nan() { next } else { best };
        floats(points).into_iter().reduce(best).map(Point::from)
    }
    Some(match name {
        "sum" => total,
        "avg" => |points| {
            let values = floats(points);
            if values.len() == points.len() {
                return Some(math::mean(&values).into());
            }
            Histogram::folded(&histograms(points)?, math::mean).map(Point::from)
        },
        "count" => |points| Some(math::count(points.len()).into()),
        "group" => |_| Some(1.0.into()),
        "min" => |points| extreme(points, |new, old| new < old),
        "max" => |points| extreme(points, |new, old| new > old),
        "stddev" => |points| of_floats(points, |values| math::variance(values).sqrt()),
        "stdvar" => |points| of_floats(points, math::variance),
        _ => return None,
    })
}

/// Those rows of a group that stand out, at the steps where they do. At one step: the first is the one that does most.
fn chosen(name: &str, group: Group, many: &[f64]) -> Vec<Row> {
    let mut keeps = vec![vec![false; many.len()]; group.rows.len()];
    let mut places = vec![0; group.rows.len()];
    for (step, many) in many.iter().enumerate() {
        let there = |at: &usize| group.rows[*at].points[step].is_some();
        let mut order: Vec<usize> = (0..group.rows.len()).filter(there).collect();
        let value = |at: usize| group.rows[at].points[step].as_ref().and_then(Point::float);
        if matches!(name, "topk" | "bottomk") {
            order.retain(|at| value(*at).is_some());
            let key = |at: usize| value(at).unwrap_or(f64::NAN);
            order.sort_by(|left, right| {
                let (left, right) = (key(*left), key(*right));
                // What is no number stands out least.
                let by_nan = left.is_nan().cmp(&right.is_nan());
                by_nan.then(if name == "topk" { least_first(&right, &left) } else { least_first(&left, &right) })
            });
        }
        if name == "limit_ratio" {
            order.retain(|at| in_ratio(&group.rows[*at].labels, *many));
        } else {
            order.truncate(math::whole(*many));
        }
        for (place, at) in order.into_iter().enumerate() {
            keeps[at][step] = true;
            places[at] = place;
        }
    }
    let mut rows: Vec<(usize, Row)> = Vec::new();
    for ((row, keeps), place) in group.rows.into_iter().zip(keeps).zip(places) {
        if keeps.iter().any(|keeps| *keeps) {
            let points = row.points.into_iter().zip(keeps).map(|(point, keeps)| point.filter(|_| keeps)).collect();
            rows.push((place, Row { labels: row.labels, points }));
        }
    }
    if many.len() == 1 {
        rows.sort_by_key(|(place, _)| *place);
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Whether a series is among a share of all, always the same ones: positive shares and negative ones complete each other.
fn in_ratio(labels: &Labels, ratio: f64) -> bool {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    labels.hash(&mut hasher);
    let at = f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or_default()) / 4_294_967_296.0;
    if ratio >= 0.0 { at < ratio } else { at >= 1.0 + ratio }
}
