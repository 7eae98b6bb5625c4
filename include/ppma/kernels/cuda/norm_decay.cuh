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

/// Each t becomes its any_log_decay(), with factor = e^exponent. One branch for all, so that they
/// are worked out side by side.
template <int N>
__device__ __forceinline__ void log_decays_fast(float exponent, float factor, float (&t)[N]) {
  float s[N];
#pragma unroll
  for (int i = 0; i < N; ++i) s[i] = softplus_fast(t[i]);
  if (factor > 1e-30f && factor < 1e30f) {
#pragma unroll
    for (int i = 0; i < N; ++i) t[i] = -factor * s[i];
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) t[i] = any_log_decay(exponent, factor, t[i], s[i]);
  }
}

/// The log decays of a token's pack of channels; the packs of a head are neighbouring lanes. Lanes
/// exchange what they have of the two: even ones end with alpha's, odd ones with beta's.
template <class T, int V>
struct DecaysOfRow {
  DivideBy tokens;
  int heads, width, rows, packs_shift;  // packs of a head: 2 to the power of this
  i64 plane;                            // from the logs of alpha to those of beta
  const acc_t<T>*w, *b, *a_log;
  acc_t<T>* y;

  /// What is the same for all tokens of a pack of channels.
  struct Pack {
    acc_t<T> weight[2][V], exponent, factor, bias;
    int head, j;
  };
  __device__ __forceinline__ Pack pack_of(int c, bool there) const {
    const int pack = c / V;
    Pack p{};
    p.j = pack & ((1 << packs_shift) - 1), p.head = pack >> packs_shift;
    if (!there) return p;
    load_pack<V>(w + p.j * V, p.weight[0]);
    if (rows == 2) load_pack<V>(w + width + p.j * V, p.weight[1]);
    p.exponent = a_log[p.head], p.factor = ::exp(p.exponent), p.bias = b[p.head];
    return p;
  }
  __device__ __forceinline__ void operator()(i64 token, int c, bool there,
                                             const acc_t<T> (&x)[V]) const {
    of_pack(pack_of(c, there), token, there, x);
  }
  __device__ __forceinline__ void of_pack(const Pack& p, i64 token, bool there,
                                          const acc_t<T> (&x)[V]) const {
    using A = acc_t<T>;
    const int packs = 1 << packs_shift;
    A z[2] = {};
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const A stored = static_cast<A>(T(x[i]));
      z[0] += p.weight[0][i] * stored, z[1] += p.weight[1][i] * stored;
    }
    A sum = z[0];
    if (packs > 1) {
      const bool odd = p.j % 2 != 0;
      sum = (odd ? z[1] : z[0]) + __shfl_xor_sync(all_lanes, odd ? z[0] : z[1], 1);
      for (int o = 2; o < packs; o *= 2) sum += __shfl_xor_sync(all_lanes, sum, o);
    }
    if (!there || p.j >= rows) return;
    const int n = static_cast<int>(token), image = tokens(n),
              at = (image * (heads - 1) + p.head) * static_cast<int>(tokens.by) + n;
    const auto log_of = [&](A t) {
      if constexpr (std::is_same_v<T, bf16>)
        return any_log_decay(p.exponent, p.factor, t, softplus_fast(t));
      else
        return any_log_decay(p.exponent, p.factor, t, softplus_of(t));
    };
    y[p.j * plane + at] = log_of(sum + p.bias);
    if (packs == 1 && rows == 2) y[plane + at] = log_of(z[1] + p.bias);
  }
};

/// For heads whose packs are a power of two.
template <class T>
DecaysOfRow<T, pack_width<T>> decays_of_row(const DecayShape& s, const acc_t<T>* dt_weight,
                                            const acc_t<T>* dt_bias, const acc_t<T>* a_log,
                                            acc_t<T>* logs) {
  DecaysOfRow<T, pack_width<T>> decays{DivideBy(s.tokens),
                                       static_cast<int>(s.heads),
                                       static_cast<int>(s.width),
                                       static_cast<int>(s.rows),
                                       0,
                                       s.batch * s.tokens * s.heads,
                                       dt_weight,
                                       dt_bias,
                                       a_log,
                                       logs};
  while (pack_width<T> << decays.packs_shift < s.width) ++decays.packs_shift;
  return decays;
}

/// What a lane has of the sums of 16 tokens and four heads: from the weights' first terms, from the
/// others.
struct SumsOfTile {
  float of[2][4] = {};
};
/// The same by a product on the tensor cores, for tokens of C channels in shared memory: a head has
/// two columns of weights, which are 0 for the other heads' channels, and the columns of four heads
/// are one product's. A weight is the sum of three bf16 numbers, as exact as a float; a lane ends
/// with both logs of a head for two tokens.
template <int C>
struct DecaysOfTile : DecaysOfRow<bf16, 8> {
  explicit DecaysOfTile(const DecaysOfRow<bf16, 8>& of) : DecaysOfRow<bf16, 8>(of) {}

