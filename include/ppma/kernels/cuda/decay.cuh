#pragma once
#include "ppma/core/names_begin.hpp"
// The decays on the GPU. A thread holds a pack of neighbouring channels of a token, so that x moves
// in whole lines; the H threads of a head exchange sums within their warp. Each works on several
// tokens at once: the eight results of a group (logs of alpha and beta for four tokens, or one log
// for eight) are shared out among its threads.
//
// Floor: x read once, the logs written. 56 x 56 tokens of 64 bf16 channels, batch 128, at 4.3 TB/s:
// 15 us. The gradients: decay_backward.cuh.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/lanes.cuh"
#include "ppma/kernels/cuda/later_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int decay_results = 8;  // of a group of threads at a time

/// Whole numbers below 2^31 divided by a number that is the same for all threads, by a product: of
/// "Division by invariant integers using multiplication" (Granlund and Montgomery, 1994).
struct DivideBy {
  unsigned by, factor, shift;
  explicit DivideBy(i64 divisor) : by(static_cast<unsigned>(divisor)), factor(0), shift(0) {
    while ((i64{1} << shift) < divisor) ++shift;
    factor = static_cast<unsigned>((((i64{1} << shift) - divisor) << 32) / divisor + 1);
  }
  __device__ __forceinline__ int operator()(int n) const {
    return static_cast<int>(
        (__umulhi(static_cast<unsigned>(n), factor) + static_cast<unsigned>(n)) >> shift);
  }
};

/// Where a thread is: its pack of channels in every token, and the first of the tokens that it
/// works on.
struct DecayPlace {
  int tokens, heads, width, packs;  // of the problem; packs of a token
  int all, slots;                   // tokens of all images; tokens at once in a block

  DecayPlace(const DecayShape& s, int pack)
      : tokens(static_cast<int>(s.tokens)),
        heads(static_cast<int>(s.heads)),
        width(static_cast<int>(s.width)),
        packs(static_cast<int>(s.channels()) / pack),
        all(static_cast<int>(s.batch * s.tokens)),
        slots(256 / packs) {}
  unsigned threads() const { return static_cast<unsigned>((packs * slots + 31) / 32 * 32); }
  unsigned blocks(int rows) const {
    return static_cast<unsigned>((all + slots * decay_results / rows - 1) /
                                 (slots * decay_results / rows));
  }
  /// Where the logs of a token's head stand.
  __device__ __forceinline__ int log_at(int token, int head) const {
    return (token / tokens * heads + head) * tokens + token % tokens;
  }
};

/// The thread's pack of tokens first, first + slots, ...: all are asked for before the first is
/// used. Zeros behind the last.
template <class T, int V, int N>
__device__ __forceinline__ void load_tokens(RawElements<T, V> (&raw)[N], const DecayPlace& d,
                                            const T* x, bool works, int first, int pack) {
#pragma unroll
  for (int u = 0; u < N; ++u) {
    const int token = first + u * d.slots;
    raw[u] = works && token < d.all
                 ? *reinterpret_cast<const RawElements<T, V>*>(x + (token * d.packs + pack) * V)
                 : RawElements<T, V>{};
  }
}

