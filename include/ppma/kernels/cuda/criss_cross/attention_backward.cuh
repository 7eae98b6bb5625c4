#pragma once
#include "ppma/core/names_begin.hpp"
// The backward of attention.cuh.
//
// With g = dL/d(one order's output), line by line with P[q,k]:
//   rows first:     dT1 = PV^T g,  T1 = PH v    PV sees the pair (g, T1),  PH the pair (dT1, v)
//   columns first:  dT2 = PH^T g,  T2 = PV v    PH sees the pair (g, T2),  PV the pair (dT2, v)
//   of each pair (G, X) along a line:  dP = G X^T,  dS = P (dP - sum P dP),  dq = dS k,
//         dk = dS^T q
//   dv = PH^T dT1 + PV^T dT2;   mask -|c_j - c_l|: the sums fall along the line, so
//         dc_j += sign(j - l) dS, dc_l -= it
// The softmaxes are computed again. Columns add to what rows left (dq, dk, dv).

#include "ppma/kernels/cuda/criss_cross/attention.cuh"
#include "ppma/kernels/cuda/criss_cross/tensor_backward.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_gpu {

// y = scale P^T g, by keys.
template <class T, int D>
__global__ void __launch_bounds__(threads)
    apply_transposed(AttentionShape x, Lines s, const T* q, const T* k, const Sum<T>* sums,
                     const T* log_sum, const T* g, T scale, T* y) {
  const Place<T, D> here(x, s);
  T key[D], out[D] = {};
  load_vector<D>(k + here.at(here.token), here.d, key);
  const Sum<T> own = sums ? sums[here.plane + here.token] : Sum<T>{};
#pragma unroll 2
  for (int p = 0; p < s.length; ++p) {
    const int t = here.other(s, p);
    T v[D];
    load_vector<D>(q + here.at(t), here.d, v);
    const T weight = ::exp(masked(here.sum(dot<D>(key, v)), sums, own, here.plane + t) -
                           log_sum[here.plane + t]);
    load_vector<D>(g + here.at(t), here.d, v);
    add_scaled<D>(out, weight, v);
  }
  if (!here.active) return;
#pragma unroll
  for (int c = 0; c < D; ++c) out[c] *= scale;
  store_vector<D>(y + here.at(here.token), here.d, out);
}

// The pairs (G, X) that one direction's probabilities see; G counts `scale` times. Null: absent.
template <class T>
struct Pairs {
  const T *g0 = nullptr, *x0 = nullptr, *g1 = nullptr, *x1 = nullptr;
  T scale0 = 1, scale1 = 1;
  bool values0 = false;  // x0 is v: the pair has a gradient of its own
};

// to = v, or v more than before.
template <int D, class T>
__device__ void finish(bool add, T* to, int d, T (&v)[D]) {
  if (add) {
    T before[D];
    load_vector<D>(to, d, before);
    add_scaled<D>(v, T(1), before);
  }
  store_vector<D>(to, d, v);
}

// dq, sum P dP (for the keys) and the gradient of the sums at queries.
template <class T, int D, bool two>
__global__ void __launch_bounds__(threads)
    backward_queries(AttentionShape x, Lines s, const T* q, const T* k, const Sum<T>* sums,
                     const T* log_sum, Pairs<T> pairs, T* mean, T* dsums, bool add, T* dq) {
  const Place<T, D> here(x, s);
  T query[D], g0[D], g1[two ? D : 1], out[D] = {};
  load_vector<D>(q + here.at(here.token), here.d, query);
  load_vector<D>(pairs.g0 + here.at(here.token), here.d, g0);
#pragma unroll
  for (int c = 0; c < D; ++c) g0[c] *= pairs.scale0;
  if constexpr (two) {
    load_vector<D>(pairs.g1 + here.at(here.token), here.d, g1);
#pragma unroll
    for (int c = 0; c < D; ++c) g1[c] *= pairs.scale1;
  }
  const Sum<T> own = sums ? sums[here.plane + here.token] : Sum<T>{};
  const T shift = log_sum[here.plane + here.token];
  T average = 0, dc = 0;
  for (int pass = 0; pass < 2; ++pass)
    for (int p = 0; p < s.length; ++p) {
      const int t = here.other(s, p);
      T key[D], v[D];
      load_vector<D>(k + here.at(t), here.d, key);
      const T weight =
          ::exp(masked(here.sum(dot<D>(query, key)), sums, own, here.plane + t) - shift);
      load_vector<D>(pairs.x0 + here.at(t), here.d, v);
      T dp = dot<D>(g0, v);
      if constexpr (two) {
        load_vector<D>(pairs.x1 + here.at(t), here.d, v);
        dp += dot<D>(g1, v);
      }
      dp = here.sum(dp);
      if (pass == 0) {
        average += weight * dp;
      } else {
        const T ds = weight * (dp - average);
        add_scaled<D>(out, ds, key);
        dc += p < here.position ? ds : p > here.position ? -ds : T(0);
      }
    }
  if (!here.active) return;
  if (here.first) {
    mean[here.plane + here.token] = average;
    if (dsums) dsums[here.plane + here.token] = dc;
  }
  finish<D>(add, dq + here.at(here.token), here.d, out);
}

