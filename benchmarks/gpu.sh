#!/usr/bin/env bash
# Builds and runs the GPU tests and the table against PyTorch in one command, on a machine with a GPU, nvcc, Catch2,
# CLI11, nlohmann-json, stb, Eigen and DLPack (include folders in CPLUS_INCLUDE_PATH if they are not installed). CUDNN_ROOT, a folder with
# include/cudnn.h and lib/libcudnn.so.9, builds with cuDNN. CATCH2_ROOT, a folder with Catch2 2.13's catch2/catch.hpp, is taken
# instead of an installed Catch2 3, whose checks keep nvcc's front end busy for minutes where g++ is 13.
#   benchmarks/gpu.sh [tests|bench|all] [arguments for compare_gpu.py]
# Tests are compiled with little optimisation, which takes a quarter of the time (DEVICE_FLAGS= for all of it); the tool is
# compiled for speed, and compare_gpu.py checks what it computes before it times it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-all}; shift || true
out=build/gpu-suite; mkdir -p "$out"; : > "$out/times"  # how long each file took to compile
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
flags=(-std=c++20 -gencode "arch=compute_$arch,code=sm_$arch" -Xcompiler -fopenmp,-march=native -diag-suppress 128,3189
       -Iinclude -Itests -I"${STB_INCLUDE:-/usr/include/stb}" "-DPPMA_TEST_REFERENCE_DIR=\"$PWD/tests/reference\"" "-DPPMA_TEST_SOURCE_DIR=\"$PWD\"")
libraries=(-lcublasLt)
[[ -z ${CATCH2_ROOT:-} ]] || flags+=(-DPPMA_CATCH_2 -I"$CATCH2_ROOT")
if [[ -n ${CUDNN_ROOT:-} ]]; then
  flags+=(-DPPMA_CUDNN=1 -I"$CUDNN_ROOT/include")
  libraries+=(-L"$CUDNN_ROOT/lib" -l:libcudnn.so.9 -Xlinker -rpath -Xlinker "$CUDNN_ROOT/lib")
fi
read -ra of_tests <<< "-O1 ${DEVICE_FLAGS--Xcicc -O1 -Xptxas -O1}"

compile() {  # source, flags
  local object begin=$SECONDS; object=$out/$(echo "$1" | tr / _).o
  nvcc "${flags[@]}" "${@:2}" -x cu -c "$1" -o "$object" > "${object%.o}.log" 2>&1 && { echo "$((SECONDS - begin)) s $1" >> "$out/times"; return; }
  echo "failed: $1"; grep -m5 error "${object%.o}.log"; rm -f "$object"; return 1
}
compile_tool() { compile examples/ppma/main.cpp -O2 -split-compile 0 && nvcc -o "$out/ppma" "$out/examples_ppma_main.cpp.o" -Xcompiler -fopenmp "${libraries[@]}"; }
compile_tests() {
  # What takes longest first: networks instantiate every kernel in every dtype.
  local sources running=0 failed=0
  sources=(tests/models/reference_test.cpp tests/heads/dense_cuda_test.cpp tests/train/*_cuda_test.cpp tests/polyline/*_cuda_test.cpp
           tests/ops/*_cuda_test.cpp tests/optim/*_cuda_test.cpp tests/interop/*_cuda_test.cpp tests/op_cases/*_test.cpp tests/main.cpp)
  for source in "${sources[@]}"; do
    (( running < $(nproc) )) || { wait -n || failed=1; running=$((running - 1)); }
    compile "$source" "${of_tests[@]}" & running=$((running + 1))
  done
  while (( running > 0 )); do wait -n || failed=1; running=$((running - 1)); done
  local catch=()  # version 3 has a library
  if [[ -z ${CATCH2_ROOT:-} ]] && g++ -std=c++20 -fsyntax-only -x c++ - <<< '#include <catch2/catch_all.hpp>' 2> /dev/null; then catch=(-lCatch2); fi
  (( failed == 0 )) && nvcc -o "$out/tests" "$out"/tests_*.o -Xcompiler -fopenmp "${libraries[@]}" "${catch[@]}"
}

code=0
[[ $what == tests ]] || { compile_tool > "$out/tool.log" 2>&1 & tool=$!; }
if [[ $what != bench ]]; then
  (compile_tests) && echo "tests compiled after $SECONDS s" && "$out/tests" && echo "tests ended after $SECONDS s" || code=1
fi
if [[ $what != tests ]]; then
  wait "$tool" && echo "tool compiled after $SECONDS s" && python3 benchmarks/compare_gpu.py --tool "$out/ppma" "$@" || { cat "$out/tool.log"; code=1; }
  echo "ended after $SECONDS s"
fi
exit $code
