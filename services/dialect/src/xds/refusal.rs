//! What a client refused, read out of its own words. Pure.

use std::time::SystemTime;

/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 512;

/// A resource that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// When.
    pub(crate) time: SystemTime,
    /// Id of the client, or "validator".
    pub(crate) by: String,
    /// Word for the type.
    pub(crate) of: &'static str,
    /// The resource, or empty.
    pub(crate) name: String,
    /// The field, or empty.
    pub(crate) field: String,
    /// Why.
    pub(crate) reason: String,
    /// Version that was refused.
    pub(crate) version: String,
}

/// Cuts a text of a stranger to what is kept of it.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

/// The field that a refusal names: gRPC writes `field:api_listener.http_filters error:…`, Envoy
/// `ClusterValidationError.ConnectTimeout: …`, both possibly nested; the innermost is meant.
pub(crate) fn field_of(message: &str) -> String {
    let ends = |letter: char| letter.is_whitespace() || matches!(letter, ']' | ',' | ';' | '"' | ')');
    if let Some((_, rest)) = message.rsplit_once("field:") {
        return rest.split(ends).next().unwrap_or_default().trim_start_matches('.').to_owned();
    }
    if let Some((_, rest)) = message.rsplit_once("ValidationError.") {
        let name = rest.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default();
        return snake(name);
    }
    String::new()
}

fn snake(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// The resource that a refusal means: the longest of those sent whose name stands in it as a word.
pub(crate) fn name_of<'n>(message: &str, sent: impl Iterator<Item = &'n str>) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let stands_in = |name: &&str| {
        message.match_indices(name).any(|(at, found)| {
            let before = message[..at].chars().next_back();
            let after = message[at + found.len()..].chars().next();
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    };
    sent.filter(stands_in).max_by_key(|name| name.len()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offending_field_is_read_out_of_what_grpc_and_envoy_say() {
        for (message, field) in [
            (
                "INVALID_ARGUMENT: errors validating ApiListener: [field:api_listener.api_listener.value[HttpConnectionManager].http_filters error:expected at least one HTTP filter]",
                "api_listener.api_listener.value[HttpConnectionManager",
            ),
            ("errors validating Cluster: [field:lb_policy error:LB policy is not supported]", "lb_policy"),
            (
                "Proto constraint validation failed (ClusterValidationError.ConnectTimeout: value must be > 0)",
                "connect_timeout",
            ),
            ("xDS response validation errors: [resource index 0: pump]", ""),
        ] {
            assert!(field_of(message).starts_with(field), "{message}: {}", field_of(message));
        }
    }

    #[test]
    fn the_resource_is_the_longest_name_that_stands_in_the_message() {
        let sent = ["pump", "pump-old", "valve"];
        assert_eq!(name_of("cluster pump-old: bad", sent.into_iter()), "pump-old");
        assert_eq!(name_of("[pump: bad]", sent.into_iter()), "pump");
        assert_eq!(name_of("pumps are bad", sent.into_iter()), "");
    }
}
