#pragma once
// criss_cross_attention.hpp on the GPU. A thread owns a query (or a key) and walks along its line; neighbouring threads
// share the line, so that keys and values come from the L1 cache. No mask is stored, and no score. bf16 goes to the tensor
// cores (criss_cross_tensor.cuh) where lines fit.
//
//   PH = softmax along rows, PV = softmax along columns;   rows first: PV PH v,   columns first: PH PV v
//
// Backward, with g = dL/d(one order's output), line by line with P[q,k]:
//   rows first:     dT1 = PV^T g,  T1 = PH v    PV sees the pair (g, T1),  PH the pair (dT1, v)
//   columns first:  dT2 = PH^T g,  T2 = PV v    PH sees the pair (g, T2),  PV the pair (dT2, v)
//   of each pair (G, X) along a line:  dP = G X^T,  dS = P (dP - sum P dP),  dq = dS k,  dk = dS^T q
//   dv = PH^T dT1 + PV^T dT2;   mask -|c_j - c_l|: the sums fall along the line, so dc_j += sign(j - l) dS, dc_l -= it
// The softmaxes are computed again. What rows leave for columns (dq, dk, dv) is in float.

#include "ppma/polyline/criss_cross_tensor_backward.cuh"
#include "ppma/polyline/decay_sums.cuh"
#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI::kernels::cross_gpu {

using polyline_gpu::add_scaled;
using polyline_gpu::dot;
using polyline_gpu::exp_below;

inline constexpr int threads = 128;

// One way of cutting a grid into lines.
struct Lines {
  int count, length, step, line_step;  // token = line * line_step + position * step
  static Lines rows(const AttentionShape& x) { return {static_cast<int>(x.height), static_cast<int>(x.width), 1, static_cast<int>(x.width)}; }
  static Lines columns(const AttentionShape& x) { return {static_cast<int>(x.width), static_cast<int>(x.height), static_cast<int>(x.width), 1}; }
};

// Where this thread's token is.
struct Place {
  i64 base, plane, channels;  // of the head in (B,N,C); in (B,G,N)
  int d, position, token, line_token;
  bool active;

  __device__ Place(const AttentionShape& x, const Lines& s) {
    const int tokens = s.count * s.length, n = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x), here = ::min(n, tokens - 1);
    const i64 head = blockIdx.y;
    active = n < tokens;
    channels = x.channels();
    d = static_cast<int>(x.head_width);
    base = head / x.heads * tokens * channels + head % x.heads * d;
    plane = head * tokens;
    position = here % s.length;
    line_token = here / s.length * s.line_step;
    token = line_token + position * s.step;
  }
  __device__ i64 at(int t) const { return base + t * channels; }
  __device__ int other(const Lines& s, int p) const { return line_token + p * s.step; }
};

