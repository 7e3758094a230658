//! The HTTP bindings of contracts, as far as they say which method a request is for. Pure.

/// A path of an HTTP binding, such as `/v1/services/{service}/instances:watch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Vec<Segment>,
    verb: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// One segment, whatever it is.
    Any,
    /// The rest, whatever it is.
    Rest,
}

impl Pattern {
    pub(crate) fn parse(template: &str) -> Self {
        // A colon within braces belongs to no verb.
        let cut = template
            .rfind(':')
            .filter(|at| *at > template.rfind('}').unwrap_or(0).max(template.rfind('/').unwrap_or(0)));
        let (path, verb) = cut.map_or((template, ""), |at| (&template[..at], &template[at + 1..]));
        let mut segments = Vec::new();
        let mut rest = path.trim_start_matches('/');
        while !rest.is_empty() {
            // A variable may hold slashes: {name=shelves/*}.
            let end = match rest.strip_prefix('{') {
                Some(_) => rest.find('}').map_or(rest.len(), |at| at + 1),
                None => rest.find('/').unwrap_or(rest.len()),
            };
            let (segment, more) = rest.split_at(end);
            match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
                None => segments.push(literal(segment)),
                Some(variable) => match variable.split_once('=') {
                    None => segments.push(Segment::Any),
                    Some((_, inner)) => segments.extend(inner.split('/').map(literal)),
                },
            }
            rest = more.trim_start_matches('/');
        }
        Self { segments, verb: verb.to_owned() }
    }

    pub(crate) fn fits(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let path = match self.verb.as_str() {
            "" => path,
            verb => match path.strip_suffix(verb).and_then(|path| path.strip_suffix(':')) {
                Some(path) => path,
                None => return false,
            },
        };
        let given: Vec<&str> = path.split('/').collect();
        for (at, segment) in self.segments.iter().enumerate() {
            match (segment, given.get(at)) {
                (Segment::Rest, _) => return true,
                (Segment::Any, Some(given)) if !given.is_empty() => {}
                (Segment::Literal(wanted), Some(given)) if wanted == given => {}
                _ => return false,
            }
        }
        given.len() == self.segments.len()
    }
}

fn literal(text: &str) -> Segment {
    match text {
        "*" => Segment::Any,
        "**" => Segment::Rest,
        _ => Segment::Literal(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, fitting: &[&str], strange: &[&str]) {
        let pattern = Pattern::parse(template);
        for path in fitting {
            assert!(pattern.fits(path), "{template} {path}");
        }
        for path in strange {
            assert!(!pattern.fits(path), "{template} {path}");
        }
    }

    #[test]
    fn patterns_fit_what_they_bind() {
        check("/v1/tokens", &["/v1/tokens"], &["/v1/tokens/", "/v1/tokens/a", "/v1", "v1/tokens"]);
        check("/v1/tokens/{id}", &["/v1/tokens/a"], &["/v1/tokens/", "/v1/tokens", "/v1/tokens/a/b"]);
        check("/v1/a/{b}/{c}:diff", &["/v1/a/x/y:diff"], &["/v1/a/x/y", "/v1/a/x:diff", "/v1/a/x/y:other"]);
        check("/v1/instances:watch", &["/v1/instances:watch"], &["/v1/instances"]);
        check("/v1/{name=shelves/*}/books", &["/v1/shelves/a/books"], &["/v1/a/books", "/v1/shelves/books"]);
        check("/v1/{path=**}", &["/v1/a", "/v1/a/b/c"], &["/v2/a"]);
    }
}
