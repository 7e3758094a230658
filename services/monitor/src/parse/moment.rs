//! Times as loggers write them.

use std::str::FromStr as _;

use crate::model::Nanos;

const SECOND: u64 = 1_000_000_000;
const DAY: i64 = 86_400;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Reads a time. One that does not tell its zone, or its day, is read beside the time at which it was printed: it is the
/// same moment by another clock, so the whole quarters of an hour between the two are the zone.
pub(super) fn read(text: &str, printed: Nanos) -> Option<Nanos> {
    let text = text.trim();
    if let Some(time) = number(text) {
        return Some(time);
    }
    let (date, rest) = date(text, printed)?;
    let rest = rest.trim_start_matches(['T', ' ', ':', ',']);
    let (seconds, nanos, zone) = clock(rest)?;
    let wall = date.checked_mul(DAY)?.checked_add(seconds)?;
    match zone {
        Some(offset) => at(wall - offset, nanos),
        None => Some(beside(wall, nanos, printed)),
    }
}

/// Seconds, milli-, micro- or nanoseconds since 1970, whichever makes sense, with a fraction or without.
pub(super) fn number(text: &str) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !(9..=19).contains(&whole.len()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let unit = match whole.len() {
        9 | 10 => SECOND,
        12 | 13 => 1_000_000,
        15 | 16 => 1000,
        18 | 19 => 1,
        _ => return None,
    };
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let part = digits.parse::<u64>().ok()? / (SECOND / unit);
    Some(Nanos::said(whole.checked_add(part)?))
}

/// Days since 1970, and what follows them.
fn date(text: &str, printed: Nanos) -> Option<(i64, &str)> {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| text.get(from..from + count)?.parse::<i64>().ok();
    let is = |at: usize, signs: &[u8]| bytes.get(at).is_some_and(|byte| signs.contains(byte));
    // 2026-11-23, 2026/11/23
    if is(4, b"-/") && is(7, b"-/") {
        return Some((days(digits(0, 4)?, digits(5, 2)?, digits(8, 2)?)?, text.get(10..)?));
    }
    // 23/Nov/2026:12:00:00
    if is(2, b"/") && is(6, b"/") {
        let month = month(text.get(3..6)?)?;
        return Some((days(digits(7, 4)?, month, digits(0, 2)?)?, text.get(11..)?));
    }
    let today = i64::try_from(printed.0 / SECOND).ok()?.div_euclid(DAY);
    // Nov 23 12:00:00: the year is the one in which it is nearest.
    if let Some(month) = text.get(..3).and_then(month) {
        let rest = text.get(3..)?.trim_start();
        let (day, rest) = rest.split_once(' ')?;
        let day = day.parse::<i64>().ok()?;
        return Some((nearest_year(month, day, today)?, rest));
    }
    // 1123 12:00:00 of klog.
    if is(4, b" ") && bytes.iter().take(4).all(u8::is_ascii_digit) {
        return Some((nearest_year(digits(0, 2)?, digits(2, 2)?, today)?, text.get(5..)?));
    }
    // 12:00:00 alone.
    is(2, b":").then_some((today, text))
}

fn month(text: &str) -> Option<i64> {
    let place = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(text))?;
    i64::try_from(place + 1).ok()
}

fn nearest_year(month: i64, day: i64, today: i64) -> Option<i64> {
    let year = 1970 + today * 400 / 146_097;
    let days = (year - 1..=year + 1).filter_map(|year| days(year, month, day));
    days.min_by_key(|days| (days - today).abs())
}

/// Days since 1970 of a day of the Gregorian calendar; after Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms".
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..=2261).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Seconds of a day, nanoseconds of the second, and the zone's seconds east of Greenwich where there is one.
fn clock(text: &str) -> Option<(i64, u64, Option<i64>)> {
    let digits = |from: usize| text.get(from..from + 2)?.parse::<i64>().ok();
    let (hour, minute, second) = (digits(0)?, digits(3)?, digits(6)?);
    let is_time = text.get(2..3) == Some(":") && text.get(5..6) == Some(":");
    if !is_time || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[8..];
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let end = fraction.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(fraction.len());
        let padded: String = fraction[..end].chars().chain(std::iter::repeat('0')).take(9).collect();
        nanos = padded.parse().ok()?;
        rest = &fraction[end..];
    }
    Some((hour * 3600 + minute * 60 + second, nanos, zone(rest.trim())))
}

fn zone(text: &str) -> Option<i64> {
    if ["Z", "z", "UTC", "GMT"].contains(&text) {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let rest = rest.replace(':', "");
    let hours = i64::from_str(rest.get(..2)?).ok()?;
    let minutes = rest.get(2..4).map_or(Some(0), |minutes| i64::from_str(minutes).ok())?;
    Some(sign * (hours * 3600 + minutes * 60))
}

fn at(seconds: i64, nanos: u64) -> Option<Nanos> {
    let whole = u64::try_from(seconds).ok()?.checked_mul(SECOND)?;
    whole.checked_add(nanos).map(Nanos::said)
}

/// The moment of a wall clock in an unknown zone that is nearest to another moment.
fn beside(wall: i64, nanos: u64, printed: Nanos) -> Nanos {
    const QUARTER: i64 = 900;
    /// Zones reach from 12 hours west to 14 east; a day more is another day.
    const ZONE_MAX: i64 = 14 * 3600;
    let there = i64::try_from(printed.0 / SECOND).unwrap_or(i64::MAX);
    let apart = wall - there;
    let zone = (apart + QUARTER / 2).div_euclid(QUARTER) * QUARTER;
    let zone = if zone.abs() <= ZONE_MAX { zone } else { 0 };
    at(wall - zone, nanos).unwrap_or(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T12:00:00Z
    const NOON: u64 = 1_795_435_200;

    #[test]
    fn times_of_many_loggers_are_the_same_moment() {
        let printed = Nanos((NOON + 2) * SECOND);
        for (text, millis) in [
            ("2026-11-23T12:00:00Z", 0),
            ("2026-11-23T12:00:00.123456789Z", 123),
            ("2026-11-23T14:00:00.5+02:00", 500),
            ("2026-11-23 12:00:00,123", 123),
            ("2026-11-23 13:00:00.123", 123),
            ("2026/11/23 06:30:00", 0),
            ("23/Nov/2026:13:00:00 +0100", 0),
            ("Nov 23 12:00:00", 0),
            ("1123 12:00:00.123456", 123),
            ("12:00:00.123", 123),
            ("1795435200", 0),
            ("1795435200.123", 123),
            ("1795435200123", 123),
            ("1795435200123456", 123),
            ("1795435200123456789", 123),
        ] {
            let read = read(text, printed).unwrap_or_else(|| panic!("{text} is a time"));
            assert_eq!(read.0 / 1_000_000, NOON * 1000 + millis, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "now", "12", "2026-13-01T00:00:00Z", "99:00:00", "2026-11-23", "1e9", "Nov"] {
            assert_eq!(read(text, Nanos(NOON * SECOND)), None, "{text}");
        }
        // An old file that is read today keeps its day.
        let old = read("2020-01-01 00:00:00", Nanos(NOON * SECOND)).unwrap();
        assert_eq!(old.0, 1_577_836_800 * SECOND);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_printed_breaks_it(text in ".{0,40}", printed: u64) {
            let _ = read(&text, Nanos::said(printed));
        }
    }
}
