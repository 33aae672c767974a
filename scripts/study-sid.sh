#!/usr/bin/env bash
# The table of few-step SiD on Fashion-MNIST: steps, alpha, gradient, guidance, real images; one row an arm.
#
# Trains every arm from the shipped teacher, exports and evaluates it; what is done already is not done again. Needs the
# Fashion-MNIST files for the evaluation and for the adversarial arms only. Rows go to the screen and to runs/study-sid/table.txt.
# The snapshots of one run of one step and one of four give docs/sid-images.svg, fd against images seen. LIMBECK=FILE takes a built
# binary, DEVICE=cuda a card, ARMS="NAME ..." trains and evaluates some arms alone.
#   scripts/study-sid.sh [IMAGES] [SAMPLES] [IMAGES OF THE LONG RUNS]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

images=${1:-160000}
samples=${2:-5000}
long=${3:-500000}
out=runs/study-sid
mkdir -p "$out"
limbeck=${LIMBECK:-}
if [ -z "$limbeck" ]; then
    begin "build"
    cargo build --locked --release -p limbeck
    limbeck=$target/release/limbeck
fi

# measured MODEL STEPS: the file of its figures
measured() {
    local figures=${1%.safetensors}-$2.json
    [ -s "$figures" ] || { "$limbeck" eval --model "$1" --steps "$2" --count "$samples" --precision bf16x3 >"$figures.tmp" && mv "$figures.tmp" "$figures"; }
    printf '%s' "$figures"
}

# train NAME [KEY=VALUE]...: leaves runs/study-sid/NAME.safetensors
train() {
    local name=$1 set=()
    shift
    [ -s "$out/$name.safetensors" ] && return 0
    for item in log.state="$images" log.grid=10000000 "$@"; do set+=(--set "$item"); done
    "$limbeck" train fashion-sid-one --device "${DEVICE:-cpu}" --run "$out/$name" "${set[@]}"
    "$limbeck" export --run "$out/$name" --out "$out/$name.safetensors"
}

# arm NAME "STEPS TO EVALUATE" [KEY=VALUE]...
arm() {
    local name=$1 steps=$2
    shift 2
    [ -z "${ARMS:-}" ] || [[ " $ARMS " == *" $name "* ]] || return 0
    begin "$name"
    # The comparison is without the preset's guidance, and guidance is at all levels unless an arm says otherwise.
    train "$name" images="$images" batch=128 ema.half_life=10000 method.guidance='"none"' method.guidance_levels=[0.0,1000.0] log.snapshot=0 "$@"
    for k in $steps; do
        node -e '
            const [f] = JSON.parse(require("fs").readFileSync(process.argv[3]));
            const cells = [process.argv[1], process.argv[2], f.fd.toFixed(3), (100 * f.accuracy).toFixed(1) + " %", f.entropy.toFixed(3)];
            console.log("| " + cells.join(" | ") + " |");
        ' "$name" "$k" "$(measured "$out/$name.safetensors" "$k")" | tee -a "$out/rows.tmp"
    done
}

rm -f "$out/rows.tmp"
real="method.adversarial={weight=0.01,freeze=$((images / 8)),begin=$((images / 4))"
guided=('method.guidance={kappas=[1.0,1.0,1.0,1.7]}' 'method.guidance_levels=[0.3,2.0]')
data='data={kind="fashion-mnist"}'
arm one-step "1" method.steps=1
arm two-steps "1 2" method.steps=2
arm four-steps "1 2 4" method.steps=4
arm alpha-1.0 "1" method.steps=1 method.alpha=1.0
arm detached "1" method.steps=1 method.detached=true
arm guided "1" method.steps=1 "${guided[@]}"
arm lsg "1" method.steps=1 'method.guidance={lsg=1.5}'
arm zero-cfg "1" method.steps=1 'method.guidance="zero_cfg"'
arm anti-cfg "1" method.steps=1 'method.guidance={anti_cfg=1.0}'
arm real-500 "1" method.steps=1 method.alpha=1.0 "$real,images=500}" "$data"
arm real-all "1" method.steps=1 method.alpha=1.0 "$real}" "$data"
[ -z "${ARMS:-}" ] || exit 0
{
    echo "| arm | steps | fd | named right | class entropy |"
    echo "|---|---|---|---|---|"
    cat "$out/rows.tmp"
} >"$out/table.txt"
rm -f "$out/rows.tmp"
cat "$out/table.txt"

begin "fd against images seen"
train long-one images="$long" batch=256 method.steps=1 ema.half_life=20000 log.snapshot=50000 "${guided[@]}"
train long-four images=$((2 * long)) batch=256 method.steps=4 ema.half_life=30000 log.snapshot=100000 "${guided[@]}"
# line RUN STEPS: its snapshots' fd
line() {
    local model seen
    for model in "$out/$1"/model-*.safetensors; do
        seen=$(basename "$model" .safetensors)
        printf ',%d:%s' "$((10#${seen#model-}))" "$(node -p 'JSON.parse(require("fs").readFileSync(process.argv[1]))[0].fd' "$(measured "$model" "$2")")"
    done | sed 's/^,//'
}
curves=("one step=$(line long-one 1)")
for k in 1 2 4; do
    curves+=("trained for four, $k step$([ "$k" = 1 ] || echo s)=$(line long-four "$k")")
done
teacher=$("$limbeck" info --json models/fashion-teacher.safetensors | node -e '
    const { evaluation } = JSON.parse(require("fs").readFileSync(0)).training;
    console.log(evaluation["heun-18"].fd);')
node scripts/curve.mjs docs/sid-images.svg "images seen (noises drawn)" "fd" "${curves[@]}" --level "teacher, 35 calls=$teacher"
