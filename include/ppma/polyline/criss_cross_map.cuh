#pragma once
// Criss-cross attention of many maps of about 28 x 28 or 56 x 56 in bf16: a block has a head's whole map on chip, and every pass
// mixes it there, each line in place. Order::both is three passes over two maps in shared memory:
//
//   rows: A = PH v      columns: A = PV A / 2, B = PV v      rows: y = A + PH B / 2
//
// A warp owns lines (rows, then columns): the line's keys and the vectors that it mixes are in its registers, in the form
// that products on the tensor cores take, then it goes over its queries, 16 or 32 at a time; the next line's vectors come
// meanwhile. Queries and keys are read from memory once and from the L2 cache after that; v is read once, and nothing but y is
// written.
//
// Floor, 56 x 56 tokens, 4 heads of 16, batch 128: q, k, v and y move 206 MB, the decays 13: 0.07 ms from an H100's memory; three
// passes of 90 million exponentials take 0.07 ms of its units for them too. Measured there: 0.23 ms (a launch a pass:
// 0.34). The L2 cache is busy for 60 % of it: heads of 16 channels ask it for 32 bytes at a time, a quarter of a line.

#include "ppma/polyline/criss_cross_lines.cuh"
#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Of lines with 8 NT tokens at most: warps of a block, and groups of 16 queries that a warp works on at once. With more warps
/// registers spill.
template <int NT, bool both> inline constexpr int map_warps = NT == 7 ? 8 : both ? 14 : 7;
template <int NT> inline constexpr int map_groups = NT == 7 ? 2 : 1;
/// Whether queries and keys stay on chip too: four maps.
template <int NT, bool both> inline constexpr bool all_stay = NT == 4 && both;

struct Grid {
  int height, width, heads, channels;
};

/// Vectors in shared memory, eight channels (a pack, 16 bytes) at a time. Packs are swapped among eight, so that neighbours along a
/// row and along a column lie in other banks.
template <int D>
struct Map {
  static_assert(D == 16 || D == 32);
  static constexpr int packs = D / 8;
  unsigned at;
  int pitch;  // bytes of a row: whole eights of packs

  PPMA_HD static int pitch_of(int width) { return (width * packs + 7) / 8 * 128; }
  template <bool rows>
  __device__ __forceinline__ unsigned pack(int line, int position, int p) const {
    const unsigned row = static_cast<unsigned>(rows ? line : position), c = static_cast<unsigned>(rows ? position : line);
    return at + row * static_cast<unsigned>(pitch) + 16 * ((c * packs + (static_cast<unsigned>(p) ^ (c / (8 / packs) % packs))) ^ row % 8);
  }
  /// Bytes between positions that are eight apart, which lie alike.
  template <bool rows>
  __device__ __forceinline__ unsigned eight() const {
    return rows ? 8 * 16 * packs : 8 * static_cast<unsigned>(pitch);
  }
};

__device__ __forceinline__ void store_shared(unsigned address, unsigned x, bool there) {
  asm volatile("{.reg .pred there; setp.ne.u32 there, %2, 0; @there st.shared.b32 [%0], %1;}" ::"r"(address), "r"(x), "r"(static_cast<unsigned>(there)) : "memory");
}
__device__ __forceinline__ unsigned load_shared(unsigned address) {
  unsigned x;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
  return x;
}

