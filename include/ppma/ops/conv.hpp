#pragma once
#include "ppma/core/names_begin.hpp"
// Convolution of channels-last images with weights as they are published, (O, I/groups, kh, kw).

#include "ppma/kernels/args.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// y (B,OH,OW,O) of x (B,H,W,I), w (O,I/groups,kh,kw), b (O) or undefined; OH = (H + 2 padding -
/// kh) / stride + 1.
/// Differentiable in all three. Beside bf16 x, w may be f32 and b is f32. A depthwise convolution
/// with stride 1 and "same" padding goes to its own kernel.
/// Errors: ranks, channels that groups do not divide, a kernel larger than the padded image,
/// dtypes.
PPMA_API Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b = Tensor(),
                       const ConvOptions& options = {});

/// gelu(conv2d(...)); on the GPU, in bf16, one pass where nothing is recorded and x, w and b have
/// one dtype.
PPMA_API Tensor conv2d_gelu(const Tensor& x, const Tensor& w, const Tensor& b = Tensor(),
                            const ConvOptions& options = {});

/// The same of images (B,I,H,W) as they come: conv2d_gelu(permute(images, {0, 2, 3, 1}), ...),
/// without that copy where the pass takes them, a 3x3 convolution of three channels with stride 2.
PPMA_API Tensor conv2d_gelu_of_images(const Tensor& images, const Tensor& w, const Tensor& b,
                                      const ConvOptions& options);

/// conv2d(permute(images, {0, 2, 3, 1}), w, b, options) of images (B,I,H,W) as they come. On the
/// GPU, in bf16, a 3x3 convolution of three channels with stride 2 reads them as they are, where
/// they need no gradient: that copy is made for the gradient of w alone, and not kept till then.
PPMA_API Tensor conv2d_of_images(const Tensor& images, const Tensor& w, const Tensor& b = Tensor(),
                                 const ConvOptions& options = {});

/// w (O,I/groups,kh,kw) packed for conv2d's kernel with these options (any padding). A bf16 w is
/// packed for f32 x, as pack_linear() says; on a GPU for bf16 x, where its channels of one group
/// make whole packs, and else there is none (undefined).
PPMA_API PackedWeights pack_conv2d(const Tensor& w, const ConvOptions& options = {});

/// The same convolution with packed weights; not differentiable. Errors: another stride or other
/// groups than they were packed for.
PPMA_API Tensor conv2d(const Tensor& x, const PackedWeights& w, const Tensor& b = Tensor(),
                       const ConvOptions& options = {});

/// gelu(conv2d(...)) with packed weights, on a GPU in one pass.
PPMA_API Tensor conv2d_gelu(const Tensor& x, const PackedWeights& w, const Tensor& b = Tensor(),
                            const ConvOptions& options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_CONV)

#include "ppma/kernels/cpu/column_sums.hpp"
#include "ppma/kernels/cpu/conv.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/conv_parts.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/weights.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// The shape of conv2d's result; errors: what does not go together.
inline Shape conv2d_shape(const Tensor& x, const Shape& w, const Tensor& b,
                          const ConvOptions& options) {
  const i64 groups = options.groups, stride = options.stride, padding = options.padding;
  check(x.rank() == 4, "conv2d: x must be (B,H,W,C), got ", x.shape(),
        "; images are channels-last here");
  check(x.numel() > 0, "conv2d: x must have elements, got ", x.shape());
  check(w.rank() == 4, "conv2d: w must be (O,I/groups,kh,kw), got ", w);
  check(stride >= 1 && padding >= 0 && groups >= 1, "conv2d: stride ", stride, ", padding ",
        padding, ", groups ", groups, "; stride and groups must be at least 1, padding at least 0");
  check(x.dim(3) % groups == 0 && w[0] % groups == 0, "conv2d: groups ", groups,
        " must divide the ", x.dim(3), " input and ", w[0], " output channels");
  check(w[1] * groups == x.dim(3), "conv2d: x ", x.shape(), " has ", x.dim(3), " channels, w ", w,
        " with ", groups, " groups takes ", w[1] * groups);
  check(!b.defined() || b.shape() == Shape{w[0]}, "conv2d: b must be (", w[0], "), got ",
        b.shape());
  const i64 kh = w[2], kw = w[3], h = x.dim(1) + 2 * padding, width = x.dim(2) + 2 * padding;
  check(kh >= 1 && kw >= 1 && kh <= h && kw <= width, "conv2d: a ", kh, "x", kw,
        " kernel on an image of ", x.shape(), " with padding ", padding,
        "; the kernel must fit into the padded image");
  return {x.dim(0), (h - kh) / stride + 1, (width - kw) / stride + 1, w[0]};
}

