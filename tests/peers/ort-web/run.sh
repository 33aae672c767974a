#!/usr/bin/env bash
# limbeck's page against ONNX Runtime Web: the same networks, in turn in the same browser, headless Chromium (WebGPU on SwiftShader) and
# headless Firefox (WebGPU on lavapipe), the wasm provider with one thread. Prints a line for each browser, provider, batch and network,
#   chromium webgpu b1 ratio 0.43 (ours 210 ms, peer 488 ms) reference
# each side's time being the better of the rounds' medians, after the two answers were found to agree to 1e-3.
#   tests/peers/ort-web/run.sh [ROUNDS] [BROWSER-PROVIDER...]      1, and all of chromium-wasm chromium-webgpu firefox-wasm firefox-webgpu
# On software adapters the WebGPU lines take a quarter of an hour, or more. What is missing is installed: PyTorch and its exporter into target/peers-venv,
# ONNX Runtime Web beside this script.
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/setup.sh"

here=tests/peers/ort-web
student=models/fashion-sid.safetensors
out=$target/ort-web

setup test

begin "the peer's programs"
venv=$root/target/peers-venv
if ! "$venv/bin/python" -c 'import torch, diffusers, safetensors, onnx, onnxscript' 2>/dev/null; then
    say "installing PyTorch, diffusers and ONNX's exporter into $venv"
    python3 -m venv --system-site-packages "$venv" || fail "python3 could not make $venv"
    "$venv/bin/pip" install --quiet torch diffusers safetensors onnx onnxscript || fail "pip could not install the exporter"
fi
for dir in "$here" tests/e2e; do
    if [ ! "$dir/node_modules/.package-lock.json" -nt "$dir/package-lock.json" ]; then
        npm ci --prefix "$dir" --no-audit --no-fund --loglevel=error >&2 || fail "npm could not install what $dir/package-lock.json names"
    fi
done

begin "the networks"
if [ ! "$out/student-b16.onnx" -nt "$student" ] || [ ! "$out/student-b16.onnx" -nt "$here/export.py" ]; then
    "$venv/bin/python" "$here/export.py" "$out" "$student" 2> >(grep -v 'torchvision' >&2)
fi

begin "the page"
page

begin "the comparison"
node "$here/compare.mjs" "$out" "$@"
