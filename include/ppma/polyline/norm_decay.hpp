#pragma once
#include "ppma/core/names_begin.hpp"
// A layer norm and the log decays of its result in one pass over the tokens, where the device has a
// kernel for both. Legend:
// B batch, H W grid, C channels, G heads.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

struct NormedTokens {
  Tensor x;  // (B,H,W,C)
  // (2 or 1,B,G,H,W): what log_decay() takes as values; undefined: not computed yet
  Tensor log_decays;
};

/// layer_norm(x), x (B,H,W,C). On a GPU with the values of log_decay(x, dt_weight, dt_bias, A_log),
/// so that the tokens need not be read again.
PPMA_API NormedTokens layer_norm_log_decay(const Tensor& x, const Tensor& w, const Tensor& b,
                                           double eps, const Tensor& dt_weight,
                                           const Tensor& dt_bias, const Tensor& A_log);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include <type_traits>

#include "ppma/ops/norm.hpp"
#include "ppma/polyline/decay.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cuda/norm_decay.cuh"
#endif

namespace ppma::inline PPMA_ABI {

NormedTokens layer_norm_log_decay(const Tensor& x, const Tensor& w, const Tensor& b, double eps,
                                  const Tensor& dt_weight, const Tensor& dt_bias,
                                  const Tensor& A_log) {
  [[maybe_unused]] const auto s =
      detail::check_log_decay("layer_norm_log_decay", x, dt_weight, dt_bias, A_log);
  NormedTokens out;
  if (x.device() == Device::cpu) return {layer_norm(x, w, b, eps), out.log_decays};
#if PPMA_CUDA
  out.x =
      detail::layer_norm_by(x, w, b, eps, [&](auto on, auto t, auto* y, auto* mean, auto* rstd) {
        using T = decltype(t);
        using A = acc_t<T>;
        if constexpr (std::is_same_v<decltype(on), Cuda>) {
          out.log_decays =
              Tensor::empty({s.rows, s.batch, s.heads, x.dim(1), x.dim(2)}, w.dtype(), x.device());
          kernels::layer_norm_log_decay(on, s, x.data<T>(), w.data<A>(), b.data<A>(),
                                        static_cast<A>(eps), dt_weight.data<A>(), dt_bias.data<A>(),
                                        A_log.data<A>(), y, mean, rstd, out.log_decays.data<A>());
        }
      });
#endif
  return out;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
