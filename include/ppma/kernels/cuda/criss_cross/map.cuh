#pragma once
#include "ppma/core/names_begin.hpp"
// Criss-cross attention of many maps of about 28 x 28 or 56 x 56 in bf16: a block has a head's
// whole map on chip, and every pass mixes it there, each line in place. Order::both is three passes
// over two maps in shared memory:
//
//   rows: A = PH v      columns: A = PV A / 2, B = PV v      rows: y = A + PH B / 2
//
// A warp owns lines (rows, then columns; map_lines.cuh). Queries and keys are read from memory once
// and from the L2 cache after that, v once. At 28 x 28 the third pass has the first one's weights
// (map_kept.cuh), and the block's next head comes meanwhile. Weights are powers of masked scores as
// they are; where their sums leave a range of 2^-90 to 2^90, or a path may be closed, the block
// begins again and takes each row's largest score from the others.
//
// Floor, 56 x 56 tokens, 4 heads of 16, batch 128: q, k, v and y move 206 MB, the decays 13: 0.05
// ms from an H200's memory; three passes of 90 million exponentials take 0.07 ms of its units for
// them too, and their 2,240 instructions a warp and line 0.07 to be issued. Measured there: 0.174
// ms, where latency counts: two warps a scheduler.

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/criss_cross/map_kept.cuh"
#include "ppma/kernels/cuda/criss_cross/map_lines.cuh"
#include "ppma/kernels/cuda/criss_cross/map_results.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Warps of a block, for lines of at most 8 NT tokens. With more, registers spill.
template <int NT, bool both>
inline constexpr int map_warps = NT == 7 ? 8 : (both ? 14 : 7);
/// Whether queries and keys stay on chip too.
template <int NT, bool both>
inline constexpr bool all_stay = NT == 4 && both;
template <int NT, bool both>
inline constexpr int maps_on_chip = (both ? 2 : 1) * (all_stay<NT, both> ? 2 : 1);

/// Bytes of a row of a map. Of lines of up to 56 tokens a constant: places are then constants too.
template <int D, int NT>
PPMA_HD int map_pitch(int width) {
  return Map<D>::pitch_of(NT == 7 ? 8 * NT : width);
}

/// Asks for a warp's first line of the first pass.
template <bool rows, int D, int NT, bool stay>
__device__ __forceinline__ void ask_first(const Grid& g, const Head& h, Warp<D, NT, stay>& w,
                                          const Map<D>& values) {
  const Source begin = Way<rows>(g).source(g, h, w.index);
  constexpr int part = map_part<NT>;
  w.template ask_keys<rows>(h, begin, true, values);
  w.template ask_queries<rows, 0, part>(h, begin),
      w.template ask_queries<rows, part, part>(h, begin);
}

/// both: of the first way, the second, the first again (see above) unless weights are kept; else
/// y = P2 P1 v in one map, a = b. The warp's first line has been asked for. Returns the thread's
/// largest sum of weights.
template <bool rows_first, bool both, bool largest, int warps, int D, int NT, bool stay>
__device__ __forceinline__ float mix_passes(const Grid& g, const Head& h, Warp<D, NT, stay>& w,
                                            const Map<D>& a, const Map<D>& b, uint4* kept) {
  constexpr bool third = both && !keeps<NT, both>;
  const Way<rows_first> first(g);
  const Way<!rows_first> second(g);
  float most = mix_lines<Pass::first, rows_first, both, largest, warps>(
      g, h, w, b, b, 1.f, kept, [&] { return second.source(g, h, w.index); },
      [&](int line, int position, const auto& c, const auto&) {
        to_map<rows_first, D, NT>(a, line, position, first.length, w.lane, c);
      });
  __syncthreads();
  most = ::fmaxf(most,
                 mix_lines<Pass::second, !rows_first, both, largest, warps>(
                     g, h, w, a, b, both ? 0.5f : 1.f, kept,
                     [&] { return third ? first.source(g, h, w.index) : Source{}; },
                     [&](int line, int position, const auto& c, [[maybe_unused]] const auto& d) {
                       if constexpr (both) {
                         to_map<!rows_first, D, NT>(a, line, position, second.length, w.lane, c);
                         to_map<!rows_first, D, NT>(b, line, position, second.length, w.lane, d);
                       } else {
                         to_memory<!rows_first, D, NT, false>(h.y, g, line, position, w.lane, c, a);
                       }
                     }));
  if constexpr (third) {
    __syncthreads();
    most = ::fmaxf(most, mix_lines<Pass::third, rows_first, both, largest, warps>(
                             g, h, w, b, b, 0.5f, kept, [] { return Source{}; },
                             [&](int line, int position, const auto& c, const auto&) {
                               to_memory<rows_first, D, NT, true>(h.y, g, line, position, w.lane, c,
                                                                  a);
                             }));
  }
  return most;
}

/// Of a warp, in shared memory: sums, and keys and queries where they do not stay.
template <int D, int NT, bool both>
inline constexpr int own_bytes = sums_bytes<NT> + (all_stay<NT, both> ? 0 : 2 * 8 * NT * 2 * D);

template <int D, int NT, bool rows_first, bool both>
__global__ void __launch_bounds__(32 * map_warps<NT, both>, NT == 4 && !both ? 2 : 1)
    mix_map(Grid g, [[maybe_unused]] int heads, const bf16* q, const bf16* k, const bf16* v,
            const float* log_alpha, const float* log_beta, bf16* y, uint4* kept) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr int warps = map_warps<NT, both>;
  unsigned thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));  // read once
  const int index = static_cast<int>(thread / 32), pitch = map_pitch<D, NT>(g.width);
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
    // Weights out of range, or a path that may be closed: again, less the largest scores.
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
            to_memory<rows_first, D, NT, true>(h.y, g, line, position, w.lane, c, a);
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
  if (x.head_width != D || x.tokens() * x.channels() >= (i64{1} << 30) ||
      static_cast<double>(waves) >
          0.5 + 1.3 * static_cast<double>(count) / static_cast<double>(processors))
    return false;
  const Grid g{static_cast<int>(x.height), static_cast<int>(x.width), static_cast<int>(x.heads),
               static_cast<int>(x.channels())};
  const auto of_length = [&](auto length) {
    constexpr int NT = decltype(length)::value;
    const auto run = [&](auto kernel, auto orders) {
      constexpr bool both = decltype(orders)::value;
      constexpr int warps = map_warps<NT, both>, own = warps * own_bytes<D, NT, both>;
      const i64 map = x.height * map_pitch<D, NT>(g.width),
                bytes = maps_on_chip<NT, both> * map + own,
                blocks = keeps<NT, both> ? std::min(count, processors) : count;
      if (bytes > static_cast<i64>(cuda::device().sharedMemPerBlockOptin)) return false;
      detail::allow_shared(kernel, static_cast<int>(bytes), "criss_cross_attention");
      const Workspace<uint4> kept(keeps<NT, both> ? blocks * kept_map<NT> : 0, Device::cuda);
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
