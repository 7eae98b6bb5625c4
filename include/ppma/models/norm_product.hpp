#pragma once
#include "ppma/core/names_begin.hpp"
// A layer norm with what reads its tokens, which on a GPU is one kernel where there is one: the
// mask's log decays, or the products of linear layers; the normalised tokens need not be written,
// or not be read again. Legend: B batch, H W grid, C channels, G heads.

#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

struct NormedTokens {
  Tensor x;           // (B,H,W,C)
  Tensor log_decays;  // (2 or 1,B,G,H,W): their log_decay(); undefined: not computed
};

/// layer_norm(x), x (B,H,W,C). On a GPU with log_decay() of the result, in one pass: the tokens
/// need not be read again. Nor are they in backward, where it has a kernel for both. Differentiable
/// in all.
PPMA_API NormedTokens layer_norm_log_decay(const Tensor& x, const Tensor& w, const Tensor& b,
                                           double eps, const Tensor& dt_weight,
                                           const Tensor& dt_bias, const Tensor& A_log);

/// to(norm(x)), x (B,H,W,C). On a GPU one kernel where it has one: the normalised tokens are not
/// stored, and made again for backward. So are its results, three times as large as x, where they
/// are many.
PPMA_API Tensor norm_linear(const Tensor& x, const LayerNorm& norm, const Linear& to);

/// gelu(norm_linear(x, norm, to)) where that is one kernel: of few tokens on a GPU that nothing is
/// recorded of. Undefined elsewhere, where GELU is better part of what follows.
PPMA_API Tensor norm_linear_gelu(const Tensor& x, const LayerNorm& norm, const Linear& to);

/// conv(h) + h with h = gelu(norm_linear(x, norm, to)), where that is one kernel: of so few images
/// on a GPU that they fill it once, and that nothing is recorded of. Undefined elsewhere.
PPMA_API Tensor norm_linear_gelu_conv(const Tensor& x, const LayerNorm& norm, const Linear& to,
                                      const DepthwiseConv2d& conv);

}  // namespace ppma::inline PPMA_ABI

// Kernels on the GPU alone: a source that nvcc compiles there.
#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NORM_DECAY)

#include <array>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "ppma/ops/norm.hpp"
#include "ppma/ops/weights.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/tensor/autograd.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cpu/decay.hpp"
#include "ppma/kernels/cuda/feed_forward.cuh"
#include "ppma/kernels/cuda/norm_decay.cuh"
#include "ppma/kernels/cuda/norm_decay_backward.cuh"
#include "ppma/kernels/cuda/norm_product_run.cuh"
#endif

