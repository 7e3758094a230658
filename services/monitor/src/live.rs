//! What of the monitor may change while it runs: the document `monitor` of central configuration, over the settings.

use std::sync::Arc;

use ninefold::Link;
use ninefold::config::follow_document;
use ninefold::lifecycle::{Scope, Stop};
use serde::Deserialize;

use crate::config::Config;
use crate::intake::Intake;
use crate::mask::{self, Masks};
use crate::{parse, shares};

/// Name of the document.
const DOCUMENT: &str = "monitor";
/// Environment of the document.
const ENVIRONMENT: &str = "default";

/// The document. What it leaves out is as the settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Document {
    mask: Option<mask::Config>,
    lines: Option<parse::Config>,
    limits: Option<shares::Config>,
}

/// What holds now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// What is masked.
    pub(crate) masks: Masks,
    /// How printed lines are read.
    pub(crate) lines: parse::Config,
    /// Who may send how much.
    pub(crate) limits: shares::Config,
}

impl Rules {
    /// What the settings say.
    pub(crate) fn of(config: &Config) -> Self {
        Self { masks: Masks::new(config.mask.clone()), lines: config.lines.clone(), limits: config.limits.clone() }
    }

    fn over(config: &Config, document: Document) -> Self {
        Self {
            masks: Masks::new(document.mask.unwrap_or_else(|| config.mask.clone())),
            lines: document.lines.unwrap_or_else(|| config.lines.clone()),
            limits: document.limits.unwrap_or_else(|| config.limits.clone()),
        }
    }
}

/// Reads a document.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(content: &str) -> Result<Document, String> {
    let document: Document = serde_json::from_str(content).map_err(|error| error.to_string())?;
    let mut wrong = document.mask.as_ref().map(mask::Config::mistakes).unwrap_or_default();
    wrong.extend(document.lines.as_ref().map(parse::Config::mistakes).unwrap_or_default());
    if wrong.is_empty() { Ok(document) } else { Err(wrong.join("; ")) }
}

/// Follows the document. The monitor is made before the platform can be asked, so the first answer may take a moment;
/// until then the settings hold.
pub(crate) async fn follow(
    platform: Link,
    node: String,
    config: Config,
    intake: Arc<Intake>,
    scope: Scope,
    stop: Stop,
) {
    let read = {
        let config = config.clone();
        move |document: &ninefold_proto::ninefold::config::v1::Document| {
            read(&document.content).map(|document| Rules::over(&config, document))
        }
    };
    let following = follow_document(DOCUMENT, ENVIRONMENT, &node, platform, &scope, read, Rules::of(&config));
    let mut live = tokio::select! {
        live = following => live,
        () = stop.asked() => return,
    };
    let mut now = live.get();
    loop {
        intake.follow(now);
        now = tokio::select! {
            changed = live.changed() => changed,
            () = stop.asked() => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_what_differs_and_is_refused_as_a_whole() {
        let document = read(r#"{"limits":{"bytes_per_second":5}}"#).unwrap();
        let rules = Rules::over(&Config::default(), document);
        assert_eq!((rules.limits.bytes_per_second, rules.masks.are_none()), (5, false));
        for (text, wrong) in [
            (r#"{"mask":{"rules":{"a":{"pattern":"("}}}}"#, "is no pattern"),
            (r#"{"lines":{"formats":{"a":"x"}}}"#, "no named group"),
            (r#"{"colour":1}"#, "unknown field"),
        ] {
            assert!(read(text).unwrap_err().contains(wrong), "{text}");
        }
    }
}
