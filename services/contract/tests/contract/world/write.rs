//! Writes worlds as `.proto` files.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Enum, Extension, Field, File, Kind, Label, Message, Options, Syntax, World};

/// What a writer knows.
struct Context<'a> {
    world: &'a World,
    syntax: Syntax,
    /// Whether fields of the file do not tell that they are absent, if they do not say otherwise.
    is_implicit: bool,
    enums: BTreeSet<String>,
}

impl World {
    /// Writes all files into a folder.
    pub(crate) fn write(&self, root: &Path) {
        for file in &self.files {
            let path = root.join(&self.tag).join(&file.path);
            std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be made");
            std::fs::write(path, self.text(file)).expect("a file can be written");
        }
    }

    /// All files, for people.
    pub(crate) fn show(&self) -> String {
        self.files.iter().map(|file| format!("// {}/{}\n{}", self.tag, file.path, self.text(file))).collect()
    }

    fn text(&self, file: &File) -> String {
        let enums = self.known().into_iter().filter(|one| one.is_enum).map(|one| one.full).collect();
        let is_implicit = file.options.get("features.field_presence").is_some_and(|one| one == "IMPLICIT");
        let context = Context { world: self, syntax: file.syntax, is_implicit, enums };
        let mut body = String::new();
        for one in &file.enums {
            context.one_enum(one, "", &mut body);
        }
        for one in &file.messages {
            context.message(one, "", &mut body);
        }
        for one in &file.extensions {
            context.extension(one, "", &mut body);
        }
        for service in &file.services {
            body.push_str(&format!("service {} {{\n", service.name));
            for rpc in &service.rpcs {
                let stream = |is: bool| if is { "stream " } else { "" };
                let options: String =
                    rpc.options.iter().map(|(name, value)| format!("    option {name} = {value};\n")).collect();
                let end = if options.is_empty() { ";\n".to_owned() } else { format!(" {{\n{options}  }}\n") };
                let (input, output) = (stream(rpc.streams.0), stream(rpc.streams.1));
                let line = format!("  rpc {}({input}{})\n    returns ({output}{})", rpc.name, rpc.input, rpc.output);
                body.push_str(&(line + &end));
            }
            body.push_str("}\n");
        }
        format!("{}{body}", context.head(file, &body))
    }
}

