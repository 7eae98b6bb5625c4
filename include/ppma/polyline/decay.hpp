#pragma once
#include "ppma/core/names_begin.hpp"
// Decay factors (spec 1.2): what each step of a polyline path costs, chosen by the image itself.
//
// Legend: B batch, H W grid, N = H W tokens, G heads, d head width, C = G d channels.
// alpha[i,j] in (0,1] is the decay of the horizontal edge (i,j-1)-(i,j), beta[i,j] that of the vertical edge
// (i-1,j)-(i,j). Both come from the block's normalised input x, not from q or k:
//
//   (1)  z[r,g,i,j] = sum_c w[r,c] x[i,j, g d + c]       r = 0: alpha, r = 1: beta; w is shared by all heads
//   (2)  s = softplus(z + b[g]) = ln(1 + e^(z + b))      b = dt_bias: how much decay without evidence
//   (3)  A[g] = e^A_log[g] > 0
//   (4)  ln alpha = -A s[0],  ln beta = -A s[1]          <= 0; everything downstream works with these logs
//
// Backward, with u = dL/d(ln decay):   (4) dA_log = sum u ln decay    (2) dz = -A sigmoid(z + b) u,  db = sum dz
//                                      (1) dw[r] = sum dz[r] x_head,  dx_head = sum_r dz[r] w[r]
// Neither z nor s is kept: s = -ln decay / A, and sigmoid(z + b) = 1 - e^-s.

#include <cmath>

#include "ppma/kernels/transpose.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/softmax.hpp"