  static constexpr int terms = 3, steps = C / 16, of_four = steps * terms * 256;
  struct alignas(16) Head {
    float bias, exponent, factor;
  };
  __device__ __forceinline__ int fours() const { return (heads + 3) / 4; }  // of heads
  /// Bytes of shared memory: weights as lanes take them, and what each head's logs are made of.
  static constexpr int bytes(int heads) {
    return (heads + 3) / 4 * (of_four + 4 * static_cast<int>(sizeof(Head)));
  }
  /// Puts them there; by all threads of the block.
  __device__ __forceinline__ void keep(unsigned char* to) const {
    const int first = static_cast<int>(threadIdx.x), all = static_cast<int>(blockDim.x);
    for (int i = first; i < fours() * steps * 32; i += all) {
      const int lane = i % 32, head = i / (steps * 32) * 4 + lane / 8, row = lane / 4 % 2,
                c = i / 32 % steps * 16 + lane % 4 * 2 - head * width;
      float left[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int at = c + e % 2 + e / 2 * 8;
        left[e] = row < rows && at >= 0 && at < width ? w[row * width + at] : 0;
      }
#pragma unroll
      for (int t = 0; t < terms; ++t) {
        float part[4] = {left[0], left[1], left[2], left[3]};
        reinterpret_cast<RawElements<bf16, 4>*>(to)[(i / 32 * terms + t) * 32 + lane] =
            rounded_pack<4>(part);
#pragma unroll
        for (int e = 0; e < 4; ++e) left[e] -= part[e];
      }
    }
    for (int i = first; i < heads; i += all)
      reinterpret_cast<Head*>(to + fours() * of_four)[i] = {b[i], a_log[i], ::exp(a_log[i])};
  }

  /// Adds what 16 channels of the tokens, a left factor, have of the four's sums.
  __device__ __forceinline__ void add(const unsigned char* kept, int four, int k,
                                      const unsigned (&a)[4], SumsOfTile& to) const {
    const uint2* const weights = reinterpret_cast<const uint2*>(kept + four * of_four) +
                                 k * terms * 32 + static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int t = 0; t < terms; ++t) {
      const uint2 two = weights[t * 32];
      multiply(to.of[t > 0], a, two.x, two.y);
    }
  }
  /// The logs of tokens first, ..., first + 15, as far as there are `all`.
  __device__ __forceinline__ void write(const unsigned char* kept, int four, int first, int all,
                                        const SumsOfTile& sums) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, head = four * 4 + lane % 4,
              by = static_cast<int>(tokens.by);
    if (head >= heads) return;
    const Head of = reinterpret_cast<const Head*>(kept + fours() * of_four)[head];
    float v[4];  // alpha's and beta's of a token, of another
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = of.bias + sums.of[1][i] + sums.of[0][i];
    log_decays_fast(of.exponent, of.factor, v);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = first + 8 * h + lane / 4;
      if (token >= all) continue;
      float* const to = y + ((tokens(token) * (heads - 1) + head) * by + token);
      to[0] = v[2 * h];
      if (rows == 2) to[plane] = v[2 * h + 1];
    }
  }
};

/// The log decays of heads of 32 channels, four lanes each, for two or four neighbouring tokens.
struct DecaysOfRows : DecaysOfRow<bf16, 8> {
  explicit DecaysOfRows(const DecaysOfRow<bf16, 8>& of) : DecaysOfRow<bf16, 8>(of) {}

  template <int R>
  struct Sums {
    float of[2 * R];  // alpha's of all tokens, beta's
  };
  /// x of token i: as stored.
  template <int R>
  __device__ __forceinline__ void add(const Pack& p, int i, const float (&x)[8],
                                      Sums<R>& to) const {
    float z[2] = {};
#pragma unroll
    for (int c = 0; c < 8; ++c) z[0] += p.weight[0][c] * x[c], z[1] += p.weight[1][c] * x[c];
    to.of[i] = z[0], to.of[R + i] = z[1];
  }
  /// The logs of tokens first, ..., as far as there are `all`: a lane has one or two of them.
  template <int R>
  __device__ __forceinline__ void write(const Pack& p, bool there, int first, int all,
                                        Sums<R>& sums) const {
    constexpr int mine = R / 2;
    static_assert(mine <= 2);
    share_out<1, 1>(sums.of);
    float z[R];
#pragma unroll
    for (int i = 0; i < R; ++i) z[i] = sums.of[i];
    share_out<2, 2>(z);
    first += p.j / 2 * mine;
    if (!there || p.j % 2 >= rows) return;
    float v[mine];
#pragma unroll
    for (int i = 0; i < mine; ++i) v[i] = z[i] + p.bias;
    log_decays_fast(p.exponent, p.factor, v);
    const int by = static_cast<int>(tokens.by);
    float* const to = y + p.j % 2 * plane;
    const auto place = [&](int n) { return (tokens(n) * (heads - 1) + p.head) * by + n; };
    if (mine == 2 && by % 2 == 0) {  // both are of one image
      if (first < all) *reinterpret_cast<float2*>(to + place(first)) = {v[0], v[mine - 1]};
    } else {
#pragma unroll
      for (int i = 0; i < mine; ++i)
        if (first + i < all) to[place(first + i)] = v[i];
    }
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
  const auto decays = detail::decays_of_row<T>(s, dt_weight, dt_bias, a_log, logs);
  if constexpr (std::is_same_v<T, bf16>) {
    if (s.width == 32 && detail::suits_layer_norm_many(cols))
      return detail::run_layer_norm_many(rows, cols, x, w, b, eps, y, mean, rstd,
                                         detail::DecaysOfRows(decays));
  }
  detail::run_layer_norm_rows<T>(rows, cols, x, w, b, eps, y, mean, rstd, decays);
  cuda::launched("layer_norm_log_decay");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
