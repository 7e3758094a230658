//! Settings of the store.

use std::path::PathBuf;

use ninefold::fault::Violation;
use serde::{Deserialize, Serialize};

/// Where the store keeps its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In a folder of this machine, for one process.
    #[default]
    Embedded,
    /// In etcd, shared by all nodes that use it.
    Etcd,
}

/// Settings of the store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which backend keeps the data.
    pub backend: Backend,
    /// Folder of the embedded backend; made if it is not there. One process at a time may use it.
    pub path: PathBuf,
    /// URLs of etcd's members, such as `http://10.0.0.1:2379`. They are tried in turn.
    pub etcd: Vec<String>,
    /// What all keys in etcd begin with, so that several landscapes can share one etcd. Begins and ends with a slash.
    pub prefix: String,
    /// Most revisions that the embedded backend keeps for watches that resume.
    pub history_revisions_max: u64,
    /// Most bytes of changes that the embedded backend keeps for watches that resume.
    pub history_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Embedded,
            path: PathBuf::from("ninefold-data/store"),
            etcd: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: "/ninefold/".to_owned(),
            history_revisions_max: 10_000,
            history_bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl Config {
    /// Finds everything that is wrong with the settings; empty when they can be used.
    pub fn mistakes(&self) -> Vec<Violation> {
        match self.backend {
            Backend::Embedded => self.embedded_mistakes(),
            Backend::Etcd => self.etcd_mistakes(),
        }
    }

    fn embedded_mistakes(&self) -> Vec<Violation> {
        let mut mistakes = Vec::new();
        if self.path.as_os_str().is_empty() {
            mistakes.push(Violation::new("path", "is empty: name a folder for the data"));
        }
        if self.history_revisions_max == 0 {
            mistakes.push(Violation::new("history_revisions_max", "is 0: keep at least 1 revision"));
        }
        if self.history_bytes_max == 0 {
            mistakes.push(Violation::new("history_bytes_max", "is 0: keep at least 1 byte"));
        }
        mistakes
    }

    fn etcd_mistakes(&self) -> Vec<Violation> {
        let mut mistakes = Vec::new();
        if self.etcd.is_empty() {
            mistakes.push(Violation::new("etcd", "is empty: name at least one URL, such as http://127.0.0.1:2379"));
        }
        for (index, url) in self.etcd.iter().enumerate() {
            if let Some(why) = url_mistake(url) {
                mistakes.push(Violation::new(format!("etcd[{index}]"), format!("{url:?} {why}")));
            }
        }
        if !(self.prefix.starts_with('/') && self.prefix.ends_with('/')) {
            let why = format!("{:?} must begin and end with a slash, such as /ninefold/", self.prefix);
            mistakes.push(Violation::new("prefix", why));
        }
        mistakes
    }
}

/// What is wrong with the URL of a member.
fn url_mistake(url: &str) -> Option<&'static str> {
    const EXPECTED: &str = "is not a URL of etcd: write http://HOST:PORT";
    let Ok(uri) = url.parse::<tonic::transport::Uri>() else { return Some(EXPECTED) };
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) && uri.path() == "/" => None,
        Some("https") => Some("asks for TLS, which the store does not speak to etcd yet: write http://HOST:PORT"),
        Some(_) | None => Some(EXPECTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(config: &Config) -> Vec<String> {
        config.mistakes().into_iter().map(|mistake| mistake.field).collect()
    }

    #[test]
    fn the_defaults_of_both_backends_are_sound() {
        assert!(fields(&Config::default()).is_empty());
        assert!(fields(&Config { backend: Backend::Etcd, ..Config::default() }).is_empty());
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let config = Config {
            backend: Backend::Etcd,
            etcd: vec!["http://a:2379".into(), "a:2379".into(), "https://a:2379".into(), "http://".into()],
            prefix: "ninefold".into(),
            ..Config::default()
        };
        assert_eq!(fields(&config), ["etcd[1]", "etcd[2]", "etcd[3]", "prefix"]);
        let config = Config { path: PathBuf::new(), history_revisions_max: 0, ..Config::default() };
        assert_eq!(fields(&config), ["path", "history_revisions_max"]);
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"backend": "etcd"}"#).is_ok());
        assert!(serde_json::from_str::<Config>(r#"{"backand": "etcd"}"#).is_err());
    }
}
