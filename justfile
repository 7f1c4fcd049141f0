# `just` lists the recipes. Everything here is an ordinary command that also works by itself.

_default:
    @just --list

# What must pass before a commit: format, lints, licences, tests.
check: fmt clippy deny test

fmt:
    cargo fmt --all --check

clippy:
    cargo clippy --workspace --all-targets -- -D warnings

# Needs `cargo install cargo-deny --locked`.
deny:
    cargo deny check

test:
    cargo test --workspace

# The tests that need mosquitto-clients, the clients of tests/clients and the release build, such as the kill -9 ledger.
external:
    cargo build --release
    cargo test --workspace -- --ignored external

# Time of decode, encode and routing, then instruction counts against bench/instructions.json (needs valgrind).
bench:
    cargo bench -p motemq-codec -p motemq-tests --bench codec --bench routing --bench journal
    scripts/instructions.py check

# Everything that CI runs.
ci:
    bash .ci/run
