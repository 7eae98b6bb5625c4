#!/usr/bin/env bash
# Builds by CMake, then runs the GPU tests and the table against PyTorch, in one command on a machine with a GPU, nvcc and
# what CMakeLists.txt looks for (elsewhere than in /usr: CMAKE_PREFIX_PATH). It prints how long each part took.
#   benchmarks/gpu.sh [tests|bench|all] [-DPPMA_CUDNN=ON and other options for CMake] [arguments for compare_gpu.py]
# compare_gpu.py checks what the tool computes before it times it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-all}; shift || true
options=() arguments=()
for argument in "$@"; do
  case $argument in -D*) options+=("$argument") ;; *) arguments+=("$argument") ;; esac
done
out=build/gpu-suite; mkdir -p build
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
command -v ninja > /dev/null && options+=(-G Ninja)  # $out/.ninja_log then has the milliseconds of each source
took() { echo "$1: $((SECONDS - begin)) s"; begin=$SECONDS; }
begin=0
build() { cmake --build "$out" -j "$(nproc)" --target "$1" > "$out/$1.log" 2>&1 || { grep -m9 -E "error|FAILED" "$out/$1.log"; exit 1; }; }

cmake -S . -B "$out" -DCMAKE_BUILD_TYPE=Release -DPPMA_CUDA=ON -DPPMA_NATIVE=ON "-DCMAKE_CUDA_ARCHITECTURES=$arch-real" \
      "${options[@]}" > "$out.log" 2>&1 || { cat "$out.log"; exit 1; }
build ppma_compiled_cuda; took "library compiled"
build ppma_tool; took "tool compiled"
code=0
if [[ $what != bench ]]; then
  build ppma_tests; took "tests compiled"
  "$out/tests/ppma_tests" "[cuda],[models],op table*" || code=1
  took "tests ended"
fi
if [[ $what != tests ]]; then
  python3 benchmarks/compare_gpu.py --tool "$out/ppma" "${arguments[@]}" || code=1
  took "bench ended"
fi
exit $code
