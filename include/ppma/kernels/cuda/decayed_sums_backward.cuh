#pragma once
#include "ppma/core/names_begin.hpp"
// Gradients of decayed sums (kernels/cuda/decayed_sums.cuh), one kernel: a block has one head of
// one image and walks over its chunks from the last to the first. With A = L * (dy v^T) and
// W = L * (q k^T) in a chunk, H what it saw of the tokens before it and G the gradient of what it
// leaves,
//
//   dq = e^c (dy H^T) + A k            dv = e^(c_last - c) (k G) + W^T dy
//   dk = e^(c_last - c) (v G^T) + A^T q
//   G for the one before: e^(c_last) G + sum over t of e^(c_t) q_t dy_t^T
//
// Four warps have 16 rows of dq each, four others of dk and dv, from A^T and W^T computed as such;
// all have G in registers. H is what the forward pass kept.
//
// A log decay lies between all pairs of a token from it on and one before it. With
// M = A * (q k^T), its gradient is a sum of what these pairs are, apart by where they lie, so that
// nothing large is subtracted: both in the chunk (sums of M's rows less those of its columns), the
// earlier before the chunk (e^c q . (H dy)), the later behind it (e^(c_last - c) v . (k G)), or
// both (e^(c_last) <H, G>).
// Floor: q, k, v, dy and H read, dq, dk, dv written once a head.

#include "ppma/kernels/cuda/decayed_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace decayed {

template <class T, int D, int P>
struct BackwardMemory {
  static constexpr int parts = parts_of<T>;
  struct Stage {
    Tile<parts, chunk, D> q, k;
    Tile<parts, chunk, P> v, dy;
    Tile<parts, D, P> before;  // H
  } stage[stages_of<T>];
  Tile<parts, D, P> behind;  // G
  float c[2][chunk];
  // of tokens: sums over pairs in the chunk of which it is the later or the earlier, and over those
  // with one before the chunk and with one behind it
  float later[chunk], earlier[chunk], across[chunk], beyond[chunk];
  float through[threads / 32];  // <H, G> of each warp's part
};

/// Sums of a lane's rows for the tokens of a chunk.
__device__ __forceinline__ void put_rows(float* to, int row, float near, float far) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  near = over_row(near), far = over_row(far);
  if (lane % 4 == 0) to[row + lane / 4] = near, to[row + lane / 4 + 8] = far;
}

/// dq of 16 rows.
template <class T, int D, int P>
__device__ __forceinline__ void query_gradients(Result<D>& dq, BackwardMemory<T, D, P>& m,
                                                const typename BackwardMemory<T, D, P>::Stage& at,
                                                const float* c, int row, bool first) {
  constexpr int parts = parts_of<T>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Square<parts> q[D / 16], dy[P / 16];
  load_rows(q, at.q, row), load_rows(dy, at.dy, row);
  float2 across{0, 0};
  if (!first) {
#pragma unroll
    for (int i = 0; i < D / 16; ++i) times_rows(dq[i], dy, at.before, i * 16);
    scale_rows(dq, exp2_fast(c[row + lane / 4]), exp2_fast(c[row + lane / 4 + 8]));
    across = dot_rows<parts>(q, dq);
  }
  put_rows(m.across, row, across.x, across.y);
  float pairs[2] = {};
#pragma unroll 1
  for (int column = 0; column <= row; column += 16) {
    float scores[2][4] = {}, a[2][4] = {};
    times_rows(scores, q, at.k, column), times_rows(a, dy, at.v, column);
    const SquareDecays f(c, row, column);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int far = column < row ? -1 : beyond(i / 4, i % 4);
      float& to = a[i / 4][i % 4];
      to *= far <= 0 ? exp2_fast(f.row[i % 4 / 2] - f.column[i / 4 * 2 + i % 2]) : 0.f;
      if (far < 0) pairs[i % 4 / 2] += to * scores[i / 4][i % 4];
    }
    Square<parts> left;
    as_square<parts>(left, a);
    times_columns<D>(dq, left, at.k, column);
  }
  put_rows(m.later, row, pairs[0], pairs[1]);
}

