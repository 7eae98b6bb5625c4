// 05: attention. Every token asks all others, and takes a weighted mean of what they hold.
//
//   y = softmax(Q K^T) V        row i: how much token i takes from each token; a row sums to 1
//
// Written out with elementary operations on one head, then the same from the fused kernel that
// never stores the N x N matrix. Nothing here knows where a token lies in the image: shuffling the
// tokens shuffles the result. That is what the polyline mask of the next examples changes.

#include <cmath>
#include <cstdio>
#include <vector>

#include "check.hpp"
#include "ppma/eigen.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/fused.hpp"

using namespace ppma;

namespace {

// One head: q, k, v (N,d) -> (N,d)
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  const Tensor scores = matmul(q, k, false, true);  // (N,N) how well query i and key j match
  const Tensor p = softmax(scores);                 // (N,N) rows sum to 1
  return matmul(p, v);                              // (N,d)
}

// The same in plain Eigen.
RowMajorMatrix<double> attention_by_eigen(const RowMajorMatrix<double>& q,
                                          const RowMajorMatrix<double>& k,
                                          const RowMajorMatrix<double>& v) {
  RowMajorMatrix<double> p = (q * k.transpose()).array().exp();
  const Eigen::ArrayXd sums = p.rowwise().sum();
  p.array().colwise() /= sums;
  return p * v;
}

}  // namespace

int main() {
  // Three tokens. The first asks for what the third one offers.
  const Tensor q = Tensor::from<double>({0, 4, 0, 0, 4, 0}, {3, 2}),
               k = Tensor::from<double>({1, 0, 1, 0, 0, 1}, {3, 2});
  const Tensor v = Tensor::from<double>({10, 0, 20, 0, 30, 1}, {3, 2});
  const std::vector<double> p = softmax(matmul(q, k, false, true)).to_vector<double>();
  for (std::size_t i = 0; i < 3; ++i)
    std::printf("token %zu looks at  %.2f %.2f %.2f\n", i, p[3 * i], p[3 * i + 1], p[3 * i + 2]);
  expect(p[2] > 0.9, "token 0 takes nearly all from token 2");
  expect(std::fabs(p[3] - 1.0 / 3) < 1e-12, "token 1 asks for nothing and takes the mean");

  // The fused kernel on a 4 x 5 grid, one head of width 8: the same numbers, no N x N matrix.
  Rng rng(5);
  const i64 height = 4, width = 5, d = 8, n = height * width;
  const Shape grid{1, height, width, d};
  const Tensor gq = Tensor::randn(grid, rng, 1, DType::f64),
               gk = Tensor::randn(grid, rng, 0.5, DType::f64);
  const Tensor gv = Tensor::randn(grid, rng, 1, DType::f64);
  // (1,H,W,d)
  const Tensor fused = whole_attention(gq, gk, gv, 1, Tensor(), Paths::none);
  const Tensor rows_q = reshape(gq, {n, d}), rows_k = reshape(gk, {n, d}),
               rows_v = reshape(gv, {n, d});
  const Tensor plain = attention(rows_q, rows_k, rows_v);
  expect(largest_difference(fused, plain) < 1e-12, "the fused kernel computes the same");
  expect(largest_difference(
             tensor_of(attention_by_eigen(as_matrix<double>(rows_q), as_matrix<double>(rows_k),
                                          as_matrix<double>(rows_v))),
             plain) < 1e-12,
         "so does Eigen, in four lines");

  // Without a mask, attention does not see the grid: read backwards, the tokens give the result
  // backwards.
  const auto backwards = [](const Tensor& t) { return flip(reshape(t, {n, d}), 0); };
  const Tensor turned = attention(backwards(gq), backwards(gk), backwards(gv));
  expect(largest_difference(turned, backwards(plain)) < 1e-12,
         "order and place of the tokens do not matter");
  return failures;
}

// Exercises (solutions/05_08.cpp):
//   1. Multiply the scores by 1000, then by 0. What does each token take?
//   2. Add the same vector to every key. What changes?
