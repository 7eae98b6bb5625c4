#pragma once
// What the tests of the paper share: random decays and tokens, distances, gradients.

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "distance.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/grad_check.hpp"

namespace polyline_test {

using namespace ppma;

/// Log decays of decays uniform in (low, high).
inline Tensor random_log_decay(const Shape& shape, u64 seed, double low = 0.2, double high = 1) {
  Rng rng(seed);
  Tensor t = Tensor::rand(shape, rng, low, high, DType::f64);
  for (i64 i = 0; i < t.numel(); ++i) t.data<double>()[i] = std::log(t.data<double>()[i]);
  return t;
}
inline Tensor random(const Shape& shape, u64 seed, double deviation = 1) {
  Rng rng(seed);
  return Tensor::randn(shape, rng, deviation, DType::f64);
}

inline double largest(const Tensor& t) {
  double m = 0;
  for (const double x : t.to_vector<double>()) m = std::max(m, std::fabs(x));
  return m;
}

using Function = std::function<Tensor(const std::vector<Tensor>&)>;

/// Gradients of sum_i cos(1.7 i + 0.3) f_i with respect to the inputs.
inline std::vector<Tensor> gradients(const Function& f, const std::vector<Tensor>& inputs) {
  std::vector<Tensor> in;
  for (const Tensor& t : inputs) in.push_back(t.clone()), in.back().requires_grad(true);
  const Tensor y = f(in);
  Tensor dy = Tensor::empty(y.shape(), DType::f64);
  for (i64 i = 0; i < dy.numel(); ++i)
    dy.data<double>()[i] = std::cos(1.7 * static_cast<double>(i) + 0.3);
  y.backward(cast(dy, y.dtype()));
  std::vector<Tensor> out;
  for (const Tensor& t : in) out.push_back(t.grad());
  return out;
}

/// Checks that two functions have equal values and equal, non-vanishing gradients.
inline void check_equal(const Function& got, const Function& want,
                        const std::vector<Tensor>& inputs, double tolerance) {
  {
    const NoGrad off;
    CHECK(largest_difference(got(inputs), want(inputs)) < tolerance);
  }
  const std::vector<Tensor> a = gradients(got, inputs), b = gradients(want, inputs);
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO("gradient of input " << i);
    REQUIRE(a[i].defined());
    REQUIRE(b[i].defined());
    CHECK(largest(b[i]) > 1e-6);
    CHECK(largest_difference(a[i], b[i]) < tolerance);
  }
}

inline std::vector<Tensor> to_f32(const std::vector<Tensor>& ts) {
  std::vector<Tensor> out;
  for (const Tensor& t : ts) out.push_back(cast(t, DType::f32));
  return out;
}

/// Criss-cross attention (variant code) by its dense N x N maps, for small N:
///   O1 = S_V' S_H' V,  O2 = S_H' S_V' V,  S_H' block diagonal by rows, S_V' by columns
inline Tensor criss_cross_attention_dense(const Tensor& q, const Tensor& k, const Tensor& v,
                                          i64 heads, const Tensor& log_decays,
                                          Order order = Order::both) {
  const Tensor qs = detail::split_heads(q, heads), ks = detail::split_heads(k, heads);
  Tensor rows = matmul(qs, ks, false, true),
         columns = matmul(transpose(qs, 2, 3), transpose(ks, 2, 3), false, true);
  if (log_decays.defined()) {
    const LineMasks m = line_log_masks(log_decays);
    rows = rows + m.rows;
    columns = columns + m.columns;
  }
  const Tensor sh = row_factor(softmax(rows)), sv = column_factor(softmax(columns));  // (B,G,N,N)
  const Tensor map = order == Order::rows_first      ? matmul(sv, sh)
                     : order == Order::columns_first ? matmul(sh, sv)
                                                     : scale(matmul(sv, sh) + matmul(sh, sv), 0.5);
  return detail::tokens_to_grid(matmul(map, detail::head_tokens(v, heads)), q);
}

}  // namespace polyline_test
