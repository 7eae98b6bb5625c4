#pragma once
#include "ppma/core/names_begin.hpp"
// The segmentation network: backbone, UperNet, and in training the auxiliary head (spec 6.1).

#include "ppma/heads/upernet.hpp"
#include "ppma/models/ppma.hpp"

namespace ppma::inline PPMA_ABI {

struct SegmentorConfig {
  PpmaConfig backbone = ppma_tiny();
  UperNetConfig decode;  // in_channels are the backbone's
  FcnConfig auxiliary;   // on the map of stride 16
  double decode_weight = 1.0, auxiliary_weight = 0.4;
  i64 ignore_index = 255;

  bool operator==(const SegmentorConfig&) const = default;
};

/// Throws an Error that names the first value that makes no network, by its key in
/// heads/segmentor_json.hpp.
PPMA_API void check_config(const SegmentorConfig& c);

struct SegmentationLoss {
  Tensor total, decode, auxiliary;  // scalars; decode and auxiliary carry their weights
  // scalars, percent of the pixels; auxiliary is undefined without such a head
  Tensor decode_accuracy, auxiliary_accuracy;
};

/// Percent of the pixels that count whose label has the largest logit, as mmseg logs it (100 where
/// none counts): a scalar, f64, where the logits are. logits (B,H,W,K), labels int64 (B,H,W).
PPMA_API Tensor pixel_accuracy(const Tensor& logits, const Tensor& labels, i64 ignore_index);

struct Segmentor {
  SegmentorConfig config;
  DenseBackbone backbone;
  UperNetHead decode_head;
  FcnHead auxiliary_head;

  explicit Segmentor(SegmentorConfig c, u64 seed = 0)
      : Segmentor(with_widths(std::move(c)), Rng(seed)) {}

  /// Images (B,3,Hin,Win) -> logits (B,Hin,Win,K).
  Tensor forward(const Tensor& images, Context& ctx) const {
    return resize(decode_head.forward(backbone.forward(images, ctx), ctx), images.dim(2),
                  images.dim(3));
  }
  /// labels int64 (B,Hin,Win). The mean divides by all pixels, ignored ones too.
  PPMA_API SegmentationLoss loss(const Tensor& images, const Tensor& labels, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.child("backbone", backbone), v.child("decode_head", decode_head),
        v.child("auxiliary_head", auxiliary_head);
  }

 private:
  PPMA_API Segmentor(const SegmentorConfig& c, Rng rng);
  PPMA_API static SegmentorConfig with_widths(SegmentorConfig c);
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <vector>

#include "ppma/heads/config_check.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"

namespace ppma::inline PPMA_ABI {

void check_config(const SegmentorConfig& c) {
  check_config(c.backbone);
  detail::check_positive("num_classes", c.decode.num_classes),
      detail::check_positive("num_classes", c.auxiliary.num_classes);
  detail::check_positive("channels", c.decode.channels),
      detail::check_positive("auxiliary_channels", c.auxiliary.channels);
  detail::check_all_positive("pool_scales", c.decode.pool_scales);
  detail::check_dropout("dropout_ratio", c.decode.dropout_ratio),
      detail::check_dropout("auxiliary_dropout_ratio", c.auxiliary.dropout_ratio);
  detail::check_not_negative("decode_weight", c.decode_weight),
      detail::check_not_negative("auxiliary_weight", c.auxiliary_weight);
}

Tensor pixel_accuracy(const Tensor& logits, const Tensor& labels, i64 ignore_index) {
  const NoGrad not_recorded;
  // (B,H,W)
  const Tensor chosen = cast(argmax(logits, -1), DType::f64), wanted = cast(labels, DType::f64);
  // Of whole numbers: 1 where the difference is 0, else 0.
  const auto is_zero = [](const Tensor& difference) {
    return relu(add_scalar(scale(abs(difference), -1), 1));
  };
  const Tensor counts =
      add_scalar(scale(is_zero(add_scalar(wanted, -static_cast<double>(ignore_index))), -1), 1);
  const Tensor right = mul(is_zero(sub(chosen, wanted)), counts);
  // as there: no 0 / 0
  return scale(div(add_scalar(sum(right), 1e-7), add_scalar(sum(counts), 1e-7)), 100);
}

SegmentationLoss Segmentor::loss(const Tensor& images, const Tensor& labels, Context& ctx) const {
  check(labels.defined() && labels.rank() == 3, "segmentor: labels must be (B,H,W) int64");
  const std::vector<Tensor> levels = backbone.forward(images, ctx);
  const auto of = [&](const Tensor& small_logits, double weight, Tensor& accuracy) {
    CrossEntropyOptions options;
    options.ignore_index = config.ignore_index, options.count_ignored = true;
    const Tensor logits = resize(small_logits, labels.dim(1), labels.dim(2));
    accuracy = pixel_accuracy(logits, labels, config.ignore_index);
    return scale(cross_entropy(logits, labels, options), weight);
  };
  SegmentationLoss l;
  l.decode = of(decode_head.forward(levels, ctx), config.decode_weight, l.decode_accuracy);
  l.auxiliary =
      of(auxiliary_head.forward(levels[2], ctx), config.auxiliary_weight, l.auxiliary_accuracy);
  l.total = add(l.decode, l.auxiliary);
  return l;
}

Segmentor::Segmentor(const SegmentorConfig& c, Rng rng)
    : config(c),
      backbone(c.backbone, rng.fork(1)),
      decode_head(c.decode, rng),
      auxiliary_head(c.auxiliary, rng) {}

SegmentorConfig Segmentor::with_widths(SegmentorConfig c) {
  check_config(c);
  c.decode.in_channels = c.backbone.embed_dims;
  c.auxiliary.in_channels = c.backbone.embed_dims[2];
  return c;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
