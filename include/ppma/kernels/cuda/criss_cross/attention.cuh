#pragma once
#include "ppma/core/names_begin.hpp"
// criss_cross_attention() on the GPU. A thread owns a query (or a key) and walks along its line;
// neighbouring threads share the line, so that keys and values come from the L1 cache. No mask is
// stored, and no score. bf16 goes to the tensor cores (tensor.cuh) where lines fit.
//
//   PH = softmax along rows, PV = softmax along columns;   rows first: PV PH v,
//         columns first: PH PV v

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/criss_cross/tensor.cuh"
#include "ppma/kernels/cuda/decay_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_gpu {

using polyline_gpu::add_scaled;
using polyline_gpu::dot;
using polyline_gpu::exp_below;
using polyline_gpu::Sum;

inline constexpr int threads = 128;

// One way of cutting a grid into lines, whose positions are places or, where there is an order
// (count, length), visits.
struct Lines {
  int count, length, step, line_step;  // token = line * line_step + place * step
  const int* order;
  static Lines rows(const AttentionShape& x, const int* order) {
    return {static_cast<int>(x.height), static_cast<int>(x.width), 1, static_cast<int>(x.width),
            order};
  }
  static Lines columns(const AttentionShape& x, const int* order) {
    return {static_cast<int>(x.width), static_cast<int>(x.height), static_cast<int>(x.width), 1,
            order};
  }
};

// Where this thread's token is.
struct Place {
  i64 base, plane, channels;  // of the head in (B,N,C); in (B,G,N)
  int d, position, token, line_token;
  const int* order;  // of the line
  bool active;

  __device__ Place(const AttentionShape& x, const Lines& s) {
    const int tokens = s.count * s.length,
              n = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x),
              here = ::min(n, tokens - 1);
    const i64 head = blockIdx.y;
    active = n < tokens;
    channels = x.channels();
    d = static_cast<int>(x.head_width);
    base = head / x.heads * tokens * channels + head % x.heads * d;
    plane = head * tokens;
    position = here % s.length;
    line_token = here / s.length * s.line_step;
    order = s.order == nullptr ? nullptr : s.order + (here - position);
    token = other(s, position);
  }
  __device__ i64 at(int t) const { return base + t * channels; }
  __device__ int other(const Lines& s, int p) const {
    return line_token + (order == nullptr ? p : order[p]) * s.step;
  }
};

template <class A>
__device__ __forceinline__ A masked(A score, const Sum<A>* sums, Sum<A> own, i64 at) {
  return sums ? score - polyline_gpu::closing(polyline_gpu::distance(own, sums[at])) : score;
}

// y0 = scale0 P x0 (+ plus0), y1 = P x1, ln z. What is null is left out.
template <class T>
struct Apply {
  const T *x0 = nullptr, *x1 = nullptr;
  const acc_t<T>* plus0 = nullptr;
  T *y0 = nullptr, *y1 = nullptr;
  acc_t<T>*wide0 = nullptr, *log_sum = nullptr;  // wide0: y0 unrounded, instead
  acc_t<T> scale0 = 1;
};

template <class T, int D, bool two>
__global__ void __launch_bounds__(threads) apply(AttentionShape x, Lines s, const T* q, const T* k,
                                                 const Sum<acc_t<T>>* sums, Apply<T> to) {
  using A = acc_t<T>;
  const Place here(x, s);
  const A infinity = static_cast<A>(__int_as_float(0x7f800000));
  A query[D], out0[D] = {}, out1[two ? D : 1] = {};
  polyline_gpu::load_vector<D>(q + here.at(here.token), here.d, query);
  const Sum<A> own = sums ? sums[here.plane + here.token] : Sum<A>{};
  A m = polyline_gpu::lowest<A>, z = 0;
  constexpr int chunk = 4;
  for (int first = 0; first < s.length; first += chunk) {
    A score[chunk], most = m;
#pragma unroll
    for (int u = 0; u < chunk; ++u) {
      score[u] = -infinity;
      if (first + u < s.length) {
        const int t = here.other(s, first + u);
        A key[D];
        polyline_gpu::load_vector<D>(k + here.at(t), here.d, key);
        score[u] = masked(dot<D>(query, key), sums, own, here.plane + t);
      }
      most = ::max(most, score[u]);
    }
    const A factor = exp_below<T>(m - most);
    m = most, z *= factor;
#pragma unroll
    for (int c = 0; c < D; ++c) out0[c] *= factor;
    if constexpr (two) {
#pragma unroll
      for (int c = 0; c < D; ++c) out1[c] *= factor;
    }
#pragma unroll
    for (int u = 0; u < chunk; ++u) {
      if (first + u >= s.length) continue;
      const int t = here.other(s, first + u);
      const A p = exp_below<T>(score[u] - m);
      z += p;
      A value[D];
      polyline_gpu::load_vector<D>(to.x0 + here.at(t), here.d, value);
      add_scaled<D>(out0, p, value);
      if constexpr (two) {
        polyline_gpu::load_vector<D>(to.x1 + here.at(t), here.d, value);
        add_scaled<D>(out1, p, value);
      }
    }
  }
  if (!here.active) return;
  const A f0 = to.scale0 / z;
#pragma unroll
  for (int c = 0; c < D; ++c) out0[c] *= f0;
  if (to.plus0) {
    A plus[D];
    polyline_gpu::load_vector<D>(to.plus0 + here.at(here.token), here.d, plus);
    add_scaled<D>(out0, A(1), plus);
  }
  if (to.wide0)
    polyline_gpu::store_vector<D>(to.wide0 + here.at(here.token), here.d, out0);
  else
    polyline_gpu::store_vector<D>(to.y0 + here.at(here.token), here.d, out0);
  if constexpr (two) {
#pragma unroll
    for (int c = 0; c < D; ++c) out1[c] /= z;
    polyline_gpu::store_vector<D>(to.y1 + here.at(here.token), here.d, out1);
  }
  if (to.log_sum) to.log_sum[here.plane + here.token] = m + ::log(z);
}

