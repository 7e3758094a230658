//! The nouns of central configuration, and what of them is legal. Pure.

use std::fmt;
use std::time::SystemTime;

use ninefold::fault::Violation;
use serde::{Deserialize, Serialize};

/// Longest content. The store's limit for a value is 1 MiB, of which the rest of a revision needs its part.
pub(crate) const CONTENT_BYTES_MAX: usize = 1_000_000;
/// Longest name of a service or an environment: that of a DNS label.
const NAME_CHARS_MAX: usize = 63;
/// Longest id of an instance.
const INSTANCE_ID_CHARS_MAX: usize = 128;
/// Longest author.
const AUTHOR_BYTES_MAX: usize = 256;
/// Longest reason of a revision.
const REASON_BYTES_MAX: usize = 4096;
/// What an empty environment is read as.
const ENVIRONMENT_DEFAULT: &str = "default";

/// Names a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId {
    service: String,
    environment: String,
}

impl DocumentId {
    /// Takes names of lowercase letters, digits and hyphens, 1 to 63 of them; an empty environment is "default".
    ///
    /// # Errors
    /// What is wrong with which name.
    pub(crate) fn parse(service: &str, environment: &str) -> Result<Self, Vec<Violation>> {
        let environment = if environment.is_empty() { ENVIRONMENT_DEFAULT } else { environment };
        let problem = "must be 1 to 63 lowercase letters, digits and hyphens";
        let violations: Vec<_> = [("service", service), ("environment", environment)]
            .into_iter()
            .filter(|(_, name)| !is_name(name))
            .map(|(field, _)| Violation::new(field, problem))
            .collect();
        if !violations.is_empty() {
            return Err(violations);
        }
        Ok(Self { service: service.to_owned(), environment: environment.to_owned() })
    }

    /// Name of the service.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// Name of the environment.
    pub(crate) fn environment(&self) -> &str {
        &self.environment
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.service, self.environment)
    }
}

/// Whether a text can name a service or an environment.
pub(crate) fn is_name(text: &str) -> bool {
    let is_legal = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_legal)
}

/// Whether a text can be the id of an instance, as the registry has it.
pub(crate) fn is_instance_id(text: &str) -> bool {
    let is_legal = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'.' | b'_' | b':' | b'-');
    (1..=INSTANCE_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_legal)
}

/// Which revisions of a document there are, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Head {
    /// The oldest that is kept.
    pub(crate) first: i64,
    /// The newest.
    pub(crate) newest: i64,
}

impl Head {
    /// Whether a revision is kept.
    pub(crate) fn holds(self, revision: i64) -> bool {
        (self.first..=self.newest).contains(&revision)
    }
}

/// A revision of a document. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Its number, from 1.
    pub(crate) number: i64,
    /// The content: a JSON object.
    pub(crate) content: String,
    /// When it was written.
    pub(crate) time: SystemTime,
    /// Who wrote it, as the writer says.
    pub(crate) author: String,
    /// Why it was written.
    pub(crate) reason: String,
    /// The revision that it brings back.
    pub(crate) rollback_of: Option<i64>,
}

/// A document: its name and a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// Its name.
    pub(crate) id: DocumentId,
    /// The revision.
    pub(crate) revision: Revision,
}

/// Who writes, why, and what the writer knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Write {
    /// Newest revision that the writer knows; 0 for none. `None` to write over whatever is there.
    pub(crate) expected: Option<i64>,
    /// Who.
    pub(crate) author: String,
    /// Why.
    pub(crate) reason: String,
}

impl Write {
    /// All that is wrong with it.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        [("author", &self.author, AUTHOR_BYTES_MAX), ("reason", &self.reason, REASON_BYTES_MAX)]
            .into_iter()
            .filter(|(_, text, bytes_max)| text.len() > *bytes_max)
            .map(|(field, _, bytes_max)| Violation::new(field, format!("must be at most {bytes_max} bytes")))
            .collect()
    }
}

/// All that is wrong with a content; empty where it is one JSON object.
pub(crate) fn content_violations(content: &str) -> Vec<Violation> {
    let problem = if content.len() > CONTENT_BYTES_MAX {
        Some(format!("must be at most {CONTENT_BYTES_MAX} bytes, not {}", content.len()))
    } else {
        match serde_json::from_str::<serde_json::Value>(content) {
            Ok(serde_json::Value::Object(_)) => None,
            Ok(_) => Some("must be a JSON object".to_owned()),
            Err(error) => Some(format!("must be a JSON object: {error}")),
        }
    };
    problem.into_iter().map(|problem| Violation::new("content", problem)).collect()
}

/// What an instance runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    /// Which document.
    pub(crate) id: DocumentId,
    /// Which instance.
    pub(crate) instance_id: String,
    /// The revision that was offered to it.
    pub(crate) revision: i64,
    /// Why the instance refused it; empty where it runs with it.
    pub(crate) refusal: String,
    /// When it said so.
    pub(crate) time: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_dns_labels() {
        assert_eq!(DocumentId::parse("shop-1", "").unwrap().to_string(), "shop-1/default");
        for (service, environment, wrong) in
            [("", "", 1), ("Shop", "", 1), ("a/b", "x.y", 2), (&"a".repeat(64), "", 1), ("ü", "prod", 1)]
        {
            assert_eq!(DocumentId::parse(service, environment).unwrap_err().len(), wrong, "{service} {environment}");
        }
    }

    #[test]
    fn a_content_is_one_json_object() {
        for content in ["{}", " {\"a\": [1, null]}\n"] {
            assert!(content_violations(content).is_empty(), "{content}");
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(CONTENT_BYTES_MAX));
        let deep = "{\"a\":".repeat(1000);
        for content in ["", "[]", "3", "{} {}", "{\"a\":}", "{'a':1}", &large, &deep] {
            assert_eq!(content_violations(content).len(), 1);
        }
    }
}
