#pragma once
#include "ppma/core/names_begin.hpp"
// Decayed sums (ops/decayed_sums.hpp) on the tensor cores: Dao and Gu, "Transformers are SSMs",
// 2024, section 6 (algorithm 1), one kernel.
//
//   y_t = sum over s <= t of e^(c_t - c_s) (q_t . k_s) v_s,   c the running sums of the log decays
//
// A block has one head of one image and walks over its tokens in chunks of 64. What a chunk sees of
// the tokens before it is a matrix H of d x p numbers; c begins anew in each chunk:
//
//   y = e^c (q H) + (q k^T * L) v,   L_ts = e^(c_t - c_s) for s <= t
//   H for the next one: e^(c_last) H + sum over s of e^(c_last - c_s) k_s v_s^T
//
// Four warps have 16 rows of y each, four others H in their registers, which goes on in f32 and is
// a factor in T. The tokens of the next chunk arrive meanwhile (bf16). For the backward pass H is
// written as each chunk saw it: as many numbers as v has where d is 64.
// Floor: q, k, v read and y written once a head; 64 (d + p) + 4 d p operations a token.

#include <algorithm>

#include "ppma/kernels/cpu/decayed_parts.hpp"
#include "ppma/kernels/cuda/decayed_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace decayed {

inline constexpr int chunk = 64, threads = 256;
PPMA_HD inline int chunks_of(const DecayedShape& s) {
  return static_cast<int>((s.tokens + chunk - 1) / chunk);
}
/// Chunks in shared memory: one is fetched while another is computed, where that is in the
/// background.
template <class T>
inline constexpr int stages_of = std::is_same_v<T, bf16> ? 2 : 1;

/// Where a head's tokens lie.
struct Head {
  i64 first, step;
  int width;
  __device__ Head(const DecayedShape& s, i64 plane, i64 width_, bool shared)
      : first(shared ? plane / s.heads * s.tokens * width_
                     : (plane / s.heads * s.tokens * s.heads + plane % s.heads) * width_),
        step(shared ? width_ : s.heads * width_),
        width(static_cast<int>(width_)) {}
};

/// How the numbers of a state (D x P) are shared by W warps: a warp has 16 rows and some columns.
template <int D, int P, int W>
struct StateCut {
  static constexpr int rows = D / 16,
                       columns = W / rows < P / 16 ? W / rows : P / 16,  // parts of these
      width = P / columns;                                               // of a part
  int row, column;
  bool any;
  __device__ explicit StateCut(int warp)
      : row(warp % rows * 16), column(warp / rows * width), any(warp < rows * columns) {}
};

/// H += sum over the chunk's tokens of weight(t) x_t z_t^T; for a warp its part.
template <int parts, int D, int P, int W, class F>
__device__ __forceinline__ void add_outer(Result<StateCut<D, P, W>::width>& h,
                                          const StateCut<D, P, W>& cut,
                                          const Tile<parts, chunk, D>& x,
                                          const Tile<parts, chunk, P>& z, int rows, F weight) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
  for (int t = 0; t < rows; t += 16) {
    Square<parts> a;
    load_turned(a, x, t, cut.row);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = t + i / 2 * 8 + lane % 4 * 2;
      const float2 two = value_of<parts>(a, i);
      split<parts>(two.x * weight(token), two.y * weight(token + 1), &a[0][i], 4);
    }
    times_columns<StateCut<D, P, W>::width>(h, a, z, t, cut.column);
  }
}
/// A warp's part of a state to shared memory.
template <int parts, int D, int P, int W>
__device__ __forceinline__ void put_state(Tile<parts, D, P>& to,
                                          const Result<StateCut<D, P, W>::width>& h,
                                          const StateCut<D, P, W>& cut) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < StateCut<D, P, W>::width / 16; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      unsigned pairs[parts];
      split<parts>(h[n][i / 2][i % 2 * 2], h[n][i / 2][i % 2 * 2 + 1], pairs, 1);
#pragma unroll
      for (int p = 0; p < parts; ++p)
        *reinterpret_cast<unsigned*>(&to.part[p][cut.row + lane / 4 + i % 2 * 8]
                                             [cut.column + n * 16 + i / 2 * 8 + lane % 4 * 2]) =
            pairs[p];
    }
}

