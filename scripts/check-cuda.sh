#!/usr/bin/env bash
# Compiles and links the trainer with --features cuda,cudnn,nccl on a machine without CUDA, and says so.
#
# NVIDIA's compiler and libraries come from PyPI into target/cuda-toolkit (about 3 GB, once). Nothing is run on a card: this shows
# that the CUDA build is whole, not that it is fast or right. CUDA_COMPUTE_CAP (default 90) is the architecture compiled for.
#   scripts/check-cuda.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

begin "CUDA 13.0 from PyPI"
has python3 || fail "python3 is missing, which fetches NVIDIA's packages"
has cargo || fail "cargo is missing; scripts/demo.sh installs it"
kit=$target/cuda-toolkit
wheels=(
    'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-runtime==13.0.*'
    'nvidia-cuda-nvrtc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-curand==10.4.0.*' 'nvidia-cublas==13.0.*'
    'nvidia-cudnn-cu13==9.21.*' 'nvidia-nccl-cu13==2.28.*'
)
if [ "$(cat "$kit/installed" 2>/dev/null)" != "${wheels[*]}" ]; then
    rm -rf "$kit"
    mkdir -p "$kit"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$kit/python" "${wheels[@]}" ||
        fail "NVIDIA's packages cannot be installed from PyPI"
    printf '%s' "${wheels[*]}" >"$kit/installed"
fi
home=$kit/python/nvidia/cu13
[ -x "$home/bin/nvcc" ] || fail "$home/bin/nvcc: found nothing, expected NVIDIA's compiler"
say "$("$home/bin/nvcc" --version | sed -n 's/^.*\(release.*\)$/nvcc \1/p')"

# The linker looks for names without a version, and for the driver's library, which only a card's driver brings: an empty one
# with the names that the bindings declare stands in for it.
links=$kit/lib
mkdir -p "$links"
for library in "$kit"/python/nvidia/*/lib/*.so.*; do
    name=${library##*/}
    ln -sf "$library" "$links/${name%%.so.*}.so"
done
if [ ! -e "$links/libcuda.so" ]; then
    cargo fetch --locked --quiet
    bindings=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-*/src/driver/sys* | tail -n 1)
    grep -rhoE '\<fn cu[A-Z][A-Za-z0-9_]*' "$bindings" | awk '{ print "int " $2 "(void) { return 100; }" }' | sort -u >"$kit/driver.c"
    ${CC:-cc} -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$links/libcuda.so" "$kit/driver.c"
fi

begin "limbeck with cuda, cudnn and nccl"
export CUDA_HOME=$home CUDA_PATH=$home CUDA_ROOT=$home CUDA_TOOLKIT_ROOT_DIR=$home CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
export PATH=$home/bin:$PATH LIBRARY_PATH=$links${LIBRARY_PATH:+:$LIBRARY_PATH}
export RUSTFLAGS="${RUSTFLAGS:-} -L native=$links"
CARGO_TARGET_DIR=$target/cuda cargo build --locked --release -p limbeck --features cuda,cudnn,nccl
binary=$target/cuda/release/limbeck
# NCCL is compiled in, but limbeck calls none of it yet, so the linker leaves its library out.
for library in libcuda libcublas libcudnn libcurand; do
    readelf -d "$binary" | grep -q "NEEDED.*$library" || fail "$binary: does not need $library, which it should be linked with"
done
say "compiled for sm_$CUDA_COMPUTE_CAP and linked: $binary"
say "not run: there is no card here"