// dk, dv, and the gradient of the sums at keys, added to that at queries.
template <class T, int D, bool two>
__global__ void __launch_bounds__(threads)
    backward_keys(AttentionShape x, Lines s, const T* q, const T* k, const Sum<T>* sums,
                  const T* log_sum, Pairs<T> pairs, const T* mean, T* dsums, bool add, T* dk,
                  T* dv) {
  const Place<T, D> here(x, s);
  T key[D], x0[D], x1[two ? D : 1], dkey[D] = {}, dvalue[D] = {};
  load_vector<D>(k + here.at(here.token), here.d, key);
  load_vector<D>(pairs.x0 + here.at(here.token), here.d, x0);
  if constexpr (two) load_vector<D>(pairs.x1 + here.at(here.token), here.d, x1);
  const Sum<T> own = sums ? sums[here.plane + here.token] : Sum<T>{};
  T dc = 0;
  for (int p = 0; p < s.length; ++p) {
    const int t = here.other(s, p);
    T query[D], g[D];
    load_vector<D>(q + here.at(t), here.d, query);
    const T weight = ::exp(masked(here.sum(dot<D>(key, query)), sums, own, here.plane + t) -
                           log_sum[here.plane + t]);
    T dp = 0;
    if constexpr (two) {
      load_vector<D>(pairs.g1 + here.at(t), here.d, g);
      dp = pairs.scale1 * dot<D>(x1, g);
    }
    load_vector<D>(pairs.g0 + here.at(t), here.d, g);
    dp = here.sum(dp + pairs.scale0 * dot<D>(x0, g));
    const T ds = weight * (dp - mean[here.plane + t]);
    add_scaled<D>(dkey, ds, query);
    if (pairs.values0) add_scaled<D>(dvalue, weight * pairs.scale0, g);
    // the query at p is `sign(p - position)` away
    dc -= p > here.position ? ds : p < here.position ? -ds : T(0);
  }
  if (!here.active) return;
  if (dsums && here.first) dsums[here.plane + here.token] += dc;
  finish<D>(add, dk + here.at(here.token), here.d, dkey);
  finish<D>(add, dv + here.at(here.token), here.d, dvalue);
}

// The log decays' gradients: sums of da and db from the far end of each line.
template <class A>
__global__ void __launch_bounds__(128)
    decay_gradients(i64 planes, int h, int w, polyline_gpu::LineOrders orders, const A* da,
                    const A* db, const A* log_alpha, const A* log_beta, A* dlog_alpha,
                    A* dlog_beta) {
  const i64 lines = planes * (h + w);
  for (i64 e = cuda::first(); e < lines; e += cuda::stride()) {
    const int r = static_cast<int>(e % (h + w));
    const bool row = r < h;
    const i64 at = e / (h + w) * h * w + (row ? r * w : r - h);
    const int n = row ? w : h, step = row ? 1 : w;
    A sum = 0;
    for (int m = n - 1; m >= 0; --m) {
      const i64 here = at + static_cast<i64>(orders.place(r, h, w, m)) * step;
      sum += (row ? da : db)[here];
      (row ? dlog_alpha : dlog_beta)[here] =
          m > 0 && !((row ? log_alpha : log_beta)[here] <= A(-polyline_gpu::limit_wide)) ? sum
                                                                                         : A(0);
    }
  }
}

