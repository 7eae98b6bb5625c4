#pragma once
#include "ppma/core/names_begin.hpp"
// A detector's losses over dense maps: what was not sampled has the weight 0, so that nothing is gathered and all of it
// stays on the device. Targets and weights are made on the host.

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"

namespace ppma::inline PPMA_ABI {

/// Activations as losses take them: never narrower than f32.
inline Tensor widened(const Tensor& x) { return cast(x, accumulator_dtype(x.dtype())); }

/// sum w (ln(1 + e^x) - x t): binary cross entropy of sigmoid(x). Targets and weights f32 of x's size, brought to where
/// x is.
inline Tensor weighted_bce(const Tensor& logits, const Tensor& targets, const Tensor& weights) {
  const Tensor x = reshape(widened(logits), {logits.numel()});
  const auto like_x = [&](const Tensor& t) {
    check(t.numel() == x.numel(), "weighted_bce: ", t.numel(), " targets or weights for ", x.numel(), " logits");
    return cast(t.viewed_as({t.numel()}).to(x.device()), x.dtype());
  };
  return sum(mul(sub(softplus(x), mul(x, like_x(targets))), like_x(weights)));
}

/// sum w |x - t|.
inline Tensor weighted_l1(const Tensor& values, const Tensor& targets, const Tensor& weights) {
  const Tensor x = reshape(widened(values), {values.numel()});
  const auto like_x = [&](const Tensor& t) {
    check(t.numel() == x.numel(), "weighted_l1: ", t.numel(), " targets or weights for ", x.numel(), " values");
    return cast(t.viewed_as({t.numel()}).to(x.device()), x.dtype());
  };
  return sum(mul(abs(sub(x, like_x(targets))), like_x(weights)));
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
