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
// once and from the L2 cache after that, v once. At 28 x 28 the third pass has the first one's
// weights (map_kept.cuh), and the block's next head comes meanwhile.
//
// Floor, 56 x 56 tokens, 4 heads of 16, batch 128: q, k, v and y move 206 MB, the decays 13: 0.05
// ms from an H200's memory; three passes of 90 million exponentials take 0.07 ms of its units for
// them too. Measured there: 0.196 ms, where latency counts: two warps a scheduler.

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/criss_cross/map_kept.cuh"
#include "ppma/kernels/cuda/criss_cross/map_results.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Of lines with 8 NT tokens at most: warps of a block, and groups of 16 queries that a warp works
/// on at once. With more warps registers spill.
template <int NT, bool both>
inline constexpr int map_warps = NT == 7 ? 8 : (both ? 14 : 7);
template <int NT>
inline constexpr int map_groups = NT == 7 ? 2 : 1;
/// Whether queries and keys stay on chip too.
template <int NT, bool both>
inline constexpr bool all_stay = NT == 4 && both;
template <int NT, bool both>
inline constexpr int maps_on_chip = (both ? 2 : 1) * (all_stay<NT, both> ? 2 : 1);

/// A pass over the lines of one way: store(line, first position, P x0, P x1) for every 16 queries;
/// P x0 is scaled. The warp's first line has been asked for; after(): what follows the last.
/// keep(line, number of 16 queries, left factors): what else is done with weights.
/// `values`: x0 has v. Returns the largest sum of weights.
template <bool rows, bool two, bool largest, bool values, int warps, int D, int NT, bool stay,
          class After, class Keep, class Store>
__device__ __forceinline__ float mix_lines(const Grid& g, const Head& h, Warp<D, NT, stay>& w,
                                           const Map<D>& x0, const Map<D>& x1, float scale,
                                           const After& after, const Keep& keep,
                                           const Store& store) {
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
        keep(line, m + u, p[u]);
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

/// Asks for a warp's first line of the first pass.
template <bool rows, int D, int NT, bool stay>
__device__ __forceinline__ void ask_first(const Grid& g, const Head& h, Warp<D, NT, stay>& w,
                                          const Map<D>& values) {
  const Source begin = Way<rows>(g).source(g, h, w.index, true);
  constexpr int U = map_groups<NT>;
  w.template ask_keys<rows>(begin, values);
  w.template ask_queries<rows, 0, U>(begin), w.template ask_queries<rows, U, U>(begin);
}

/// both: of the first way, the second, the first again (see above) unless it keeps weights; else y
/// = P2 P1 v in one map, a = b. The warp's first line has been asked for. Returns the thread's
/// largest sum of weights.
template <bool rows_first, bool both, bool largest, int warps, int D, int NT, bool stay>
__device__ __forceinline__ float mix_passes(const Grid& g, const Head& h, Warp<D, NT, stay>& w,
                                            const Map<D>& a, const Map<D>& b,
                                            [[maybe_unused]] unsigned char* kept) {
  const Way<rows_first> first(g);
  const Way<!rows_first> second(g);
  const auto nothing_more = [] { return Source{}; };
  const auto not_kept = [](int, int, const Left<NT>&) {};
  float most = mix_lines<rows_first, false, largest, true, warps>(
      g, h, w, b, b, 1.f, [&] { return second.source(g, h, w.index, false); },
      [&](int line, int group, const Left<NT>& p) {
        if constexpr (keeps<NT, both>)
          keep_weights<NT>(kept + line * kept_line<NT>, group, w.lane, p);
      },
      [&](int line, int position, const auto& c, const auto&) {
        to_map<rows_first>(a, line, position, first.length, w.lane, c);
      });
  __syncthreads();
  if constexpr (both) {
    most = ::fmaxf(
        most, mix_lines<!rows_first, true, largest, false, warps>(
                  g, h, w, a, b, 0.5f,
                  [&] { return keeps<NT, both> ? Source{} : first.source(g, h, w.index, false); },
                  not_kept,
                  [&](int line, int position, const auto& c, const auto& d) {
                    to_map<!rows_first>(a, line, position, second.length, w.lane, c);
                    to_map<!rows_first>(b, line, position, second.length, w.lane, d);
                  }));
    if constexpr (!keeps<NT, both>) {
      __syncthreads();
      most =
          ::fmaxf(most, mix_lines<rows_first, false, largest, false, warps>(
                            g, h, w, b, b, 0.5f, nothing_more, not_kept,
                            [&](int line, int position, const auto& c, const auto&) {
                              to_memory<rows_first, D, true>(h.y, g, line, position, w.lane, c, a);
                            }));
    }
    return most;
  } else {
    return ::fmaxf(most, mix_lines<!rows_first, false, largest, false, warps>(
                             g, h, w, a, b, 1.f, nothing_more, not_kept,
                             [&](int line, int position, const auto& c, const auto&) {
                               to_memory<!rows_first, D, false>(h.y, g, line, position, w.lane, c,
                                                                a);
                             }));
  }
}

/// Of a warp, in shared memory: sums, and keys and queries where they do not stay.
template <int D, int NT, bool both>
inline constexpr int own_bytes = sums_bytes<NT> + (all_stay<NT, both> ? 0 : 2 * 8 * NT * 2 * D);

template <int D, int NT, bool rows_first, bool both>
__global__ void __launch_bounds__(32 * map_warps<NT, both>, NT == 4 && !both ? 2 : 1)
    mix_map(Grid g, [[maybe_unused]] int heads, const bf16* q, const bf16* k, const bf16* v,
            const float* log_alpha, const float* log_beta, bf16* y,
            [[maybe_unused]] unsigned char* kept) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr int warps = map_warps<NT, both>;
  unsigned thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));  // read once
  const int index = static_cast<int>(thread / 32), pitch = Map<D>::pitch_of(g.width);
  constexpr int own_size = own_bytes<D, NT, both>, maps = maps_on_chip<NT, both>;
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
  const auto head = [&](int i) { return Head(g, i, D, q, k, v, log_alpha, log_beta, y); };
  if constexpr (keeps<NT, both>) kept += static_cast<i64>(blockIdx.x) * kept_map<NT>;
  const int first = static_cast<int>(blockIdx.x), step = static_cast<int>(gridDim.x);
  ask_first<rows_first>(g, head(first), w, b);
  for (int i = first; i < heads; i += step) {
    const Head h = head(i);
    const float most = mix_passes<rows_first, both, false, warps>(g, h, w, a, b, kept);
    // A score that exceeds its query's own by some 72 powers of two, or a path that may be closed:
    // again, with the largest scores.
    const auto once_more = [&] {
      if (!__syncthreads_or(!(most < sum_limit))) return false;
      ask_first<rows_first>(g, h, w, b);
      mix_passes<rows_first, both, true, warps>(g, h, w, a, b, kept);
      __syncthreads();
      return true;
    };
    if constexpr (!keeps<NT, both>) {
      once_more();
      return;  // a block has one head
    } else {
      mix_kept<rows_first, warps, D, NT>(
          g, w.index, w.lane, b, 0.5f, kept, once_more,
          [&] {
            if (i + step < heads) ask_first<rows_first>(g, head(i + step), w, b);
          },
          [&](int line, int position, const auto& c) {
            to_memory<rows_first, D, true>(h.y, g, line, position, w.lane, c, a);
          });
    }
  }
}

