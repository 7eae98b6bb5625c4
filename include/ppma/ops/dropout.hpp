#pragma once
#include "ppma/core/names_begin.hpp"
// Dropout and drop path (stochastic depth). The random numbers are a function of the Rng's key and
// position, so backward draws them again instead of keeping a mask, and the result is the same for
// any number of threads.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Each element is 0 with probability p, else x / (1 - p). Advances rng. Call it in training only.
PPMA_API Tensor dropout(const Tensor& x, double p, Rng& rng);

/// What each sample's residual branch is multiplied by: (batch), 0 with probability p, else 1 / (1
/// - p). Advances rng.
PPMA_API Tensor drop_path_factors(i64 batch, double p, Rng& rng, DType dtype);

/// Drops whole samples: x (B, ...) times drop_path_factors. Advances rng. Call it in training only.
PPMA_API Tensor drop_path(const Tensor& x, double p, Rng& rng);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ELEMENTS)

#include "ppma/kernels/cpu/dropout.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/elementwise.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

Tensor dropout(const Tensor& x, double p, Rng& rng) {
  detail::check_defined("dropout", x);
  check(p >= 0 && p <= 1, "dropout: the probability is ", p, ", outside of [0, 1]");
  if (p == 0) return x;
  const u64 first = (rng.position() + 3) / 4;  // whole blocks, from the next unused one
  rng.seek((first + (static_cast<u64>(x.numel()) + 3) / 4) * 4);
  const auto run = [p, first, draws = rng](const Tensor& in) {
    Tensor out = Tensor::empty(in.shape(), in.dtype(), in.device());
    visit(in.device(), in.dtype(), "dropout", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::dropout(on, in.numel(), p, draws, first, in.data<T>(), out.data<T>());
    });
    return out;
  };
  return record(run(x), "dropout", {x}, [run](const Tensor& dy) { return Grads{run(dy)}; });
}

Tensor drop_path_factors(i64 batch, double p, Rng& rng, DType dtype) {
  check(p >= 0 && p < 1, "drop_path: the probability is ", p, ", outside of [0, 1)");
  Tensor factors = Tensor::empty({batch}, dtype);
  visit(Device::cpu, dtype, "drop_path", [&](auto, auto t) {
    using T = decltype(t);
    T* f = factors.data<T>();
    for (i64 b = 0; b < batch; ++b) f[b] = rng.flip(p) ? T(0) : static_cast<T>(1 / (1 - p));
  });
  return factors;
}

Tensor drop_path(const Tensor& x, double p, Rng& rng) {
  detail::check_defined("drop_path", x);
  check(x.rank() >= 1, "drop_path: x must be (B, ...), got a scalar");
  if (p == 0) return x;
  Shape per_sample{x.dim(0)};
  while (per_sample.rank() < x.rank()) per_sample.push_back(1);
  const Tensor factors =
      drop_path_factors(x.dim(0), p, rng, accumulator_dtype(x.dtype())).to(x.device());
  return mul(x, cast(factors, x.dtype()).viewed_as(per_sample));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
