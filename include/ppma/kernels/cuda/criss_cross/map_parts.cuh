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
/// behind the line's end. True: a path of the line may be closed, which one lane at least says.
template <int NT>
__device__ __forceinline__ bool sum_line(float* sums, float2 log_decay, int length, int lane) {
  const int p = 2 * lane;
  // Here: what asked for them did not wait. An odd line's last lane has another line's number too.
  log_decay = {polyline_gpu::counted(log_decay.x, polyline_gpu::limit_bf16),
               p + 1 < length ? polyline_gpu::counted(log_decay.y, polyline_gpu::limit_bf16) : 0.f};
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
  return p < length && up_to <= -polyline_gpu::limit_bf16;
}

/// A query's place among the sums of its line: what is behind the end is the last one again.
template <int NT, int own>
__device__ __forceinline__ int place_of(int length, int lane) {
  const int position = 8 * own + lane / 4;
  return own < NT - 1 ? position : ::min(position, length - 1);
}
/// What products of 16 queries and the keys of tile n start from, so that their sums have the
/// queries' share of the mask: a key before its query has the mask c_query - c_key, one behind it
/// c_key - c_query. Nothing in the queries' own tiles.
template <int NT, int m>
__device__ __forceinline__ void start_scores(float (&t)[4], int n, Two c) {
  const float sign = n < 2 * m ? 1.f : n > 2 * m + 1 ? -1.f : 0.f;
  if (sign == 0)
    t[0] = t[1] = t[2] = t[3] = 0;
  else
    t[0] = t[1] = sign * c.upper, t[2] = t[3] = sign * c.lower;
}

/// The weights of eight queries from 8 own on, rows lane / 4 (r = 0) or eight below (1) of t, which
/// began by start_scores(): scores become 2^(log2_e (t + mask)), or (`largest`) 2 to what that is
/// less than the largest of the row; it alone looks for closed paths. (Every index of t must be a
/// constant when the template is: it is to stay in registers whatever the compiler unrolls when.)
template <int NT, int own, bool largest>
__device__ __forceinline__ void weights(float (&t)[NT][4], const float2 (&key)[NT], float c) {
  constexpr int r = own % 2, e = 2 * r, tile = own - r;  // and tile + 1: without the query's share
  if constexpr (own >= NT) {
#pragma unroll
    for (int n = 0; n < NT; ++n) t[n][e] = t[n][e + 1] = 0;
  } else {
    float top = negative_infinity<float>();
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      float2 mask{n < own ? -key[n].x : key[n].x, n < own ? -key[n].y : key[n].y};
      if (n == own)
        mask = {-::fabsf(key[n].x - c), -::fabsf(key[n].y - c)};
      else if (n == tile)
        mask = {c + mask.x, c + mask.y};
      else if (n == tile + 1)
        mask = {mask.x - c, mask.y - c};
      t[n][e] = ::fmaf(t[n][e], log2_e, mask.x), t[n][e + 1] = ::fmaf(t[n][e + 1], log2_e, mask.y);
      if constexpr (largest) {
        if (::fabsf(key[n].x - c) >= closed) t[n][e] = negative_infinity<float>();
        if (::fabsf(key[n].y - c) >= closed) t[n][e + 1] = negative_infinity<float>();
        top = ::fmaxf(top, ::fmaxf(t[n][e], t[n][e + 1]));
      }
    }
    if constexpr (largest) top = top_of_quad(top);
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      if constexpr (largest) t[n][e] -= top, t[n][e + 1] -= top;
      t[n][e] = exp2_fast(t[n][e]), t[n][e + 1] = exp2_fast(t[n][e + 1]);
    }
  }
}
/// f(m) for each group m of 16 queries of a line.
template <int NT, int m = 0, class F>
__device__ __forceinline__ void each_group(const F& f) {
  f(std::integral_constant<int, m>{});
  if constexpr (16 * (m + 1) < 8 * NT) each_group<NT, m + 1>(f);
}

