#pragma once
#include "ppma/core/names_begin.hpp"
// The two passes of attention_backward.cuh: by queries, then by keys.
//
// Decay gradients: a and b fall along their lines, so |a[i,j] - a[i,l]| = sign(l - j) (a[i,j] -
// a[i,l]). Each score gives to the query's own sums, to the key's own, and to two crossings: (i,l)
// for V2H, (k,j) for H2V. The own ones are summed by the thread; a crossing is summed over the
// inner loop by the thread, then over the neighbours of its line in a warp, and written once a warp
// and line: slot (line + warp) is free of collisions, since one of the two grows with each next
// pair. What is left is summed in order. No atomics: the same bits every time.

#include "ppma/kernels/cuda/whole/attention.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_gpu {

// What the two passes of backward leave for each other and for the decays, all (heads of all
// images, N) but the slots.
template <class A>
struct Saved {
  A *log_sum1, *log_sum2, *mean1, *mean2;  // ln z, and sum p dP
  A *own_a, *own_b;                        // gradients of a and b at the query's (key's) own place
  A *slot_a, *slot_b;                      // (slots, w): of the crossings
};

PPMA_HD inline i64 slots_of(const AttentionShape& x) { return (x.tokens() + 31) / 32 + x.height; }

// Sums `value` over the neighbouring lanes of one line and stores it once a line, in slot (line +
// warp).
template <class A>
__device__ __forceinline__ void store_crossing(A value_a, A value_b, int line, int n, int column,
                                               int w, A* slot_a, A* slot_b) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const A other_a = __shfl_down_sync(0xffffffffu, value_a, step),
            other_b = __shfl_down_sync(0xffffffffu, value_b, step);
    const int other = __shfl_down_sync(0xffffffffu, line, step);
    if (lane + step < 32 && other == line) value_a += other_a, value_b += other_b;
  }
  const int before = __shfl_up_sync(0xffffffffu, line, 1);
  if (line >= 0 && (lane == 0 || before != line)) {
    const i64 slot = static_cast<i64>(line + n / 32) * w + column;
    slot_a[slot] = value_a, slot_b[slot] = value_b;
  }
}

template <class A>
__device__ __forceinline__ A sign_of(int x) {
  return static_cast<A>((x > 0) - (x < 0));
}

