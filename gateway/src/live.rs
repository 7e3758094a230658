//! Settings that change while the edge works: the document `edge` of central configuration, over what the node was told.
//!
//! A document is read whole and made into a whole new edge, which is swapped in; requests under way keep the one that they
//! began with. One with mistakes changes nothing: all of them are told to whoever wrote it, and to the registry's events.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ninefold::Link;
use ninefold::config::follow_document;
use ninefold::fault;
use ninefold::lifecycle::{Scope, Stop};
use ninefold_proto::ninefold::config::v1::Document;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::edge::Edge;
use crate::error::Error;
use crate::{CALLER, Notice, Noticed, Witness};

/// Environment of the document.
const ENVIRONMENT: &str = "default";
/// Settings that name parts of their own, each of which is tried by itself.
const NESTED: [&str; 1] = ["traffic"];

/// Reads a document over the settings that the node was started with: what it says holds, what it sets to null is as it is
/// by default, what it leaves out is as the node was told.
///
/// # Errors
/// [`Error::SettingsInvalid`] with all that is wrong.
pub(crate) fn overlay(base: &Config, content: &str) -> Result<Config, Error> {
    let document: Value =
        serde_json::from_str(content).map_err(|error| Error::SettingsInvalid(vec![error.to_string()]))?;
    let Value::Object(document) = document else {
        return Err(Error::SettingsInvalid(vec!["it is not a JSON object".to_owned()]));
    };
    let Ok(Value::Object(mut merged)) = serde_json::to_value(base) else {
        return Err(Error::SettingsInvalid(vec!["the node's own settings cannot be written".to_owned()]));
    };
    let mut wrong = Vec::new();
    for (key, value) in document {
        let place = merged.entry(key.clone()).or_insert(Value::Null);
        merge(place, value);
        if place.is_null() {
            merged.remove(&key);
            continue;
        }
        wrong.extend(mistakes(&key, &merged[&key]));
    }
    if !wrong.is_empty() {
        return Err(Error::SettingsInvalid(wrong));
    }
    let config: Config = serde_json::from_value(Value::Object(merged))
        .map_err(|error| Error::SettingsInvalid(vec![error.to_string()]))?;
    config.check()?;
    Ok(config)
}

/// As RFC 7396 (JSON Merge Patch) says.
fn merge(place: &mut Value, value: Value) {
    let Value::Object(value) = value else {
        *place = value;
        return;
    };
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    let place = place.as_object_mut().expect("made one if it was none");
    for (key, value) in value {
        if value.is_null() {
            place.remove(&key);
        } else {
            merge(place.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// What is wrong with one setting. Each part of it is tried by itself, so that one mistake does not hide the next.
fn mistakes(key: &str, value: &Value) -> Vec<String> {
    let alone = |value: Value| {
        let whole = Value::Object(Map::from_iter([(key.to_owned(), value)]));
        let read: Result<Config, _> = serde_path_to_error::deserialize(whole);
        read.err().map(|error| format!("{}: {}", error.path(), error.inner()))
    };
    match value.as_object().filter(|_| NESTED.contains(&key)) {
        Some(parts) => {
            let one = |(name, value): (&String, &Value)| {
                alone(Value::Object(Map::from_iter([(name.clone(), value.clone())])))
            };
            parts.iter().filter_map(one).collect()
        }
        None => alone(value.clone()).into_iter().collect(),
    }
}

/// What the follower needs.
pub(crate) struct Follower {
    pub(crate) edge: Arc<ArcSwap<Edge>>,
    pub(crate) base: Config,
    pub(crate) config: Link,
    pub(crate) node: String,
    pub(crate) witness: Arc<dyn Witness>,
}

impl Follower {
    /// Follows until it is asked to stop; says through `first` when it has heard for the first time, or given up to.
    pub(crate) async fn run(self, scope: Scope, first: oneshot::Sender<()>, stop: Stop) {
        let Self { edge, base, config, node, witness } = self;
        let tell = {
            let node = node.clone();
            move |noticed, reason| witness.note(Notice { noticed, reason, observer: node.clone() })
        };
        let read = {
            let (edge, tell) = (edge.clone(), tell.clone());
            move |document: &Document| {
                let renewed = overlay(&base, &document.content).and_then(|config| edge.load().renewed(config));
                let renewed = renewed.map_err(|error| match error {
                    Error::SettingsInvalid(wrong) => wrong.join("; "),
                    other => fault::chain(&other),
                });
                match renewed {
                    Ok(renewed) => Ok(Some((document.revision, Arc::new(renewed)))),
                    Err(why) => {
                        tell(Noticed::SettingsRefused, format!("revision {}: {why}", document.revision));
                        Err(why)
                    }
                }
            }
        };
        let following = follow_document(CALLER, ENVIRONMENT, &node, config, &scope, read, None);
        let mut live = tokio::select! {
            live = following => live,
            () = stop.asked() => return,
        };
        let mut now = live.get();
        let mut first = Some(first);
        loop {
            if let Some((revision, renewed)) = &*now {
                edge.store(renewed.clone());
                tracing::info!(revision, "settings of the edge changed");
                tell(Noticed::SettingsChanged, format!("revision {revision} holds"));
            }
            if let Some(first) = first.take() {
                // Who waited may have gone.
                let _ = first.send(());
            }
            now = tokio::select! {
                changed = live.changed() => changed,
                () = stop.asked() => return,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_document_lies_over_what_the_node_was_told() {
        let base = Config { headers_max: 50, streams_max: 7, ..Config::default() };
        let config = overlay(&base, r#"{"deadline": "2s", "streams_max": null, "traffic": {"a": {"timeout": "1s"}}}"#);
        let config = config.unwrap();
        assert_eq!((config.deadline, config.headers_max, config.streams_max), (Duration::from_secs(2), 50, 100));
        assert_eq!(config.traffic["a"].timeout, Some(Duration::from_secs(1)));
        assert_eq!(overlay(&base, "{}").unwrap(), base);
    }

    #[test]
    fn all_mistakes_of_a_document_are_told_at_once() {
        let content = r#"{"deadline": "soon", "colour": 1, "headers_max": -1,
            "traffic": {"a": {"timeout": 5}, "b": {"mirror": {"percent": "x"}}, "c": {"timeout": "0s"}}}"#;
        let Err(Error::SettingsInvalid(wrong)) = overlay(&Config::default(), content) else {
            panic!("it has mistakes")
        };
        for place in ["deadline", "colour", "headers_max", "traffic.a", "traffic.b"] {
            assert!(wrong.iter().any(|wrong| wrong.contains(place)), "{place} is not in {wrong:?}");
        }
        let content =
            r#"{"deadline": "0s", "traffic": {"c": {"timeout": "0s", "mirror": {}, "canaries": [{"to": {}}]}}}"#;
        let Err(Error::SettingsInvalid(wrong)) = overlay(&Config::default(), content) else {
            panic!("it has mistakes")
        };
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        assert!(overlay(&Config::default(), "[]").is_err() && overlay(&Config::default(), "{").is_err());
    }
}
