//! Rules about HTTP bindings, which `google.api.http` says. Pure.

use std::collections::BTreeMap;

use super::Finding;
use super::draft::{Draft, Pair};
use crate::schema::{Method, Options, Schema, Service};

/// The number of the extension `google.api.http`.
const HTTP: u64 = 72_295_728;
/// Steps from a method to that option in its file.
const HTTP_PATH: [i32; 2] = [4, 72_295_728];

/// One way by which HTTP reaches a method.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Binding {
    verb: String,
    /// As it is written.
    path: String,
    body: String,
    response_body: String,
}

impl Binding {
    /// The path without the names of its variables: what a request has to look like.
    fn shape(&self) -> String {
        let mut shape = String::with_capacity(self.path.len());
        let mut rest = self.path.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            shape.push_str(before);
            let (variable, after) = after.split_once('}').unwrap_or((after, ""));
            shape.push_str(variable.split_once('=').map_or("*", |(_, pattern)| pattern));
            rest = after;
        }
        shape.push_str(rest);
        shape
    }

    fn show(&self) -> String {
        format!("{} {}", self.verb, self.path)
    }

    fn bodies(&self) -> String {
        let name = |body: &str| if body.is_empty() { "none".to_owned() } else { format!("{body:?}") };
        format!("body {}, response body {}", name(&self.body), name(&self.response_body))
    }

    fn is_reached_alike(&self, other: &Self) -> bool {
        self.verb == other.verb && self.shape() == other.shape()
    }
}

fn bindings(schema: &Schema, method: &Method) -> Vec<Binding> {
    let Some(rule) = schema.method_options(method).message_if_set(HTTP) else { return Vec::new() };
    let mut all: Vec<Binding> = binding(&rule).into_iter().collect();
    all.extend(rule.messages(11).iter().filter_map(binding));
    all
}

fn binding(rule: &Options<'_>) -> Option<Binding> {
    let verbs = [(2, "GET"), (3, "PUT"), (4, "POST"), (5, "DELETE"), (6, "PATCH")];
    let usual = verbs.into_iter().filter_map(|(number, verb)| Some((verb.to_owned(), rule.text(number)?))).next_back();
    let custom = rule.message_if_set(8);
    let custom = custom.as_ref().and_then(|custom| Some((custom.text(1)?.to_owned(), custom.text(2)?)));
    let (verb, path) = usual.or(custom)?;
    let text = |number| rule.text(number).unwrap_or_default().to_owned();
    Some(Binding { verb, path: path.to_owned(), body: text(7), response_body: text(12) })
}

/// What became of a binding.
enum Fate {
    Verb(Binding),
    Path(Binding),
    Body(Binding),
    Gone,
}

/// What became of the bindings that are not there any more as they were.
fn fates(old: &[Binding], new: &[Binding]) -> Vec<(Binding, Fate)> {
    let is_kept = |one: &Binding, others: &[Binding]| others.iter().any(|other| other.is_reached_alike(one));
    let mut fresh: Vec<&Binding> = new.iter().filter(|one| !is_kept(one, old)).collect();
    let mut fates = Vec::new();
    for one in old {
        if let Some(kept) = new.iter().find(|other| other.is_reached_alike(one)) {
            if (&kept.body, &kept.response_body) != (&one.body, &one.response_body) {
                fates.push((one.clone(), Fate::Body(kept.clone())));
            }
            continue;
        }
        let like = |index: Option<usize>, fresh: &mut Vec<&Binding>| index.map(|index| fresh.remove(index).clone());
        let same_path = fresh.iter().position(|other| other.shape() == one.shape());
        if let Some(other) = like(same_path, &mut fresh) {
            fates.push((one.clone(), Fate::Verb(other)));
            continue;
        }
        let same_verb = fresh.iter().position(|other| other.verb == one.verb);
        let fate = like(same_verb, &mut fresh).map_or(Fate::Gone, Fate::Path);
        fates.push((one.clone(), fate));
    }
    fates
}

