//! The route table: which template does a request match? Pure.
//!
//! A tree over segments. A lookup goes the most literal way first (`literal`, then `*`, then `**`) and turns back where it
//! leads nowhere. It is as deep as the longest template, not as the request's path, and takes a bounded number of steps.

use std::collections::{BTreeSet, HashMap};

use crate::path::Path;
use crate::pattern::{Pattern, Segment};

/// Most nodes that one lookup visits. Templates of people need a few dozen; the bound is for templates made to harm.
const STEPS_MAX: u32 = 4096;

/// HTTP method of a template that takes every one.
pub(crate) const ANY_VERB: &str = "*";

/// Templates, each with an HTTP method and a value.
#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    root: Node,
    values: Vec<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { root: Node::default(), values: Vec::new() }
    }
}

#[derive(Clone, Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    any: Option<Box<Node>>,
    rest: Vec<Leaf>,
    leaves: Vec<Leaf>,
}

#[derive(Clone, Debug)]
struct Leaf {
    /// What follows the colon.
    custom: Option<String>,
    /// HTTP method.
    verb: String,
    value: usize,
}

/// What a lookup found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'t, T> {
    /// A template. The path is without the template's custom verb.
    Value {
        /// What was inserted.
        value: &'t T,
        /// The path to bind variables from.
        path: Path,
    },
    /// Templates match the path, but none has the HTTP method; these are there.
    OtherVerbs(BTreeSet<String>),
    /// Nothing.
    Nothing,
}

impl<T> Table<T> {
    /// Adds a template.
    ///
    /// # Errors
    /// The value that is there already, if one with the same HTTP method matches exactly the same paths.
    pub(crate) fn insert(&mut self, verb: &str, pattern: &Pattern, value: T) -> Result<(), &T> {
        let mut node = &mut self.root;
        let mut is_rest = false;
        for segment in pattern.segments() {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::Any => node = node.any.get_or_insert_default(),
                Segment::Rest => is_rest = true,
            }
        }
        let leaves = if is_rest { &mut node.rest } else { &mut node.leaves };
        let taken = leaves.iter().find(|leaf| leaf.verb == verb && leaf.custom.as_deref() == pattern.verb());
        if let Some(leaf) = taken {
            return Err(&self.values[leaf.value]);
        }
        leaves.push(Leaf {
            custom: pattern.verb().map(str::to_owned),
            verb: verb.to_owned(),
            value: self.values.len(),
        });
        self.values.push(value);
        Ok(())
    }

    /// Finds the template that a request matches. A template with a custom verb goes before one without.
    pub(crate) fn find(&self, verb: &str, path: Path) -> Found<'_, T> {
        let mut others = BTreeSet::new();
        if let Some((stem, custom)) = path.split_verb() {
            let mut search = Search { verb, custom: Some(&custom), steps: STEPS_MAX, others: &mut others };
            if let Some(value) = search.below(&self.root, stem.segments()) {
                return Found::Value { value: &self.values[value], path: stem };
            }
        }
        let mut search = Search { verb, custom: None, steps: STEPS_MAX, others: &mut others };
        match search.below(&self.root, path.segments()) {
            Some(value) => Found::Value { value: &self.values[value], path },
            None if others.is_empty() => Found::Nothing,
            None => Found::OtherVerbs(others),
        }
    }

    /// All values, in the order in which they were inserted.
    pub(crate) fn values(&self) -> &[T] {
        &self.values
    }
}

struct Search<'s> {
    verb: &'s str,
    custom: Option<&'s str>,
    steps: u32,
    others: &'s mut BTreeSet<String>,
}

