//! What decodes can be encoded again, and means the same then.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| motemq_fuzz::roundtrip(data));
