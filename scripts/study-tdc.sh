#!/usr/bin/env bash
# The Pareto table of routed, pruned models on Fashion-MNIST (TDC): compute of an image, fd over seeds, time; one row an arm.
#
# Every arm is fine-tuned from the shipped teacher at the same cost, IMAGES times 0.8 of the teacher's call, exported and evaluated
# on SEEDS seeds of SAMPLES images; what is done already is not done again. Needs the Fashion-MNIST files. LIMBECK=FILE takes a built
# binary, ARMS="NAME ..." some arms alone, SET="KEY=VALUE ..." other settings for all. Rows go to the screen and to runs/study-tdc/table.txt.
#   scripts/study-tdc.sh [IMAGES] [SAMPLES] [SEEDS]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

images=${1:-200000}
samples=${2:-5000}
seeds=${3:-3}
out=runs/study-tdc
mkdir -p "$out"
limbeck=${LIMBECK:-}
if [ -z "$limbeck" ]; then
    begin "build"
    cargo build --locked --release -p limbeck
    limbeck=$target/release/limbeck
fi
rm -f "$out/rows.tmp"

# row NAME MODEL: evaluates where that has not been done, and adds the row.
row() {
    local name=$1 model=$2 files=() seed
    for ((seed = 0; seed < seeds; seed++)); do
        local figures=$out/$name-$samples-$seed.json
        [ -s "$figures" ] || { "$limbeck" eval --model "$model" --count "$samples" --seed "$seed" --precision bf16x3 >"$figures.tmp" && mv "$figures.tmp" "$figures"; }
        files+=("$figures")
    done
    node -e '
        const runs = process.argv.slice(2).map(f => JSON.parse(require("fs").readFileSync(f))[0]);
        const mean = of => runs.reduce((sum, r) => sum + of(r), 0) / runs.length;
        const fd = mean(r => r.fd), std = Math.sqrt(mean(r => (r.fd - fd) ** 2) * runs.length / Math.max(1, runs.length - 1));
        const cells = [process.argv[1], runs[0].evals, (runs[0].macs / 1e9).toFixed(3), fd.toFixed(4), std.toFixed(4),
            (100 * mean(r => r.accuracy)).toFixed(1) + " %", (1e3 * mean(r => r.sampling_seconds / r.count)).toFixed(1)];
        console.log("| " + cells.join(" | ") + " |");
    ' "$name" "${files[@]}" | tee -a "$out/rows.tmp"
}

# arm NAME COST [KEY=VALUE]...: COST is the arm's mean part of the teacher's training step, by which its images are divided. Groups learn
# from the data, as published, unless told otherwise.
arm() {
    local name=$1 cost=$2 model=$out/$1.safetensors set=()
    shift 2
    [ -z "${ARMS:-}" ] || [[ " $ARMS " == *" $name "* ]] || return 0
    local seen
    seen=$(node -p "Math.round($images * 0.8 / $cost)")
    for item in "images=$seen" "log.grid=$seen" target=data ${SET:-} "$@"; do set+=(--set "$item"); done
    begin "$name"
    [ -s "$model" ] || "$limbeck" prune models/fashion-teacher.safetensors --run "$out/$name" --out "$model" "${set[@]}"
    row "$name" "$model"
}

row base models/fashion-teacher.safetensors
arm base-longer 1 groups=1 floor=1
arm unpruned 1 floor=1
arm uniform 0.8 policy=uniform
arm taylor 0.8 policy=taylor
arm evolve 0.8 policy=evolve
# Ours: the base's answers are one more call of it, a third of its step.
arm answers 1.1333 policy=evolve target=base
arm answers-separate 1.1333 policy=taylor target=base separate=true
arm separate 0.8 policy=taylor separate=true
arm sensitivity 0.8 policy=taylor difficulty=sensitivity
arm one-stage 0.8 policy=uniform scratch=true separate=true
arm floor-0.3 0.7375 policy=taylor floor=0.3
arm floor-0.5 0.8125 policy=taylor floor=0.5
arm floor-0.7 0.8875 policy=taylor floor=0.7
{
    echo "| arm | calls | G MACs an image | fd | its deviation over seeds | named right | ms an image |"
    echo "|---|---|---|---|---|---|---|"
    cat "$out/rows.tmp"
} >"$out/table.txt"
rm -f "$out/rows.tmp"
cat "$out/table.txt"
