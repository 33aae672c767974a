# shellcheck shell=bash
# What demo.sh and test.sh share: where they stand, how they speak and stop, and getting what is missing. To be sourced.
#
# `setup demo` wants: Rust with its wasm32 target, a C compiler, node, trunk, wasm-bindgen's command line.
# `setup test` wants besides: rustfmt and clippy, npm, chromium, firefox and a font, Mesa's software Vulkan, the Fashion-MNIST files.
# What is there already is left as it is.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
script=${0##*/}
stage="setup"

# Where cargo installs programs, and where it builds.
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
export PATH
target=${CARGO_TARGET_DIR:-$root/target}

TRUNK_VERSION=0.21.14
# The command line must be of the very version that the page is compiled with.
BINDGEN_VERSION=$(awk '/^name = "wasm-bindgen"$/ { getline; gsub(/[^0-9.]/, ""); print }' Cargo.lock)
RUST_VERSION=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)

# Plain lines instead of moving bars where nobody watches.
plain=
if [ -n "${CI:-}" ] || [ ! -t 2 ]; then
    plain=1
    export CARGO_TERM_PROGRESS_WHEN=never CARGO_TERM_COLOR=never
fi

say() { printf '%s\n' "   $*" >&2; }

# begin NAME: what is being done from here on.
begin() {
    stage=$1
    printf '\n== %s\n' "$stage" >&2
}

# fail WORDS: stops, with the reason.
fail() {
    printf '%s: %s\n' "$script" "$*" >&2
    exit 1
}

finish() {
    local status=$?
    [ "$status" = 0 ] || printf '%s: stopped in "%s" (exit code %s)\n' "$script" "$stage" "$status" >&2
}
trap finish EXIT
# Bash goes on after a program that handles the signal itself; this script does not.
trap 'exit 130' INT
trap 'exit 143' TERM

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        fail "run as root, or with sudo installed: $*"
    fi
}

# Debian packages still to be installed.
packages=()

# want PACKAGE TEST...: unless the test succeeds, the package is to be installed.
want() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || packages+=("$package")
}

some_file() { compgen -G "$1"; }

install_packages() {
    [ ${#packages[@]} -gt 0 ] || return 0
    has apt-get || fail "missing, and there is no apt-get to install them: ${packages[*]} (names of Debian packages)"
    say "installing Debian packages: ${packages[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 update ||
        fail "apt-get could not read the package lists"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Acquire::Retries=3 \
        install "${packages[@]}" >&2 || fail "apt-get could not install: ${packages[*]}"
}

# at_least FOUND WANTED: compares versions.
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

check_rust() {
    has cargo && has rustc ||
        fail "Rust is missing. Install it with rustup (https://rustup.rs, or Debian's package rustup), then run this again."
    local found
    found=$(rustc --version | cut -d' ' -f2)
    at_least "$found" "$RUST_VERSION" ||
        fail "Rust $found is too old, expected $RUST_VERSION or later. \`rustup update stable\` brings it."
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; then
        has rustup || fail "Rust's target wasm32-unknown-unknown is missing, and there is no rustup to add it"
        say "adding Rust's target wasm32-unknown-unknown"
        rustup target add wasm32-unknown-unknown || fail "rustup could not add the target wasm32-unknown-unknown"
    fi
}

check_lints() {
    local part
    for part in rustfmt clippy; do
        cargo "${part/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        has rustup || fail "$part is missing, and there is no rustup to add it"
        say "adding Rust's $part"
        rustup component add "$part" || fail "rustup could not add $part"
    done
}

# tool CRATE VERSION [OPTION]...: installs a program of Rust's. Built for a short build: they run for seconds.
tool() {
    local crate=$1 version=$2
    shift 2
    say "installing $crate $version (a few minutes, once)"
    env CARGO_TARGET_DIR="$target/tools" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo install "$crate" --version "$version" --force "$@" ||
        fail "cargo could not install $crate $version"
}

# of_version PROGRAM VERSION: the program is there, and of this version.
of_version() { [ "$("$1" --version 2>/dev/null | cut -d' ' -f2)" = "$2" ]; }

check_tools() {
    of_version trunk "$TRUNK_VERSION" || tool trunk "$TRUNK_VERSION" --locked
    if ! of_version wasm-bindgen "$BINDGEN_VERSION" || ! of_version wasm-bindgen-test-runner "$BINDGEN_VERSION"; then
        tool wasm-bindgen-cli "$BINDGEN_VERSION"
    fi
    rm -rf "$target/tools"
    local program
    for program in "trunk $TRUNK_VERSION" "wasm-bindgen $BINDGEN_VERSION" "wasm-bindgen-test-runner $BINDGEN_VERSION"; do
        # shellcheck disable=SC2086
        of_version $program || fail "another ${program% *} than version ${program#* } comes first on PATH: $(command -v "${program% *}")"
    done
}

# setup demo|test
setup() {
    begin "setup"
    want gcc has cc
    want libc6-dev some_file '/usr/include/stdio.h'
    want ca-certificates some_file '/etc/ssl/certs/ca-certificates.crt'
    want nodejs has node
    if [ "$1" = test ]; then
        want npm has npm
        want chromium has "${CHROMIUM:-chromium}"
        want firefox-esr has "${FIREFOX:-firefox-esr}"
        want fonts-liberation some_file '/usr/share/fonts/truetype/*/*.ttf'
        want libvulkan1 some_file '/usr/lib/*/libvulkan.so.1'
        want mesa-vulkan-drivers some_file '/usr/share/vulkan/icd.d/lvp_icd*.json'
        want dataset-fashion-mnist some_file '/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte*'
    fi
    install_packages
    local node
    node=$(node --version)
    at_least "${node#v}" 18.19 || fail "node ${node#v} is too old, expected 18.19 or later"
    check_rust
    if [ "$1" = test ]; then check_lints; fi
    check_tools
    # trunk builds without looking at the network, so all sources must be here.
    cargo fetch --locked --target wasm32-unknown-unknown --target "$(rustc -vV | sed -n 's/^host: //p')" ||
        fail "cargo could not fetch the crates that Cargo.lock names"
    say "Rust $(rustc --version | cut -d' ' -f2), node ${node#v}, trunk $TRUNK_VERSION, wasm-bindgen $BINDGEN_VERSION"
}

# page: builds the page into dist/. trunk takes NO_COLOR for an option of its own and refuses the usual value 1.
page() {
    env -u NO_COLOR TRUNK_SKIP_VERSION_CHECK=true trunk build --release --offline || fail "the page could not be built"
}
