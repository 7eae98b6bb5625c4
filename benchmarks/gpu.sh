#!/usr/bin/env bash
# Builds and runs the GPU tests and the table against PyTorch in one command, on a machine with a GPU, nvcc, Catch2,
# CLI11, nlohmann-json and stb (include folders in CPLUS_INCLUDE_PATH if they are not installed).
#   benchmarks/gpu.sh [tests|bench|all] [arguments for compare_gpu.py]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-all}; shift || true
out=build/gpu-suite; mkdir -p "$out"
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
flags=(-std=c++20 -O2 -gencode "arch=compute_$arch,code=sm_$arch" -Xcompiler -fopenmp,-march=native -diag-suppress 128 -split-compile 0
       -Iinclude -Itests -I"${STB_INCLUDE:-/usr/include/stb}" "-DPPMA_TEST_REFERENCE_DIR=\"$PWD/tests/reference\"" "-DPPMA_TEST_SOURCE_DIR=\"$PWD\"")
compile() { eval "flags=($flags_text)"; nvcc "${flags[@]}" -x cu -c "$1" -o "$out/$(echo "$1" | tr / _).o" > "$out/$(echo "$1" | tr / _).log" 2>&1 || { echo "failed: $1"; grep -m5 error "$out/$(echo "$1" | tr / _).log"; }; }
export -f compile; export out flags_text="$(printf '%q ' "${flags[@]}")"
# What takes longest first: networks instantiate every kernel in every dtype.
sources=()
[[ $what == tests ]] || sources+=(examples/ppma/main.cpp)
[[ $what == bench ]] || sources+=(tests/models/reference_test.cpp $(ls tests/*/*_cuda_test.cpp) tests/op_cases/*_test.cpp tests/main.cpp)
printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -I{} bash -c 'compile {}'
if [[ $what != bench ]]; then
  nvcc -o "$out/tests" "$out"/tests_*.o -Xcompiler -fopenmp -lcublasLt && (cd "$PWD" && "$out/tests")
fi
if [[ $what != tests ]]; then
  nvcc -o "$out/ppma" "$out/examples_ppma_main.cpp.o" -Xcompiler -fopenmp -lcublasLt && python3 benchmarks/compare_gpu.py --tool "$out/ppma" "$@"
fi
