// 08: the mask by definition and by sums. Walking every path costs O(N^2 (H + W)); running sums of
// the log decays give each entry from four numbers, and scans apply the mask to tokens in O(N)
// without a single entry of it:
//
//   log L[(i,j),(k,l)] = -|a[i,j] - a[i,l]| - |b[i,l] - b[k,l]|
//         a: sums along rows, b: sums down columns
//   y = L x:   z = scan of x down every column,   y = scan of z along every row
//         (Theorem 2)

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "check.hpp"
#include "ppma/io/pickle_value.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/path.hpp"

using namespace ppma;

namespace {

// The mask of one query as a picture: the darker, the closer.
void picture(const Tensor& mask, i64 height, i64 width, i64 query) {
  const char shades[] = "@#*+=-. ";
  for (i64 i = 0; i < height; ++i) {
    std::printf("   ");
    for (i64 j = 0; j < width; ++j) {
      const double m =
          // L + L^T is 2 at the query itself
          mask.data<double>()[query * height * width + i * width + j] / 2;
      const double distance = -std::log2(m);  // halvings
      std::printf(" %c", shades[distance < 7 ? static_cast<int>(distance) : 7]);
    }
    std::printf("\n");
  }
}

}  // namespace

int main() {
  // A 14 x 14 grid with a square object in it: edges inside object and ground decay by 0.95, its
  // border by 0.1.
  const i64 h = 14, w = 14, n = h * w;
  const auto object = [](i64 i, i64 j) { return i >= 4 && i < 11 && j >= 3 && j < 10; };
  std::vector<double> log_alpha, log_beta;
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < w; ++j) {
      log_alpha.push_back(std::log(j > 0 && object(i, j) != object(i, j - 1) ? 0.1 : 0.95));
      log_beta.push_back(std::log(i > 0 && object(i, j) != object(i - 1, j) ? 0.1 : 0.95));
    }
  const Tensor decays = join_decays(Tensor::from<double>(log_alpha, {1, 1, h, w}),
                                    Tensor::from<double>(log_beta, {1, 1, h, w}));  // (2,1,1,H,W)

  const Tensor walked = polyline_log_mask_by_definition(decays, Paths::v2h);  // (1,1,N,N)
  const Tensor summed = polyline_log_mask(decays, Paths::v2h);                // (1,1,N,N)
  expect(largest_difference(walked, summed) < 1e-12, "log L by walking each path = log L by sums");
  expect(largest_difference(polyline_log_mask_by_definition(decays, Paths::h2v),
                            transpose(summed, 2, 3)) < 1e-12,
         "walking H2V gives the transpose");

  Rng rng(8);
  const Tensor x = Tensor::randn({1, h, w, 1}, rng, 1, DType::f64);
  const Tensor dense = reshape(matmul(exp(walked), reshape(x, {1, 1, n, 1})), x.shape());
  expect(largest_difference(apply_mask_factored(x, decays, Paths::v2h), dense) < 1e-12,
         "L x by one small matrix a row and a column");
  expect(largest_difference(apply_mask(x, decays, Paths::v2h), dense) < 1e-12, "L x by scans");

  i64 steps = 0;
  for (i64 u = 0; u < n; ++u)
    for (i64 v = 0; v < n; ++v) steps += std::abs(u / w - v / w) + std::abs(u % w - v % w);
  std::printf("\nN = %lld tokens, operations:\n", static_cast<long long>(n));
  std::printf("  the mask by walking   %8lld   one for each edge of each path\n",
              static_cast<long long>(steps));
  std::printf("  the mask by sums      %8lld   2 N sums, then three for each entry\n",
              static_cast<long long>(2 * n + 3 * n * n));
  std::printf("  L x by the mask       %8lld   N^2\n", static_cast<long long>(n * n));
  std::printf("  L x by line matrices  %8lld   N (H + W)\n", static_cast<long long>(n * (h + w)));
  std::printf("  L x by scans          %8lld   two scans of two directions\n\n",
              static_cast<long long>(4 * n));

  std::printf(
      "L + L^T of a query inside the object, and of one outside: the mask knows the object's "
      "shape.\n");
  const Tensor both = polyline_mask(decays, Paths::both);
  picture(both, h, w, 7 * w + 6);
  std::printf("\n");
  picture(both, h, w, 2 * w + 11);
  return failures;
}

// Exercises (solutions/05_08.cpp):
//   1. At 56 x 56, how many numbers has the mask, how many have the line matrices?
//   2. Make a door in the object: set alpha[7,3], on its left border, to 0.95. What does the
//      query inside, (7,6), take from the ground to its left now?
