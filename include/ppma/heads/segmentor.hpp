#pragma once
#include "ppma/core/names_begin.hpp"
// A segmentation network: the backbone for dense prediction and a head on its four maps (recipes
// 2.1).
//
// A head is a struct with
//
//   Config               its values: num_classes, and what it names in Config::fields
//   name, title          for configurations and for people
//   Head(config, in_channels, rng)   on maps of so many channels
//   nano()               its configuration for a CPU
//   forward(maps, ctx)   four maps (B,H,W,C), finest first -> logits (B,h,w,K) of any size
//   fields(v)            its layers under their published names
//
// and perhaps auxiliary(maps, ctx), logits that training alone learns from, with the
// configuration's decode_weight and auxiliary_weight. heads/upernet.hpp and
// heads/semantic_fpn.hpp are two; heads/segmentation_heads.hpp is the list of them all.

#include <array>
#include <utility>
#include <vector>

#include "ppma/core/limits.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/resize.hpp"
#include "ppma/ops/resized_loss.hpp"

namespace ppma::inline PPMA_ABI {

template <class Head>
struct SegmentorConfig {
  PpmaConfig backbone = ppma_tiny();
  typename Head::Config head{};
  i64 ignore_index = 255;

  bool operator==(const SegmentorConfig&) const = default;
  /// All but the backbone's.
  template <class Config, class F>
  static void fields(Config& c, F f) {
    Head::Config::fields(c.head, f);
    f("ignore_index", c.ignore_index);
  }
};

/// Throws an Error that names the first value that makes no network, by its key in JSON.
template <class Head>
void check_config(const SegmentorConfig<Head>& c) {
  check_config(c.backbone);
  check_fields(c);
}

/// A small relative of the published network for a CPU: ours.
template <class Head>
SegmentorConfig<Head> segmentor_nano(i64 classes) {
  SegmentorConfig<Head> c{ppma_nano(), Head::nano()};
  c.backbone.chunkwise_recurrents = {true, true, false, false};
  c.head.num_classes = classes;
  return c;
}

struct SegmentationLoss {
  Tensor total, decode, auxiliary;  // scalars; decode and auxiliary carry their weights
  // scalars, percent of the pixels; auxiliary is undefined without such a head
  Tensor decode_accuracy, auxiliary_accuracy;
};

namespace detail {

template <class Head>
concept HasAuxiliary = requires(const Head& h, const std::vector<Tensor>& maps, Context& ctx) {
  h.auxiliary(maps, ctx);
};

}  // namespace detail

template <class Head>
struct Segmentor {
  SegmentorConfig<Head> config;
  DenseBackbone backbone;
  Head head;

  explicit Segmentor(const SegmentorConfig<Head>& c, u64 seed = 0) : Segmentor(c, Rng(seed)) {}

  /// Images (B,3,Hin,Win) -> logits (B,Hin,Win,K).
  Tensor forward(const Tensor& images, Context& ctx) const {
    return resize(head.forward(backbone.forward(images, ctx), ctx), images.dim(2), images.dim(3));
  }
  /// labels int64 (B,Hin,Win).
  SegmentationLoss loss(const Tensor& images, const Tensor& labels, Context& ctx) const {
    const std::vector<Tensor> maps = backbone.forward(images, ctx);
    const PixelLoss decode =
        resized_cross_entropy(head.forward(maps, ctx), labels, config.ignore_index);
    SegmentationLoss l;
    l.total = l.decode = decode.loss, l.decode_accuracy = decode.accuracy;
    if constexpr (detail::HasAuxiliary<Head>) {
      const PixelLoss auxiliary =
          resized_cross_entropy(head.auxiliary(maps, ctx), labels, config.ignore_index);
      l.decode = scale(decode.loss, config.head.decode_weight);
      l.auxiliary = scale(auxiliary.loss, config.head.auxiliary_weight);
      l.auxiliary_accuracy = auxiliary.accuracy;
      l.total = add(l.decode, l.auxiliary);
    }
    return l;
  }
  template <class V>
  void fields(V& v) {
    v.child("backbone", backbone);
    head.fields(v);
  }

 private:
  Segmentor(const SegmentorConfig<Head>& c, Rng rng)
      : config((check_config(c), c)),
        backbone(c.backbone, rng.fork(1)),
        head(c.head, c.backbone.embed_dims, rng) {}
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