template <class T>
void backward(Order order, const AttentionArgs<T>& in, const T* dy,
              const AttentionGradients<T>& d) {
  const AttentionShape& x = in.shape;
  const T *const q = in.q, *const k = in.k, *const v = in.v;
  const Call<T> call(in);
  const bool rows_first = order != Order::columns_first, columns_first = order != Order::rows_first;
  const T share = order == Order::both ? T(0.5) : T(1);
  const i64 size = x.batch * x.tokens() * x.channels(), all = call.all();
  const Workspace<T> t(4 * size, Device::cuda), sums(5 * all, Device::cuda);
  T *const t1 = t.data(), *const t2 = t1 + size, *const dt1 = t2 + size, *const dt2 = dt1 + size;
  T *const log_h = sums.data(), *const log_v = log_h + all, *const mean = log_v + all,
           *const da = mean + all, *const db = da + all;
  polyline_gpu::with_head_width(x.head_width, "criss_cross_attention", [&](auto width) {
    constexpr int D = thread_width<decltype(width)::value>;
    const dim3 grid = call.template grid<D>();
    call.template run_apply<D>(true, q, k, {.x0 = v, .y0 = t1, .log_sum = log_h});
    call.template run_apply<D>(false, q, k, {.x0 = v, .y0 = t2, .log_sum = log_v});
    const auto transposed = [&](bool along_rows, T* to) {
      apply_transposed<T, D><<<grid, threads, 0, cuda::stream()>>>(
          x, call.lines(along_rows), q, k, call.sums(along_rows), along_rows ? log_h : log_v, dy,
          share, to);
      cuda::launched("criss_cross_attention");
    };
    if (rows_first) transposed(false, dt1);
    if (columns_first) transposed(true, dt2);
    const auto direction = [&](bool along_rows, const Pairs<T>& pairs, T* dsums) {
      const auto run = [&](auto two) {
        constexpr bool both = decltype(two)::value;
        const T* const log_sum = along_rows ? log_h : log_v;
        T* const to = call.with_mask ? dsums : nullptr;
        backward_queries<T, D, both><<<grid, threads, 0, cuda::stream()>>>(
            x, call.lines(along_rows), q, k, call.sums(along_rows), log_sum, pairs, mean, to,
            !along_rows, d.dq);
        backward_keys<T, D, both><<<grid, threads, 0, cuda::stream()>>>(
            x, call.lines(along_rows), q, k, call.sums(along_rows), log_sum, pairs, mean, to,
            !along_rows, d.dk, d.dv);
        cuda::launched("criss_cross_attention");
      };
      if (pairs.g1)
        run(std::true_type{});
      else
        run(std::false_type{});
    };
    // PH sees (dT1, v) and (g, T2); PV sees (dT2, v) and (g, T1).
    const auto pairs_of = [&](bool through_v, const T* d_inner, const T* inner,
                              bool through_inner) {
      Pairs<T> p;
      if (through_v) p.g0 = d_inner, p.x0 = v, p.values0 = true;
      if (through_inner && through_v)
        p.g1 = dy, p.x1 = inner, p.scale1 = share;
      else if (through_inner)
        p.g0 = dy, p.x0 = inner, p.scale0 = share;
      return p;
    };
    direction(true, pairs_of(rows_first, dt1, t2, columns_first), da);
    direction(false, pairs_of(columns_first, dt2, t1, rows_first), db);
  });
  if (!call.with_mask) return;
  const i64 planes = x.batch * x.heads;
  decay_gradients<<<cuda::blocks(planes * (x.height + x.width), 128), 128, 0, cuda::stream()>>>(
      planes, static_cast<int>(x.height), static_cast<int>(x.width), call.orders,
      static_cast<const T*>(da), static_cast<const T*>(db), in.log_alpha, in.log_beta, d.dlog_alpha,
      d.dlog_beta);
  cuda::launched("criss_cross_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_gpu

namespace ppma::inline PPMA_ABI::kernels {

template <class T>
void criss_cross_attention_backward(Cuda on, Order order, const AttentionArgs<T>& in, const T* dy,
                                    const AttentionGradients<T>& d) {
  if constexpr (!std::is_same_v<T, bf16>)
    cross_gpu::backward(order, in, dy, d);
  else if (cross_tensor::takes_tensor(in.shape, 6))
    cross_tensor::backward(order, in, dy, d);
  else
    polyline_gpu::in_float(on, in, dy, d,
                           [&](const AttentionArgs<float>& wide, const float* wide_dy,
                               const AttentionGradients<float>& wide_d) {
                             cross_gpu::backward(order, wide, wide_dy, wide_d);
                           });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