template <class A>
__device__ __forceinline__ A masked(A score, const A* sums, A own, i64 at) {
  return sums ? score - ::fabs(own - sums[at]) : score;
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
__global__ void __launch_bounds__(threads) apply(AttentionShape x, Lines s, const T* q, const T* k, const acc_t<T>* sums, Apply<T> to) {
  using A = acc_t<T>;
  const Place here(x, s);
  const A infinity = static_cast<A>(__int_as_float(0x7f800000));
  A query[D], out0[D] = {}, out1[two ? D : 1] = {};
  polyline_gpu::load_vector<D>(q + here.at(here.token), here.d, query);
  const A own = sums ? sums[here.plane + here.token] : A(0);
  A m = -infinity, z = 0;
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
  if (to.wide0) polyline_gpu::store_vector<D>(to.wide0 + here.at(here.token), here.d, out0);
  else polyline_gpu::store_vector<D>(to.y0 + here.at(here.token), here.d, out0);
  if constexpr (two) {
#pragma unroll
    for (int c = 0; c < D; ++c) out1[c] /= z;
    polyline_gpu::store_vector<D>(to.y1 + here.at(here.token), here.d, out1);
  }
  if (to.log_sum) to.log_sum[here.plane + here.token] = m + ::log(z);
}

// y = scale P^T g, by keys.
template <class T, int D>
__global__ void __launch_bounds__(threads) apply_transposed(AttentionShape x, Lines s, const T* q, const T* k, const acc_t<T>* sums, const acc_t<T>* log_sum,
                                                            const T* g, acc_t<T> scale, T* y) {
  using A = acc_t<T>;
  const Place here(x, s);
  A key[D], out[D] = {};
  polyline_gpu::load_vector<D>(k + here.at(here.token), here.d, key);
  const A own = sums ? sums[here.plane + here.token] : A(0);
#pragma unroll 2
  for (int p = 0; p < s.length; ++p) {
    const int t = here.other(s, p);
    A v[D];
    polyline_gpu::load_vector<D>(q + here.at(t), here.d, v);
    const A weight = exp_below<T>(masked(dot<D>(key, v), sums, own, here.plane + t) - log_sum[here.plane + t]);
    polyline_gpu::load_vector<D>(g + here.at(t), here.d, v);
    add_scaled<D>(out, weight, v);
  }
  if (!here.active) return;
#pragma unroll
  for (int c = 0; c < D; ++c) out[c] *= scale;
  polyline_gpu::store_vector<D>(y + here.at(here.token), here.d, out);
}

// The pairs (G, X) that one direction's probabilities see; G counts `scale` times. Null: absent.
template <class T>
struct Pairs {
  const T *g0 = nullptr, *x0 = nullptr, *g1 = nullptr, *x1 = nullptr;
  acc_t<T> scale0 = 1, scale1 = 1;
  bool values0 = false;  // x0 is v: the pair has a gradient of its own
};
// Results: the first direction leaves float (wide), the second adds to it and rounds.
template <class T>
struct Results {
  acc_t<T>*wide_first = nullptr, *wide_second = nullptr;  // dq; or dk, dv
  const acc_t<T>*plus_first = nullptr, *plus_second = nullptr;
  T *first = nullptr, *second = nullptr;
};

template <class T, int D>
__device__ void finish(const acc_t<T>* plus, acc_t<T>* wide, T* narrow, i64 at, int d, acc_t<T> (&v)[D]) {
  using A = acc_t<T>;
  if (plus) {
    A before[D];
    polyline_gpu::load_vector<D>(plus + at, d, before);
    add_scaled<D>(v, A(1), before);
  }
  if (wide) polyline_gpu::store_vector<D>(wide + at, d, v);
  else polyline_gpu::store_vector<D>(narrow + at, d, v);
}

// dq, sum P dP (for the keys) and the gradient of the sums at queries.
template <class T, int D, bool two>
__global__ void __launch_bounds__(threads) backward_queries(AttentionShape x, Lines s, const T* q, const T* k, const acc_t<T>* sums,
                                                            const acc_t<T>* log_sum, Pairs<T> pairs, acc_t<T>* mean, acc_t<T>* dsums, Results<T> to) {
  using A = acc_t<T>;
  const Place here(x, s);
  A query[D], g0[D], g1[two ? D : 1], out[D] = {};
  polyline_gpu::load_vector<D>(q + here.at(here.token), here.d, query);
  polyline_gpu::load_vector<D>(pairs.g0 + here.at(here.token), here.d, g0);
#pragma unroll
  for (int c = 0; c < D; ++c) g0[c] *= pairs.scale0;
  if constexpr (two) {
    polyline_gpu::load_vector<D>(pairs.g1 + here.at(here.token), here.d, g1);
#pragma unroll
    for (int c = 0; c < D; ++c) g1[c] *= pairs.scale1;
  }
  const A own = sums ? sums[here.plane + here.token] : A(0), shift = log_sum[here.plane + here.token];
  A average = 0, dc = 0;
  for (int pass = 0; pass < 2; ++pass)
    for (int p = 0; p < s.length; ++p) {
      const int t = here.other(s, p);
      A key[D], v[D];
      polyline_gpu::load_vector<D>(k + here.at(t), here.d, key);
      const A weight = exp_below<T>(masked(dot<D>(query, key), sums, own, here.plane + t) - shift);
      polyline_gpu::load_vector<D>(pairs.x0 + here.at(t), here.d, v);
      A dp = dot<D>(g0, v);
      if constexpr (two) {
        polyline_gpu::load_vector<D>(pairs.x1 + here.at(t), here.d, v);
        dp += dot<D>(g1, v);
      }
      if (pass == 0) {
        average += weight * dp;
      } else {
        const A ds = weight * (dp - average);
        add_scaled<D>(out, ds, key);
        dc += p < here.position ? ds : p > here.position ? -ds : A(0);
      }
    }
  if (!here.active) return;
  mean[here.plane + here.token] = average;
  if (dsums) dsums[here.plane + here.token] = dc;
  finish<T, D>(to.plus_first, to.wide_first, to.first, here.at(here.token), here.d, out);
}

// dk, dv, and the gradient of the sums at keys, added to that at queries.
template <class T, int D, bool two>
__global__ void __launch_bounds__(threads) backward_keys(AttentionShape x, Lines s, const T* q, const T* k, const acc_t<T>* sums, const acc_t<T>* log_sum,
                                                         Pairs<T> pairs, const acc_t<T>* mean, acc_t<T>* dsums, Results<T> to) {
  using A = acc_t<T>;
  const Place here(x, s);
  A key[D], x0[D], x1[two ? D : 1], dkey[D] = {}, dvalue[D] = {};
  polyline_gpu::load_vector<D>(k + here.at(here.token), here.d, key);
  polyline_gpu::load_vector<D>(pairs.x0 + here.at(here.token), here.d, x0);
  if constexpr (two) polyline_gpu::load_vector<D>(pairs.x1 + here.at(here.token), here.d, x1);
  const A own = sums ? sums[here.plane + here.token] : A(0);
  A dc = 0;
  for (int p = 0; p < s.length; ++p) {
    const int t = here.other(s, p);
    A query[D], g[D];
    polyline_gpu::load_vector<D>(q + here.at(t), here.d, query);
    const A weight = exp_below<T>(masked(dot<D>(key, query), sums, own, here.plane + t) - log_sum[here.plane + t]);
    A dp = 0;
    if constexpr (two) {
      polyline_gpu::load_vector<D>(pairs.g1 + here.at(t), here.d, g);
      dp = pairs.scale1 * dot<D>(x1, g);
    }
    polyline_gpu::load_vector<D>(pairs.g0 + here.at(t), here.d, g);
    dp += pairs.scale0 * dot<D>(x0, g);
    const A ds = weight * (dp - mean[here.plane + t]);
    add_scaled<D>(dkey, ds, query);
    if (pairs.values0) add_scaled<D>(dvalue, weight * pairs.scale0, g);
    dc -= p > here.position ? ds : p < here.position ? -ds : A(0);  // the query at p is `sign(p - position)` away
  }
  if (!here.active) return;
  if (dsums) dsums[here.plane + here.token] += dc;
  finish<T, D>(to.plus_first, to.wide_first, to.first, here.at(here.token), here.d, dkey);
  finish<T, D>(to.plus_second, to.wide_second, to.second, here.at(here.token), here.d, dvalue);
}

// The log decays' gradients: sums of da and db from the far end of each line.
template <class A>
__global__ void __launch_bounds__(128) decay_gradients(i64 planes, int h, int w, const A* da, const A* db, A* dlog_alpha, A* dlog_beta) {
  const i64 lines = planes * (h + w);
  for (i64 e = cuda::first(); e < lines; e += cuda::stride()) {
    const int r = static_cast<int>(e % (h + w));
    const bool row = r < h;
    const i64 at = e / (h + w) * h * w + (row ? r * w : r - h);
    const int n = row ? w : h, step = row ? 1 : w;
    A sum = 0;
    for (int m = n - 1; m >= 0; --m) {
      sum += (row ? da : db)[at + static_cast<i64>(m) * step];
      (row ? dlog_alpha : dlog_beta)[at + static_cast<i64>(m) * step] = m > 0 ? sum : A(0);
    }
  }
}

// What both passes of the host share: the sums, the grid of threads, the directions.
template <class T>
struct Call {
  using A = acc_t<T>;
  const AttentionShape& x;
  Lines rows, columns;
  bool with_mask;
  Workspace<A> a, b;
  dim3 grid;

  Call(const AttentionShape& shape, const A* log_alpha, const A* log_beta)
      : x(shape), rows(Lines::rows(shape)), columns(Lines::columns(shape)), with_mask(log_alpha != nullptr),
        a(with_mask ? all() : 0, Device::cuda), b(with_mask ? all() : 0, Device::cuda),
        grid(static_cast<unsigned>((shape.tokens() + threads - 1) / threads), static_cast<unsigned>(shape.batch * shape.heads)) {
    check(x.tokens() < (i64{1} << 30) && x.batch * x.heads < 65536, "criss_cross_attention: batch ", x.batch, " times heads ", x.heads,
          " is too large for one launch (65535); use a smaller batch");
    if (with_mask) polyline_gpu::run_decay_sums(x, log_alpha, log_beta, a.data(), b.data());
  }
  i64 all() const { return x.batch * x.heads * x.tokens(); }
  const A* sums(bool along_rows) const { return !with_mask ? nullptr : along_rows ? a.data() : b.data(); }

  template <int D>
  void run_apply(bool along_rows, const T* q, const T* k, const Apply<T>& to) const {
    if (to.x1) apply<T, D, true><<<grid, threads, 0, cuda::stream()>>>(x, along_rows ? rows : columns, q, k, sums(along_rows), to);
    else apply<T, D, false><<<grid, threads, 0, cuda::stream()>>>(x, along_rows ? rows : columns, q, k, sums(along_rows), to);
    cuda::launched("criss_cross_attention");
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::cross_gpu

namespace ppma::inline PPMA_ABI::kernels {

template <class T>
void criss_cross_attention(Cuda, const AttentionShape& x, Order order, const T* q, const T* k, const T* v, const acc_t<T>* log_alpha,
                           const acc_t<T>* log_beta, T* y) {
  using A = acc_t<T>;
  if constexpr (std::is_same_v<T, bf16>)
    if (cross_tensor::takes_tensor(x, 4)) return cross_tensor::forward(x, order, q, k, v, log_alpha, log_beta, y);
  const cross_gpu::Call<T> call(x, log_alpha, log_beta);
  const bool both = order == Order::both;
  const i64 size = x.batch * x.tokens() * x.channels();
  const Workspace<T> t1(size, Device::cuda), t2(both ? size : 0, Device::cuda);
  const Workspace<A> half(both ? size : 0, Device::cuda);
  polyline_gpu::with_head_width(x.head_width, "criss_cross_attention", [&](auto width) {
    constexpr int D = decltype(width)::value;
    using To = cross_gpu::Apply<T>;
    if (order == Order::columns_first) {
      call.template run_apply<D>(false, q, k, To{.x0 = v, .y0 = t1.data()});          // PV v
      call.template run_apply<D>(true, q, k, To{.x0 = t1.data(), .y0 = y});           // PH PV v
    } else if (order == Order::rows_first) {
      call.template run_apply<D>(true, q, k, To{.x0 = v, .y0 = t1.data()});           // PH v
      call.template run_apply<D>(false, q, k, To{.x0 = t1.data(), .y0 = y});          // PV PH v
    } else {
      call.template run_apply<D>(true, q, k, To{.x0 = v, .y0 = t1.data()});           // PH v
      call.template run_apply<D>(false, q, k, To{.x0 = t1.data(), .x1 = v, .y1 = t2.data(), .wide0 = half.data(), .scale0 = A(0.5)});
      call.template run_apply<D>(true, q, k, To{.x0 = t2.data(), .plus0 = half.data(), .y0 = y, .scale0 = A(0.5)});
    }
  });
}

template <class T>
void criss_cross_attention_backward(Cuda, const AttentionShape& x, Order order, const T* q, const T* k, const T* v, const acc_t<T>* log_alpha,
                                    const acc_t<T>* log_beta, const T* dy, T* dq, T* dk, T* dv, acc_t<T>* dlog_alpha, acc_t<T>* dlog_beta) {
  using A = acc_t<T>;
  if constexpr (std::is_same_v<T, bf16>)
    if (cross_tensor::takes_tensor(x, 6)) return cross_tensor::backward(x, order, q, k, v, log_alpha, log_beta, dy, dq, dk, dv, dlog_alpha, dlog_beta);
  const cross_gpu::Call<T> call(x, log_alpha, log_beta);
  const bool rows_first = order != Order::columns_first, columns_first = order != Order::rows_first;
  const A share = order == Order::both ? A(0.5) : A(1);
  const i64 size = x.batch * x.tokens() * x.channels(), all = call.all();
  const Workspace<T> t(4 * size, Device::cuda);
  const Workspace<A> wide(3 * size, Device::cuda), rows(5 * all, Device::cuda);
  T *const t1 = t.data(), *const t2 = t1 + size, *const dt1 = t2 + size, *const dt2 = dt1 + size;
  A *const log_h = rows.data(), *const log_v = log_h + all, *const mean = log_v + all, *const da = mean + all, *const db = da + all;
  A *const wide_q = wide.data(), *const wide_k = wide_q + size, *const wide_v = wide_k + size;
  polyline_gpu::with_head_width(x.head_width, "criss_cross_attention", [&](auto width) {
    constexpr int D = decltype(width)::value;
    using To = cross_gpu::Apply<T>;
    using Results = cross_gpu::Results<T>;
    call.template run_apply<D>(true, q, k, To{.x0 = v, .y0 = t1, .log_sum = log_h});
    call.template run_apply<D>(false, q, k, To{.x0 = v, .y0 = t2, .log_sum = log_v});
    const auto transposed = [&](bool along_rows, T* to) {
      cross_gpu::apply_transposed<T, D><<<call.grid, cross_gpu::threads, 0, cuda::stream()>>>(
          x, along_rows ? call.rows : call.columns, q, k, call.sums(along_rows), along_rows ? log_h : log_v, dy, share, to);
      cuda::launched("criss_cross_attention");
    };
    if (rows_first) transposed(false, dt1);
    if (columns_first) transposed(true, dt2);
    const auto direction = [&](bool along_rows, const cross_gpu::Pairs<T>& pairs, A* dsums, const Results& of_queries, const Results& of_keys) {
      const auto run = [&](auto two) {
        constexpr bool both = decltype(two)::value;
        const cross_gpu::Lines& lines = along_rows ? call.rows : call.columns;
        const A* const log_sum = along_rows ? log_h : log_v;
        A* const to = call.with_mask ? dsums : nullptr;
        cross_gpu::backward_queries<T, D, both><<<call.grid, cross_gpu::threads, 0, cuda::stream()>>>(x, lines, q, k, call.sums(along_rows), log_sum, pairs,
                                                                                                    mean, to, of_queries);
        cross_gpu::backward_keys<T, D, both><<<call.grid, cross_gpu::threads, 0, cuda::stream()>>>(x, lines, q, k, call.sums(along_rows), log_sum, pairs, mean,
                                                                                                 to, of_keys);
        cuda::launched("criss_cross_attention");
      };
      if (pairs.g1) run(std::true_type{});
      else run(std::false_type{});
    };
    // PH sees (dT1, v) and (g, T2); PV sees (dT2, v) and (g, T1).
    const auto pairs_of = [&](bool through_v, const T* d_inner, const T* inner, bool through_inner) {
      cross_gpu::Pairs<T> p;
      if (through_v) p.g0 = d_inner, p.x0 = v, p.values0 = true;
      if (through_inner && through_v) p.g1 = dy, p.x1 = inner, p.scale1 = share;
      else if (through_inner) p.g0 = dy, p.x0 = inner, p.scale0 = share;
      return p;
    };
    direction(true, pairs_of(rows_first, dt1, t2, columns_first), da, Results{.wide_first = wide_q},
              Results{.wide_first = wide_k, .wide_second = wide_v});
    direction(false, pairs_of(columns_first, dt2, t1, rows_first), db, Results{.plus_first = wide_q, .first = dq},
              Results{.plus_first = wide_k, .plus_second = wide_v, .first = dk, .second = dv});
  });
  if (!call.with_mask) return;
  const i64 planes = x.batch * x.heads;
  cross_gpu::decay_gradients<<<cuda::blocks(planes * (x.height + x.width), 128), 128, 0, cuda::stream()>>>(
      planes, static_cast<int>(x.height), static_cast<int>(x.width), static_cast<const A*>(da), static_cast<const A*>(db), dlog_alpha, dlog_beta);
  cuda::launched("criss_cross_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels
