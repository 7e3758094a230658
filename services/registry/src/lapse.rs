//! What becomes of instances whose lease ran out, with their node or without it. Nobody said that they left: like any
//! silence it is doubted when there is too much of it, and so they stay, as suspect, until it is clear.
//!
//! Each node decides for its own table: the store knows them no more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ninefold::lifecycle::Stop;
use tokio::time::Instant;

use crate::model::InstanceKey;
use crate::preserve::Verdict;
use crate::session::Hub;
use crate::table::News;

/// How often it is looked who may go.
const LOOK: Duration = Duration::from_millis(200);

/// What is known of one whose lease ran out.
struct Lapsed {
    since: Instant,
    is_kept: bool,
}

/// Takes out of the table those whose lease ran out, after their grace time and unless their silence is doubted, until asked
/// to stop.
pub(crate) async fn sweep(hub: Arc<Hub>, stop: Stop) {
    let mut known: HashMap<InstanceKey, Lapsed> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let lapsed = hub.view.table().lapsed().clone();
        known.retain(|key, _| lapsed.contains(key));
        let now = Instant::now();
        let mut news = Vec::new();
        for key in lapsed {
            let one = known.entry(key.clone()).or_insert(Lapsed { since: now, is_kept: false });
            if now - one.since < hub.config.grace {
                continue;
            }
            match hub.judge(&key.service) {
                Verdict::Remove => news.push(News::GivenUp(key)),
                Verdict::Keep { .. } if !std::mem::replace(&mut one.is_kept, true) => {
                    let reason = "kept, because too many fell silent at once; its lease ran out".to_owned();
                    news.push(News::Doubted(key, reason));
                }
                Verdict::Keep { .. } => {}
            }
        }
        if !news.is_empty() {
            hub.take(news);
        }
    }
}
