#pragma once
#include "ppma/core/names_begin.hpp"
// The CPU kernel of whole_attention(): polyline path masked attention (PPMVA) in one pass,
// forward and backward; no N x N array is ever made.
//
//   Y = ( 1/2 rowsoftmax(S + M) + 1/2 rowsoftmax(S + M^T) ) V,   S = Q K^T,   M = log L
//         (algorithm 2.1: variant `code`)
//
//   L [(i,j),(k,l)] = A(i; j,l) * B(l; i,k)
//         V2H: along the key's column, then along the query's row
//   Lt[(i,j),(k,l)] = A(k; j,l) * B(j; i,k)
//         H2V: along the key's row, then along the query's column
//   A(r; j,l) = exp(sum of log alpha over row r's edges between columns j and l),
//         B(c; i,k) likewise of log beta
//
// (i,j) is the query, (k,l) the key. The sums are made by walking away from j and from i, never as
// a difference of two running sums: behind a closed edge (-1e9, or -infinity) those have lost
// everything.
//
// How the mask becomes cheap. Both softmaxes share one exponential a score, e = exp(s - max s):
//   p1 = e * A(i; j,l) * B(l; i,k)        p2 = e * A(k; j,l) * B(j; i,k)
// and every factor is an entry of one of two small tables, shared by many queries:
//   column table  E_j[k,l] = A(k; j,l)    for the queries of column j      (N entries)
//   row table     F_i[k,l] = B(l; i,k)    for the queries of row i         (N entries)
//   p1 = e * E_j[i,l] * F_i[k,l]          p2 = e * E_j[k,l] * F_i[k,j]
// The work goes by blocks of up to twelve neighbouring columns; for each image row the block's
// queries are one small matrix product with all keys. Scratch: some dozens of rows of N numbers a
// thread, whatever H and W are.
//
// The raw maximum bounds e <= 1, but a row that the mask silences nearly everywhere may underflow:
// if a sum falls below `smallest_sum`, that query is done again with each path's own masked
// maximum.
//
// Tables and probabilities: probabilities.hpp; the gradients: backward.hpp.

#include <algorithm>
#include <type_traits>

#include "ppma/kernels/cpu/whole/backward.hpp"

namespace ppma::inline PPMA_ABI {

namespace kernels PPMA_WIDTH::whole {

template <class T, Paths paths>
void forward(const AttentionArgs<T>& in, T* y) {
  using H = Head<T, paths>;
  const AttentionShape x = in.shape;
  const i64 n = x.tokens(), d = x.head_width, channels = x.channels();
  const i64 block = H::block_width(x.width), blocks = (x.width + block - 1) / block;
  // A task is one block of columns of one head; neighbours share the head's copies.
  parallel_for(x.batch * x.heads * blocks, x.grain(n) * blocks, [&](i64 begin, i64 end) {
    H head(x);
    const ZeroedWorkspace<T> values(n * head.dp);
    i64 loaded = -1;
    for (i64 task = begin; task < end; ++task) {
      const i64 which = task / blocks;
      const AttentionArgs<T> here = in.head(which);
      T* const y_here = y + x.first_of(which);
      if (which != loaded) {
        head.load(here);
        copy_padded(n, d, here.v, channels, values.data());
        loaded = which;
      }
      const i64 j0 = task % blocks * block, count = std::min(block, x.width - j0);
      if (count <= 0) continue;
      head.fill_column_tables(j0, count);
      for (i64 i = 0; i < x.height; ++i) {
        head.fill_row_table(i);
        const i64 first = (i * x.width + j0) * channels;
        multiply_small(count, n, d, here.q + first, channels, i64{1}, head.kt.data(), head.ldk,
                       head.s.data(), head.lds, false);
        for (i64 c = 0; c < count; ++c) {
          T z1, z2;
          head.probabilities(i, j0, c, z1, z2);
          const T *const p1 = head.p1.data(), *const p2 = head.p2.data();
          T* const p = head.s.data() + c * head.lds;  // over the scores
          if constexpr (H::one && H::two) {
            const T c1 = T(0.5) / z1, c2 = T(0.5) / z2;
            for (i64 u = 0; u < n; u += lanes<T>)
              store(p + u, load(p1 + u) * c1 + load(p2 + u) * c2);
          } else {
            const T c1 = T(1) / z1;
            for (i64 u = 0; u < n; u += lanes<T>) store(p + u, load(p1 + u) * c1);
          }
          head.end_scores(c);
        }
        multiply_small(count, d, n, head.s.data(), head.lds, i64{1}, values.data(), head.dp,
                       y_here + first, channels, false);
      }
    }
  });
}

}  // namespace kernels PPMA_WIDTH::whole
}  // namespace ppma::inline PPMA_ABI

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// Calls f with the paths as a compile-time constant.
template <class F>
void visit_paths(Paths paths, F&& f) {
  switch (paths) {
    case Paths::none:
      return f(std::integral_constant<Paths, Paths::none>{});
    case Paths::v2h:
      return f(std::integral_constant<Paths, Paths::v2h>{});
    case Paths::h2v:
      return f(std::integral_constant<Paths, Paths::h2v>{});
    case Paths::both:
      return f(std::integral_constant<Paths, Paths::both>{});
  }
}

}  // namespace detail

/// Whether forward leaves anything for backward: y1 (B,H,W,C), the average of the first softmax,
/// and log_sums (B,G,H,W,2), the logs of both normalisers. The CPU computes them again.
template <class T>
bool whole_attention_saves(Cpu, Paths, const AttentionShape&) {
  return false;
}
template <class T>
void whole_attention(Cpu, Paths paths, const AttentionArgs<T>& in, T* y, T*, T*) {
  detail::visit_paths(paths, [&](auto p) { whole::forward<T, decltype(p)::value>(in, y); });
}
template <class T>
void whole_attention_backward(Cpu, Paths paths, const AttentionArgs<T>& in, const WholeKept<T>&,
                              const T* dy, const AttentionGradients<T>& d) {
  detail::visit_paths(paths, [&](auto p) { whole::backward<T, decltype(p)::value>(in, dy, d); });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/whole/attention.cuh"
#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_WHOLE_BACKWARD)
#include "ppma/kernels/cuda/whole/attention_backward.cuh"
#else  // its kernels take nvcc longer than all others here: a source of its own
namespace ppma::inline PPMA_ABI::kernels {
template <class T>
void whole_attention_backward(Cuda, Paths paths, const AttentionArgs<T>& in,
                              const WholeKept<T>& kept, const T* dy,
                              const AttentionGradients<T>& to);
}
#endif
#endif

#include "ppma/core/names_end.hpp"
