#pragma once
#include "ppma/core/names_begin.hpp"
// What a warp of map.cuh works with: a map in shared memory, a line of it as a factor of a product,
// the weights of 16 queries, and where the next line's vectors come from.

#include "ppma/kernels/cuda/criss_cross/lines.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

struct Grid {
  int height, width, heads, channels;
};

/// Vectors in shared memory, eight channels (a pack, 16 bytes) at a time. Packs are swapped among
/// eight, so that neighbours along a row and along a column lie in other banks.
template <int D>
struct Map {
  static_assert(D == 16 || D == 32);
  static constexpr int packs = D / 8;
  unsigned at;
  int pitch;  // bytes of a row: whole eights of packs

  PPMA_HD static int pitch_of(int width) { return (width * packs + 7) / 8 * 128; }
  template <bool rows>
  __device__ __forceinline__ unsigned pack(int line, int position, int p) const {
    const unsigned row = static_cast<unsigned>(rows ? line : position),
                   c = static_cast<unsigned>(rows ? position : line);
    return at + row * static_cast<unsigned>(pitch) +
           16 * ((c * packs + (static_cast<unsigned>(p) ^ (c / (8 / packs) % packs))) ^ row % 8);
  }
  /// Bytes between positions that are eight apart, which lie alike.
  template <bool rows>
  __device__ __forceinline__ unsigned eight() const {
    return rows ? 8 * 16 * packs : 8 * static_cast<unsigned>(pitch);
  }
};

__device__ __forceinline__ void store_shared(unsigned address, unsigned x, bool there) {
  asm volatile(
      "{.reg .pred there; setp.ne.u32 there, %2, 0; @there st.shared.b32 [%0], %1;}" ::"r"(address),
      "r"(x), "r"(static_cast<unsigned>(there))
      : "memory");
}
__device__ __forceinline__ unsigned load_shared(unsigned address) {
  unsigned x;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
  return x;
}

template <int D, int NT>
using Right = unsigned[(NT + 1) / 2][D / 16][4];
/// A line of a map as the right factor of a product: 16 tokens, two packs each, at a time. What is
/// behind the line's end (less than eight tokens) is its last token.
template <bool rows, int D, int NT, class Load>
__device__ __forceinline__ void load_line(Right<D, NT>& x, const Map<D>& map, int line, int length,
                                          int token, int pack, const Load& load) {
  const int last = NT % 2 == 0 ? ::min(8 * NT - 16 + token, length - 1)
                               : ::min(8 * NT - 8 + token % 8, length - 1);
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    const unsigned first = map.template pack<rows>(line, token, 2 * j + pack),
                   end = map.template pack<rows>(line, last, 2 * j + pack);
#pragma unroll
    for (int i = 0; i < (NT + 1) / 2; ++i)
      load(x[i][j], i == (NT - 1) / 2
                        ? end
                        : first + static_cast<unsigned>(2 * i) * map.template eight<rows>());
  }
}
template <int D, int NT>
__device__ __forceinline__ void mix(float (&c)[D / 8][4], const Left<NT>& p,
                                    const Right<D, NT>& x) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j) c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0;
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i)
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      detail::multiply(c[2 * j], p[i], x[i][j][0], x[i][j][1]);
      detail::multiply(c[2 * j + 1], p[i], x[i][j][2], x[i][j][3]);
    }
}

/// Bytes of a line's sums.
template <int NT>
inline constexpr int sums_bytes = 16 * ((NT + 1) / 2) * 4;
/// sums[position] = log2_e times the sum of a line's log decays, two of which a lane has; `nowhere`
/// behind the line's end.
template <int NT>
__device__ __forceinline__ void sum_line(float* sums, float2 log_decay, int length, int lane) {
  const int p = 2 * lane;
  // Here: what asked for them did not wait.
  log_decay = {polyline_gpu::counted(log_decay.x, polyline_gpu::limit_bf16),
               polyline_gpu::counted(log_decay.y, polyline_gpu::limit_bf16)};
  float up_to = log_decay.x + log_decay.y;
#pragma unroll
  for (int far = 1; far < (NT == 4 ? 16 : 32); far *= 2) {
    const float left = __shfl_up_sync(~0u, up_to, far);
    if (lane >= far) up_to += left;
  }
  __syncwarp();  // what was there has been read
  if (p < 16 * ((NT + 1) / 2))
    *reinterpret_cast<float2*>(sums + p) = {p < length ? (up_to - log_decay.y) * log2_e : nowhere,
                                            p + 1 < length ? up_to * log2_e : nowhere};
  __syncwarp();
}