namespace ppma::inline PPMA_ABI {

#if PPMA_CUDA
namespace detail {
// What log decays are made of, beside the tokens.
struct DecayParameters {
  const Tensor &weight, &bias, &a_log;  // dt_weight, dt_bias, A_log
};

// y = layer_norm(x, w, b) and its log decays, whose values were computed, put on the tape as
// results of one operation: each leaves its gradient for an older one, whose turn comes when both
// have. What that one gives and is given by them has no elements.
inline NormedTokens record_with_decays(const Tensor& x, const Tensor& w, const Tensor& b,
                                       const Tensor& mean, const Tensor& rstd,
                                       const kernels::DecayShape& s, const DecayParameters& of,
                                       const NormedTokens& values) {
  const auto left = std::make_shared<NormedTokens>();  // gradients of the two
  const std::vector<Tensor> inputs{x, w, b, of.weight, of.bias, of.a_log};
  std::vector<Tensor> read{Tensor()};  // likewise, but the first
  for (std::size_t i = 1; i < inputs.size(); ++i) read.push_back(inputs[i].detach());
  const auto back = [left, saved_x = Saved(x), read, s, mean, rstd, need_x = x.requires_grad(),
                     logs = values.log_decays.detach()](const Tensor&) {
    const Tensor kept = saved_x.get();
    Tensor &dy = left->x, &dlogs = left->log_decays;
    Tensor dx;
    if (need_x) dx = gradient_so_far(0);
    const bool accumulate = dx.defined();
    if (need_x && !accumulate) dx = Tensor::empty(kept.shape(), kept.dtype(), kept.device());
    Grads grads{dx};
    for (std::size_t i = 1; i < read.size(); ++i)
      grads.push_back(i < 3 || dlogs.defined()
                          ? Tensor::empty(read[i].shape(), read[i].dtype(), read[i].device())
                          : Tensor());
    // nothing came of one of the results
    if (!dy.defined()) dy = Tensor::zeros(kept.shape(), kept.dtype(), kept.device());
    if (!dlogs.defined()) dlogs = Tensor::zeros(logs.shape(), logs.dtype(), logs.device());
    visit(kept.device(), kept.dtype(), "layer_norm_log_decay", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      if constexpr (std::is_same_v<decltype(on), Cuda>)
        kernels::layer_norm_log_decay_backward(
            on, s, kept.data<T>(), read[1].data<A>(), read[2].data<A>(), mean.data<A>(),
            rstd.data<A>(), read[3].data<A>(), read[5].data<A>(), logs.data<A>(),
            std::as_const(dy).data<T>(), std::as_const(dlogs).data<A>(), data_or_null<T>(dx),
            accumulate, grads[1].data<A>(), grads[2].data<A>(), data_or_null<A>(grads[3]),
            data_or_null<A>(grads[4]), data_or_null<A>(grads[5]));
    });
    return grads;
  };
  const Tensor both =
      record(Tensor::empty({0}, x.dtype(), x.device()), "layer_norm_log_decay", inputs, back);
  const auto leaves = [left, type = x.dtype()](Tensor NormedTokens::*which) {
    return [left, type, which](const Tensor& gradient) {
      const bool first = !left->x.defined() && !left->log_decays.defined();
      (*left).*which = gradient;
      return Grads{first ? Tensor::empty({0}, type, gradient.device()) : Tensor()};
    };
  };
  return {record(values.x, "layer_norm", {both}, leaves(&NormedTokens::x)),
          record(values.log_decays, "log_decay", {both}, leaves(&NormedTokens::log_decays))};
}

// layer_norm_by() with the log decays of its result, which run(y, mean, rstd, log_decays) computes
// as well.
template <class F>
NormedTokens layer_norm_decays_by(const Tensor& x, const Tensor& w, const Tensor& b, double eps,
                                  const DecayParameters& of, const F& run, bool writes_y = true) {
  const auto s = check_log_decay("layer_norm_log_decay", x, of.weight, of.bias, of.a_log);
  Tensor log_decays =
      Tensor::empty({s.rows, s.batch, s.heads, x.dim(1), x.dim(2)}, w.dtype(), x.device());
  bool together = false;  // their gradients
  visit(x.device(), x.dtype(), "layer_norm_log_decay", [&](auto, auto t) {
    together = needs_grad({x, w, b}) && kernels::has_layer_norm_log_decay_backward<decltype(t)>(s);
  });
  std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)> record_both;
  if (together)
    record_both = [&](const Tensor& y, const Tensor& mean, const Tensor& rstd) {
      NormedTokens both = record_with_decays(x, w, b, mean, rstd, s, of, {y, log_decays});
      log_decays = both.log_decays;
      return both.x;
    };
  const Tensor y = layer_norm_by(
      x, w, b, eps,
      [&](Tensor& to, Tensor& mean, Tensor& rstd) { run(to, mean, rstd, log_decays); }, writes_y,
      record_both);
  if (!together) log_decays = log_decay(y, of.weight, of.bias, of.a_log, log_decays);
  return {y, log_decays};
}
}  // namespace detail
#endif

