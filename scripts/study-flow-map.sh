#!/usr/bin/env bash
# Flow maps of the checkerboard: KL(data || samples) against steps for LSD, ESD, PSD-U, PSD-M and the siblings, and a plot.
#
# Trains every arm, draws 200,000 points in 1, 2, 4, 8 and 16 steps and measures them; what is done already is not done again.
# The table goes to the screen and to runs/study-flow-map/table.txt, the plot to docs/flow-map-toys.svg. Then what an image off the
# diagonal costs for each condition, against one on it, on the Fashion-MNIST network without a teacher. LIMBECK=FILE takes a built binary,
# ARMS="NAME ..." trains and measures some arms alone, SET="KEY=VALUE ..." other settings for all.
#   scripts/study-flow-map.sh [POINTS]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

points=${1:-8000000}
out=runs/study-flow-map
mkdir -p "$out"
limbeck=${LIMBECK:-}
if [ -z "$limbeck" ]; then
    begin "build"
    cargo build --locked --release -p limbeck
    limbeck=$target/release/limbeck
fi

# arm NAME [KEY=VALUE]...; drawn in $steps_of steps
panels=()
steps_of='1 2 4 8 16'
arm() {
    local name=$1 set=() cells=()
    shift
    [ -z "${ARMS:-}" ] || [[ " $ARMS " == *" $name "* ]] || return 0
    for item in "images=$points" ${SET:-} "$@"; do set+=(--set "$item"); done
    begin "$name"
    [ -s "$out/$name.safetensors" ] || "$limbeck" train toy-flow-map --run "$out/$name" "${set[@]}"
    [ -s "$out/$name.safetensors" ] || "$limbeck" export --run "$out/$name" --out "$out/$name.safetensors"
    for steps in $steps_of; do
        local file=$out/$name-$steps.npy
        [ -s "$file" ] || "$limbeck" sample --model "$out/$name.safetensors" --count 200000 --steps "$steps" --out "$file"
        cells+=("$(node scripts/points.mjs kl "$file")")
        [[ $steps = 1 || $steps = 4 || $steps = 16 ]] && panels+=("$name, $steps step$([ "$steps" = 1 ] || echo s)=$file")
    done
    (IFS='|'; echo "| $name | ${cells[*]} |" | sed 's/|/ | /g; s/  */ /g; s/^ //; s/ $//') | tee -a "$out/rows.tmp"
}

rm -f "$out/rows.tmp"
arm LSD method.condition=lsd
arm ESD method.condition=esd
arm PSD-U method.condition=psd_u
arm PSD-M method.condition=psd_m
[ -n "${ARMS:-}" ] || node scripts/points.mjs plot docs/flow-map-toys.svg 3 "${panels[@]}"
arm MeanFlow method.condition=mean_flow
arm shortcut method.condition=shortcut
# It jumps to the end alone.
steps_of=1
arm consistency method.condition=consistency
[ -z "${ARMS:-}" ] || exit 0
{
    echo "| condition | 1 step | 2 | 4 | 8 | 16 |"
    echo "|---|---|---|---|---|---|"
    cat "$out/rows.tmp"
} >"$out/table.txt"
rm -f "$out/rows.tmp"
cat "$out/table.txt"

begin "cost of an image off the diagonal"
# seconds NAME [KEY=VALUE]...: of 1280 images
seconds() {
    local run=$out/cost-$1 set=()
    shift
    for item in images=1280 batch=64 precision=bf16x3 log.grid=1280 log.stats=1280 method.distill=false method.guidance=1.0 "$@"; do set+=(--set "$item"); done
    rm -rf "$run"
    "$limbeck" train fashion-flow-map --run "$run" "${set[@]}" 2>/dev/null
    node -e 'console.log(JSON.parse(require("fs").readFileSync(process.argv[1], "utf8").trim().split("\n").at(-1)).seconds)' "$run/stats.jsonl"
}
plain=$(seconds plain method.eta=1.0)
{
    echo "| condition | derivative | cost against a plain image |"
    echo "|---|---|---|"
    for row in "psd_m none" "lsd difference" "lsd exact" "esd difference" "esd exact" "mean_flow difference" "shortcut none" "consistency none"; do
        read -r condition derivative <<<"$row"
        kind=$([ "$derivative" = exact ] && echo exact || echo difference)
        took=$(seconds "$condition-$derivative" method.eta=0.0 method.condition="$condition" method.derivative="$kind")
        node -e 'console.log(`| ${process.argv[1]} | ${process.argv[2]} | ${(process.argv[3] / process.argv[4]).toFixed(1)} |`)' \
            "$condition" "$derivative" "$took" "$plain"
    done
} | tee "$out/cost.txt"