// Weights (O,I/groups,kh,kw) at `elements`, in their order.
template <class T>
kernels::ConvWeights<T> straight_weights(const Shape& w, i64 groups, const T* elements) {
  const i64 taps = w[2] * w[3];
  return {elements, w[1] * taps, taps, w[0] / groups * w[1] * taps, w[2], w[3], 0, 1, 0, 1};
}
// The same weights of one group at `elements` in the order (O,kh,kw,I), as a GPU has them packed.
template <class T>
kernels::ConvWeights<T> weights_by_taps(const Shape& w, const T* elements) {
  return {elements, w[1] * w[2] * w[3], 1, 0, w[2], w[3] * w[1], 0, 1, 0, w[1]};
}

// What conv2d(x, w, b) records; w in x's dtype is `taps`, and kept() gives x for w's gradient.
template <class Kept>
auto conv2d_closure(const Kept& kept, const Shape& x, bool need_x, const Tensor& w, const Tensor& b,
                    const Tensor& taps, const ConvOptions& options) {
  return [kept, w = need_x ? taps : Tensor(), x_shape = x, w_shape = w.shape(), w_dtype = w.dtype(),
          options, need_x, need_w = w.requires_grad(),
          need_b = b.requires_grad()](const Tensor& dy) {
    Tensor dx, dw, db;
    visit(dy.device(), dy.dtype(), "conv2d", [&](auto on, auto t) {
      using T = decltype(t);
      if (need_x) {
        dx = Tensor::empty(x_shape, dy.dtype(), dy.device());
        conv_dx(on, x_shape, w_shape, dy.shape(), options, w.data<T>(), dy.data<T>(), dx.data<T>());
      }
      if (need_w) {
        const Tensor in = kept();
        dw = Tensor::empty(w_shape, w_dtype, dy.device());
        const kernels::ConvMap m = conv_map(x_shape, w_shape, dy.shape(), options);
        if (w_dtype == dy.dtype())
          kernels::convolve_dw(on, m, in.data<T>(), dy.data<T>(), dw.data<T>());
        else
          kernels::convolve_dw(on, m, in.data<T>(), dy.data<T>(), dw.data<acc_t<T>>());
      }
      if (need_b) {
        db = Tensor::empty({w_shape[0]}, accumulator_dtype(dy.dtype()), dy.device());
        kernels::column_sums(on, dy.numel() / w_shape[0], w_shape[0], dy.data<T>(),
                             db.data<acc_t<T>>());
      }
    });
    return Grads{dx, dw, db};
  };
}

}  // namespace detail

PackedWeights pack_conv2d(const Tensor& w, const ConvOptions& options) {
  const i64 groups = options.groups;
  check(w.defined() && w.rank() == 4 && groups >= 1 && w.dim(0) % groups == 0,
        "pack_conv2d: w must be (O,I/groups,kh,kw)");
  PackedWeights packed{w.shape(), Tensor()};
  if (w.numel() == 0) return packed;
  if (w.device() != Device::cpu) {
    const NoGrad off;
    if (w.dtype() == DType::bf16 && groups == 1 && w.dim(1) % 8 == 0)
      packed.elements = permute(w, {0, 2, 3, 1});
    return packed;
  }
  kernels::ConvMap map{};
  map.ci = w.dim(1) * groups, map.co = w.dim(0), map.th = w.dim(2), map.tw = w.dim(3);
  map.groups = groups, map.stride = options.stride;
  if (w.dtype() == DType::bf16) {
    packed.elements = Tensor::empty(Shape{kernels::conv_strips_size(map)}, DType::bf16);
    kernels::pack_conv_strips(Cpu{}, map, w.data<bf16>(), packed.elements.data<bf16>());
    return packed;
  }
  visit_cpu(w.device(), w.dtype(), "pack_conv2d", [&](auto on, auto t) {
    using T = decltype(t);
    const auto weights = detail::straight_weights(w.shape(), groups, w.data<T>());
    packed.transformed = kernels::suits_winograd(map);
    packed.elements = Tensor::empty(Shape{packed.transformed ? kernels::winograd_size<T>(map)
                                                             : kernels::packed_conv_size<T>(map)},
                                    w.dtype());
    if (packed.transformed)
      kernels::pack_winograd(on, map, weights, packed.elements.data<T>());
    else
      kernels::pack_conv(on, map, weights, packed.elements.data<T>());
  });
  return packed;
}

