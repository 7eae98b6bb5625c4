#pragma once
#include "ppma/core/names_begin.hpp"
// Attention in bf16 where the tensor cores' kernels do not suit the shape: on the GPU in float,
// arguments and results converted. So kernels of CUDA cores are made for float and double alone.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/convert.hpp"

namespace ppma::inline PPMA_ABI::kernels::polyline_gpu {

/// f(arguments, y) in float for those in bf16.
template <class F>
void in_float(Cuda on, const AttentionArgs<bf16>& in, bf16* y, const F& f) {
  const i64 n = in.shape.batch * in.shape.tokens() * in.shape.channels();
  const Workspace<float> wide(4 * n, Device::cuda);
  float* const w = wide.data();
  convert(on, n, in.q, w);
  convert(on, n, in.k, w + n);
  convert(on, n, in.v, w + 2 * n);
  f(AttentionArgs<float>{in.shape, w, w + n, w + 2 * n, in.log_alpha, in.log_beta, in.row_orders,
                         in.column_orders},
    w + 3 * n);
  convert(on, n, w + 3 * n, y);
}

/// f(arguments, dy, gradients) in float for those in bf16.
template <class F>
void in_float(Cuda on, const AttentionArgs<bf16>& in, const bf16* dy,
              const AttentionGradients<bf16>& to, const F& f) {
  const i64 n = in.shape.batch * in.shape.tokens() * in.shape.channels();
  const Workspace<float> wide(7 * n, Device::cuda);
  float* const w = wide.data();
  convert(on, n, in.q, w);
  convert(on, n, in.k, w + n);
  convert(on, n, in.v, w + 2 * n);
  convert(on, n, dy, w + 3 * n);
  f(AttentionArgs<float>{in.shape, w, w + n, w + 2 * n, in.log_alpha, in.log_beta, in.row_orders,
                         in.column_orders},
    w + 3 * n,
    AttentionGradients<float>{w + 4 * n, w + 5 * n, w + 6 * n, to.dlog_alpha, to.dlog_beta});
  convert(on, n, w + 4 * n, to.dq);
  convert(on, n, w + 5 * n, to.dk);
  convert(on, n, w + 6 * n, to.dv);
}

}  // namespace ppma::inline PPMA_ABI::kernels::polyline_gpu

#include "ppma/core/names_end.hpp"
