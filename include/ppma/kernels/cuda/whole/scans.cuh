#pragma once
#include "ppma/core/names_begin.hpp"
// Whole attention with the masks of two sequences on the GPU (kernels/cpu/whole/scans.hpp), by the
// kernels of the polylines' (tensor.cuh, attention.cuh) with another mask: an entry is
//
//   M_r[u,w] = -|c_r[u] - c_r[w]|,   c_r the running sums of the log decays in the order of r
//
// so that a cell has two sums (scan_sums.cuh), as with polylines, but no line does. Memory O(N):
// the sums, and backward what the sums get.
//
// Backward: dc_r[u] = sum of dS over the keys (or queries) that are visited before u, less those
// behind: which is which follows from the visits alone, also where a decay is 1. No crossings: what
// a thread owns is all that it adds to. Then sums from the end of each sequence.
//
// Floor, forward in bf16: as tensor.cuh, two exponentials a score, with as many additions; of every
// key 16 bytes beside 4 D of its vectors come from the L2 cache for each 64 queries. The sums: log
// decays are read once, 16 bytes a cell written.

#include <algorithm>

#include "ppma/kernels/cpu/convert.hpp"
#include "ppma/kernels/cuda/whole/attention_backward.cuh"
#include "ppma/kernels/cuda/whole/scan_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels::scans_gpu {

/// The mask of both sequences for the kernels of tensor.cuh.
struct Sequences {
  static constexpr bool masked = true;
  using Cell = float4;  // high and low of the first, high and low of the second
  const int2* visits;
  struct Gradients;

  __device__ __forceinline__ static bool any_closed(const whole_tensor::Flat& g,
                                                    const float4* plane) {
    bool any = false;
    for (int e = static_cast<int>(threadIdx.x); e < g.tokens; e += whole_tensor::threads)
      any |= ::fminf(plane[e].x, plane[e].z) <= -polyline_gpu::limit_bf16;
    return __syncthreads_or(any) != 0;
  }
  template <bool walls>
  __device__ __forceinline__ static void add(const float (&s)[4], int n,
                                             const whole_tensor::Owner<float4>& o,
                                             const float4* other, float (&first)[4],
                                             float (&second)[4]) {
    const float4* const key = other + 8 * n + static_cast<int>(threadIdx.x) % 4 * 2;
    const auto masked_by = [](float score, float between) {
      between = ::fabsf(between);
      return walls && between >= polyline_gpu::limit_bf16 ? negative_infinity<float>()
                                                          : score - between;
    };
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float4 u = o.sums[e / 2], w = key[e % 2];
      first[e] = masked_by(s[e], (w.x - u.x) + (w.y - u.y));
      second[e] = masked_by(s[e], (w.z - u.z) + (w.w - u.w));
    }
  }
};

/// What c of the owner gets, while others pass by.
struct Sequences::Gradients {
  float own[2][2] = {};  // by rows of the thread and sequences
  int2 here[2], there[2];

  __device__ __forceinline__ void begin(const Sequences& mask, const whole_tensor::Owner<float4>& o,
                                        int tile) {
#pragma unroll
    for (int r = 0; r < 2; ++r) here[r] = mask.visits[tile * whole_tensor::cells + o.cell[r]];
  }
  __device__ __forceinline__ void piece(const Sequences& mask, int t, int n) {
    const int c = t * whole_tensor::cells + 8 * n + static_cast<int>(threadIdx.x) % 4 * 2;
    const int4 two = *reinterpret_cast<const int4*>(mask.visits + c);
    there[0] = {two.x, two.y}, there[1] = {two.z, two.w};
  }
  __device__ __forceinline__ void add(int e, float ds_first, float ds_second) {
    const int2 mine = here[e / 2], other = there[e % 2];
    own[e / 2][0] += other.x < mine.x ? ds_first : other.x > mine.x ? -ds_first : 0.f;
    own[e / 2][1] += other.y < mine.y ? ds_second : other.y > mine.y ? -ds_second : 0.f;
  }
  __device__ __forceinline__ void finish(const whole_tensor::Flat& g,
                                         const whole_tensor::Owner<float4>& o, int tile,
                                         float2* dsums) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int step = 1; step < 4; step *= 2)
