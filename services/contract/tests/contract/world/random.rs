//! Makes worlds up.

use fastrand::Rng;

use super::{Enum, Extension, Field, File, Kind, Known, Label, Message, Options, Rpc, SCALARS, Service, Syntax, World};

/// Options of fields, with values that they can have.
const OF_FIELD: [(&str, &[&str]); 11] = [
    ("json_name", &["\"some\"", "\"other\"", "\"field1\"", "\"field_2\""]),
    ("default", &["0", "1", "2"]),
    ("jstype", &["JS_NORMAL", "JS_STRING", "JS_NUMBER"]),
    ("ctype", &["STRING", "CORD", "STRING_PIECE"]),
    ("packed", &["true", "false"]),
    ("deprecated", &["true", "false"]),
    ("features.field_presence", &["EXPLICIT", "IMPLICIT", "LEGACY_REQUIRED"]),
    ("features.repeated_field_encoding", &["PACKED", "EXPANDED"]),
    ("features.utf8_validation", &["VERIFY", "NONE"]),
    ("features.message_encoding", &["LENGTH_PREFIXED", "DELIMITED"]),
    ("features.(pb.cpp).string_type", &["VIEW", "CORD", "STRING"]),
];
const OF_MESSAGE: [(&str, &[&str]); 4] = [
    ("deprecated", &["true", "false"]),
    ("no_standard_descriptor_accessor", &["true", "false"]),
    ("features.json_format", &["ALLOW", "LEGACY_BEST_EFFORT"]),
    ("deprecated_legacy_json_field_conflicts", &["true"]),
];
const OF_ENUM: [(&str, &[&str]); 3] = [
    ("deprecated", &["true"]),
    ("features.enum_type", &["OPEN", "CLOSED"]),
    ("features.json_format", &["ALLOW", "LEGACY_BEST_EFFORT"]),
];
const OF_FILE: [(&str, &[&str]); 25] = [
    ("cc_enable_arenas", &["true", "false"]),
    ("cc_generic_services", &["true", "false"]),
    ("csharp_namespace", &["\"A\"", "\"B\"", "\"\""]),
    ("go_package", &["\"a\"", "\"b\""]),
    ("java_generic_services", &["true", "false"]),
    ("java_multiple_files", &["true", "false"]),
    ("java_outer_classname", &["\"A\"", "\"B\""]),
    ("java_package", &["\"a\"", "\"b\""]),
    ("java_string_check_utf8", &["true", "false"]),
    ("objc_class_prefix", &["\"A\"", "\"B\""]),
    ("optimize_for", &["SPEED", "CODE_SIZE", "LITE_RUNTIME"]),
    ("php_class_prefix", &["\"A\"", "\"B\""]),
    ("php_metadata_namespace", &["\"A\"", "\"B\""]),
    ("php_namespace", &["\"A\"", "\"B\""]),
    ("py_generic_services", &["true", "false"]),
    ("ruby_package", &["\"A\"", "\"B\""]),
    ("swift_prefix", &["\"A\"", "\"B\""]),
    ("features.field_presence", &["EXPLICIT", "IMPLICIT"]),
    ("features.enum_type", &["OPEN", "CLOSED"]),
    ("features.utf8_validation", &["VERIFY", "NONE"]),
    ("features.message_encoding", &["LENGTH_PREFIXED", "DELIMITED"]),
    ("features.repeated_field_encoding", &["PACKED", "EXPANDED"]),
    ("features.json_format", &["ALLOW", "LEGACY_BEST_EFFORT"]),
    ("features.(pb.cpp).string_type", &["VIEW", "CORD", "STRING"]),
    ("features.(pb.java).utf8_validation", &["VERIFY", "DEFAULT"]),
];
const OF_RPC: [(&str, &[&str]); 2] =
    [("idempotency_level", &["IDEMPOTENCY_UNKNOWN", "NO_SIDE_EFFECTS", "IDEMPOTENT"]), ("deprecated", &["true"])];

/// One of some.
pub(super) fn pick<T: Copy>(rng: &mut Rng, some: &[T]) -> T {
    some[rng.usize(..some.len())]
}

