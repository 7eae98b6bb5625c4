#pragma once
#include "ppma/core/names_begin.hpp"
// A layer norm with what reads its tokens, which on a GPU is one kernel where there is one: the
// mask's log decays, or the products of linear layers; the normalised tokens need not be written,
// or not be read again. Legend: B batch, H W grid, C channels, G heads.

#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

struct NormedTokens {
  Tensor x;           // (B,H,W,C)
  Tensor log_decays;  // (2 or 1,B,G,H,W): what log_decay() takes as values; undefined: not computed
};

/// layer_norm(x), x (B,H,W,C). On a GPU with the values of log_decay(x, dt_weight, dt_bias, A_log),
/// in one pass: the tokens need not be read again.
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
#include "ppma/kernels/cuda/norm_product_run.cuh"
#endif

namespace ppma::inline PPMA_ABI {

NormedTokens layer_norm_log_decay(const Tensor& x, const Tensor& w, const Tensor& b, double eps,
                                  const Tensor& dt_weight, const Tensor& dt_bias,
                                  const Tensor& A_log) {
  [[maybe_unused]] const auto s =
      detail::check_log_decay("layer_norm_log_decay", x, dt_weight, dt_bias, A_log);
  NormedTokens out;
  if (x.device() == Device::cpu) return {layer_norm(x, w, b, eps), out.log_decays};
#if PPMA_CUDA
  out.x = detail::layer_norm_by(x, w, b, eps, [&](Tensor& y, Tensor& mean, Tensor& rstd) {
    visit(x.device(), x.dtype(), "layer_norm_log_decay", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      if constexpr (std::is_same_v<decltype(on), Cuda>) {
        out.log_decays =
            Tensor::empty({s.rows, s.batch, s.heads, x.dim(1), x.dim(2)}, w.dtype(), x.device());
        kernels::layer_norm_log_decay(on, s, x.data<T>(), w.data<A>(), b.data<A>(),
                                      static_cast<A>(eps), dt_weight.data<A>(), dt_bias.data<A>(),
                                      A_log.data<A>(), y.data<T>(), detail::data_or_null<A>(mean),
                                      detail::data_or_null<A>(rstd), out.log_decays.data<A>());
      }
    });
  });
#endif
  return out;
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
