//! How long it takes to hold a package of 500 messages against its predecessor, what 1,000 packages take in memory, and
//! what buf needs for the same check.
//!
//! `cargo run --release -p bench-contract`. buf is taken from the path, or from the folder that `NINEFOLD_TOOLS` names;
//! without it the row is left out.

#![expect(clippy::print_stdout, reason = "the table is what this is for")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ninefold_contract::schema::Packed;
use ninefold_contract::{Level, Limits, RuleSet, Schema, rules};
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::source_code_info::Location;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto, SourceCodeInfo,
};

/// Messages of the package that is checked.
const MESSAGES: i32 = 500;
/// Fields of each message.
const FIELDS: i32 = 12;
/// Packages of the landscape, and messages of each.
const PACKAGES: i32 = 1000;
const PACKAGE_MESSAGES: i32 = 50;
const ROUNDS: usize = 20;

/// A package with comments and lines. In a later revision one field of each tenth message has another type.
fn package(name: &str, messages: i32, is_later: bool) -> Vec<u8> {
    let (mut types, mut rpcs, mut locations) = (Vec::new(), Vec::new(), Vec::new());
    let mut locate = |path: Vec<i32>, line: i32| {
        let leading_comments =
            path.len().is_multiple_of(2).then(|| format!(" What part {line} is for, in a sentence.\n"));
        locations.push(Location { path, span: vec![line, 2, 40], leading_comments, ..Location::default() });
    };
    for message in 0..messages {
        locate(vec![4, message], message * 20);
        let fields = (0..FIELDS).map(|field| {
            let line = message * 20 + field + 1;
            locate(vec![4, message, 2, field], line);
            [1, 3, 5].into_iter().for_each(|part| locate(vec![4, message, 2, field, part], line));
            let is_changed = is_later && message % 10 == 0 && field == 0;
            FieldDescriptorProto {
                name: Some(format!("field_{field}")),
                number: Some(field + 1),
                label: Some(1),
                r#type: Some(if is_changed { Type::Int64 } else { Type::String }.into()),
                json_name: Some(format!("field{field}")),
                ..FieldDescriptorProto::default()
            }
        });
        let field = fields.collect();
        types.push(DescriptorProto { name: Some(format!("Message{message}")), field, ..DescriptorProto::default() });
        rpcs.push(MethodDescriptorProto {
            name: Some(format!("Call{message}")),
            input_type: Some(format!(".{name}.Message{message}")),
            output_type: Some(format!(".{name}.Message{}", (message + 1) % messages)),
            ..MethodDescriptorProto::default()
        });
    }
    let service = ServiceDescriptorProto { name: Some("ItemService".to_owned()), method: rpcs, options: None };
    let file = FileDescriptorProto {
        name: Some(format!("{}/items.proto", name.replace('.', "/"))),
        package: Some(name.to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: types,
        service: vec![service],
        source_code_info: Some(SourceCodeInfo { location: locations }),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

fn parse(bytes: &[u8]) -> Schema {
    Schema::parse(bytes.to_vec(), &Limits::default()).expect("what is made here is well")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn time(mut what: impl FnMut()) -> Duration {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        what();
        start.elapsed()
    });
    median(times.collect())
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// What buf takes for the same check, if it is here.
fn buf(old: &[u8], new: &[u8]) -> Option<Duration> {
    let tools = std::env::var("NINEFOLD_TOOLS").map(|tools| format!("{tools}/bin/buf"));
    let buf = tools.ok().filter(|path| Path::new(path).exists()).unwrap_or_else(|| "buf".to_owned());
    let folder = std::env::temp_dir().join(format!("bench-contract-{}", std::process::id()));
    std::fs::create_dir_all(&folder).ok()?;
    let (old_set, new_set) = (folder.join("old.binpb"), folder.join("new.binpb"));
    std::fs::write(&old_set, old).and_then(|()| std::fs::write(&new_set, new)).ok()?;
    let config = "{\"version\":\"v2\",\"breaking\":{\"use\":[\"WIRE_JSON\"]}}";
    let mut is_there = true;
    let took = time(|| {
        let ran = Command::new(&buf)
            .arg("breaking")
            .arg(&new_set)
            .arg("--against")
            .arg(&old_set)
            .args(["--config", config])
            .output();
        is_there &= ran.is_ok_and(|output| output.status.code() == Some(100));
    });
    std::fs::remove_dir_all(&folder).ok()?;
    is_there.then_some(took)
}

fn main() {
    let (old_bytes, new_bytes) = (package("shop.v1", MESSAGES, false), package("shop.v1", MESSAGES, true));
    let (old, new) = (parse(&old_bytes), parse(&new_bytes));
    let rules = RuleSet::level(Level::Runtime);
    let read = time(|| drop(parse(&new_bytes)));
    let check = time(|| drop(rules::check(&old, &new, &rules)));
    let whole = time(|| drop(rules::check(&old.pack().unpack(), &parse(&new_bytes), &rules)));
    println!(
        "{MESSAGES} messages of {FIELDS} fields, {} KiB, {} findings",
        new_bytes.len() / 1024,
        rules::check(&old, &new, &rules).len()
    );
    println!("read a set                     {:>9.2} ms", read.as_secs_f64() * 1e3);
    println!("check, both read before        {:>9.2} ms", check.as_secs_f64() * 1e3);
    println!("unpack one, read one, check    {:>9.2} ms", whole.as_secs_f64() * 1e3);
    match buf(&old_bytes, &new_bytes) {
        Some(buf) => {
            println!("buf breaking (a process)       {:>9.2} ms", buf.as_secs_f64() * 1e3);
            println!(
                "buf takes                      {:>9.1} times as long as unpack, read and check",
                buf.as_secs_f64() / whole.as_secs_f64()
            );
        }
        None => println!("buf breaking                   not here"),
    }
    drop((old, new));
    let packed: Vec<Packed> = (0..PACKAGES)
        .map(|index| parse(&package(&format!("part{index}.v1"), PACKAGE_MESSAGES, false)).pack())
        .collect();
    let bytes: usize = packed.iter().map(Packed::held_bytes).sum();
    let (held, resident) = (bytes / 1024, resident_kib());
    println!(
        "{PACKAGES} packages of {PACKAGE_MESSAGES} messages, held: {held} KiB; this whole process: {resident} KiB"
    );
}
