//! Any bytes: a packet, a request for more, or an error, and never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| motemq_fuzz::decode(data));
