// 06: the 1-D decay mask. How much may token i take from token j? The product of the decays of the
// edges between them.
//
// Each token stores one number in (0,1]: the decay of the edge to the token on its left. The mask
// entry of i and j multiplies the edges that lie between them, so a single small decay cuts the
// sequence in two. Three ways to the same result: the definition, one running sum of logarithms,
// and a scan that applies the mask without building it.

#include <cmath>
#include <cstdio>
#include <vector>

#include "check.hpp"
#include "ppma/io/pickle_value.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/line_mask.hpp"

using namespace ppma;

int main() {
  // Seven tokens. The edge between tokens 3 and 4 hardly lets anything through: an object's border,
  // say.
  // decay[0] belongs to no edge
  const std::vector<double> decay{1.0, 0.9, 0.8, 0.9, 0.1, 0.9, 0.8};
  const i64 n = static_cast<i64>(decay.size());
  std::vector<double> logs;
  for (const double d : decay) logs.push_back(std::log(d));
  const Tensor log_decay = Tensor::from<double>(logs, {n});

  // By definition: multiply what lies between i and j. The smaller index is left out, the larger
  // one counts.
  Tensor by_definition = Tensor::empty({n, n}, DType::f64);
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < n; ++j) {
      double product = 1;
      for (i64 t = std::min(i, j) + 1; t <= std::max(i, j); ++t)
        product *= decay[static_cast<std::size_t>(t)];
      by_definition.data<double>()[i * n + j] = product;
    }

  // By sums: with c_t = ln d_0 + ... + ln d_t the product is exp(-|c_i - c_j|). n sums
  // and a difference an entry, instead of n (n^2 - 1) / 3 factors: 112 here.
  const Tensor mask = exp(sequence_log_mask(log_decay));  // (n, n)

  std::printf("decays:");
  for (i64 t = 1; t < n; ++t)
    std::printf("  %lld-%lld %.1f", static_cast<long long>(t - 1), static_cast<long long>(t),
                decay[static_cast<std::size_t>(t)]);
  std::printf("\nmask (row: who takes, column: from whom):\n");
  for (i64 i = 0; i < n; ++i) {
    for (i64 j = 0; j < n; ++j) std::printf(" %6.3f", mask.data<double>()[i * n + j]);
    std::printf("\n");
  }
  std::printf(
      "Tokens 0-3 and 4-6 form two groups: everything that crosses the edge 3-4 is multiplied by "
      "0.1.\n\n");

  // Applied to numbers x: y = mask x. A scan to the right and one to the left do it in O(n):
  //   f_t = x_t + d_t f_{t-1},   g_t = x_t + d_{t+1} g_{t+1},   y_t = f_t + g_t - x_t
  const Tensor x = Tensor::from<double>({1, 0, 0, 0, 0, 0, 1}, {n});
  const Tensor y = decay_scan(x, log_decay, 0);
  std::printf("x = (1 0 0 0 0 0 1), mask x =");
  for (const double v : y.to_vector<double>()) std::printf(" %.3f", v);
  std::printf("\n");

  expect(largest_difference(mask, by_definition) < 1e-15,
         "the sums give the product of the decays in between");
  expect(
      largest_difference(y, reshape(matmul(by_definition, reshape(x, {n, i64{1}})), {n})) < 1e-15,
      "the scan applies the mask without building it");
  return failures;
}

// Exercises (solutions/05_08.cpp):
//   1. Set the decay 3-4 to 0. What is in the mask?
//   2. Set decay[0], which belongs to no edge, to 0.001. What changes?
