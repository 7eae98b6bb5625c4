#pragma once
// Initial values of parameters, as the published network has them (spec 3.8).

#include <cmath>

#include "ppma/core/random.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

/// A trainable tensor.
inline Tensor parameter(Tensor values) { return values.requires_grad(true); }

/// Normal draws with the given deviation, drawn again until they lie within +-limit.
inline Tensor truncated_normal(const Shape& shape, Rng& rng, double deviation = 0.02, double limit = 2) {
  Tensor t = Tensor::empty(shape);
  float* p = t.data<float>();
  for (i64 i = 0; i < t.numel(); ++i) {
    double x = deviation * rng.normal();
    while (std::abs(x) > limit) x = deviation * rng.normal();
    p[i] = static_cast<float>(x);
  }
  return t;
}

/// PyTorch's default of a convolution, for weight and bias: uniform in +-1/sqrt(fan_in).
inline Tensor uniform_fan_in(const Shape& shape, i64 fan_in, Rng& rng) {
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  return Tensor::rand(shape, rng, -bound, bound);
}

}  // namespace ppma::inline PPMA_ABI
