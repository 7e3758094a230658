//! Random changes.

use fastrand::Rng;

use super::random::{pick, rarely, toss_enum, toss_field, toss_file, toss_message, toss_rpc};
use super::{Enum, Field, Message, Syntax, World, each_message};

impl World {
    /// Changes something.
    pub(crate) fn change(&mut self, rng: &mut Rng) {
        match rng.u8(..20) {
            0..=6 => self.change_message(rng),
            7 | 8 => self.change_parts(rng),
            9..=11 => self.change_enum(rng),
            12..=14 => self.change_service(rng),
            15 => self.change_extension(rng),
            16 | 17 => self.move_something(rng),
            _ => self.change_file(rng),
        }
        self.mend();
    }

    /// Does something with a message, wherever it lies.
    fn with_message(&mut self, rng: &mut Rng, act: impl FnOnce(&mut Rng, &mut Message)) {
        let file = rng.usize(..self.files.len());
        let mut count = 0;
        each_message(&mut self.files[file].messages, &mut |_| count += 1);
        let Some(last) = usize::checked_sub(count, 1) else { return };
        let (place, mut here, mut act) = (rng.usize(..=last), 0, Some(act));
        each_message(&mut self.files[file].messages, &mut |message| {
            if here == place
                && let Some(act) = act.take()
            {
                act(rng, message);
            }
            here += 1;
        });
    }

    fn change_message(&mut self, rng: &mut Rng) {
        let number = pick(rng, &[20, 25, 30, 52, 55, 61]);
        let fresh = self.random_field(rng, number);
        self.with_message(rng, |rng, message| {
            let Some(last) = message.fields.len().checked_sub(1) else { return message.fields.push(fresh) };
            let place = rng.usize(..=last);
            match rng.u8(..14) {
                0 => message.fields.push(fresh),
                1..=3 => delete_field(rng, message, place),
                4 => message.fields[place].name = format!("renamed_{}", message.fields[place].number),
                5 | 6 => message.fields[place].kind = fresh.kind,
                7 | 8 => message.fields[place].label = fresh.label,
                9 => message.fields[place].number = fresh.number,
                10 => swap_numbers(rng, &mut message.fields),
                _ => toss_field(rng, &mut message.fields[place].options),
            }
        });
    }

    fn change_parts(&mut self, rng: &mut Rng) {
        let (inner, inner_enum) = (self.random_message(rng, 0), self.random_enum(rng));
        self.with_message(rng, |rng, message| match rng.u8(..11) {
            0 => change_ranges(rng, &mut message.reserved),
            1 => change_ranges(rng, &mut message.extension_ranges),
            2 => _ = message.reserved_names.pop(),
            3 => message.reserved_names.push("added".to_owned()),
            4 => message.oneofs[rng.usize(..2)] = format!("oneof_{}", rng.u8(..3)),
            5 => toss_message(rng, &mut message.options),
            6 => _ = message.messages.pop(),
            7 => _ = message.enums.pop(),
            8 => message.messages.push(inner),
            9 => message.enums.push(inner_enum),
            _ => message.name = format!("{}Renamed", message.name),
        });
    }

    fn change_enum(&mut self, rng: &mut Rng) {
        let file = rng.usize(..self.files.len());
        if rarely(rng, 3) {
            return self.with_message(rng, |rng, message| {
                if let Some(one) = message.enums.last_mut() {
                    change_enum(rng, one);
                }
            });
        }
        let enums = &mut self.files[file].enums;
        let Some(last) = enums.len().checked_sub(1) else { return };
        let place = rng.usize(..=last);
        match rng.u8(..10) {
            0 => _ = enums.remove(place),
            1 => enums[place].name = format!("{}Renamed", enums[place].name),
            _ => change_enum(rng, &mut enums[place]),
        }
    }

    fn change_service(&mut self, rng: &mut Rng) {
        let file = rng.usize(..self.files.len());
        let Some(fresh) = self.random_rpc(rng) else { return };
        let services = &mut self.files[file].services;
        let Some(last) = services.len().checked_sub(1) else { return };
        let index = rng.usize(..=last);
        let Some(last) = services[index].rpcs.len().checked_sub(1) else { return services[index].rpcs.push(fresh) };
        let rpcs = &mut services[index].rpcs;
        let place = rng.usize(..=last);
        match rng.u8(..9) {
            0 => _ = rpcs.remove(place),
            1 => rpcs[place].input = fresh.input,
            2 => rpcs[place].output = fresh.output,
            3 => rpcs[place].streams = fresh.streams,
            4 | 5 => toss_rpc(rng, &mut rpcs[place].options),
            6 => rpcs[place].name = fresh.name,
            7 => rpcs.swap(0, last),
            _ => _ = services.remove(index),
        }
    }

