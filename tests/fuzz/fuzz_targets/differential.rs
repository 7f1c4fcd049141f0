//! The codec against mqttbytes, but for its known defects.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| motemq_fuzz::differential(data));
