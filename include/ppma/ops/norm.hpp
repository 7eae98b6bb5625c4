#pragma once
// Normalisations over the channels-last layout.
//
//   layer norm (Ba et al., 2016), a row:     y = (x - mean(x)) / sqrt(var(x) + eps) * w + b
//   batch norm (Ioffe and Szegedy, 2015), a channel over everything else: the same formula; at evaluation with the
//   running mean and variance.

#include <cmath>

#include "ppma/kernels/norm.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {
inline void check_affine(const char* op, const Tensor& x, const Tensor& w, const Tensor& b) {
  check(x.defined() && w.defined() && b.defined(), op, ": x, w or b is undefined");
  check(x.rank() >= 1 && x.dim(-1) > 0 && x.numel() > 0, op, ": x must have elements, got ", x.shape());
  check(w.shape() == Shape{x.dim(-1)} && b.shape() == w.shape(), op, ": w ", w.shape(), " and b ", b.shape(),
        " must both be (", x.dim(-1), "), the last axis of x ", x.shape());
  check(x.dtype() == w.dtype() && x.dtype() == b.dtype(), op, ": x is ", x.dtype(), ", w ", w.dtype(), ", b ", b.dtype(),
        "; they must have one dtype");
}
}  // namespace detail

/// Layer norm over the last axis: x (..., C), w (C), b (C) -> (..., C). Differentiable in all three. Keeps x and two
/// numbers a row for backward.
inline Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, double eps = 1e-5) {
  detail::check_affine("layer_norm", x, w, b);
  const i64 cols = x.dim(-1), rows = x.numel() / cols;
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device()), mean, rstd;
  if (needs_grad({x, w, b})) {
    mean = Tensor::empty({rows}, x.dtype(), x.device());
    rstd = Tensor::empty({rows}, x.dtype(), x.device());
  }
  visit(x.device(), x.dtype(), "layer_norm", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::layer_norm(on, rows, cols, x.data<T>(), w.data<T>(), b.data<T>(), static_cast<T>(eps), y.data<T>(),
                        mean.defined() ? mean.data<T>() : nullptr, mean.defined() ? rstd.data<T>() : nullptr);
  });
  const bool need_x = x.requires_grad();
  return record(y, "layer_norm", {x, w, b}, [x = x.detach(), w = w.detach(), mean, rstd, rows, cols, need_x](const Tensor& dy) {
    Tensor dx, dw = Tensor::empty(w.shape(), w.dtype(), w.device()), db = Tensor::empty(w.shape(), w.dtype(), w.device());
    if (need_x) dx = Tensor::empty(x.shape(), x.dtype(), x.device());
    visit(x.device(), x.dtype(), "layer_norm", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::layer_norm_backward(on, rows, cols, x.data<T>(), w.data<T>(), mean.data<T>(), rstd.data<T>(), dy.data<T>(),
                                   need_x ? dx.data<T>() : nullptr, dw.data<T>(), db.data<T>());
    });
    return Grads{dx, dw, db};
  });
}

