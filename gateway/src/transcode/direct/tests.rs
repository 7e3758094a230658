//! The direct walk against the reflection library: where it answers, the two agree.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value as Json, json};

use super::{Builder, Plan, Unusual};
use crate::testing;

const SOURCE: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    message All {
        double a_double = 1; float a_float = 2; int32 an_int32 = 3; int64 an_int64 = 4; uint32 a_uint32 = 5;
        uint64 a_uint64 = 6; sint32 a_sint32 = 7; sint64 a_sint64 = 8; fixed32 a_fixed32 = 9; fixed64 a_fixed64 = 10;
        sfixed32 a_sfixed32 = 11; sfixed64 a_sfixed64 = 12; bool a_bool = 13; string a_string = 14; bytes some_bytes = 15;
        Kind kind = 16; All all = 17;
        repeated double doubles = 21; repeated sint64 sint64s = 22; repeated bool bools = 23; repeated string strings = 24;
        repeated bytes many_bytes = 25; repeated Kind kinds = 26; repeated All alls = 27; repeated int32 loose = 28 [packed = false];
        map<string, string> texts = 31; map<int64, All> by_number = 32; map<bool, Kind> by_flag = 33; map<uint32, double> shares = 34;
        optional int32 present = 41; optional string present_text = 42;
        oneof choice { string left = 51; int32 right = 52; All middle = 53; }
        google.protobuf.Timestamp time = 61; google.protobuf.Duration duration = 62; google.protobuf.FieldMask mask = 63;
        google.protobuf.Int64Value wrapped = 64; google.protobuf.StringValue wrapped_text = 65;
        google.protobuf.BoolValue wrapped_flag = 66; google.protobuf.BytesValue wrapped_bytes = 67;
        google.protobuf.DoubleValue wrapped_double = 68; repeated google.protobuf.UInt32Value wrapped_many = 69;
        google.protobuf.Struct struct = 71; google.protobuf.Value value = 72; google.protobuf.Any any = 73;
        google.protobuf.Empty empty = 74; string odd = 200 [json_name = "veryOdd"];
    }
    enum Kind { option allow_alias = true; KIND_NONE = 0; KIND_BIG = 1; KIND_LARGE = 1; KIND_LOW = -3; }
"#;

struct Both {
    descriptor: MessageDescriptor,
    plan: Plan,
}

fn both() -> &'static Both {
    static BOTH: LazyLock<Both> = LazyLock::new(make);
    &BOTH
}

fn make() -> Both {
    let pool = DescriptorPool::decode(testing::compile(SOURCE).as_slice()).unwrap();
    let descriptor = pool.get_message_by_name("t.All").unwrap();
    let mut tables = Builder::default();
    tables.add(&descriptor);
    let plan = Plan::new(&Arc::new(tables.finish()), "t.All").unwrap();
    Both { descriptor, plan }
}

/// By way of text, as a value holds no short floats.
fn written_slowly(message: &DynamicMessage) -> Json {
    serde_json::from_str(&serde_json::to_string(message).unwrap()).unwrap()
}

impl Both {
    fn read(&self, json: &str) -> Result<DynamicMessage, Unusual> {
        let mut wire = Vec::new();
        self.plan.read(json.as_bytes(), &[], &mut wire)?;
        Ok(DynamicMessage::decode(self.descriptor.clone(), wire.as_slice()).expect("what is written can be read"))
    }

    fn slowly(&self, json: &str) -> Option<DynamicMessage> {
        let mut text = serde_json::Deserializer::from_str(json);
        let message = DynamicMessage::deserialize_with_options(
            self.descriptor.clone(),
            &mut text,
            &super::super::notation::Notation::default().reading(),
        )
        .ok()?;
        text.end().ok()?;
        Some(message)
    }