NormedTokens layer_norm_log_decay(const Tensor& x, const Tensor& w, const Tensor& b, double eps,
                                  const Tensor& dt_weight, const Tensor& dt_bias,
                                  const Tensor& A_log) {
  [[maybe_unused]] const auto s =
      detail::check_log_decay("layer_norm_log_decay", x, dt_weight, dt_bias, A_log);
  if (x.device() == Device::cpu) return {layer_norm(x, w, b, eps), Tensor()};
#if PPMA_CUDA
  return detail::layer_norm_decays_by(
      x, w, b, eps, {dt_weight, dt_bias, A_log},
      [&](Tensor& y, Tensor& mean, Tensor& rstd, Tensor& log_decays) {
        visit(x.device(), x.dtype(), "layer_norm_log_decay", [&](auto on, auto t) {
          using T = decltype(t);
          using A = acc_t<T>;
          if constexpr (std::is_same_v<decltype(on), Cuda>)
            kernels::layer_norm_log_decay(
                on, s, x.data<T>(), w.data<A>(), b.data<A>(), static_cast<A>(eps),
                dt_weight.data<A>(), dt_bias.data<A>(), A_log.data<A>(), y.data<T>(),
                detail::data_or_null<A>(mean), detail::data_or_null<A>(rstd), log_decays.data<A>());
        });
      });
#else
  return {};
#endif
}

#if PPMA_CUDA
namespace detail {
using ThreeLayers = std::array<const Linear*, 3>;  // of C inputs, or three times rows of one
// Whether all are on the GPU beside bf16 tokens x (B,H,W,C).
inline bool beside(const Tensor& x, const LayerNorm& norm, const ThreeLayers& layers) {
  const auto on_gpu = [](const Tensor& t) { return t.defined() && t.device() == Device::cuda; };
  if (!on_gpu(x) || x.dtype() != DType::bf16 || x.rank() != 4 ||
      norm.weight.shape() != Shape{x.dim(3)} || norm.weight.device() != Device::cuda)
    return false;
  for (const Linear* l : layers)
    if (!on_gpu(l->weight) || !on_gpu(l->bias) || l->weight.dim(1) != x.dim(3)) return false;
  return true;
}
inline bool recorded(const ThreeLayers& layers) {
  bool any = false;
  for (const Linear* l : layers) any |= needs_grad({l->weight, l->bias});
  return any;
}
// Whether a kernel that leaves the normalised tokens out multiplies them: nothing is recorded of
// them, or backward can make them again.
inline bool multiplies_normed(const Tensor& x, const LayerNorm& norm, const ThreeLayers& layers,
                              i64 head, bool logs) {
  const bool normed_is_recorded = needs_grad({x, norm.weight, norm.bias});
  return beside(x, norm, layers) &&
         kernels::multiplies_normed(x.numel() / x.dim(3), x.dim(3), head, logs,
                                    normed_is_recorded) &&
         (normed_is_recorded ? Saved(x).kept() : !recorded(layers));
}
// Whether they are the three parts of one layer.
inline bool triples(const Tensor& x, const Linear& to) {
  return to.weight.defined() && x.rank() == 4 && to.weight.shape() == Shape{3 * x.dim(3), x.dim(3)};
}

// Whether a convolution of c channels has 3 x 3 taps and a bias, in float on the GPU.
inline bool fits_beside(const DepthwiseConv2d& conv, i64 c) {
  const auto fits = [](const Tensor& t, const Shape& shape) {
    return t.defined() && t.shape() == shape && t.dtype() == DType::f32 &&
           t.device() == Device::cuda;
  };
  return fits(conv.weight, {c, 1, 3, 3}) && fits(conv.bias, {c});
}

// A layer's parameters beside bf16 tokens.
struct NarrowLayer {
  const Linear& layer;
  Tensor weight, bias;