namespace ppma::inline PPMA_ABI {

/// Logs of the decays, (B,G,H,W) each. ln alpha[:,:,:,0] and ln beta[:,:,0,:] belong to no edge and are never used.
struct LogDecay {
  Tensor log_alpha, log_beta;
};

namespace kernels {

/// Sizes of log_decay: rows = 2 (alpha and beta) or 1 (shared).
struct DecayShape {
  i64 batch, tokens, heads, width, rows;
  static constexpr i64 block = 64;  // tokens worked on at a time
  PPMA_HD i64 blocks() const { return (tokens + block - 1) / block; }
  PPMA_HD i64 channels() const { return heads * width; }
};

namespace detail {

// z (rows, heads, block) of `count` tokens at x, (1) and the "+ b" of (2). A lane is a token: a square of tokens by
// channels is turned in registers, so that the sum over channels needs no sums across lanes.
template <class T>
void decay_scores(const DecayShape& s, i64 count, const T* x, const T* w, const T* b, T* z) {
  constexpr i64 square = lanes<T>;
  static_assert(DecayShape::block % square == 0);
  for (i64 g = 0; g < s.heads; ++g)
    for (i64 t = 0; t < count; t += square) {
      Vec<T> z0 = splat(b[g]), z1 = z0;
      const i64 tokens = std::min(square, count - t);
      for (i64 c = 0; c < s.width; c += square) {
        const T* const from = x + t * s.channels() + g * s.width + c;
        const i64 n = std::min(square, s.width - c);
        Vec<T> row[static_cast<std::size_t>(square)];
        PPMA_UNROLL
        for (i64 i = 0; i < square; ++i)
          row[i] = i >= tokens   ? Vec<T>{}
                   : n == square ? load(from + i * s.channels())
                                 : load_some(from + i * s.channels(), n);
        kernels::transpose_block<T>(row);
        const T *w0 = w + c, *w1 = w + (s.rows - 1) * s.width + c;
        PPMA_UNROLL
        for (i64 i = 0; i < square; ++i)
          if (i < n) z0 += w0[i] * row[i], z1 += w1[i] * row[i];
      }
      store(z + g * s.block + t, z0);
      if (s.rows == 2) store(z + (s.heads + g) * s.block + t, z1);
    }
}

// sigmoid(t) from s = softplus(t): 1 - e^-s; a series where s is so small that the difference would cancel.
template <class T>
PPMA_INLINE Vec<T> sigmoid_from_softplus(Vec<T> s) {
  constexpr i64 terms = std::is_same_v<T, float> ? 6 : 12;  // the next one is below the last digit for s < 1/4
  Vec<T> series{};
  for (i64 k = terms; k > 0; --k) series = (T(1) - series) * s * (T(1) / static_cast<T>(k));  // s - s^2/2 + s^3/6 - ...
  const Vec<T> difference = T(1) - exp_of(-s);
  return s < T(0.25) ? series : difference;
}

// Steps (1) of backward for one vector of channels of one head: dx, and the sums for dw in registers.
template <class T, bool two>
void decay_channels(i64 count, i64 stride, i64 n, const T* dz0, const T* dz1, const T* x, const T* w0, const T* w1,
                    T* dx, T* dw0, T* dw1) {
  const auto read = [n](const T* p) { return n == lanes<T> ? load(p) : load_some(p, n); };
  const auto write = [n](T* p, Vec<T> v) { n == lanes<T> ? store<T>(p, v) : store_some<T>(p, v, n); };
  const Vec<T> weight0 = read(w0), weight1 = two ? read(w1) : Vec<T>{};
  Vec<T> sum0{}, sum1{};
  for (i64 t = 0; t < count; ++t) {
    const Vec<T> v = read(x + t * stride);
    Vec<T> g = dz0[t] * weight0;
    sum0 += dz0[t] * v;
    if constexpr (two) {
      g += dz1[t] * weight1;
      sum1 += dz1[t] * v;
    }
    write(dx + t * stride, g);
  }
  write(dw0, read(dw0) + sum0);
  if constexpr (two) write(dw1, read(dw1) + sum1);
}

}  // namespace detail

/// y (rows,B,G,N) = log decays of x (B,N,C).
template <class T>
void log_decay(Cpu, const DecayShape& s, const T* x, const T* w, const T* b, const T* a_log, T* y) {
  parallel_for(s.batch * s.blocks(), 4, [=](i64 begin, i64 end) {
    const Workspace<T> scores(s.rows * s.heads * s.block);
    T* const z = scores.data();
    for (i64 unit = begin; unit < end; ++unit) {
      const i64 image = unit / s.blocks(), first = unit % s.blocks() * s.block,
                count = std::min(s.block, s.tokens - first);
      detail::decay_scores(s, count, x + (image * s.tokens + first) * s.channels(), w, b, z);
      for (i64 r = 0; r < s.rows; ++r)
        for (i64 g = 0; g < s.heads; ++g) {
          const T a = std::exp(a_log[g]);
          row_map(count, z + (r * s.heads + g) * s.block, y + ((r * s.batch + image) * s.heads + g) * s.tokens + first,
                  [a](Vec<T> v) { return softplus_of(v) * -a; });
        }
    }
  });
}

/// Gradients from dy (rows,B,G,N) and y. Sums over tokens go block by block, so they do not depend on the threads.
template <class T>
void log_decay_backward(Cpu on, const DecayShape& s, const T* x, const T* w, const T* a_log, const T* y, const T* dy,
                        T* dx, T* dw, T* db, T* da_log) {
  const i64 sums = s.rows * s.width + 2 * s.heads;  // of one block: dw (rows,d), db (G), dA_log (G)
  const Workspace<T> partial(s.batch * s.blocks() * sums);
  parallel_for(s.batch * s.blocks(), 4, [=, all = partial.data()](i64 begin, i64 end) {
    const Workspace<T> scores(s.rows * s.heads * s.block);
    T* const z = scores.data();
    for (i64 unit = begin; unit < end; ++unit) {
      const i64 image = unit / s.blocks(), first = unit % s.blocks() * s.block,
                count = std::min(s.block, s.tokens - first);
      const i64 at = (image * s.tokens + first) * s.channels();
      T* const sum = all + unit * sums;
      std::fill_n(sum, sums, T(0));
      for (i64 r = 0; r < s.rows; ++r)
        for (i64 g = 0; g < s.heads; ++g) {
          const T a = std::exp(a_log[g]), softplus_of_log = T(-1) / a;
          const i64 line = ((r * s.batch + image) * s.heads + g) * s.tokens + first;
          T* const dz = z + (r * s.heads + g) * s.block;
          // ln decay = -A softplus(z + b):  dz = -A sigmoid(z + b) u,  dA_log = sum u ln decay
          row_map(count, y + line, dy + line, dz, [=](Vec<T> v, Vec<T> u) {
            return detail::sigmoid_from_softplus<T>(v * softplus_of_log) * u * -a;
          });
          sum[s.rows * s.width + g] += sum_contiguous(dz, count);
          sum[s.rows * s.width + s.heads + g] += row_dot(count, dy + line, y + line);
        }
      // z[r] = w[r] . x_head:  dx_head = sum_r dz[r] w[r],  dw[r] = sum dz[r] x_head
      for (i64 g = 0; g < s.heads; ++g)
        for (i64 c = 0; c < s.width; c += lanes<T>) {
          const i64 n = std::min(lanes<T>, s.width - c), here = at + g * s.width + c;
          const T *dz0 = z + g * s.block, *dz1 = z + (s.heads + g) * s.block;
          if (s.rows == 2)
            detail::decay_channels<T, true>(count, s.channels(), n, dz0, dz1, x + here, w + c, w + s.width + c,
                                            dx + here, sum + c, sum + s.width + c);
          else
            detail::decay_channels<T, false>(count, s.channels(), n, dz0, dz0, x + here, w + c, w + c, dx + here,
                                             sum + c, sum + c);
        }
    }
  });
  const Workspace<T> total(sums);
  sum_rows(on, s.batch * s.blocks(), sums, partial.data(), total.data());
  std::copy_n(total.data(), s.rows * s.width, dw);
  std::copy_n(total.data() + s.rows * s.width, s.heads, db);
  std::copy_n(total.data() + s.rows * s.width + s.heads, s.heads, da_log);
}

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/polyline/decay.cuh"
#endif

namespace ppma::inline PPMA_ABI {

namespace detail {

inline kernels::DecayShape check_log_decay(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                                           const Tensor& a_log) {
  check(x.defined() && x.rank() == 4, op, ": x must be (B,H,W,C), got ", x.shape());
  check(bias.defined() && a_log.defined() && bias.rank() == 1 && bias.shape() == a_log.shape(), op,
        ": dt_bias and A_log must both be (G), one number a head, got ", bias.shape(), " and ", a_log.shape());
  const i64 heads = bias.dim(0);
  check(heads > 0 && x.dim(3) % heads == 0, op, ": ", x.dim(3), " channels do not divide into ", heads, " heads");
  const i64 width = x.dim(3) / heads;
  check(weight.defined() && weight.rank() == 2 && (weight.dim(0) == 1 || weight.dim(0) == 2) && weight.dim(1) == width,
        op, ": dt_weight must be (2,", width, ") for alpha and beta, or (1,", width, ") for one shared decay; got ",
        weight.shape());
  const DType wide = accumulator_dtype(x.dtype());
  check(weight.dtype() == wide && bias.dtype() == wide && a_log.dtype() == wide, op,
        ": x is ", x.dtype(), ", the parameters are ", weight.dtype(), ", ", bias.dtype(), " and ", a_log.dtype());
  return {x.dim(0), x.dim(1) * x.dim(2), heads, width, weight.dim(0)};
}

}  // namespace detail

/// The decays of every edge, as logarithms (each <= 0), in one pass over x forward and one backward.
/// Beside a bf16 x the parameters and the result are f32.
///   x          (B,H,W,C), the normalised input of the attention
///   dt_weight  (2,d): row 0 for alpha, row 1 for beta; or (1,d): alpha = beta (one tensor, returned twice)
///   dt_bias, A_log  (G)
///   values     (rows,B,G,H,W), where they came with x (polyline/norm_decay.hpp): they are not computed again
/// Differentiable in all but the values. Source: the published network; Mamba2's dt and A (Dao and Gu, 2024).
inline LogDecay log_decay(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& A_log,
                          const Tensor& values = Tensor()) {
  const auto s = detail::check_log_decay("log_decay", x, dt_weight, dt_bias, A_log);
  const Shape shape{s.rows, s.batch, s.heads, x.dim(1), x.dim(2)};
  check(!values.defined() || values.shape() == shape, "log_decay: the values must be ", shape, ", got ", values.shape());
  Tensor y = values.defined() ? values : Tensor::empty(shape, accumulator_dtype(x.dtype()), x.device());
  if (y.numel() > 0 && !values.defined())
    visit(x.device(), x.dtype(), "log_decay", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      kernels::log_decay(on, s, x.data<T>(), dt_weight.data<A>(), dt_bias.data<A>(), A_log.data<A>(), y.data<A>());
    });
  y = record(y, "log_decay", {x, dt_weight, dt_bias, A_log},
             [s, saved_x = Saved(x), w = dt_weight.detach(), a = A_log.detach(), y = y.detach()](const Tensor& dy) {
    const auto like = [](const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); };
    const Tensor kept = saved_x.get();
    Tensor dx = like(kept), dw = like(w), db = like(a), da = like(a);
    visit(kept.device(), kept.dtype(), "log_decay", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      kernels::log_decay_backward(on, s, kept.data<T>(), w.data<A>(), a.data<A>(), y.data<A>(), dy.data<A>(), dx.data<T>(),
                                  dw.data<A>(), db.data<A>(), da.data<A>());
    });
    return Grads{dx, dw, db, da};
  });
  const Tensor log_alpha = select(y, 0, 0);  // (B,G,H,W)
  return {log_alpha, s.rows == 2 ? select(y, 0, 1) : log_alpha};
}

/// log_decay written with the library's operations, step by step: what the fused one is tested against.
inline LogDecay log_decay_composed(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias,
                                   const Tensor& A_log) {
  const auto s = detail::check_log_decay("log_decay_composed", x, dt_weight, dt_bias, A_log);
  const Shape per_head{s.heads, 1};
  const Tensor heads = reshape(x, {s.batch, s.tokens, s.heads, s.width});                              // (B,N,G,d)
  const Tensor z = matmul(heads, dt_weight, false, true);                                              // (B,N,G,rows)
  const Tensor step = softplus(z + reshape(dt_bias, per_head));                                        // (B,N,G,rows)
  const Tensor y = permute(neg(exp(reshape(A_log, per_head))) * step, {3, 0, 2, 1});                   // (rows,B,G,N)
  const Shape grid{s.batch, s.heads, x.dim(1), x.dim(2)};
  const Tensor log_alpha = reshape(select(y, 0, 0), grid);                                             // (B,G,H,W)
  return {log_alpha, s.rows == 2 ? reshape(select(y, 0, 1), grid) : log_alpha};
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