template <int D, int NT>
using Right = unsigned[(NT + 1) / 2][D / 16][4];
/// A line of a map as the right factor of a product: 16 tokens, two packs each, at a time. What is behind the line's end (less than
/// eight tokens) is its last token.
template <bool rows, int D, int NT, class Load>
__device__ __forceinline__ void load_line(Right<D, NT>& x, const Map<D>& map, int line, int length, int token, int pack, const Load& load) {
  const int last = NT % 2 == 0 ? ::min(8 * NT - 16 + token, length - 1) : ::min(8 * NT - 8 + token % 8, length - 1);
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    const unsigned first = map.template pack<rows>(line, token, 2 * j + pack), end = map.template pack<rows>(line, last, 2 * j + pack);
#pragma unroll
    for (int i = 0; i < (NT + 1) / 2; ++i) load(x[i][j], i == (NT - 1) / 2 ? end : first + static_cast<unsigned>(2 * i) * map.template eight<rows>());
  }
}
template <int D, int NT>
__device__ __forceinline__ void mix(float (&c)[D / 8][4], const Left<NT>& p, const Right<D, NT>& x) {
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

/// sums[position] = log2_e times the sum of a line's log decays, two of which a lane has; `nowhere` behind the line's end.
template <int NT>
__device__ __forceinline__ void sum_line(float* sums, float2 log_decay, int length, int lane) {
  const int p = 2 * lane;
  float up_to = log_decay.x + log_decay.y;
#pragma unroll
  for (int far = 1; far < (NT == 4 ? 16 : 32); far *= 2) {
    const float left = __shfl_up_sync(~0u, up_to, far);
    if (lane >= far) up_to += left;
  }
  __syncwarp();  // what was there has been read
  if (p < 16 * ((NT + 1) / 2)) *reinterpret_cast<float2*>(sums + p) = {p < length ? (up_to - log_decay.y) * log2_e : nowhere, p + 1 < length ? up_to * log2_e : nowhere};
  __syncwarp();
}

inline constexpr float headroom = 43, sum_limit = 0x1p115f;  // of the weights, in powers of two

/// The weights of eight queries from 8 own on, rows lane / 4 (r = 0) or eight below (1) of t: scores become
/// 2^(log2_e (t + mask) - shift). A key before its query has the mask c_query - c_key, one behind it c_key - c_query: the keys' share is
/// added to the scores, the query's to their shift. The shift is the query's score with itself, which no mask weakens, less the
/// headroom; or (`largest`) the largest masked score. (Every index of t must be a constant when the template is: it is to stay in
/// registers whatever the compiler unrolls when.)
template <int NT, int own, bool largest>
__device__ __forceinline__ void weights(float (&t)[NT][4], const float2 (&key)[NT], float c, int lane) {
  constexpr int r = own % 2, e = 2 * r;
  if constexpr (own >= NT) {
#pragma unroll
    for (int n = 0; n < NT; ++n) t[n][e] = t[n][e + 1] = 0;
  } else {
    float shift = -INFINITY;
    if constexpr (!largest) {
      const float score = lane / 4 % 2 == 0 ? t[own][e] : t[own][e + 1];
      shift = ::fmaf(__shfl_sync(~0u, score, lane / 4 * 4 + lane / 4 / 2), log2_e, -headroom);
    }
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float x = n < own ? -key[n].x : n > own ? key[n].x : -::fabsf(key[n].x - c), y = n < own ? -key[n].y : n > own ? key[n].y : -::fabsf(key[n].y - c);
      t[n][e] = ::fmaf(t[n][e], log2_e, x), t[n][e + 1] = ::fmaf(t[n][e + 1], log2_e, y);
    }
    if constexpr (largest) {
#pragma unroll
      for (int n = 0; n < NT; ++n) shift = ::fmaxf(shift, ::fmaxf(t[n][e], t[n][e + 1]) + (n < own ? c : n > own ? -c : 0.f));
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
  for (int i = 0; i < NT; ++i) key[i] = *reinterpret_cast<const float2*>(sums + 8 * i + lane % 4 * 2);
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
  const char *q = nullptr, *k = nullptr, *v = nullptr;  // v: null where a map has what is to be mixed
  const float* log_decay = nullptr;
  unsigned step = 0;  // bytes from token to token
  int decay_step = 0, count = 0, line = 0;
};

/// What a warp has: its place in the block, and room in shared memory for a line's sums, keys and queries. These are maps of one row of
/// its own, or (`stay`) the block's maps.
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

  /// The vectors of a line to to(position), in the background.
  template <class To>
  __device__ __forceinline__ void copy(const char* from, const Source& s, const To& to) const {
    constexpr int packs = D / 8, at_once = 32 / packs;
    const int position = lane / packs;
    from += static_cast<unsigned>(position) * s.step + static_cast<unsigned>(lane % packs * 16);
    const unsigned place = to(position), more = to(position + at_once) - place;
#pragma unroll
    for (int i = 0; i < (8 * NT + at_once - 1) / at_once; ++i)
      if (position + i * at_once < s.count) detail::copy_async_once(place + static_cast<unsigned>(i) * more, from + static_cast<unsigned>(i * at_once) * static_cast<u64>(s.step));
  }
  template <bool rows>
  __device__ __forceinline__ void ask_keys(const Source& s, const Map<D>& values) {
    if (!stay || s.v != nullptr) copy(s.k, s, [&](int position) { return pack<rows>(keys, s.line, position, lane % (D / 8)); });
    if (s.v != nullptr) copy(s.v, s, [&](int position) { return values.template pack<rows>(s.line, position, lane % (D / 8)); });
    if (stay && s.v != nullptr) copy(s.q, s, [&](int position) { return pack<rows>(queries, s.line, position, lane % (D / 8)); });
    detail::copies_issued();
    if (s.log_decay == nullptr) return;
    if (lane > 0 && 2 * lane < s.count) decay.x = s.log_decay[2 * lane * s.decay_step];
    if (2 * lane + 1 < s.count) decay.y = s.log_decay[(2 * lane + 1) * s.decay_step];
  }
  template <bool rows>
  __device__ __forceinline__ void ask_queries(const Source& s) const {
    if constexpr (stay) return;
    __syncwarp();  // the line's have been read
    copy(s.q, s, [&](int position) { return pack<rows>(queries, s.line, position, lane % (D / 8)); });
    detail::copies_issued();
  }
};

/// A head's tensors, and one way of cutting its map into lines: rows or columns.
struct Head {
  const bf16 *q, *k, *v;
  const float *log_alpha, *log_beta;
  bf16* y;
  __device__ __forceinline__ Head(const Grid& g, int head, int d, const bf16* all_q, const bf16* all_k, const bf16* all_v, const float* all_alpha, const float* all_beta, bf16* all_y) {
    const int tokens = g.height * g.width;
    const i64 base = static_cast<i64>(head / g.heads) * tokens * g.channels + head % g.heads * d, plane = static_cast<i64>(head) * tokens;
    q = all_q + base, k = all_k + base, v = all_v + base, y = all_y + base;
    log_alpha = all_alpha == nullptr ? nullptr : all_alpha + plane, log_beta = all_beta == nullptr ? nullptr : all_beta + plane;
  }
};
template <bool rows>
struct Way {
  int count, length, step, line_step;  // token = line * line_step + position * step
  __device__ __forceinline__ explicit Way(const Grid& g)
      : count(rows ? g.height : g.width), length(rows ? g.width : g.height), step(rows ? 1 : g.width), line_step(rows ? g.width : 1) {}
  __device__ __forceinline__ Source source(const Grid& g, const Head& h, int line, bool with_values) const {
    if (line >= count) return {};
    const i64 at = static_cast<i64>(line * line_step) * g.channels;
    const float* const decay = rows ? h.log_alpha : h.log_beta;
    const auto bytes = [&](const bf16* t) { return reinterpret_cast<const char*>(t + at); };
    return {bytes(h.q), bytes(h.k), with_values ? bytes(h.v) : nullptr, decay == nullptr ? nullptr : decay + line * line_step, static_cast<unsigned>(step * g.channels * 2), step, length, line};
  }
};

/// A pass over the lines of one way: store(line, first position, P x0, P x1) for every 16 queries; P x0 is scaled. The warp's first line
/// has been asked for; after(): what follows the last. `values`: x0 has v. Returns the largest sum of weights.
template <bool rows, bool two, bool largest, bool values, int warps, int D, int NT, bool stay, class After, class Store>
__device__ __forceinline__ float mix_lines(const Grid& g, const Head& h, Warp<D, NT, stay>& w, const Map<D>& x0, const Map<D>& x1, float scale, const After& after, const Store& store) {
  constexpr int U = map_groups<NT>, last = (8 * NT - 1) / (16 * U) * U;  // the last queries of a line
  const Way<rows> way(g);
  const auto straight = [](unsigned(&x)[4], unsigned at) { detail::load_matrices(x, at); };
  const auto turned = [](unsigned(&x)[4], unsigned at) { detail::load_turned(x, at); };
  const int lane = w.lane;
  float most = 0;
  for (int line = w.index; line < way.count; line += warps) {
    detail::copies_done<0>();  // sum_line() makes the warp wait for all its lanes
    sum_line<NT>(w.sums, w.decay, way.length, lane);
    Right<D, NT> key, right0, right1;
    load_line<rows || !stay, D, NT>(key, w.keys, stay ? line : 0, way.length, lane / 16 * 8 + lane % 8, lane / 8 % 2, straight);
    load_line<rows, D, NT>(right0, x0, line, way.length, lane % 16, lane / 16, turned);
    if constexpr (two) load_line<rows, D, NT>(right1, x1, line, way.length, lane % 16, lane / 16, turned);
    __syncwarp();
    const Source next = line + warps < way.count ? way.source(g, h, line + warps, values) : after();
    w.template ask_keys<rows>(next, x0);
    const int token = lane % 16;
    unsigned query_at[D / 16];
#pragma unroll
    for (int i = 0; i < D / 16; ++i) query_at[i] = w.template pack<rows>(w.queries, line, token, 2 * i + lane / 16);
    const unsigned eight = w.queries.template eight<rows || !stay>();
    each_group<NT, U>([&](auto index) {
      constexpr int m = decltype(index)::value;
      float t[U][NT][4];
#pragma unroll
      for (int u = 0; u < U; ++u) {
        unsigned query[D / 16][4];
#pragma unroll
        for (int i = 0; i < D / 16; ++i)
          detail::load_matrices(query[i], 16 * (m + u + 1) < 8 * NT - 7 ? query_at[i] + static_cast<unsigned>(2 * (m + u)) * eight
                                                                        : w.template pack<rows>(w.queries, line, ::min(16 * (m + u) + token, way.length - 1), 2 * i + lane / 16));
#pragma unroll
        for (int n = 0; n < NT; ++n) {
          t[u][n][0] = t[u][n][1] = t[u][n][2] = t[u][n][3] = 0;
#pragma unroll
          for (int i = 0; i < D / 16; ++i) detail::multiply(t[u][n], query[i], key[n / 2][i][n % 2 * 2], key[n / 2][i][n % 2 * 2 + 1]);
        }
      }
      if constexpr (m == last) w.template ask_queries<rows>(next);
      all_weights<NT, m, largest>(t, w.sums, lane);
      Left<NT> p[U];
      float z[U][4] = {};
#pragma unroll
      for (int u = 0; u < U; ++u) {
        round_left<NT>(p[u], t[u]);
        add_sums<NT>(z[u], p[u]);
      }
      float out0[U][D / 8][4], out1[U][two ? D / 8 : 1][4];
#pragma unroll
      for (int u = 0; u < U; ++u) {
        mix<D, NT>(out0[u], p[u], right0);
        if constexpr (two) mix<D, NT>(out1[u], p[u], right1);
      }
#pragma unroll
      for (int u = 0; u < U; ++u) {
        if (16 * (m + u) >= 8 * NT) continue;
        most = ::fmaxf(most, ::fmaxf(z[u][0], z[u][2]));
        const Two f{reciprocal(z[u][0]), reciprocal(z[u][2])};
        scale_rows(out0[u], {f.upper * scale, f.lower * scale});
        if constexpr (two) scale_rows(out1[u], f);
        store(line, 16 * (m + u), out0[u], out1[u]);
      }
    });
  }
  return most;
}

/// 16 rows of a line to a map.
template <bool rows, int D>
__device__ __forceinline__ void to_map(const Map<D>& map, int line, int first, int length, int lane, const float (&c)[D / 8][4]) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    const unsigned at = map.template pack<rows>(line, lane / 4, j) + lane % 4 * 4u;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int eights = first / 8 + r;
      store_shared(at + static_cast<unsigned>(eights) * map.template eight<rows>(), detail::rounded_pair(c[j][2 * r], c[j][2 * r + 1]), 8 * eights + lane / 4 < length);
    }
  }
}
/// 16 rows of a line, plus those of a map, to memory: lanes exchange halves, so that each writes 8 bytes in a row.
template <bool rows, int D, bool add>
__device__ __forceinline__ void to_memory(bf16* y, const Grid& g, int line, int first, int lane, const float (&c)[D / 8][4], const Map<D>& plus) {
  const Way<rows> way(g);
  const bool odd = lane % 2 == 1;
  char* const to = reinterpret_cast<char*>(y + static_cast<i64>(line * way.line_step) * g.channels) + 16 * (lane % 2) + lane % 4 / 2 * 8;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int position = first + 8 * r + lane / 4, clamped = ::min(position, way.length - 1);
    char* const here = to + static_cast<u64>(static_cast<unsigned>(position)) * static_cast<unsigned>(way.step * g.channels * 2);
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      unsigned pair[2];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        float low = c[j + u][2 * r], high = c[j + u][2 * r + 1];
        if constexpr (add) {
          const unsigned more = load_shared(plus.template pack<rows>(line, clamped, j + u) + lane % 4 * 4u);
          low += __uint_as_float(more << 16), high += __uint_as_float(more & 0xffff0000u);
        }
        pair[u] = detail::rounded_pair(low, high);
      }
      // an even lane writes four channels of pack j, an odd one of pack j + 1
      const unsigned other = __shfl_xor_sync(~0u, odd ? pair[0] : pair[1], 1);
      const uint2 four = odd ? make_uint2(other, pair[1]) : make_uint2(pair[0], other);
      if (position < way.length) *reinterpret_cast<uint2*>(here + 16 * j) = four;
    }
  }
}

