#!/usr/bin/env bash
# What a source file that includes the library costs: CPU seconds and peak memory of g++ -O2, header-only and with
# declarations alone (docs/compile-time.md has the table). Needs GNU time.
#   benchmarks/compile_time.sh [header-only | compiled]     default: both; CXXFLAGS are added (-DPPMA_F64=0)
#   benchmarks/compile_time.sh budget      what g++'s front end allocates, which is the same on every machine, beside
#                                          the table's column; fails where it has grown by a fifth, or a program
#                                          does not compile, the README's among them. A network, a step and all
#                                          headers header-only, which take nine tenths of the time, with
#                                          PPMA_TEST_FULL=1 (./run test full): that all compile tests/included.sh tries
case "${1:-}" in "" | header-only | compiled | budget) ;; *) echo "header-only, compiled or budget, not $1" >&2; exit 2 ;; esac
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
#include "ppma/polyline/fused.hpp"
int main() {
  const ppma::Tensor q = ppma::Tensor::zeros({1, 7, 7, 32}), decays = ppma::Tensor::zeros({2, 1, 1, 7, 7});
  ppma::whole_attention(q, q, q, 1, decays);
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

programs="operation mask network step readme"
if [[ ${1:-} == budget ]]; then
  version=$(g++ -dumpversion)
  good=0 bad=0 skipped=0
  for program in $programs; do
    for kind in header-only compiled; do
      case "$program $kind" in
        "network header-only" | "step header-only" | "readme header-only") [[ -n ${PPMA_TEST_FULL:-} ]] || continue ;;
      esac
      header_only=$([[ $kind = header-only ]] && echo 1 || echo 0)
      if ! report=$(LC_ALL=C g++ -std=c++20 -fsyntax-only -ftime-report -DPPMA_HEADER_ONLY=$header_only -Iinclude \
        "$work/$program.cpp" 2>&1); then
        echo "$report" | grep -A3 error | head -40; echo "$program, $kind: does not compile"; bad=$((bad + 1)); continue
      fi
      now=$(echo "$report" | awk '/ TOTAL/ { print $NF + 0 }')
      budget=$(awk -F'|' -v p="$program" -v k="$kind" '$2 ~ "`" p "`" { print $(k == "compiled" ? 4 : 3) + 0 }' \
        docs/compile-time.md)
      echo "$program, $kind: $now MB of $budget"
      if [[ -n $now && -n $budget ]] && ((now * 5 <= budget * 6)); then good=$((good + 1))
      elif [[ ${version%%.*} != 12 ]]; then echo "skipped: the figures are g++ 12's, this is $version"; skipped=$((skipped + 1))
      else bad=$((bad + 1)); echo "  which is a fifth more than docs/compile-time.md says"; fi
    done
  done
  echo "$good passed, $bad failed, $skipped skipped"
  [[ $bad -eq 0 ]]
  exit
fi

for program in $programs; do
  for kind in ${1:-header-only compiled}; do
    header_only=$([[ $kind = header-only ]] && echo 1 || echo 0)
    command time -f "$program, $kind: %U s, %M KiB" \
      g++ -std=c++20 -O2 ${CXXFLAGS:-} -DPPMA_HEADER_ONLY=$header_only -Iinclude -c "$work/$program.cpp" -o "$work/out.o"
  done
done