/// Sums c of a warp's rows and of the columns of a square, of a lane: L_ts of row t and column s is
/// e^(row - column), or of the transposed e^(column - row).
struct SquareDecays {
  float row[2], column[4];
  __device__ SquareDecays(const float* c, int row0, int column0) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) row[i] = c[row0 + lane / 4 + i * 8];
#pragma unroll
    for (int i = 0; i < 4; ++i) column[i] = c[column0 + i / 2 * 8 + lane % 4 * 2 + i % 2];
  }
};
/// How far the column of element i of a result's half h lies behind its row, on the diagonal.
__device__ __forceinline__ int beyond(int h, int i) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return h * 8 + lane % 4 * 2 + i % 2 - (lane / 4 + i / 2 * 8);
}

template <class T, int D, int P>
struct ForwardMemory {
  static constexpr int parts = parts_of<T>;
  struct Stage {
    Tile<parts, chunk, D> q, k;
    Tile<parts, chunk, P> v;
  } stage[stages_of<T>];
  Tile<parts, D, P> state;
  float c[2][chunk];
};

/// A block for each head of each image. kept: null, or (planes, chunks - 1, D, P): H.
template <class T, int D, int P>
__global__ void __launch_bounds__(threads)
    forward(DecayedShape s, DecayedArgs<T> x, T* y, T* kept) {
  constexpr int parts = parts_of<T>, stages = stages_of<T>;
  extern __shared__ __align__(16) unsigned char memory[];
  ForwardMemory<T, D, P>& m = *reinterpret_cast<ForwardMemory<T, D, P>*>(memory);
  cuda::wait();
  const i64 plane = blockIdx.x;
  const Head keys(s, plane, s.d, s.shared), values(s, plane, s.p, false),
      decays(s, plane, 1, false);
  const int chunks = chunks_of(s), lane = static_cast<int>(threadIdx.x) % 32,
            warp = static_cast<int>(threadIdx.x) / 32;
  const auto rows_of = [&](int n) {
    return static_cast<int>(::min(s.tokens - i64{n} * chunk, i64{chunk}));
  };
  const auto fetch_chunk = [&](int n) {
    auto& to = m.stage[n % stages];
    const i64 token = i64{n} * chunk;
    fetch<threads>(to.q, x.q + keys.first + token * keys.step, keys.step, keys.width, rows_of(n));
    fetch<threads>(to.k, x.k + keys.first + token * keys.step, keys.step, keys.width, rows_of(n));
    fetch<threads>(to.v, x.v + values.first + token * values.step, values.step, values.width,
                   rows_of(n));
  };
  ChunkDecays next;
  const auto load_decays = [&](int n) {
    next.load(x.log_decay + decays.first + n * chunk * decays.step, decays.step, rows_of(n));
  };
  fetch_chunk(0);
  detail::copies_issued();
  if (warp == 0) load_decays(0), next.put(m.c[0]);
  const StateCut<D, P, 4> cut(warp - 4);
  Result<StateCut<D, P, 4>::width> h = {};

  for (int n = 0; n < chunks; ++n) {
    const bool last = n + 1 == chunks;
    if (stages > 1 && !last) fetch_chunk(n + 1);
    detail::copies_issued();
    detail::copies_done<stages - 1>();
    if (warp == 0 && !last) load_decays(n + 1);
    __syncthreads();
    const auto& at = m.stage[n % stages];
    const float* const c = m.c[n % 2];
    const int rows = rows_of(n);
    if (warp >= 4) {
      if (!last && cut.any) {
        const float total = c[chunk - 1], decay = exp2_fast(total);
        scale_rows(h, decay, decay);
        add_outer(h, cut, at.k, at.v, rows, [&](int t) { return exp2_fast(total - c[t]); });
      }
    } else if (warp * 16 < rows) {
      Square<parts> q[D / 16];
      load_rows(q, at.q, warp * 16);
      Result<P> sum = {};
      if (n > 0) {
#pragma unroll
        for (int i = 0; i < D / 16; ++i) times_columns<P>(sum, q[i], m.state, i * 16);
        const float* const own = c + warp * 16 + lane / 4;
        scale_rows(sum, exp2_fast(own[0]), exp2_fast(own[8]));
      }
#pragma unroll 1
      for (int j = 0; j <= warp; ++j) {
        float scores[2][4] = {};
        times_rows(scores, q, at.k, j * 16);
        const SquareDecays f(c, warp * 16, j * 16);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const bool seen = j < warp || beyond(i / 4, i % 4) <= 0;
          scores[i / 4][i % 4] *=
              seen ? exp2_fast(f.row[i % 4 / 2] - f.column[i / 4 * 2 + i % 2]) : 0.f;
        }
        Square<parts> a;
        as_square<parts>(a, scores);
        times_columns<P>(sum, a, at.v, j * 16);
      }
      store_rows(y + values.first + n * chunk * values.step, values.step, sum, warp * 16,
                 values.width, rows);
    }
    if (last) break;
    if (warp == 0) next.put(m.c[(n + 1) % 2]);
    __syncthreads();
    if (warp >= 4 && cut.any) {
      put_state(m.state, h, cut);
      if (kept != nullptr)
        store_rows(kept + ((plane * (chunks - 1) + n) * D + cut.row) * P + cut.column, P, h, 0,
                   StateCut<D, P, 4>::width, 16);
    }
    if (stages == 1) fetch_chunk(n + 1);
  }
}

