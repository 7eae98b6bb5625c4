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
// The softmaxes are computed again. What rows leave for columns (dq, dk, dv) is in float.

#include "ppma/kernels/cuda/criss_cross/attention.cuh"
#include "ppma/kernels/cuda/criss_cross/tensor_backward.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_gpu {

// y = scale P^T g, by keys.
template <class T, int D>
__global__ void __launch_bounds__(threads)
    apply_transposed(AttentionShape x, Lines s, const T* q, const T* k, const Sum<acc_t<T>>* sums,
                     const acc_t<T>* log_sum, const T* g, acc_t<T> scale, T* y) {
  using A = acc_t<T>;
  const Place here(x, s);
  A key[D], out[D] = {};
  polyline_gpu::load_vector<D>(k + here.at(here.token), here.d, key);
  const Sum<A> own = sums ? sums[here.plane + here.token] : Sum<A>{};
#pragma unroll 2
  for (int p = 0; p < s.length; ++p) {
    const int t = here.other(s, p);
    A v[D];
    polyline_gpu::load_vector<D>(q + here.at(t), here.d, v);
    const A weight =
        exp_below<T>(masked(dot<D>(key, v), sums, own, here.plane + t) - log_sum[here.plane + t]);
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
__device__ void finish(const acc_t<T>* plus, acc_t<T>* wide, T* narrow, i64 at, int d,
                       acc_t<T> (&v)[D]) {
  using A = acc_t<T>;
  if (plus) {
    A before[D];
    polyline_gpu::load_vector<D>(plus + at, d, before);
    add_scaled<D>(v, A(1), before);
  }
  if (wide)
    polyline_gpu::store_vector<D>(wide + at, d, v);
  else
    polyline_gpu::store_vector<D>(narrow + at, d, v);
}

// dq, sum P dP (for the keys) and the gradient of the sums at queries.
template <class T, int D, bool two>
__global__ void __launch_bounds__(threads)
    backward_queries(AttentionShape x, Lines s, const T* q, const T* k, const Sum<acc_t<T>>* sums,
                     const acc_t<T>* log_sum, Pairs<T> pairs, acc_t<T>* mean, acc_t<T>* dsums,
                     Results<T> to) {
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
  const Sum<A> own = sums ? sums[here.plane + here.token] : Sum<A>{};
  const A shift = log_sum[here.plane + here.token];
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
__global__ void __launch_bounds__(threads)
    backward_keys(AttentionShape x, Lines s, const T* q, const T* k, const Sum<acc_t<T>>* sums,
                  const acc_t<T>* log_sum, Pairs<T> pairs, const acc_t<T>* mean, acc_t<T>* dsums,
                  Results<T> to) {
  using A = acc_t<T>;
  const Place here(x, s);
  A key[D], x0[D], x1[two ? D : 1], dkey[D] = {}, dvalue[D] = {};
  polyline_gpu::load_vector<D>(k + here.at(here.token), here.d, key);
  polyline_gpu::load_vector<D>(pairs.x0 + here.at(here.token), here.d, x0);
  if constexpr (two) polyline_gpu::load_vector<D>(pairs.x1 + here.at(here.token), here.d, x1);
  const Sum<A> own = sums ? sums[here.plane + here.token] : Sum<A>{};
  A dc = 0;
  for (int p = 0; p < s.length; ++p) {
    const int t = here.other(s, p);
    A query[D], g[D];
    polyline_gpu::load_vector<D>(q + here.at(t), here.d, query);
    const A weight = exp_below<T>(masked(dot<D>(key, query), sums, own, here.plane + t) -
                                  log_sum[here.plane + t]);
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
    // the query at p is `sign(p - position)` away
    dc -= p > here.position ? ds : p < here.position ? -ds : A(0);
  }
  if (!here.active) return;
  if (dsums) dsums[here.plane + here.token] += dc;
  finish<T, D>(to.plus_first, to.wide_first, to.first, here.at(here.token), here.d, dkey);
  finish<T, D>(to.plus_second, to.wide_second, to.second, here.at(here.token), here.d, dvalue);
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

}  // namespace ppma::inline PPMA_ABI::kernels::cross_gpu

namespace ppma::inline PPMA_ABI::kernels {

template <class T>
void criss_cross_attention_backward(Cuda, Order order, const AttentionArgs<T>& in, const T* dy,
                                    const AttentionGradients<T>& d) {
  using A = acc_t<T>;
  const AttentionShape& x = in.shape;
  const T *const q = in.q, *const k = in.k, *const v = in.v;
  if constexpr (std::is_same_v<T, bf16>)
    if (cross_tensor::takes_tensor(x, 6)) return cross_tensor::backward(order, in, dy, d);
  const cross_gpu::Call<T> call(in);
  const bool rows_first = order != Order::columns_first, columns_first = order != Order::rows_first;
  const A share = order == Order::both ? A(0.5) : A(1);
  const i64 size = x.batch * x.tokens() * x.channels(), all = call.all();
  const Workspace<T> t(4 * size, Device::cuda);
  const Workspace<A> wide(3 * size, Device::cuda), rows(5 * all, Device::cuda);
  T *const t1 = t.data(), *const t2 = t1 + size, *const dt1 = t2 + size, *const dt2 = dt1 + size;
  A *const log_h = rows.data(), *const log_v = log_h + all, *const mean = log_v + all,
           *const da = mean + all, *const db = da + all;
  A *const wide_q = wide.data(), *const wide_k = wide_q + size, *const wide_v = wide_k + size;
  polyline_gpu::with_head_width(x.head_width, "criss_cross_attention", [&](auto width) {
    constexpr int D = decltype(width)::value;
    using To = cross_gpu::Apply<T>;
    using Results = cross_gpu::Results<T>;
    call.template run_apply<D>(true, q, k, To{.x0 = v, .y0 = t1, .log_sum = log_h});
    call.template run_apply<D>(false, q, k, To{.x0 = v, .y0 = t2, .log_sum = log_v});
    const auto transposed = [&](bool along_rows, T* to) {
      cross_gpu::apply_transposed<T, D><<<call.grid, cross_gpu::threads, 0, cuda::stream()>>>(
          x, along_rows ? call.rows : call.columns, q, k, call.sums(along_rows),
          along_rows ? log_h : log_v, dy, share, to);
      cuda::launched("criss_cross_attention");
    };
    if (rows_first) transposed(false, dt1);
    if (columns_first) transposed(true, dt2);
    const auto direction = [&](bool along_rows, const cross_gpu::Pairs<T>& pairs, A* dsums,
                               const Results& of_queries, const Results& of_keys) {
      const auto run = [&](auto two) {
        constexpr bool both = decltype(two)::value;
        const cross_gpu::Lines& lines = along_rows ? call.rows : call.columns;
        const A* const log_sum = along_rows ? log_h : log_v;
        A* const to = call.with_mask ? dsums : nullptr;
        cross_gpu::backward_queries<T, D, both>
            <<<call.grid, cross_gpu::threads, 0, cuda::stream()>>>(
                x, lines, q, k, call.sums(along_rows), log_sum, pairs, mean, to, of_queries);
        cross_gpu::backward_keys<T, D, both><<<call.grid, cross_gpu::threads, 0, cuda::stream()>>>(
            x, lines, q, k, call.sums(along_rows), log_sum, pairs, mean, to, of_keys);
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
      cross_gpu::Pairs<T> p;
      if (through_v) p.g0 = d_inner, p.x0 = v, p.values0 = true;
      if (through_inner && through_v)
        p.g1 = dy, p.x1 = inner, p.scale1 = share;
      else if (through_inner)
        p.g0 = dy, p.x0 = inner, p.scale0 = share;
      return p;
    };
    direction(true, pairs_of(rows_first, dt1, t2, columns_first), da, Results{.wide_first = wide_q},
              Results{.wide_first = wide_k, .wide_second = wide_v});
    direction(false, pairs_of(columns_first, dt2, t1, rows_first), db,
              Results{.plus_first = wide_q, .first = d.dq},
              Results{.plus_first = wide_k, .plus_second = wide_v, .first = d.dk, .second = d.dv});
  });
  if (!call.with_mask) return;
  const i64 planes = x.batch * x.heads;
  cross_gpu::
      decay_gradients<<<cuda::blocks(planes * (x.height + x.width), 128), 128, 0, cuda::stream()>>>(
          planes, static_cast<int>(x.height), static_cast<int>(x.width), call.orders,
          static_cast<const A*>(da), static_cast<const A*>(db), in.log_alpha, in.log_beta,
          d.dlog_alpha, d.dlog_beta);
  cuda::launched("criss_cross_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
