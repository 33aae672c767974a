#!/usr/bin/env bash
# The whole way on one machine: distils a one-step student from the shipped teacher, without data, in about five minutes on two cores,
# and serves the page, where the shipped models and the student just made draw.
#
#   bash scripts/demo.sh [--no-serve]
#
# What is missing is installed first. A second run builds and trains nothing again; a run that was stopped goes on where it stopped.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

serve=1
for option in "$@"; do
    case $option in
        --no-serve) serve= ;;
        *) printf 'usage: bash scripts/demo.sh [--no-serve]\n' >&2; trap - EXIT; exit 2 ;;
    esac
done

run=runs/fashion-boot-demo
student=models/my-boot.safetensors
limbeck=$target/release/limbeck

setup demo

begin "build limbeck"
cargo build --release --locked -p limbeck

begin "distil a student"
say "Ctrl-C stops; the same command goes on where it stopped"
if [ -n "$plain" ]; then
    # The bar becomes lines where its output is no terminal. The reader outlives Ctrl-C, so that the last lines come through.
    "$limbeck" train fashion-boot-demo --run "$run" 2>&1 | (trap '' INT TERM; exec cat) >&2
else
    "$limbeck" train fashion-boot-demo --run "$run"
fi

begin "export"
if [ "$student" -nt "$run/state.safetensors" ]; then
    say "$student is up to date"
else
    "$limbeck" export --run "$run" --out "$student"
fi
"$limbeck" info "$student" >&2

begin "build the page"
page
# The page's list, with the new student; models/index.json in the repository stays as it is.
"$limbeck" index --mine dist/models

begin "done"
say "the student: $student"
say "grids drawn while it learned: $run/grid-*.png"
say "the page: dist/, files for any web server"
[ -n "$serve" ] || exit 0
exec node scripts/serve.mjs dist 8080