impl Context<'_> {
    fn head(&self, file: &File, body: &str) -> String {
        let mut head = match file.syntax {
            Syntax::Proto2 => "syntax = \"proto2\";\n",
            Syntax::Proto3 => "syntax = \"proto3\";\n",
            Syntax::Edition2023 => "edition = \"2023\";\n",
            Syntax::Edition2024 => "edition = \"2024\";\n",
        }
        .to_owned();
        head.push_str(&format!("package {}.{};\n", self.world.tag, file.package));
        let mut options = String::new();
        if file.syntax == Syntax::Edition2024 {
            options.push_str("option features.enforce_naming_style = STYLE_LEGACY;\n");
            options.push_str("option features.default_symbol_visibility = EXPORT_ALL;\n");
        }
        for (name, value) in &file.options {
            let is_meant = match *name {
                "java_string_check_utf8" => !file.syntax.is_edition(),
                "java_multiple_files" => file.syntax != Syntax::Edition2024,
                name => !name.starts_with("features.") || file.syntax.is_edition(),
            };
            if is_meant {
                options.push_str(&format!("option {name} = {value};\n"));
            }
        }
        for language in ["cpp", "java"] {
            let feature = format!("(pb.{language})");
            if options.contains(&feature) || body.contains(&feature) {
                head.push_str(&format!("import \"google/protobuf/{language}_features.proto\";\n"));
            }
        }
        let names: BTreeSet<&str> =
            body.split([' ', '\n', '(', ')', ',', '>']).filter(|word| word.starts_with('.')).collect();
        let known = self.world.known();
        let files: BTreeSet<usize> =
            known.iter().filter(|one| names.contains(&*one.full)).map(|one| one.file).collect();
        for import in files.into_iter().map(|index| &self.world.files[index]).filter(|one| one.path != file.path) {
            head.push_str(&format!("import \"{}/{}\";\n", self.world.tag, import.path));
        }
        head + &options
    }

    fn names(&self, names: &[String]) -> Vec<String> {
        let quote = if self.syntax.is_edition() { "" } else { "\"" };
        names.iter().map(|name| format!("{quote}{name}{quote}")).collect()
    }

    /// Options of a message or an enum, each on a line.
    fn options(&self, options: &Options, indent: &str, text: &mut String) {
        for (name, value) in options {
            if self.syntax.is_edition() || !name.starts_with("features.") {
                text.push_str(&format!("{indent}  option {name} = {value};\n"));
            }
        }
    }

    fn one_enum(&self, one: &Enum, indent: &str, text: &mut String) {
        text.push_str(&format!("{indent}enum {} {{\n", one.name));
        self.options(&one.options, indent, text);
        let numbers: BTreeSet<i32> = one.values.iter().map(|(_, number)| *number).collect();
        if numbers.len() < one.values.len() {
            text.push_str(&format!("{indent}  option allow_alias = true;\n"));
        }
        for (name, number) in &one.values {
            text.push_str(&format!("{indent}  {name} = {number};\n"));
        }
        for (start, end) in &one.reserved {
            let range = if *end == i32::MAX { format!("{start} to max") } else { span(start, end) };
            text.push_str(&format!("{indent}  reserved {range};\n"));
        }
        if !one.reserved_names.is_empty() {
            text.push_str(&format!("{indent}  reserved {};\n", self.names(&one.reserved_names).join(", ")));
        }
        text.push_str(&format!("{indent}}}\n"));
    }

    fn message(&self, message: &Message, indent: &str, text: &mut String) {
        text.push_str(&format!("{indent}message {} {{\n", message.name));
        self.options(&message.options, indent, text);
        let inner = format!("{indent}  ");
        let ranges = |ranges: &[(u32, u32)]| {
            let all: Vec<String> = ranges
                .iter()
                .map(|(start, end)| if *end == 536_870_911 { format!("{start} to max") } else { span(start, end) })
                .collect();
            all.join(", ")
        };
        if !message.reserved.is_empty() {
            text.push_str(&format!("{inner}reserved {};\n", ranges(&message.reserved)));
        }
        if !message.reserved_names.is_empty() {
            text.push_str(&format!("{inner}reserved {};\n", self.names(&message.reserved_names).join(", ")));
        }
        if !message.extension_ranges.is_empty() && self.syntax != Syntax::Proto3 {
            text.push_str(&format!("{inner}extensions {};\n", ranges(&message.extension_ranges)));
        }
        message.enums.iter().for_each(|one| self.one_enum(one, &inner, text));
        message.messages.iter().for_each(|one| self.message(one, &inner, text));
        for field in message.fields.iter().filter(|field| !matches!(field.label, Label::InOneof(_))) {
            self.field(field, false, &inner, text);
        }
        for (number, name) in (0..).zip(&message.oneofs) {
            let members: Vec<&Field> =
                message.fields.iter().filter(|field| field.label == Label::InOneof(number)).collect();
            if !members.is_empty() {
                text.push_str(&format!("{inner}oneof {name} {{\n"));
                members.into_iter().for_each(|field| self.field(field, false, &format!("{inner}  "), text));
                text.push_str(&format!("{inner}}}\n"));
            }
        }
        message.extensions.iter().for_each(|one| self.extension(one, &inner, text));
        text.push_str(&format!("{indent}}}\n"));
    }

    fn extension(&self, extension: &Extension, indent: &str, text: &mut String) {
        if self.syntax == Syntax::Proto3 {
            return;
        }
        text.push_str(&format!("{indent}extend {} {{\n", extension.of));
        let mut field = extension.field.clone();
        if !matches!(field.label, Label::Repeated) {
            field.label = Label::Optional;
        }
        self.field(&field, true, &format!("{indent}  "), text);
        text.push_str(&format!("{indent}}}\n"));
    }

    fn field(&self, field: &Field, is_extension: bool, indent: &str, text: &mut String) {
        let label = match (field.label, self.syntax) {
            (Label::Repeated, _) => "repeated ",
            (Label::Required, Syntax::Proto2) => "required ",
            (Label::Plain | Label::Optional, Syntax::Proto2) | (Label::Optional, Syntax::Proto3) => "optional ",
            _ => "",
        };
        if field.kind == Kind::Group && self.syntax == Syntax::Proto2 && field.label != Label::Map {
            let name = format!("Grp{}", field.number);
            text.push_str(&format!(
                "{indent}{label}group {name} = {} {{\n{indent}  optional int32 of_group = 1;\n{indent}}}\n",
                field.number
            ));
            return;
        }
        let kind = match &field.kind {
            Kind::Scalar(name) => (*name).to_owned(),
            Kind::Named(name) => name.clone(),
            Kind::Group => "int32".to_owned(),
        };
        let mut options: Vec<String> = Vec::new();
        for (name, value) in &field.options {
            options.extend(self.option(field, &kind, is_extension, name, value));
        }
        let kind = if field.label == Label::Map { format!("map<string, {kind} >") } else { kind };
        let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join(", ")) };
        text.push_str(&format!("{indent}{label}{kind} {} = {}{options};\n", field.name, field.number));
    }

    /// One option as it stands at a field, if it may stand there.
    fn option(&self, field: &Field, kind: &str, is_extension: bool, name: &str, value: &str) -> Option<String> {
        let (is_map, is_many) = (field.label == Label::Map, matches!(field.label, Label::Repeated | Label::Map));
        let is_text = kind == "string";
        let is_named = kind.starts_with('.');
        let is_message = is_named && !self.enums.contains(kind);
        let is_wide = kind.ends_with("64");
        let is_packable = !is_message && !is_text && kind != "bytes";
        let edition = self.syntax.is_edition();
        let may = match name {
            "json_name" => !is_extension,
            "default" => {
                let own = field.options.get("features.field_presence");
                let implicit = edition && own.map_or(self.is_implicit && !is_extension, |one| one == "IMPLICIT");
                self.syntax != Syntax::Proto3 && !is_many && !is_named && !implicit
            }
            "jstype" => is_wide && !is_map,
            "ctype" => (is_text || kind == "bytes") && self.syntax != Syntax::Edition2024 && !is_map && !is_extension,
            "packed" => field.label == Label::Repeated && is_packable && !edition,
            "features.field_presence" => {
                let is_its_own = edition && !is_many && !is_extension && !matches!(field.label, Label::InOneof(_));
                is_its_own && !(is_message && value == "IMPLICIT")
            }
            "features.repeated_field_encoding" => edition && field.label == Label::Repeated && is_packable,
            "features.utf8_validation" | "features.(pb.java).utf8_validation" => edition && is_text && !is_map,
            "features.message_encoding" => edition && is_message && !is_map,
            "features.(pb.cpp).string_type" => {
                edition
                    && (is_text || kind == "bytes")
                    && !is_map
                    && !field.options.contains_key("ctype")
                    && !(is_extension && value == "CORD")
            }
            _ => true,
        };
        let value = match (name, kind) {
            ("json_name", _) => format!("\"{}{}\"", value.trim_matches('"'), field.number),
            ("default", "bool") => if value == "0" { "false" } else { "true" }.to_owned(),
            ("default", "string" | "bytes") => format!("\"{value}\\001\\\"\""),
            ("default", "double" | "float") => {
                ["nan", "-inf", "1.5e10"][usize::from(value.as_bytes()[0] - b'0')].to_owned()
            }
            _ => value.to_owned(),
        };
        may.then(|| format!("{name} = {value}"))
    }
}

fn span<T: PartialEq + std::fmt::Display>(start: &T, end: &T) -> String {
    if start == end { start.to_string() } else { format!("{start} to {end}") }
}
