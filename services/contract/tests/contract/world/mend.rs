//! Makes a world valid again after a change: whoever named what is gone names something else.

use std::collections::{BTreeMap, BTreeSet};

use super::{Enum, Extension, Kind, Label, Message, Syntax, World, each_message};

/// Where names lead from one file.
struct Names {
    /// Full names that the file may name, and whether each is an enum.
    seen: BTreeMap<String, bool>,
    /// Enums that the file may not name as they are closed, and it is open.
    closed: BTreeSet<String>,
    /// Enums that no map may hold.
    not_zero_first: BTreeSet<String>,
    extensible: BTreeMap<String, Vec<(u32, u32)>>,
}

impl Names {
    fn short(name: &str) -> &str {
        name.rsplit('.').next().unwrap_or(name)
    }

    /// The name that something has now.
    fn lead(&self, name: &str, is_meant: impl Fn(&str, bool) -> bool) -> Option<String> {
        if self.seen.get(name).is_some_and(|is_enum| is_meant(name, *is_enum)) {
            return Some(name.to_owned());
        }
        let mut same =
            self.seen.iter().filter(|(one, is_enum)| Self::short(one) == Self::short(name) && is_meant(one, **is_enum));
        same.next().map(|(one, _)| one.clone())
    }

    fn kind(&self, kind: &mut Kind) {
        if let Kind::Named(name) = kind {
            *kind = self.lead(name, |one, _| !self.closed.contains(one)).map_or(Kind::Scalar("int32"), Kind::Named);
        }
    }

    fn message(&self, message: &mut Message) {
        for field in &mut message.fields {
            self.kind(&mut field.kind);
            if let (Kind::Named(name), Label::Map) = (&field.kind, field.label)
                && self.not_zero_first.contains(name)
            {
                field.kind = Kind::Scalar("int32");
            }
        }
        self.extensions(&mut message.extensions);
    }

    fn extensions(&self, extensions: &mut Vec<Extension>) {
        extensions.retain_mut(|extension| {
            self.kind(&mut extension.field.kind);
            let number = extension.field.number;
            let is_open = |one: &str| {
                let ranges = self.extensible.get(one);
                ranges.is_some_and(|ranges| ranges.iter().any(|(start, end)| (start..=end).contains(&&number)))
            };
            let of = self.lead(&extension.of, |one, is_enum| !is_enum && is_open(one));
            of.map(|of| extension.of = of).is_some()
        });
    }
}

impl World {
    /// Makes it valid again.
    pub(super) fn mend(&mut self) {
        for file in &mut self.files {
            let is_open = file.syntax != Syntax::Proto2;
            each_message(&mut file.messages, &mut |message| {
                numbers(message);
                message.enums.iter_mut().for_each(|one| values(one, is_open));
            });
            file.enums.iter_mut().for_each(|one| values(one, is_open));
        }
        for index in 0..self.files.len() {
            let names = self.names(index);
            let file = &mut self.files[index];
            each_message(&mut file.messages, &mut |message| names.message(message));
            names.extensions(&mut file.extensions);
            let messages: Vec<String> =
                names.seen.iter().filter(|(_, is_enum)| !**is_enum).map(|(name, _)| name.clone()).collect();
            for rpc in file.services.iter_mut().flat_map(|service| &mut service.rpcs) {
                for side in [&mut rpc.input, &mut rpc.output] {
                    let now = names.lead(side, |_, is_enum| !is_enum).or_else(|| messages.first().cloned());
                    *side = now.unwrap_or_default();
                }
            }
            file.services.iter_mut().for_each(|service| service.rpcs.retain(|rpc| !rpc.input.is_empty()));
        }
        self.extensions_apart();
    }

    fn names(&self, index: usize) -> Names {
        let is_open = |syntax: Syntax| syntax == Syntax::Proto3;
        let known = self.known();
        let near = || known.iter().filter(|one| one.file <= index);
        let closed = |one: &&super::Known| {
            one.is_enum && is_open(self.files[index].syntax) && !is_open(self.files[one.file].syntax)
        };
        Names {
            seen: near().map(|one| (one.full.clone(), one.is_enum)).collect(),
            closed: near().filter(closed).map(|one| one.full.clone()).collect(),
            not_zero_first: near()
                .filter(|one| one.is_enum && !one.is_zero_first)
                .map(|one| one.full.clone())
                .collect(),
            extensible: near()
                .filter(|one| !is_open(self.files[one.file].syntax))
                .map(|one| (one.full.clone(), one.ranges.clone()))
                .collect(),
        }
    }

    /// No two extensions of one message have one number.
    fn extensions_apart(&mut self) {
        let mut taken = BTreeSet::new();
        let mut is_first = |one: &Extension| taken.insert((one.of.clone(), one.field.number));
        for file in &mut self.files {
            file.extensions.retain(&mut is_first);
            each_message(&mut file.messages, &mut |message| message.extensions.retain(&mut is_first));
        }
    }
}

/// Keeps what a message has apart from what it has reserved.
fn numbers(message: &mut Message) {
    let mut numbers = BTreeSet::new();
    let mut names = BTreeSet::new();
    message.fields.retain(|field| numbers.insert(field.number) && names.insert(field.name.clone()));
    for field in &mut message.fields {
        if matches!(field.label, Label::InOneof(_)) && field.kind == Kind::Group {
            field.kind = Kind::Scalar("bytes");
        }
    }
    let mut taken: Vec<(u32, u32)> = numbers.iter().map(|number| (*number, *number)).collect();
    for ranges in [&mut message.extension_ranges, &mut message.reserved] {
        ranges.retain(|(start, end)| {
            let is_free = taken.iter().all(|(from, to)| end < from || start > to);
            if is_free {
                taken.push((*start, *end));
            }
            is_free
        });
    }
    message.reserved_names.retain(|name| names.insert(name.clone()));
}

/// Keeps what an enum has apart from what it has reserved; zero comes first where it must.
fn values(one: &mut Enum, is_open: bool) {
    if is_open {
        match one.values.iter().position(|(_, number)| *number == 0) {
            Some(place) => one.values.swap(0, place),
            None => one.values.iter_mut().take(1).for_each(|(_, number)| *number = 0),
        }
    }
    let mut names = BTreeSet::new();
    one.values.retain(|(name, _)| names.insert(name.clone()));
    let mut taken: Vec<(i32, i32)> = one.values.iter().map(|(_, number)| (*number, *number)).collect();
    one.reserved.retain(|(start, end)| {
        let is_free = taken.iter().all(|(from, to)| end < from || start > to);
        if is_free {
            taken.push((*start, *end));
        }
        is_free
    });
    one.reserved_names.retain(|name| names.insert(name.clone()));
}