  explicit NarrowLayer(const Linear& l)
      : layer(l),
        weight(converted_weights(l.weight, DType::bf16)),
        bias(converted_weights(l.bias, DType::bf16)) {}
  kernels::NormProducts::Part part(bf16* y, i64 first = 0) const {
    return {weight.data<bf16>() + first * weight.dim(1), bias.data<bf16>() + first, y};
  }
  // y = x w^T + b, which was computed elsewhere, with what `before` makes of its gradient.
  Tensor recorded(const Tensor& y, const Tensor& x,
                  const std::function<Tensor(const Tensor& dy)>& before = {}) const {
    Backward back = linear_backward(x, layer.weight, layer.bias, weight);
    if (before)
      back = [back = std::move(back), before](const Tensor& dy) { return back(before(dy)); };
    return record(y, "linear", {x, layer.weight, layer.bias}, std::move(back));
  }
};

// run(), which computes products of norm(x); returns norm(x) for what is recorded of them, its
// elements only made where backward reads them.
template <class F>
Tensor run_normed(const Tensor& x, const LayerNorm& norm, kernels::NormProducts& p, F&& run) {
  if (!needs_grad({x, norm.weight, norm.bias})) {
    run();
    return Tensor();
  }
  return layer_norm_by(
      x, norm.weight, norm.bias, norm.eps,
      [&](Tensor&, Tensor& mean, Tensor& rstd) {
        p.mean = mean.data<float>(), p.rstd = rstd.data<float>();
        run();
      },
      false);
}

// The same with the log decays of norm(x), which run(log_decays) computes as well.
template <class F>
NormedTokens run_normed(const Tensor& x, const LayerNorm& norm, const DecayParameters& of,
                        kernels::NormProducts& p, F&& run) {
  if (!needs_grad({x, norm.weight, norm.bias})) {
    Tensor log_decays = Tensor::empty(
        {of.weight.dim(0), x.dim(0), of.bias.dim(0), x.dim(1), x.dim(2)}, DType::f32, x.device());
    run(log_decays);
    return {Tensor(), log_decays};
  }
  return layer_norm_decays_by(
      x, norm.weight, norm.bias, norm.eps, of,
      [&](Tensor&, Tensor& mean, Tensor& rstd, Tensor& log_decays) {
        p.mean = mean.data<float>(), p.rstd = rstd.data<float>();
        run(log_decays);
      },
      false);
}

inline kernels::NormProducts norm_products(const Tensor& x, const LayerNorm& norm) {
  kernels::NormProducts p{};
  p.tokens = x.dim(1) * x.dim(2), p.rows = x.dim(0) * p.tokens;
  p.x = x.data<bf16>();
  p.gamma = norm.weight.data<float>(), p.beta = norm.bias.data<float>();
  p.eps = static_cast<float>(norm.eps);
  return p;
}
// Those of one layer with three times as many outputs as inputs, to y.
inline kernels::NormProducts norm_products(const Tensor& x, const LayerNorm& norm,
                                           const NarrowLayer& layer, bf16* y) {
  const i64 c = x.dim(3);
  kernels::NormProducts p = norm_products(x, norm);
  p.pitch = 3 * c;
  for (int i = 0; i < 3; ++i) p.part[i] = layer.part(y + i * c, i * c);
  return p;
}

// Marks y = layer(normed), normed = norm(x), which p has computed, as made again: the kernel leaves
// the normalised tokens too, which the layer's backward reads next.
inline Tensor product_again(const Tensor& y, const Tensor& normed, const Tensor& x,
                            const LayerNorm& norm, const NarrowLayer& layer,
                            kernels::NormProducts p) {
  p.mean = p.rstd = nullptr;
  const std::vector<Tensor> read{x.detach(), norm.weight.detach(), norm.bias.detach(), layer.weight,
                                 layer.bias};  // where p points
  const std::shared_ptr<Again> tokens =
      layer.layer.weight.requires_grad() ? normed.info()->again : nullptr;
  return made_again(y, [p, read, tokens, shape = y.shape()] {
    Tensor again = Tensor::empty(shape, DType::bf16, Device::cuda);
    const Tensor& in = read[0];
    kernels::NormProducts once = p;
    for (int i = 0; i < 3; ++i) once.part[i].y = again.data<bf16>() + i * in.dim(3);
    if (tokens && !tokens->made.defined()) {
      tokens->made = Tensor::empty(in.shape(), DType::bf16, Device::cuda);
      once.normed = tokens->made.data<bf16>();
    }
    kernels::norm_products(Cuda{}, once, in.dim(3), {}, nullptr, nullptr, nullptr, nullptr);
    return again;
  });
}
}  // namespace detail
#endif

