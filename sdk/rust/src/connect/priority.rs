//! How much a call matters when not all can be answered, carried from call to call.
//!
//! On the wire it is the header `x-ninefold-priority`. A server sets the priority of the call it works on with [`scope`];
//! every channel called inside takes it over, so what serves a checkout is not refused in favour of a report. The edge
//! takes the header from nobody.

use std::future::Future;

use http::{HeaderMap, HeaderValue};

/// The header that carries the priority. Absent for [`Priority::Default`].
pub const HEADER: &str = "x-ninefold-priority";

/// How much a call matters when not all can be answered. A request extension of calls, too.
///
/// A call takes the priority of its request extension, else of its header, else of the call around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Refused last: somebody is waiting, and would notice.
    Critical,
    /// As most calls.
    #[default]
    Default,
    /// Refused first: it can be made later, or not at all.
    Sheddable,
}

impl Priority {
    /// All of them, the most important first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Default, Self::Sheddable];

    /// Its name on the wire and in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
        }
    }

    /// Its place among [`Priority::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Critical => 0,
            Self::Default => 1,
            Self::Sheddable => 2,
        }
    }
}

tokio::task_local! {
    static PRIORITY: Priority;
}

/// Runs `work` with a priority that the calls it makes take over.
pub async fn scope<F: Future>(priority: Priority, work: F) -> F::Output {
    PRIORITY.scope(priority, work).await
}

/// Runs a synchronous part of some work, such as polling a stream, with a priority, as [`scope`] does.
pub(crate) fn sync_scope<T>(priority: Priority, work: impl FnOnce() -> T) -> T {
    PRIORITY.sync_scope(priority, work)
}

/// The priority of the work around the caller, if it has one.
pub fn current() -> Option<Priority> {
    PRIORITY.try_with(|priority| *priority).ok()
}

/// The priority that headers carry. `None` where they carry none, or a word of a newer version.
pub fn of(headers: &HeaderMap) -> Option<Priority> {
    let value = headers.get(HEADER)?;
    Priority::ALL.into_iter().find(|priority| value.as_bytes() == priority.as_str().as_bytes())
}

/// Writes a priority into the headers of a call.
pub(crate) fn write(headers: &mut HeaderMap, priority: Priority) {
    match priority {
        Priority::Default => drop(headers.remove(HEADER)),
        other => drop(headers.insert(HEADER, HeaderValue::from_static(other.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_survives_the_wire() {
        for priority in Priority::ALL {
            let mut headers = HeaderMap::new();
            write(&mut headers, priority);
            assert_eq!(of(&headers).unwrap_or_default(), priority);
        }
        let strange =
            HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), HeaderValue::from_static("urgent"))]);
        assert_eq!(of(&strange), None);
    }
}
