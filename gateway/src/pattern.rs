//! Path templates of `google.api.http`: read once, when a contract arrives.
//!
//! ```text
//! Template = "/" Segments [ ":" LITERAL ]      Segment  = "*" | "**" | LITERAL | Variable
//! Segments = Segment { "/" Segment }           Variable = "{" FieldPath [ "=" Segments ] "}"
//! ```
//! Stricter than some: `**` must be last, variables do not nest, and a literal is compared as it is encoded.

use std::cmp::Ordering;

use crate::path::{self, Path};

/// Longest template, in segments. Also how deep a lookup can go.
pub(crate) const SEGMENTS_MAX: usize = 64;

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    segments: Vec<Segment>,
    verb: Option<String>,
    variables: Vec<Variable>,
}

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// This text, in its normal encoding.
    Literal(String),
    /// Any one segment that is not empty.
    Any,
    /// All segments that are left, also none.
    Rest,
}

/// A part of the path that is bound to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    /// Names of the fields on the way to the bound one.
    pub(crate) field: Vec<String>,
    /// First segment.
    start: usize,
    /// How many segments, `None` for all that are left.
    length: Option<usize>,
    /// Whether the template spans more than one segment, whatever a request's path does.
    is_multi: bool,
}

impl Variable {
    /// Whether it is bound to the segment at a place, among others.
    pub(crate) fn covers(&self, at: usize) -> bool {
        at >= self.start && self.length.is_none_or(|length| at < self.start + length)
    }

    /// Whether it is bound to what a wildcard at a place matches, and to nothing else.
    pub(crate) fn is_all_at(&self, at: usize) -> bool {
        at == self.start && self.length.is_none_or(|length| length == 1)
    }
}

/// Why a template is refused, as a sentence fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Pattern {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let rest = text.strip_prefix('/').ok_or(Malformed("it does not begin with a slash"))?;
        let (rest, verb) = split_verb(rest)?;
        let mut pattern = Self { text: text.to_owned(), segments: Vec::new(), verb, variables: Vec::new() };
        if rest.is_empty() {
            if pattern.verb.is_some() {
                return Err(Malformed("a segment is empty"));
            }
            return Ok(pattern);
        }
        for part in split_segments(rest)? {
            match part.strip_prefix('{') {
                Some(variable) => {
                    let variable = variable.strip_suffix('}').ok_or(Malformed("a brace is not closed"))?;
                    pattern.add_variable(variable)?;
                }
                None => pattern.add_segment(part)?,
            }
        }
        let rest_at = pattern.segments.iter().position(|segment| *segment == Segment::Rest);
        if rest_at.is_some_and(|at| at + 1 != pattern.segments.len()) {
            return Err(Malformed("** is not the last segment"));
        }
        if pattern.segments.len() > SEGMENTS_MAX {
            return Err(Malformed("it has more than 64 segments"));
        }
        for (at, variable) in pattern.variables.iter().enumerate() {
            if pattern.variables[..at].iter().any(|other| other.field == variable.field) {
                return Err(Malformed("a field is bound twice"));
            }
        }
        Ok(pattern)
    }

    fn add_segment(&mut self, text: &str) -> Result<(), Malformed> {
        let segment = match text {
            "" => return Err(Malformed("a segment is empty")),
            "*" => Segment::Any,
            "**" => Segment::Rest,
            literal if literal.contains(['{', '}', '*', '=']) => {
                return Err(Malformed("a literal holds one of { } * ="));
            }
            literal => {
                let literal = path::normal(literal).map_err(|path::Malformed(why)| Malformed(why))?;
                if literal == "." || literal == ".." {
                    return Err(Malformed("a segment is a dot segment"));
                }
                Segment::Literal(literal)
            }
        };
        self.segments.push(segment);
        Ok(())
    }

    fn add_variable(&mut self, text: &str) -> Result<(), Malformed> {
        let (field, segments) = text.split_once('=').unwrap_or((text, "*"));
        let field: Vec<String> = field.split('.').map(str::to_owned).collect();
        if !field.iter().all(|name| is_identifier(name)) {
            return Err(Malformed("a variable does not name a field"));
        }
        if segments.contains('{') {
            return Err(Malformed("variables nest"));
        }
        let start = self.segments.len();
        for segment in segments.split('/') {
            self.add_segment(segment)?;
        }
        let has_rest = self.segments.last() == Some(&Segment::Rest);
        let length = self.segments.len() - start;
        self.variables.push(Variable {
            field,
            start,
            length: (!has_rest).then_some(length),
            is_multi: has_rest || length > 1,
        });
        Ok(())
    }

    /// The template as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Its segments, without the verb.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The custom verb behind the last colon.
    pub(crate) fn verb(&self) -> Option<&str> {
        self.verb.as_deref()
    }

    /// Its variables, in the order of the path.
    pub(crate) fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Which of two templates goes first where a path matches both: `Less` if this one does. `None` where no path matches
    /// both, and for templates of the same place.
    pub(crate) fn beside(&self, other: &Self) -> Option<Ordering> {
        if self.verb != other.verb {
            return None;
        }
        let (mut ones, mut others) = (self.segments.iter(), other.segments.iter());
        let mut first = None;
        loop {
            let more = match (ones.next(), others.next()) {
                (None, None) | (Some(Segment::Rest), Some(Segment::Rest)) => return first,
                (Some(Segment::Rest), _) => return first.or(Some(Ordering::Greater)),
                (_, Some(Segment::Rest)) => return first.or(Some(Ordering::Less)),
                (None, Some(_)) | (Some(_), None) => return None,
                (Some(Segment::Any), Some(Segment::Any)) => None,
                (Some(Segment::Any), Some(Segment::Literal(_))) => Some(Ordering::Greater),
                (Some(Segment::Literal(_)), Some(Segment::Any)) => Some(Ordering::Less),
                (Some(Segment::Literal(one)), Some(Segment::Literal(other))) if one == other => None,
                (Some(Segment::Literal(_)), Some(Segment::Literal(_))) => return None,
            };
            first = first.or(more);
        }
    }

    /// What a path that matches, without its verb, binds to each variable, decoded.
    ///
    /// A variable over one segment is decoded wholly; one over several keeps encoded slashes, as the specification says.
    pub(crate) fn bind(&self, path: &Path) -> Result<Vec<String>, path::Malformed> {
        let segments = path.segments();
        let bind_one = |variable: &Variable| {
            let end = variable.length.map_or(segments.len(), |length| variable.start + length);
            let bound = segments.get(variable.start..end).unwrap_or_default();
            if variable.is_multi {
                let parts: Result<Vec<_>, _> =
                    bound.iter().map(|segment| path::decode_keeping_slashes(segment)).collect();
                Ok(parts?.join("/"))
            } else {
                bound.first().map_or(Ok(String::new()), |segment| path::decode(segment))
            }
        };
        self.variables.iter().map(bind_one).collect()
    }
}