/// f(constant D, constant P) with widths that hold those of a shape; nothing in f64, which has no
/// kernels.
template <class T, class F>
void with_widths(const DecayedShape& s, F&& f) {
  using std::integral_constant;
  const i64 most = std::max(s.d, s.p);
  if constexpr (!std::is_same_v<T, double>) {
    if (most <= 16) return f(integral_constant<int, 16>{}, integral_constant<int, 16>{});
    if (most <= 32) return f(integral_constant<int, 32>{}, integral_constant<int, 32>{});
  }
  if constexpr (std::is_same_v<T, bf16>) {
    if (s.p <= 32) return f(integral_constant<int, 64>{}, integral_constant<int, 32>{});
    f(integral_constant<int, 64>{}, integral_constant<int, 64>{});
  }
}

/// Launches a kernel of one block a head.
template <class... Parameters, class... Arguments>
void launch(const DecayedShape& s, std::size_t bytes, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (bytes > 48 * 1024) detail::allow_shared(kernel, static_cast<int>(bytes), "decayed_sums");
  cuda::launch("decayed_sums", kernel, static_cast<unsigned>(s.batch * s.heads), threads, bytes,
               arguments...);
}

}  // namespace decayed

/// Whether there are kernels for a shape: widths that are multiples of 8, up to 64 in bf16 and up
/// to 32 in f32.
template <class T>
bool decayed_sums_fit(Cuda, const DecayedShape& s) {
  const i64 width = std::is_same_v<T, bf16>    ? 64
                    : std::is_same_v<T, float> ? 32
                                               : 0,
            most = (i64{1} << 31) - 1;
  return s.d % 8 == 0 && s.p % 8 == 0 && std::max(s.d, s.p) <= width && s.batch * s.heads <= most &&
         s.tokens <= most;
}
/// How many numbers forward keeps for backward.
template <class T>
i64 decayed_sums_kept(Cuda, const DecayedShape& s) {
  i64 count = 0;
  decayed::with_widths<T>(s, [&](auto d, auto p) {
    count =
        s.batch * s.heads * (decayed::chunks_of(s) - 1) * decltype(d)::value * decltype(p)::value;
  });
  return count;
}

/// Gradients of q and k come head by head.
inline i64 decayed_sums_parts(Cuda, const DecayedShape& s) { return s.heads; }

/// y (batch,tokens,heads,p); kept: null, or decayed_sums_kept() numbers.
template <class T>
void decayed_sums(Cuda, const DecayedShape& s, const DecayedArgs<T>& x, T* y, T* kept) {
  decayed::with_widths<T>(s, [&](auto d, auto p) {
    constexpr int D = decltype(d)::value, P = decltype(p)::value;
    decayed::launch(s, sizeof(decayed::ForwardMemory<T, D, P>), decayed::forward<T, D, P>, s, x, y,
                    kept);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
