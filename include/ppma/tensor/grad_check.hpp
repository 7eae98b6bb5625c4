#pragma once
#include "ppma/core/names_begin.hpp"
// grad_check: compares the gradients that backward returns with central differences, in float64.
// Use it on any op or network of your own:
//
//   const GradCheck g = grad_check([](const std::vector<Tensor>& in) { return mul(in[0], in[1]);
//   }, {a, b});
//   if (!g.ok) puts(g.report.c_str());
//
// The loss is sum_i cos(1.7 i + 0.3) y_i. With all weights 1 the gradient of a softmax is zero, and
// a backward that returns nothing would pass; for the same reason a numeric gradient that is itself
// about zero is a failure.
//
// Tolerance: with step h = 1e-5 the differences are wrong by h^2/6 f''' (2e-11 f''') and by
// rounding eps |y| / h (2e-11 |y|). 1e-7 of the largest gradient leaves room for stiff functions; a
// wrong formula misses by far more.

#include <functional>
#include <string>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

struct GradCheckOptions {
  double step = 1e-5;
  // of the largest numeric gradient of the same input, or of 1e-3 if that is larger
  double tolerance = 1e-7;
  double least = 1e-6;   // an input whose numeric gradient is nowhere above this fails
  i64 max_elements = 0;  // per input, evenly spread; 0: all
};

struct GradCheck {
  bool ok = true;
  double worst = 0;    // largest error seen, as a fraction of the largest gradient
  std::string report;  // one line per input

  /// Whether it is right.
  explicit operator bool() const { return ok; }
};

/// Checks d f / d inputs. f is called many times and must be deterministic (give it a copy of its
/// Rng). Floating inputs must be f64; integer and undefined inputs are passed on unchanged.
PPMA_API GradCheck grad_check(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                              const std::vector<Tensor>& inputs,
                              const GradCheckOptions& options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TENSOR)

#include <algorithm>
#include <cmath>

#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

GradCheck grad_check(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                     const std::vector<Tensor>& inputs, const GradCheckOptions& options) {
  const auto weight = [](i64 i) { return std::cos(1.7 * static_cast<double>(i) + 0.3); };
  std::vector<Tensor> in;
  for (const Tensor& t : inputs) {
    check(!t.defined() || t.dtype() == DType::f64 || !is_floating(t.dtype()),
          "grad_check: inputs must be f64, got ", t.dtype(), "; convert with cast(x, DType::f64)");
    in.push_back(t.defined() ? t.clone() : t);
    if (t.defined() && t.dtype() == DType::f64) in.back().requires_grad(true);
  }

  const Tensor y = f(in);
  check(y.dtype() == DType::f64, "grad_check: the function returned ", y.dtype(), ", not f64");
  Tensor dy = Tensor::empty(y.shape(), DType::f64);
  for (i64 i = 0; i < dy.numel(); ++i) dy.data<double>()[i] = weight(i);
  GradCheck result;
  if (!y.requires_grad()) {
    result.ok = false;
    result.report = "the result does not depend on any input, as far as the tape knows\n";
    return result;
  }
  y.backward(dy);

  const NoGrad not_recorded;
  for (std::size_t k = 0; k < in.size(); ++k) {
    if (!in[k].defined() || in[k].dtype() != DType::f64) continue;
    const Tensor g = in[k].grad();
    double* x = in[k].data<double>();
    const i64 n = in[k].numel();
    const i64 stride = options.max_elements > 0 ? std::max<i64>(1, n / options.max_elements) : 1;
    double largest = 0, error = 0, numeric_there = 0, backward_there = 0;
    i64 where = 0;
    for (i64 i = 0; i < n; i += stride) {
      const double before = x[i], h = options.step;
      x[i] = before + h;
      const std::vector<double> above = f(in).to_vector<double>();
      const double up = x[i];
      x[i] = before - h;
      const std::vector<double> below = f(in).to_vector<double>();
      const double width = up - x[i];  // as it was rounded
      x[i] = before;
      double numeric = 0;
      for (std::size_t j = 0; j < above.size(); ++j)
        numeric += weight(static_cast<i64>(j)) * (above[j] - below[j]);
      numeric /= width;
      const double backward = g.defined() ? g.data<double>()[i] : 0.0;
      largest = std::max(largest, std::fabs(numeric));
      const double e = std::fabs(numeric - backward);
      if (!(e <= error)) error = e, where = i, numeric_there = numeric, backward_there = backward;
    }
    const double relative = error / std::max(largest, 1e-3);
    const char* verdict = "ok";
    if (!g.defined())
      verdict = "FAILED: backward gave no gradient";
    else if (!(largest > options.least))
      verdict = "FAILED: the numeric gradient is about zero, so nothing is tested";
    else if (!(relative <= options.tolerance))
      verdict = "FAILED";
    if (verdict[0] != 'o') result.ok = false;
    if (!(relative <= result.worst)) result.worst = relative;
    result.report += str("input ", k, " ", in[k].shape(), ": ", verdict, ", largest gradient ",
                         largest, ", worst at element ", where, ": numeric ", numeric_there,
                         ", backward ", backward_there, "\n");
  }
  return result;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
