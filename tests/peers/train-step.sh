#!/usr/bin/env bash
# limbeck's training step against PyTorch's on the same networks, in turn, several times each.
# Prints a line for each network and precision, such as
#   reference-f32 ratio 0.85 (ours 589 ms, peer 690 ms), memory ours 0.46 GB, peer 1.56 GB
# each side's time being its best round: a shared machine only ever makes a round slower. `bf16x3` (floats as two bf16, three
# products, sums in f32) stands against PyTorch's f32, `bf16` against PyTorch's bf16 autocast.
#   tests/peers/train-step.sh [ROUNDS] [PRECISION...]        all three unless given
source "$(dirname "$0")/pytorch.sh"
rounds=${1:-3}
wanted=" ${*:2} "
summary='
import json, sys
rows = [json.loads(line) for line in sys.stdin]
ours, peer = rows[0::2], rows[1::2]
ms = lambda side: min(r["ms"] for r in side)
gb = lambda side: max(r["peak_memory_bytes"] for r in side) / 1e9
print(f"{sys.argv[1]} ratio {ms(ours) / ms(peer):.2f} (ours {ms(ours):.0f} ms, peer {ms(peer):.0f} ms), "
      f"memory ours {gb(ours):.2f} GB, peer {gb(peer):.2f} GB")
'
for name in reference rgb32 space-to-depth; do
  config=tests/peers/configs/$name.json
  batch=64
  [ "$name" = rgb32 ] && batch=32
  for precisions in "f32 f32" "bf16x3 f32" "bf16 bf16"; do
    read -r ours peer <<<"$precisions"
    [[ $wanted = *[a-z]* && $wanted != *" $ours "* ]] && continue
    for mode in "" --forward-only; do
      for ((i = 0; i < rounds; i++)); do
        target/release/limbeck bench train-step --config "$config" --batch "$batch" --precision "$ours" $mode
        "$venv/bin/python" tests/peers/train_step.py "$config" --batch "$batch" --precision "$peer" $mode
      done | python3 -c "$summary" "$name-$ours${mode:+-forward}"
    done
  done
done
