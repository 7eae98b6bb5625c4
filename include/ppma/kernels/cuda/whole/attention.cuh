#pragma once
#include "ppma/core/names_begin.hpp"
// whole_attention() on the GPU in float and double, without any N x N array (bf16: tensor.cuh,
// and here where that does not suit the shape, in float): a thread owns a query (or, for the
// gradients of keys, a key), and tiles of keys pass through shared memory. Mask and softmax as in
// kernels/cpu/whole/attention.hpp:
//
//   s1 = q.k - |a[i,j] - a[i,l]| - |b[i,l] - b[k,l]|       V2H: column of the key, row of the query
//   s2 = q.k - |a[k,j] - a[k,l]| - |b[i,j] - b[k,j]|       H2V: row of the key, column of the query
//
// Keys come column by column (l outside, k inside), so that what depends on (i, l) changes once a
// column and what depends on (k, j) is read by neighbouring threads next to each other.
//
// Floor, forward: 3 d multiply-adds and two exponentials a score; on the CUDA cores here, in float.

#include <concepts>

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/decay_sums.cuh"
#include "ppma/kernels/cuda/in_float.cuh"
#include "ppma/kernels/cuda/whole/tensor_call.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_gpu {

using polyline_gpu::add_scaled;
using polyline_gpu::closing;
using polyline_gpu::distance;
using polyline_gpu::dot;
using polyline_gpu::lowest;
using polyline_gpu::Sum;

inline constexpr int threads = 128, chunk = 8;
// Blocks of forward on a multiprocessor, at least: three heads of 32 in f32 need 168 registers a
// thread, where left alone they take more.
template <class A, int D>
inline constexpr int blocks_of = sizeof(A) * D == 128 ? 3 : 1;
// keys; two tiles fit in 48 KiB
template <class A, int D>
inline constexpr int tile_of = sizeof(A) * D < 1024 ? 32 : 16;

// What each softmax counts. V2H or H2V alone weighs the other with 0: ablations may cost double.
template <class A>
constexpr A share1(Paths p) {
  return p == Paths::both ? A(0.5) : p == Paths::h2v ? A(0) : A(1);
}
template <class A>
constexpr A share2(Paths p) {
  return p == Paths::both ? A(0.5) : p == Paths::h2v ? A(1) : A(0);
}

/// What is taken from the scores: nothing; both polylines, of which a and b are the running sums;
/// or two sequences, which a and b are sums of.
enum class Masks { none, polylines, sequences };

/// Which token a thread owns, and of which head: in a grid of (blocks of a head, heads).
struct Owned {
  int h, w, tokens, d;
  i64 head, channels;
  i64 base, plane;    // where the head begins in (B,H,W,C), and in what has a value a token
  int n, here, i, j;  // n may be behind the last token, `here` in (i,j) is not

  __device__ __forceinline__ explicit Owned(const AttentionShape& x)
      : h(static_cast<int>(x.height)),
        w(static_cast<int>(x.width)),
        tokens(h * w),
        d(static_cast<int>(x.head_width)),
        head(blockIdx.y),
        channels(x.channels()),
        base(head / x.heads * tokens * channels + head % x.heads * d),
        plane(head * tokens),
        n(static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x)),
        here(::min(n, tokens - 1)),
        i(here / w),
        j(here % w) {}
};