// What both passes of the host share: the sums, the grid of threads, the directions.
template <class T>
struct Call {
  using A = acc_t<T>;
  const AttentionShape& x;
  polyline_gpu::LineOrders orders;
  Lines rows, columns;
  bool with_mask;
  Workspace<Sum<A>> a, b;
  dim3 grid;

  explicit Call(const AttentionArgs<T>& in)
      : x(in.shape),
        orders(polyline_gpu::line_orders(in)),
        rows(Lines::rows(x, orders.rows)),
        columns(Lines::columns(x, orders.columns)),
        with_mask(in.masked()),
        a(with_mask ? all() : 0, Device::cuda),
        b(with_mask ? all() : 0, Device::cuda),
        grid(static_cast<unsigned>((x.tokens() + threads - 1) / threads),
             static_cast<unsigned>(x.batch * x.heads)) {
    check(x.tokens() < (i64{1} << 30) && x.batch * x.heads < 65536, "criss_cross_attention: batch ",
          x.batch, " times heads ", x.heads,
          " is too large for one launch (65535); use a smaller batch");
    if (with_mask)
      polyline_gpu::run_decay_sums(x, in.log_alpha, in.log_beta, a.data(), b.data(), orders);
  }
  i64 all() const { return x.batch * x.heads * x.tokens(); }
  const Sum<A>* sums(bool along_rows) const {
    return !with_mask ? nullptr : along_rows ? a.data() : b.data();
  }

  template <int D>
  void run_apply(bool along_rows, const T* q, const T* k, const Apply<T>& to) const {
    if (to.x1)
      apply<T, D, true><<<grid, threads, 0, cuda::stream()>>>(x, along_rows ? rows : columns, q, k,
                                                              sums(along_rows), to);
    else
      apply<T, D, false><<<grid, threads, 0, cuda::stream()>>>(x, along_rows ? rows : columns, q, k,
                                                               sums(along_rows), to);
    cuda::launched("criss_cross_attention");
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::cross_gpu

namespace ppma::inline PPMA_ABI::kernels {

template <class T>
void criss_cross_attention(Cuda, Order order, const AttentionArgs<T>& in, T* y) {
  using A = acc_t<T>;
  const AttentionShape& x = in.shape;
  const T *const q = in.q, *const k = in.k, *const v = in.v;
  if constexpr (std::is_same_v<T, bf16>)
    if (cross_tensor::takes_tensor(x, 4)) return cross_tensor::forward(order, in, y);
  const cross_gpu::Call<T> call(in);
  const bool both = order == Order::both;
  const i64 size = x.batch * x.tokens() * x.channels();
  const Workspace<T> t1(size, Device::cuda), t2(both ? size : 0, Device::cuda);
  const Workspace<A> half(both ? size : 0, Device::cuda);
  polyline_gpu::with_head_width(x.head_width, "criss_cross_attention", [&](auto width) {
    constexpr int D = decltype(width)::value;
    using To = cross_gpu::Apply<T>;
    if (order == Order::columns_first) {
      call.template run_apply<D>(false, q, k, To{.x0 = v, .y0 = t1.data()});  // PV v
      call.template run_apply<D>(true, q, k, To{.x0 = t1.data(), .y0 = y});   // PH PV v
    } else if (order == Order::rows_first) {
      call.template run_apply<D>(true, q, k, To{.x0 = v, .y0 = t1.data()});   // PH v
      call.template run_apply<D>(false, q, k, To{.x0 = t1.data(), .y0 = y});  // PV PH v
    } else {
      call.template run_apply<D>(true, q, k, To{.x0 = v, .y0 = t1.data()});  // PH v
      call.template run_apply<D>(
          false, q, k,
          To{.x0 = t1.data(), .x1 = v, .y1 = t2.data(), .wide0 = half.data(), .scale0 = A(0.5)});
      call.template run_apply<D>(
          true, q, k, To{.x0 = t2.data(), .plus0 = half.data(), .y0 = y, .scale0 = A(0.5)});
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
