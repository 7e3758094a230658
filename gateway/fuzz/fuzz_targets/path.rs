//! A path and templates: one that matches is found exactly if there is one.
//!
//! `cd gateway && cargo +nightly fuzz run path -- -max_len=4096 -timeout=10 -rss_limit_mb=1024 -dict=fuzz/words/path.dict`

#![no_main]

use libfuzzer_sys::fuzz_target;
use ninefold_gateway::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::path(bytes));
