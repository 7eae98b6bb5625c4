#!/usr/bin/env bash
# The umbrella header and a training step as CUDA, where nvcc is installed; no GPU is needed, so nothing runs.
#   tests/cuda_compiles.sh SOURCE_DIR
cd "$1" || exit 1
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null)
if [[ -z $nvcc ]]; then
  echo "skipped: no nvcc here"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
cat > "$out/step.cu" << 'CODE'
#include "ppma/ppma.hpp"
int main() {
  using namespace ppma;
  Ppma model(config_by_name("ppma_nano"));
  to(model, Device::cuda);
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
  Context context{true, Rng(0)};
  const Tensor images = Tensor::zeros({2, 3, 64, 64}, DType::bf16, Device::cuda);
  cross_entropy(model.forward(images, context), Tensor::zeros({2}, DType::int64, Device::cuda)).backward();
  optimizer.step(1e-3);
}
CODE
# Unoptimised: whether it compiles is the question, and that is ten times as quick.
if "$nvcc" -std=c++20 -arch=sm_90 -Xcicc -O0 -Xptxas -O0 -diag-suppress 128 -Iinclude -I/usr/include/stb -c "$out/step.cu" -o "$out/step.o" 2> "$out/log"; then
  echo "1 passed, 0 failed"
else
  grep -E -A3 'error' "$out/log" | head -40
  echo "0 passed, 1 failed"
  exit 1
fi
