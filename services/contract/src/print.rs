//! Writes a package as `.proto` sources again: comments, options and extensions kept, for every compiler to take. Pure.
//!
//! What a descriptor does not carry cannot come back: comments that stand apart, the order of parts of different kinds, the
//! options of extension ranges.

mod names;
mod options;

use std::fmt::Write as _;

use crate::schema::{Edition, Enum, Field, File, Kind, Label, Message, Oneof, Schema, Service};
use names::Scope;
pub(crate) use names::json_name;
use options::Container;

/// What is written where.
pub(crate) struct Source {
    /// Path of the file.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

/// Writes all files of a package, by name.
///
/// # Errors
/// What cannot be written, as a sentence fragment: an option whose definition is not in the set.
pub(crate) fn package(schema: &Schema, package: &str) -> Result<Vec<Source>, String> {
    let packages = schema.packages();
    let files = packages.get(package).into_iter().flatten();
    files.map(|file| write_file(schema, &file.name)).collect()
}

/// Writes one file.
///
/// # Errors
/// As [`package`].
pub(crate) fn write_file(schema: &Schema, name: &str) -> Result<Source, String> {
    let place = schema.files().iter().position(|file| &*file.name == name);
    let place = place.ok_or_else(|| format!("{name} is not in the set"))?;
    let mut printer = Printer { schema, file: schema.file_at(place), place, text: String::new(), depth: 0 };
    printer.whole()?;
    Ok(Source { name: name.to_owned(), text: printer.text })
}

struct Printer<'a> {
    schema: &'a Schema,
    file: &'a File,
    place: usize,
    text: String,
    depth: usize,
}

type Done = Result<(), String>;