template <class T, int D, Masks masks>
__global__ void __launch_bounds__(threads, blocks_of<acc_t<T>, D>)
    forward(AttentionShape x, const T* q, const T* k, const T* v, const Sum<acc_t<T>>* a,
            const Sum<acc_t<T>>* b, acc_t<T> share1, acc_t<T> share2, T* y) {
  using A = acc_t<T>;
  constexpr bool masked = masks != Masks::none, lines = masks == Masks::polylines;
  constexpr int tile = tile_of<A, D>;
  __shared__ A ks[tile][D], vs[tile][D];
  __shared__ Sum<A> as[tile], bs[tile];
  const auto [h, w, tokens, d, head, channels, base, plane, n, here, i, j] = Owned(x);
  const A infinity = static_cast<A>(__int_as_float(0x7f800000));

  A query[D], sum1[D] = {}, sum2[masked ? D : 1] = {};
  polyline_gpu::load_vector<D>(q + base + here * channels, d, query);
  A m1 = lowest<A>, m2 = lowest<A>, z1 = 0, z2 = 0;
  [[maybe_unused]] Sum<A> aij{}, bij{}, bil{};
  [[maybe_unused]] A along = 0;  // |a[i,j] - a[i,l]|: the same for the keys of a column
  if constexpr (masked) aij = a[plane + here], bij = b[plane + here];
  if constexpr (lines) along = distance(aij, a[plane + i * w]), bil = b[plane + i * w];

  int row = 0, column = 0;  // of the key
  for (int first = 0; first < tokens; first += tile) {
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < tile * D; e += threads) {
      const int m = first + e / D, c = e % D, token = m % h * w + m / h;
      const bool there = m < tokens && c < d;
      ks[e / D][c] = there ? A(k[base + token * channels + c]) : A(0);
      vs[e / D][c] = there ? A(v[base + token * channels + c]) : A(0);
      if (masked && c == 0 && m < tokens)
        as[e / D] = a[plane + token], bs[e / D] = b[plane + token];
    }
    __syncthreads();
    for (int at = 0; at < tile && first + at < tokens; at += chunk) {
      A s1[chunk], s2[chunk];
      A most1 = m1, most2 = m2;
#pragma unroll
      for (int u = 0; u < chunk; ++u) {
        s1[u] = s2[u] = -infinity;
        if (first + at + u < tokens) {
          const A score = dot<D>(query, ks[at + u]);
          if constexpr (lines) {
            const Sum<A> akj = a[plane + row * w + j], bkj = b[plane + row * w + j];
            s1[u] = score - closing(along + distance(bil, bs[at + u]));
            s2[u] = score - closing(distance(akj, as[at + u]) + distance(bij, bkj));
            if (++row == h) {
              row = 0, ++column;
              if (column < w)
                along = distance(aij, a[plane + i * w + column]), bil = b[plane + i * w + column];
            }
          } else if constexpr (masked) {
            s1[u] = score - closing(distance(aij, as[at + u]));
            s2[u] = score - closing(distance(bij, bs[at + u]));
          } else {
            s1[u] = score;
          }
        }
        most1 = ::max(most1, s1[u]);
        if (masked) most2 = ::max(most2, s2[u]);
      }
      {
        const A factor = ::exp(m1 - most1);
        m1 = most1, z1 *= factor;
#pragma unroll
        for (int c = 0; c < D; ++c) sum1[c] *= factor;
      }
      if constexpr (masked) {
        const A factor = ::exp(m2 - most2);
        m2 = most2, z2 *= factor;
#pragma unroll
        for (int c = 0; c < D; ++c) sum2[c] *= factor;
      }
#pragma unroll
      for (int u = 0; u < chunk; ++u) {
        {
          const A p = ::exp(s1[u] - m1);
          z1 += p;
          add_scaled<D>(sum1, p, vs[at + u]);
        }
        if constexpr (masked) {
          const A p = ::exp(s2[u] - m2);
          z2 += p;
          add_scaled<D>(sum2, p, vs[at + u]);
        }
      }
    }
  }
  const A f1 = share1 / z1, f2 = masked ? share2 / z2 : A(0);
#pragma unroll
  for (int c = 0; c < D; ++c) query[c] = f1 * sum1[c] + (masked ? f2 * sum2[masked ? c : 0] : A(0));
  if (n < tokens) polyline_gpu::store_vector<D>(y + base + here * channels, d, query);
}

