#pragma once
// Criss-cross attention in bf16 on the tensor cores (criss_cross_lines.cuh). Order::both is three passes:
//
//   rows: T1 = PH v      columns: [O1, T2] = PV [T1, v]      rows: y = (O1 + PH T2) / 2
//
// in one launch where there are many images (apply_both), else in three.
//
// Floor, 56 x 56 tokens of 64 channels, batch 128: the three passes move 15 times 51 MB, 0.26 ms from an H100's memory; q, k, v
// and y alone would be 0.07. Measured there: 0.31 ms, in three launches 0.34.

#include "ppma/core/buffer.hpp"
#include "ppma/polyline/criss_cross_lines.cuh"
#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// y0 = scale P x0 (+ plus), y1 = P x1.
struct Apply {
  const bf16 *x0 = nullptr, *x1 = nullptr, *plus = nullptr;
  bf16 *y0 = nullptr, *y1 = nullptr;
  float scale = 1;
};

inline constexpr int apply_threads = 128;

/// One line. ready() returns when x0 and plus can be read.
template <int D, int NT, bool two, class Ready>
__device__ __forceinline__ void apply_line(const Lines& s, const Spot& here, bf16* queries, const bf16* q, const bf16* k, const float* log_decay, const Apply& to,
                                           const Ready& ready) {
  const int stride = s.stride<D, NT>(), padded = s.rows<NT>(), tile = padded * stride, lane = lane_index();
  bf16 *const keys = queries + tile, *const x1 = keys + tile, *const x0 = x1 + (two ? tile : 0);
  float* const sums = reinterpret_cast<float*>(x0 + tile);
  if constexpr (two) fetch<D, NT>(queries, s, here, {q, k, to.x1});
  else fetch<D, NT>(queries, s, here, {q, k});
  sum_decays<NT>(sums, log_decay, s, here);
  ready();
  fetch<D, NT>(x0, s, here, {to.x0});
  detail::copies_issued();
  ask_for<D>(to.plus, s, here);
  detail::copies_done<0>();
  __syncthreads();
  const int chunks = NT == 8 ? padded / 64 : 1;
  const int head = warp_index() % s.group;
  if (head >= here.heads) return;
  const float* const c = sums + head * padded;
  each_row(s, [&](int row0) {
    const Two own{c[row0 + lane / 4], c[row0 + lane / 4 + 8]};
    unsigned query[D / 16][4];
    bf16* const mine = queries + row0 * stride + head * D;  // no other warp's: the results' place in the end
    load_left<D>(query, mine, stride);
    float out0[D / 8][4] = {}, out1[two ? D / 8 : 1][4] = {};
    float z[4] = {};
    Two most{-INFINITY, -INFINITY};
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int from = chunk * 64 * stride + head * D;
      float t[NT][4];
      masked_scores<D, NT>(t, query, keys + from, stride, own, c + chunk * 64);
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
    write_rows<D>(mine, stride, out0, {f.upper * to.scale, f.lower * to.scale}, s, here, head, row0, to.plus, to.y0);
    if constexpr (two) write_rows<D>(mine, stride, out1, f, s, here, head, row0, nullptr, to.y1);
  });
}

template <int D, int NT, bool two>
__global__ void __launch_bounds__(apply_threads) apply(Lines s, const bf16* q, const bf16* k, const float* log_decay, Apply to) {
  extern __shared__ __align__(16) unsigned char memory[];
  apply_line<D, NT, two>(s, Spot(s), reinterpret_cast<bf16*>(memory), q, k, log_decay, to, [] {});
}

