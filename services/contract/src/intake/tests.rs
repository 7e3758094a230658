//! What is taken, what is refused and why, and that nothing else can happen.

use std::time::{Duration, Instant};

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
};

use super::{Flaw, look};
use crate::model::Promise;

fn file(name: &str) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some("shop.v1".to_owned()),
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

fn message(name: &str) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), ..Default::default() }
}

fn field(name: &str, number: i32, target: &str) -> FieldDescriptorProto {
    let kind = if target.is_empty() { Type::String } else { Type::Message };
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(1),
        type_name: (!target.is_empty()).then(|| target.to_owned()),
        ..Default::default()
    }
}

fn set(files: Vec<FileDescriptorProto>) -> Vec<u8> {
    FileDescriptorSet { file: files }.encode_to_vec()
}

/// A file with one of everything.
fn sample() -> FileDescriptorProto {
    let (mut item, mut ask) = (message("Item"), message("Ask"));
    item.field = vec![field("name", 1, ""), field("part", 2, ".shop.v1.Item.Part")];
    item.nested_type = vec![message("Part")];
    ask.field = vec![FieldDescriptorProto {
        r#type: Some(Type::Enum.into()),
        oneof_index: Some(0),
        ..field("colour", 1, ".shop.v1.Colour")
    }];
    ask.oneof_decl = vec![OneofDescriptorProto { name: Some("which".to_owned()), ..Default::default() }];
    let value = EnumValueDescriptorProto { name: Some("RED".to_owned()), number: Some(0), options: None };
    let method = MethodDescriptorProto {
        name: Some("Get".to_owned()),
        input_type: Some(".shop.v1.Ask".to_owned()),
        output_type: Some(".shop.v1.Item".to_owned()),
        ..Default::default()
    };
    FileDescriptorProto {
        message_type: vec![item, ask],
        enum_type: vec![EnumDescriptorProto {
            name: Some("Colour".to_owned()),
            value: vec![value],
            ..Default::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("ShopService".to_owned()),
            method: vec![method],
            options: None,
        }],
        ..file("shop/v1/shop.proto")
    }
}

/// A file of an edition, which no library here can build: `syntax = "editions"`, and field 14.
fn of_edition(number: u8, high: u8) -> Vec<u8> {
    let mut bytes = FileDescriptorProto { syntax: Some("editions".to_owned()), ..sample() }.encode_to_vec();
    bytes.extend([0x70, number | 0x80, high]);
    let mut set = vec![0x0a];
    prost::encoding::encode_varint(bytes.len().try_into().unwrap(), &mut set);
    set.extend(bytes);
    set
}

#[test]
fn the_platforms_own_contracts_are_taken_as_they_are() {
    let promise = look(ninefold_proto::DESCRIPTOR_SET).unwrap();
    assert!(promise.packages.contains(&"ninefold.contract.v1".to_owned()), "{promise:?}");
    assert!(promise.protobuf_services.contains(&"ninefold.registry.v1.RegistryService".to_owned()), "{promise:?}");
    assert_eq!(promise.edition, "proto3");
}

#[test]
fn a_contract_tells_its_services_and_packages() {
    let promise = look(&set(vec![sample(), FileDescriptorProto { package: None, ..file("empty.proto") }])).unwrap();
    let (packages, protobuf_services) = (vec!["shop.v1".to_owned()], vec!["shop.v1.ShopService".to_owned()]);
    assert_eq!(promise, Promise { packages, protobuf_services, edition: "proto3".to_owned() });
    let old = FileDescriptorProto { syntax: None, ..sample() };
    assert_eq!(look(&set(vec![old])).unwrap().edition, "proto2");
}

#[test]
fn files_of_editions_are_taken() {
    // 1000 is 0xe8 0x07 on the wire, 1001 is 0xe9 0x07.
    for (number, edition) in [(0xe8, "2023"), (0xe9, "2024"), (0xea, "edition 1002")] {
        let promise = look(&of_edition(number, 7)).unwrap();
        assert_eq!(promise.edition, edition);
        assert_eq!(promise.protobuf_services, ["shop.v1.ShopService"]);
    }
    assert_eq!(look(&of_edition(0x81, 0)).unwrap_err().what, "is of edition 1, which is none");
}