    fn write(&self, wire: &[u8]) -> Result<Json, Unusual> {
        let mut text = Vec::new();
        self.plan.write(wire, &mut text)?;
        Ok(serde_json::from_slice(&text).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&text))))
    }

    /// Reads a body both ways, and writes what was read both ways.
    #[track_caller]
    fn agree(&self, json: &str) {
        let read = self.read(json).unwrap_or_else(|Unusual| panic!("it gave up on {json}"));
        let expected = self.slowly(json).unwrap_or_else(|| panic!("only the quick way takes {json}"));
        assert_eq!(written_slowly(&read), written_slowly(&expected), "{json}");
        let written = self.write(&expected.encode_to_vec()).unwrap_or_else(|_| panic!("it gave up writing {json}"));
        assert_eq!(written, written_slowly(&expected), "{json}");
    }

    #[track_caller]
    fn gives_up(&self, json: &str) {
        assert_eq!(self.read(json).map(|message| message.to_string()), Err(Unusual), "{json}");
    }
}

#[test]
fn every_kind_of_field_is_read_and_written() {
    let both = both();
    for json in [
        r"{}",
        " { } \n",
        r#"{"aDouble":1.5,"aFloat":-2.25,"anInt32":-7,"anInt64":"-9007199254740993","aUint32":4294967295,"aUint64":"18446744073709551615"}"#,
        r#"{"aSint32":-5,"aSint64":"-6","aFixed32":7,"aFixed64":"8","aSfixed32":-9,"aSfixed64":"-10","aBool":true}"#,
        r#"{"an_int32":"12","anInt64":13,"a_uint32":0,"aBool":false,"aString":"","someBytes":"","kind":"KIND_NONE"}"#,
        r#"{"aString":"tab\t\"quoted\" \\ \/ \u00e9 \ud83d\ude00 ü \u0001","someBytes":"aGk_-w","manyBytes":["aGk=","aGk",""]}"#,
        r#"{"kind":"KIND_LARGE","kinds":["KIND_LOW",1,77,-3]}"#,
        r#"{"all":{"all":{"all":{}}},"alls":[{},{"aString":"x"}],"strings":["a","","b"],"bools":[true,false],"doubles":[0,-0.5,1e300]}"#,
        r#"{"sint64s":["1",-2,"3"],"loose":[1,2,3],"doubles":[],"alls":[],"texts":{}}"#,
        r#"{"texts":{"a":"b","":"","c":""},"byNumber":{"-5":{"aBool":true},"0":{}},"byFlag":{"true":"KIND_BIG","false":0},"shares":{"7":0.5}}"#,
        r#"{"present":0,"presentText":"","left":""}"#,
        r#"{"right":0}"#,
        r#"{"middle":{"left":"x"}}"#,
        r#"{"left":null,"right":3,"all":null,"strings":null,"texts":null,"wrapped":null,"time":null}"#,
        r#"{"time":"2017-01-15T01:30:15.01Z","duration":"-3.000000001s","mask":"user.displayName,photo"}"#,
        r#"{"time":"1970-01-01T00:00:00Z","duration":"0s","mask":""}"#,
        r#"{"time":"2024-02-29T23:59:59.123456789+05:30","duration":"315576000000s"}"#,
        r#"{"time":"0001-01-01T00:00:00Z"}"#,
        r#"{"time":"9999-12-31T23:59:59.999999999Z","duration":"1.5s"}"#,
        r#"{"wrapped":"5","wrappedText":"","wrappedFlag":false,"wrappedBytes":"","wrappedDouble":0,"wrappedMany":[1,0]}"#,
        r#"{"empty":{},"veryOdd":"x"}"#,
        r#"{"odd":"by its Protobuf name"}"#,
    ] {
        both.agree(json);
    }
}

