#pragma once
#include "ppma/core/names_begin.hpp"
// The layers of the network: parameters, their initial values and their published names. The
// arithmetic is in ops/.
// Legend: B batch, H W grid, C channels.

#include <utility>

#include "ppma/nn/context.hpp"
#include "ppma/nn/init.hpp"
#include "ppma/nn/module.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/norm.hpp"

namespace ppma::inline PPMA_ABI {

/// y = x W^T + b over the last axis.
struct Linear {
  Tensor weight;         // (out,in)
  Tensor bias;           // (out), or undefined
  PackedWeights packed;  // in inference, read in place of weight (pack_weights())

  PPMA_API Linear(i64 in, i64 out, Rng& rng, bool with_bias = true);
  /// (..,in) -> (..,out), + add
  Tensor forward(const Tensor& x, const Tensor& add = Tensor()) const {
    return packed.defined() ? linear(x, packed, bias, add) : linear(x, weight, bias, add);
  }
  template <class V>
  void fields(V& v) {
    v.parameter("weight", weight), v.parameter("bias", bias);
  }
};

/// Channels-last convolution.
struct Conv2d {
  Tensor weight;  // (O,I/groups,k,k)
  Tensor bias;    // (O), or undefined
  ConvOptions options;
  PackedWeights packed;  // in inference, read in place of weight (pack_weights())

  PPMA_API Conv2d(i64 in, i64 out, i64 kernel, ConvOptions options_, Rng& rng);
  // (B,H,W,I) -> (B,H',W',O)
  Tensor forward(const Tensor& x) const {
    return packed.defined() ? conv2d(x, packed, bias, options) : conv2d(x, weight, bias, options);
  }
  // gelu(forward(x))
  Tensor forward_gelu(const Tensor& x) const {
    return packed.defined() ? conv2d_gelu(x, packed, bias, options)
                            : conv2d_gelu(x, weight, bias, options);
  }
  template <class V>
  void fields(V& v) {
    v.parameter("weight", weight), v.parameter("bias", bias);
  }
};

/// For inference: weights and biases of all dense layers in the dtype of the activations, so that
/// no forward pass converts them. On the CPU activations, and biases with them, are f32 under bf16,
/// and only packed weights (pack_weights()) can be bf16. The module cannot be trained any more.
template <class M>
void narrow_weights(M& module, DType dtype) {
  const auto narrow = [dtype](Tensor& t, bool bias) {
    if (!t.defined() || t.dtype() == dtype) return;
    if (bias && dtype == DType::bf16 && t.device() == Device::cpu) return;
    Tensor narrowed = Tensor::empty(t.shape(), dtype, t.device());
    narrowed.copy_from(t.detach());
    t = narrowed;
  };
  set_trainable(module, false);
  for_each_layer<Linear>(module, [&](Linear& l) { narrow(l.weight, false), narrow(l.bias, true); });
  for_each_layer<Conv2d>(module, [&](Conv2d& l) { narrow(l.weight, false), narrow(l.bias, true); });
}

/// For inference: weights of all dense layers as their kernels read them, so that no forward pass
/// packs them; on the CPU in place of the plain ones, and in bf16 on a GPU beside them.
template <class M>
void pack_weights(M& module) {
  const auto pack = [](auto& layer, PackedWeights packed) {
    layer.packed = std::move(packed);
    if (layer.packed.defined() && layer.weight.device() == Device::cpu) layer.weight = Tensor();
  };
  for_each_layer<Linear>(module, [&](Linear& l) {
    if (l.weight.defined()) pack(l, pack_linear(l.weight));
  });
  for_each_layer<Conv2d>(module, [&](Conv2d& l) {
    if (l.weight.defined()) pack(l, pack_conv2d(l.weight, l.options));
  });
}

/// Depthwise convolution, stride 1, same size. Published one level down, as `conv`.
struct DepthwiseConv2d {
  Tensor weight;  // (C,1,k,k)
  Tensor bias;    // (C)

  PPMA_API DepthwiseConv2d(i64 channels, i64 kernel, Rng& rng);
  /// conv(x) + add
  Tensor forward(const Tensor& x, const Tensor& add = Tensor()) const {
    return depthwise_conv2d(x, weight, bias, add);
  }
  /// conv(x) + add()
  Tensor forward(const Tensor& x, const std::function<Tensor()>& add) const {
    return depthwise_conv2d(x, weight, bias, add);
  }
  template <class V>
  void fields(V& v) {
    v.parameter("conv.weight", weight), v.parameter("conv.bias", bias);
  }
};

struct LayerNorm {
  Tensor weight, bias;  // (C)
  double eps;

