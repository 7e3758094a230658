//! Bodies of gRPC, gRPC-Web, Connect and streams of JSON: wherever they are cut, the same messages.
//!
//! `cd gateway && cargo +nightly fuzz run frames -- -max_len=4096 -timeout=10 -rss_limit_mb=1024 -dict=fuzz/words/frames.dict`

#![no_main]

use libfuzzer_sys::fuzz_target;
use ninefold_gateway::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::frames(bytes));