/// All three passes in one launch, a few images behind each other, so that what one pass leaves is in the L2 cache when the
/// next reads it. Blocks take tickets, and a ticket waits only for those before it: in no order can blocks lock each other up.
struct Flow {
  int images, at_once;  // images of a step: while the first pass works on a step's, the second has those of the step before
  unsigned *ticket, *rows_done, *columns_done;  // the next one; lines that are done of every image. All begin with 0
};
__device__ __forceinline__ void wait_for(const unsigned* done, int lines) {
  if (threadIdx.x == 0) {
    unsigned now = 0;
    while (true) {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(done) : "memory");
      if (now >= static_cast<unsigned>(lines)) break;
      __nanosleep(64);
    }
  }
  __syncthreads();
}
__device__ __forceinline__ void line_done(unsigned* done) {
  __syncthreads();
  if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(done) : "memory");
}

template <int D, int NT>
__global__ void __launch_bounds__(apply_threads) apply_both(Lines rows, Lines columns, Flow flow, const bf16* q, const bf16* k, const bf16* v, const float* log_alpha,
                                                            const float* log_beta, bf16* t1, bf16* t2, bf16* y) {
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ int taken;
  bf16* const tiles = reinterpret_cast<bf16*>(memory);
  if (threadIdx.x == 0) taken = static_cast<int>(atomicAdd(flow.ticket, 1u));
  __syncthreads();
  const int of_rows = rows.count * rows.groups, of_columns = columns.count * columns.groups, of_step = flow.at_once * (2 * of_rows + of_columns);
  const int step = taken / of_step, task = taken - step * of_step, first = flow.at_once * of_rows, second = first + flow.at_once * of_columns;
  const int pass = task < first ? 0 : task < second ? 1 : 2, at = task - (pass == 0 ? 0 : pass == 1 ? first : second);
  const int lines = pass == 1 ? of_columns : of_rows, image = (step - pass) * flow.at_once + at / lines, line = at % lines;
  if (image < 0 || image >= flow.images) return;
  if (pass == 1) {
    const Spot here(columns, image, line / columns.groups, line % columns.groups);
    apply_line<D, NT, true>(columns, here, tiles, q, k, log_beta, {.x0 = t1, .x1 = v, .y0 = y, .y1 = t2, .scale = 0.5f}, [&] { wait_for(flow.rows_done + image, of_rows); });
    line_done(flow.columns_done + image);
  } else {
    const Spot here(rows, image, line / rows.groups, line % rows.groups);
    const Apply to = pass == 0 ? Apply{.x0 = v, .y0 = t1} : Apply{.x0 = t2, .plus = y, .y0 = y, .scale = 0.5f};
    apply_line<D, NT, false>(rows, here, tiles, q, k, log_alpha, to, [&] {
      if (pass == 2) wait_for(flow.columns_done + image, of_columns);
    });
    if (pass == 0) line_done(flow.rows_done + image);
  }
}

template <int D>
void run_apply(const AttentionShape& x, bool along_rows, const bf16* q, const bf16* k, const float* log_decay, const Apply& to) {
  with_length(along_rows ? x.width : x.height, [&](auto length) {
    constexpr int NT = decltype(length)::value;
    const auto run = [&](auto kernel, int tiles) {
      const Lines s = lines<D, NT>(x, along_rows, apply_threads / 32, tiles, 0, 1);
      const int bytes = shared_bytes<D, NT>(s, tiles, 0, 1);
      if (bytes > 48 * 1024) detail::allow_shared(kernel, bytes, "criss_cross_attention");
      const dim3 blocks(static_cast<unsigned>(x.batch * s.count), static_cast<unsigned>(s.groups));
      kernel<<<blocks, apply_threads, static_cast<std::size_t>(bytes), cuda::stream()>>>(s, q, k, log_decay, to);
    };
    if (to.x1) run(apply<D, NT, true>, 4);
    else run(apply<D, NT, false>, 3);
  });
  cuda::launched("criss_cross_attention");
}

