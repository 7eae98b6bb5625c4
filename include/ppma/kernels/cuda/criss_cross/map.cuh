#pragma once
#include "ppma/core/names_begin.hpp"
// Criss-cross attention of many maps of about 28 x 28 or 56 x 56 in bf16: a block has a head's
// whole map on chip, and every pass mixes it there, each line in place. Order::both is three passes
// over two maps in shared memory:
//
//   rows: A = PH v      columns: A = PV A / 2, B = PV v      rows: y = A + PH B / 2
//
// A warp owns lines (rows, then columns): the line's keys and the vectors that it mixes are in its
// registers, in the form that products on the tensor cores take, then it goes over its queries, 16
// or 32 at a time; the next line's vectors come meanwhile. Queries and keys are read from memory
// once and from the L2 cache after that; v is read once, and nothing but y is written.
//
// Floor, 56 x 56 tokens, 4 heads of 16, batch 128: q, k, v and y move 206 MB, the decays 13: 0.05
// ms from an H200's memory; three passes of 90 million exponentials take 0.07 ms of its units for
// them too. Measured there: 0.196 ms, where latency counts: two warps a scheduler.

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/criss_cross/map_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Of lines with 8 NT tokens at most: warps of a block, and groups of 16 queries that a warp works
/// on at once. With more warps registers spill.
template <int NT, bool both>
inline constexpr int map_warps = NT == 7 ? 8 : (both ? 14 : 7);
template <int NT>
inline constexpr int map_groups = NT == 7 ? 2 : 1;
/// Whether queries and keys stay on chip too: four maps.
template <int NT, bool both>
inline constexpr bool all_stay = NT == 4 && both;

/// A pass over the lines of one way: store(line, first position, P x0, P x1) for every 16 queries;
/// P x0 is scaled. The warp's first line has been asked for; after(): what follows the last.
/// `values`: x0 has v. Returns the largest sum of weights.
template <bool rows, bool two, bool largest, bool values, int warps, int D, int NT, bool stay,
          class After, class Store>