#[test]
fn every_flaw_is_told_with_its_place() {
    let with = |change: fn(&mut FileDescriptorProto)| {
        let mut file = sample();
        change(&mut file);
        set(vec![file])
    };
    let imports = |name: &str, imported: &[&str]| FileDescriptorProto {
        dependency: imported.iter().map(|&one| one.to_owned()).collect(),
        ..file(name)
    };
    let mut deep = message("M");
    for _ in 0..40 {
        deep = DescriptorProto { nested_type: vec![deep], ..message("M") };
    }
    let shop = "shop/v1/shop.proto";
    let item = "shop/v1/shop.proto: shop.v1.Item";
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (Vec::new(), "the set", "has no file"),
        (b"<html>".to_vec(), "the set", "ends a group that it did not begin"),
        (sample().encode_to_vec(), "file 0", "has a wire type that does not exist"),
        (set(vec![FileDescriptorProto::default()]), "file 0", "has no name that a file can have"),
        (set(vec![sample(), sample()]), shop, "is in the set twice"),
        (set(vec![imports("a", &["a"])]), "a", "imports itself"),
        (
            set(vec![imports("a", &["b"]), imports("b", &["c"]), imports("c", &["b"])]),
            "b",
            "imports itself, through others",
        ),
        (set(vec![imports("a", &["b"])]), "a", "imports \"b\", which is not in the set"),
        (set(vec![imports("a", &["b", "b"]), file("b")]), "a", "imports \"b\" twice"),
        (with(|file| file.public_dependency = vec![0]), shop, "calls an import public or weak that it does not have"),
        (with(|file| file.weak_dependency = vec![-1]), shop, "calls an import public or weak that it does not have"),
        (with(|file| file.syntax = Some("proto4".to_owned())), shop, "has the syntax \"proto4\", which is none"),
        (
            with(|file| file.syntax = Some("editions".to_owned())),
            shop,
            "is of no edition, though its syntax is editions",
        ),
        (
            with(|file| file.package = Some("shop..v1".to_owned())),
            shop,
            "has the package \"shop..v1\", which is no name",
        ),
        (
            with(|file| file.message_type[0].name = None),
            "shop/v1/shop.proto: shop.v1",
            "defines \"\", which is no name",
        ),
        (
            with(|file| file.message_type[1].name = Some("Item".to_owned())),
            shop,
            "defines shop.v1.Item, which is defined already",
        ),
        (
            with(|file| file.message_type[0].field[1].type_name = Some(".shop.v1.Price".to_owned())),
            "shop/v1/shop.proto: shop.v1.Item.part",
            "refers to \".shop.v1.Price\", which is not in the set",
        ),
        (
            with(|file| file.message_type[0].field[1].type_name = Some("Part".to_owned())),
            "shop/v1/shop.proto: shop.v1.Item.part",
            "refers to \"Part\", which is not a full name with a leading dot",
        ),
        (
            with(|file| file.service[0].method[0].output_type = Some(".shop.v1.Colour".to_owned())),
            "shop/v1/shop.proto: shop.v1.ShopService.Get",
            "refers to \".shop.v1.Colour\", which is something else",
        ),
        (
            with(|file| file.message_type[0].field[1].number = Some(1)),
            "shop/v1/shop.proto: shop.v1.Item.part",
            "has the number 1 of another field",
        ),
        (
            with(|file| file.message_type[0].field[1].number = Some(19_000)),
            "shop/v1/shop.proto: shop.v1.Item.part",
            "has the number 19000, which no field can have",
        ),
        (
            with(|file| file.message_type[0].field[1].number = Some(-1)),
            "shop/v1/shop.proto: shop.v1.Item.part",
            "has the number -1, which no field can have",
        ),
        (
            with(|file| file.message_type[0].field[0].oneof_index = Some(0)),
            "shop/v1/shop.proto: shop.v1.Item.name",
            "is in the oneof 0, which is not there",
        ),
        (with(|file| file.message_type[0].field[1].name = Some("name".to_owned())), item, "has two members named name"),
        (with(|file| file.enum_type[0].value.clear()), "shop/v1/shop.proto: shop.v1.Colour", "has no value"),
        (
            with(|file| file.message_type[0].field[0].r#type = Some(77)),
            "shop/v1/shop.proto: shop.v1.Item.name",
            "has a type or a label that does not exist",
        ),
    ];
    for (bytes, place, what) in cases {
        assert_eq!(look(&bytes), Err(Flaw::new(place, what)));
    }
    let deep = look(&set(vec![FileDescriptorProto { message_type: vec![deep], ..file("deep.proto") }])).unwrap_err();
    assert_eq!(deep.what, "has messages nested more than 32 deep");
}

#[test]
fn what_grows_in_memory_is_refused_before_it_does() {
    let begin = Instant::now();
    let million = |part: [u8; 2]| {
        let mut bytes = vec![0x0a];
        let body: Vec<u8> = [0x0a, 1, b'a'].into_iter().chain(part.repeat(1 << 20)).collect();
        prost::encoding::encode_varint(body.len().try_into().unwrap(), &mut bytes);
        bytes.extend(body);
        bytes
    };
    assert_eq!(look(&[0x0a, 0].repeat(1 << 20)).unwrap_err().what, "has no name that a file can have");
    let files: Vec<u8> = (0..3000).flat_map(|number| set(vec![file(&format!("{number}.proto"))])).collect();
    assert_eq!(look(&files).unwrap_err().what, "has more than 2000 files");
    // Imports, then messages, then options, each of two bytes.
    for part in [[0x1a, 0], [0x42, 0], [0x7a, 0]] {
        assert_eq!(look(&million(part)).unwrap_err().what, "brings the set over 500000 parts");
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "took {:?}", begin.elapsed());
}

