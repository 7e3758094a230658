//! What differs between two JSON values, by place. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

/// Most bytes of all differences; beyond them the whole is told as one.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Where, as a JSON Pointer (RFC 6901); empty for the whole.
    pub(crate) path: String,
    /// JSON before; `None` where there was nothing.
    pub(crate) before: Option<String>,
    /// JSON after; `None` where there is nothing.
    pub(crate) after: Option<String>,
}

/// Finds what differs, in the order of paths: names by their letters, places of a list by their number. Lists are
/// compared place by place. A value of another kind is one change, however much is in it.
pub(crate) fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut differences = Differences { changes: Vec::new(), bytes: 0 };
    differences.between(&mut String::new(), Some(before), Some(after));
    if differences.bytes > BYTES_MAX {
        return vec![change(String::new(), Some(before), Some(after))];
    }
    differences.changes
}

struct Differences {
    changes: Vec<Change>,
    bytes: usize,
}

impl Differences {
    /// As deep as the parser let the values be, which is 128.
    fn between(&mut self, path: &mut String, before: Option<&Value>, after: Option<&Value>) {
        match (before, after) {
            _ if before == after || self.bytes > BYTES_MAX => {}
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for name in names {
                    let end = path.len();
                    path.push('/');
                    path.push_str(&name.replace('~', "~0").replace('/', "~1"));
                    self.between(path, before.get(name), after.get(name));
                    path.truncate(end);
                }
            }
            (Some(Value::Array(before)), Some(Value::Array(after))) => {
                for place in 0..before.len().max(after.len()) {
                    let end = path.len();
                    write!(path, "/{place}").expect("writing to a string cannot fail");
                    self.between(path, before.get(place), after.get(place));
                    path.truncate(end);
                }
            }
            (before, after) => {
                let change = change(path.clone(), before, after);
                self.bytes += [Some(&change.path), change.before.as_ref(), change.after.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(|text| text.len() + 16)
                    .sum::<usize>();
                self.changes.push(change);
            }
        }
    }
}

fn change(path: String, before: Option<&Value>, after: Option<&Value>) -> Change {
    Change { path, before: before.map(Value::to_string), after: after.map(Value::to_string) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told(before: &Value, after: &Value) -> Vec<String> {
        let text = |change: Change| {
            let side = |side: Option<String>| side.unwrap_or_else(|| "-".to_owned());
            format!("{}: {} > {}", change.path, side(change.before), side(change.after))
        };
        changes(before, after).into_iter().map(text).collect()
    }

    #[test]
    fn each_difference_is_told_where_it_is() {
        for (before, after, expected) in [
            (json!({"a": 1}), json!({"a": 1}), vec![]),
            (json!({"b": 1, "a": 1}), json!({"b": 2, "c": null}), vec!["/a: 1 > -", "/b: 1 > 2", "/c: - > null"]),
            (json!({"a": {"b": {"c": 1}}}), json!({"a": {"b": {"c": "1"}}}), vec!["/a/b/c: 1 > \"1\""]),
            (json!({"a": {"b": 1}}), json!({"a": [1]}), vec!["/a: {\"b\":1} > [1]"]),
            (json!({"l": [1, 2, 3]}), json!({"l": [1, 5]}), vec!["/l/1: 2 > 5", "/l/2: 3 > -"]),
            (json!({"l": [{"x": 1}]}), json!({"l": [{"x": 2}, 7]}), vec!["/l/0/x: 1 > 2", "/l/1: - > 7"]),
            (json!({"a/b": 1, "m~n": 1, "": 1}), json!({}), vec!["/: 1 > -", "/a~1b: 1 > -", "/m~0n: 1 > -"]),
        ] {
            assert_eq!(told(&before, &after), expected);
        }
    }

    #[test]
    fn too_many_differences_are_told_as_one() {
        let long = "n".repeat(60_000);
        let object = |value: i32| -> Value {
            let inner: serde_json::Map<_, _> = (0..50).map(|place| (place.to_string(), json!(value))).collect();
            json!({ long.as_str(): inner })
        };
        let changes = changes(&object(1), &object(2));
        assert_eq!((changes.len(), changes[0].path.as_str()), (1, ""));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), (0..3).prop_map(Into::into), "[a/~]{0,2}".prop_map(Into::into)];
        leaf.prop_recursive(4, 30, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[ab/~]{0,2}", inner, 0..4)
                    .prop_map(|fields| fields.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_path_leads_to_what_is_told_of_it(before in value(), after in value()) {
            let changes = changes(&before, &after);
            prop_assert_eq!(changes.is_empty(), before == after);
            for change in changes {
                prop_assert_eq!(before.pointer(&change.path).map(Value::to_string), change.before);
                prop_assert_eq!(after.pointer(&change.path).map(Value::to_string), change.after);
            }
        }
    }
}
