#pragma once
#include "ppma/core/names_begin.hpp"
// Normalisations over the channels-last layout.
//
//   layer norm (Ba et al., 2016), a row:     y = (x - mean(x)) / sqrt(var(x) + eps) * w + b
//   batch norm (Ioffe and Szegedy, 2015), a channel over everything else: the same formula; at
//   evaluation with the
//   running mean and variance.

#include <functional>

#include "ppma/parallel/communicator.hpp"

namespace ppma::inline PPMA_ABI {

/// Layer norm over the last axis: x (..., C), w (C), b (C) -> (..., C). Differentiable in all
/// three. Keeps x and two numbers a row for backward; operations that need its result there make it
/// from x again where that is worth it (tensor/saved.hpp).
PPMA_API Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, double eps = 1e-5);

/// Batch norm over all axes but the last: x (..., C), w (C), b (C) -> (..., C). Differentiable in
/// all three.
/// Training normalises with the batch's biased variance and moves the running statistics (C), in
/// place, by `momentum` towards the batch's mean and unbiased variance. Evaluation normalises with
/// the running statistics.
/// With `among`, training takes the statistics of all processes' batches together, forward and
/// backward: one sum of two numbers a channel each way. Gradients of w and b are those of this
/// process's part.
/// Errors: shapes or dtypes that do not fit; training on a single value per channel (its variance
/// is unknown).
PPMA_API Tensor batch_norm(const Tensor& x, const Tensor& w, const Tensor& b, Tensor& running_mean,
                           Tensor& running_var, bool training, double momentum = 0.1,
                           double eps = 1e-5, const Communicator* among = nullptr);

/// gelu(batch_norm(...)) in the passes of the norm, forward and backward.
PPMA_API Tensor batch_norm_gelu(const Tensor& x, const Tensor& w, const Tensor& b,
                                Tensor& running_mean, Tensor& running_var, bool training,
                                double momentum = 0.1, double eps = 1e-5,
                                const Communicator* among = nullptr);

/// relu(batch_norm(...)), likewise.
PPMA_API Tensor batch_norm_relu(const Tensor& x, const Tensor& w, const Tensor& b,
                                Tensor& running_mean, Tensor& running_var, bool training,
                                double momentum = 0.1, double eps = 1e-5,
                                const Communicator* among = nullptr);

/// batch_norm_gelu(), op by op.
PPMA_API Tensor batch_norm_gelu_composed(const Tensor& x, const Tensor& w, const Tensor& b,
                                         Tensor& running_mean, Tensor& running_var, bool training,
                                         double momentum = 0.1, double eps = 1e-5,
                                         const Communicator* among = nullptr);

/// Adds 1 to an int64 count where it lies.
PPMA_API void count_up(Tensor& count);

namespace detail {

/// A layer norm whose values y and statistics (undefined: not wanted) run(y, mean, rstd) computes.
/// Where it does not write y, backward makes y of any size again. Where something is recorded,
/// `record_y`, if given, puts y on the tape in the place of a norm's own operation, and returns it.
PPMA_API Tensor layer_norm_by(const Tensor& x, const Tensor& w, const Tensor& b, double eps,
                              const std::function<void(Tensor& y, Tensor& mean, Tensor& rstd)>& run,
                              bool writes_y = true,
                              const std::function<Tensor(const Tensor& y, const Tensor& mean,
                                                         const Tensor& rstd)>& record_y = {});

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_NORM)