Tensor conv2d(const Tensor& x, const PackedWeights& w, const Tensor& b,
              const ConvOptions& options) {
  check(x.defined() && w.defined(), "conv2d: x or w is undefined");
  check(!needs_grad({x, b}), "conv2d: packed weights are for inference; use NoGrad");
  detail::check_packed("conv2d", x, w.elements, b);
  check(!w.transformed || options.stride == 1, "conv2d: w was packed for stride 1, not ",
        options.stride);
  check(w.elements.device() == Device::cpu || options.groups == 1,
        "conv2d: w was packed for one group, not ", options.groups);
  Tensor y = Tensor::empty(detail::conv2d_shape(x, w.shape, b, options), x.dtype(), x.device());
  const Tensor shift = x.device() == Device::cpu ? b : detail::converted_weights(b, x.dtype());
  visit(x.device(), x.dtype(), "conv2d", [&](auto on, auto t) {
    using T = decltype(t);
    auto weights = detail::straight_weights<T>(w.shape, options.groups, nullptr);
    if (w.elements.device() != Device::cpu)
      weights = detail::weights_by_taps(w.shape, w.elements.data<T>());
    else if (w.elements.dtype() == DType::bf16)
      weights.strips = w.elements.data<bf16>();
    else
      (w.transformed ? weights.transformed : weights.packed) = w.elements.data<T>();
    kernels::convolve(on, detail::conv_map(x.shape(), w.shape, y.shape(), options), x.data<T>(),
                      weights, detail::data_or_null<T>(shift), y.data<T>());
  });
  return y;
}

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& options) {
  check(x.defined() && w.defined(), "conv2d: x or w is undefined");
  const Shape shape = detail::conv2d_shape(x, w.shape(), b, options);
  detail::check_weights("conv2d", x, w, b);
  const i64 groups = options.groups, kh = w.dim(2), kw = w.dim(3);

  if (groups == x.dim(3) && groups == w.dim(0) && groups > 1 && kh == kw && kh % 2 == 1 &&
      options.padding == kh / 2 && options.stride == 1 && w.dtype() == accumulator_dtype(x.dtype()))
    return depthwise_conv2d(x, w, b);

  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const Tensor taps = detail::converted_weights(w, x.dtype()),
               shift = detail::converted_weights(b, x.dtype());
  visit(x.device(), x.dtype(), "conv2d", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::convolve(on, detail::conv_map(x.shape(), w.shape(), y.shape(), options), x.data<T>(),
                      detail::straight_weights(w.shape(), groups, taps.data<T>()),
                      detail::data_or_null<T>(shift), y.data<T>());
  });

  const Saved saved_x = w.requires_grad() ? Saved(x) : Saved();
  return record(y, "conv2d", {x, w, b},
                detail::conv2d_closure([saved_x] { return saved_x.get(); }, x.shape(),
                                       x.requires_grad(), w, b, taps, options));
}

