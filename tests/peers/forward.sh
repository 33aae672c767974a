#!/usr/bin/env bash
# One evaluation of a network in f32 on two threads: our interpreter, candle's own operations, PyTorch. In turn, several rounds;
# each side's time is its best round's median: a shared machine only ever makes a round slower. Prints lines such as
#   reference b16: ours 45 ms, candle 250 ms (ratio 0.18), PyTorch 60 ms (ratio 0.75)
#   tests/peers/forward.sh [ROUNDS]
source "$(dirname "$0")/pytorch.sh"
rounds=${1:-3}
summary='
import json, sys
ms = [json.loads(line)["ms"] for line in sys.stdin]
ours, candle, torch = (min(ms[k::3]) for k in range(3))
print(f"{sys.argv[1]}: ours {ours:.1f} ms, candle {candle:.1f} ms (ratio {ours / candle:.2f}), PyTorch {torch:.1f} ms (ratio {ours / torch:.2f})")
'
for name in reference space-to-depth; do
  config=tests/peers/configs/$name.json
  for batch in 1 16; do
    for ((i = 0; i < rounds; i++)); do
      target/release/limbeck bench train-step --config "$config" --batch "$batch" --forward-only
      target/release/limbeck bench train-step --config "$config" --batch "$batch" --forward-only --candle
      "$venv/bin/python" tests/peers/train_step.py "$config" --batch "$batch" --forward-only
    done | python3 -c "$summary" "$name b$batch"
  done
done
