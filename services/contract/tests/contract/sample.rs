//! Random schemas that are valid, and random changes of them.

use std::fmt::Write as _;

use fastrand::Rng;

/// How a schema is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Proto2,
    Proto3,
    Edition,
}

#[derive(Clone)]
struct Field {
    name: String,
    number: u32,
    kind: String,
    label: Label,
    json_name: Option<String>,
    default: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Plain,
    Optional,
    Repeated,
    Map,
    InOneof(u8),
}

#[derive(Clone)]
struct Message {
    name: String,
    fields: Vec<Field>,
    reserved: Vec<u32>,
    reserved_names: Vec<String>,
}

#[derive(Clone)]
struct Enum {
    name: String,
    values: Vec<(String, i32)>,
    reserved: Vec<i32>,
}

#[derive(Clone)]
struct Rpc {
    name: String,
    input: String,
    output: String,
    streams: (bool, bool),
    is_idempotent: bool,
}

/// A file that makes sense.
#[derive(Clone)]
pub(crate) struct Sample {
    syntax: Syntax,
    go_package: Option<String>,
    messages: Vec<Message>,
    enums: Vec<Enum>,
    services: Vec<(String, Vec<Rpc>)>,
}

const SCALARS: [&str; 15] = [
    "int32", "int64", "uint32", "uint64", "sint32", "sint64", "bool", "string", "bytes", "fixed32", "fixed64",
    "sfixed32", "sfixed64", "double", "float",
];