impl Search<'_> {
    fn below(&mut self, node: &Node, segments: &[String]) -> Option<usize> {
        self.steps = self.steps.checked_sub(1)?;
        let found = match segments.split_first() {
            None => self.among(&node.leaves),
            Some((first, rest)) => {
                let literal = node.literals.get(first).and_then(|child| self.below(child, rest));
                let any = node.any.as_deref().filter(|_| !first.is_empty());
                literal.or_else(|| any.and_then(|child| self.below(child, rest)))
            }
        };
        // An empty segment inside a path is nobody's: `//` matches no wildcard.
        found.or_else(|| segments.iter().all(|segment| !segment.is_empty()).then(|| self.among(&node.rest)).flatten())
    }

    fn among(&mut self, leaves: &[Leaf]) -> Option<usize> {
        let mut fallback = None;
        for leaf in leaves.iter().filter(|leaf| leaf.custom.as_deref() == self.custom) {
            if leaf.verb == self.verb {
                return Some(leaf.value);
            }
            if leaf.verb == ANY_VERB {
                fallback = Some(leaf.value);
            } else {
                self.others.insert(leaf.verb.clone());
            }
        }
        fallback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(templates: &[(&str, &'static str)]) -> Table<&'static str> {
        let mut table = Table::default();
        for (verb, template) in templates {
            table.insert(verb, &Pattern::parse(template).unwrap(), *template).unwrap();
        }
        table
    }

    fn found(table: &Table<&'static str>, verb: &str, path: &str) -> String {
        match table.find(verb, Path::parse(path).unwrap()) {
            Found::Value { value, .. } => (*value).to_owned(),
            Found::OtherVerbs(verbs) => format!("405 {}", verbs.into_iter().collect::<Vec<_>>().join(",")),
            Found::Nothing => "404".to_owned(),
        }
    }

    #[test]
    fn rule_6_literal_goes_before_one_segment_before_the_rest() {
        let table = table(&[
            ("GET", "/v1/**"),
            ("GET", "/v1/{a}/{b}"),
            ("GET", "/v1/{a}"),
            ("GET", "/v1/x"),
            ("GET", "/v1/x/{y}/z"),
        ]);
        for (path, template) in [
            ("/v1/x", "/v1/x"),
            ("/v1/y", "/v1/{a}"),
            ("/v1", "/v1/**"),
            ("/v1/x/y", "/v1/{a}/{b}"),
            ("/v1/x/y/z", "/v1/x/{y}/z"),
            ("/v1/x/y/q", "/v1/**"),
            ("/v2", "404"),
        ] {
            assert_eq!(found(&table, "GET", path), template, "{path}");
        }
    }

    #[test]
    fn rule_6_the_same_template_is_taken_once_whatever_its_variables_are_called() {
        let mut table = table(&[("GET", "/v1/{a}:x")]);
        let again = Pattern::parse("/v1/{b}:x").unwrap();
        assert_eq!(table.insert("GET", &again, "second"), Err(&"/v1/{a}:x"));
        assert_eq!(table.insert("PUT", &again, "other verb"), Ok(()));
        assert_eq!(table.insert("GET", &Pattern::parse("/v1/{a}").unwrap(), "no custom verb"), Ok(()));
    }

    #[test]
    fn rule_5_a_custom_verb_is_matched_before_it_is_a_part_of_a_value() {
        let table = table(&[("GET", "/v1/{name}"), ("GET", "/v1/{name}:watch"), ("POST", "/v1/{name}:run")]);
        for (verb, path, template) in [
            ("GET", "/v1/jason:watch", "/v1/{name}:watch"),
            ("GET", "/v1/jason:other", "/v1/{name}"),
            ("GET", "/v1/urn:isbn:1", "/v1/{name}"),
            ("GET", "/v1/jason%3Awatch", "/v1/{name}"),
            ("GET", "/v1/jason:run", "/v1/{name}"),
            ("POST", "/v1/jason:run", "/v1/{name}:run"),
            ("POST", "/v1/jason:watch", "405 GET"),
        ] {
            assert_eq!(found(&table, verb, path), template, "{verb} {path}");
        }
    }

    #[test]
    fn rule_7_one_slash_at_the_end_is_overlooked_and_an_empty_segment_matches_nothing() {
        let table = table(&[("GET", "/c/*/d"), ("GET", "/c/**"), ("GET", "/a")]);
        for (path, template) in
            [("/a/", "/a"), ("/a//", "404"), ("/c//d", "404"), ("/c//v/d", "404"), ("/c/v/d", "/c/*/d")]
        {
            assert_eq!(found(&table, "GET", path), template, "{path}");
        }
    }

    #[test]
    fn rule_8_a_path_without_the_verb_tells_which_verbs_it_has() {
        let table = table(&[("GET", "/v1/{a}"), ("PUT", "/v1/x"), ("*", "/any")]);
        assert_eq!(found(&table, "DELETE", "/v1/x"), "405 GET,PUT");
        assert_eq!(found(&table, "GET", "/v1/x"), "/v1/{a}");
        assert_eq!(found(&table, "HEAD", "/v1/y"), "405 GET");
        assert_eq!(found(&table, "PURGE", "/any"), "/any");
    }

    #[test]
    fn rule_21_literals_are_compared_as_they_are_encoded() {
        let table = table(&[("GET", "/v1/%2a"), ("GET", "/v1/a%2Fb/c")]);
        assert_eq!(found(&table, "GET", "/v1/%2A"), "/v1/%2a");
        assert_eq!(found(&table, "GET", "/v1/*"), "404");
        assert_eq!(found(&table, "GET", "/v1/a%2fb/c"), "/v1/a%2Fb/c");
        assert_eq!(found(&table, "GET", "/v1/a/b/c"), "404");
    }

    #[test]
    fn a_lookup_is_bounded_whatever_the_templates_are() {
        let mut table = Table::default();
        // 2^12 ways: at each of 12 segments a literal and a wildcard lead on.
        for bits in 0..4096_u32 {
            let template: String =
                (0..12).map(|at| if bits >> at & 1 == 1 { "/a" } else { "/*" }).collect::<String>() + "/end";
            table.insert("GET", &Pattern::parse(&template).unwrap(), ()).unwrap();
        }
        let started = std::time::Instant::now();
        assert_eq!(table.find("GET", Path::parse(&"/a".repeat(13)).unwrap()), Found::Nothing);
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
    }
}