/// Cuts the verb off: what follows the last colon of the last segment, unless a variable ends behind it.
fn split_verb(text: &str) -> Result<(&str, Option<String>), Malformed> {
    let last_brace = text.rfind('}').map_or(0, |at| at + 1);
    let last_slash = text.rfind('/').map_or(0, |at| at + 1);
    let tail_at = last_brace.max(last_slash);
    let Some(colon) = text[tail_at..].rfind(':') else { return Ok((text, None)) };
    let (rest, verb) = (&text[..tail_at + colon], &text[tail_at + colon + 1..]);
    if verb.is_empty() {
        return Err(Malformed("the verb is empty"));
    }
    if rest.is_empty() || rest.ends_with('/') {
        return Err(Malformed("a segment is empty"));
    }
    if verb.contains(['{', '}', '*', '=']) {
        return Err(Malformed("the verb holds one of { } * ="));
    }
    let verb = path::normal(verb).map_err(|path::Malformed(why)| Malformed(why))?;
    Ok((rest, Some(verb)))
}

/// Splits at slashes that are not inside braces.
fn split_segments(text: &str) -> Result<Vec<&str>, Malformed> {
    let mut parts = Vec::new();
    let (mut start, mut is_inside) = (0, false);
    for (at, letter) in text.char_indices() {
        match (letter, is_inside) {
            ('{', false) if at == start => is_inside = true,
            ('{', _) => return Err(Malformed("a brace opens within a segment or another brace")),
            ('}', true) => is_inside = false,
            ('}', false) => return Err(Malformed("a brace is not opened")),
            ('/', false) => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if is_inside {
        return Err(Malformed("a brace is not closed"));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(template: &str, raw: &str) -> Vec<String> {
        Pattern::parse(template).unwrap().bind(&Path::parse(raw).unwrap()).unwrap()
    }

    #[test]
    fn templates_are_read_as_the_specification_writes_them() {
        use Segment::{Any, Literal, Rest};
        let literal = |text: &str| Literal(text.to_owned());
        for (text, segments, verb, fields) in [
            ("/", vec![], None, vec![]),
            ("/v1/products", vec![literal("v1"), literal("products")], None, vec![]),
            ("/v1/*/x/**", vec![literal("v1"), Any, literal("x"), Rest], None, vec![]),
            ("/v1/{id}", vec![literal("v1"), Any], None, vec!["id"]),
            ("/v1/{a.b.c}:run", vec![literal("v1"), Any], Some("run"), vec!["a.b.c"]),
            (
                "/v1/{name=shelves/*/books/**}:x",
                { vec![literal("v1"), literal("shelves"), Any, literal("books"), Rest] },
                Some("x"),
                vec!["name"],
            ),
            ("/{a}/{b=**}", vec![Any, Rest], None, vec!["a", "b"]),
            ("/a:b/c:d", vec![literal("a:b"), literal("c")], Some("d"), vec![]),
            ("/%7e/%2f", vec![literal("~"), literal("%2F")], None, vec![]),
        ] {
            let pattern = Pattern::parse(text).unwrap();
            assert_eq!(pattern.segments(), segments, "{text}");
            assert_eq!(pattern.verb(), verb, "{text}");
            let names: Vec<_> = pattern.variables().iter().map(|variable| variable.field.join(".")).collect();
            assert_eq!(names, fields, "{text}");
        }
    }

    #[test]
    fn malformed_templates_are_refused() {
        for text in [
            "",
            "v1",
            "//",
            "/a//b",
            "/a/",
            "/{",
            "/}",
            "/{}",
            "/{a",
            "/a}",
            "/{a=}",
            "/{a={b}}",
            "/{a}{b}",
            "/x{a}",
            "/{a}x",
            "/**/a",
            "/{a=**}/b",
            "/***",
            "/a*",
            "/:verb",
            "/a/:verb",
            "/a:",
            "/{a}/{a}",
            "/{1a}",
            "/{a..b}",
            "/{a=b=c}",
            "/a/..",
            "/a:{b}",
            "/{a=/x}",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn of_two_templates_that_a_path_matches_the_more_literal_goes_first() {
        for (one, other, expected) in [
            ("/v1/x", "/v1/{a}", Some(Ordering::Less)),
            ("/v1/{a}", "/v1/**", Some(Ordering::Less)),
            ("/v1/{a}/b", "/v1/a/{b}", Some(Ordering::Greater)),
            ("/v1/{a}:run", "/v1/x:run", Some(Ordering::Greater)),
            ("/v1", "/v1/{a=**}", Some(Ordering::Less)),
            ("/v1/{a}", "/v1/{b}", None),
            ("/v1/{a}", "/v1/x/y", None),
            ("/v1/a/{x}", "/v1/b/{x}", None),
            ("/v1/{a}:run", "/v1/x", None),
        ] {
            let (first, second) = (Pattern::parse(one).unwrap(), Pattern::parse(other).unwrap());
            assert_eq!(first.beside(&second), expected, "{one} beside {other}");
            assert_eq!(second.beside(&first), expected.map(Ordering::reverse), "{other} beside {one}");
        }
    }

    #[test]
    fn rule_2_a_variable_over_one_segment_is_decoded_wholly() {
        assert_eq!(bound("/v1/{id}", "/v1/a%2Fb%20c"), ["a/b c"]);
        assert_eq!(bound("/v1/{id}", "/v1/%2523"), ["%23"]);
    }

    #[test]
    fn rule_3_a_variable_over_several_segments_keeps_encoded_slashes_even_for_one() {
        assert_eq!(bound("/v1/{id=**}", "/v1/a%2fb%20c"), ["a%2Fb c"]);
        assert_eq!(bound("/v1/{id=x/*}", "/v1/x/a%2Fb"), ["x/a%2Fb"]);
    }

    #[test]
    fn rule_4_a_rest_binds_no_segment_too() {
        assert_eq!(bound("/v1/{id=**}", "/v1"), [""]);
        assert_eq!(bound("/v1/{id=a/**}", "/v1/a"), ["a"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_template_or_is_refused(text in "/?[a-c/{}*=.:%2]{0,24}", raw in "/[a-c/]{0,12}") {
            if let (Ok(pattern), Ok(path)) = (Pattern::parse(&text), Path::parse(&raw)) {
                assert_eq!(pattern.bind(&path).map(|bound| bound.len()), Ok(pattern.variables().len()));
            }
        }
    }
}