#include "ppma/kernels/activation.hpp"
#include "ppma/kernels/cpu/batch_norm.hpp"
#include "ppma/kernels/cpu/norm.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/elementwise.hpp"
#include "ppma/tensor/autograd.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cuda/fast_gelu.cuh"
namespace ppma::inline PPMA_ABI::kernels::detail {
template <>
struct Narrow<functions::Gelu> {
  struct type {
    __device__ __forceinline__ float f(float z) const { return FastGelu::value(z); }
    __device__ __forceinline__ float df(float z) const { return FastGelu::slope(z); }
  };
};
}  // namespace ppma::inline PPMA_ABI::kernels::detail
#endif

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void check_affine(const char* op, const Tensor& x, const Tensor& w, const Tensor& b) {
  check(x.defined() && w.defined() && b.defined(), op, ": x, w or b is undefined");
  check(x.rank() >= 1 && x.dim(-1) > 0 && x.numel() > 0, op, ": x must have elements, got ",
        x.shape());
  check(w.shape() == Shape{x.dim(-1)} && b.shape() == w.shape(), op, ": w ", w.shape(), " and b ",
        b.shape(), " must both be (", x.dim(-1), "), the last axis of x ", x.shape());
  const DType wide = accumulator_dtype(x.dtype());
  check(w.dtype() == wide && b.dtype() == wide, op, ": x is ", x.dtype(), ", w ", w.dtype(), ", b ",
        b.dtype(), "; they must have one dtype (beside bf16, f32)");
  check(w.device() == x.device() && b.device() == x.device(), op, ": x is on ", x.device(),
        ", w on ", w.device(), ", b on ", b.device(), "; move them with .to()");
}

Tensor layer_norm_by(
    const Tensor& x, const Tensor& w, const Tensor& b, double eps,
    const std::function<void(Tensor&, Tensor&, Tensor&)>& run, bool writes_y,
    const std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)>& record_y) {
  check_affine("layer_norm", x, w, b);
  const i64 cols = x.dim(-1), rows = x.numel() / cols;
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device()), mean, rstd;
  if (needs_grad({x, w, b})) {
    mean = Tensor::empty({rows}, w.dtype(), x.device());
    rstd = Tensor::empty({rows}, w.dtype(), x.device());
  }
  run(y, mean, rstd);
  const bool need_x = x.requires_grad();
  const Saved saved_x(x);
  if (record_y && mean.defined())
    y = record_y(y, mean, rstd);
  else
    y = record(y, "layer_norm", {x, w, b},
               [saved_x, w = w.detach(), mean, rstd, rows, cols, need_x](const Tensor& dy) {
                 const Tensor kept = saved_x.get();
                 Tensor dx, dw = Tensor::empty(w.shape(), w.dtype(), w.device()),
                            db = Tensor::empty(w.shape(), w.dtype(), w.device());
                 if (need_x) dx = gradient_so_far(0);
                 const bool accumulate = dx.defined();
                 if (need_x && !accumulate)
                   dx = Tensor::empty(kept.shape(), kept.dtype(), kept.device());
                 visit(kept.device(), kept.dtype(), "layer_norm", [&](auto on, auto t) {
                   using T = decltype(t);
                   using A = acc_t<T>;
                   kernels::layer_norm_backward(on, rows, cols, kept.data<T>(), w.data<A>(),
                                                mean.data<A>(), rstd.data<A>(), dy.data<T>(),
                                                need_x ? dx.data<T>() : nullptr, accumulate,
                                                dw.data<A>(), db.data<A>());
                 });
                 return Grads{dx, dw, db};
               });
  if (!saved_x.kept()) return y;  // one step from what is kept, not a chain of them
  if (writes_y && !worth_making_again(y)) return y;
  return made_again(y, [x = x.detach(), w = w.detach(), b = b.detach(), rows, cols, eps] {
    Tensor again = Tensor::empty(x.shape(), x.dtype(), x.device());
    visit(x.device(), x.dtype(), "layer_norm", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      A* const unkept = nullptr;
      kernels::layer_norm(on, rows, cols, x.data<T>(), w.data<A>(), b.data<A>(),
                          static_cast<A>(eps), again.data<T>(), unkept, unkept);
    });
    return again;
  });
}

}  // namespace detail

Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, double eps) {
  return detail::layer_norm_by(x, w, b, eps, [&](Tensor& y, Tensor& mean, Tensor& rstd) {
    visit(x.device(), x.dtype(), "layer_norm", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      const i64 cols = x.dim(-1);
      kernels::layer_norm(on, x.numel() / cols, cols, x.data<T>(), w.data<A>(), b.data<A>(),
                          static_cast<A>(eps), y.data<T>(), detail::data_or_null<A>(mean),
                          detail::data_or_null<A>(rstd));
    });
  });
}