// Pass 0: ln z. Pass 1: sum p dP. Pass 2: dq and the decays. A thread a query.
template <class T, int D, Masks masks>
__global__ void __launch_bounds__(threads)
    backward_queries(AttentionShape x, const T* q, const T* k, const T* v, const Sum<acc_t<T>>* a,
                     const Sum<acc_t<T>>* b, const T* dy, acc_t<T> share1, acc_t<T> share2, T* dq,
                     Saved<acc_t<T>> saved, const int2* visits) {
  using A = acc_t<T>;
  constexpr bool masked = masks != Masks::none, lines = masks == Masks::polylines;
  constexpr int tile = tile_of<A, D>;
  __shared__ A ks[tile][D], vs[tile][D];
  __shared__ Sum<A> as[tile], bs[tile];
  const auto [h, w, tokens, d, head, channels, base, plane, n, here, i, j] = Owned(x);
  const i64 slots = slots_of(x) * w;
  const bool active = n < tokens;

  A query[D], upstream[D], out[D] = {};
  polyline_gpu::load_vector<D>(q + base + here * channels, d, query);
  polyline_gpu::load_vector<D>(dy + base + here * channels, d, upstream);
  [[maybe_unused]] Sum<A> aij{}, bij{};
  if constexpr (masked) aij = a[plane + here], bij = b[plane + here];
  [[maybe_unused]] int2 visit{};
  if constexpr (masked && !lines) visit = visits[here];
  A m1 = lowest<A>, m2 = lowest<A>, z1 = 0, z2 = 0, mean1 = 0, mean2 = 0, own_a = 0, own_b = 0;
  for (int pass = 0; pass < 3; ++pass) {
    [[maybe_unused]] Sum<A> bil{};
    [[maybe_unused]] A along = 0;
    A cross = 0, cross_signed = 0;
    if constexpr (lines) along = distance(aij, a[plane + i * w]), bil = b[plane + i * w];
    int row = 0, column = 0;
    for (int first = 0; first < tokens; first += tile) {
      __syncthreads();
      for (int e = static_cast<int>(threadIdx.x); e < tile * D; e += threads) {
        const int m = first + e / D, c = e % D, token = m % h * w + m / h;
        const bool there = m < tokens && c < d;
        ks[e / D][c] = there ? A(k[base + token * channels + c]) : A(0);
        if (pass > 0) vs[e / D][c] = there ? A(v[base + token * channels + c]) : A(0);
        if (masked && c == 0 && m < tokens)
          as[e / D] = a[plane + token], bs[e / D] = b[plane + token];
      }
      __syncthreads();
      const int count = ::min(tile, tokens - first);
      for (int u = 0; u < count; ++u) {
        const A score = dot<D>(query, ks[u]);
        A s1 = score, s2 = score;
        if constexpr (lines) {
          s1 = score - closing(along + distance(bil, bs[u]));
          s2 = score - closing(distance(a[plane + row * w + j], as[u]) +
                               distance(bij, b[plane + row * w + j]));
        } else if constexpr (masked) {
          s1 = score - closing(distance(aij, as[u])), s2 = score - closing(distance(bij, bs[u]));
        }
        if (pass == 0) {
          {
            const A most = ::max(m1, s1);
            z1 = z1 * ::exp(m1 - most) + ::exp(s1 - most), m1 = most;
          }
          if (masked) {
            const A most = ::max(m2, s2);
            z2 = z2 * ::exp(m2 - most) + ::exp(s2 - most), m2 = most;
          }
        } else {
          const A p1 = ::exp(s1 - m1), p2 = masked ? ::exp(s2 - m2) : A(0),
                  dp = dot<D>(upstream, vs[u]);
          if (pass == 1) {
            mean1 += p1 * dp, mean2 += p2 * dp;
          } else {
            const A ds1 = share1 * p1 * (dp - mean1), ds2 = share2 * p2 * (dp - mean2);
            add_scaled<D>(out, ds1 + ds2, ks[u]);
            if constexpr (masked && !lines) {
              const int2 other = visits[row * w + column];
              own_a += sign_of<A>(visit.x - other.x) * ds1,
                  own_b += sign_of<A>(visit.y - other.y) * ds2;
            }
            if constexpr (lines) {
              const A right = sign_of<A>(j - column), below = sign_of<A>(i - row);
              own_a += right * ds1, own_b += below * ds2;
              cross += ds1, cross_signed += below * ds1;
            }
          }
        }
        if (masked && ++row == h) {
          if (lines && pass == 2) {
            store_crossing<A>(active ? -sign_of<A>(j - column) * cross : A(0),
                              active ? cross_signed : A(0), active ? i : -1, n, column, w,
                              saved.slot_a + head * slots, saved.slot_b + head * slots);
            cross = cross_signed = 0;
          }
          row = 0, ++column;
          if (lines && column < w)
            along = distance(aij, a[plane + i * w + column]), bil = b[plane + i * w + column];
        }
      }
    }
    if (pass == 0) m1 += ::log(z1), m2 = masked ? m2 + ::log(z2) : A(0);  // now ln z
  }
  if (!active) return;
  polyline_gpu::store_vector<D>(dq + base + here * channels, d, out);
  saved.log_sum1[plane + n] = m1, saved.mean1[plane + n] = mean1;
  if (masked) saved.log_sum2[plane + n] = m2, saved.mean2[plane + n] = mean2;
  if constexpr (masked) saved.own_a[plane + n] = own_a, saved.own_b[plane + n] = own_b;
}

