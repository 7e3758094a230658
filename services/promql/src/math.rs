//! Sums that keep what rounding would lose, and what statistics make of them.

/// A sum that carries along what is lost by rounding. After Kahan, as Neumaier improved it (1974).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, value: f64) {
        let next = self.sum + value;
        if next.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - next) + value;
        } else {
            self.lost += (value - next) + self.sum;
        }
        self.sum = next;
    }

    pub(crate) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

pub(crate) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut sum = Sum::default();
    values.for_each(|value| sum.add(value));
    sum.total()
}

/// The mean. Of values whose sum would be too large it is taken step by step.
pub(crate) fn mean(values: &[f64]) -> f64 {
    let whole = sum(values.iter().copied());
    if whole.is_finite() || values.iter().any(|value| !value.is_finite()) {
        return whole / count(values.len());
    }
    let (mut mean, mut seen) = (0.0, 0.0);
    for value in values {
        seen += 1.0;
        mean += value / seen - mean / seen;
    }
    mean
}

/// How far values lie from their mean, squared. After Welford (1962).
pub(crate) fn variance(values: &[f64]) -> f64 {
    let (mut seen, mut mean, mut squares) = (0.0, Sum::default(), Sum::default());
    for value in values {
        seen += 1.0;
        let delta = value - mean.total();
        mean.add(delta / seen);
        squares.add(delta * (value - mean.total()));
    }
    squares.total() / seen
}

/// The value that a share `q` of all is not above, between its neighbours.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(least_first);
    let rank = q * count(values.len() - 1);
    let low = whole(rank.floor());
    let high = (low + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    // Nothing of a neighbour that is infinite would be no number.
    if weight == 0.0 {
        return values[low];
    }
    values[low] * (1.0 - weight) + values[high] * weight
}

/// Orders values; what is no number comes first.
pub(crate) fn least_first(left: &f64, right: &f64) -> std::cmp::Ordering {
    match (left.is_nan(), right.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => left.total_cmp(right).then(std::cmp::Ordering::Equal),
    }
}

/// Slope and height of the line nearest to points (seconds, value), at second zero. `None` of fewer than two.
pub(crate) fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let (_, first) = points.first().filter(|_| points.len() > 1)?;
    if points.iter().all(|(_, value)| value == first) {
        return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, *first) });
    }
    let number = count(points.len());
    let x = sum(points.iter().map(|(x, _)| *x));
    let y = sum(points.iter().map(|(_, y)| *y));
    let xy = sum(points.iter().map(|(x, y)| x * y));
    let xx = sum(points.iter().map(|(x, _)| x * x));
    let slope = (xy - x * y / number) / (xx - x * x / number);
    Some((slope, y / number - slope * x / number))
}

/// How many, as a number that can be calculated with.
pub(crate) fn count(many: usize) -> f64 {
    u32::try_from(many).map_or(f64::MAX, f64::from)
}

/// A time or a difference of times in seconds.
pub(crate) fn seconds(millis: i64) -> f64 {
    let (whole, rest) = (millis.div_euclid(1000), millis.rem_euclid(1000));
    let rest = i32::try_from(rest).map_or(0.0, f64::from);
    long(whole) + rest / 1000.0
}

/// A whole number as a float; exact up to 2^53.
pub(crate) fn long(value: i64) -> f64 {
    let (high, low) = (value.div_euclid(1 << 32), value.rem_euclid(1 << 32));
    let high = i32::try_from(high).map_or(0.0, f64::from);
    high * 4_294_967_296.0 + u32::try_from(low).map_or(0.0, f64::from)
}

/// A float as an index; what is negative or no number is zero.
pub(crate) fn whole(value: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and the callee says so")]
    let whole = value as usize;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rounding_would_lose_is_kept() {
        let values = [1e16, 1.0, -1e16];
        assert!((sum(values.into_iter()) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn times_become_seconds() {
        assert!((seconds(-1) + 0.001).abs() < 1e-12);
        assert!((seconds(1_700_000_000_123) - 1_700_000_000.123).abs() < 1e-6);
        assert!((long(-5) + 5.0).abs() < f64::EPSILON);
    }
}