template <class T, int V, int H, int rows>
__global__ void __launch_bounds__(256)
    log_decay_forward(DecayPlace d, const T* x, const acc_t<T>* w, const acc_t<T>* b,
                      const acc_t<T>* a_log, acc_t<T>* y) {
  using A = acc_t<T>;
  constexpr int at_once = decay_results / rows, mine = decay_results / H;
  const int at = static_cast<int>(threadIdx.x), pack = at % d.packs, head = pack / H, j = pack % H;
  const bool works = at < d.packs * d.slots;
  A weight[rows][V];
#pragma unroll
  for (int r = 0; r < rows; ++r)
#pragma unroll
    for (int i = 0; i < V; ++i) weight[r][i] = w[r * d.width + j * V + i];
  const A bias = b[head], exponent = a_log[head], a = ::exp(exponent);
  const i64 plane = static_cast<i64>(d.all) * d.heads;
  for (int base = static_cast<int>(blockIdx.x) * d.slots * at_once; base < d.all;
       base += static_cast<int>(gridDim.x) * d.slots * at_once) {
    const int first = base + at / d.packs;
    RawElements<T, V> raw[at_once];
    load_tokens(raw, d, x, works, first, pack);
    A z[decay_results] = {};
#pragma unroll
    for (int u = 0; u < at_once; ++u) {
      A v[V];
      load_pack<V>(reinterpret_cast<const T*>(&raw[u]), v);
#pragma unroll
      for (int i = 0; i < V; ++i)
#pragma unroll
        for (int r = 0; r < rows; ++r) z[u * rows + r] += weight[r][i] * v[i];
    }
    share_out<H / 2, 1>(z);
#pragma unroll
    for (int k = 0; k < mine; ++k) {
      const int n = j * mine + k, token = first + n / rows * d.slots;
      if (works && token < d.all)
        y[n % rows * plane + d.log_at(token, head)] =
            any_log_decay(exponent, a, z[k] + bias, softplus_of(z[k] + bias));
    }
  }
}

// Any sizes: a thread a token and head.
template <class T>
__global__ void __launch_bounds__(256)
    log_decay_any(DecayShape s, const T* x, const acc_t<T>* w, const acc_t<T>* b,
                  const acc_t<T>* a_log, acc_t<T>* y) {
  const i64 all = s.batch * s.tokens * s.heads;
  for (i64 e = cuda::first(); e < all; e += cuda::stride()) {
    const i64 g = e % s.heads, token = e / s.heads,
              at = (token / s.tokens * s.heads + g) * s.tokens + token % s.tokens;
    for (i64 r = 0; r < s.rows; ++r) {
      acc_t<T> z = b[g];
      for (i64 c = 0; c < s.width; ++c)
        z += w[r * s.width + c] * static_cast<acc_t<T>>(x[e * s.width + c]);
      y[r * all + at] = any_log_decay(a_log[g], ::exp(a_log[g]), z, softplus_of(z));
    }
  }
}

/// Calls f(V, H, rows) as constants: channels of a pack, packs of a head, alpha and beta or one for
/// both. False where the sizes are others.
template <class T, class F>
bool with_decay_constants(const DecayShape& s, F&& f) {
  constexpr int V = pack_width<T>;
  if (s.width % V != 0 || s.channels() / V > 256 ||
      s.batch * s.tokens * s.channels() >= (i64{1} << 31) - (i64{1} << 20))
    return false;
  const auto with_rows = [&](auto h) {
    using C = std::integral_constant<int, V>;
    if (s.rows == 2)
      f(C{}, h, std::integral_constant<int, 2>{});
    else
      f(C{}, h, std::integral_constant<int, 1>{});
    return true;
  };
  switch (s.width / V) {
    case 1:
      return with_rows(std::integral_constant<int, 1>{});
    case 2:
      return with_rows(std::integral_constant<int, 2>{});
    case 4:
      return with_rows(std::integral_constant<int, 4>{});
    case 8:
      return with_rows(std::integral_constant<int, 8>{});
    default:
      return false;
  }
}

}  // namespace detail

template <class T>
void log_decay(Cuda, const DecayShape& s, const T* x, const acc_t<T>* w, const acc_t<T>* b,
               const acc_t<T>* a_log, acc_t<T>* y) {
  if (s.batch * s.tokens == 0) return;
  const bool done = detail::with_decay_constants<T>(s, [&](auto v, auto h, auto r) {
    constexpr int V = decltype(v)::value, H = decltype(h)::value, rows = decltype(r)::value;
    const detail::DecayPlace d(s, V);
    detail::log_decay_forward<T, V, H, rows>
        <<<d.blocks(rows), d.threads(), 0, cuda::stream()>>>(d, x, w, b, a_log, y);
  });
  if (!done)
    detail::
        log_decay_any<<<cuda::blocks(s.batch * s.tokens * s.heads, 256), 256, 0, cuda::stream()>>>(
            s, x, w, b, a_log, y);
  cuda::launched("log_decay");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