#pragma unroll
        for (int s = 0; s < 2; ++s) own[r][s] += __shfl_xor_sync(0xffffffffu, own[r][s], step);
      const int token = g.token(tile, o.cell[r]);
      if (threadIdx.x % 4 == 0 && token >= 0) dsums[token] = {own[r][0], own[r][1]};
    }
  }
};

/// What both passes in bf16 share. Both softmaxes count half.
struct Tensor {
  whole_tensor::Flat g;
  Orders orders;
  i64 heads, padded;
  Workspace<float4> sums;
  dim3 grid;

  Tensor(const AttentionArgs<bf16>& in, const i64* visits)
      : g(in.shape),
        orders(visits, in.shape.tokens()),
        heads(in.shape.batch * in.shape.heads),
        padded(i64{g.tiles()} * whole_tensor::cells),
        sums(heads * padded, Device::cuda),
        grid(static_cast<unsigned>(g.tiles()), static_cast<unsigned>(heads)) {
    run_sums(in.shape, in.log_alpha, in.log_beta, orders, padded, polyline_gpu::limit_bf16,
             Places{2 * padded, 1, 2}, reinterpret_cast<Sum<float>*>(sums.data()));
  }

  void forward(const AttentionArgs<bf16>& in, bf16* y, bf16* y1, float* log_sums) const {
    whole_tensor::with_head(g, [&](auto d) {
      whole_tensor::forward<decltype(d)::value, Sequences>
          <<<grid, whole_tensor::threads, 0, cuda::stream()>>>(g, in.q, in.k, in.v, sums.data(),
                                                               0.5f, 0.5f, y, y1,
                                                               reinterpret_cast<float2*>(log_sums));
    });
    cuda::launched("sequence_attention");
  }
  void backward(const AttentionArgs<bf16>& in, const WholeKept<bf16>& kept, const bf16* dy,
                const AttentionGradients<bf16>& to) const {
    const i64 cells = heads * padded, tokens = heads * g.tokens;
    const Workspace<float4> stats(cells, Device::cuda);
    const Workspace<float2> dsums(2 * tokens, Device::cuda);
    whole_tensor::query_sums<<<cuda::blocks(cells, 128), 128, 0, cuda::stream()>>>(
        g, heads, kept.y, kept.y1, dy, reinterpret_cast<const float2*>(kept.log_sums), 0.5f, 0.5f,
        stats.data());
    whole_tensor::with_head(g, [&](auto d) {
      constexpr int D = decltype(d)::value;
      const Sequences mask{orders.visits};
      whole_tensor::backward<D, Sequences, false>
          <<<grid, whole_tensor::threads, 0, cuda::stream()>>>(g, mask, in.q, in.k, in.v, dy,
                                                               sums.data(), stats.data(), to.dq,
                                                               nullptr, dsums.data());
      whole_tensor::backward<D, Sequences, true>
          <<<grid, whole_tensor::threads, 0, cuda::stream()>>>(g, mask, in.q, in.k, in.v, dy,
                                                               sums.data(), stats.data(), to.dk,
                                                               to.dv, dsums.data() + tokens);
    });
    cuda::launched("sequence_attention");
    run_gradients(in.shape, in.log_alpha, in.log_beta, orders, polyline_gpu::limit_bf16,
                  Places{2 * g.tokens, 1, 2}, reinterpret_cast<const float*>(dsums.data()),
                  reinterpret_cast<const float*>(dsums.data() + tokens), to.dlog_alpha,
                  to.dlog_beta);
  }
};

/// The same in float and double.
template <class A>
struct Wide {
  Orders orders;
  i64 all;
  Places places;
  Workspace<Sum<A>> sums;  // of the first sequence, then of the second
  dim3 grid;

  Wide(const AttentionArgs<A>& in, const i64* visits)
      : orders(visits, in.shape.tokens()),
        all(in.shape.batch * in.shape.heads * in.shape.tokens()),
        places{in.shape.tokens(), all, 1},
        sums(2 * all, Device::cuda),
        grid(static_cast<unsigned>((in.shape.tokens() + whole_gpu::threads - 1) /
                                   whole_gpu::threads),
             static_cast<unsigned>(in.shape.batch * in.shape.heads)) {
    run_sums(in.shape, in.log_alpha, in.log_beta, orders, in.shape.tokens(),
             polyline_gpu::limit_wide, places, sums.data());
  }

