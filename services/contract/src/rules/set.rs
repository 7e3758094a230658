//! Which rules are asked for, and where they do not count. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Pair};
use super::{Category, all};
use crate::schema::{File, Schema};

/// How strictly a package is held to its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What would harm a running peer or a stored message is refused.
    Runtime,
    /// What would break generated code is refused as well.
    Strict,
    /// The rules of `runtime` are looked at, and only told.
    Warn,
    /// Nothing is looked at.
    Off,
}

impl Level {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Strict => "strict",
            Self::Warn => "warn",
            Self::Off => "off",
        }
    }

    /// The level of a name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Runtime, Self::Strict, Self::Warn, Self::Off].into_iter().find(|level| level.as_str() == name)
    }
}

/// A name that is no rule and no category.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rule and no category is named {0:?}")]
pub struct UnknownRule(pub String);

/// Which rules are asked for, and where they do not count.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    names: BTreeSet<&'static str>,
    packages: Option<BTreeSet<String>>,
    is_unstable_ignored: bool,
    ignored: Vec<String>,
    ignored_only: BTreeMap<&'static str, Vec<String>>,
}

impl RuleSet {
    /// The rules of a level.
    pub fn level(level: Level) -> Self {
        let names = all().iter().filter(|rule| match level {
            Level::Runtime | Level::Warn => rule.is_runtime,
            Level::Strict => rule.is_strict,
            Level::Off => false,
        });
        Self { names: names.map(|rule| rule.name).collect(), ..Self::default() }
    }

    /// The rules of a category of buf.
    pub fn category(category: Category) -> Self {
        let names = all().iter().filter(|rule| rule.categories.contains(&category));
        Self { names: names.map(|rule| rule.name).collect(), ..Self::default() }
    }

    /// The rules of some names, or categories, or levels.
    ///
    /// # Errors
    /// [`UnknownRule`] for a name that is none of them.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownRule> {
        let mut set = Self::default();
        for name in names {
            set.names.extend(resolve(name)?);
        }
        Ok(set)
    }

    /// Leaves out rules of some names, or categories.
    ///
    /// # Errors
    /// [`UnknownRule`] for a name that is none of them.
    pub fn without<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownRule> {
        for name in names {
            let gone = resolve(name)?;
            self.names.retain(|known| !gone.contains(known));
        }
        Ok(self)
    }

    /// Looks only at what is, or was, in some packages.
    #[must_use]
    pub fn in_packages(mut self, packages: impl IntoIterator<Item = String>) -> Self {
        self.packages = Some(packages.into_iter().collect());
        self
    }

    /// Passes over packages whose last part is an unstable version, such as `v1alpha1`, `v2beta1` or `v1test`.
    #[must_use]
    pub fn without_unstable(mut self) -> Self {
        self.is_unstable_ignored = true;
        self
    }

    /// Passes over a file, or all files below a folder.
    #[must_use]
    pub fn without_path(mut self, path: impl Into<String>) -> Self {
        self.ignored.push(path.into());
        self
    }

    /// Passes over a file, or all files below a folder, for a rule or for all rules of a category.
    ///
    /// # Errors
    /// [`UnknownRule`] for a name that is neither.
    pub fn without_path_for(mut self, name: &str, path: impl Into<String>) -> Result<Self, UnknownRule> {
        let path = path.into();
        for rule in resolve(name)? {
            self.ignored_only.entry(rule).or_default().push(path.clone());
        }
        Ok(self)
    }

    /// Whether a rule is asked for.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The names of the rules that are asked for, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied()
    }

    pub(super) fn ignores(&self, rule: &str, pair: &Pair<'_>, draft: &Draft) -> bool {
        let at = |schema: &'_ Schema, place: Option<usize>| place.map(|place| describe(schema.file_at(place)));
        let files: Vec<(String, String)> =
            [at(pair.new, draft.new_file), at(pair.old, draft.old_file)].into_iter().flatten().collect();
        if let Some(packages) = &self.packages
            && !files.iter().any(|(_, package)| packages.contains(package))
        {
            return true;
        }
        let only = self.ignored_only.get(rule).map(Vec::as_slice).unwrap_or_default();
        files.iter().any(|(name, package)| {
            (self.is_unstable_ignored && is_unstable(package))
                || self.ignored.iter().chain(only).any(|path| is_below(name, path))
        })
    }
}

fn describe(file: &File) -> (String, String) {
    (file.name.to_string(), file.package.to_string())
}

/// The rules that a name of a rule, a category or a level stands for. Old names of buf stand for what came after them.
fn resolve(name: &str) -> Result<BTreeSet<&'static str>, UnknownRule> {
    if let Some(category) = Category::ALL.into_iter().find(|category| category.as_str() == name) {
        return Ok(RuleSet::category(category).names);
    }
    if let Some(level) = Level::parse(name) {
        return Ok(RuleSet::level(level).names);
    }
    let successors: &[&str] = match name {
        "FIELD_SAME_CTYPE" => &["FIELD_SAME_CPP_STRING_TYPE"],
        "FIELD_SAME_LABEL" => {
            &["FIELD_SAME_CARDINALITY", "FIELD_WIRE_COMPATIBLE_CARDINALITY", "FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY"]
        }
        "FILE_SAME_JAVA_STRING_CHECK_UTF8" => &["FIELD_SAME_JAVA_UTF8_VALIDATION"],
        "FILE_SAME_PHP_GENERIC_SERVICES" | "MESSAGE_SAME_MESSAGE_SET_WIRE_FORMAT" => return Ok(BTreeSet::new()),
        _ => &[],
    };
    let names = all().iter().map(|rule| rule.name);
    let found: BTreeSet<&str> = names.filter(|rule| *rule == name || successors.contains(rule)).collect();
    if found.is_empty() { Err(UnknownRule(name.to_owned())) } else { Ok(found) }
}

fn is_below(file: &str, path: &str) -> bool {
    let path = path.trim_start_matches("./").trim_end_matches('/');
    path == "." || file == path || file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

/// A version at the end of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stability {
    /// `v1`.
    Stable,
    /// `v1alpha1`, `v1p1beta1`, `v1test`.
    Unstable,
}

/// The stability that the last part of a package says; `None` if it is no version.
pub(crate) fn stability(package: &str) -> Option<Stability> {
    let (_, last) = package.rsplit_once('.')?;
    let rest = positive(last.strip_prefix('v')?)?;
    if rest.is_empty() {
        return Some(Stability::Stable);
    }
    if let Some(words) = rest.strip_prefix("test") {
        let is_word = words.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        return is_word.then_some(Stability::Unstable);
    }
    let rest = match rest.strip_prefix('p') {
        Some(patch) => positive(patch)?,
        None => rest,
    };
    let minor = rest.strip_prefix("alpha").or_else(|| rest.strip_prefix("beta"))?;
    (minor.is_empty() || positive(minor) == Some("")).then_some(Stability::Unstable)
}

/// What follows a number of at least 1 that has no leading zero.
fn positive(text: &str) -> Option<&str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    (digits > 0 && number.parse::<u32>().is_ok_and(|number| number > 0)).then_some(rest)
}

fn is_unstable(package: &str) -> bool {
    stability(package) == Some(Stability::Unstable)
}