impl<'a> Printer<'a> {
    fn line(&mut self, text: impl AsRef<str>) {
        if !text.as_ref().is_empty() {
            self.text.extend(std::iter::repeat_n("  ", self.depth));
        }
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    fn gap(&mut self) {
        if !self.text.ends_with("\n\n") && !self.text.ends_with("{\n") && !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    fn comment(&mut self, path: &[i32]) {
        let text = self.schema.comments(self.place, path).leading;
        for line in text.trim_end_matches('\n').split('\n').filter(|_| !text.is_empty()) {
            self.line(format!("//{}", line.trim_end()));
        }
    }

    /// What stands behind a part, which it gets before the next one.
    fn trailing(&mut self, path: &[i32]) {
        let text = self.schema.comments(self.place, path).trailing;
        if text.is_empty() {
            return;
        }
        for line in text.trim_end_matches('\n').split('\n') {
            self.line(format!("//{}", line.trim_end()));
        }
        // Without a gap it would lead the next part.
        self.text.push('\n');
    }

    fn scope(&self, inside: &str) -> Scope<'a> {
        Scope::new(self.schema, if inside.is_empty() { &self.file.package } else { inside })
    }

    fn whole(&mut self) -> Done {
        self.comment(&[12]);
        match self.file.edition {
            Edition::Proto2 => self.line("syntax = \"proto2\";"),
            Edition::Proto3 => self.line("syntax = \"proto3\";"),
            Edition::Edition(1000) => self.line("edition = \"2023\";"),
            Edition::Edition(1001) => self.line("edition = \"2024\";"),
            Edition::Edition(number) => {
                return Err(format!("{} has an edition without a name ({number})", self.file.name));
            }
        }
        if !self.file.package.is_empty() {
            self.gap();
            self.comment(&[2]);
            self.line(format!("package {};", self.file.package));
        }
        self.gap();
        for import in &self.file.imports {
            let word = if import.is_public {
                "public "
            } else if import.is_option {
                "option "
            } else {
                ""
            };
            self.line(format!("import {word}\"{}\";", import.name));
        }
        self.gap();
        let options =
            options::list(self.schema, &self.scope(""), &self.schema.file_options(self.file), Container::File)?;
        options.iter().for_each(|(name, value)| self.line(format!("option {name} = {value};")));
        self.parts()
    }

    fn parts(&mut self) -> Done {
        let (schema, place) = (self.schema, self.place);
        for service in schema.services().iter().filter(|one| one.file == place) {
            self.gap();
            self.service(service)?;
        }
        for (index, message) in schema.messages().iter().enumerate() {
            if message.file == place && message.parent.is_none() && !self.is_group(index) {
                self.gap();
                self.message(index, message, &format!("message {}", message.name()))?;
            }
        }
        for one in schema.enums().iter().filter(|one| one.file == place && one.parent.is_none()) {
            self.gap();
            self.enumeration(one)?;
        }
        self.extensions(None, "")
    }

    fn service(&mut self, service: &Service) -> Done {
        let schema = self.schema;
        let scope = self.scope(&service.full);
        self.comment(&service.path);
        self.line(format!("service {} {{", service.name()));
        self.depth += 1;
        self.trailing(&service.path);
        let options = options::list(schema, &scope, &schema.service_options(service), Container::Service)?;
        options.iter().for_each(|(name, value)| self.line(format!("option {name} = {value};")));
        for method in &service.methods {
            self.comment(&method.path);
            let stream = |is_stream| if is_stream { "stream " } else { "" };
            let head = format!(
                "rpc {}({}{}) returns ({}{})",
                method.name,
                stream(method.is_client_streaming),
                scope.reference(&method.input),
                stream(method.is_server_streaming),
                scope.reference(&method.output)
            );
            let options = options::list(schema, &scope, &schema.method_options(method), Container::Method)?;
            if options.is_empty() {
                self.line(format!("{head};"));
            } else {
                self.line(format!("{head} {{"));
                self.depth += 1;
                options.iter().for_each(|(name, value)| self.line(format!("option {name} = {value};")));
                self.depth -= 1;
                self.line("}");
            }
            self.trailing(&method.path);
        }
        self.depth -= 1;
        self.line("}");
        Ok(())
    }

    /// Whether a message is the body of a group of proto2, which is written with its field.
    fn is_group(&self, index: usize) -> bool {
        let Some(message) = self.schema.messages().get(index) else { return false };
        let parent = message.parent.and_then(|parent| self.schema.messages().get(parent));
        let siblings = parent.map(|parent| parent.fields.as_slice()).unwrap_or_default();
        let is_mine = |field: &&Field| field.written_kind == Kind::Group && field.type_name == message.full;
        siblings.iter().chain(self.schema.extensions()).any(|field| is_mine(&field))
    }

    fn message(&mut self, index: usize, message: &Message, head: &str) -> Done {
        self.comment(&message.path);
        self.line(format!("{head} {{"));
        self.body(index, message)?;
        self.line("}");
        Ok(())
    }

    fn body(&mut self, index: usize, message: &Message) -> Done {
        let schema = self.schema;
        self.depth += 1;
        self.trailing(&message.path);
        let scope = self.scope(&message.full);
        let options = options::list(schema, &scope, &schema.message_options(message), Container::Message)?;
        options.iter().for_each(|(name, value)| self.line(format!("option {name} = {value};")));
        self.reserved(&message.reserved, &message.reserved_names);
        if !message.extension_ranges.is_empty() {
            self.line(format!("extensions {};", ranges(&message.extension_ranges, names::FIELD_NUMBER_MAX)));
        }
        for (inner_index, inner) in schema.messages().iter().enumerate() {
            if inner.parent == Some(index) && !inner.is_map_entry && !self.is_group(inner_index) {
                self.gap();
                self.message(inner_index, inner, &format!("message {}", inner.name()))?;
                self.gap();
            }
        }
        for one in schema.enums().iter().filter(|one| one.parent == Some(index)) {
            self.gap();
            self.enumeration(one)?;
            self.gap();
        }
        let mut written = vec![false; message.oneofs.len()];
        for field in &message.fields {
            match field.oneof.and_then(|place| Some((place, message.oneofs.get(place)?))) {
                Some((_, oneof)) if oneof.is_synthetic => self.field(field, &scope)?,
                Some((place, oneof)) => {
                    if !std::mem::replace(&mut written[place], true) {
                        let members = message.fields.iter().filter(|member| member.oneof == Some(place));
                        self.oneof(oneof, members, &scope)?;
                    }
                }
                None => self.field(field, &scope)?,
            }
        }
        self.extensions(Some(index), &message.full)?;
        self.depth -= 1;
        Ok(())
    }

    fn oneof<'f>(&mut self, oneof: &Oneof, members: impl Iterator<Item = &'f Field>, scope: &Scope<'_>) -> Done {
        self.comment(&oneof.path);
        self.line(format!("oneof {} {{", oneof.name));
        self.depth += 1;
        self.trailing(&oneof.path);
        let options = options::list(self.schema, scope, &self.schema.oneof_options(oneof), Container::Oneof)?;
        options.iter().for_each(|(name, value)| self.line(format!("option {name} = {value};")));
        for member in members {
            self.field(member, scope)?;
        }
        self.depth -= 1;
        self.line("}");
        Ok(())
    }

    fn field(&mut self, field: &Field, scope: &Scope<'_>) -> Done {
        self.comment(&field.path);
        let label = self.label(field);
        let options = self.field_options(field, scope)?;
        if field.written_kind == Kind::Group {
            return self.group(field, label, &options);
        }
        let typed = self.type_of(field, scope)?;
        self.line(format!("{label}{typed} {} = {}{options};", field.name(), field.number));
        self.trailing(&field.path);
        Ok(())
    }

    fn group(&mut self, field: &Field, label: &str, options: &str) -> Done {
        let found = self.schema.messages().iter().enumerate().find(|(_, message)| message.full == field.type_name);
        let (index, message) = found.ok_or_else(|| format!("{} has no body", field.full))?;
        self.line(format!("{label}group {} = {}{options} {{", message.name(), field.number));
        self.body(index, message)?;
        self.line("}");
        Ok(())
    }

