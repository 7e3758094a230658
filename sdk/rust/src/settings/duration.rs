//! Durations as people write them: `250ms`, `10s`, `5m`, `1h`.
//!
//! For serde: `#[serde(with = "ninefold::settings::duration")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write a whole number and ms, s, m or h, such as 250ms or 10s")]
pub struct Malformed(pub String);

/// Reads a duration.
///
/// # Errors
/// [`Malformed`] for anything but a whole number followed by `ms`, `s`, `m` or `h`, and for what does not fit.
pub fn parse(text: &str) -> Result<Duration, Malformed> {
    let malformed = || Malformed(text.to_owned());
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(malformed)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| malformed())?;
    let scaled = |seconds: u64| number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(malformed);
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => scaled(1),
        "m" => scaled(60),
        "h" => scaled(3600),
        _ => Err(malformed()),
    }
}

/// Writes a duration so that [`parse`] reads it again; parts of a millisecond are cut off.
pub fn format(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (seconds, 0) if seconds >= 3600 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (seconds, 0) if seconds >= 60 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// Reads a duration, for serde.
///
/// # Errors
/// As [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

/// Writes a duration, for serde.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["0s", "250ms", "10s", "5m", "2h", "90s"] {
            let duration = parse(text).unwrap();
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "10", "s", "-1s", "1.5s", "10 s", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse(text), Err(Malformed(text.to_owned())));
        }
    }
}