/// Batch norm over all axes but the last: x (..., C), w (C), b (C) -> (..., C). Differentiable in all three.
/// Training normalises with the batch's biased variance and moves the running statistics (C), in place, by `momentum`
/// towards the batch's mean and unbiased variance. Evaluation normalises with the running statistics.
/// Errors: shapes or dtypes that do not fit; training on a single value per channel (its variance is unknown).
inline Tensor batch_norm(const Tensor& x, const Tensor& w, const Tensor& b, Tensor& running_mean, Tensor& running_var,
                         bool training, double momentum = 0.1, double eps = 1e-5) {
  detail::check_affine("batch_norm", x, w, b);
  check(running_mean.defined() && running_var.defined() && running_mean.shape() == w.shape() &&
            running_var.shape() == w.shape(),
        "batch_norm: running_mean ", running_mean.shape(), " and running_var ", running_var.shape(), " must both be (",
        x.dim(-1), ")");
  check(running_mean.dtype() == x.dtype() && running_var.dtype() == x.dtype(), "batch_norm: x is ", x.dtype(),
        ", the running statistics ", running_mean.dtype(), " and ", running_var.dtype(), "; they must have one dtype");
  const i64 cols = x.dim(-1), rows = x.numel() / cols;
  check(!training || rows > 1, "batch_norm: training needs more than one value per channel, x is ", x.shape(),
        "; use a larger batch or evaluate");
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const auto per_channel = [&w] { return Tensor::empty(w.shape(), w.dtype(), w.device()); };
  Tensor mean = per_channel(), rstd = per_channel();  // (C)

  visit(x.device(), x.dtype(), "batch_norm", [&](auto on, auto t) {
    using T = decltype(t);
    T *const m = mean.data<T>(), *const s = rstd.data<T>();
    T *const run_m = running_mean.data<T>(), *const run_v = running_var.data<T>();
    if (training) {
      kernels::column_statistics(on, rows, cols, x.data<T>(), m, s);
      const T unbiased = static_cast<T>(static_cast<double>(rows) / static_cast<double>(rows - 1));
      const T rate = static_cast<T>(momentum);
      for (i64 c = 0; c < cols; ++c) {
        run_m[c] += rate * (m[c] - run_m[c]);
        run_v[c] += rate * (s[c] * unbiased - run_v[c]);
      }
    } else {
      std::copy_n(run_m, cols, m);
      std::copy_n(run_v, cols, s);
    }
    Tensor scale = per_channel();  // rstd w
    for (i64 c = 0; c < cols; ++c) {
      s[c] = T(1) / std::sqrt(s[c] + static_cast<T>(eps));
      scale.data<T>()[c] = s[c] * w.data<T>()[c];
    }
    kernels::normalize_columns(on, rows, cols, x.data<T>(), m, scale.data<T>(), b.data<T>(), y.data<T>());
  });

  const bool need_x = x.requires_grad();
  return record(y, "batch_norm", {x, w, b}, [x = x.detach(), w = w.detach(), mean, rstd, rows, cols, training, need_x](const Tensor& dy) {
    const auto like_w = [&w] { return Tensor::empty(w.shape(), w.dtype(), w.device()); };
    Tensor dx, dw = like_w(), db = like_w();
    visit(x.device(), x.dtype(), "batch_norm", [&](auto on, auto t) {
      using T = decltype(t);
      T *const pw = dw.data<T>(), *const pb = db.data<T>();
      // y = (x - mean) rstd w + b:  db = sum dy,  dw = rstd sum dy (x - mean)
      kernels::column_gradient_sums(on, rows, cols, x.data<T>(), mean.data<T>(), dy.data<T>(), pb, pw);
      for (i64 c = 0; c < cols; ++c) pw[c] *= rstd.data<T>()[c];
      if (!need_x) return;
      // evaluation:  dx = rstd w dy;  training, with xhat = (x - mean) rstd:  dx = rstd w (dy - db / n - xhat dw / n)
      Tensor a = like_w(), k = like_w(), shift = like_w();
      for (i64 c = 0; c < cols; ++c) {
        const T s = rstd.data<T>()[c], n = static_cast<T>(rows);
        a.data<T>()[c] = s * w.data<T>()[c];
        k.data<T>()[c] = training ? -s * w.data<T>()[c] * s * pw[c] / n : T(0);
        shift.data<T>()[c] = training ? -s * w.data<T>()[c] * pb[c] / n : T(0);
      }
      dx = Tensor::empty(x.shape(), x.dtype(), x.device());
      kernels::batch_norm_dx(on, rows, cols, dy.data<T>(), x.data<T>(), mean.data<T>(), a.data<T>(), k.data<T>(),
                             shift.data<T>(), dx.data<T>());
    });
    return Grads{dx, dw, db};
  });
}

}  // namespace ppma::inline PPMA_ABI