namespace detail {

enum class AfterNorm { nothing, gelu, relu };

// Calls f(activation): only what works on the elements is compiled for each.
template <class F>
void with_activation(AfterNorm after, F&& f) {
  if (after == AfterNorm::gelu)
    f(functions::Gelu{});
  else if (after == AfterNorm::relu)
    f(functions::Relu{});
  else
    f(kernels::NoActivation{});
}

// The batch norm of x, or an activation of it, in the passes of the norm.
inline Tensor batch_norm_with(const char* op, AfterNorm after, const Tensor& x, const Tensor& w,
                              const Tensor& b, Tensor& running_mean, Tensor& running_var,
                              bool training, double momentum, double eps,
                              const Communicator* among) {
  check_affine(op, x, w, b);
  check(running_mean.defined() && running_var.defined() && running_mean.shape() == w.shape() &&
            running_var.shape() == w.shape(),
        op, ": running_mean ", running_mean.shape(), " and running_var ", running_var.shape(),
        " must both be (", x.dim(-1), ")");
  check(running_mean.dtype() == w.dtype() && running_var.dtype() == w.dtype(), op, ": x is ",
        x.dtype(), ", the running statistics ", running_mean.dtype(), " and ", running_var.dtype(),
        "; they must have one dtype (beside bf16, f32)");
  check(running_mean.device() == x.device() && running_var.device() == x.device(), op, ": x is on ",
        x.device(), ", the running statistics are not; move them with .to()");
  const i64 cols = x.dim(-1), rows = x.numel() / cols;
  if (!training || (among != nullptr && among->size == 1)) among = nullptr;
  check(!training || rows > 1 || among != nullptr, op,
        ": training needs more than one value per channel, x is ", x.shape(),
        "; use a larger batch or evaluate");
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const auto per_channel = [&w] { return Tensor::empty(w.shape(), w.dtype(), w.device()); };
  Tensor mean = per_channel(), rstd = per_channel(), scale = per_channel();  // (C); scale: rstd w
  Tensor total;  // () rows of all processes

  visit(x.device(), x.dtype(), op, [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    A *const m = mean.data<A>(), *const s = rstd.data<A>();
    const auto n = static_cast<double>(rows);
    const kernels::BatchNormFactors<A> factors{
        training,    static_cast<A>(momentum), static_cast<A>(n / (n - 1)), static_cast<A>(eps),
        w.data<A>(), running_mean.data<A>(),   running_var.data<A>(),       m,
        s,           scale.data<A>()};
    if (among == nullptr) {
      if (training) kernels::column_statistics(on, rows, cols, x.data<T>(), m, s);
      kernels::channels(on, cols, factors);
    } else {
      const i64 part = 2 * cols + 1, begin = among->rank * part;
      Tensor all = Tensor::empty({among->size, part}, w.dtype(), w.device());
      A* const mine = all.data<A>() + begin;
      kernels::column_statistics(on, rows, cols, x.data<T>(), mine, mine + cols);
      kernels::channels(
          on, all.numel(),
          kernels::PutPart<A>{begin, begin + part, static_cast<A>(rows), all.data<A>()});
      among->all_reduce_sum(all);
      total = Tensor::empty({}, w.dtype(), w.device());
      kernels::channels(on, cols,
                        kernels::JoinParts<A>{among->size, cols, std::as_const(all).data<A>(),
                                              total.data<A>(), factors});
    }
    with_activation(after, [&](auto act) {
      kernels::normalize_columns(on, rows, cols, x.data<T>(), m, scale.data<A>(), b.data<A>(),
                                 y.data<T>(), act);
    });
  });

  const bool need_x = x.requires_grad();
  const Saved saved_x(x);
  y = record(
      y, op, {x, w, b},
      [op, after, saved_x, w = w.detach(), b = b.detach(), scale, mean, rstd, total, among, rows,
       cols, training, need_x](const Tensor& dy) {
        const Tensor kept = saved_x.get();
        const auto like_w = [&w] { return Tensor::empty(w.shape(), w.dtype(), w.device()); };
        Tensor dx, dz = dy, dw = like_w(), db = like_w();  // y = act(z)
        const bool activated = after != AfterNorm::nothing;
        if (activated) {
          dz = Tensor();  // one handle less on dy
          dz = room_for_gradient(dy);
        }
        visit(kept.device(), kept.dtype(), op, [&](auto on, auto t) {
          using T = decltype(t);
          using A = acc_t<T>;
          A *const pw = dw.data<A>(), *const pb = db.data<A>();
          Tensor factors = Tensor::empty({3, cols}, w.dtype(), w.device());
          A *const a = need_x ? factors.data<A>() : nullptr, *const k = need_x ? a + cols : nullptr,
                   *const shift = need_x ? k + cols : nullptr;
          const A *const pr = rstd.data<A>(), *const pt =
                                                  total.defined() ? total.data<A>() : nullptr;
          // dx takes the sums over all processes, w and b those of this one
          const bool shared = among != nullptr && need_x;
          Tensor sums = shared ? Tensor::empty({2, cols}, w.dtype(), w.device()) : Tensor();
          A *const sum_b = shared ? sums.data<A>() : pb, *const sum_w = shared ? sum_b + cols : pw;
          // z = (x - mean) rstd w + b:  db = sum dz,  dw = rstd sum dz (x - mean)
          with_activation(after, [&](auto act) {
            kernels::column_gradient_sums(on, rows, cols, kept.data<T>(), mean.data<A>(),
                                          dy.data<T>(), sum_b, sum_w, scale.data<A>(), b.data<A>(),
                                          activated ? dz.data<T>() : nullptr, act);
          });
          if (shared) {
            kernels::channels(on, cols, kernels::OwnSums<A>{pr, sum_b, sum_w, pb, pw});
            among->all_reduce_sum(sums);
          }
          kernels::channels(on, cols,
                            kernels::BatchNormBack<A>{training, static_cast<A>(rows), w.data<A>(),
                                                      pr, sum_b, sum_w, a, k, shift, pt});
          if (!need_x) return;
          dx = activated ? dz : Tensor::empty(kept.shape(), kept.dtype(), kept.device());
          kernels::batch_norm_dx(on, rows, cols, dz.data<T>(), kept.data<T>(), mean.data<A>(), a, k,
                                 shift, dx.data<T>());
        });
        return Grads{dx, dw, db};
      });
  if (!saved_x.kept()) return y;
  return made_again(y, [op, after, x = x.detach(), b = b.detach(), mean, scale, rows, cols] {
    Tensor again = Tensor::empty(x.shape(), x.dtype(), x.device());
    visit(x.device(), x.dtype(), op, [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      with_activation(after, [&](auto act) {
        kernels::normalize_columns(on, rows, cols, x.data<T>(), mean.data<A>(), scale.data<A>(),
                                   b.data<A>(), again.data<T>(), act);
      });
    });
    return again;
  });
}

}  // namespace detail

