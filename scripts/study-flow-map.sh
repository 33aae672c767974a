#!/usr/bin/env bash
# Flow maps of the checkerboard: KL(data || samples) against steps for LSD, ESD, PSD-U, PSD-M and the siblings, and a plot.
#
# Trains every arm, draws 200,000 points in 1, 2, 4, 8 and 16 steps and measures them; what is done already is not done again.
# The table goes to the screen and to runs/study-flow-map/table.txt, the plot to docs/flow-map-toys.svg.
#   scripts/study-flow-map.sh [POINTS]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

points=${1:-8000000}
out=runs/study-flow-map
mkdir -p "$out"
begin "build"
cargo build --locked --release -p limbeck
limbeck=$target/release/limbeck

# arm NAME [KEY=VALUE]...; drawn in $steps_of steps
panels=()
steps_of='1 2 4 8 16'
arm() {
    local name=$1 set=() cells=()
    shift
    for item in "images=$points" "$@"; do set+=(--set "$item"); done
    begin "$name"
    "$limbeck" train toy-flow-map --run "$out/$name" "${set[@]}"
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
node scripts/points.mjs plot docs/flow-map-toys.svg 3 "${panels[@]}"
arm MeanFlow method.condition=mean_flow
arm shortcut method.condition=shortcut
# It jumps to the end alone.
steps_of=1
arm consistency method.condition=consistency
{
    echo "| condition | 1 step | 2 | 4 | 8 | 16 |"
    echo "|---|---|---|---|---|---|"
    cat "$out/rows.tmp"
} >"$out/table.txt"
rm -f "$out/rows.tmp"
cat "$out/table.txt"