/// both: of the first way, the second, the first again (see above); else y = P2 P1 v in one map, a = b. Returns the thread's largest sum
/// of weights.
template <bool rows_first, bool both, bool largest, int warps, int D, int NT, bool stay>
__device__ __forceinline__ float mix_passes(const Grid& g, const Head& h, Warp<D, NT, stay>& w, const Map<D>& a, const Map<D>& b) {
  const Way<rows_first> first(g);
  const Way<!rows_first> second(g);
  const auto nothing_more = [] { return Source{}; };
  const Source begin = first.source(g, h, w.index, true);
  w.template ask_keys<rows_first>(begin, b), w.template ask_queries<rows_first>(begin);
  float most = mix_lines<rows_first, false, largest, true, warps>(
      g, h, w, b, b, 1.f, [&] { return second.source(g, h, w.index, false); },
      [&](int line, int position, const auto& c, const auto&) { to_map<rows_first>(a, line, position, first.length, w.lane, c); });
  __syncthreads();
  if constexpr (both) {
    most = ::fmaxf(most, mix_lines<!rows_first, true, largest, false, warps>(
        g, h, w, a, b, 0.5f, [&] { return first.source(g, h, w.index, false); },
        [&](int line, int position, const auto& c, const auto& d) {
          to_map<!rows_first>(a, line, position, second.length, w.lane, c);
          to_map<!rows_first>(b, line, position, second.length, w.lane, d);
        }));
    __syncthreads();
    return ::fmaxf(most, mix_lines<rows_first, false, largest, false, warps>(
        g, h, w, b, b, 0.5f, nothing_more,
        [&](int line, int position, const auto& c, const auto&) { to_memory<rows_first, D, true>(h.y, g, line, position, w.lane, c, a); }));
  } else {
    return ::fmaxf(most, mix_lines<!rows_first, false, largest, false, warps>(
        g, h, w, a, b, 1.f, nothing_more,
        [&](int line, int position, const auto& c, const auto&) { to_memory<!rows_first, D, false>(h.y, g, line, position, w.lane, c, a); }));
  }
}

