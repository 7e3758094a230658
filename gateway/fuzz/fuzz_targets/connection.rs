//! The bytes of a connection of HTTP/1: no request that the strict layer did not see.
//!
//! `cd gateway && cargo +nightly fuzz run connection -- -max_len=4096 -timeout=10 -rss_limit_mb=1024 -dict=fuzz/words/connection.dict`

#![no_main]

use libfuzzer_sys::fuzz_target;
use ninefold_gateway::fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::connection(bytes));
