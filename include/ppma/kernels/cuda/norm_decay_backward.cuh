#pragma once
#include "ppma/core/names_begin.hpp"
// The gradient of a layer norm whose rows the log decays read too: theirs is added to that of the
// other readers while the norm's backward has the row in registers, and dt_weight's sums are made
// of the row there. Nobody reads or writes the rows for the log decays' sake.
//
// y = xhat w + b is the row, dz[r,g] the slope of a log (decay_backward.cuh), c is channel j of g:
//
//   dy[c] += sum over r of dz[r,g] dt_weight[r,j]
//   d dt_weight[r,j] = sum over rows and heads of dz[r,g] y[c]
//                    = sum over heads of w[c] (sum of dz[r,g] xhat[c]) + b[c] (sum of dz[r,g])
//
// A lane of a row makes one slope, of a log that it asked for with the row before; the lanes of a
// head get both from there.
//
// Floor: what the norm's backward moves, logs and their gradients read. 25,088 rows of 256, heads
// of 32, at 4.3 TB/s: 13 us, of which the logs are 0.7; measured there 18. By themselves the log
// decays' gradients take at least 6.7, and 3 more where the others' are added to them.

#include "ppma/kernels/cuda/decay_backward.cuh"
#include "ppma/kernels/cuda/norm_back_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// The log decays as readers of a norm's rows; see layer_norm_back_rows.
template <class T, int V, int K>
struct DecaysBack {
  using A = acc_t<T>;
  static constexpr int threads = std::is_same_v<T, bf16> && K == 2 ? 128 : 256,
                       blocks = std::is_same_v<T, bf16> ? 3 : 1, part = K == 1 || V == 2 ? 2 : 4;
  // kept: dt_weight and b; left: sums of slopes, then dt_weight's of each channel
  static constexpr int sums = 2, kept = 3 * 32 * K * V, left = 2 * threads + 2 * 32 * K * V;

  DivideBy tokens, widths;
  int heads, width, rows, plane;  // of a row; logs of alpha before those of beta
  const A *w, *a_log, *logs, *dlogs;
  const A* shift;  // b
  A* partial;      // (blocks, rows width + 2 heads): of dt_weight, dt_bias, A_log

  struct Lane {
    A log, dlog;   // of the row that was fetched
    A slope = 0;   // dz of this one
    A z[2];        // alpha's and beta's slopes for the pack in hand
    A a, inverse;  // A of its head, 1 / A
    bool ordinary;
    A db = 0, da = 0;    // sums of its slopes, its share of dA_log's
    int from;            // where its logs stand, for token 0 of image 0; -1: it makes no slope
    int alpha[K], j[K];  // lane that has alpha's slope for a pack, channel in its head

    __device__ __forceinline__ Lane(const DecaysBack& of, int lane, int row_width) {
      const bool makes = lane < of.rows * of.heads;
      const int r = makes && lane >= of.heads ? 1 : 0, head = makes ? lane - r * of.heads : 0;
      from = makes ? r * of.plane + head * static_cast<int>(of.tokens.by) : -1;
      a = of.a_log[head];  // its exponential is made in keep(), when it is there
      const int first = static_cast<int>(threadIdx.x) % 32 - lane;
#pragma unroll
      for (int k = 0; k < K; ++k) {
        // behind the last channel: any, what comes of it is not read
        const int c = ::min((k * row_width + lane) * V, of.heads * of.width - V), g = of.widths(c);
        alpha[k] = first + g, j[k] = c - g * of.width;
      }
    }
  };

