# shellcheck shell=bash
# What comparisons with PyTorch share; to be sourced, from anywhere. Goes to the repository's root, makes target/peers-venv with PyTorch
# and diffusers where it is missing, and builds the trainer. Leaves `venv`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
venv=target/peers-venv
if ! "$venv/bin/python" -c 'import torch, diffusers' 2>/dev/null; then
  echo "installing PyTorch and diffusers into $venv" >&2
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet torch diffusers numpy
fi
cargo build --release --quiet -p limbeck
