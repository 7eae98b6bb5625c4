#!/usr/bin/env bash
# A training step with the umbrella header as CUDA, where nvcc is installed; no GPU is needed, so nothing runs. And that the
# library for GPUs (ppma::compiled_cuda) has the functions that ppma::compiled has: tests/cuda_compiles.sh SOURCE_DIR
#   PPMA_BUILT      a build folder; with PPMA_CUDA, a step that g++ alone has compiled is linked with its library
#   PPMA_TEST_FULL  not empty: that step down to the GPU's instructions (./run test full)
cd "$1" || exit 1
root=$PWD
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null)
if [[ -z $nvcc ]]; then
  echo "skipped: no nvcc here"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
. tests/tries.sh
cat > "$out/step.cpp" << 'CODE'
#include "ppma/ppma.hpp"
int main() {
  using namespace ppma;
  Ppma model(config_by_name("ppma_nano"));
  if (!cuda::available()) return cuda::compiled() ? 0 : 1;
  to(model, Device::cuda);
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
  Context context{true, Rng(0)};
  const Tensor images = Tensor::zeros({2, 3, 64, 64}, DType::bf16, Device::cuda);
  cross_entropy(model.forward(images, context), Tensor::zeros({2}, DType::int64, Device::cuda)).backward();
  optimizer.step(1e-3);
}
CODE
cd "$out" || exit 1
# Unoptimised: whether it compiles is the question, and that is ten times as quick.
device() { "$nvcc" -std=c++20 -arch=sm_90 -Xcicc -O0 -Xptxas -O0 -diag-suppress 128,3189 -I"$root/include" -I/usr/include/stb -x cu -c "$@"; }
# As far as what link-time optimization begins with: all errors of a program are seen before it, and the six times that the GPU's
# instructions take are spared. Those show a kernel that wants more shared memory than a block can have.
read_and_instantiated() {
  "$nvcc" -std=c++20 -arch=lto_90 -dlto -ltoir -Xcicc -O0 -diag-suppress 128,3189 -I"$root/include" -I/usr/include/stb -x cu "$@"
}
if [[ -n ${PPMA_TEST_FULL:-} ]]; then try "a training step, header-only" device step.cpp -o step.o
else try "a training step, header-only, without the GPU's instructions" read_and_instantiated step.cpp -o step.ltoir; fi

# The library's functions (not the standard library's, nor the kernels' own) in objects or libraries.
functions() { nm -C --defined-only "$@" 2> /dev/null | sed -nE 's/^[0-9a-f]+ T (ppma::compiled::.*)/\1/p' | grep -v '^ppma::compiled::kernels::' | sort -u; }
# What speaks to the GPU most directly, by both compilers; the rest is compared where it has been built.
same_functions() {
  local unit
  for unit in CORE TRANSFER NCCL; do echo "#define PPMA_DEFINES_$unit"; done > units.cpp
  for unit in core transfer nccl; do echo "#include \"$root/src/$unit.cpp\""; done >> units.cpp
  device -DPPMA_HEADER_ONLY=0 units.cpp -o cuda_units.o && g++ -std=c++20 -O0 -DPPMA_HEADER_ONLY=0 -I"$root/include" -c units.cpp -o units.o || return 1
  functions units.o > of_cpu && functions cuda_units.o > of_cuda && [[ -s of_cpu ]] || return 1
  ! comm -23 of_cpu of_cuda | grep .
}
try "the same functions with and without CUDA" same_functions

library=${PPMA_BUILT:-}/src/cuda/libppma_cuda.a
whole() {
  functions "$PPMA_BUILT/src/libppma.a" > of_cpu && functions "$library" > of_cuda && [[ -s of_cpu ]] || return 1
  ! comm -23 of_cpu of_cuda | grep . || return 1
  local toolkit; toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  g++ -std=c++20 -O0 -DPPMA_HEADER_ONLY=0 -I"$root/include" step.cpp "$library" -fopenmp -L"$toolkit/lib64" -Wl,-rpath,"$toolkit/lib64" -lcudart -lcublasLt -o step && ./step
}
if [[ -f $library ]]; then
  try "a training step by g++ alone, with the library for GPUs" whole
else
  skip "no library for GPUs was built (-DPPMA_CUDA=ON)"
fi
finish
