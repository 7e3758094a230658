//! Ranges of numbers that must not shrink. Pure.

/// Most that a field's number can be.
const MESSAGE_MOST: i64 = (1 << 29) - 1;
/// Most that the number of an extension of a message set can be.
const MESSAGE_SET_MOST: i64 = i32::MAX as i64 - 1;
/// Most that the number of an enum's value can be.
const ENUM_MOST: i64 = i32::MAX as i64;

/// What has ranges.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Message,
    MessageSet,
    Enum,
}

impl Owner {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Message | Self::MessageSet => "message",
            Self::Enum => "enum",
        }
    }

    fn most(self) -> i64 {
        match self {
            Self::Message => MESSAGE_MOST,
            Self::MessageSet => MESSAGE_SET_MOST,
            Self::Enum => ENUM_MOST,
        }
    }

    fn show(self, (start, end): (i64, i64)) -> String {
        match end {
            end if start == end => format!("[{start}]"),
            end if end == self.most() => format!("[{start},max]"),
            end => format!("[{start},{end}]"),
        }
    }

    /// A range as it is written in a `.proto` file.
    fn write(self, (start, end): (i64, i64)) -> String {
        match end {
            end if start == end => format!("{start}"),
            end if end == self.most() => format!("{start} to max"),
            end => format!("{start} to {end}"),
        }
    }
}

/// An old range that is not all there any more.
pub(super) struct Loss {
    /// The old range.
    pub(super) range: String,
    /// What of it is gone.
    pub(super) gone: String,
    /// What is gone, as it would be written.
    pub(super) written: String,
}

/// The old ranges of which something is gone.
pub(super) fn losses(owner: Owner, old: &[(i32, i32)], new: &[(i32, i32)]) -> Vec<Loss> {
    let new = merged(new);
    let mut losses = Vec::new();
    for (start, end) in old {
        let range = (i64::from(*start), i64::from(*end));
        let gone = missing(range, &new);
        if !gone.is_empty() {
            let show = |write: fn(Owner, (i64, i64)) -> String| {
                gone.iter().map(|range| write(owner, *range)).collect::<Vec<_>>().join(", ")
            };
            losses.push(Loss { range: owner.show(range), gone: show(Owner::show), written: show(Owner::write) });
        }
    }
    losses
}

/// Whether a number is in one of some ranges, which [`merged`] has sorted.
pub(super) fn holds(merged: &[(i64, i64)], number: i32) -> bool {
    let number = i64::from(number);
    let after = merged.partition_point(|(start, _)| *start <= number);
    after.checked_sub(1).and_then(|place| merged.get(place)).is_some_and(|(_, end)| number <= *end)
}

/// Sorted, with neighbours made one.
pub(super) fn merged(ranges: &[(i32, i32)]) -> Vec<(i64, i64)> {
    let mut sorted: Vec<(i64, i64)> = ranges.iter().map(|(start, end)| (i64::from(*start), i64::from(*end))).collect();
    sorted.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::new();
    for (start, end) in sorted {
        match merged.last_mut() {
            Some((_, last)) if start <= *last + 1 => *last = (*last).max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// What of a range is in none of the others, which are sorted and apart.
fn missing((start, end): (i64, i64), others: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut gone = Vec::new();
    let mut from = start;
    for (other_start, other_end) in others.iter().filter(|(_, other_end)| *other_end >= start) {
        if from > end || *other_start > end {
            break;
        }
        if from < *other_start {
            gone.push((from, other_start - 1));
        }
        from = from.max(other_end + 1);
    }
    if from <= end {
        gone.push((from, end));
    }
    gone
}
