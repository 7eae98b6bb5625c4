#pragma once
#include "ppma/core/names_begin.hpp"
// criss_cross_attention() on the GPU in float and double (bf16: tensor.cuh, and here where that
// does not suit the shape, in float). A thread owns a query (or a key) and walks along its line;
// neighbouring threads share the line, so that keys and values come from the L1 cache. Of heads
// wider than 32 channels two or four neighbouring threads own a query, 32 channels each, and add up
// their parts of a score: one thread's registers would not hold them, and nvcc would take minutes
// for its unrolled loops. No mask is stored, and no score.
//
//   PH = softmax along rows, PV = softmax along columns;   rows first: PV PH v,
//         columns first: PH PV v

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/criss_cross/tensor.cuh"
#include "ppma/kernels/cuda/decay_sums.cuh"
#include "ppma/kernels/cuda/in_float.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_gpu {

using polyline_gpu::add_scaled;
using polyline_gpu::dot;
using polyline_gpu::load_vector;
using polyline_gpu::store_vector;
using polyline_gpu::Sum;

inline constexpr int threads = 128;

// Channels of a thread, of a head whose width with_head_width() rounds up to W; threads of a token.
template <int W>
inline constexpr int thread_width = W < 32 ? W : 32;
template <int D>
PPMA_HD int parts_of(int head_width) {
  return D < 32 || head_width <= 32 ? 1 : head_width <= 64 ? 2 : 4;
}

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

// Where this thread's token and its channels are.
template <class T, int D>
struct Place {
  i64 base, plane, channels;  // of the head in (B,N,C), at the thread's channels; in (B,G,N)
  int parts, d, position, token, line_token;
  const int* order;    // of the line
  bool active, first;  // first: of the token's threads

  __device__ Place(const AttentionShape& x, const Lines& s) {
    const int width = static_cast<int>(x.head_width), tokens = s.count * s.length;
    parts = parts_of<D>(width);
    const int thread = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x),
              n = thread / parts, from = thread % parts * D, here = ::min(n, tokens - 1);
    const i64 head = blockIdx.y;
    active = n < tokens, first = from == 0;
    channels = x.channels();
    // What D channels are is loaded in packs, if these are aligned.
    d = width % pack_width<T> == 0 ? ::min(width - from, D) : width - from;
    base = head / x.heads * tokens * channels + head % x.heads * width + from;
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
  /// The sum over the token's threads, the same in each.
  __device__ __forceinline__ T sum(T part) const {
    if constexpr (D == 32)
      for (int far = 1; far < parts; far *= 2) part += __shfl_xor_sync(~0u, part, far);
    return part;
  }
};

template <class T>
__device__ __forceinline__ T masked(T score, const Sum<T>* sums, Sum<T> own, i64 at) {
  return sums ? score - polyline_gpu::closing(polyline_gpu::distance(own, sums[at])) : score;
}

// y0 = scale0 P x0 (+ plus0, which may be y0), y1 = P x1, ln z. What is null is left out.
template <class T>
struct Apply {
  const T *x0 = nullptr, *x1 = nullptr, *plus0 = nullptr;
  T *y0 = nullptr, *y1 = nullptr, *log_sum = nullptr;
  T scale0 = 1;
};

template <class T, int D, bool two>
__global__ void __launch_bounds__(threads)
    apply(AttentionShape x, Lines s, const T* q, const T* k, const Sum<T>* sums, Apply<T> to) {
  const Place<T, D> here(x, s);
  T query[D], out0[D] = {}, out1[two ? D : 1] = {};
  load_vector<D>(q + here.at(here.token), here.d, query);
  const Sum<T> own = sums ? sums[here.plane + here.token] : Sum<T>{};
  T m = polyline_gpu::lowest<T>, z = 0;
  constexpr int chunk = 4;
  for (int first = 0; first < s.length; first += chunk) {
    T score[chunk], most = m;
#pragma unroll
    for (int u = 0; u < chunk; ++u) {
      score[u] = negative_infinity<T>();
      if (first + u < s.length) {
        const int t = here.other(s, first + u);
        T key[D];
        load_vector<D>(k + here.at(t), here.d, key);
        score[u] = masked(here.sum(dot<D>(query, key)), sums, own, here.plane + t);
      }
      most = ::max(most, score[u]);
    }
    const T factor = ::exp(m - most);
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
      const T p = ::exp(score[u] - m);
      z += p;
      T value[D];
      load_vector<D>(to.x0 + here.at(t), here.d, value);
      add_scaled<D>(out0, p, value);
      if constexpr (two) {
        load_vector<D>(to.x1 + here.at(t), here.d, value);
        add_scaled<D>(out1, p, value);
      }
    }
  }
  if (!here.active) return;
  const T f0 = to.scale0 / z;