Tensor norm_linear(const Tensor& x, const LayerNorm& norm, const Linear& to) {
#if PPMA_CUDA
  if (detail::triples(x, to) && detail::multiplies_normed(x, norm, {&to, &to, &to}, 0, false)) {
    const i64 c = x.dim(3);
    Tensor y = Tensor::empty({x.dim(0), x.dim(1), x.dim(2), 3 * c}, x.dtype(), x.device());
    const detail::NarrowLayer layer(to);
    kernels::NormProducts p = detail::norm_products(x, norm, layer, y.data<bf16>());
    const Tensor normed = detail::run_normed(x, norm, p, [&] {
      kernels::norm_products(Cuda{}, p, c, {}, nullptr, nullptr, nullptr, nullptr);
    });
    if (!normed.defined()) return y;
    y = layer.recorded(y, normed);
    return worth_making_again(y) ? detail::product_again(y, normed, x, norm, layer, p) : y;
  }
#endif
  return to.forward(norm.forward(x));
}

Tensor norm_linear_gelu([[maybe_unused]] const Tensor& x, [[maybe_unused]] const LayerNorm& norm,
                        [[maybe_unused]] const Linear& to) {
#if PPMA_CUDA
  if (detail::triples(x, to) && detail::beside(x, norm, {&to, &to, &to}) &&
      kernels::gelus_normed(x.numel() / x.dim(3), x.dim(3)) &&
      !needs_grad({x, norm.weight, norm.bias, to.weight, to.bias})) {
    const i64 c = x.dim(3);
    Tensor y = Tensor::empty({x.dim(0), x.dim(1), x.dim(2), 3 * c}, x.dtype(), x.device());
    const detail::NarrowLayer layer(to);
    kernels::norm_gelu(Cuda{}, detail::norm_products(x, norm, layer, y.data<bf16>()), c);
    return y;
  }
#endif
  return Tensor();
}

Tensor norm_linear_gelu_conv([[maybe_unused]] const Tensor& x,
                             [[maybe_unused]] const LayerNorm& norm,
                             [[maybe_unused]] const Linear& to,
                             [[maybe_unused]] const DepthwiseConv2d& conv) {
#if PPMA_CUDA
  if (detail::triples(x, to) && detail::beside(x, norm, {&to, &to, &to}) &&
      detail::fits_beside(conv, 3 * x.dim(3)) &&
      kernels::maps_hidden(x.dim(0), x.dim(1), x.dim(2), x.dim(3)) &&
      !needs_grad({x, norm.weight, norm.bias, to.weight, to.bias, conv.weight, conv.bias})) {
    const i64 c = x.dim(3);
    Tensor z = Tensor::empty({x.dim(0), x.dim(1), x.dim(2), 3 * c}, x.dtype(), x.device());
    const detail::NarrowLayer layer(to);
    kernels::HiddenMap p{};
    p.h = static_cast<int>(x.dim(1)), p.w = static_cast<int>(x.dim(2)), p.x = x.data<bf16>();
    p.gamma = norm.weight.data<float>(), p.beta = norm.bias.data<float>();
    p.eps = static_cast<float>(norm.eps);
    p.w1 = layer.weight.data<bf16>(), p.b1 = layer.bias.data<bf16>();
    p.taps = conv.weight.data<float>(), p.b = conv.bias.data<float>(), p.z = z.data<bf16>();
    kernels::hidden_map(Cuda{}, p, x.dim(0), c);
    return z;
  }
#endif
  return Tensor();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