/// A sentence about a fate, what is now, and how to mend it; `None` if the fate is another rule's.
type Tale = fn(&Binding, &Fate) -> Option<(String, String, String)>;

fn tell(pair: &Pair<'_>, tale: Tale) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old_service, old, service, new) in pair.methods() {
        for (was, fate) in fates(&bindings(pair.old, old), &bindings(pair.new, new)) {
            let Some((what, is, fix)) = tale(&was, &fate) else { continue };
            let message = format!("RPC {:?} on service {:?} {what}.", new.name, service.name());
            drafts.push(
                Draft::new(format!("{}.{}", service.full, new.name), message)
                    .at(service.file, http_line(pair.new, service, new))
                    .was_in(old_service.file)
                    .changed(was.show(), is)
                    .fix(fix),
            );
        }
    }
    drafts
}

fn http_line(schema: &Schema, service: &Service, method: &Method) -> Option<u32> {
    let path: Vec<i32> = method.path.iter().copied().chain(HTTP_PATH).collect();
    schema.line_near(service.file, &path, path.len()).or_else(|| schema.line(service.file, &method.path))
}

pub(super) fn no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    tell(pair, |was, fate| match fate {
        Fate::Gone => {
            let fix = format!("bind {} again, as an additional binding if there is a new one", was.show());
            Some((format!("is not reached by {} any more", was.show()), String::new(), fix))
        }
        Fate::Verb(_) | Fate::Path(_) | Fate::Body(_) => None,
    })
}

pub(super) fn same_verb(pair: &Pair<'_>) -> Vec<Draft> {
    tell(pair, |was, fate| match fate {
        Fate::Verb(is) => {
            let fix = format!("keep {}, and add {} as an additional binding", was.show(), is.show());
            Some((format!("changed its HTTP verb for {:?} from {} to {}", was.path, was.verb, is.verb), is.show(), fix))
        }
        Fate::Gone | Fate::Path(_) | Fate::Body(_) => None,
    })
}

pub(super) fn same_path(pair: &Pair<'_>) -> Vec<Draft> {
    tell(pair, |was, fate| match fate {
        Fate::Path(is) => {
            let fix = format!("keep {}, and add {} as an additional binding", was.show(), is.show());
            Some((format!("changed its HTTP path from {:?} to {:?}", was.path, is.path), is.show(), fix))
        }
        Fate::Gone | Fate::Verb(_) | Fate::Body(_) => None,
    })
}

pub(super) fn same_body(pair: &Pair<'_>) -> Vec<Draft> {
    tell(pair, |was, fate| match fate {
        Fate::Body(is) => {
            let what = format!("changed what {} carries from {} to {}", was.show(), was.bodies(), is.bodies());
            Some((what, is.bodies(), format!("set {} again", was.bodies())))
        }
        Fate::Gone | Fate::Verb(_) | Fate::Path(_) => None,
    })
}

/// Requests, told apart by verb and shape.
type Road = (String, String);

/// Requests, and the methods that they lead to.
type Roads<'a> = BTreeMap<Road, Vec<(&'a Service, &'a Method)>>;

fn roads(schema: &Schema) -> Roads<'_> {
    let mut roads = Roads::new();
    for service in schema.services() {
        for method in &service.methods {
            for binding in bindings(schema, method) {
                let methods = roads.entry((binding.verb.clone(), binding.shape())).or_default();
                if !methods.iter().any(|(_, known)| std::ptr::eq(*known, method)) {
                    methods.push((service, method));
                }
            }
        }
    }
    roads
}

fn conflict(schema: &Schema, road: &(String, String), taken: &str, service: &Service, method: &Method) -> Draft {
    let request = format!("{} {}", road.0, road.1);
    let name = format!("{}.{}", service.full, method.name);
    let message = format!("RPC {name:?} is bound to {request}, which leads to {taken:?}.");
    Draft::new(name, message)
        .at(service.file, http_line(schema, service, method))
        .changed(taken, request)
        .fix("bind it to a path of its own")
}