/// dk and dv of 16 rows.
template <class T, int D, int P>
__device__ __forceinline__ void key_gradients(Result<D>& dk, Result<P>& dv,
                                              BackwardMemory<T, D, P>& m,
                                              const typename BackwardMemory<T, D, P>::Stage& at,
                                              const float* c, int row, int rows, bool last) {
  constexpr int parts = parts_of<T>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Square<parts> k[D / 16], v[P / 16];
  load_rows(k, at.k, row), load_rows(v, at.v, row);
  float2 ahead{0, 0};
  if (!last) {
    const float total = c[chunk - 1], near = exp2_fast(total - c[row + lane / 4]),
                far = exp2_fast(total - c[row + lane / 4 + 8]);
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      times_columns<P>(dv, k[i], m.behind, i * 16);
      times_rows(dk[i], v, m.behind, i * 16);
    }
    scale_rows(dv, near, far), scale_rows(dk, near, far);
    ahead = dot_rows<parts>(v, dv);
  }
  put_rows(m.beyond, row, ahead.x, ahead.y);
  float pairs[2] = {};
#pragma unroll 1
  for (int column = row; column < rows; column += 16) {
    float w[2][4] = {}, a[2][4] = {};
    times_rows(w, k, at.q, column), times_rows(a, v, at.dy, column);
    const SquareDecays f(c, row, column);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int far = column > row ? 1 : beyond(i / 4, i % 4);
      float &of_k = a[i / 4][i % 4], &of_v = w[i / 4][i % 4];
      const float decay =
          far >= 0 ? exp2_fast(f.column[i / 4 * 2 + i % 2] - f.row[i % 4 / 2]) : 0.f;
      of_k *= decay;
      if (far > 0) pairs[i % 4 / 2] += of_k * of_v;
      of_v *= decay;
    }
    Square<parts> left;
    as_square<parts>(left, w);
    times_columns<P>(dv, left, at.dy, column);
    as_square<parts>(left, a);
    times_columns<D>(dk, left, at.q, column);
  }
  put_rows(m.earlier, row, pairs[0], pairs[1]);
}

/// Gradients of a chunk's log decays, by one warp, two tokens a lane.
template <class T, int D, int P>
__device__ __forceinline__ void decay_gradients(const BackwardMemory<T, D, P>& m, float* to,
                                                i64 step, int rows, bool first, float total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, t = 2 * lane;
  float through = 0, from[2], upto[2];
#pragma unroll
  for (int w = 0; w < threads / 32; ++w) through += m.through[w];
  through *= exp2_fast(total);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bool there = t + i < rows;
    from[i] = there ? m.later[t + i] - m.earlier[t + i] + m.across[t + i] : 0.f;
    upto[i] = there ? m.beyond[t + i] : 0.f;
  }
  float after = from[0] + from[1], before = upto[0] + upto[1];
#pragma unroll
  for (int far = 1; far < 32; far *= 2) {
    const float a = __shfl_down_sync(~0u, after, far), b = __shfl_up_sync(~0u, before, far);
    if (lane + far < 32) after += a;
    if (lane >= far) before += b;
  }
  before = __shfl_up_sync(~0u, before, 1);
  if (lane == 0) before = 0;
  // the first token's is of no edge
  if (t < rows) to[t * step] = first && lane == 0 ? 0.f : through + after + before;
  after = __shfl_down_sync(~0u, after, 1);
  if (lane == 31) after = 0;
  if (t + 1 < rows) to[(t + 1) * step] = through + (after + from[1]) + (before + upto[0]);
}

