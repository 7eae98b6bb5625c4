#pragma once
#include "ppma/core/names_begin.hpp"
// A detector's losses over dense maps: what was not sampled has the weight 0, so that nothing is
// gathered and all of it stays on the device. Targets and weights are made on the host.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Activations as losses take them: never narrower than f32.
PPMA_API Tensor widened(const Tensor& x);

/// sum w (ln(1 + e^x) - x t): binary cross entropy of sigmoid(x). Targets and weights f32 of x's
/// size, brought to where x is.
PPMA_API Tensor weighted_bce(const Tensor& logits, const Tensor& targets, const Tensor& weights);

/// sum w |x - t|.
PPMA_API Tensor weighted_l1(const Tensor& values, const Tensor& targets, const Tensor& weights);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"

namespace ppma::inline PPMA_ABI {

Tensor widened(const Tensor& x) { return cast(x, accumulator_dtype(x.dtype())); }

Tensor weighted_bce(const Tensor& logits, const Tensor& targets, const Tensor& weights) {
  const Tensor x = reshape(widened(logits), {logits.numel()});
  const auto like_x = [&](const Tensor& t) {
    check(t.numel() == x.numel(), "weighted_bce: ", t.numel(), " targets or weights for ",
          x.numel(), " logits");
    return cast(t.viewed_as({t.numel()}).to(x.device()), x.dtype());
  };
  return sum(mul(sub(softplus(x), mul(x, like_x(targets))), like_x(weights)));
}

Tensor weighted_l1(const Tensor& values, const Tensor& targets, const Tensor& weights) {
  const Tensor x = reshape(widened(values), {values.numel()});
  const auto like_x = [&](const Tensor& t) {
    check(t.numel() == x.numel(), "weighted_l1: ", t.numel(), " targets or weights for ", x.numel(),
          " values");
    return cast(t.viewed_as({t.numel()}).to(x.device()), x.dtype());
  };
  return sum(mul(abs(sub(x, like_x(targets))), like_x(weights)));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