/// Requests that lead to two methods of the new schema, and did not in the old one.
pub(super) fn conflicts_within(pair: &Pair<'_>) -> Vec<Draft> {
    let before = roads(pair.old);
    let mut drafts = Vec::new();
    for (road, methods) in roads(pair.new) {
        let full = |service: &Service, method: &Method| format!("{}.{}", service.full, method.name);
        let known: Vec<String> =
            before.get(&road).into_iter().flatten().map(|(service, method)| full(service, method)).collect();
        // Who was there first stays; among newcomers the first by name does.
        let mut sorted: Vec<_> =
            methods.iter().map(|(service, method)| (full(service, method), *service, *method)).collect();
        sorted.sort_by_key(|(name, ..)| (!known.contains(name), name.clone()));
        let Some((first, ..)) = sorted.first().cloned() else { continue };
        for (name, service, method) in sorted.iter().skip(1) {
            if !known.contains(name) {
                drafts.push(conflict(pair.new, &road, &first, service, method));
            }
        }
    }
    drafts
}

/// Requests of a schema that lead to methods of others already, by the rule `HTTP_PATH_CONFLICT`.
///
/// `others` are what else is served in the landscape. Methods of the same full name are the same method, so a schema's own
/// revisions do not clash with it.
pub fn conflicts<'a>(schema: &Schema, others: impl IntoIterator<Item = &'a Schema>) -> Vec<Finding> {
    let mut taken: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for other in others {
        for (road, methods) in roads(other) {
            let names = methods.iter().map(|(service, method)| format!("{}.{}", service.full, method.name));
            taken.entry(road).or_default().extend(names);
        }
    }
    let mut findings = Vec::new();
    for (road, methods) in roads(schema) {
        for (service, method) in methods {
            let name = format!("{}.{}", service.full, method.name);
            let strangers = taken.get(&road).map(Vec::as_slice).unwrap_or_default();
            if let Some(stranger) = strangers.iter().find(|stranger| **stranger != name)
                && !strangers.contains(&name)
            {
                findings.push(super::finish(
                    "HTTP_PATH_CONFLICT",
                    schema,
                    conflict(schema, &road, stranger, service, method),
                ));
            }
        }
    }
    findings.sort();
    findings
}

/// The rule about requests of which a part leads elsewhere. It only ever warns.
pub const SHADOWED: &str = "HTTP_PATH_SHADOWED";

/// One of two ways that some requests fit goes before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shadow {
    /// The other goes before this one.
    Under,
    /// This one goes before the other.
    Over,
}

/// Whether some requests fit both of two roads, and which of them the edge takes then: the more literal one, segment by
/// segment. `None` where none does, and for roads that are the same: those are a conflict.
fn shadow(one: &Road, other: &Road) -> Option<Shadow> {
    if one.0 != other.0 && one.0 != "*" && other.0 != "*" {
        return None;
    }
    let parts = |shape: &str| {
        let (stem, last) = shape.rsplit_once('/').unwrap_or(("", shape));
        let (last, verb) = last.split_once(':').map_or((last, None), |(last, verb)| (last, Some(verb.to_owned())));
        (format!("{stem}/{last}"), verb)
    };
    let ((one, one_verb), (other, other_verb)) = (parts(&one.1), parts(&other.1));
    if one_verb != other_verb {
        return None;
    }
    let (mut ones, mut others) = (one.split('/').skip(1), other.split('/').skip(1));
    let mut first = None;
    loop {
        let more = match (ones.next(), others.next()) {
            (None, None) => return first,
            (Some("**"), Some("**")) => return first,
            (Some("**"), _) => return first.or(Some(Shadow::Under)),
            (_, Some("**")) => return first.or(Some(Shadow::Over)),
            (None, Some(_)) | (Some(_), None) => return None,
            (Some("*"), Some("*")) => None,
            (Some("*"), Some(_)) => Some(Shadow::Under),
            (Some(_), Some("*")) => Some(Shadow::Over),
            (Some(one), Some(other)) if one == other => None,
            (Some(_), Some(_)) => return None,
        };
        first = first.or(more);
    }
}

