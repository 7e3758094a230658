//! Lines around others: what the same instance said just before and just after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::Error;
use crate::model::{Kept, LineFilter};
use crate::tier::{Limit, LineCursor, Tier};

/// Most lines on either side of one.
pub(crate) const LINES_MAX: usize = 100;
/// Most lines around all of an answer.
const ALL_MAX: usize = 5000;
/// Most bytes of them; an answer stays below what clients of gRPC take.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// Finds so many lines before and after each of an answer, newest first, each once, and none that is in the answer.
///
/// # Errors
/// Those of [`Tier::search_lines`].
pub(crate) async fn around(tier: &dyn Tier, answer: &[Arc<Kept>], lines: usize) -> Result<Vec<Arc<Kept>>, Error> {
    let lines = lines.min(LINES_MAX);
    let mut found: BTreeMap<Place, Arc<Kept>> = BTreeMap::new();
    if lines == 0 {
        return Ok(Vec::new());
    }
    let limit = Limit { records_max: lines, bytes_max: BYTES_MAX };
    let mut bytes = 0;
    for kept in answer {
        let at = LineCursor { time: kept.line.time, sequence: kept.sequence };
        let instance = &kept.line.origin.instance_id;
        let filter = LineFilter {
            service: Some(kept.line.origin.service.clone()),
            instance_id: Some(instance.clone()).filter(|id| !id.is_empty()),
            ..LineFilter::default()
        };
        let before = tier.search_lines(&filter, Some(at), limit).await?.records;
        let after = tier.lines_after(&filter, at, limit).await?;
        for near in before.into_iter().chain(after) {
            let at = place(&near);
            bytes += near.line.bytes();
            if found.len() >= ALL_MAX || bytes > BYTES_MAX {
                return Ok(newest_first(found, answer));
            }
            found.insert(at, near);
        }
    }
    Ok(newest_first(found, answer))
}

/// Where a line is. Several nodes may give the same number to lines of different instances.
type Place = (LineCursor, String, String);

fn place(kept: &Kept) -> Place {
    let origin = &kept.line.origin;
    let at = LineCursor { time: kept.line.time, sequence: kept.sequence };
    (at, origin.service.clone(), origin.instance_id.clone())
}

fn newest_first(found: BTreeMap<Place, Arc<Kept>>, answer: &[Arc<Kept>]) -> Vec<Arc<Kept>> {
    let answered: BTreeSet<Place> = answer.iter().map(|kept| place(kept)).collect();
    let is_answered = |kept: &Arc<Kept>| answered.contains(&place(kept));
    found.into_values().rev().filter(|kept| !is_answered(kept)).collect()
}
