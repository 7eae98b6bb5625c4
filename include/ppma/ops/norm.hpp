#pragma once
// Normalisations over the channels-last layout.
//
//   layer norm (Ba et al., 2016), a row:     y = (x - mean(x)) / sqrt(var(x) + eps) * w + b
//   batch norm (Ioffe and Szegedy, 2015), a channel over everything else: the same formula; at evaluation with the
//   running mean and variance.

#include <cmath>

#include "ppma/kernels/norm.hpp"
#include "ppma/parallel/communicator.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {
inline void check_affine(const char* op, const Tensor& x, const Tensor& w, const Tensor& b) {
  check(x.defined() && w.defined() && b.defined(), op, ": x, w or b is undefined");
  check(x.rank() >= 1 && x.dim(-1) > 0 && x.numel() > 0, op, ": x must have elements, got ", x.shape());
  check(w.shape() == Shape{x.dim(-1)} && b.shape() == w.shape(), op, ": w ", w.shape(), " and b ", b.shape(),
        " must both be (", x.dim(-1), "), the last axis of x ", x.shape());
  const DType wide = accumulator_dtype(x.dtype());
  check(w.dtype() == wide && b.dtype() == wide, op, ": x is ", x.dtype(), ", w ", w.dtype(), ", b ", b.dtype(),
        "; they must have one dtype (beside bf16, f32)");
  check(w.device() == x.device() && b.device() == x.device(), op, ": x is on ", x.device(), ", w on ", w.device(), ", b on ",
        b.device(), "; move them with .to()");
}
}  // namespace detail

/// Layer norm over the last axis: x (..., C), w (C), b (C) -> (..., C). Differentiable in all three. Keeps x and two
/// numbers a row for backward.
inline Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, double eps = 1e-5) {
  detail::check_affine("layer_norm", x, w, b);
  const i64 cols = x.dim(-1), rows = x.numel() / cols;
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device()), mean, rstd;
  if (needs_grad({x, w, b})) {
    mean = Tensor::empty({rows}, w.dtype(), x.device());
    rstd = Tensor::empty({rows}, w.dtype(), x.device());
  }
  visit(x.device(), x.dtype(), "layer_norm", [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    kernels::layer_norm(on, rows, cols, x.data<T>(), w.data<A>(), b.data<A>(), static_cast<A>(eps), y.data<T>(),
                        mean.defined() ? mean.data<A>() : nullptr, mean.defined() ? rstd.data<A>() : nullptr);
  });
  const bool need_x = x.requires_grad();
  return record(y, "layer_norm", {x, w, b}, [x = x.detach(), w = w.detach(), mean, rstd, rows, cols, need_x](const Tensor& dy) {
    Tensor dx, dw = Tensor::empty(w.shape(), w.dtype(), w.device()), db = Tensor::empty(w.shape(), w.dtype(), w.device());
    if (need_x) dx = Tensor::empty(x.shape(), x.dtype(), x.device());
    visit(x.device(), x.dtype(), "layer_norm", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      kernels::layer_norm_backward(on, rows, cols, x.data<T>(), w.data<A>(), mean.data<A>(), rstd.data<A>(), dy.data<T>(),
                                   need_x ? dx.data<T>() : nullptr, dw.data<A>(), db.data<A>());
    });
    return Grads{dx, dw, db};
  });
}