/// Requests of a schema of which a part leads to methods of others, or that take a part of what leads to those, by the
/// rule [`SHADOWED`]. `others` are as for [`conflicts`].
pub fn shadows<'a>(schema: &Schema, others: impl IntoIterator<Item = &'a Schema>) -> Vec<Finding> {
    let others: Vec<Roads<'a>> = others.into_iter().map(roads).collect();
    let full = |service: &Service, method: &Method| format!("{}.{}", service.full, method.name);
    let own: Vec<String> = schema
        .services()
        .iter()
        .flat_map(|service| service.methods.iter().map(|method| full(service, method)))
        .collect();
    let mut findings = Vec::new();
    for (road, methods) in roads(schema) {
        for (other, strangers) in others.iter().flatten() {
            let Some(shadow) = shadow(&road, other) else { continue };
            // A method that both have is the same one.
            let strangers = strangers.iter().map(|(service, method)| full(service, method));
            let Some(stranger) = strangers.into_iter().find(|name| !own.contains(name)) else { continue };
            for (service, method) in &methods {
                findings.push(super::finish(
                    SHADOWED,
                    schema,
                    shadowed(schema, (&road, other), shadow, &stranger, (service, method)),
                ));
            }
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

fn shadowed(
    schema: &Schema,
    (road, other): (&Road, &Road),
    shadow: Shadow,
    stranger: &str,
    (service, method): (&Service, &Method),
) -> Draft {
    let show = |road: &Road| format!("{} {}", road.0, road.1);
    let name = format!("{}.{}", service.full, method.name);
    let (message, fix) = match shadow {
        Shadow::Under => (
            format!("RPC {name:?} is bound to {}, of which {} leads to {stranger:?}.", show(road), show(other)),
            "bind it to a path of its own, or see that nothing has the names that lead elsewhere",
        ),
        Shadow::Over => (
            format!("RPC {name:?} is bound to {}, and takes that from {} of {stranger:?}.", show(road), show(other)),
            "bind it to a path of its own, or see that nothing there has its name",
        ),
    };
    Draft::new(name, message)
        .at(service.file, http_line(schema, service, method))
        .changed(stranger, show(road))
        .fix(fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_literal_road_goes_before_where_both_fit() {
        for (one, other, expected) in [
            ("GET /v1/*", "GET /v1/x", Some(Shadow::Under)),
            ("GET /v1/x", "GET /v1/*", Some(Shadow::Over)),
            ("GET /v1/**", "GET /v1/*", Some(Shadow::Under)),
            ("GET /v1/**", "GET /v1", Some(Shadow::Under)),
            ("GET /v1/*/b", "GET /v1/a/*", Some(Shadow::Under)),
            ("GET /v1/a/*", "GET /v1/*/b", Some(Shadow::Over)),
            ("GET /v1/a/**", "GET /v1/*/b", Some(Shadow::Over)),
            ("GET /v1/*:run", "GET /v1/x:run", Some(Shadow::Under)),
            ("* /v1/*", "GET /v1/x", Some(Shadow::Under)),
            ("GET /v1/*", "GET /v1/*", None),
            ("GET /v1/*", "POST /v1/x", None),
            ("GET /v1/*", "GET /v1/x/y", None),
            ("GET /v1/*:run", "GET /v1/x", None),
            ("GET /v1/a/*", "GET /v1/b/*", None),
        ] {
            let road =
                |text: &str| text.split_once(' ').map(|(verb, shape)| (verb.to_owned(), shape.to_owned())).unwrap();
            assert_eq!(shadow(&road(one), &road(other)), expected, "{one} beside {other}");
        }
    }
}
