#!/usr/bin/env bash
# Every test: formatting, lints, native, wasm, and the page in a real browser. Stops at the first stage that fails. The last lines are
# the summary of the last stage's runner.
#
#   bash scripts/test.sh
#
# What is missing is installed first. All native code is built once, optimised, as the numerical tests need it.
source scripts/setup.sh

wasm=(--locked --release --target wasm32-unknown-unknown)

setup test

begin "format"
cargo fmt --all --check || fail "run \`cargo fmt --all\`"

begin "lints, native"
cargo clippy --locked --release --all-targets -- -D warnings

begin "lints, wasm32"
cargo clippy "${wasm[@]}" -p limbeck-shared --features wgpu-web --lib --test wasm -- -D warnings
cargo clippy "${wasm[@]}" -p limbeck-web -- -D warnings

begin "build, native"
cargo build --locked --release --all-targets

begin "tests, native"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --release --no-fail-fast || true
else
    cargo test --locked --release --lib --bins --tests
fi
cargo test --locked --release --doc

begin "tests, wasm32 in node"
CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner cargo test "${wasm[@]}" -p limbeck-shared --test wasm

begin "build the page"
page
cargo build --locked --profile wasm-release --target wasm32-unknown-unknown -p limbeck-shared --features wgpu-web --example golden
wasm-bindgen --target web --no-typescript --out-dir "${CARGO_TARGET_DIR:-target}/golden" \
    "${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/wasm-release/examples/golden.wasm"

begin "size of the page"
node scripts/payload.mjs dist 700

begin "the page in a browser"
# npm notes what it installed; a lock file that is newer asks for it again.
if [ ! tests/e2e/node_modules/.package-lock.json -nt tests/e2e/package-lock.json ]; then
    npm ci --prefix tests/e2e --no-audit --no-fund --loglevel=error >&2 || fail "npm could not install what tests/e2e/package-lock.json names"
fi
node --test --test-reporter=tap --test-concurrency=2 tests/e2e/*.test.mjs
