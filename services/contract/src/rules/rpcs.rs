//! Rules about methods. Pure.

use super::draft::{Draft, Pair, line};
use crate::schema::{Method, Schema, Service};

fn draft(old: &Service, service: &Service, method: &Method, message: String) -> Draft {
    Draft::new(format!("{}.{}", service.full, method.name), message).was_in(old.file)
}

pub(super) fn no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.services() {
        for method in old.methods.iter().filter(|method| new.method(&method.name).is_none()) {
            let name = &method.name;
            let message = format!("Previously present RPC {name:?} on service {:?} was deleted.", new.name());
            let at = pair.new.line(new.file, &new.path);
            let fix =
                format!("put {name} back and mark it deprecated, or leave it out of the next version of the package");
            drafts.push(draft(old, new, method, message).at(new.file, at).changed(&**name, "").fix(fix));
        }
    }
    drafts
}

fn streaming(pair: &Pair<'_>, side: &str, is_streaming: fn(&Method) -> bool) -> Vec<Draft> {
    let word = |method: &Method| if is_streaming(method) { "streaming" } else { "unary" };
    let changed = pair.methods().filter(|(_, old, _, new)| word(old) != word(new));
    let drafts = changed.map(|(old_service, old, service, new)| {
        let (was, is) = (word(old), word(new));
        let message =
            format!("RPC {:?} on service {:?} changed from {side} {was} to {side} {is}.", new.name, service.name());
        draft(old_service, service, new, message)
            .at(service.file, pair.new.line(service.file, &new.path))
            .changed(format!("{side} {was}"), format!("{side} {is}"))
            .fix(format!("make {} {side} {was} again, or add an RPC with a name of its own", new.name))
    });
    drafts.collect()
}

pub(super) fn same_client_streaming(pair: &Pair<'_>) -> Vec<Draft> {
    streaming(pair, "client", |method| method.is_client_streaming)
}

pub(super) fn same_server_streaming(pair: &Pair<'_>) -> Vec<Draft> {
    streaming(pair, "server", |method| method.is_server_streaming)
}

fn message_type(pair: &Pair<'_>, side: &str, step: i32, of: fn(&Method) -> &str) -> Vec<Draft> {
    let changed = pair.methods().filter(|(_, old, _, new)| of(old) != of(new));
    let drafts = changed.map(|(old_service, old, service, new)| {
        let (was, is) = (of(old), of(new));
        let message =
            format!("RPC {:?} on service {:?} changed {side} type from {was:?} to {is:?}.", new.name, service.name());
        draft(old_service, service, new, message)
            .at(service.file, line(pair.new, service.file, &new.path, &[step]))
            .changed(was, is)
            .fix(format!("give {} the {side} {was} again, or add an RPC with a name of its own", new.name))
    });
    drafts.collect()
}

pub(super) fn same_request_type(pair: &Pair<'_>) -> Vec<Draft> {
    message_type(pair, "request", 2, |method| &method.input)
}

pub(super) fn same_response_type(pair: &Pair<'_>) -> Vec<Draft> {
    message_type(pair, "response", 3, |method| &method.output)
}

pub(super) fn same_idempotency_level(pair: &Pair<'_>) -> Vec<Draft> {
    let level = |schema: &Schema, method: &Method| match schema.method_options(method).number(34) {
        Some(1) => "NO_SIDE_EFFECTS",
        Some(2) => "IDEMPOTENT",
        Some(_) | None => "IDEMPOTENCY_UNKNOWN",
    };
    let changed = pair.methods().filter(|(_, old, _, new)| level(pair.old, old) != level(pair.new, new));
    let drafts = changed.map(|(old_service, old, service, new)| {
        let (was, is) = (level(pair.old, old), level(pair.new, new));
        let message = format!(
            "RPC {:?} on service {:?} changed option \"idempotency_level\" from {was:?} to {is:?}.",
            new.name,
            service.name()
        );
        draft(old_service, service, new, message)
            .at(service.file, line(pair.new, service.file, &new.path, &[4, 34]))
            .changed(was, is)
            .fix(format!("set idempotency_level of {} to {was} again", new.name))
    });
    drafts.collect()
}
