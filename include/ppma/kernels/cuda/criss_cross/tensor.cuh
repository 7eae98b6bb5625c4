#pragma once
#include "ppma/core/names_begin.hpp"
// Criss-cross attention in bf16 on the tensor cores (lines.cuh). Order::both is three passes:
//
//   rows: T1 = PH v      columns: [O1, T2] = PV [T1, v]      rows: y = (O1 + PH T2) / 2
//
// Many maps of 28 x 28 or 56 x 56 stay on chip (map.cuh). Others take a launch a pass, whose floor
// for 56 x 56 tokens of 64 channels, batch 128, is 15 times 51 MB, 0.26 ms from an H100's memory.
// Measured there: 0.34 ms; on chip 0.23.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/criss_cross/lines.cuh"
#include "ppma/kernels/cuda/criss_cross/map.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// y0 = scale P x0 (+ plus), y1 = P x1.
struct Apply {
  const bf16 *x0 = nullptr, *x1 = nullptr, *plus = nullptr;
  bf16 *y0 = nullptr, *y1 = nullptr;
  float scale = 1;
};

inline constexpr int apply_threads = 128;

/// Of twice apply_threads four blocks are to fit on a multiprocessor.
template <int D, int NT, bool two, int threads>
__global__ void __launch_bounds__(threads, threads == apply_threads ? 1 : 4)
    apply(Lines s, const bf16* q, const bf16* k, const float* log_decay, Apply to) {
  extern __shared__ __align__(16) unsigned char memory[];
  bf16* const queries = reinterpret_cast<bf16*>(memory);
  const Spot here(s);
  const int stride = s.stride<D, NT>(), padded = s.rows<NT>(), tile = padded * stride,
            lane = lane_index();
  bf16 *const keys = queries + tile, *const x1 = keys + tile, *const x0 = x1 + (two ? tile : 0);
  float* const sums = reinterpret_cast<float*>(x0 + tile);
  cuda::wait();
  if constexpr (two)
    fetch<D, NT>(queries, s, here, {q, k, to.x1, to.x0});
  else
    fetch<D, NT>(queries, s, here, {q, k, to.x0});
  detail::copies_issued();
  ask_for<D>(to.plus, s, here);
  sum_decays<NT>(sums, log_decay, s, here);
  detail::copies_done<0>();
  __syncthreads();
  const int chunks = NT == 8 ? padded / 64 : 1;
  const int head = warp_index() % s.group;
  if (head >= here.heads) return;
  const float* const c = sums + head * padded;
  const bool walls = any_closed(c, s.length);
  each_row(s, [&](int row0) {
    const Two own{c[row0 + lane / 4], c[row0 + lane / 4 + 8]};
    unsigned query[D / 16][4];
    // no other warp's: the results' place in the end
    bf16* const mine = queries + row0 * stride + head * D;
    load_left<D>(query, mine, stride);
    float out0[D / 8][4] = {}, out1[two ? D / 8 : 1][4] = {};
    float z[4] = {};
    Two most{nowhere, nowhere};
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int from = chunk * 64 * stride + head * D;
      float t[NT][4];
      masked_scores<D, NT>(t, query, keys + from, stride, own, c + chunk * 64, walls);
      const Two factor = softmax_step<NT>(t, most);
      if (chunk > 0) {
        z[0] *= factor.upper, z[2] *= factor.lower;
        scale_rows(out0, factor);
        if constexpr (two) scale_rows(out1, factor);
      }
      Left<NT> p;
      round_left<NT>(p, t);
      add_sums<NT>(z, p);
      add_mix<D, NT>(out0, p, x0 + from, stride);
      if constexpr (two) add_mix<D, NT>(out1, p, x1 + from, stride);
    }
    const Two f{reciprocal(z[0]), reciprocal(z[2])};
    write_rows<D>(mine, stride, out0, {f.upper * to.scale, f.lower * to.scale}, s, here, head, row0,
                  to.plus, to.y0);
    if constexpr (two) write_rows<D>(mine, stride, out1, f, s, here, head, row0, nullptr, to.y1);
  });
}

