#pragma once
#include "ppma/core/names_begin.hpp"
// Networks of other papers that classify images, under their published names. Each is a plain
// struct in a header of this folder, made of layers and operations as those of models/ are:
//
//   struct Own {
//     Linear head;
//     Own(const NetworkConfig& c, Rng& rng);
//     Tensor forward(const Tensor& x, Context& ctx) const;   // (B,H,W,3) -> logits (B,classes)
//     void describe(detail::LayerRows& w, const Shape& x);   // the rows of a summary
//     template <class V> void fields(V& v) { v.child("head", head); }
//     static std::vector<NetworkConfig> configs();           // the published ones, and small ones
//   };
//
// and a line in the table of networks/all.hpp. Network holds any of them; its tensors have the
// names, shapes and order of the published checkpoint.

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ppma/networks/networks.hpp"
#include "ppma/nn/summary_rows.hpp"
#include "ppma/nn/visitor.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class AnyNetwork {
 public:
  virtual ~AnyNetwork() = default;
  virtual Tensor forward(const Tensor& x, Context& ctx) const = 0;
  virtual void describe(LayerRows& w, const Shape& x) = 0;
  virtual void fields(ModuleVisitor& v) = 0;
  virtual std::unique_ptr<AnyNetwork> copy() const = 0;
};

template <class N>
class NetworkOf final : public AnyNetwork {
 public:
  explicit NetworkOf(N n) : n_(std::move(n)) {}
  Tensor forward(const Tensor& x, Context& ctx) const override { return n_.forward(x, ctx); }
  void describe(LayerRows& w, const Shape& x) override { n_.describe(w, x); }
  void fields(ModuleVisitor& v) override { n_.fields(v); }
  std::unique_ptr<AnyNetwork> copy() const override { return std::make_unique<NetworkOf>(n_); }

 private:
  N n_;
};

}  // namespace detail

/// Any of these networks, as a value: copies share the elements of its tensors.
class Network {
 public:
  NetworkConfig config;

  /// The one that the configuration names. Errors: as of check_config(); there is none of that
  /// name; what the network itself refuses.
  PPMA_API explicit Network(const NetworkConfig& c, u64 seed = 0);
  /// One of a plain struct.
  template <class N>
  static Network of(const NetworkConfig& c, N network) {
    return Network(c, std::make_unique<detail::NetworkOf<N>>(std::move(network)));
  }
  /// The same network, whose tensors share their elements.
  Network(const Network& other) : config(other.config), any_(other.any_->copy()) {}
  /// Leaves `other` without a network.
  Network(Network&& other) noexcept = default;
  /// As the copy above.
  Network& operator=(const Network& other) {
    config = other.config, any_ = other.any_->copy();
    return *this;
  }
  /// As the move above.
  Network& operator=(Network&& other) noexcept = default;
  ~Network() = default;

  /// Images (B,3,H,W), at least 32 x 32 -> logits (B,classes), f32 where the images are bf16.
  PPMA_API Tensor forward(const Tensor& images, Context& ctx) const;
  /// In evaluation mode, without recording.
  PPMA_API Tensor forward(const Tensor& images) const;
  template <class V>
  void fields(V& v) {
    if constexpr (std::is_base_of_v<detail::ModuleVisitor, V>) {
      any_->fields(v);
    } else {
      detail::VisitorWalk<V> walk(v);
      any_->fields(walk);
    }
  }
  /// Writes the rows of a summary for images of a shape (B,H,W,3).
  void describe(detail::LayerRows& w, const Shape& x) { any_->describe(w, x); }

 private:
  Network(NetworkConfig c, std::unique_ptr<detail::AnyNetwork> any)
      : config(std::move(c)), any_(std::move(any)) {}
  std::unique_ptr<detail::AnyNetwork> any_;
};

/// What it costs on images (batch,3,height,width), layer by layer (models/summary.hpp). MACs are
/// those of linear layers, convolutions, attention and scans: a scan's are three a state and token
/// (its decay, its input, its output) and one a channel of D. Summary::published() is what papers
/// print as "FLOPs".
PPMA_API Summary summary(Network& m, i64 batch, i64 height, i64 width, DType dtype = DType::f32);

/// As models/fold.hpp: weights as inference with activations of `dtype` reads them.
PPMA_API void prepare_for_inference(Network& model, DType dtype);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

#include "ppma/nn/image_by_image.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

Network::Network(const NetworkConfig& c, u64 seed) {
  const NetworkKind& kind = network_of(c.network);
  check_config(c);
  Rng rng(seed);
  *this = kind.make(c, rng);
}

Tensor Network::forward(const Tensor& images, Context& ctx) const {
  const char* const name = config.network.c_str();
  const Tensor pixels = channels_last(name, images);  // (B,H,W,3)
  check(pixels.dim(1) >= 32 && pixels.dim(2) >= 32, name, ": images must be at least 32 x 32, got ",
        pixels.dim(1), " x ", pixels.dim(2), "; resize or pad them");
  if (goes_image_by_image(images, ctx))
    return image_by_image(images, [this, name](const Tensor& part, Context& own) {
      return std::vector<Tensor>{any_->forward(channels_last(name, part), own)};
    })[0];
  const Tensor logits = any_->forward(pixels, ctx);
  return ctx.seen(cast(logits, accumulator_dtype(logits.dtype())));
}

Tensor Network::forward(const Tensor& images) const {
  const NoGrad off;
  Context ctx;
  return forward(images, ctx);
}

Summary summary(Network& m, i64 batch, i64 height, i64 width, DType dtype) {
  check(batch > 0 && height >= 32 && width >= 32,
        "summary: needs a batch and images of at least 32 x 32, got ", batch, ", ", height, " x ",
        width);
  detail::LayerRows w(m.config.name, {batch, 3, height, width}, dtype);
  m.describe(w, {batch, height, width, 3});
  return w.result;
}

void prepare_for_inference(Network& model, DType dtype) {
  narrow_weights(model, dtype);
  pack_weights(model);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
