#pragma once
// Decay factors of the polyline paths from the tokens (spec 1.2):
//
//   z[r] = Wd[r,:] . x[token, head g]                      r = 0: horizontal (alpha), r = 1: vertical (beta)
//   log alpha, log beta = -A[g] softplus(z[r] + b[g]),     A = exp(A_log) > 0, so every log decay is <= 0
//
// Wd is shared by the heads, b and A by both directions. x is the block's normalised input, not q or k.
// Legend: B batch, H W grid, G heads, d head width, C = G d channels, R rows of Wd (2; 1: alpha = beta).
//
// Backward needs only x and the results: softplus(t) = -l / A, so sigmoid(t) = 1 - exp(l / A), and
//   dz = -A sigmoid(t) dl,  dx = sum_r dz Wd[r,:],  dWd[r,:] = sum dz x,  db = sum dz,  dA_log = sum dl l.

#include <cmath>
#include <vector>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/gemm.hpp"
#include "ppma/kernels/head.hpp"
#include "ppma/kernels/simd.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

/// Logs of the decay factors, each (B,G,H,W) and <= 0. log_alpha[i,j] belongs to the edge to the left of token (i,j),
/// log_beta[i,j] to the edge above it; those of the first column and row belong to no edge.
struct LogDecay {
  Tensor log_alpha, log_beta;
};

namespace kernels {

struct DecayShape {
  i64 batch, tokens, heads, d, rows;  // tokens: H W; rows: R
};

inline constexpr i64 decay_block = 128;  // tokens a task

/// out (R,B,G,N) from x (B,N,G,d), wd (R,d), bias (G), a_log (G).
template <class T>
void log_decay(Cpu, const DecayShape& s, const T* x, const T* wd, const T* bias, const T* a_log, T* out) {
  const i64 w = lanes<T>, blocks = (s.tokens + decay_block - 1) / decay_block;
  const ZeroedWorkspace<T> weights(s.d * w);  // (d, R in one vector)
  for (i64 r = 0; r < s.rows; ++r)
    for (i64 c = 0; c < s.d; ++c) weights.data()[c * w + r] = wd[r * s.d + c];
  parallel_for(s.batch * blocks, 1 + 65536 / (decay_block * s.heads * s.d), [&](i64 begin, i64 end) {
    const ZeroedWorkspace<T> z(decay_block * s.heads * s.rows), line(decay_block + w);
    for (i64 task = begin; task < end; ++task) {
      const i64 b = task / blocks, t0 = task % blocks * decay_block, count = std::min(decay_block, s.tokens - t0);
      // Token and head are one axis of rows d long.
      multiply_small(count * s.heads, s.rows, s.d, x + (b * s.tokens + t0) * s.heads * s.d, s.d, i64{1}, weights.data(), w,
                     z.data(), s.rows, false);
      for (i64 r = 0; r < s.rows; ++r)
        for (i64 g = 0; g < s.heads; ++g) {
          for (i64 t = 0; t < count; ++t) line.data()[t] = z.data()[(t * s.heads + g) * s.rows + r];
          const T a = std::exp(a_log[g]);
          T* const to = out + ((r * s.batch + b) * s.heads + g) * s.tokens + t0;
          for (i64 t = 0; t < count; t += w)
            store_some<T>(to + t, softplus_of(load(line.data() + t) + bias[g]) * -a, std::min(w, count - t));
        }
    }
  });
}

/// Gradients of log_decay; l is its result, dl (R,B,G,N) the upstream gradient. Sums go by blocks of tokens, in order.
template <class T>
void log_decay_backward(Cpu, const DecayShape& s, const T* x, const T* wd, const T* a_log, const T* l, const T* dl, T* dx,
                        T* dwd, T* dbias, T* da_log) {
  const i64 w = lanes<T>, dp = round_to_lanes<T>(s.d), blocks = (s.tokens + decay_block - 1) / decay_block;
  const i64 sums = s.rows * dp + 2 * s.heads;  // of one block: dwd (R, dp), dbias (G), da_log (G)
  const ZeroedWorkspace<T> partial(s.batch * blocks * sums), weights(s.rows * dp);
  for (i64 r = 0; r < s.rows; ++r) std::copy_n(wd + r * s.d, s.d, weights.data() + r * dp);
  parallel_for(s.batch * blocks, 1 + 65536 / (decay_block * s.heads * s.d), [&](i64 begin, i64 end) {
    const ZeroedWorkspace<T> dz(decay_block * s.heads * s.rows), line(decay_block + w), padded(decay_block * s.heads * dp);
    for (i64 task = begin; task < end; ++task) {
      const i64 b = task / blocks, t0 = task % blocks * decay_block, count = std::min(decay_block, s.tokens - t0);
      T* const sum = partial.data() + task * sums;
      for (i64 g = 0; g < s.heads; ++g) {
        const T a = std::exp(a_log[g]);
        for (i64 r = 0; r < s.rows; ++r) {
          const i64 at = ((r * s.batch + b) * s.heads + g) * s.tokens + t0;
          Vec<T> bias_sum{}, a_sum{};
          for (i64 t = 0; t < count; t += w) {
            const i64 some = std::min(w, count - t);
            const Vec<T> lt = load_some(l + at + t, some), dlt = load_some(dl + at + t, some);
            const Vec<T> dzt = dlt * (exp_of(lt * (T(1) / a)) - T(1)) * a;
            store(line.data() + t, dzt);
            bias_sum += dzt;
            a_sum += dlt * lt;
          }
          sum[s.rows * dp + g] += lane_sum<T>(bias_sum);
          sum[s.rows * dp + s.heads + g] += lane_sum<T>(a_sum);
          for (i64 t = 0; t < count; ++t) dz.data()[(t * s.heads + g) * s.rows + r] = line.data()[t];
        }
      }
      const T* const from = x + (b * s.tokens + t0) * s.heads * s.d;
      copy_padded(count * s.heads, s.d, from, s.d, padded.data());
      multiply_small(s.rows, s.d, count * s.heads, dz.data(), i64{1}, s.rows, padded.data(), dp, sum, dp, false);
      if (dx)
        multiply_small(count * s.heads, s.d, s.rows, dz.data(), s.rows, i64{1}, weights.data(), dp,
                       dx + (b * s.tokens + t0) * s.heads * s.d, s.d, false);
    }
  });
  std::fill_n(dwd, s.rows * s.d, T(0));
  std::fill_n(dbias, s.heads, T(0));
  std::fill_n(da_log, s.heads, T(0));
  for (i64 task = 0; task < s.batch * blocks; ++task) {
    const T* const sum = partial.data() + task * sums;
    for (i64 r = 0; r < s.rows; ++r)
      for (i64 c = 0; c < s.d; ++c) dwd[r * s.d + c] += sum[r * dp + c];
    for (i64 g = 0; g < s.heads; ++g) dbias[g] += sum[s.rows * dp + g], da_log[g] += sum[s.rows * dp + s.heads + g];
  }
}

}  // namespace kernels