template <int D>
void run_apply(const AttentionArgs<bf16>& in, const polyline_gpu::LineOrders& orders,
               bool along_rows, const Apply& to) {
  const AttentionShape& x = in.shape;
  with_length(along_rows ? x.width : x.height, [&](auto length) {
    constexpr int NT = decltype(length)::value;
    const auto run = [&](auto both, int tiles) {
      constexpr bool two = decltype(both)::value;
      const Lines s = lines<D, NT>(x, along_rows, orders, apply_threads / 32, tiles, 0, 1);
      const int bytes = shared_bytes<D, NT>(s, tiles, 0, 1);
      const dim3 blocks(static_cast<unsigned>(x.batch * s.count), static_cast<unsigned>(s.groups));
      const auto launch = [&](auto threads) {
        const auto kernel = apply<D, NT, two, decltype(threads)::value>;
        if (bytes > 48 * 1024) detail::allow_shared(kernel, bytes, "criss_cross_attention");
        cuda::launch("criss_cross_attention", kernel, blocks, decltype(threads)::value,
                     static_cast<std::size_t>(bytes), s, in.q, in.k,
                     along_rows ? in.log_alpha : in.log_beta, to);
      };
      if constexpr (D <= 32 && NT < 8) {
        // Three or four blocks a multiprocessor leave it room for twice as many warps in each.
        const i64 all = x.batch * s.count * s.groups,
                  processors = cuda::device().multiProcessorCount;
        if (all > 2 * processors && all <= 4 * processors)
          return launch(std::integral_constant<int, 2 * apply_threads>{});
      }
      launch(std::integral_constant<int, apply_threads>{});
    };
    if (to.x1)
      run(std::true_type{}, 4);
    else
      run(std::false_type{}, 3);
  });
}

/// Whether lines of this shape fit: heads of 64 channels at most, and `tiles` tiles of a line in
/// shared memory.
inline bool takes_tensor(const AttentionShape& x, int tiles) {
  const i64 longest = (std::max(x.height, x.width) + 63) / 64 * 64, width = x.head_width <= 16 ? 16
                                                                            : x.head_width <= 32
                                                                                ? 32
                                                                                : 64;
  return x.head_width <= 64 && x.batch * x.heads * x.tokens() < (i64{1} << 30) &&
         x.tokens() * x.channels() < (i64{1} << 30) && longest < 4096 &&
         tiles * longest * (width + 8) * 2 + 8 * 16 * (width + 8) * 2 + 4 * longest * 4 <=
             static_cast<i64>(cuda::device().sharedMemPerBlockOptin);
}

/// A template, so that its kernels are compiled where it is called, and not beside backward's.
template <class T>
void forward(Order order, const AttentionArgs<T>& in, T* y) {
  const AttentionShape& x = in.shape;
  const bf16* const v = in.v;
  const bool both = order == Order::both;
  const polyline_gpu::LineOrders orders = polyline_gpu::line_orders(in);
  detail::with_tile_width<16>(x.head_width, [&](auto width) {
    constexpr int D = decltype(width)::value;
    if constexpr (D <= 32)
      if (in.row_orders == nullptr && run_map<D>(order, in, y)) return;
    const i64 size = x.batch * x.tokens() * x.channels();
    const Workspace<bf16> t1(size, Device::cuda), t2(both ? size : 0, Device::cuda);
    if (both) {
      run_apply<D>(in, orders, true, {.x0 = v, .y0 = t1.data()});
      run_apply<D>(in, orders, false,
                   {.x0 = t1.data(), .x1 = v, .y0 = y, .y1 = t2.data(), .scale = 0.5f});
      run_apply<D>(in, orders, true, {.x0 = t2.data(), .plus = y, .y0 = y, .scale = 0.5f});
    } else {
      const bool rows = order == Order::rows_first;
      run_apply<D>(in, orders, rows, {.x0 = v, .y0 = t1.data()});
      run_apply<D>(in, orders, !rows, {.x0 = t1.data(), .y0 = y});
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
