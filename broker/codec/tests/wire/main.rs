//! The codec as a whole: no bytes it cannot judge, no packet it does not write as it reads it.

#![expect(
    clippy::unwrap_used,
    reason = "tests, but for clippy not in functions that are one"
)]

mod corpus;
#[path = "../../../../tests/fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    clippy::panic,
    clippy::expect_used,
    reason = "the fuzz targets' own crate, included to be run without a fuzzer"
)]
mod fuzz;
mod packets;
