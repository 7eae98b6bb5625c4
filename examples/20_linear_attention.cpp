// 20: linear attention. Without the softmax attention is a product of three matrices, and products
// may be taken in any order.
//
//   softmax   Y = softmax(Q K^T) V        N x N numbers, 2 N N d products
//   linear    Y = ( f(Q) f(K)^T ) V = f(Q) ( f(K)^T V )     d x d numbers, 2 N d d products
//
// f keeps weights positive, here max(x, 0), and a row is divided by its sum, which is the same
// product with ones for V. What is lost: a map that is made of d numbers a token has rank d, and is
// never sharp. What is not lost: that near tokens count more, as long as the distance comes as a
// product too, or as a scan.

#include "check.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/mask.hpp"

using namespace ppma;

namespace {

constexpr i64 side = 12, n = side * side, d = 8;  // tokens of a grid, channels

Tensor shares(const Tensor& weights) { return weights / sum(weights, {1}, true); }

// How many rows of a map (N,N) are no sums of those above: what is left of each is kept.
std::size_t rank_of(const Tensor& map) {
  std::vector<Tensor> kept;  // (1,N), of length 1, at right angles
  for (i64 i = 0; i < n; ++i) {
    Tensor row = narrow(map, 0, i, 1);
    for (int again = 0; again < 2; ++again)
      for (const Tensor& k : kept) row = row - k * sum(k * row);
    const double length = std::sqrt(sum(row * row).item());
    if (length > 1e-12) kept.push_back(scale(row, 1 / length));
  }
  return kept.size();
}

}  // namespace

int main() {
  Rng rng(20);
  const auto normal = [&] { return Tensor::randn({n, d}, rng, 1, DType::f64); };
  const Tensor q = normal(), k = normal(), v = normal();  // (N,d)
  const Tensor soft = softmax(scale(matmul(q, k, false, true), 1 / std::sqrt(8.0)));

  // The order of the products.
  const Tensor fq = relu(q), fk = relu(k);                              // (N,d)
  const Tensor pairs = matmul(matmul(fq, fk, false, true), v);          // by N x N numbers
  const Tensor kv = matmul(fk, v, true, false), y = matmul(fq, kv);     // by d x d
  const Tensor row_sums = matmul(fq, sum(fk, {0}, true), false, true);  // (N,1), V is ones
  const Tensor linear = shares(matmul(fq, fk, false, true));            // (N,N), to look at
  expect(largest_difference(pairs, y) < 1e-12, "(Q K^T) V is Q (K^T V)");
  expect(largest_difference(y / row_sums, matmul(linear, v)) < 1e-13,
         "divided by the sums of the rows it is a mean of V, as attention is");
  std::printf("\nproducts of a head of 32 channels, millions\n  tokens   pairs  linear\n");
  for (const double t : {49, 196, 784, 3136})
    std::printf("  %6.0f %7.2f %7.2f\n", t, 2 * t * t * 32 / 1e6, 2 * t * 32 * 32 / 1e6);

  // What is lost.
  std::printf("\n%-10s rank %3zu, the largest share %.3f\n", "softmax", rank_of(soft),
              max(reshape(soft, {n * n}), 0).values.item());
  std::printf("%-10s rank %3zu, the largest share %.3f\n\n", "linear", rank_of(linear),
              max(reshape(linear, {n * n}), 0).values.item());
  expect(rank_of(linear) == d && rank_of(soft) == n, "the linear map has rank d, the softmax N");

  // Near tokens. Vicinity attention multiplies weights by cos(dr) + cos(dc), a quarter turn over
  // the grid; cos(a - b) = cos a cos b + sin a sin b makes it a product of four times the channels.
  Tensor turns = Tensor::empty({n, 4, 1}, DType::f64), near = Tensor::empty({n, n}, DType::f64);
  const auto angle = [](i64 at) { return std::acos(0.0) * static_cast<double>(at) / side; };
  for (i64 t = 0; t < n; ++t) {
    const double r = angle(t / side), c = angle(t % side);
    const double four[] = {std::cos(r), std::sin(r), std::cos(c), std::sin(c)};
    for (int i = 0; i < 4; ++i) turns.data<double>()[4 * t + i] = four[i];
    for (i64 u = 0; u < n; ++u)
      near.data<double>()[t * n + u] =
          std::cos(r - angle(u / side)) + std::cos(c - angle(u % side));
  }
  const auto turned = [&](const Tensor& f) {  // (N,4d)
    return reshape(reshape(f, {n, i64{1}, d}) * turns, {n, 4 * d});
  };
  const Tensor vicinity = matmul(fq, fk, false, true) * near;
  expect(largest_difference(matmul(turned(fq), matmul(turned(fk), v, true, false)),
                            matmul(vicinity, v)) < 1e-12,
         "weights that fall with the distance, by products of 4 d channels");

  // This paper's: the mask of polyline paths, by scans of k v^T over the grid.
  const Tensor decays =
      constant_log_decay(Tensor::from<double>({std::log(0.7)}, Shape{1}), 1, side, side);
  const Tensor masked =
      matmul(fq, fk, false, true) * reshape(polyline_mask(decays, Paths::both), {n, n});
  const auto grid = [](const Tensor& t) { return reshape(t, {1, side, side, d}); };
  expect(largest_difference(linear_attention(grid(fq), grid(fk), grid(v), 1, decays),
                            grid(matmul(masked, v))) < 1e-12,
         "the polyline mask on linear attention, by scans");
  std::printf("\nshares by distance          0-3    4-7     8-\n");
  const auto print = [](const char* name, const Tensor& map) {
    double by[3] = {0, 0, 0};
    for (i64 t = 0; t < n; ++t)
      for (i64 u = 0; u < n; ++u)
        by[std::min<i64>(2, (std::abs(t / side - u / side) + std::abs(t % side - u % side)) / 4)] +=
            map.data<double>()[t * n + u] / n;
    std::printf("  %-22s %6.3f %6.3f %6.3f\n", name, by[0], by[1], by[2]);
  };
  print("softmax", soft), print("linear", linear), print("vicinity", shares(vicinity));
  print("polyline, decay 0.7", shares(masked));
  return failures;
}

// Exercises (solutions/19_21.cpp):
//   1. Multiply all queries by 10. What becomes of the softmax map, and of the linear one?
//   2. From how many tokens on does the linear order need fewer products than all pairs, with heads
//      of 64 channels? And vicinity attention?
