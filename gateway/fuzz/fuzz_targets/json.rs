//! A JSON body: read alike by the quick way and the reflection library, and written so that it is read again.
//!
//! `cd gateway && cargo +nightly fuzz run json -- -max_len=4096 -timeout=10 -rss_limit_mb=1024 -dict=fuzz/words/json.dict`

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ninefold_gateway::fuzz::{self, Ground};

static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::new(&ninefold_gateway_fuzz::contract()));

fuzz_target!(|bytes: &[u8]| fuzz::json(&GROUND, bytes));