inline constexpr float headroom = 43, sum_limit = 0x1p115f;  // of the weights, in powers of two
inline constexpr float closed = polyline_gpu::limit_bf16 * log2_e;

/// The weights of eight queries from 8 own on, rows lane / 4 (r = 0) or eight below (1) of t:
/// scores become 2^(log2_e (t + mask) - shift). A key before its query has the mask c_query -
/// c_key, one behind it c_key - c_query: the keys' share is added to the scores, the query's to
/// their shift. The shift is the query's score with itself, which no mask weakens, less the
/// headroom; or (`largest`) the largest masked score. It alone looks for closed paths. (Every index
/// of t must be a constant when the template is: it is to stay in registers whatever the compiler
/// unrolls when.)
template <int NT, int own, bool largest>
__device__ __forceinline__ void weights(float (&t)[NT][4], const float2 (&key)[NT], float c,
                                        int lane) {
  constexpr int r = own % 2, e = 2 * r;
  if constexpr (own >= NT) {
#pragma unroll
    for (int n = 0; n < NT; ++n) t[n][e] = t[n][e + 1] = 0;
  } else {
    float shift = nowhere;
    if constexpr (!largest) {
      const float score = lane / 4 % 2 == 0 ? t[own][e] : t[own][e + 1];
      shift = ::fmaf(__shfl_sync(~0u, score, lane / 4 * 4 + lane / 4 / 2), log2_e, -headroom);
    }
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float x = n < own   ? -key[n].x
                      : n > own ? key[n].x
                                : -::fabsf(key[n].x - c),
                  y = n < own   ? -key[n].y
                      : n > own ? key[n].y
                                : -::fabsf(key[n].y - c);
      t[n][e] = ::fmaf(t[n][e], log2_e, x), t[n][e + 1] = ::fmaf(t[n][e + 1], log2_e, y);
    }
    if constexpr (largest)
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        if (::fabsf(key[n].x - c) >= closed) t[n][e] = negative_infinity<float>();
        if (::fabsf(key[n].y - c) >= closed) t[n][e + 1] = negative_infinity<float>();
      }
    if constexpr (largest) {
#pragma unroll
      for (int n = 0; n < NT; ++n)
        shift = ::fmaxf(shift, ::fmaxf(t[n][e], t[n][e + 1]) + (n < own ? c : n > own ? -c : 0.f));
      shift = top_of_quad(shift);
    }
    const float before = c - shift, behind = -c - shift;
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float more = n < own ? before : n > own ? behind : -shift;
      t[n][e] = exp2_fast(t[n][e] + more), t[n][e + 1] = exp2_fast(t[n][e + 1] + more);
    }
  }
}
/// Of n groups of 16 queries from 16 m on.
template <int NT, int m, bool largest, int n>
__device__ __forceinline__ void all_weights(float (&t)[n][NT][4], const float* sums, int lane) {
  float2 key[NT];
#pragma unroll
  for (int i = 0; i < NT; ++i)
    key[i] = *reinterpret_cast<const float2*>(sums + 8 * i + lane % 4 * 2);
  const float* const c = sums + 16 * m + lane / 4;
  weights<NT, 2 * m, largest>(t[0], key, c[0], lane);
  weights<NT, 2 * m + 1, largest>(t[0], key, c[8], lane);
  if constexpr (n == 2) {
    weights<NT, 2 * m + 2, largest>(t[1], key, c[16], lane);
    weights<NT, 2 * m + 3, largest>(t[1], key, c[24], lane);
  }
}
/// f(m) for m = 0, n, 2n ... : groups of 16 queries of a line.
template <int NT, int n, int m = 0, class F>
__device__ __forceinline__ void each_group(const F& f) {
  f(std::integral_constant<int, m>{});
  if constexpr (16 * (m + n) < 8 * NT) each_group<NT, n, m + n>(f);
}

/// Where a line's vectors are in memory; count 0: there is none.
struct Source {
  // v: null where a map has what is to be mixed
  const char *q = nullptr, *k = nullptr, *v = nullptr;
  const float* log_decay = nullptr;
  unsigned step = 0;  // bytes from token to token
  int decay_step = 0, count = 0, line = 0;
};

/// What a warp has: its place in the block, and room in shared memory for a line's sums, keys and
/// queries. These are maps of one row of its own, or (`stay`) the block's maps.
template <int D, int NT, bool stay>
struct Warp {
  int index, lane;
  float* sums;
  Map<D> keys, queries;
  float2 decay;  // of the next line