/// Of a warp, in shared memory: sums, and keys and queries where they do not stay.
template <int NT> inline constexpr int sums_bytes = 16 * ((NT + 1) / 2) * 4;
template <int D, int NT, bool both> inline constexpr int own_bytes = sums_bytes<NT> + (all_stay<NT, both> ? 0 : 2 * 8 * NT * 2 * D);

template <int D, int NT, bool rows_first, bool both>
__global__ void __launch_bounds__(32 * map_warps<NT, both>, NT == 4 && !both ? 2 : 1)
    mix_map(Grid g, const bf16* q, const bf16* k, const bf16* v, const float* log_alpha, const float* log_beta, bf16* y) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr int warps = map_warps<NT, both>;
  unsigned thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));  // read once
  const int index = static_cast<int>(thread / 32), pitch = Map<D>::pitch_of(g.width);
  constexpr int own_size = own_bytes<D, NT, both>, maps = all_stay<NT, both> ? 4 : both ? 2 : 1;
  const unsigned shared = detail::shared_address(memory), map = static_cast<unsigned>(pitch * g.height), own = maps * map + static_cast<unsigned>(index * own_size), keys = shared + own + sums_bytes<NT>;
  const Map<D> a{shared, pitch}, b{both ? shared + map : shared, pitch};
  Warp<D, NT, all_stay<NT, both>> w{index, static_cast<int>(thread % 32), reinterpret_cast<float*>(memory + own), {keys, 0}, {keys + 8 * NT * 2 * D, 0}, {0, 0}};
  if constexpr (maps == 4) w.keys = {shared + 2 * map, pitch}, w.queries = {shared + 3 * map, pitch};
  const Head h(g, static_cast<int>(blockIdx.x), D, q, k, v, log_alpha, log_beta, y);
  const float most = mix_passes<rows_first, both, false, warps>(g, h, w, a, b);
  // A score that exceeds its query's own by some 72 powers of two: again, with the largest scores.
  if (__syncthreads_or(!(most < sum_limit))) mix_passes<rows_first, both, true, warps>(g, h, w, a, b);
}