  /// Weights 1, biases 0.
  explicit LayerNorm(i64 channels, double eps_ = 1e-5)
      : weight(parameter(Tensor::ones({channels}))),
        bias(parameter(Tensor::zeros({channels}))),
        eps(eps_) {}
  /// x (...,C), normalised over the last axis.
  Tensor forward(const Tensor& x) const { return layer_norm(x, weight, bias, eps); }
  template <class V>
  void fields(V& v) {
    v.parameter("weight", weight), v.parameter("bias", bias);
  }
};

/// Batch norm over all axes but the last; training normalises by the batch and updates the running
/// statistics: their elements, which the handles of a const layer share too.
struct BatchNorm {
  Tensor weight, bias;               // (C)
  Tensor running_mean, running_var;  // (C)
  Tensor num_batches_tracked;        // () int64
  double momentum = 0.1, eps = 1e-5;

  /// Weights 1, biases 0, running means 0, running variances 1.
  PPMA_API explicit BatchNorm(i64 channels);
  /// Whether the layer before it does its work (models/fold.hpp).
  bool folded() const { return !weight.defined(); }
  /// x (...,C); in training by the batch's statistics, which move the running ones.
  PPMA_API Tensor forward(const Tensor& x, const Context& ctx) const;
  /// gelu(forward(x))
  PPMA_API Tensor forward_gelu(const Tensor& x, const Context& ctx) const;
  /// relu(forward(x))
  PPMA_API Tensor forward_relu(const Tensor& x, const Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.parameter("weight", weight), v.parameter("bias", bias);
    v.buffer("running_mean", running_mean), v.buffer("running_var", running_var);
    v.buffer("num_batches_tracked", num_batches_tracked);
  }
};

/// fc2(GELU(fc1 x))
struct GeluMlp {
  Linear fc1, fc2;

  GeluMlp(i64 width, i64 hidden, Rng& rng) : fc1(width, hidden, rng), fc2(hidden, width, rng) {}
  /// x (...,C) -> (...,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  template <class V>
  void fields(V& v) {
    v.child("fc1", fc1), v.child("fc2", fc2);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NN)

#include "ppma/ops/activation.hpp"

namespace ppma::inline PPMA_ABI {

Linear::Linear(i64 in, i64 out, Rng& rng, bool with_bias)
    : weight(parameter(truncated_normal({out, in}, rng))),
      bias(with_bias ? parameter(Tensor::zeros({out})) : Tensor()) {}

Tensor GeluMlp::forward(const Tensor& x) const { return fc2.forward(gelu(fc1.forward(x))); }

Conv2d::Conv2d(i64 in, i64 out, i64 kernel, ConvOptions options_, Rng& rng)
    : weight(parameter(uniform_fan_in({out, in / options_.groups, kernel, kernel},
                                      in / options_.groups * kernel * kernel, rng))),
      bias(parameter(uniform_fan_in({out}, in / options_.groups * kernel * kernel, rng))),
      options(options_) {}

DepthwiseConv2d::DepthwiseConv2d(i64 channels, i64 kernel, Rng& rng)
    : weight(parameter(uniform_fan_in({channels, 1, kernel, kernel}, kernel * kernel, rng))),
      bias(parameter(uniform_fan_in({channels}, kernel * kernel, rng))) {}

BatchNorm::BatchNorm(i64 channels)
    : weight(parameter(Tensor::ones({channels}))),
      bias(parameter(Tensor::zeros({channels}))),
      running_mean(Tensor::zeros({channels})),
      running_var(Tensor::ones({channels})),
      num_batches_tracked(Tensor::zeros({}, DType::int64)) {}

Tensor BatchNorm::forward(const Tensor& x, const Context& ctx) const {
  if (folded()) {
    check(!ctx.training,
          "batch norm: it was folded into the layer before it for inference; train the network "
          "that it was made from");
    return x;
  }
  Tensor count = num_batches_tracked, mean = running_mean, var = running_var;
  if (ctx.training) count_up(count);
  return batch_norm(x, weight, bias, mean, var, ctx.training, momentum, eps, ctx.among);
}

Tensor BatchNorm::forward_gelu(const Tensor& x, const Context& ctx) const {
  if (folded()) return gelu(forward(x, ctx));
  Tensor count = num_batches_tracked, mean = running_mean, var = running_var;
  if (ctx.training) count_up(count);
  return batch_norm_gelu(x, weight, bias, mean, var, ctx.training, momentum, eps, ctx.among);
}

Tensor BatchNorm::forward_relu(const Tensor& x, const Context& ctx) const {
  if (folded()) return relu(forward(x, ctx));
  Tensor count = num_batches_tracked, mean = running_mean, var = running_var;
  if (ctx.training) count_up(count);
  return batch_norm_relu(x, weight, bias, mean, var, ctx.training, momentum, eps, ctx.among);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