#[test]
fn what_is_wrong_or_rare_is_left_to_the_reflection_library() {
    let both = both();
    for json in [
        "",
        "[]",
        "null",
        "{",
        "{}x",
        "{}{}",
        r#"{"aBool":True}"#,
        r#"{"anInt32":01}"#,
        r#"{"anInt32":1.0}"#,
        r#"{"anInt32":"1.0"}"#,
        r#"{"anInt32":2147483648}"#,
        r#"{"aUint32":-1}"#,
        r#"{"anInt32":" 1"}"#,
        r#"{"anInt32":"+1"}"#,
        r#"{"unknown":1}"#,
        r#"{"aString":"x","a_string":"y"}"#,
        r#"{"aString":1}"#,
        r#"{"aString":"\ud800"}"#,
        r#"{"aString":"\x"}"#,
        r#"{"left":"a","right":1}"#,
        r#"{"aFloat":1e39}"#,
        r#"{"aDouble":"NaN"}"#,
        r#"{"aDouble":1e400}"#,
        r#"{"aDouble":.5}"#,
        r#"{"kind":"NO_SUCH"}"#,
        r#"{"kind":"kind_big"}"#,
        r#"{"strings":[null]}"#,
        r#"{"strings":["a",]}"#,
        r#"{"texts":{"a":"b","a":"c"}}"#,
        r#"{"texts":{"a":null}}"#,
        r#"{"byNumber":{"01":{}}}"#,
        r#"{"time":"2017-02-29T00:00:00Z"}"#,
        r#"{"time":"2017-01-15 01:30:15Z"}"#,
        r#"{"time":"2017-01-15T24:30:15Z"}"#,
        r#"{"duration":"1"}"#,
        r#"{"duration":"315576000001s"}"#,
        r#"{"mask":"a_b"}"#,
        r#"{"struct":{}}"#,
        r#"{"value":null}"#,
        r#"{"any":{"@type":"x"}}"#,
        r#"{"someBytes":"a"}"#,
        r#"{"a\u0053tring":"x"}"#,
        r#"{"empty":{"a":1}}"#,
        "{\"aString\":\"raw\nline\"}",
    ] {
        both.gives_up(json);
    }
    both.gives_up(&format!("{}{}", r#"{"all":"#.repeat(100), "{}".to_owned() + &"}".repeat(100)));
    assert_eq!(both.plan.read(b"{\"aString\":\"\xff\"}", &[], &mut Vec::new()), Err(Unusual));
}

#[test]
fn a_field_that_the_path_binds_is_left_to_the_reflection_library() {
    let both = both();
    assert_eq!(both.plan.read(br#"{"aString":"x"}"#, &[14], &mut Vec::new()), Err(Unusual));
    assert_eq!(both.plan.read(br#"{"aBool":true}"#, &[14], &mut Vec::new()), Ok(()));
}

#[test]
fn lengths_of_every_size_are_written() {
    let both = both();
    for size in [0, 1, 126, 127, 128, 129, 16_383, 16_384, 70_000] {
        both.agree(&json!({"all": {"aString": "x".repeat(size), "all": {"aString": "y".repeat(size)}}}).to_string());
    }
}

#[test]
fn a_message_in_pieces_is_left_to_the_reflection_library() {
    let both = both();
    let part = |json: &str| both.slowly(json).unwrap().encode_to_vec();
    for pieces in [
        [r#"{"aString":"x"}"#, r#"{"aString":"y"}"#],
        [r#"{"all":{"aBool":true}}"#, r#"{"all":{"anInt32":1}}"#],
        [r#"{"left":"x"}"#, r#"{"right":1}"#],
        [r#"{"strings":["x"],"veryOdd":"z"}"#, r#"{"strings":["y"]}"#],
        [r#"{"texts":{"a":"b"}}"#, r#"{"texts":{"a":"c"}}"#],
    ] {
        let whole = [part(pieces[0]), part(pieces[1])].concat();
        assert_eq!(both.write(&whole), Err(Unusual), "{pieces:?}");
    }
    // Repetitions that follow each other are no pieces.
    let lists = [part(r#"{"strings":["x"]}"#), part(r#"{"strings":["y"]}"#)].concat();
    assert_eq!(both.write(&lists), Ok(json!({"strings": ["x", "y"]})));
}

#[test]
fn what_nobody_knows_is_dropped() {
    let both = both();
    // 999: varint, 1000: bytes, 1001: fixed32, 1002: fixed64.
    let unknown = [
        &[0xb8, 0x3e, 1][..],
        &[0xc2, 0x3e, 2, b'h', b'i'],
        &[0xcd, 0x3e, 1, 2, 3, 4],
        &[0xd1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8],
    ];
    let known = both.slowly(r#"{"aString":"x"}"#).unwrap().encode_to_vec();
    assert_eq!(both.write(&[unknown.concat(), known].concat()), Ok(json!({"aString": "x"})));
}

/// Any JSON that could be a message of the type, and some that could not.
fn bodies() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        any::<i32>()
            .prop_map(|value| json!({"anInt32": value, "aSint32": value, "loose": [value, 0], "aSfixed32": value})),
        any::<i64>()
            .prop_map(|value| json!({"anInt64": value.to_string(), "aSint64": value.to_string(), "sint64s": [value]})),
        any::<u64>().prop_map(|value| json!({"aUint64": value, "aFixed64": value.to_string(), "present": value})),
        any::<u32>()
            .prop_map(|value| json!({"aUint32": value, "aFixed32": value, "kind": value, "wrappedMany": [value]})),
        any::<f64>().prop_map(|value| json!({"aDouble": value, "doubles": [value, 1], "shares": {"1": value}})),
        any::<f32>().prop_map(|value| json!({"aFloat": value, "wrappedDouble": value})),
        ".*".prop_map(
            |text| json!({"aString": text, "strings": [text, ""], "texts": {&text: text}, "wrappedText": text})
        ),
        proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| json!({"someBytes": crate::transcode::tests::base64(&bytes)})),
        any::<bool>()
            .prop_map(|flag| json!({"aBool": flag, "bools": [flag], "byFlag": {flag.to_string(): 1}, "right": 1})),
        (-70_000_000_000_i64..300_000_000_000, 0..1_000_000_000).prop_map(|(seconds, nanos)| {
            let time = prost_types::Timestamp { seconds, nanos };
            json!({"time": time.to_string(), "duration": format!("{}.{nanos:09}s", seconds.abs())})
        }),
        Just(json!({"mask": "a.bC,d", "empty": {}, "left": "x"})),
        Just(json!({"struct": {"a": 1}, "value": [null]})),
    ];
    leaf.prop_recursive(6, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|all| json!({"all": all})),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|alls| json!({"alls": alls})),
            (inner.clone(), any::<i64>()).prop_map(|(all, key)| json!({"byNumber": {key.to_string(): all}})),
            (inner.clone(), inner).prop_map(|(one, other)| {
                let (Json::Object(mut one), Json::Object(other)) = (one, other) else {
                    unreachable!("all are objects")
                };
                one.extend(other);
                Json::Object(one)
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_quick_way_says_what_the_slow_way_says(body in bodies()) {
        let both = both();
        let text = body.to_string();
        if let Ok(read) = both.read(&text) {
            let expected = both.slowly(&text);
            prop_assert!(expected.is_some(), "only the quick way takes {text}");
            let expected = expected.unwrap();
            prop_assert_eq!(written_slowly(&read), written_slowly(&expected), "{}", text);
        }
        if let Some(message) = both.slowly(&text)
            && let Ok(written) = both.write(&message.encode_to_vec())
        {
            prop_assert_eq!(written, written_slowly(&message), "{}", text);
        }
    }

    #[test]
    fn any_bytes_are_written_as_the_slow_way_does_or_left_to_it(wire in proptest::collection::vec(any::<u8>(), 0..64)) {
        let both = both();
        if let Ok(written) = both.write(&wire) {
            let message = DynamicMessage::decode(both.descriptor.clone(), wire.as_slice());
            prop_assert!(message.is_ok(), "only the quick way takes {wire:?}");
            prop_assert_eq!(written, written_slowly(&message.unwrap()), "{:?}", wire);
        }
    }

    #[test]
    fn any_text_is_read_as_the_slow_way_does_or_left_to_it(body in bodies(), at in 0.0..1.0_f64, byte: u8) {
        let both = both();
        let mut text = body.to_string().into_bytes();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
        let place = (at * text.len() as f64) as usize;
        if let Some(place) = text.get_mut(place) {
            *place = byte;
        }
        if let Ok(text) = String::from_utf8(text)
            && let Ok(read) = both.read(&text)
        {
            let expected = both.slowly(&text);
            prop_assert!(expected.is_some(), "only the quick way takes {text}");
            prop_assert_eq!(written_slowly(&read), written_slowly(&expected.unwrap()), "{}", text);
        }
    }
}