__device__ __forceinline__ float mix_lines(const Grid& g, const Head& h, Warp<D, NT, stay>& w,
                                           const Map<D>& x0, const Map<D>& x1, float scale,
                                           const After& after, const Store& store) {
  // the last queries of a line
  constexpr int U = map_groups<NT>, last = (8 * NT - 1) / (16 * U) * U;
  static_assert(last == U, "a line's queries are asked for in two parts");  // see run_map()
  const Way<rows> way(g);
  const auto straight = [](unsigned(&x)[4], unsigned at) { detail::load_matrices(x, at); };
  const auto turned = [](unsigned(&x)[4], unsigned at) { detail::load_turned(x, at); };
  const int lane = w.lane;
  float most = 0;
  for (int line = w.index; line < way.count; line += warps) {
    detail::copies_done<stay ? 0 : 2>();  // keys; sum_line() makes the warp wait for all its lanes
    sum_line<NT>(w.sums, w.decay, way.length, lane);
    if (!largest && -w.sums[way.length - 1] >= closed) most = positive_infinity<float>();
    Right<D, NT> key, right0, right1;
    load_line<rows || !stay, D, NT>(key, w.keys, stay ? line : 0, way.length,
                                    lane / 16 * 8 + lane % 8, lane / 8 % 2, straight);
    load_line<rows, D, NT>(right0, x0, line, way.length, lane % 16, lane / 16, turned);
    if constexpr (two)
      load_line<rows, D, NT>(right1, x1, line, way.length, lane % 16, lane / 16, turned);
    __syncwarp();
    const Source next = line + warps < way.count ? way.source(g, h, line + warps, values) : after();
    w.template ask_keys<rows>(next, x0);
    if constexpr (!stay) {
      detail::copies_done<1>();  // queries
      __syncwarp();
    }
    const int token = lane % 16;
    unsigned query_at[D / 16];
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
      query_at[i] = w.template pack<rows>(w.queries, line, token, 2 * i + lane / 16);
    const unsigned eight = w.queries.template eight < rows || !stay > ();
    each_group<NT, U>([&](auto index) {
      constexpr int m = decltype(index)::value;
      float t[U][NT][4];
#pragma unroll
      for (int u = 0; u < U; ++u) {
        unsigned query[D / 16][4];
#pragma unroll
        for (int i = 0; i < D / 16; ++i)
          detail::load_matrices(
              query[i], 16 * (m + u + 1) < 8 * NT - 7
                            ? query_at[i] + static_cast<unsigned>(2 * (m + u)) * eight
                            : w.template pack<rows>(w.queries, line,
                                                    ::min(16 * (m + u) + token, way.length - 1),
                                                    2 * i + lane / 16));
#pragma unroll
        for (int n = 0; n < NT; ++n) {
          t[u][n][0] = t[u][n][1] = t[u][n][2] = t[u][n][3] = 0;
#pragma unroll
          for (int i = 0; i < D / 16; ++i)
            detail::multiply(t[u][n], query[i], key[n / 2][i][n % 2 * 2],
                             key[n / 2][i][n % 2 * 2 + 1]);
        }
      }
      w.template ask_queries<rows, m, U>(next);
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
__device__ __forceinline__ void to_map(const Map<D>& map, int line, int first, int length, int lane,
                                       const float (&c)[D / 8][4]) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    const unsigned at = map.template pack<rows>(line, lane / 4, j) + lane % 4 * 4u;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int eights = first / 8 + r;
      store_shared(at + static_cast<unsigned>(eights) * map.template eight<rows>(),
                   detail::rounded_pair(c[j][2 * r], c[j][2 * r + 1]),
                   8 * eights + lane / 4 < length);
    }
  }
}
/// 16 rows of a line, plus those of a map, to memory: lanes exchange halves, so that each writes 8
/// bytes in a row.
template <bool rows, int D, bool add>
__device__ __forceinline__ void to_memory(bf16* y, const Grid& g, int line, int first, int lane,
                                          const float (&c)[D / 8][4], const Map<D>& plus) {
  const Way<rows> way(g);
  const bool odd = lane % 2 == 1;
  char* const to =
      reinterpret_cast<char*>(y + static_cast<i64>(line * way.line_step) * g.channels) +
      16 * (lane % 2) + lane % 4 / 2 * 8;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int position = first + 8 * r + lane / 4, clamped = ::min(position, way.length - 1);
    char* const here = to + static_cast<u64>(static_cast<unsigned>(position)) *
                                static_cast<unsigned>(way.step * g.channels * 2);
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      unsigned pair[2];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        float low = c[j + u][2 * r], high = c[j + u][2 * r + 1];
        if constexpr (add) {
          const unsigned more =
              load_shared(plus.template pack<rows>(line, clamped, j + u) + lane % 4 * 4u);
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

/// both: of the first way, the second, the first again (see above); else y = P2 P1 v in one map, a
/// = b. Returns the thread's largest sum of weights.
template <bool rows_first, bool both, bool largest, int warps, int D, int NT, bool stay>
__device__ __forceinline__ float mix_passes(const Grid& g, const Head& h, Warp<D, NT, stay>& w,
                                            const Map<D>& a, const Map<D>& b) {
  const Way<rows_first> first(g);
  const Way<!rows_first> second(g);
  const auto nothing_more = [] { return Source{}; };
  const Source begin = first.source(g, h, w.index, true);
  constexpr int U = map_groups<NT>;
  w.template ask_keys<rows_first>(begin, b);
  w.template ask_queries<rows_first, 0, U>(begin), w.template ask_queries<rows_first, U, U>(begin);
  float most = mix_lines<rows_first, false, largest, true, warps>(
      g, h, w, b, b, 1.f, [&] { return second.source(g, h, w.index, false); },
      [&](int line, int position, const auto& c, const auto&) {
        to_map<rows_first>(a, line, position, first.length, w.lane, c);
      });
  __syncthreads();
  if constexpr (both) {
    most =
        ::fmaxf(most, mix_lines<!rows_first, true, largest, false, warps>(
                          g, h, w, a, b, 0.5f, [&] { return first.source(g, h, w.index, false); },
                          [&](int line, int position, const auto& c, const auto& d) {
                            to_map<!rows_first>(a, line, position, second.length, w.lane, c);
                            to_map<!rows_first>(b, line, position, second.length, w.lane, d);
                          }));
    __syncthreads();
    return ::fmaxf(most, mix_lines<rows_first, false, largest, false, warps>(
                             g, h, w, b, b, 0.5f, nothing_more,
                             [&](int line, int position, const auto& c, const auto&) {
                               to_memory<rows_first, D, true>(h.y, g, line, position, w.lane, c, a);
                             }));
  } else {
    return ::fmaxf(most, mix_lines<!rows_first, false, largest, false, warps>(
                             g, h, w, a, b, 1.f, nothing_more,
                             [&](int line, int position, const auto& c, const auto&) {
                               to_memory<!rows_first, D, false>(h.y, g, line, position, w.lane, c,
                                                                a);
                             }));
  }
}

/// Of a warp, in shared memory: sums, and keys and queries where they do not stay.
template <int NT>
inline constexpr int sums_bytes = 16 * ((NT + 1) / 2) * 4;
template <int D, int NT, bool both>
inline constexpr int own_bytes = sums_bytes<NT> + (all_stay<NT, both> ? 0 : 2 * 8 * NT * 2 * D);

template <int D, int NT, bool rows_first, bool both>
__global__ void __launch_bounds__(32 * map_warps<NT, both>, NT == 4 && !both ? 2 : 1)
    mix_map(Grid g, const bf16* q, const bf16* k, const bf16* v, const float* log_alpha,
            const float* log_beta, bf16* y) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr int warps = map_warps<NT, both>;
  unsigned thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));  // read once
  const int index = static_cast<int>(thread / 32), pitch = Map<D>::pitch_of(g.width);
  constexpr int own_size = own_bytes<D, NT, both>, maps = all_stay<NT, both> ? 4 : both ? 2 : 1;
  const unsigned shared = detail::shared_address(memory),
                 map = static_cast<unsigned>(pitch * g.height),
                 own = maps * map + static_cast<unsigned>(index * own_size),
                 keys = shared + own + sums_bytes<NT>;
  const Map<D> a{shared, pitch}, b{both ? shared + map : shared, pitch};
  Warp<D, NT, all_stay<NT, both>> w{
      index,     static_cast<int>(thread % 32), reinterpret_cast<float*>(memory + own),
      {keys, 0}, {keys + 8 * NT * 2 * D, 0},    {0, 0}};
  if constexpr (maps == 4)
    w.keys = {shared + 2 * map, pitch}, w.queries = {shared + 3 * map, pitch};
  const Head h(g, static_cast<int>(blockIdx.x), D, q, k, v, log_alpha, log_beta, y);
  const float most = mix_passes<rows_first, both, false, warps>(g, h, w, a, b);
  // A score that exceeds its query's own by some 72 powers of two, or a path that may be closed:
  // again, with the largest scores.
  if (__syncthreads_or(!(most < sum_limit)))
    mix_passes<rows_first, both, true, warps>(g, h, w, a, b);
}

