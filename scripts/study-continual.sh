#!/usr/bin/env bash
# The table of continual learning: every arm, teacher steps 2, 10 and 100, several seeds; Fashion-MNIST in five tasks of two classes, or
# with --toy eight Gaussians in the plane in four tasks of two.
#
# Every arm of a seed begins with the same first task. What is done already is not done again, so a stopped study goes on, and further
# seeds or arms can be added later. Prints the table and writes it to OUT/table.md, the curves to docs/continual.svg, a picture of each
# arm after the last task to docs/continual/ARM.png (docs/continual-toy.svg, docs/continual-toy/).
#   scripts/study-continual.sh [--toy] [--images N] [--first N] [--seeds "1 2 3"] [--count N] [--arms "NAME ..."] [--batch N] [--out DIR]
# --images: of each task after the first; --first: of the first task; --count: drawn for each evaluation. Other options, KEY=VALUE, go to
# every run.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

images=12000 first=100000 seeds="1 2 3" count=1000 batch=32 out=runs/study-continual extra=()
preset=fashion-continual tasks=5 figures=docs/continual sigma_data=0.7
if [ "${1:-}" = --toy ]; then
    shift
    images=60000 first=120000 count=10000 batch=128 out=runs/study-continual-toy
    preset=toy-continual tasks=4 figures=docs/continual-toy sigma_data=0.53
fi
all="fine-tune joint gaussian lwf replay-2 distillation-2 replay-10 distillation-10 partial-10 edm-distillation-10 edm-one-step \
replay-100 distillation-100"
arms=$all
while [ $# -gt 0 ]; do
    case $1 in
        --images) images=$2 && shift 2 ;;
        --first) first=$2 && shift 2 ;;
        --seeds) seeds=$2 && shift 2 ;;
        --count) count=$2 && shift 2 ;;
        --batch) batch=$2 && shift 2 ;;
        --arms) arms=$2 && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        *=*) extra+=(--set "$1") && shift ;;
        *) fail "found $1, expected an option of this script or KEY=VALUE" ;;
    esac
done
mkdir -p "$out" "$figures"
# As in the tests, a program that is there already may be named.
limbeck=${LIMBECK_BIN:-$target/release/limbeck}
if [ -z "${LIMBECK_BIN:-}" ]; then
    begin "build"
    cargo build --locked --release -p limbeck
fi
edm="method.beginning={kind=\"edm\",sigma_data=$sigma_data}"

# sequence DIR SEED IMAGES [OPTION]...: what is said on stdout lies in the run directory too.
sequence() {
    local run=$1 seed=$2 n=$3
    shift 3
    "$limbeck" continual "$preset" --run "$run" --count "$count" --set "seed=$seed" --set "batch=$batch" --set "images=$n" \
        "${extra[@]}" "$@" >/dev/null
}

# settings ARM: its keys, one a line.
settings() {
    local name=${1#edm-}
    [ "$name" = "$1" ] || echo "$edm"
    case $name in
        fine-tune | joint | gaussian | lwf) echo "method.arm=${name/-/_}" ;;
        one-step) printf '%s\n' method.arm=distillation "method.one_step={images=$((images * 2)),delta=0.125}" ;;
        *) printf '%s\n' "method.arm=${name%-*}" "method.teacher_steps=${name##*-}" ;;
    esac
}

for seed in $seeds; do
    for arm in $arms; do
        begin "$arm, seed $seed"
        run=$out/$arm-$seed keys=() begun=$out/first-$seed start=()
        while read -r key; do keys+=(--set "$key"); done < <(settings "$arm")
        case $arm in edm-*) begun=$out/first-edm-$seed start=(--set "$edm") ;; esac
        sequence "$begun" "$seed" "$first" --tasks 1 "${start[@]}"
        mkdir -p "$run"
        for ending in safetensors json png; do
            [ -e "$run/task-1.$ending" ] || cp "$begun/task-1.$ending" "$run/task-1.$ending"
        done
        sequence "$run" "$seed" "$images" "${keys[@]}"
    done
done

begin "table"
node scripts/continual-table.mjs "$out" "$tasks" "$seeds" "$all" >"$out/table.md"
cat "$out/table.md"
curves=()
for arm in fine-tune joint replay-2 replay-10 distillation-2 distillation-10; do
    points=$(node scripts/continual-table.mjs "$out" "$tasks" "$seeds" "$arm" --curve)
    [ -z "$points" ] || curves+=("$arm=$points")
done
[ ${#curves[@]} -eq 0 ] || node scripts/curve.mjs "$figures.svg" "task" "fd, all classes so far" "${curves[@]}"
for arm in $all; do
    picture=$out/$arm-${seeds%% *}/task-$tasks.png
    [ ! -e "$picture" ] || cp "$picture" "$figures/$arm.png"
done
