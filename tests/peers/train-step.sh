#!/usr/bin/env bash
# limbeck's training step against PyTorch's on the same networks, in turn, several times each.
# Prints a line for each network, such as: reference ratio 0.82 (ours 603 ms, peer 739 ms; memory ours 0.46 GB, peer 1.57 GB)
#   tests/peers/train-step.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-3}
venv=target/peers-venv
if ! "$venv/bin/python" -c 'import torch, diffusers' 2>/dev/null; then
  echo "installing PyTorch and diffusers into $venv" >&2
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet torch diffusers numpy
fi
cargo build --release --quiet -p limbeck
summary='
import json, statistics, sys
rows = [json.loads(line) for line in sys.stdin]
ours, peer = rows[0::2], rows[1::2]
ms = lambda side: statistics.median(r["ms"] for r in side)
gb = lambda side: max(r["peak_memory_bytes"] for r in side) / 1e9
print(f"{sys.argv[1]} ratio {ms(ours) / ms(peer):.2f} (ours {ms(ours):.0f} ms, peer {ms(peer):.0f} ms; "
      f"memory ours {gb(ours):.2f} GB, peer {gb(peer):.2f} GB)")
'
for name in reference rgb32 space-to-depth; do
  config=tests/peers/configs/$name.json
  batch=64
  [ "$name" = rgb32 ] && batch=32
  for mode in "" --forward-only; do
    for ((i = 0; i < rounds; i++)); do
      target/release/limbeck bench train-step --config "$config" --batch "$batch" $mode
      "$venv/bin/python" tests/peers/train_step.py "$config" --batch "$batch" $mode
    done | python3 -c "$summary" "$name${mode:+ forward}"
  done
done