namespace detail {

// GELU of the convolution of x (B,H,W,I), or (B,I,H,W) where `planes`, in one pass; undefined where
// there is none. w has shape `taps`, or that many elements where it is packed.
inline Tensor conv2d_gelu_at_once(const Tensor& x, bool planes, const Tensor& w, const Shape& taps,
                                  bool packed, const Tensor& b, const ConvOptions& options) {
#if PPMA_CUDA
  const auto narrow = [&x](const Tensor& t) {
    return t.defined() && t.dtype() == DType::bf16 && t.device() == Device::cuda &&
           !needs_grad({x, t});
  };
  if (!narrow(x) || !narrow(w) || !narrow(b) || x.rank() != 4 || x.numel() == 0 ||
      taps.rank() != 4 || options.groups != 1 || options.stride <= 0 || options.padding < 0 ||
      b.shape() != Shape{taps[0]})
    return Tensor();
  const Shape last =
      planes ? Shape{x.dim(0), x.dim(2), x.dim(3), x.dim(1)} : x.shape();  // (B,H,W,I)
  const i64 s = options.stride, h = last[1] + 2 * options.padding - taps[2],
            width = last[2] + 2 * options.padding - taps[3];
  if (taps[1] != last[3] || h < 0 || width < 0) return Tensor();
  Tensor y = Tensor::empty({x.dim(0), h / s + 1, width / s + 1, taps[0]}, x.dtype(), x.device());
  const kernels::ConvMap map = conv_map(last, taps, y.shape(), options);
  if (!kernels::fuses_gelu(Cuda{}, map, planes)) return Tensor();
  kernels::convolve_gelu(
      Cuda{}, map, planes, x.data<bf16>(),
      packed ? weights_by_taps(taps, w.data<bf16>()) : straight_weights(taps, 1, w.data<bf16>()),
      b.data<bf16>(), y.data<bf16>());
  return y;
#else
  static_cast<void>(x), static_cast<void>(planes), static_cast<void>(w), static_cast<void>(b);
  static_cast<void>(options), static_cast<void>(taps), static_cast<void>(packed);
  return Tensor();
#endif
}

}  // namespace detail

Tensor conv2d_gelu(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& options) {
  const Tensor y = detail::conv2d_gelu_at_once(x, false, w, w.shape(), false, b, options);
  return y.defined() ? y : gelu(conv2d(x, w, b, options));
}

Tensor conv2d_gelu(const Tensor& x, const PackedWeights& w, const Tensor& b,
                   const ConvOptions& options) {
  const Tensor y = detail::conv2d_gelu_at_once(x, false, w.elements, w.shape, true, b, options);
  return y.defined() ? y : gelu(conv2d(x, w, b, options));
}

Tensor conv2d_gelu_of_images(const Tensor& images, const Tensor& w, const Tensor& b,
                             const ConvOptions& options) {
  check(images.defined(), "conv2d_gelu_of_images: images are undefined");
  check(images.rank() == 4, "conv2d_gelu_of_images: images must be (B,I,H,W), got ",
        images.shape());
  const Tensor y = detail::conv2d_gelu_at_once(images, true, w, w.shape(), false, b, options);
  return y.defined() ? y : conv2d_gelu(permute(images, {0, 2, 3, 1}), w, b, options);
}

Tensor conv2d_of_images(const Tensor& images, const Tensor& w, const Tensor& b,
                        const ConvOptions& options) {
  check(images.defined() && w.defined(), "conv2d_of_images: images or w is undefined");
  check(images.rank() == 4, "conv2d_of_images: images must be (B,I,H,W), got ", images.shape());
  const auto last = [images] { return permute(images, {0, 2, 3, 1}); };
#if PPMA_CUDA
  const Shape x{images.dim(0), images.dim(2), images.dim(3), images.dim(1)};
  if (images.device() == Device::cuda && images.dtype() == DType::bf16 && images.numel() > 0 &&
      !needs_grad({images}) && w.rank() == 4 && w.dim(1) == x[3] && options.stride == 2) {
    const Shape shape{x[0], (x[1] - 1) / 2 + 1, (x[2] - 1) / 2 + 1, w.dim(0)};
    const kernels::ConvMap map = detail::conv_map(x, w.shape(), shape, options);
    if (kernels::takes_planes(Cuda{}, map) && (!b.defined() || b.shape() == Shape{w.dim(0)})) {
      detail::check_weights("conv2d", images, w, b);
      Tensor y = Tensor::empty(shape, DType::bf16, Device::cuda);  // (B,H',W',O)
      const Tensor taps = detail::converted_weights(w, DType::bf16),
                   shift = detail::converted_weights(b, DType::bf16);
      kernels::convolve_planes(Cuda{}, map, images.data<bf16>(),
                               detail::straight_weights(w.shape(), 1, taps.data<bf16>()),
                               detail::data_or_null<bf16>(shift), y.data<bf16>());
      return record(y, "conv2d", {images, w, b},
                    detail::conv2d_closure(last, x, false, w, b, taps, options));
    }
  }
#endif
  return conv2d(last(), w, b, options);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