  void forward(const AttentionArgs<A>& in, A* y) const {
    polyline_gpu::with_head_width(in.shape.head_width, "sequence_attention", [&](auto d) {
      whole_gpu::forward<A, decltype(d)::value, whole_gpu::Masks::sequences>
          <<<grid, whole_gpu::threads, 0, cuda::stream()>>>(in.shape, in.q, in.k, in.v, sums.data(),
                                                            sums.data() + all, A(0.5), A(0.5), y);
    });
    cuda::launched("sequence_attention");
  }
  void backward(const AttentionArgs<A>& in, const A* dy, const AttentionGradients<A>& to) const {
    const Workspace<A> rows(8 * all, Device::cuda);
    A* const r = rows.data();
    // own_a and own_b one behind the other
    const whole_gpu::Saved<A> of_queries{r,           r + all,     r + 2 * all, r + 3 * all,
                                         r + 4 * all, r + 5 * all, nullptr,     nullptr};
    const whole_gpu::Saved<A> of_keys{nullptr,     nullptr,     nullptr, nullptr,
                                      r + 6 * all, r + 7 * all, nullptr, nullptr};
    polyline_gpu::with_head_width(in.shape.head_width, "sequence_attention", [&](auto d) {
      constexpr int D = decltype(d)::value;
      constexpr whole_gpu::Masks masks = whole_gpu::Masks::sequences;
      const Sum<A>*const a = sums.data(), *const b = a + all;
      whole_gpu::backward_queries<A, D, masks><<<grid, whole_gpu::threads, 0, cuda::stream()>>>(
          in.shape, in.q, in.k, in.v, a, b, dy, A(0.5), A(0.5), to.dq, of_queries, orders.visits);
      whole_gpu::backward_keys<A, D, masks><<<grid, whole_gpu::threads, 0, cuda::stream()>>>(
          in.shape, in.q, in.k, in.v, a, b, dy, A(0.5), A(0.5), to.dk, to.dv, of_queries, of_keys,
          orders.visits);
    });
    cuda::launched("sequence_attention");
    run_gradients(in.shape, in.log_alpha, in.log_beta, orders, polyline_gpu::limit_wide, places,
                  static_cast<const A*>(of_queries.own_a), static_cast<const A*>(of_keys.own_a),
                  to.dlog_alpha, to.dlog_beta);
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::scans_gpu

namespace ppma::inline PPMA_ABI::kernels {

/// As whole_attention_saves().
template <class T>
bool scan_attention_saves(Cuda, const AttentionShape& x) {
  return std::is_same_v<T, bf16> && whole_tensor::Lines::suits(x);
}

template <class T>
void scan_attention(Cuda on, const AttentionArgs<T>& in, const i64* orders, T* y, T* y1,
                    acc_t<T>* log_sums) {
  whole_gpu::check_launch("sequence_attention", in.shape);
  if constexpr (!std::is_same_v<T, bf16>) {
    scans_gpu::Wide<T>(in, orders).forward(in, y);
  } else if (scan_attention_saves<T>(on, in.shape)) {
    scans_gpu::Tensor(in, orders).forward(in, y, y1, log_sums);
  } else {
    polyline_gpu::in_float(on, in, y, [&](const AttentionArgs<float>& wide, float* wide_y) {
      scans_gpu::Wide<float>(wide, orders).forward(wide, wide_y);
    });
  }
}

template <class T>
void scan_attention_backward(Cuda on, const AttentionArgs<T>& in, const i64* orders,
                             const WholeKept<T>& kept, const T* dy,
                             const AttentionGradients<T>& to) {
  if constexpr (!std::is_same_v<T, bf16>) {
    scans_gpu::Wide<T>(in, orders).backward(in, dy, to);
  } else if (scan_attention_saves<T>(on, in.shape)) {
    scans_gpu::Tensor(in, orders).backward(in, kept, dy, to);
  } else {
    polyline_gpu::in_float(on, in, dy, to,
                           [&](const AttentionArgs<float>& wide, const float* wide_dy,
                               const AttentionGradients<float>& wide_to) {
                             scans_gpu::Wide<float>(wide, orders).backward(wide, wide_dy, wide_to);
                           });
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
