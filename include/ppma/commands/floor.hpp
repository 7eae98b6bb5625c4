#pragma once
#include "ppma/core/names_begin.hpp"
// The floor under a network's time: the least that its work could take at the rates that this
// machine reached just now.
//
// Work is counted in groups of operations that one kernel could do, each tensor read and written
// once: six groups a block, 16 C + 2 F elements a token (C channels, F hidden ones). A group takes
// its matrix products at the rate of a large product, its bytes at that of a large copy, or its
// exponentials at the machine's rate, whichever takes longest; groups follow one another. No
// program reaches it; its share says how far there is to go.
//
// A training step is counted as three times the forward pass (each value is met again in backward,
// and its gradient made), attention's products as 3.5 times it (the scores once more), and AdamW's
// reading and writing of four floats a weight.

#include "ppma/models/config.hpp"
#include "ppma/train/options.hpp"

namespace ppma::inline PPMA_ABI {

/// What the machine does in a second.
struct Ceilings {
  double flops = 0, bytes = 0, exponentials = 0;
};

/// Measured with a large product and a large copy in the dtype; a GPU's exponentials are 16 a cycle
/// and multiprocessor.
PPMA_API Ceilings measure_ceilings(const Placement& at);

/// Seconds of a pass over `batch` images.
PPMA_API double floor_of(const PpmaConfig& c, const Ceilings& peak, i64 batch, i64 height,
                         i64 width, double element_bytes, bool train);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "ppma/commands/timing.hpp"
#include "ppma/core/gpu.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/polyline/masks.hpp"

namespace ppma::inline PPMA_ABI {

Ceilings measure_ceilings(const Placement& at) {
  const NoGrad not_recorded;
  const bool gpu = at.device == Device::cuda;
  const i64 n = gpu ? 8192 : 1024,
            elements = (gpu ? i64{1} << 30 : i64{1} << 27) / size_of(at.activations());
  const auto seconds = [&](auto&& f) {
    f();
    return median(timed(5, at.device, f)) / 1000;
  };
  Rng rng(1);
  Ceilings c;
  {
    const Tensor a = at(Tensor::randn({n, n}, rng));
    const PackedWeights narrow =
        at.activations() == at.dtype ? PackedWeights{} : pack_linear(cast(a, at.dtype));
    c.flops = 2.0 * static_cast<double>(n * n * n) /
              seconds([&] { narrow.defined() ? linear(a, narrow) : matmul(a, a, false, true); });
  }
  {
    const Tensor from = Tensor::zeros({elements}, at.activations(), at.device);
    Tensor to = Tensor::empty({elements}, at.activations(), at.device);
    c.bytes = 2.0 * static_cast<double>(elements * size_of(at.activations())) /
              seconds([&] { to.copy_from(from); });
  }
  if (gpu) {
    c.exponentials = cuda::exponentials_per_second();
    return c;
  }
  const Tensor x = Tensor::zeros({i64{1} << 18}, at.activations());  // stays in the caches
  c.exponentials = static_cast<double>(x.numel()) / seconds([&] { exp(x); });
  return c;
}

double floor_of(const PpmaConfig& c, const Ceilings& peak, i64 batch, i64 height, i64 width,
                double element_bytes, bool train) {
  double seconds = 0;
  const double images = static_cast<double>(batch), passes = train ? 3 : 1;
  // FLOPs, elements and exponentials of an image, elements of weights
  const auto group = [&](double flops, double elements, double weights = 0, double exponentials = 0,
                         double product_passes = 0) {
    const double products =
        images * flops * (train && product_passes > 0 ? product_passes : passes) / peak.flops;
    const double bytes = (images * elements + weights) * passes * element_bytes / peak.bytes;
    seconds +=
        std::max({products, bytes, images * exponentials * (train ? 2 : 1) / peak.exponentials});
    // the weight, its gradient, two moments read; all but the gradient written
    if (train) seconds += weights * 7 * 4 / peak.bytes;
  };
  const auto convolution = [&](i64 in, i64 out, i64 stride) {  // 3 x 3
    const double before = static_cast<double>(height * width * in);
    if (stride == 2) height = (height + 1) / 2, width = (width + 1) / 2;
    const double after = static_cast<double>(height * width * out),
                 weights = static_cast<double>(9 * in * out);
    group(2 * static_cast<double>(height * width) * weights, before + after, weights);
  };
  const i64 stem = c.embed_dims[0];
  convolution(3, stem / 2, 2), convolution(stem / 2, stem / 2, 1), convolution(stem / 2, stem, 2),
      convolution(stem, stem, 1);
  for (std::size_t s = 0; s < 4; ++s) {
    const double n = static_cast<double>(height * width),
                 channels = static_cast<double>(c.embed_dims[s]),
                 heads = static_cast<double>(c.num_heads[s]);
    const double hidden = std::floor(c.mlp_ratios[s] * channels),
                 along = static_cast<double>(height + width);
    const double local = c.lepe ? 25 * channels : 0;  // weights of the 5 x 5
    const bool two_orders = mask_of(c.mask).order == Order::both;
    for (i64 block = 0; block < c.depths[s]; ++block) {
      // positions: depthwise 3 x 3
      if (c.depthwise) group(0, 2 * n * channels, 9 * channels);
      // q, k, v
      group(6 * n * channels * channels, 4 * n * channels, 3 * channels * channels);
      // attention and its 5 x 5; backward, a linear attention's gradients are three of its kind
      if (c.linear[s])
        group(4 * n * channels * channels / heads * (two_orders ? 2 : 1), 4 * n * channels, local,
              0, 4);
      else if (c.chunkwise_recurrents[s])
        group(2 * n * along * channels * (two_orders ? 3 : 2), 4 * n * channels, local,
              n * along * heads, 3.5);
      else
        group(4 * n * n * channels, 4 * n * channels, local, n * n * heads, 3.5);
      // out, + x
      group(2 * n * channels * channels, 3 * n * channels, channels * channels);
      // feed forward
      group(2 * n * channels * hidden, n * (channels + hidden), channels * hidden);
      // 3 x 3, back, + x
      group(2 * n * channels * hidden, n * (hidden + 2 * channels), channels * hidden);
    }
    if (s < 3) convolution(c.embed_dims[s], c.embed_dims[s + 1], 2);
  }
  const double n = static_cast<double>(height * width),
               channels = static_cast<double>(c.embed_dims[3]),
               wide = static_cast<double>(c.projection),
               classes = static_cast<double>(c.num_classes);
  group(2 * n * channels * wide, n * channels + wide, channels * wide);
  group(2 * wide * classes, wide + classes, wide * classes);
  return seconds;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