/// False where maps have other sizes, or so few blocks (one a head) would leave multiprocessors without work.
template <int D>
bool run_map(const AttentionShape& x, Order order, const bf16* q, const bf16* k, const bf16* v, const float* log_alpha, const float* log_beta, bf16* y) {
  const i64 count = x.batch * x.heads, processors = cuda::device().multiProcessorCount, waves = (count + processors - 1) / processors;
  // In units of a wave, kernels of lines take 0.5 + count / (0.77 processors) (measured on an H100).
  if (x.head_width != D || static_cast<double>(waves) > 0.5 + 1.3 * static_cast<double>(count) / static_cast<double>(processors)) return false;
  const Grid g{static_cast<int>(x.height), static_cast<int>(x.width), static_cast<int>(x.heads), static_cast<int>(x.channels())};
  const auto run = [&](auto kernel, int maps, int warps, int own) {
    const i64 bytes = i64{maps} * x.height * Map<D>::pitch_of(g.width) + warps * own;
    if (bytes > static_cast<i64>(cuda::device().sharedMemPerBlockOptin)) return false;
    detail::allow_shared(kernel, static_cast<int>(bytes), "criss_cross_attention");
    kernel<<<static_cast<unsigned>(count), static_cast<unsigned>(32 * warps), static_cast<std::size_t>(bytes), cuda::stream()>>>(g, q, k, v, log_alpha, log_beta, y);
    cuda::launched("criss_cross_attention");
    return true;
  };
  const auto of_length = [&](auto length) {
    constexpr int NT = decltype(length)::value;
    switch (order) {
      case Order::rows_first: return run(mix_map<D, NT, true, false>, 1, map_warps<NT, false>, own_bytes<D, NT, false>);
      case Order::columns_first: return run(mix_map<D, NT, false, false>, 1, map_warps<NT, false>, own_bytes<D, NT, false>);
      case Order::both: return run(mix_map<D, NT, true, true>, all_stay<NT, true> ? 4 : 2, map_warps<NT, true>, own_bytes<D, NT, true>);
    }
    return false;
  };
  const i64 shortest = std::min(x.height, x.width), longest = std::max(x.height, x.width);
  if (24 < shortest && longest <= 32) return of_length(std::integral_constant<int, 4>{});
  if constexpr (D == 16)  // wider heads would not fit twice
    if (48 < shortest && longest <= 56) return of_length(std::integral_constant<int, 7>{});
  return false;
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor
