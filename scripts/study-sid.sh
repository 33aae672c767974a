#!/usr/bin/env bash
# The table of few-step SiD on Fashion-MNIST: steps, alpha, gradient, guidance, real images; one row an arm.
#
# Trains every arm from the shipped teacher, exports and evaluates it; what is done already is not done again. Needs the
# Fashion-MNIST files for the evaluation and for the adversarial arms only. Rows go to the screen and to runs/study-sid/table.txt.
# The four-step arm's snapshots give docs/sid-images.svg, fd against images seen.
#   scripts/study-sid.sh [IMAGES] [SAMPLES]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

images=${1:-100000}
samples=${2:-5000}
out=runs/study-sid
mkdir -p "$out"
begin "build"
cargo build --locked --release -p limbeck
limbeck=$target/release/limbeck

# arm NAME "STEPS TO EVALUATE" [KEY=VALUE]...
arm() {
    local name=$1 steps=$2 run=$out/$1 model=$out/$1.safetensors set=()
    shift 2
    for item in "images=$images" "log.grid=$images" "$@"; do set+=(--set "$item"); done
    begin "$name"
    "$limbeck" train fashion-sid --run "$run" "${set[@]}"
    [ -s "$model" ] || "$limbeck" export --run "$run" --out "$model"
    for k in $steps; do
        local figures=$out/$name-$k.json
        [ -s "$figures" ] || { "$limbeck" eval --model "$model" --steps "$k" --count "$samples" >"$figures.tmp" && mv "$figures.tmp" "$figures"; }
        node -e '
            const [f] = JSON.parse(require("fs").readFileSync(process.argv[3]));
            const cells = [process.argv[1], process.argv[2], f.fd.toFixed(3), (100 * f.accuracy).toFixed(1) + " %", f.entropy.toFixed(3)];
            console.log("| " + cells.join(" | ") + " |");
        ' "$name" "$k" "$figures" | tee -a "$out/rows.tmp"
    done
}

rm -f "$out/rows.tmp"
real='method.adversarial={weight=0.01,freeze=10000,begin=20000'
arm one-step "1" method.steps=1
arm two-steps "1 2" method.steps=2
arm four-steps "1 2 4" method.steps=4
arm alpha-1.0 "1" method.steps=1 method.alpha=1.0
arm detached "1" method.steps=1 method.detached=true
arm lsg "1" method.steps=1 'method.guidance={lsg=1.5}'
arm zero-cfg "1" method.steps=1 'method.guidance="zero_cfg"'
arm anti-cfg "1" method.steps=1 'method.guidance={anti_cfg=1.0}'
arm real-500 "1" method.steps=1 method.alpha=1.0 "$real,images=500}" 'data={kind="fashion-mnist"}'
arm real-all "1" method.steps=1 method.alpha=1.0 "$real}" 'data={kind="fashion-mnist"}'
{
    echo "| arm | steps | fd | named right | class entropy |"
    echo "|---|---|---|---|---|"
    cat "$out/rows.tmp"
} >"$out/table.txt"
rm -f "$out/rows.tmp"
cat "$out/table.txt"

begin "fd against images seen"
# figure MODEL STEPS: its fd
figure() {
    local figures=${1%.safetensors}-$2.json
    [ -s "$figures" ] || { "$limbeck" eval --model "$1" --steps "$2" --count "$samples" >"$figures.tmp" && mv "$figures.tmp" "$figures"; }
    node -e 'console.log(JSON.parse(require("fs").readFileSync(process.argv[1]))[0].fd)' "$figures"
}
curves=()
for k in 1 2 4; do
    line=
    for model in "$out"/four-steps/model-*.safetensors; do
        seen=$(basename "$model" .safetensors)
        line+=,$((10#${seen#model-})):$(figure "$model" "$k")
    done
    curves+=("$k step$([ "$k" = 1 ] || echo s)=${line#,}")
done
teacher=$("$limbeck" info --json models/fashion-teacher.safetensors | node -e '
    const { evaluation } = JSON.parse(require("fs").readFileSync(0)).training;
    console.log(evaluation["heun-18"].fd);')
node scripts/curve.mjs docs/sid-images.svg "images seen (noises drawn)" "fd" "${curves[@]}" --level "teacher, 35 calls=$teacher"