/// False where maps have other sizes, or so few blocks (one a head) would leave multiprocessors
/// without work.
template <int D>
bool run_map(Order order, const AttentionArgs<bf16>& in, bf16* y) {
  const AttentionShape& x = in.shape;
  const i64 count = x.batch * x.heads, processors = cuda::device().multiProcessorCount,
            waves = (count + processors - 1) / processors;
  // In units of a wave, kernels of lines take 0.5 + count / (0.77 processors) (measured on an
  // H100).
  if (x.head_width != D || static_cast<double>(waves) > 0.5 + 1.3 * static_cast<double>(count) /
                                                                  static_cast<double>(processors))
    return false;
  const Grid g{static_cast<int>(x.height), static_cast<int>(x.width), static_cast<int>(x.heads),
               static_cast<int>(x.channels())};
  const auto run = [&](auto kernel, int maps, int warps, int own) {
    const i64 bytes = i64{maps} * x.height * Map<D>::pitch_of(g.width) + warps * own;
    if (bytes > static_cast<i64>(cuda::device().sharedMemPerBlockOptin)) return false;
    detail::allow_shared(kernel, static_cast<int>(bytes), "criss_cross_attention");
    kernel<<<static_cast<unsigned>(count), static_cast<unsigned>(32 * warps),
             static_cast<std::size_t>(bytes), cuda::stream()>>>(g, in.q, in.k, in.v, in.log_alpha,
                                                                in.log_beta, y);
    cuda::launched("criss_cross_attention");
    return true;
  };
  const auto of_length = [&](auto length) {
    constexpr int NT = decltype(length)::value;
    switch (order) {
      case Order::rows_first:
        return run(mix_map<D, NT, true, false>, 1, map_warps<NT, false>, own_bytes<D, NT, false>);
      case Order::columns_first:
        return run(mix_map<D, NT, false, false>, 1, map_warps<NT, false>, own_bytes<D, NT, false>);
      case Order::both:
        return run(mix_map<D, NT, true, true>, all_stay<NT, true> ? 4 : 2, map_warps<NT, true>,
                   own_bytes<D, NT, true>);
    }
    return false;
  };
  // Every line has a query in the second part of its own: padding reads the last one.
  const i64 shortest = std::min(x.height, x.width), longest = std::max(x.height, x.width);
  if (24 < shortest && longest <= 32) return of_length(std::integral_constant<int, 4>{});
  if constexpr (D == 16)  // wider heads would not fit twice
    if (48 < shortest && longest <= 56) return of_length(std::integral_constant<int, 7>{});
  return false;
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