  template <bool rows>
  __device__ __forceinline__ static unsigned pack(const Map<D>& m, int line, int position, int p) {
    return stay ? m.template pack<rows>(line, position, p) : m.template pack<true>(0, position, p);
  }

  /// Vectors 16 m to 16 (m + n) of a line to to(position), in the background.
  template <int m = 0, int n = NT, class To>
  __device__ __forceinline__ void copy(const char* from, const Source& s, const To& to) const {
    constexpr int packs = D / 8, at_once = 32 / packs;
    const int position = lane / packs;
    from += static_cast<unsigned>(position) * s.step + static_cast<unsigned>(lane % packs * 16);
    const unsigned place = to(position), more = to(position + at_once) - place;
#pragma unroll
    for (int i = 16 * m / at_once;
         i < ::min((8 * NT + at_once - 1) / at_once, 16 * (m + n) / at_once); ++i)
      if (position + i * at_once < s.count)
        detail::copy_async_once(
            place + static_cast<unsigned>(i) * more,
            from + static_cast<unsigned>(i * at_once) * static_cast<u64>(s.step));
  }
  template <bool rows>
  __device__ __forceinline__ void ask_keys(const Source& s, const Map<D>& values) {
    if (!stay || s.v != nullptr)
      copy(s.k, s,
           [&](int position) { return pack<rows>(keys, s.line, position, lane % (D / 8)); });
    if (s.v != nullptr)
      copy(s.v, s, [&](int position) {
        return values.template pack<rows>(s.line, position, lane % (D / 8));
      });
    if (stay && s.v != nullptr)
      copy(s.q, s,
           [&](int position) { return pack<rows>(queries, s.line, position, lane % (D / 8)); });
    detail::copies_issued();
    if (s.log_decay == nullptr) return;
    if (lane > 0 && 2 * lane < s.count) decay.x = s.log_decay[2 * lane * s.decay_step];
    if (2 * lane + 1 < s.count) decay.y = s.log_decay[(2 * lane + 1) * s.decay_step];
  }
  /// Queries 16 m to 16 (m + n) of a line, in the place of those of another one, which the warp has
  /// read.
  template <bool rows, int m, int n>
  __device__ __forceinline__ void ask_queries(const Source& s) const {
    if constexpr (stay) return;
    __syncwarp();
    copy<m, n>(s.q, s,
               [&](int position) { return pack<rows>(queries, s.line, position, lane % (D / 8)); });
    detail::copies_issued();
  }
};

/// A head's tensors, and one way of cutting its map into lines: rows or columns.
struct Head {
  const bf16 *q, *k, *v;
  const float *log_alpha, *log_beta;
  bf16* y;
  __device__ __forceinline__ Head(const Grid& g, int head, int d, const bf16* all_q,
                                  const bf16* all_k, const bf16* all_v, const float* all_alpha,
                                  const float* all_beta, bf16* all_y) {
    const int tokens = g.height * g.width;
    const i64 base = static_cast<i64>(head / g.heads) * tokens * g.channels + head % g.heads * d,
              plane = static_cast<i64>(head) * tokens;
    q = all_q + base, k = all_k + base, v = all_v + base, y = all_y + base;
    log_alpha = all_alpha == nullptr ? nullptr : all_alpha + plane,
    log_beta = all_beta == nullptr ? nullptr : all_beta + plane;
  }
};
template <bool rows>
struct Way {
  int count, length, step, line_step;  // token = line * line_step + position * step
  __device__ __forceinline__ explicit Way(const Grid& g)
      : count(rows ? g.height : g.width),
        length(rows ? g.width : g.height),
        step(rows ? 1 : g.width),
        line_step(rows ? g.width : 1) {}
  __device__ __forceinline__ Source source(const Grid& g, const Head& h, int line,
                                           bool with_values) const {
    if (line >= count) return {};
    const i64 at = static_cast<i64>(line * line_step) * g.channels;
    const float* const decay = rows ? h.log_alpha : h.log_beta;
    const auto bytes = [&](const bf16* t) { return reinterpret_cast<const char*>(t + at); };
    return {bytes(h.q),
            bytes(h.k),
            with_values ? bytes(h.v) : nullptr,
            decay == nullptr ? nullptr : decay + line * line_step,
            static_cast<unsigned>(step * g.channels * 2),
            step,
            length,
            line};
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
