// Mamba2's structured masked attention: three forms, the recurrence by hand, gradients.

#include "polyline/help.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/structured.hpp"
#include "thrown.hpp"

using namespace polyline_test;

namespace structured_attention_test {

namespace {

std::vector<Tensor> inputs(i64 n, i64 s, i64 p) {
  return {random({2, 3, n, s}, 1), random({2, 3, n, s}, 2), random({2, 3, n, p}, 3),
          random_log_decay({2, 3, n}, 4)};
}
Function form(LinearForm f, i64 chunk = 64) {
  return [=](const auto& x) { return structured_attention(x[0], x[1], x[2], x[3], f, chunk); };
}

// h_t = a_t h_{t-1} + b_t x_t^T, y_t = c_t^T h_t, in plain loops.
Tensor recurrence(const std::vector<Tensor>& in) {
  const i64 n = in[0].dim(2), s = in[0].dim(3), p = in[2].dim(3);
  Tensor y = Tensor::zeros(in[2].shape(), DType::f64);
  const double *c = in[0].data<double>(), *b = in[1].data<double>(), *x = in[2].data<double>(),
               *a = in[3].data<double>();
  for (i64 line = 0; line < 6; ++line) {
    std::vector<double> h(static_cast<std::size_t>(s * p), 0.0);
    for (i64 t = line * n; t < (line + 1) * n; ++t)
      for (i64 i = 0; i < s; ++i)
        for (i64 j = 0; j < p; ++j) {
          double& state = h[static_cast<std::size_t>(i * p + j)];
          state = std::exp(a[t]) * state + b[t * s + i] * x[t * p + j];
          y.data<double>()[t * p + j] += c[t * s + i] * state;
        }
  }
  return y;
}

}  // namespace

TEST_CASE("structured attention: quadratic = recurrent = chunked", "[polyline][structured]") {
  for (const auto& [n, s, p] :
       {std::tuple<i64, i64, i64>{12, 3, 4}, {1, 2, 3}, {7, 5, 1}, {65, 4, 8}}) {
    INFO("n " << n);
    const auto in = inputs(n, s, p);
    const Tensor want = recurrence(in);
    CHECK(largest_difference(form(LinearForm::quadratic)(in), want) < 1e-13);
    CHECK(largest_difference(form(LinearForm::scan)(in), want) < 1e-13);
    for (const i64 chunk : {1, 4, 5, 64})
      CHECK(largest_difference(form(LinearForm::chunked, chunk)(in), want) < 1e-13);
    CHECK(largest_difference(cast(form(LinearForm::chunked, 8)(to_f32(in)), DType::f64), want) <
          5e-6);
  }
}

TEST_CASE("structured attention: gradients", "[polyline][structured]") {
  const auto in = inputs(9, 2, 3);
  for (const LinearForm f : {LinearForm::scan, LinearForm::chunked})
    check_equal(form(f, 4), form(LinearForm::quadratic), in, 1e-12);
  for (const LinearForm f : {LinearForm::quadratic, LinearForm::scan, LinearForm::chunked}) {
    const GradCheck g = grad_check(form(f, 4), inputs(5, 2, 2));
    INFO(to_string(f) << "\n" << g.report);
    CHECK(g.ok);
  }
}

TEST_CASE("structured attention: decays of 1 sum, decays of 0 forget", "[polyline][structured]") {
  std::vector<Tensor> in = inputs(6, 2, 3);
  in[3] = Tensor::zeros(in[3].shape(), DType::f64);
  const Tensor sums =
      matmul(reshape(in[0], {36, 1, 2}),
             reshape(cumsum(reshape(in[1], {2, 3, 6, 2, 1}) * reshape(in[2], {2, 3, 6, 1, 3}), 2),
                     {36, 2, 3}));
  for (const LinearForm f : {LinearForm::quadratic, LinearForm::scan, LinearForm::chunked})
    CHECK(largest_difference(form(f, 4)(in), reshape(sums, in[2].shape())) < 1e-13);
  in[3] = Tensor::full(in[3].shape(), -1e5, DType::f64);
  const Tensor own = sum(in[0] * in[1], {3}, true) * in[2];
  for (const LinearForm f : {LinearForm::quadratic, LinearForm::scan, LinearForm::chunked})
    CHECK(largest_difference(form(f, 4)(in), own) < 1e-14);
}

TEST_CASE("structured attention: one row of PPMLA is both directions of it",
          "[polyline][structured]") {
  // On a 1 x n grid L is the symmetric 1-D mask: causal + anticausal - diagonal.
  const i64 n = 9, d = 3;
  const Tensor q = random({1, 1, n, d}, 1), k = random({1, 1, n, d}, 2),
               v = random({1, 1, n, d}, 3), la = random_log_decay({1, 1, 1, n}, 4);
  const auto causal = [&](const Tensor& a, const Tensor& b, const Tensor& x, const Tensor& decay) {
    return structured_attention(reshape(a, {n, d}), reshape(b, {n, d}), reshape(x, {n, d}),
                                reshape(decay, {n}));
  };
  // Backwards in time the edge between t and t+1 belongs to t.
  const Tensor flat = reshape(la, {n}),
               shifted = concat({narrow(flat, 0, 1, n - 1), narrow(flat, 0, 0, 1)}, 0);
  const Tensor anticausal = flip(causal(flip(q, 2), flip(k, 2), flip(v, 2), flip(shifted, 0)), 0);
  const Tensor diagonal = sum(reshape(q * k, {n, d}), {1}, true) * reshape(v, {n, d});
  const Tensor want = causal(q, k, v, la) + anticausal - diagonal;
  CHECK(largest_difference(
            reshape(
                linear_attention(q, k, v, 1, join_decays(la, Tensor::zeros(la.shape(), DType::f64)),
                                 Paths::v2h),
                {n, d}),
            want) < 1e-13);
}

TEST_CASE("structured attention: misuse is explained", "[polyline][structured]") {
  const auto z = [](const Shape& s) { return Tensor::zeros(s, DType::f64); };
  CHECK(says(
      [&] {
        structured_attention(z({4, 2}), z({4, 3}), z({4, 2}), z({4}));
      },
      "c and b must both be (...,n,s)"));
  CHECK(says(
      [&] {
        structured_attention(z({4, 2}), z({4, 2}), z({5, 2}), z({4}));
      },
      "x must be (...,n,p)"));
  CHECK(says(
      [&] {
        structured_attention(z({4, 2}), z({4, 2}), z({4, 2}), z({4}), LinearForm::chunked, 0);
      },
      "chunk must be at least 1"));
}

}  // namespace structured_attention_test