/// A block for each head of each image. kept: what forward() wrote.
template <class T, int D, int P>
__global__ void __launch_bounds__(threads)
    backward(DecayedShape s, DecayedArgs<T> x, const T* kept, const T* dy, DecayedGradients<T> to) {
  constexpr int parts = parts_of<T>, stages = stages_of<T>, warps = threads / 32;
  extern __shared__ __align__(16) unsigned char memory[];
  BackwardMemory<T, D, P>& m = *reinterpret_cast<BackwardMemory<T, D, P>*>(memory);
  cuda::wait();
  const i64 plane = blockIdx.x;
  const Head keys(s, plane, s.d, s.shared), by_head(s, plane, s.d, false),
      values(s, plane, s.p, false), decays(s, plane, 1, false);
  const int chunks = chunks_of(s), lane = static_cast<int>(threadIdx.x) % 32,
            warp = static_cast<int>(threadIdx.x) / 32;
  const auto rows_of = [&](int n) {
    return static_cast<int>(::min(s.tokens - i64{n} * chunk, i64{chunk}));
  };
  const auto fetch_chunk = [&](int n) {
    auto& stage = m.stage[n % stages];
    const int rows = rows_of(n);
    const i64 key = keys.first + n * chunk * keys.step,
              value = values.first + n * chunk * values.step;
    fetch<threads>(stage.q, x.q + key, keys.step, keys.width, rows);
    fetch<threads>(stage.k, x.k + key, keys.step, keys.width, rows);
    fetch<threads>(stage.v, x.v + value, values.step, values.width, rows);
    fetch<threads>(stage.dy, dy + value, values.step, values.width, rows);
    if (n > 0) fetch<threads>(stage.before, kept + (plane * (chunks - 1) + n - 1) * D * P, P, P, D);
  };
  ChunkDecays next;
  const auto load_decays = [&](int n) {
    next.load(x.log_decay + decays.first + n * chunk * decays.step, decays.step, rows_of(n));
  };
  fetch_chunk(chunks - 1);
  detail::copies_issued();
  if (warp == 0) load_decays(chunks - 1), next.put(m.c[(chunks - 1) % 2]);
  const StateCut<D, P, warps> cut(warp);
  Result<StateCut<D, P, warps>::width> g = {};

  for (int n = chunks - 1; n >= 0; --n) {
    const bool first = n == 0, last = n + 1 == chunks;
    if (stages > 1 && !first) fetch_chunk(n - 1);
    detail::copies_issued();
    detail::copies_done<stages - 1>();
    if (warp == 0 && !first) load_decays(n - 1);
    __syncthreads();
    const auto& at = m.stage[n % stages];
    const float* const c = m.c[n % 2];
    const int rows = rows_of(n), row = warp % 4 * 16;
    const float total = c[chunk - 1];
    if (row < rows) {
      const i64 of_d = by_head.first + n * chunk * by_head.step,
                of_p = values.first + n * chunk * values.step;
      if (warp < 4) {
        Result<D> dq = {};
        query_gradients<T, D, P>(dq, m, at, c, row, first);
        store_rows(to.dq + of_d, by_head.step, dq, row, by_head.width, rows);
      } else {
        Result<D> dk = {};
        Result<P> dv = {};
        key_gradients<T, D, P>(dk, dv, m, at, c, row, rows, last);
        store_rows(to.dk + of_d, by_head.step, dk, row, by_head.width, rows);
        store_rows(to.dv + of_p, values.step, dv, row, values.width, rows);
      }
    }
    float through = 0;
    if (!first && cut.any) {
      if (!last)
#pragma unroll
        for (int i = 0; i < StateCut<D, P, warps>::width / 16; ++i) {
          Square<parts> h;
          load_square(h, at.before, cut.row, cut.column + i * 16);
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float2 two = value_of<parts>(h, e);
            through += two.x * g[i][e / 2][e % 2 * 2] + two.y * g[i][e / 2][e % 2 * 2 + 1];
          }
        }
      scale_rows(g, exp2_fast(total), exp2_fast(total));
      add_outer(g, cut, at.q, at.dy, rows, [&](int t) { return exp2_fast(c[t]); });
    }
#pragma unroll
    for (int far = 16; far > 0; far /= 2) through += __shfl_xor_sync(~0u, through, far);
    if (lane == 0) m.through[warp] = through;
    if (warp == 0 && !first) next.put(m.c[(n + 1) % 2]);
    __syncthreads();
    if (warp == 0 && to.dlog_decay != nullptr)
      decay_gradients(m, to.dlog_decay + decays.first + n * chunk * decays.step, decays.step, rows,
                      first, total);
    if (first) break;
    if (cut.any) put_state(m.behind, g, cut);
    if (stages == 1) fetch_chunk(n - 1);
  }
}

}  // namespace decayed

/// All gradients of decayed_sums().
template <class T>
void decayed_sums_backward(Cuda, const DecayedShape& s, const DecayedArgs<T>& x, const T* kept,
                           const T* dy, const DecayedGradients<T>& to) {
  decayed::with_widths<T>(s, [&](auto d, auto p) {
    constexpr int D = decltype(d)::value, P = decltype(p)::value;
    decayed::launch(s, sizeof(decayed::BackwardMemory<T, D, P>), decayed::backward<T, D, P>, s, x,
                    kept, dy, to);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