namespace detail {

inline void check_decay(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& a_log) {
  check(x.defined() && x.rank() == 4, "log_decay: x must be (B,H,W,C), got ", x.shape());
  check(dt_bias.defined() && a_log.defined() && dt_bias.rank() == 1 && dt_bias.shape() == a_log.shape(),
        "log_decay: dt_bias and A_log must both be (G), got ", dt_bias.shape(), " and ", a_log.shape());
  const i64 heads = dt_bias.dim(0);
  check(heads > 0 && x.dim(3) % heads == 0, "log_decay: ", x.dim(3), " channels do not divide into ", heads, " heads");
  check(dt_weight.defined() && dt_weight.rank() == 2 && (dt_weight.dim(0) == 1 || dt_weight.dim(0) == 2) &&
            dt_weight.dim(1) == x.dim(3) / heads,
        "log_decay: dt_weight must be (2,", x.dim(3) / heads, "), or (1,", x.dim(3) / heads, ") for one decay in both directions, got ",
        dt_weight.shape());
  check(dt_weight.dtype() == x.dtype() && dt_bias.dtype() == x.dtype() && a_log.dtype() == x.dtype(), "log_decay: x is ",
        x.dtype(), ", the parameters are ", dt_weight.dtype(), ", ", dt_bias.dtype(), " and ", a_log.dtype());
}

// (R,B,G,H,W) as its two directions; with R = 1 both are the same tensor.
inline LogDecay split_decay(const Tensor& packed) {
  if (packed.dim(0) == 1) {
    const Tensor one = select(packed, 0, 0);
    return {one, one};
  }
  return {select(packed, 0, 0), select(packed, 0, 1)};
}

}  // namespace detail

/// Log decay factors of the tokens x (B,H,W,C). dt_weight (2,d), or (1,d) for alpha = beta; dt_bias, A_log (G).
/// Differentiable in all four.
inline LogDecay log_decay(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& a_log) {
  detail::check_decay(x, dt_weight, dt_bias, a_log);
  const i64 heads = dt_bias.dim(0), rows = dt_weight.dim(0);
  const kernels::DecayShape s{x.dim(0), x.dim(1) * x.dim(2), heads, x.dim(3) / heads, rows};
  Tensor packed = Tensor::empty({rows, x.dim(0), heads, x.dim(1), x.dim(2)}, x.dtype(), x.device());  // (R,B,G,H,W)
  visit(x.device(), x.dtype(), "log_decay", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::log_decay(on, s, x.data<T>(), dt_weight.data<T>(), dt_bias.data<T>(), a_log.data<T>(), packed.data<T>());
  });
  const bool need_x = x.requires_grad();
  return detail::split_decay(record(packed, "log_decay", {x, dt_weight, dt_bias, a_log},
                                    [s, need_x, x = x.detach(), wd = dt_weight.detach(), a = a_log.detach(), l = packed.detach()](const Tensor& dl) {
    const auto like = [](const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); };
    Tensor dx = need_x ? like(x) : Tensor(), dwd = like(wd), dbias = like(a), da = like(a);
    visit(x.device(), x.dtype(), "log_decay", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::log_decay_backward(on, s, x.data<T>(), wd.data<T>(), a.data<T>(), l.data<T>(), dl.data<T>(),
                                  need_x ? dx.data<T>() : nullptr, dwd.data<T>(), dbias.data<T>(), da.data<T>());
    });
    return Grads{dx, dwd, dbias, da};
  }));
}

/// The same from elementary operations.
inline LogDecay log_decay_composed(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& a_log) {
  detail::check_decay(x, dt_weight, dt_bias, a_log);
  const i64 heads = dt_bias.dim(0);
  const Tensor tokens = reshape(x, Shape{x.dim(0), x.dim(1), x.dim(2), heads, x.dim(3) / heads});  // (B,H,W,G,d)
  const Tensor z = linear(tokens, dt_weight);                                                     // (B,H,W,G,R)
  const Tensor dt = softplus(add(z, reshape(dt_bias, {heads, 1})));                                // (B,H,W,G,R)
  const Tensor l = mul(dt, neg(exp(reshape(a_log, {heads, 1}))));                                  // (B,H,W,G,R)
  return detail::split_decay(permute(l, {4, 0, 3, 1, 2}));                                         // 2 x (B,G,H,W)
}

}  // namespace ppma::inline PPMA_ABI