    fn label(&self, field: &Field) -> &'static str {
        let is_in_oneof = field.oneof.is_some() && !field.is_proto3_optional;
        match field.label {
            _ if field.is_map || is_in_oneof => "",
            Label::Repeated => "repeated ",
            Label::Required if self.file.edition == Edition::Proto2 => "required ",
            Label::Optional if self.file.edition == Edition::Proto2 || field.is_proto3_optional => "optional ",
            Label::Required | Label::Optional => "",
        }
    }

    fn type_of(&self, field: &Field, scope: &Scope<'_>) -> Result<String, String> {
        if field.is_map {
            let entry = self.schema.message(&field.type_name).ok_or_else(|| format!("{} has no entry", field.full))?;
            let part = |number| entry.field(number).ok_or_else(|| format!("{} has no entry", field.full));
            return Ok(format!("map<{}, {}>", plain_type(part(1)?, scope), plain_type(part(2)?, scope)));
        }
        Ok(plain_type(field, scope))
    }

    fn field_options(&self, field: &Field, scope: &Scope<'_>) -> Result<String, String> {
        let mut told = Vec::new();
        if let Some(default) = &field.default {
            let text = match field.kind {
                Kind::String => options::quoted(default.as_bytes()),
                // A default of bytes is kept with its escapes.
                Kind::Bytes => format!("\"{default}\""),
                _ => default.to_string(),
            };
            told.push(format!("default = {text}"));
        }
        if !field.is_extension() && *field.json_name != *names::json_name(field.name()) {
            told.push(format!("json_name = {}", options::quoted(field.json_name.as_bytes())));
        }
        let options = options::list(self.schema, scope, &self.schema.field_options(field), Container::Field)?;
        told.extend(options.into_iter().map(|(name, value)| format!("{name} = {value}")));
        Ok(if told.is_empty() { String::new() } else { format!(" [{}]", told.join(", ")) })
    }

    fn enumeration(&mut self, one: &Enum) -> Done {
        let schema = self.schema;
        let scope = self.scope(&one.full);
        self.comment(&one.path);
        self.line(format!("enum {} {{", one.name()));
        self.depth += 1;
        self.trailing(&one.path);
        let options = options::list(schema, &scope, &schema.enum_options(one), Container::Enum)?;
        options.iter().for_each(|(name, value)| self.line(format!("option {name} = {value};")));
        self.reserved(&one.reserved, &one.reserved_names);
        for value in &one.values {
            self.comment(&value.path);
            let options = options::list(schema, &scope, &schema.value_options(value), Container::Value)?;
            let told: Vec<String> = options.into_iter().map(|(name, value)| format!("{name} = {value}")).collect();
            let told = if told.is_empty() { String::new() } else { format!(" [{}]", told.join(", ")) };
            self.line(format!("{} = {}{told};", value.name, value.number));
            self.trailing(&value.path);
        }
        self.depth -= 1;
        self.line("}");
        Ok(())
    }

    fn reserved(&mut self, numbers: &[(i32, i32)], names: &[Box<str>]) {
        if !numbers.is_empty() {
            let is_of_enum = numbers.iter().any(|(_, end)| *end > names::FIELD_NUMBER_MAX);
            let max = if is_of_enum { i32::MAX } else { names::FIELD_NUMBER_MAX };
            self.line(format!("reserved {};", ranges(numbers, max)));
        }
        if !names.is_empty() {
            let are_words = matches!(self.file.edition, Edition::Edition(_));
            let all: Vec<String> =
                names.iter().map(|name| if are_words { name.to_string() } else { format!("\"{name}\"") }).collect();
            self.line(format!("reserved {};", all.join(", ")));
        }
    }

    /// Extensions that are written in a message, or in none.
    fn extensions(&mut self, parent: Option<usize>, inside: &str) -> Done {
        let (schema, place) = (self.schema, self.place);
        let mut open: Option<&str> = None;
        let scope = self.scope(inside);
        for field in schema.extensions().iter().filter(|one| one.file == place && one.parent == parent) {
            if open != Some(&*field.extendee) {
                if open.is_some() {
                    self.depth -= 1;
                    self.line("}");
                }
                self.gap();
                self.line(format!("extend {} {{", scope.reference(&field.extendee)));
                self.depth += 1;
                open = Some(&*field.extendee);
            }
            self.field(field, &scope)?;
        }
        if open.is_some() {
            self.depth -= 1;
            self.line("}");
        }
        Ok(())
    }
}

fn plain_type(field: &Field, scope: &Scope<'_>) -> String {
    if field.written_kind.is_named() { scope.reference(&field.type_name) } else { field.kind.as_str().to_owned() }
}

fn ranges(numbers: &[(i32, i32)], max: i32) -> String {
    let mut text = String::new();
    for (place, (first, last)) in numbers.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = match last {
            last if last == first => write!(text, "{comma}{first}"),
            last if *last >= max => write!(text, "{comma}{first} to max"),
            last => write!(text, "{comma}{first} to {last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests;