impl Sample {
    /// Makes one up.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let syntax = [Syntax::Proto2, Syntax::Proto3, Syntax::Edition][rng.usize(..3)];
        let names: Vec<String> = (0..rng.usize(2..5)).map(|index| format!("Message{index}")).collect();
        let enums: Vec<Enum> = (0..rng.usize(1..3)).map(|index| random_enum(rng, index)).collect();
        let mut sample = Self {
            syntax,
            go_package: rng.bool().then(|| "shop".to_owned()),
            messages: Vec::new(),
            enums,
            services: Vec::new(),
        };
        for name in &names {
            let empty =
                Message { name: name.clone(), fields: Vec::new(), reserved: Vec::new(), reserved_names: Vec::new() };
            sample.messages.push(empty);
        }
        for index in 0..names.len() {
            for number in 1..rng.u32(2..7) {
                let field = sample.random_field(rng, number);
                sample.messages[index].fields.push(field);
            }
            if rng.bool() {
                sample.messages[index].reserved.extend([rng.u32(50..60), rng.u32(60..70)]);
                sample.messages[index].reserved_names.push("ancient".to_owned());
            }
        }
        for index in 0..rng.usize(..3) {
            let rpcs = (0..rng.usize(1..4)).map(|number| sample.random_rpc(rng, number)).collect();
            sample.services.push((format!("Sample{index}Service"), rpcs));
        }
        sample
    }

    fn random_kind(&self, rng: &mut Rng) -> String {
        match rng.u8(..6) {
            0 if !self.messages.is_empty() => self.messages[rng.usize(..self.messages.len())].name.clone(),
            1 if !self.enums.is_empty() => self.enums[rng.usize(..self.enums.len())].name.clone(),
            _ => SCALARS[rng.usize(..SCALARS.len())].to_owned(),
        }
    }

    fn random_field(&self, rng: &mut Rng, number: u32) -> Field {
        let label = [Label::Plain, Label::Optional, Label::Repeated, Label::Map, Label::InOneof(0), Label::InOneof(1)];
        Field {
            name: format!("field_{number}"),
            number,
            kind: self.random_kind(rng),
            label: label[rng.usize(..label.len())],
            json_name: (rng.u8(..6) == 0).then(|| format!("json{number}")),
            default: (rng.u8(..4) == 0).then(|| rng.u32(..3)),
        }
    }

    fn random_rpc(&self, rng: &mut Rng, number: usize) -> Rpc {
        let message = |rng: &mut Rng| self.messages[rng.usize(..self.messages.len())].name.clone();
        Rpc {
            name: format!("Call{number}"),
            input: message(rng),
            output: message(rng),
            streams: (rng.bool(), rng.bool()),
            is_idempotent: rng.bool(),
        }
    }

    /// Changes something; what comes out is valid too.
    pub(crate) fn change(&mut self, rng: &mut Rng) {
        match rng.u8(..10) {
            0..=4 => self.change_message(rng),
            5 | 6 => self.change_enum(rng),
            7 | 8 => self.change_service(rng),
            _ => self.change_whole(rng),
        }
        self.mend();
    }

    fn change_message(&mut self, rng: &mut Rng) {
        let index = rng.usize(..self.messages.len());
        let number = rng.u32(20..40);
        let fresh = self.random_field(rng, number);
        let message = &mut self.messages[index];
        if message.fields.is_empty() || rng.u8(..8) == 0 {
            if message.fields.iter().all(|field| field.number != fresh.number) {
                message.fields.push(fresh);
            }
            return;
        }
        let place = rng.usize(..message.fields.len());
        match rng.u8(..9) {
            0 => {
                let gone = message.fields.remove(place);
                if rng.bool() {
                    message.reserved.push(gone.number);
                }
                if rng.bool() {
                    message.reserved_names.push(gone.name);
                }
            }
            1 => message.fields[place].name = format!("renamed_{}", message.fields[place].number),
            2 | 3 => message.fields[place].kind = fresh.kind,
            4 => message.fields[place].label = fresh.label,
            5 => message.fields[place].json_name = fresh.json_name,
            6 => message.fields[place].default = fresh.default,
            7 => message.fields[place].number += 100,
            _ => _ = message.reserved.pop().map(|_| message.reserved_names.pop()),
        }
    }

    fn change_enum(&mut self, rng: &mut Rng) {
        let Some(index) = self.enums.len().checked_sub(1).map(|last| rng.usize(..=last)) else { return };
        let one = &mut self.enums[index];
        let place = rng.usize(..one.values.len());
        match rng.u8(..5) {
            0 if one.values.len() > 1 && place > 0 => {
                let (_, number) = one.values.remove(place);
                if rng.bool() {
                    one.reserved.push(number);
                }
            }
            1 => one.values[place].0 = format!("{}_NEW", one.values[place].0),
            2 => one.reserved.clear(),
            3 if place > 0 => one.values[place].1 += 10,
            _ => _ = (rng.u8(..4) == 0).then(|| self.enums.remove(index)),
        }
    }

    fn change_service(&mut self, rng: &mut Rng) {
        let Some(last) = self.services.len().checked_sub(1) else { return };
        let index = rng.usize(..=last);
        let fresh = self.random_rpc(rng, 7);
        let rpcs = &mut self.services[index].1;
        if rpcs.is_empty() {
            return;
        }
        let place = rng.usize(..rpcs.len());
        match rng.u8(..7) {
            0 => _ = rpcs.remove(place),
            1 => rpcs[place].input = fresh.input,
            2 => rpcs[place].output = fresh.output,
            3 => rpcs[place].streams = fresh.streams,
            4 => rpcs[place].is_idempotent = fresh.is_idempotent,
            5 => rpcs[place].name = format!("{}New", rpcs[place].name),
            _ => _ = self.services.remove(index),
        }
    }

    fn change_whole(&mut self, rng: &mut Rng) {
        match rng.u8(..3) {
            0 => self.syntax = [Syntax::Proto2, Syntax::Proto3, Syntax::Edition][rng.usize(..3)],
            1 => self.go_package = rng.bool().then(|| format!("shop{}", rng.u8(..3))),
            _ if self.messages.len() > 1 => _ = self.messages.remove(rng.usize(..self.messages.len())),
            _ => {}
        }
    }

    /// Whoever named what is gone names something else.
    fn mend(&mut self) {
        let messages: Vec<String> = self.messages.iter().map(|message| message.name.clone()).collect();
        let enums: Vec<String> = self.enums.iter().map(|one| one.name.clone()).collect();
        for message in &mut self.messages {
            for field in &mut message.fields {
                let is_known = SCALARS.contains(&field.kind.as_str())
                    || messages.contains(&field.kind)
                    || enums.contains(&field.kind);
                if !is_known {
                    "int32".clone_into(&mut field.kind);
                }
            }
            let (fields, names): (Vec<u32>, Vec<&String>) =
                message.fields.iter().map(|field| (field.number, &field.name)).unzip();
            message.reserved.retain(|number| !fields.contains(number));
            message.reserved.sort_unstable();
            message.reserved.dedup();
            message.reserved_names.retain(|name| !names.contains(&name));
            message.reserved_names.sort_unstable();
            message.reserved_names.dedup();
        }
        for one in &mut self.enums {
            let mut numbers = Vec::new();
            one.values.retain(|(_, number)| {
                let is_new = !numbers.contains(number);
                numbers.push(*number);
                is_new
            });
            one.reserved.retain(|number| !numbers.contains(number));
            one.reserved.sort_unstable();
            one.reserved.dedup();
        }
        for rpc in self.services.iter_mut().flat_map(|(_, rpcs)| rpcs) {
            for side in [&mut rpc.input, &mut rpc.output] {
                if !messages.contains(side) {
                    side.clone_from(&messages[0]);
                }
            }
        }
    }

    /// As a `.proto` file.
    pub(crate) fn write(&self) -> String {
        let head = match self.syntax {
            Syntax::Proto2 => "syntax = \"proto2\";",
            Syntax::Proto3 => "syntax = \"proto3\";",
            Syntax::Edition => "edition = \"2023\";",
        };
        let mut text = format!("{head}\npackage shop.v1;\n");
        if let Some(package) = &self.go_package {
            text.push_str(&format!("option go_package = {package:?};\n"));
        }
        for one in &self.enums {
            text.push_str(&format!("enum {} {{\n", one.name));
            one.values.iter().for_each(|(name, number)| text.push_str(&format!("  {name} = {number};\n")));
            one.reserved.iter().for_each(|number| text.push_str(&format!("  reserved {number};\n")));
            text.push_str("}\n");
        }
        self.messages.iter().for_each(|message| self.write_message(message, &mut text));
        for (name, rpcs) in &self.services {
            text.push_str(&format!("service {name} {{\n"));
            for rpc in rpcs {
                let stream = |is: bool| if is { "stream " } else { "" };
                let options = if rpc.is_idempotent { "{ option idempotency_level = IDEMPOTENT; }" } else { ";" };
                let (input, output) = (stream(rpc.streams.0), stream(rpc.streams.1));
                text.push_str(&format!(
                    "  rpc {}({input}{}) returns ({output}{}) {options}\n",
                    rpc.name, rpc.input, rpc.output
                ));
            }
            text.push_str("}\n");
        }
        text
    }

    fn write_message(&self, message: &Message, text: &mut String) {
        text.push_str(&format!("message {} {{\n", message.name));
        message.reserved.iter().for_each(|number| text.push_str(&format!("  reserved {number};\n")));
        for name in &message.reserved_names {
            let quote = if self.syntax == Syntax::Edition { "" } else { "\"" };
            text.push_str(&format!("  reserved {quote}{name}{quote};\n"));
        }
        for field in message.fields.iter().filter(|field| !matches!(field.label, Label::InOneof(_))) {
            self.write_field(field, text);
        }
        for oneof in 0..2 {
            let members: Vec<&Field> =
                message.fields.iter().filter(|field| field.label == Label::InOneof(oneof)).collect();
            if !members.is_empty() {
                text.push_str(&format!("  oneof choice_{oneof} {{\n"));
                members.into_iter().for_each(|field| self.write_field(field, text));
                text.push_str("  }\n");
            }
        }
        text.push_str("}\n");
    }

    fn write_field(&self, field: &Field, text: &mut String) {
        let Field { name, number, kind, label, json_name, default } = field;
        let label = match (label, self.syntax) {
            (Label::Repeated, _) => "repeated ",
            (Label::Plain | Label::Optional, Syntax::Proto2) | (Label::Optional, Syntax::Proto3) => "optional ",
            _ => "",
        };
        let kind = if field.label == Label::Map { format!("map<string, {kind}>") } else { kind.clone() };
        let mut options = Vec::new();
        options.extend(json_name.as_ref().map(|name| format!("json_name = {name:?}")));
        let is_number = SCALARS[..6].contains(&kind.as_str()) && field.label != Label::Repeated;
        if let Some(default) = default.filter(|_| is_number && self.syntax != Syntax::Proto3) {
            options.push(format!("default = {default}"));
        }
        let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join(", ")) };
        writeln!(text, "    {label}{kind} {name} = {number}{options};").expect("a text takes what is written to it");
    }
}

fn random_enum(rng: &mut Rng, index: usize) -> Enum {
    let values = (0..rng.i32(1..5)).map(|number| (format!("ENUM{index}_VALUE_{number}"), number)).collect();
    Enum { name: format!("Enum{index}"), values, reserved: if rng.bool() { vec![30, 31] } else { Vec::new() } }
}
