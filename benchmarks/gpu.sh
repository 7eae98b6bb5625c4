#!/usr/bin/env bash
# Builds and runs the GPU tests and the table against PyTorch in one command, on a machine with a GPU, nvcc, Catch2,
# CLI11, nlohmann-json, stb, Eigen and DLPack (include folders in CPLUS_INCLUDE_PATH if they are not installed). CUDNN_ROOT, a folder with
# include/cudnn.h and lib/libcudnn.so.9, builds with cuDNN. CATCH2_ROOT, a folder with Catch2 2.13's catch2/catch.hpp, is taken
# instead of an installed Catch2 3.
#   benchmarks/gpu.sh [tests|bench|all] [arguments for compare_gpu.py]
# The library is compiled once, its device code by nvcc, as src/cuda/CMakeLists.txt has it; tests and tool see declarations
# and are compiled by g++. compare_gpu.py checks what the tool computes before it times it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-all}; shift || true
export out=build/gpu-suite; mkdir -p "$out"; : > "$out/times"  # how long each file took to compile
cuda=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
common=(-std=c++20 -DPPMA_HEADER_ONLY=0 -Iinclude -I"${STB_INCLUDE:-/usr/include/stb}")
device_flags=(-O3 -gencode "arch=compute_$arch,code=sm_$arch" -Xcompiler -fopenmp,-march=native,-fno-math-errno -diag-suppress "128,3189" -split-compile 0)
host_flags=(-fopenmp -march=native -fno-math-errno)
test_flags=(-O1 -Itests -DPPMA_TEST_GPU=1 -isystem "$cuda/include" "-DPPMA_TEST_REFERENCE_DIR=\"$PWD/tests/reference\""
            "-DPPMA_TEST_SOURCE_DIR=\"$PWD\"")
libraries=(-lcublasLt)
[[ -z ${CATCH2_ROOT:-} ]] || test_flags+=(-DPPMA_CATCH_2 -I"$CATCH2_ROOT")
if [[ -n ${CUDNN_ROOT:-} ]]; then
  device_flags+=(-DPPMA_CUDNN=1 -I"$CUDNN_ROOT/include")
  libraries+=(-L"$CUDNN_ROOT/lib" -l:libcudnn.so.9 -Xlinker -rpath -Xlinker "$CUDNN_ROOT/lib")
fi

# What takes longest first.
device=(cuda/criss_cross_backward polyline/criss_cross polyline/whole ops/conv ops/depthwise ops/norm ops/products polyline/linear polyline/mask ops/elements ops/selective_scan ops/rows
        ops/images ops/layout tensor optim core transfer nccl norm_decay)
host=(kernels train commands data heads models networks mixers export io nn vis parallel metrics)
tests=(op_cases/op_case_test heads/dense_cuda_test models/reference_test models/fold_test tensor/constant_test)
for test in tests/{train,polyline,ops,optim,interop,models,mixers,networks}/*_cuda_test.cpp tests/op_cases/*_test.cpp tests/main.cpp; do
  test=${test#tests/} test=${test%.cpp}
  [[ " ${tests[*]} " == *" $test "* ]] || tests+=("$test")
done

compile() {  # object, command
  local begin=$SECONDS object=$out/$1
  "${@:2}" -o "$object" > "${object%.o}.log" 2>&1 && { echo "$((SECONDS - begin)) s $1" >> "$out/times"; return; }
  echo "failed: $1"; grep -m5 error "${object%.o}.log"; rm -f "$object"; return 1
}
running=0 failed=0
start() {  # as many at a time as there are cores
  (( running < $(nproc) )) || { wait -n || failed=1; running=$((running - 1)); }
  compile "$@" & running=$((running + 1))
}
finish() {
  while (( running > 0 )); do wait -n || failed=1; running=$((running - 1)); done
  (( failed == 0 ))
}
compile_library() {
  for unit in "${device[@]}"; do start "device_${unit/\//_}.o" nvcc "${common[@]}" "${device_flags[@]}" -x cu -c "src/$unit.cpp"; done
  for unit in "${host[@]}"; do
    local optimised=-O2; [[ $unit != kernels ]] || optimised=-O3
    start "host_$unit.o" g++ "${common[@]}" "${host_flags[@]}" $optimised -c "src/$unit.cpp"
  done
}
compile_tests() {
  for test in "${tests[@]}"; do start "test_${test/\//_}.o" g++ "${common[@]}" "${host_flags[@]}" "${test_flags[@]}" -c "tests/$test.cpp"; done
}
link() {  # program, objects
  nvcc -o "$out/$1" "${@:2}" "$out"/device_*.o "$out"/host_*.o -Xcompiler -fopenmp "${libraries[@]}"
}

compile_library
finish || exit 1
echo "library compiled after $SECONDS s"
code=0
if [[ $what != tests ]]; then
  begin=$SECONDS
  start tool.o g++ "${common[@]}" "${host_flags[@]}" -O1 -c examples/ppma/main.cpp
  finish && link ppma "$out/tool.o" || exit 1
  echo "tool compiled in $((SECONDS - begin)) s"
fi
if [[ $what != bench ]]; then
  compile_tests
  catch=()  # version 3 has a library
  if [[ -z ${CATCH2_ROOT:-} ]] && g++ -std=c++20 -fsyntax-only -x c++ - <<< '#include <catch2/catch_all.hpp>' 2> /dev/null; then catch=(-lCatch2); fi
  finish && link tests "$out"/test_*.o "${catch[@]}" && echo "tests compiled after $SECONDS s" && "$out/tests" && echo "tests ended after $SECONDS s" || code=1
fi
if [[ $what != tests ]]; then
  python3 benchmarks/compare_gpu.py --tool "$out/ppma" "$@" || code=1
  echo "ended after $SECONDS s"
fi
exit $code
