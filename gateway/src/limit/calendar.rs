//! Windows of the calendar, in UTC. Pure.

use std::time::Duration;

const DAY_SECONDS: u64 = 86_400;

/// A kind of window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Window {
    /// From midnight to midnight.
    Day,
    /// From the first to the first.
    Month,
}

impl Window {
    /// The window of a moment, in seconds since 1970: its number, and the seconds it still has.
    pub(super) fn at(self, now: u64) -> (u64, u64) {
        let days = now / DAY_SECONDS;
        let day_left = DAY_SECONDS - now % DAY_SECONDS;
        match self {
            Self::Day => (days, day_left),
            Self::Month => {
                let (month, days_left) = month(days);
                (month, (days_left - 1) * DAY_SECONDS + day_left)
            }
        }
    }

    /// About how long one is.
    pub(super) const fn length(self) -> Duration {
        match self {
            Self::Day => Duration::from_secs(DAY_SECONDS),
            Self::Month => Duration::from_secs(30 * DAY_SECONDS),
        }
    }
}

/// The month of a day since 1970, counted from 1970, and the days it still has, this one included.
fn month(mut days: u64) -> (u64, u64) {
    let mut year = 1970;
    loop {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let february = if is_leap { 29 } else { 28 };
        for (number, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
            if days < length {
                return ((year - 1970) * 12 + number as u64, length - days);
            }
            days -= length;
        }
        year += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_the_calendar() {
        // 2024-02-29T23:59:50Z
        let leap = 1_709_251_190;
        assert_eq!(Window::Day.at(leap), (19_782, 10));
        assert_eq!(Window::Month.at(leap), (54 * 12 + 1, 10));
        assert_eq!(Window::Month.at(leap + 10), (54 * 12 + 2, 31 * DAY_SECONDS));
        assert_eq!(Window::Month.at(0), (0, 31 * DAY_SECONDS));
    }
}