#pragma unroll
  for (int c = 0; c < D; ++c) out0[c] *= f0;
  if (to.plus0) {
    T plus[D];
    load_vector<D>(to.plus0 + here.at(here.token), here.d, plus);
    add_scaled<D>(out0, T(1), plus);
  }
  store_vector<D>(to.y0 + here.at(here.token), here.d, out0);
  if constexpr (two) {
#pragma unroll
    for (int c = 0; c < D; ++c) out1[c] /= z;
    store_vector<D>(to.y1 + here.at(here.token), here.d, out1);
  }
  if (to.log_sum && here.first) to.log_sum[here.plane + here.token] = m + ::log(z);
}

// What both passes of the host share: the sums, the grid of threads, the directions.
template <class T>
struct Call {
  const AttentionShape& x;
  polyline_gpu::LineOrders orders;
  Lines rows, columns;
  bool with_mask;
  Workspace<Sum<T>> a, b;

  explicit Call(const AttentionArgs<T>& in)
      : x(in.shape),
        orders(polyline_gpu::line_orders(in)),
        rows(Lines::rows(x, orders.rows)),
        columns(Lines::columns(x, orders.columns)),
        with_mask(in.masked()),
        a(with_mask ? all() : 0, Device::cuda),
        b(with_mask ? all() : 0, Device::cuda) {
    check(x.tokens() < (i64{1} << 28) && x.batch * x.heads < 65536, "criss_cross_attention: batch ",
          x.batch, " times heads ", x.heads,
          " is too large for one launch (65535); use a smaller batch");
    if (with_mask)
      polyline_gpu::run_decay_sums(x, in.log_alpha, in.log_beta, a.data(), b.data(), orders);
  }
  i64 all() const { return x.batch * x.heads * x.tokens(); }
  const Lines& lines(bool along_rows) const { return along_rows ? rows : columns; }
  const Sum<T>* sums(bool along_rows) const {
    return !with_mask ? nullptr : along_rows ? a.data() : b.data();
  }
  template <int D>
  dim3 grid() const {
    const i64 of_head = x.tokens() * parts_of<D>(static_cast<int>(x.head_width));
    return {static_cast<unsigned>((of_head + threads - 1) / threads),
            static_cast<unsigned>(x.batch * x.heads)};
  }

  template <int D, bool two = false>
  void run_apply(bool along_rows, const T* q, const T* k, const Apply<T>& to) const {
    apply<T, D, two><<<grid<D>(), threads, 0, cuda::stream()>>>(x, lines(along_rows), q, k,
                                                                sums(along_rows), to);
    cuda::launched("criss_cross_attention");
  }
};

template <class T>
void forward(Order order, const AttentionArgs<T>& in, T* y) {
  const AttentionShape& x = in.shape;
  const T *const q = in.q, *const k = in.k, *const v = in.v;
  const Call<T> call(in);
  const bool both = order == Order::both;
  const i64 size = x.batch * x.tokens() * x.channels();
  const Workspace<T> t1(size, Device::cuda), t2(both ? size : 0, Device::cuda);
  polyline_gpu::with_head_width(x.head_width, "criss_cross_attention", [&](auto width) {
    constexpr int D = thread_width<decltype(width)::value>;
    if (both) {
      call.template run_apply<D>(true, q, k, {.x0 = v, .y0 = t1.data()});  // PH v
      call.template run_apply<D, true>(
          false, q, k, {.x0 = t1.data(), .x1 = v, .y0 = y, .y1 = t2.data(), .scale0 = T(0.5)});
      call.template run_apply<D>(true, q, k,
                                 {.x0 = t2.data(), .plus0 = y, .y0 = y, .scale0 = T(0.5)});
    } else {
      const bool rows = order == Order::rows_first;
      call.template run_apply<D>(rows, q, k, {.x0 = v, .y0 = t1.data()});
      call.template run_apply<D>(!rows, q, k, {.x0 = t1.data(), .y0 = y});
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_gpu

namespace ppma::inline PPMA_ABI::kernels {

template <class T>
void criss_cross_attention(Cuda on, Order order, const AttentionArgs<T>& in, T* y) {
  if constexpr (!std::is_same_v<T, bf16>)
    cross_gpu::forward(order, in, y);
  else if (cross_tensor::takes_tensor(in.shape, 4))
    cross_tensor::forward(order, in, y);
  else
    polyline_gpu::in_float(on, in, y, [&](const AttentionArgs<float>& wide, float* wide_y) {
      cross_gpu::forward(order, wide, wide_y);
    });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