/// One in so many times.
pub(super) fn rarely(rng: &mut Rng, times: u8) -> bool {
    rng.u8(..times) == 0
}

/// Sets, changes or takes away one option.
fn toss(rng: &mut Rng, options: &mut Options, table: &[(&'static str, &[&str])]) {
    let (name, values) = pick(rng, table);
    if rarely(rng, 3) {
        options.remove(name);
    } else {
        options.insert(name, pick(rng, values).to_owned());
    }
}

pub(super) fn toss_field(rng: &mut Rng, options: &mut Options) {
    toss(rng, options, &OF_FIELD);
    if rarely(rng, 8) {
        options.insert("features.(pb.java).utf8_validation", pick(rng, &["VERIFY", "DEFAULT"]).to_owned());
    }
}

pub(super) fn toss_message(rng: &mut Rng, options: &mut Options) {
    toss(rng, options, &OF_MESSAGE);
}

pub(super) fn toss_enum(rng: &mut Rng, options: &mut Options) {
    toss(rng, options, &OF_ENUM);
}

pub(super) fn toss_file(rng: &mut Rng, options: &mut Options) {
    toss(rng, options, &OF_FILE);
}

pub(super) fn toss_rpc(rng: &mut Rng, options: &mut Options) {
    toss(rng, options, &OF_RPC);
}

impl World {
    /// Makes one up.
    pub(crate) fn random(rng: &mut Rng, tag: &str) -> Self {
        let mut world = Self { tag: tag.to_owned(), files: Vec::new(), named: 0 };
        let packages = ["v1", "v1", "v1", "sub.v1", "v2"];
        let syntax = pick(rng, &Syntax::ALL);
        for path in ["a.proto", "b.proto", "sub/c.proto"].into_iter().take(rng.usize(1..4)) {
            let file = File {
                path: path.to_owned(),
                package: pick(rng, &packages).to_owned(),
                syntax: if rarely(rng, 4) { pick(rng, &Syntax::ALL) } else { syntax },
                options: Options::new(),
                messages: Vec::new(),
                enums: Vec::new(),
                services: Vec::new(),
                extensions: Vec::new(),
            };
            world.files.push(file);
            world.fill(rng);
        }
        world.mend();
        world
    }

    /// Fills the file that came last.
    fn fill(&mut self, rng: &mut Rng) {
        let last = self.files.len() - 1;
        (0..rng.usize(..4)).for_each(|_| toss_file(rng, &mut self.files[last].options));
        let enums: Vec<Enum> = (0..rng.usize(1..3)).map(|_| self.random_enum(rng)).collect();
        self.files[last].enums = enums;
        for depth in 0..rng.usize(2..5) {
            let message = self.random_message(rng, depth % 3);
            self.files[last].messages.push(message);
        }
        let services: Vec<Service> = (0..rng.usize(..3)).map(|_| self.random_service(rng)).collect();
        self.files[last].services = services;
        for _ in 0..rng.usize(..3) {
            let extension = self.random_extension(rng);
            self.files[last].extensions.extend(extension);
        }
    }

    pub(super) fn name(&mut self) -> usize {
        self.named += 1;
        self.named
    }

    pub(super) fn random_enum(&mut self, rng: &mut Rng) -> Enum {
        let name = format!("E{}", self.name());
        let mut values: Vec<(String, i32)> =
            (0..rng.i32(1..6)).map(|number| (format!("{}_V{number}", name.to_uppercase()), number)).collect();
        if rarely(rng, 3) {
            values.push((format!("{}_ALIAS", name.to_uppercase()), rng.i32(..3)));
        }
        if rarely(rng, 4) {
            values.push((format!("{}_MINUS", name.to_uppercase()), -1));
        }
        let mut one = Enum { name, values, ..Enum::default() };
        if rng.bool() {
            one.reserved =
                pick(rng, &[&[(30, 30), (31, 40)][..], &[(50, i32::MAX)], &[(-9, -5), (20, 22)], &[(7, 9)]]).to_vec();
            one.reserved_names = vec!["ANCIENT".to_owned(), "OLDER".to_owned()];
        }
        if rarely(rng, 3) {
            toss_enum(rng, &mut one.options);
        }
        one
    }

    pub(super) fn random_message(&mut self, rng: &mut Rng, depth: usize) -> Message {
        let number = self.name();
        let mut message = Message {
            name: format!("M{number}"),
            oneofs: ["choice".to_owned(), "pick".to_owned()],
            ..Message::default()
        };
        for number in 1..rng.u32(1..8) {
            let field = self.random_field(rng, number);
            message.fields.push(field);
        }
        if rng.bool() {
            message.reserved =
                pick(rng, &[&[(50, 60)][..], &[(50, 50), (52, 60), (61, 70)], &[(2000, 536_870_911)]]).to_vec();
            message.reserved_names = vec!["ancient".to_owned(), "older".to_owned()];
        }
        if rarely(rng, 3) {
            message.extension_ranges =
                pick(rng, &[&[(100, 199)][..], &[(100, 120), (121, 150), (180, 180)], &[(1000, 536_870_911)]]).to_vec();
        }
        if rarely(rng, 4) {
            toss_message(rng, &mut message.options);
        }
        if depth > 0 {
            if rng.bool() {
                let inner = self.random_message(rng, depth - 1);
                message.messages.push(inner);
            }
            if rng.bool() {
                let inner = self.random_enum(rng);
                message.enums.push(inner);
            }
            if rarely(rng, 4) {
                let inner = self.random_extension(rng);
                message.extensions.extend(inner);
            }
        }
        message
    }

    pub(super) fn random_kind(&self, rng: &mut Rng) -> Kind {
        let known = self.known();
        match rng.u8(..8) {
            0..=2 if !known.is_empty() => Kind::Named(known[rng.usize(..known.len())].full.clone()),
            3 if rarely(rng, 2) => Kind::Group,
            _ => Kind::Scalar(pick(rng, &SCALARS)),
        }
    }

    pub(super) fn random_label(rng: &mut Rng) -> Label {
        pick(
            rng,
            &[
                Label::Plain,
                Label::Plain,
                Label::Optional,
                Label::Required,
                Label::Repeated,
                Label::Map,
                Label::InOneof(0),
                Label::InOneof(1),
            ],
        )
    }

    pub(super) fn random_field(&self, rng: &mut Rng, number: u32) -> Field {
        let mut field = Field {
            name: format!("field_{number}"),
            number,
            kind: self.random_kind(rng),
            label: Self::random_label(rng),
            options: Options::new(),
        };
        (0..rng.usize(..3)).for_each(|_| toss_field(rng, &mut field.options));
        field
    }

    pub(super) fn random_extension(&mut self, rng: &mut Rng) -> Option<Extension> {
        let extensible: Vec<Known> = self.known().into_iter().filter(|one| !one.ranges.is_empty()).collect();
        let place = extensible.len().checked_sub(1).map(|last| rng.usize(..=last))?;
        let Known { full, ranges, .. } = &extensible[place];
        let (start, end) = ranges[rng.usize(..ranges.len())];
        let number = (start + u32::try_from(self.name()).unwrap_or(0) % 30).min(end);
        let mut field = self.random_field(rng, number);
        field.name = format!("ext_{}", self.named);
        Some(Extension { of: full.clone(), field })
    }

    /// `None` in a world without messages.
    pub(super) fn random_rpc(&mut self, rng: &mut Rng) -> Option<Rpc> {
        let messages: Vec<String> = self.known().into_iter().filter(|one| !one.is_enum).map(|one| one.full).collect();
        if messages.is_empty() {
            return None;
        }
        let mut rpc = Rpc {
            name: format!("Call{}", self.name()),
            input: messages[rng.usize(..messages.len())].clone(),
            output: messages[rng.usize(..messages.len())].clone(),
            streams: (rng.bool(), rng.bool()),
            options: Options::new(),
        };
        toss_rpc(rng, &mut rpc.options);
        Some(rpc)
    }

    pub(super) fn random_service(&mut self, rng: &mut Rng) -> Service {
        let name = format!("S{}Service", self.name());
        Service { name, rpcs: (0..rng.usize(..4)).filter_map(|_| self.random_rpc(rng)).collect() }
    }
}