/// False where maps have other sizes, or so few heads would leave multiprocessors without work.
template <int D>
bool run_map(Order order, const AttentionArgs<bf16>& in, bf16* y) {
  const AttentionShape& x = in.shape;
  const i64 count = x.batch * x.heads, processors = cuda::device().multiProcessorCount,
            waves = (count + processors - 1) / processors;
  // In units of a wave, kernels of lines take 0.5 + count / (0.77 processors) (an H100's measure).
  if (x.head_width != D || static_cast<double>(waves) > 0.5 + 1.3 * static_cast<double>(count) /
                                                                  static_cast<double>(processors))
    return false;
  const Grid g{static_cast<int>(x.height), static_cast<int>(x.width), static_cast<int>(x.heads),
               static_cast<int>(x.channels())};
  const auto of_length = [&](auto length) {
    constexpr int NT = decltype(length)::value;
    const auto run = [&](auto kernel, auto orders) {
      constexpr bool both = decltype(orders)::value;
      constexpr int warps = map_warps<NT, both>, own = warps * own_bytes<D, NT, both>;
      const i64 map = x.height * Map<D>::pitch_of(g.width),
                bytes = maps_on_chip<NT, both> * map + own,
                blocks = keeps<NT, both> ? std::min(count, processors) : count;
      if (bytes > static_cast<i64>(cuda::device().sharedMemPerBlockOptin)) return false;
      detail::allow_shared(kernel, static_cast<int>(bytes), "criss_cross_attention");
      const Workspace<unsigned char> kept(keeps<NT, both> ? blocks * kept_map<NT> : 0,
                                          Device::cuda);
      kernel<<<static_cast<unsigned>(blocks), 32 * warps, static_cast<std::size_t>(bytes),
               cuda::stream()>>>(g, static_cast<int>(count), in.q, in.k, in.v, in.log_alpha,
                                 in.log_beta, y, kept.data());
      cuda::launched("criss_cross_attention");
      return true;
    };
    switch (order) {
      case Order::rows_first:
        return run(mix_map<D, NT, true, false>, std::false_type{});
      case Order::columns_first:
        return run(mix_map<D, NT, false, false>, std::false_type{});
      case Order::both:
        return run(mix_map<D, NT, true, true>, std::true_type{});
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