/// Batch norm over all axes but the last: x (..., C), w (C), b (C) -> (..., C). Differentiable in all three.
/// Training normalises with the batch's biased variance and moves the running statistics (C), in place, by `momentum`
/// towards the batch's mean and unbiased variance. Evaluation normalises with the running statistics.
/// With `among`, training takes the statistics of all processes' batches together, forward and backward: one sum of two
/// numbers a channel each way. Gradients of w and b are those of this process's part.
/// Errors: shapes or dtypes that do not fit; training on a single value per channel (its variance is unknown).
inline Tensor batch_norm(const Tensor& x, const Tensor& w, const Tensor& b, Tensor& running_mean, Tensor& running_var,
                         bool training, double momentum = 0.1, double eps = 1e-5, const Communicator* among = nullptr) {
  detail::check_affine("batch_norm", x, w, b);
  check(running_mean.defined() && running_var.defined() && running_mean.shape() == w.shape() &&
            running_var.shape() == w.shape(),
        "batch_norm: running_mean ", running_mean.shape(), " and running_var ", running_var.shape(), " must both be (",
        x.dim(-1), ")");
  check(running_mean.dtype() == w.dtype() && running_var.dtype() == w.dtype(), "batch_norm: x is ", x.dtype(),
        ", the running statistics ", running_mean.dtype(), " and ", running_var.dtype(), "; they must have one dtype (beside bf16, f32)");
  check(running_mean.device() == x.device() && running_var.device() == x.device(), "batch_norm: x is on ", x.device(),
        ", the running statistics are not; move them with .to()");
  const i64 cols = x.dim(-1), rows = x.numel() / cols;
  if (!training || (among != nullptr && among->size == 1)) among = nullptr;
  check(!training || rows > 1 || among != nullptr, "batch_norm: training needs more than one value per channel, x is ", x.shape(),
        "; use a larger batch or evaluate");
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const auto per_channel = [&w] { return Tensor::empty(w.shape(), w.dtype(), w.device()); };
  Tensor mean = per_channel(), rstd = per_channel();  // (C)
  Tensor total;                                       // () rows of all processes

  visit(x.device(), x.dtype(), "batch_norm", [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    A *const m = mean.data<A>(), *const s = rstd.data<A>();
    if (training) kernels::column_statistics(on, rows, cols, x.data<T>(), m, s);
    if (among != nullptr) {
      const i64 part = 2 * cols + 1, bytes = cols * static_cast<i64>(sizeof(A));
      Tensor all = Tensor::zeros({among->size, part}, w.dtype(), w.device());
      A* const mine = all.data<A>() + among->rank * part;
      copy_bytes(mine, w.device(), m, w.device(), bytes), copy_bytes(mine + cols, w.device(), s, w.device(), bytes);
      kernels::channels(on, 1, kernels::PutNumber<A>{static_cast<A>(rows), mine + 2 * cols});
      among->all_reduce_sum(all);
      total = Tensor::empty({}, w.dtype(), w.device());
      kernels::channels(on, cols, kernels::JoinParts<A>{among->size, cols, all.data<A>(), m, s, total.data<A>()});
    }
    Tensor scale = per_channel();  // rstd w
    const auto n = static_cast<double>(rows);
    kernels::channels(on, cols, kernels::BatchNormFactors<A>{training, static_cast<A>(momentum), static_cast<A>(n / (n - 1)),
                      static_cast<A>(eps), w.data<A>(), running_mean.data<A>(), running_var.data<A>(), m, s, scale.data<A>(), total.defined() ? total.data<A>() : nullptr});
    kernels::normalize_columns(on, rows, cols, x.data<T>(), m, scale.data<A>(), b.data<A>(), y.data<T>());
  });

  const bool need_x = x.requires_grad();
  return record(y, "batch_norm", {x, w, b}, [x = x.detach(), w = w.detach(), mean, rstd, total, among, rows, cols, training, need_x](const Tensor& dy) {
    const auto like_w = [&w] { return Tensor::empty(w.shape(), w.dtype(), w.device()); };
    Tensor dx, dw = like_w(), db = like_w();
    visit(x.device(), x.dtype(), "batch_norm", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      A *const pw = dw.data<A>(), *const pb = db.data<A>();
      // y = (x - mean) rstd w + b:  db = sum dy,  dw = rstd sum dy (x - mean)
      kernels::column_gradient_sums(on, rows, cols, x.data<T>(), mean.data<A>(), dy.data<T>(), pb, pw);
      Tensor factors = Tensor::empty({3, cols}, w.dtype(), w.device());
      A *const a = need_x ? factors.data<A>() : nullptr, *const k = need_x ? a + cols : nullptr, *const shift = need_x ? k + cols : nullptr;
      const A *const pr = rstd.data<A>(), *const pt = total.defined() ? total.data<A>() : nullptr;
      const kernels::BatchNormBack<A> back{training, static_cast<A>(rows), w.data<A>(), pr, pb, pw, a, k, shift, pt};
      if (among != nullptr && need_x) {  // dx takes the sums over all processes, w and b those of this one
        const i64 bytes = cols * static_cast<i64>(sizeof(A));
        Tensor sums = Tensor::empty({2, cols}, w.dtype(), w.device());
        A *const all_b = sums.data<A>(), *const all_w = all_b + cols;
        copy_bytes(all_b, w.device(), pb, w.device(), bytes), copy_bytes(all_w, w.device(), pw, w.device(), bytes);
        among->all_reduce_sum(sums);
        kernels::BatchNormBack<A> joint = back, own = back;
        joint.db = all_b, joint.dw = all_w, own.a = nullptr;
        kernels::channels(on, cols, joint), kernels::channels(on, cols, own);
      } else {
        kernels::channels(on, cols, back);
      }
      if (!need_x) return;
      dx = Tensor::empty(x.shape(), x.dtype(), x.device());
      kernels::batch_norm_dx(on, rows, cols, dy.data<T>(), x.data<T>(), mean.data<A>(), a, k, shift, dx.data<T>());
    });
    return Grads{dx, dw, db};
  });
}

/// Adds 1 to an int64 count where it lies.
inline void count_up(Tensor& count) {
  visit(count.device(), DType::f32, "count_up", [&](auto on, auto) { kernels::channels(on, 1, kernels::CountUp{count.data<i64>()}); });
}

}  // namespace ppma::inline PPMA_ABI