// dk, dv and the decays. A thread a key; queries come column by column.
template <class T, int D, Masks masks>
__global__ void __launch_bounds__(threads)
    backward_keys(AttentionShape x, const T* q, const T* k, const T* v, const Sum<acc_t<T>>* a,
                  const Sum<acc_t<T>>* b, const T* dy, acc_t<T> share1, acc_t<T> share2, T* dk,
                  T* dv, Saved<acc_t<T>> of_queries, Saved<acc_t<T>> saved, const int2* visits) {
  using A = acc_t<T>;
  constexpr bool masked = masks != Masks::none, lines = masks == Masks::polylines;
  constexpr int tile = tile_of<A, D>;
  __shared__ Sum<A> as[tile], bs[tile];
  __shared__ A qs[tile][D], gs[tile][D], log_sum1[tile], log_sum2[tile], mean1[tile], mean2[tile];
  const auto [h, w, tokens, d, head, channels, base, plane, n, here, i, j] = Owned(x);
  const i64 slots = slots_of(x) * w;
  const bool active = n < tokens;

  A key[D], value[D], dkey[D] = {}, dvalue[D] = {};
  polyline_gpu::load_vector<D>(k + base + here * channels, d, key);
  polyline_gpu::load_vector<D>(v + base + here * channels, d, value);
  [[maybe_unused]] Sum<A> akl{}, bkl{}, bkj{};
  [[maybe_unused]] A along = 0;
  A own_a = 0, own_b = 0, cross = 0, cross_signed = 0;
  if constexpr (masked) akl = a[plane + here], bkl = b[plane + here];
  if constexpr (lines) along = distance(a[plane + i * w], akl), bkj = b[plane + i * w];
  [[maybe_unused]] int2 visit{};
  if constexpr (masked && !lines) visit = visits[here];
  int row = 0, column = 0;  // of the query
  for (int first = 0; first < tokens; first += tile) {
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < tile * D; e += threads) {
      const int m = first + e / D, c = e % D, token = m % h * w + m / h;
      const bool there = m < tokens && c < d;
      qs[e / D][c] = there ? A(q[base + token * channels + c]) : A(0);
      gs[e / D][c] = there ? A(dy[base + token * channels + c]) : A(0);
      if (c == 0 && m < tokens) {
        if (masked) as[e / D] = a[plane + token], bs[e / D] = b[plane + token];
        log_sum1[e / D] = of_queries.log_sum1[plane + token],
                     mean1[e / D] = of_queries.mean1[plane + token];
        if (masked)
          log_sum2[e / D] = of_queries.log_sum2[plane + token],
                       mean2[e / D] = of_queries.mean2[plane + token];
      }
    }
    __syncthreads();
    const int count = ::min(tile, tokens - first);
    for (int u = 0; u < count; ++u) {
      const A score = dot<D>(key, qs[u]), dp = dot<D>(value, gs[u]);
      A s1 = score, s2 = score;
      if constexpr (masked && !lines)
        s1 = score - closing(distance(as[u], akl)), s2 = score - closing(distance(bs[u], bkl));
      if constexpr (lines) {
        const Sum<A> ail = a[plane + row * w + j], bil = b[plane + row * w + j];
        s1 = score - closing(distance(as[u], ail) + distance(bil, bkl));
        s2 = score - closing(along + distance(bs[u], bkj));
      }
      const A p1 = share1 * ::exp(s1 - log_sum1[u]),
              p2 = masked ? share2 * ::exp(s2 - log_sum2[u]) : A(0);
      const A ds1 = p1 * (dp - mean1[u]), ds2 = masked ? p2 * (dp - mean2[u]) : A(0);
      add_scaled<D>(dvalue, p1 + p2, gs[u]);
      add_scaled<D>(dkey, ds1 + ds2, qs[u]);
      if constexpr (masked && !lines) {
        const int2 other = visits[row * w + column];
        own_a += sign_of<A>(visit.x - other.x) * ds1, own_b += sign_of<A>(visit.y - other.y) * ds2;
        if (++row == h) row = 0, ++column;
      }
      if constexpr (lines) {
        const A right = sign_of<A>(column - j), below = sign_of<A>(row - i);
        own_b -= below * ds1, own_a -= right * ds2;
        cross += ds2, cross_signed += below * ds2;
        if (++row == h) {
          store_crossing<A>(active ? right * cross : A(0), active ? -cross_signed : A(0),
                            active ? i : -1, n, column, w, saved.slot_a + head * slots,
                            saved.slot_b + head * slots);
          cross = cross_signed = 0;
          row = 0, ++column;
          if (column < w)
            along = distance(a[plane + i * w + column], akl), bkj = b[plane + i * w + column];
        }
      }
    }
  }
  if (!active) return;
  polyline_gpu::store_vector<D>(dk + base + here * channels, d, dkey);
  polyline_gpu::store_vector<D>(dv + base + here * channels, d, dvalue);
  if constexpr (masked) saved.own_a[plane + n] = own_a, saved.own_b[plane + n] = own_b;
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_gpu

#include "ppma/core/names_end.hpp"