/// A head's tensors.
struct Head {
  const char *q, *k, *v;
  const float *log_alpha, *log_beta;
  bf16* y;
  __device__ __forceinline__ Head(const Grid& g, int head, int d, const bf16* all_q,
                                  const bf16* all_k, const bf16* all_v, const float* all_alpha,
                                  const float* all_beta, bf16* all_y) {
    const int tokens = g.height * g.width;
    const i64 base = static_cast<i64>(head / g.heads) * tokens * g.channels + head % g.heads * d,
              plane = static_cast<i64>(head) * tokens;
    const auto bytes = [&](const bf16* t) { return reinterpret_cast<const char*>(t + base); };
    q = bytes(all_q), k = bytes(all_k), v = bytes(all_v), y = all_y + base;
    log_alpha = all_alpha == nullptr ? nullptr : all_alpha + plane,
    log_beta = all_beta == nullptr ? nullptr : all_beta + plane;
  }
};
/// Where a line's vectors are in a head; count 0: there is none.
struct Source {
  int line = 0, count = 0;
  unsigned at = 0, step = 0;  // bytes to its first token, and from token to token
  unsigned decay_at = 0, decay_step = 0;
  const float* log_decay = nullptr;  // of the head
};
/// One way of cutting a head's map into lines: rows or columns.
template <bool rows>
struct Way {
  int count, length, step, line_step;  // token = line * line_step + position * step
  __device__ __forceinline__ explicit Way(const Grid& g)
      : count(rows ? g.height : g.width),
        length(rows ? g.width : g.height),
        step(rows ? 1 : g.width),
        line_step(rows ? g.width : 1) {}
  __device__ __forceinline__ Source source(const Grid& g, const Head& h, int line) const {
    if (line >= count) return {};
    const unsigned token = static_cast<unsigned>(g.channels) * 2;
    return {line,
            length,
            static_cast<unsigned>(line * line_step) * token,
            static_cast<unsigned>(step) * token,
            static_cast<unsigned>(line * line_step),
            static_cast<unsigned>(step),
            rows ? h.log_alpha : h.log_beta};
  }
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

  /// Vectors 16 m to 16 (m + n) of a line, to a place of a lane's first position and on, in the
  /// background; eight(): bytes between positions that are eight apart.
  template <int m = 0, int n = NT>
  __device__ __forceinline__ void copy(const char* from, const Source& s, unsigned place,
                                       unsigned eight) const {
    constexpr int packs = D / 8, at_once = 32 / packs;
    const int position = lane / packs;
    const unsigned first =
        s.at + static_cast<unsigned>(position) * s.step + static_cast<unsigned>(lane % packs * 16);
#pragma unroll
    for (int i = 16 * m / at_once;
         i < ::min((8 * NT + at_once - 1) / at_once, 16 * (m + n) / at_once); ++i)
      if (position + i * at_once < s.count)
        detail::copy_async_once(place + static_cast<unsigned>(i * at_once / 8) * eight,
                                from + (first + static_cast<unsigned>(i * at_once) * s.step));
  }
  /// The same to the warp's own room or (`stay`) the block's map.
  template <bool rows, int m = 0, int n = NT>
  __device__ __forceinline__ void copy(const char* from, const Source& s, const Map<D>& to) const {
    copy<m, n>(from, s, pack<rows>(to, s.line, lane / (D / 8), lane % (D / 8)),
               to.template eight < rows || !stay > ());
  }
  /// A line's keys and log decays, and (`with_values`) v. Where they stay, queries and keys come
  /// with v, and are there for every pass.
  template <bool rows>
  __device__ __forceinline__ void ask_keys(const Head& h, const Source& s, bool with_values,
                                           const Map<D>& values) {
    if (!stay || with_values) copy<rows>(h.k, s, keys);
    if (with_values)
      copy(h.v, s, values.template pack<rows>(s.line, lane / (D / 8), lane % (D / 8)),
           values.template eight<rows>());
    if (stay && with_values) copy<rows>(h.q, s, queries);
    detail::copies_issued();
    if (h.log_alpha == nullptr) return;
    const unsigned here = s.decay_at + static_cast<unsigned>(2 * lane) * s.decay_step;
    if (lane > 0 && 2 * lane < s.count) decay.x = s.log_decay[here];
    if (2 * lane + 1 < s.count) decay.y = s.log_decay[here + s.decay_step];
  }
  /// Queries 16 m to 16 (m + n) of a line, in the place of those of another one, which the warp has
  /// read.
  template <bool rows, int m, int n>
  __device__ __forceinline__ void ask_queries(const Head& h, const Source& s) const {
    if constexpr (stay) return;
    __syncwarp();
    copy<rows, m, n>(h.q, s, queries);
    detail::copies_issued();
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
