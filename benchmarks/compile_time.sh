#!/usr/bin/env bash
# What a source file that includes the library costs: CPU seconds and peak memory of g++ -O2, header-only and with
# declarations alone (docs/compile-time.md has the table). Needs GNU time.
#   benchmarks/compile_time.sh [header-only | compiled]     default: both
case "${1:-}" in "" | header-only | compiled) ;; *) echo "header-only or compiled, not $1" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

cat > "$work/operation.cpp" << 'CPP'
#include "ppma/ops/arithmetic.hpp"
int main() {
  ppma::Tensor a = ppma::Tensor::zeros({2});
  a.requires_grad(true);
  ppma::mul(a, a).backward(a);
}
CPP
cat > "$work/mask.cpp" << 'CPP'
#include "ppma/polyline/whole_attention.hpp"
int main() {
  const ppma::Tensor q = ppma::Tensor::zeros({1, 7, 7, 32}), decay = ppma::Tensor::zeros({1, 1, 7, 7});
  ppma::whole_attention(q, q, q, 1, decay, decay);
}
CPP
cat > "$work/network.cpp" << 'CPP'
#include "ppma/models/ppma.hpp"
int main() {
  ppma::Ppma network(ppma::ppma_tiny());
  network.forward(ppma::Tensor::zeros({1, 3, 224, 224}));
}
CPP
cat > "$work/step.cpp" << 'CPP'
#include "ppma/models/ppma.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
using namespace ppma;
int main() {
  Ppma model(ppma_tiny());
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
  Context context{true, Rng(0)};
  const Tensor images = Tensor::zeros({2, 3, 64, 64}), labels = Tensor::zeros({2}, DType::int64);
  cross_entropy(model.forward(images, context), labels).backward();
  optimizer.step(1e-3);
}
CPP
awk '/^```cpp/ { p = 1; next } /^```/ { p = 0 } p' README.md > "$work/readme.cpp"

for program in operation mask network step readme; do
  for kind in ${1:-header-only compiled}; do
    header_only=$([[ $kind = header-only ]] && echo 1 || echo 0)
    command time -f "$program, $kind: %U s, %M KiB" \
      g++ -std=c++20 -O2 -DPPMA_HEADER_ONLY=$header_only -Iinclude -c "$work/$program.cpp" -o "$work/out.o"
  done
done
