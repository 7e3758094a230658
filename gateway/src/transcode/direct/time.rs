//! Timestamps and durations in their JSON forms. Days by Howard Hinnant's "chrono-compatible low-level date algorithms".

use std::io::Write as _;

use super::Unusual;

/// From year 1 to year 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;
const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// Reads "2017-01-15T01:30:15.01Z" or one with an offset; gives seconds since 1970, and nanoseconds.
pub(super) fn read_timestamp(text: &str) -> Result<(i64, i32), Unusual> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_at_checked(19).ok_or(Unusual)?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| date[*at] != *mark) {
        return Err(Unusual);
    }
    let year = digits(&date[0..4])?;
    let (month, day) = (digits(&date[5..7])?, digits(&date[8..10])?);
    let (hour, minute, second) = (digits(&date[11..13])?, digits(&date[14..16])?, digits(&date[17..19])?);
    let is_there = year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    if !is_there || hour > 23 || minute > 59 || second > 59 {
        return Err(Unusual);
    }
    let (nanos, rest) = match rest.split_first() {
        Some((b'.', rest)) => fraction(rest)?,
        _ => (0, rest),
    };
    let offset = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', tens, ones] if hours.len() == 2 => {
            let (hours, minutes) = (digits(hours)?, digits(&[*tens, *ones])?);
            if hours > 23 || minutes > 59 {
                return Err(Unusual);
            }
            let offset = hours * 3600 + minutes * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return Err(Unusual),
    };
    let seconds = days_from(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    if SECONDS.contains(&seconds) { Ok((seconds, nanos)) } else { Err(Unusual) }
}

/// Appends a timestamp, quotes included.
pub(super) fn put_timestamp(seconds: i64, nanos: i32, out: &mut Vec<u8>) -> Result<(), Unusual> {
    if !SECONDS.contains(&seconds) || !(0..NANOS_PER_SECOND).contains(&nanos) {
        return Err(Unusual);
    }
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(out, "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}").map_err(|_| Unusual)?;
    put_fraction(nanos, out)?;
    out.extend_from_slice(b"Z\"");
    Ok(())
}

/// Reads "3.5s"; gives seconds and nanoseconds of the same sign.
pub(super) fn read_duration(text: &str) -> Result<(i64, i32), Unusual> {
    let text = text.strip_suffix('s').ok_or(Unusual)?;
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (whole, rest) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    if whole.len() > 12 {
        return Err(Unusual);
    }
    let seconds = digits(whole.as_bytes())?;
    let nanos = match rest {
        None => 0,
        Some(rest) => match fraction(rest.as_bytes())? {
            (nanos, []) => nanos,
            _ => return Err(Unusual),
        },
    };
    if seconds > DURATION_SECONDS_MAX || (seconds == DURATION_SECONDS_MAX && nanos > 0) {
        return Err(Unusual);
    }
    Ok(if is_negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// Appends a duration, quotes included.
pub(super) fn put_duration(seconds: i64, nanos: i32, out: &mut Vec<u8>) -> Result<(), Unusual> {
    let is_mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    if is_mixed || seconds.abs() > DURATION_SECONDS_MAX || nanos.abs() >= NANOS_PER_SECOND {
        return Err(Unusual);
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    write!(out, "\"{sign}{}", seconds.abs()).map_err(|_| Unusual)?;
    put_fraction(nanos.abs(), out)?;
    out.extend_from_slice(b"s\"");
    Ok(())
}

/// Nothing, or a point and three, six or nine digits.
fn put_fraction(nanos: i32, out: &mut Vec<u8>) -> Result<(), Unusual> {
    let written = match nanos {
        0 => Ok(()),
        nanos if nanos % 1_000_000 == 0 => write!(out, ".{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => write!(out, ".{:06}", nanos / 1_000),
        nanos => write!(out, ".{nanos:09}"),
    };
    written.map_err(|_| Unusual)
}

fn digits(text: &[u8]) -> Result<i64, Unusual> {
    if text.is_empty() {
        return Err(Unusual);
    }
    text.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'9' => Ok(value * 10 + i64::from(digit - b'0')),
        _ => Err(Unusual),
    })
}

/// One to nine digits, as nanoseconds; and what is left.
fn fraction(text: &[u8]) -> Result<(i32, &[u8]), Unusual> {
    let count = text.iter().take_while(|digit| digit.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return Err(Unusual);
    }
    let value = digits(&text[..count])?;
    let scale = (count..9).fold(1, |scale, _| scale * 10);
    Ok((i32::try_from(value * scale).map_err(|_| Unusual)?, &text[count..]))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date.
fn days_from(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date that is some days from 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}
