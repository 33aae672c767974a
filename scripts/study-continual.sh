#!/usr/bin/env bash
# The table of continual learning: every arm, teacher steps 2, 10 and 100, several seeds; Fashion-MNIST in five tasks of two classes, or
# with --toy eight Gaussians in the plane in four tasks of two.
#
# Every arm of a seed begins with the same first task. What is done already is not done again, so a stopped study goes on, and further
# seeds or arms can be added later; two studies of other seeds or arms may run side by side. Prints the table and writes it to
# OUT/table.md, the curves to docs/continual.svg, a picture of each arm after the last task to docs/continual/ARM.png
# (docs/continual-toy.svg, docs/continual-toy/).
#   scripts/study-continual.sh [--toy] [--images N] [--first N] [--seeds "1 2 3"] [--count N] [--classify N] [--arms "NAME ..."]
#       [--batch N] [--out DIR] [--no-table] [KEY=VALUE ...]
# --images: of each task after the first; --first: of the first task; --count: drawn for each evaluation; --classify: images of each task
# that a classifier of the first seed learns from beside replay, 0 for none. KEY=VALUE goes to every run. Arms are named
#   [eps-|edm-]ARM[-TEACHER STEPS]   the first part is another beginning than the preset's
#   one-step                         distillation, the replay drawn by a one-step student
#   lambda-NUMBER                    distillation in ten teacher steps with that lambda instead of 0.75
# Replay in 100 steps draws an eighth as many images as a task has, each eight times: anew in every iteration it alone would take most
# of the time.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

images=8000 first=100000 seeds="1 2 3" count=2000 classify=24000 batch=32 out=runs/study-continual extra=() table=1
preset=fashion-continual tasks=5 figures=docs/continual sigma_data=0.7
if [ "${1:-}" = --toy ]; then
    shift
    images=60000 first=120000 count=10000 classify=0 batch=128 out=runs/study-continual-toy
    preset=toy-continual tasks=4 figures=docs/continual-toy sigma_data=0.53
fi
paper="joint fine-tune gaussian lwf replay-2 replay-10 replay-100 distillation-2 distillation-10 distillation-100 partial-10"
all="$paper $([ "$preset" = toy-continual ] && echo edm-one-step || echo one-step)"
arms=$all
while [ $# -gt 0 ]; do
    case $1 in
        --images) images=$2 && shift 2 ;;
        --first) first=$2 && shift 2 ;;
        --seeds) seeds=$2 && shift 2 ;;
        --count) count=$2 && shift 2 ;;
        --classify) classify=$2 && shift 2 ;;
        --no-table) table= && shift ;;
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
# sequence DIR SEED IMAGES [OPTION]...: what is said on stdout lies in the run directory too.
sequence() {
    local run=$1 seed=$2 n=$3
    shift 3
    "$limbeck" continual "$preset" --run "$run" --count "$count" --set "seed=$seed" --set "batch=$batch" --set "images=$n" \
        "${extra[@]}" "$@" >/dev/null
}

# beginning ARM: its key, where it is not the preset's.
beginning() {
    case $1 in
        edm-*) echo "method.beginning={kind=\"edm\",sigma_data=$sigma_data}" ;;
        eps-*) echo 'method.beginning={kind="eps"}' ;;
    esac
}

# settings ARM: its keys, one a line.
settings() {
    local name=${1#e??-}
    beginning "$1"
    case $name in
        fine-tune | joint | gaussian | lwf) echo "method.arm=${name/-/_}" ;;
        one-step) printf '%s\n' method.arm=distillation "method.one_step={images=$((images * 2)),delta=0.125}" ;;
        lambda-*) printf '%s\n' method.arm=distillation method.teacher_steps=10 "method.lambda=${name#lambda-}" ;;
        *-100) printf '%s\n' "method.arm=${name%-*}" method.teacher_steps=100 "method.pool=$((images / 8))" ;;
        *) printf '%s\n' "method.arm=${name%-*}" "method.teacher_steps=${name##*-}" ;;
    esac
}

for seed in $seeds; do
    for arm in $arms; do
        begin "$arm, seed $seed"
        run=$out/$arm-$seed begun=$out/first-$seed start=() keys=()
        while read -r key; do keys+=(--set "$key"); done < <(settings "$arm")
        key=$(beginning "$arm")
        [ -z "$key" ] || begun=$out/first-${arm%%-*}-$seed start=(--set "$key")
        sequence "$begun" "$seed" "$first" --tasks 1 "${start[@]}"
        mkdir -p "$run"
        for ending in safetensors json png; do
            [ -e "$run/task-1.$ending" ] || cp "$begun/task-1.$ending" "$run/task-1.$ending"
        done
        # Of one seed, and not where drawing would take longer than the arm itself.
        [ "$classify" = 0 ] || [ "$seed" != "${seeds%% *}" ] || [[ $arm = *-100 ]] || keys+=(--classify "$classify")
        sequence "$run" "$seed" "$images" "${keys[@]}"
    done
done
[ -n "$table" ] || exit 0

begin "table"
{
    node scripts/continual-table.mjs "$out" "$tasks" "$seeds" "$all"
    others=$(for arm in $arms; do [[ " $all " == *" $arm "* ]] || echo "$arm"; done)
    [ -z "$others" ] || { echo && node scripts/continual-table.mjs "$out" "$tasks" "$seeds" "$others"; }
} | tee "$out/table.md"
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

# Runs above may have shared the machine with others; these do not, and draw all replay anew.
begin "seconds a step"
{
    echo "| arm | seconds a step, batch $batch | against fine-tuning |"
    echo "|---|---|---|"
    seed=${seeds%% *}
    for arm in fine-tune joint gaussian lwf replay-2 distillation-2 replay-10 distillation-10 partial-10 replay-100 distillation-100; do
        run=$out/time-$arm keys=()
        while read -r key; do [[ $key = method.pool=* ]] || keys+=(--set "$key"); done < <(settings "$arm")
        rm -rf "$run" && mkdir -p "$run"
        for ending in safetensors json png; do cp "$out/first-$seed/task-1.$ending" "$run/"; done
        count=0 sequence "$run" "$seed" $((64 * batch)) --tasks 2 "${keys[@]}"
        took=$(node -p 'JSON.parse(require("fs").readFileSync(process.argv[1])).seconds_a_step' "$run/task-2.json")
        : "${alone:=$took}"
        node -e 'const [, arm, took, alone] = process.argv; console.log(`| ${arm} | ${(+took).toFixed(3)} | ${(took / alone).toFixed(1)} |`)' \
            "$arm" "$took" "$alone"
    done
} | tee "$out/time.md"