    fn change_extension(&mut self, rng: &mut Rng) {
        let fresh = self.random_extension(rng);
        let file = rng.usize(..self.files.len());
        let extensions = &mut self.files[file].extensions;
        let Some(last) = extensions.len().checked_sub(1) else { return extensions.extend(fresh) };
        let place = rng.usize(..=last);
        let Some(fresh) = fresh else { return };
        match rng.u8(..6) {
            0 => _ = extensions.remove(place),
            1 => extensions[place].field.kind = fresh.field.kind,
            2 => extensions[place].field.label = fresh.field.label,
            3 => extensions[place].field.number = fresh.field.number,
            4 => extensions[place].of = fresh.of,
            _ => extensions[place].field.options = fresh.field.options,
        }
    }

    /// Takes something from one file, and puts it into another, or into a message.
    fn move_something(&mut self, rng: &mut Rng) {
        let (from, to) = (rng.usize(..self.files.len()), rng.usize(..self.files.len()));
        let source = &mut self.files[from];
        match rng.u8(..5) {
            0 | 1 => {
                let Some(moved) = source.messages.pop() else { return };
                match self.files[to].messages.first_mut() {
                    Some(outer) if rng.bool() => outer.messages.push(moved),
                    _ => self.files[to].messages.insert(0, moved),
                }
            }
            2 => {
                let Some(moved) = source.enums.pop() else { return };
                match self.files[to].messages.first_mut() {
                    Some(outer) if rng.bool() => outer.enums.push(moved),
                    _ => self.files[to].enums.insert(0, moved),
                }
            }
            3 => {
                let moved = source.services.pop();
                self.files[to].services.extend(moved);
            }
            _ => {
                let moved = source.extensions.pop();
                match self.files[to].messages.last_mut() {
                    Some(outer) if rng.bool() => outer.extensions.extend(moved),
                    _ => self.files[to].extensions.extend(moved),
                }
            }
        }
    }

    fn change_file(&mut self, rng: &mut Rng) {
        let place = rng.usize(..self.files.len());
        let is_last = place + 1 == self.files.len();
        let file = &mut self.files[place];
        match rng.u8(..10) {
            0 => file.syntax = pick(rng, &Syntax::ALL),
            1 => file.package = pick(rng, &["v1", "sub.v1", "v2", "other.v1"]).to_owned(),
            2 => file.path = format!("renamed/{}", file.path),
            3 if is_last && place > 0 => _ = self.files.pop(),
            4 => file.messages.clear(),
            5 => (file.enums.clear(), file.services.clear()).0,
            _ => toss_file(rng, &mut file.options),
        }
    }
}

fn delete_field(rng: &mut Rng, message: &mut Message, place: usize) {
    let gone = message.fields.remove(place);
    match rng.u8(..6) {
        0 | 1 => message.reserved.push((gone.number, gone.number)),
        2 => message.reserved.push((gone.number, gone.number + 2)),
        _ => {}
    }
    if rng.bool() {
        message.reserved_names.push(gone.name);
    }
}

fn swap_numbers(rng: &mut Rng, fields: &mut [Field]) {
    let (one, other) = (rng.usize(..fields.len()), rng.usize(..fields.len()));
    let number = fields[one].number;
    fields[one].number = fields[other].number;
    fields[other].number = number;
}

/// Splits, shifts, joins or drops ranges of numbers.
fn change_ranges(rng: &mut Rng, ranges: &mut Vec<(u32, u32)>) {
    let Some(last) = ranges.len().checked_sub(1) else { return ranges.push((300, 310)) };
    let place = rng.usize(..=last);
    let (start, end) = ranges[place];
    match rng.u8(..6) {
        0 => _ = ranges.remove(place),
        1 if end > start + 1 => ranges.splice(place..=place, [(start, start), (start + 1, end)]).for_each(drop),
        2 if end > start + 2 => ranges.splice(place..=place, [(start, start), (start + 2, end)]).for_each(drop),
        3 if end > start => ranges[place].1 -= 1,
        4 if end > start => ranges[place].0 += 1,
        _ => ranges.push((400, 410)),
    }
}

fn change_enum(rng: &mut Rng, one: &mut Enum) {
    let Some(last) = one.values.len().checked_sub(1) else { return };
    let place = rng.usize(..=last);
    match rng.u8(..12) {
        0..=2 if last > 0 => {
            let (name, number) = one.values.remove(place);
            if rng.bool() {
                one.reserved.push((number, number));
            }
            if rng.bool() {
                one.reserved_names.push(name);
            }
        }
        3 => one.values[place].0 = format!("{}_NEW", one.values[place].0),
        4 => one.values[place].1 += 10,
        5 => {
            let (name, number) = (format!("{}_MORE", one.name.to_uppercase()), one.values[place].1);
            one.values.push((name, number));
        }
        6 => _ = one.reserved.pop(),
        7 => _ = one.reserved_names.pop(),
        8 => {
            let Some((start, end)) = one.reserved.pop() else { return };
            if end > start {
                one.reserved.extend([(start, start), (start.saturating_add(rng.i32(1..3)).min(end), end)]);
            }
        }
        9 => one.values.reverse(),
        _ => toss_enum(rng, &mut one.options),
    }
}