  /// b as lanes take it; dt_weight, (2, width), zeros where alpha's are beta's too.
  template <class Lay>
  __device__ __forceinline__ void keep(Lane& own, A* to, const Lay& lay) const {
    lay(to, shift);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < 2 * width; i += threads)
      copy_async_one(to + 32 * K * V + i, w + (i < rows * width ? i : 0), i < rows * width);
    const A a_log = own.a;
    own.a = ::exp(a_log), own.inverse = ::exp(-a_log),
    own.ordinary = !is_inf(own.a) && !is_inf(own.inverse);
  }
  __device__ __forceinline__ void fetch(Lane& own, int row, bool there) const {
    own.log = own.dlog = 0;
    if (!there || own.from < 0) return;
    const int at = own.from + tokens(row) * (heads - 1) * static_cast<int>(tokens.by) + row;
    own.log = logs[at], own.dlog = dlogs[at];
  }
  __device__ __forceinline__ void start(Lane& own) const {
    own.slope = ordinary_slope<T>(own.a, own.inverse, own.log, own.dlog);
    if (!own.ordinary) own.slope = extreme_slope(own.a, own.log, own.dlog);
    own.db += own.slope, own.da += decay_term(own.log, own.dlog);
  }
  template <class Sums>
  __device__ __forceinline__ void add(Lane& own, const A* kept_there, int k, int from,
                                      const A (&xhat)[V], A (&dy)[V], Sums& sum) const {
    const A* const weights = kept_there + 32 * K * V;
    if (from == 0) {
      own.z[0] = __shfl_sync(all_lanes, own.slope, own.alpha[k]);
      const A beta = __shfl_sync(all_lanes, own.slope, own.alpha[k] + heads);
      own.z[1] = rows == 2 ? beta : A(0);
    }
    const A z0 = own.z[0], z1 = own.z[1];
    A w0[part], w1[part];
    load_pack<part>(weights + own.j[k] + from, w0);
    load_pack<part>(weights + width + own.j[k] + from, w1);
#pragma unroll
    for (int i = 0; i < part; ++i) {
      const A h = xhat[from + i];
      dy[from + i] = z1 * w1[i] + (z0 * w0[i] + dy[from + i]);
      sum[2][k][from + i] += z0 * h, sum[3][k][from + i] += z1 * h;
    }
  }

  // The block's sums, in order.
  __device__ __forceinline__ void leave(Lane& own, A* left_there) const {
    left_there[threadIdx.x] = own.db, left_there[threads + threadIdx.x] = own.da;
  }
  /// What a few channels, c and on, give dt_weight[r]: of the sum of dz xhat and of slopes.
  template <int n, class Laid>
  __device__ __forceinline__ void channels(int r, int c, int row_width, const A (&sum)[n],
                                           const A* scale, const A* kept_there, A* left_there,
                                           const Laid& laid) const {
    if (r >= rows) return;
    A z = 0;
#pragma unroll 4
    for (int at = r * heads + widths(c); at < threads; at += row_width) z += left_there[at];
    A part_of[n];
#pragma unroll
    for (int i = 0; i < n; ++i) part_of[i] = laid(scale, i) * sum[i] + laid(kept_there, i) * z;
    store_pack<n>(left_there + 2 * threads + r * heads * width + c, part_of);
  }
  __device__ __forceinline__ void finish(int cols, int row_width, const A* left_there) const {
    const int tid = static_cast<int>(threadIdx.x), last = threads - 1 - tid;
    A* const to = partial + static_cast<i64>(blockIdx.x) * (rows * width + 2 * heads);
    // dt_bias', A_log's: of threads that had the least to do
    if (last < 2 * heads) {
      const int what = last >= heads ? 1 : 0, g = last - what * heads;
      A sum = 0;
#pragma unroll 4
      for (int at = g; at < threads; at += row_width)
        sum += left_there[what * threads + at] +
               (rows == 2 ? left_there[what * threads + at + heads] : A(0));
      to[rows * width + last] = sum;
    }
    __syncthreads();
#pragma unroll 1
    for (int at = tid; at < rows * width; at += threads) {
      const int r = at >= width ? 1 : 0;
      const A* const of = left_there + 2 * threads + r * cols + at - r * width;
      A sum = 0;
#pragma unroll 4
      for (int g = 0; g < heads; ++g) sum += of[g * width];
      to[at] = sum;
    }
  }
};

}  // namespace detail

/// Whether layer_norm_log_decay_backward() takes it: a lane for each log of a row.
template <class T>
bool has_layer_norm_log_decay_backward(const DecayShape& s) {
  constexpr int V = pack_width<T>;
  const i64 logs = s.rows * s.heads;
  return detail::norm_back_in_registers<T>(s.batch * s.tokens, s.channels()) && s.width % V == 0 &&
         logs <= detail::row_width(s.channels(), V) && s.batch * s.tokens * logs < (i64{1} << 31);
}

/// Gradients of y = layer_norm(x) of rows (s.batch s.tokens, s.channels()) and of logs =
/// log_decay(y), from dy, which the other readers of y gave, and dlogs: of x, the norm's w and b,
/// and dt_weight, dt_bias and A_log, each of which may be null. All but the first may wait.
template <class T>
void layer_norm_log_decay_backward(Cuda, const DecayShape& s, const T* x, const acc_t<T>* w,
                                   const acc_t<T>* b, const acc_t<T>* mean, const acc_t<T>* rstd,
                                   const acc_t<T>* dt_weight, const acc_t<T>* a_log,
                                   const acc_t<T>* logs, const T* dy, const acc_t<T>* dlogs, T* dx,
                                   bool accumulate, acc_t<T>* dw, acc_t<T>* db,
                                   acc_t<T>* d_dt_weight, acc_t<T>* d_dt_bias, acc_t<T>* d_a_log) {
  using A = acc_t<T>;
  const i64 all = s.batch * s.tokens, sums = s.rows * s.width + 2 * s.heads;
  const auto small = [](i64 n) { return static_cast<int>(n); };
  std::unique_ptr<const Workspace<A>> partial;
  i64 pieces = 0;
  detail::run_layer_norm_back_rows(
      all, s.channels(), x, w, mean, rstd, dy, dx, accumulate, dw, db, "layer_norm_log_decay",
      [&](auto k, i64 blocks) {
        pieces = blocks;
        partial = std::make_unique<const Workspace<A>>(blocks * sums, Device::cuda);
        using Decays = detail::DecaysBack<T, pack_width<T>, decltype(k)::value>;
        return Decays{detail::DivideBy(s.tokens),
                      detail::DivideBy(s.width),
                      small(s.heads),
                      small(s.width),
                      small(s.rows),
                      small(all * s.heads),
                      dt_weight,
                      a_log,
                      logs,
                      dlogs,
                      b,
                      partial->data()};
      });
  detail::finish_columns_later(
      std::move(partial), pieces, sums,
      detail::ColumnPlaces<A>(d_dt_weight, s.rows * s.width, d_dt_bias, s.heads, d_a_log),
      "layer_norm_log_decay");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
