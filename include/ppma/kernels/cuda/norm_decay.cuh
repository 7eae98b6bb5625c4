#pragma once
#include "ppma/core/names_begin.hpp"
// A layer norm whose rows go on to the log decays while they are in registers: the tokens are not
// read again.
//
// Floor: x read once, y and the logs written. 56 x 56 tokens of 64 bf16 channels, batch 128, at 4.3
// TB/s: 27 us, of which the logs are 3; on their own they take at least 15.

#include "ppma/kernels/cuda/decay.cuh"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/norm.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// softplus(t) = max(t, 0) + ln(1 + e^-|t|), for f32 within 1e-6 of it: ln(1 + e) = 2 artanh(e / (2
/// + e)), a series that loses nothing where e is small.
__device__ __forceinline__ float softplus_fast(float t) {
  const float e = exp2_fast(::fabsf(t) * -1.44269504f), u = __fdividef(e, 2 + e), uu = u * u;
  const float series =
      1 + uu * (1.f / 3 + uu * (1.f / 5 + uu * (1.f / 7 + uu * (1.f / 9 + uu * (1.f / 11)))));
  return ::fmaf(2 * u, series, ::fmaxf(t, 0.f));
}

/// The log decays of a token's pack of channels; the packs of a head are neighbouring lanes. Lanes
/// exchange what they have of the two: even ones end with alpha's, odd ones with beta's.
template <class T, int V>
struct DecaysOfRow {
  int tokens, heads, width, rows, packs_shift;  // packs of a head: 2 to the power of this
  i64 plane;                                    // from the logs of alpha to those of beta
  const acc_t<T>*w, *b, *a_log;
  acc_t<T>* y;

  __device__ __forceinline__ void operator()(i64 token, int c, bool there,
                                             const acc_t<T> (&x)[V]) const {
    using A = acc_t<T>;
    const int packs = 1 << packs_shift, pack = c / V, j = pack & (packs - 1),
              head = pack >> packs_shift;
    A z[2] = {};
    if (there) {
      A weight[V];
      load_pack<V>(w + j * V, weight);
#pragma unroll
      // as they are stored
      for (int i = 0; i < V; ++i) z[0] += weight[i] * static_cast<A>(T(x[i]));
      if (rows == 2) {
        load_pack<V>(w + width + j * V, weight);
#pragma unroll
        for (int i = 0; i < V; ++i) z[1] += weight[i] * static_cast<A>(T(x[i]));
      }
    }
    A sum = z[0];
    if (packs > 1) {
      const bool odd = j % 2 != 0;
      sum = (odd ? z[1] : z[0]) + __shfl_xor_sync(all_lanes, odd ? z[0] : z[1], 1);
      for (int o = 2; o < packs; o *= 2) sum += __shfl_xor_sync(all_lanes, sum, o);
    }
    if (!there || j >= rows) return;
    const int image = static_cast<int>(token) / tokens,
              at = (image * heads + head) * tokens + static_cast<int>(token) - image * tokens;
    const A exponent = a_log[head], factor = ::exp(exponent), bias = b[head];
    const auto log_of = [&](A t) {
      if constexpr (std::is_same_v<T, bf16>)
        return any_log_decay(exponent, factor, t + bias, softplus_fast(t + bias));
      else
        return any_log_decay(exponent, factor, t + bias, softplus_of(t + bias));
    };
    y[j * plane + at] = log_of(sum);
    if (packs == 1 && rows == 2) y[plane + at] = log_of(z[1]);
  }
};

}  // namespace detail

/// As layer_norm of x (s.batch s.tokens, s.channels()) and log_decay of its result.
template <class T>
void layer_norm_log_decay(Cuda on, const DecayShape& s, const T* x, const acc_t<T>* w,
                          const acc_t<T>* b, acc_t<T> eps, const acc_t<T>* dt_weight,
                          const acc_t<T>* dt_bias, const acc_t<T>* a_log, T* y, acc_t<T>* mean,
                          acc_t<T>* rstd, acc_t<T>* logs) {
  constexpr int V = pack_width<T>;
  const i64 rows = s.batch * s.tokens, cols = s.channels(), packs = s.width / V,
            width = detail::row_width(cols, V);
  const bool power = packs > 0 && (packs & (packs - 1)) == 0;
  if (rows == 0) return;
  if (s.width % V != 0 || !power || packs > width || cols > 64 * V ||
      rows * s.heads >= (i64{1} << 31)) {
    layer_norm(on, rows, cols, x, w, b, eps, y, mean, rstd);
    log_decay(on, s, static_cast<const T*>(y), dt_weight, dt_bias, a_log, logs);
    return;
  }
  detail::DecaysOfRow<T, V> decays{static_cast<int>(s.tokens),
                                   static_cast<int>(s.heads),
                                   static_cast<int>(s.width),
                                   static_cast<int>(s.rows),
                                   0,
                                   rows * s.heads,
                                   dt_weight,
                                   dt_bias,
                                   a_log,
                                   logs};
  while (1 << decays.packs_shift < packs) ++decays.packs_shift;
  detail::run_layer_norm_rows<T>(rows, cols, x, w, b, eps, y, mean, rstd, decays);
  cuda::launched("layer_norm_log_decay");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
