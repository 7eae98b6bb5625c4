#pragma once
// A layer norm whose rows go on to the log decays while they are in registers: the tokens are not read again.
//
// Floor: x read once, y and the logs written. 56 x 56 tokens of 64 bf16 channels, batch 128, at 4.3 TB/s: 27 us, of which the
// logs are 3; on their own they take at least 15.

#include "ppma/kernels/norm.cuh"
#include "ppma/polyline/decay.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// The log decays of a token's pack of channels; the packs of a head are neighbouring lanes.
template <class T, int V>
struct DecaysOfRow {
  int tokens, heads, width, rows, packs_shift;  // packs of a head: 2 to the power of this
  i64 plane;                                    // from the logs of alpha to those of beta
  const acc_t<T> *w, *b, *a_log;
  acc_t<T>* y;

  __device__ __forceinline__ void operator()(i64 token, int c, bool there, const acc_t<T> (&x)[V]) const {
    using A = acc_t<T>;
    const int packs = 1 << packs_shift, pack = c / V, j = pack & (packs - 1), head = pack >> packs_shift;
    A z[2] = {};
    if (there)
      for (int r = 0; r < rows; ++r) {
        A weight[V];
        load_pack<V>(w + r * width + j * V, weight);
#pragma unroll
        for (int i = 0; i < V; ++i) z[r] += weight[i] * static_cast<A>(T(x[i]));  // as they are stored
      }
    z[0] = sum_lanes(z[0], packs);
    if (rows == 2) z[1] = sum_lanes(z[1], packs);
    if (!there) return;
    const int image = static_cast<int>(token) / tokens, at = (image * heads + head) * tokens + static_cast<int>(token) - image * tokens;
    for (int r = j; r < rows; r += packs) y[r * plane + at] = -::exp(a_log[head]) * softplus_of(z[r] + b[head]);
  }
};

}  // namespace detail

/// As layer_norm of x (s.batch s.tokens, s.channels()) and log_decay of its result.
template <class T>
void layer_norm_log_decay(Cuda on, const DecayShape& s, const T* x, const acc_t<T>* w, const acc_t<T>* b, acc_t<T> eps, const acc_t<T>* dt_weight,
                          const acc_t<T>* dt_bias, const acc_t<T>* a_log, T* y, acc_t<T>* mean, acc_t<T>* rstd, acc_t<T>* logs) {
  constexpr int V = pack_width<T>;
  const i64 rows = s.batch * s.tokens, cols = s.channels(), packs = s.width / V, width = detail::row_width(cols, V);
  const bool power = packs > 0 && (packs & (packs - 1)) == 0;
  if (rows == 0) return;
  if (s.width % V != 0 || !power || packs > width || cols > 64 * V || rows * s.heads >= (i64{1} << 31)) {
    layer_norm(on, rows, cols, x, w, b, eps, y, mean, rstd);
    log_decay(on, s, static_cast<const T*>(y), dt_weight, dt_bias, a_log, logs);
    return;
  }
  detail::DecaysOfRow<T, V> decays{static_cast<int>(s.tokens), static_cast<int>(s.heads), static_cast<int>(s.width), static_cast<int>(s.rows), 0,
                                   rows * s.heads, dt_weight, dt_bias, a_log, logs};
  while (1 << decays.packs_shift < packs) ++decays.packs_shift;
  detail::run_layer_norm_rows<T>(rows, cols, x, w, b, eps, y, mean, rstd, decays);
  cuda::launched("layer_norm_log_decay");
}

}  // namespace ppma::inline PPMA_ABI::kernels
