//! Any bytes: a named flaw, or a schema that can be checked and looked at. Never a panic, never long, never much memory.
//!
//! `cd services/contract && cargo +nightly fuzz run intake -- -max_len=65536 -timeout=10 -rss_limit_mb=1024`

#![no_main]

use libfuzzer_sys::fuzz_target;
use ninefold_contract::{Limits, RuleSet, Schema, lint, rules};

fuzz_target!(|bytes: &[u8]| {
    let Ok(schema) = Schema::parse(bytes.to_vec(), &Limits::default()) else { return };
    let every = RuleSet::named(["FILE", "PACKAGE", "WIRE_JSON", "WIRE", "strict"]).expect("these are known");
    assert!(rules::check(&schema, &schema, &every).is_empty(), "a schema breaks nothing of itself");
    lint::lint(&schema, None);
    assert_eq!(schema.pack().unpack().files().len(), schema.files().len());
});