/// What the platform's readers do with a set that was taken must not panic either.
fn read_as_others_do(bytes: &[u8], promise: &Promise) {
    if matches!(promise.edition.as_str(), "proto2" | "proto3") {
        let _ = prost_reflect::DescriptorPool::decode(bytes);
    }
}

#[test]
fn no_bytes_whatever_make_anything_panic() {
    let own = FileDescriptorSet::decode(ninefold_proto::DESCRIPTOR_SET).unwrap();
    let mut real: Vec<FileDescriptorProto> = own.file;
    real.iter_mut().for_each(|file| file.source_code_info = None);
    let seeds = [set(real), set(vec![sample()]), of_edition(0xe8, 7)];
    let mut random = fastrand::Rng::with_seed(9);
    let begin = Instant::now();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..5000 {
        // The large one is the slow one; the small ones are hit where it hurts more often.
        let mut bytes = seeds[if round % 40 == 0 { 0 } else { random.usize(1..3) }].clone();
        mutate(&mut bytes, &mut random);
        match look(&bytes) {
            Ok(promise) => {
                taken += 1;
                read_as_others_do(&bytes, &promise);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 50 && refused > 1000, "{taken} taken, {refused} refused: the test tests little");
    assert!(begin.elapsed() < Duration::from_secs(60), "took {:?}", begin.elapsed());
}

fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.usize(0..bytes.len());
        match random.u8(0..7) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.u8(0..8),
            2 => bytes[at] = random.u8(..),
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(0..5)],
            4 => _ = bytes.remove(at),
            5 => bytes.insert(at, random.u8(..)),
            _ => {
                let end = (at + random.usize(0..40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.usize(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

#[test]
fn descriptors_with_odd_facts_make_no_reader_panic() {
    let mut random = fastrand::Rng::with_seed(81);
    let mut taken = 0;
    for _ in 0..4000 {
        let mut file = sample();
        for _ in 0..random.usize(1..3) {
            distort(&mut file, &mut random);
        }
        let bytes = set(vec![file]);
        if let Ok(promise) = look(&bytes) {
            taken += 1;
            read_as_others_do(&bytes, &promise);
        }
    }
    assert!(taken > 500, "{taken} taken: the test tests little");
}

/// Changes what a bit flip seldom reaches.
fn distort(file: &mut FileDescriptorProto, random: &mut fastrand::Rng) {
    let odd = [i32::MIN, -1, 0, 1, 2, 3, 10, 11, 14, 18, 536_870_911, 536_870_912, i32::MAX][random.usize(0..13)];
    let names = ["", ".", "Item", ".shop.v1.Item", ".shop.v1.Item.Part", ".shop.v1.Colour", ".shop.v1.RED", "x", "nan"];
    let name = names[random.usize(0..names.len())].to_owned();
    let message = random.usize(0..file.message_type.len());
    let message = &mut file.message_type[message];
    match random.u8(0..20) {
        0 => message.options.get_or_insert_default().map_entry = Some(true),
        1 => message.options.get_or_insert_default().message_set_wire_format = Some(true),
        2 => {
            message.extension_range.push(prost_types::descriptor_proto::ExtensionRange {
                start: Some(odd),
                end: Some(odd.saturating_add(5)),
                options: None,
            });
        }
        3 => message.reserved_name.push(name),
        4 => message.oneof_decl.push(OneofDescriptorProto { name: Some(name), ..Default::default() }),
        5 => file.extension.push(FieldDescriptorProto { extendee: Some(name), ..field("ext", 5, "") }),
        6 => message.extension.push(FieldDescriptorProto { extendee: Some(name), ..field("ext", 5, "") }),
        7 => file.enum_type[0].value[0].number = Some(odd),
        8 => file.enum_type[0].value[0].name = Some(name),
        9 => file.service[0].method[0].input_type = Some(name),
        10 => file.syntax = [None, Some("proto2".to_owned())][random.usize(0..2)].clone(),
        11 => file.package = Some(name),
        12 => file.name = Some(name),
        _ => {
            let field = random.usize(0..message.field.len());
            let field = &mut message.field[field];
            match random.u8(0..9) {
                0 => field.number = Some(odd),
                1 => field.r#type = Some(odd),
                2 => field.label = Some(odd),
                3 => field.oneof_index = Some(odd),
                4 => field.default_value = Some(name),
                5 => field.json_name = Some(name),
                6 => field.proto3_optional = Some(true),
                7 => field.type_name = Some(name),
                _ => field.extendee = Some(name),
            }
        }
    }
}