Tensor batch_norm(const Tensor& x, const Tensor& w, const Tensor& b, Tensor& running_mean,
                  Tensor& running_var, bool training, double momentum, double eps,
                  const Communicator* among) {
  return detail::batch_norm_with("batch_norm", detail::AfterNorm::nothing, x, w, b, running_mean,
                                 running_var, training, momentum, eps, among);
}

Tensor batch_norm_gelu(const Tensor& x, const Tensor& w, const Tensor& b, Tensor& running_mean,
                       Tensor& running_var, bool training, double momentum, double eps,
                       const Communicator* among) {
  return detail::batch_norm_with("batch_norm_gelu", detail::AfterNorm::gelu, x, w, b, running_mean,
                                 running_var, training, momentum, eps, among);
}

Tensor batch_norm_relu(const Tensor& x, const Tensor& w, const Tensor& b, Tensor& running_mean,
                       Tensor& running_var, bool training, double momentum, double eps,
                       const Communicator* among) {
  return detail::batch_norm_with("batch_norm_relu", detail::AfterNorm::relu, x, w, b, running_mean,
                                 running_var, training, momentum, eps, among);
}

Tensor batch_norm_gelu_composed(const Tensor& x, const Tensor& w, const Tensor& b,
                                Tensor& running_mean, Tensor& running_var, bool training,
                                double momentum, double eps, const Communicator* among) {
  return gelu(batch_norm(x, w, b, running_mean, running_var, training, momentum, eps, among));
}

void count_up(Tensor& count) {
  visit(count.device(), DType::f32, "count_up",
        [&](auto on, auto) { kernels::channels(on, 1, kernels::CountUp{count.data<i64>()}); });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