/// False where there are too few images for the passes to work side by side.
template <int D>
bool run_both(const AttentionShape& x, const bf16* q, const bf16* k, const bf16* v, const float* log_alpha, const float* log_beta, bf16* t1, bf16* t2, bf16* y) {
  bool done = false;
  with_length(std::max(x.width, x.height), [&](auto length) {
    constexpr int NT = decltype(length)::value, tiles = 4;
    const Lines rows = lines<D, NT>(x, true, apply_threads / 32, tiles, 0, 1), columns = lines<D, NT>(x, false, apply_threads / 32, tiles, 0, 1);
    const int bytes = std::max(shared_bytes<D, NT>(rows, tiles, 0, 1), shared_bytes<D, NT>(columns, tiles, 0, 1));
    const int images = static_cast<int>(x.batch), of_image = 2 * rows.count * rows.groups + columns.count * columns.groups;
    const int resident = cuda::device().multiProcessorCount * (static_cast<int>(cuda::device().sharedMemPerMultiprocessor) / (bytes + 1024));
    // With fewer tickets a step, blocks would wait for those of the step before; with more, L2 would have to hold more (measured on an H100).
    const int at_once = std::max(1, resident * 3 / 4 / of_image), steps = (images + at_once - 1) / at_once;
    if (steps < 4) return;
    if (bytes > 48 * 1024) detail::allow_shared(apply_both<D, NT>, bytes, "criss_cross_attention");
    const Workspace<unsigned> counters(1 + 2 * x.batch, Device::cuda);
    cuda::require(cudaMemsetAsync(counters.data(), 0, sizeof(unsigned) * static_cast<std::size_t>(1 + 2 * x.batch), cuda::stream()), "criss_cross_attention");
    const Flow flow{images, at_once, counters.data(), counters.data() + 1, counters.data() + 1 + x.batch};
    const unsigned blocks = static_cast<unsigned>((steps + 2) * at_once * of_image);
    apply_both<D, NT><<<blocks, apply_threads, static_cast<std::size_t>(bytes), cuda::stream()>>>(rows, columns, flow, q, k, v, log_alpha, log_beta, t1, t2, y);
    cuda::launched("criss_cross_attention");
    done = true;
  });
  return done;
}

/// Whether lines of this shape fit: heads of 64 channels at most, and `tiles` tiles of a line in shared memory.
inline bool takes_tensor(const AttentionShape& x, int tiles) {
  const i64 longest = (std::max(x.height, x.width) + 63) / 64 * 64, width = x.head_width <= 16 ? 16 : x.head_width <= 32 ? 32 : 64;
  return x.head_width <= 64 && x.batch * x.heads * x.tokens() < (i64{1} << 30) && x.tokens() * x.channels() < (i64{1} << 30) &&
         longest < 4096 && tiles * longest * (width + 8) * 2 + 8 * 16 * (width + 8) * 2 + 4 * longest * 4 <= static_cast<i64>(cuda::device().sharedMemPerBlockOptin);
}

inline void forward(const AttentionShape& x, Order order, const bf16* q, const bf16* k, const bf16* v, const float* log_alpha,
                    const float* log_beta, bf16* y) {
  const bool both = order == Order::both;
  const i64 size = x.batch * x.tokens() * x.channels();
  const Workspace<bf16> t1(size, Device::cuda), t2(both ? size : 0, Device::cuda);
  with_head(x.head_width, [&](auto width) {
    constexpr int D = decltype(width)::value;
    if (both) {
      if (run_both<D>(x, q, k, v, log_alpha, log_beta, t1.data(), t2.data(), y)) return;
      run_apply<D>(x, true, q, k, log_alpha, {.x0 = v, .y0 = t1.data()});
      run_apply<D>(x, false, q, k, log_beta, {.x0 = t1.data(), .x1 = v, .y0 = y, .y1 = t2.data(), .scale = 0.5f});
      run_apply<D>(x, true, q, k, log_alpha, {.x0 = t2.data(), .plus = y, .y0 = y, .scale = 0.5f});
    } else {
      const bool rows = order == Order::rows_first;
      run_apply<D>(x, rows, q, k, rows ? log_alpha : log_beta, {.x0 = v, .y0 = t1.data()});
      run_apply<D>(x, !rows, q, k, rows ? log_beta : log_alpha, {.x0 = t1.data(), .y0 = y});
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor
