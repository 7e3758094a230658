//! Parts of a date, in UTC.

use crate::math;

/// The part of a date that a function of this name tells, of seconds since 1970.
pub(crate) fn part(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "minute" => |at| long(at).rem_euclid(3600).div_euclid(60).told(),
        "hour" => |at| long(at).rem_euclid(DAY).div_euclid(3600).told(),
        // 1970 began on a Thursday.
        "day_of_week" => |at| (days(at) + 4).rem_euclid(7).told(),
        "day_of_month" => |at| date(days(at)).2.told(),
        "day_of_year" => |at| (days(at) - first_of(date(days(at)).0, 1) + 1).told(),
        "days_in_month" => |at| {
            let (year, month, _) = date(days(at));
            let next = if month == 12 { first_of(year + 1, 1) } else { first_of(year, month + 1) };
            (next - first_of(year, month)).told()
        },
        "month" => |at| date(days(at)).1.told(),
        "year" => |at| date(days(at)).0.told(),
        _ => return None,
    })
}

const DAY: i64 = 86_400;

trait Told {
    fn told(self) -> f64;
}

impl Told for i64 {
    fn told(self) -> f64 {
        math::long(self)
    }
}

fn long(at: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "saturates; no date is that far")]
    let whole = at.floor().clamp(-8e15, 8e15) as i64;
    whole
}

fn days(at: f64) -> i64 {
    long(at).div_euclid(DAY)
}

/// Year, month and day of a day since 1970. After Hinnant, "chrono-compatible low-level date algorithms" (2013).
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The first day of a month, in days since 1970.
fn first_of(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_their_parts() {
        // Tuesday, 29 February 2000, 23:59:58.
        let at = 951_868_798.0;
        let of = |name| part(name).expect("a part of a date")(at);
        let names = ["year", "month", "day_of_month", "day_of_week", "hour", "minute", "days_in_month", "day_of_year"];
        assert_eq!(names.map(of).map(|part| part.to_string()).join(" "), "2000 2 29 2 23 59 29 60");
        assert_eq!(date(-1), (1969, 12, 31));
    }
}