inline void check_launch(const char* op, const AttentionShape& x) {
  check(x.tokens() < (i64{1} << 30) && x.batch * x.heads < 65536, op, ": batch ", x.batch,
        " times heads ", x.heads, " is too large for one launch (65535); use a smaller batch");
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_gpu

namespace ppma::inline PPMA_ABI::kernels {

/// Whether forward leaves y1 (the average of the first softmax) and the log sums for backward.
template <class T>
bool whole_attention_saves(Cuda, Paths, const AttentionShape& x) {
  return std::is_same_v<T, bf16> && whole_tensor::Lines::suits(x);
}

template <class T>
void whole_attention(Cuda, Paths paths, const AttentionArgs<T>& in, T* y, T*, T*) {
  using A = T;
  const AttentionShape& x = in.shape;
  const i64 all = paths == Paths::none ? 0 : x.batch * x.heads * x.tokens();
  whole_gpu::check_launch("whole_attention", x);
  const Workspace<polyline_gpu::Sum<A>> a(all, Device::cuda), b(all, Device::cuda);
  if (all > 0) polyline_gpu::run_decay_sums(x, in.log_alpha, in.log_beta, a.data(), b.data());
  const dim3 grid(static_cast<unsigned>((x.tokens() + whole_gpu::threads - 1) / whole_gpu::threads),
                  static_cast<unsigned>(x.batch * x.heads));
  polyline_gpu::with_head_width(x.head_width, "whole_attention", [&](auto d) {
    const auto run = [&](auto masks) {
      whole_gpu::forward<T, decltype(d)::value, decltype(masks)::value>
          <<<grid, whole_gpu::threads, 0, cuda::stream()>>>(x, in.q, in.k, in.v, a.data(), b.data(),
                                                            whole_gpu::share1<A>(paths),
                                                            whole_gpu::share2<A>(paths), y);
    };
    if (paths == Paths::none)
      run(std::integral_constant<whole_gpu::Masks, whole_gpu::Masks::none>{});
    else
      run(std::integral_constant<whole_gpu::Masks, whole_gpu::Masks::polylines>{});
  });
  cuda::launched("whole_attention");
}

/// Whether whole_attention turns queries and keys.
inline bool turns_tokens(Paths paths, const AttentionShape& x) {
  return paths != Paths::none && whole_tensor::Lines::suits(x) && whole_tensor::Lines(x).small();
}

/// Whether whole_attention adds a local term: where a launch is what it saves. Of many heads it
/// would leave room for fewer blocks on a multiprocessor, and cost more than a kernel of its own;
/// of few heads with long lines, whose blocks are few, it takes longer than that kernel, too.
inline bool adds_local(Paths paths, const AttentionShape& x) {
  const i64 heads = x.batch * x.heads, processors = cuda::device().multiProcessorCount;
  return heads <= processors && turns_tokens(paths, x) &&
         (heads > processors / 8 || whole_tensor::Lines(x).length <= 8);
}

// A template, so that its kernels are compiled where it is called.
template <std::same_as<bf16> T>
void whole_attention(Cuda on, Paths paths, const AttentionArgs<T>& in, T* y, T* y1, float* log_sums,
                     const whole_tensor::LocalTerm& local = {},
                     const whole_tensor::Turn& turn = {}) {
  const AttentionShape& x = in.shape;
  whole_gpu::check_launch("whole_attention", x);
  const bool masked = paths != Paths::none;
  if (whole_tensor::Lines::suits(x)) {
    const whole_tensor::Call call(paths, x, in.log_alpha, in.log_beta);
    if (masked)
      whole_tensor::run_forward<true>(call, in.q, in.k, in.v, local, turn, y, y1, log_sums);
    else
      whole_tensor::run_forward<false>(call, in.q, in.k, in.v, local, turn, y, y1, log_sums);
    return;
  }
  polyline_gpu::in_float(on, in, y, [&](const AttentionArgs<float>& wide, float* wide_y) {
    whole_attention<float>(on, paths, wide, wide_y, nullptr, nullptr);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
