#pragma once
#include "ppma/core/names_begin.hpp"
// A token mixer: what stands in a block in place of attention. The block around it (norm, residual,
// layer scale, feed-forward layer, depthwise positions) is the network's and the same for all.
//
// A mixer is a plain struct of linear layers, depthwise convolutions, layer norms and tensors:
//
//   struct Own {
//     Linear proj;
//     Own(const MixerConfig& c, Rng& rng);
//     Tensor forward(const Tensor& x) const;   // (B,H,W,C), normalised -> (B,H,W,C)
//     MixerCost cost(const Shape& x) const;    // beside its layers
//     template <class V> void fields(V& v) { v.child("proj", proj); }
//   };
//
// and a line in the table of mixers/all.hpp. Mixer holds any of them.

#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

/// What a mixer is made for.
struct MixerConfig {
  i64 channels, heads;
  i64 stage = 0;  // of the network, from 0
  i64 block = 0;  // of the stage, from 0
};

/// What a mixer does to tokens beside its layers, which summaries count by themselves.
struct MixerCost {
  i64 macs = 0;   // multiply-accumulates of products and scans
  i64 other = 0;  // operations besides: activations, softmaxes, norms without a layer
};

namespace detail {

// Who walks over the parts of a mixer, whatever it is.
class MixerVisitor {
 public:
  virtual ~MixerVisitor() = default;
  virtual void parameter(const char* name, Tensor& t) = 0;
  virtual void buffer(const char* name, Tensor& t) = 0;
  virtual void child(const char* name, Linear& l) = 0;
  virtual void child(const char* name, DepthwiseConv2d& l) = 0;
  virtual void child(const char* name, LayerNorm& l) = 0;
  template <class M>
  void child(const char* name, M& module);
  template <class M>
  void children(const char* name, std::vector<M>& modules) {
    for (std::size_t i = 0; i < modules.size(); ++i) child(str(name, ".", i).c_str(), modules[i]);
  }
};

// Parts of a part.
class InnerVisitor final : public MixerVisitor {
 public:
  InnerVisitor(MixerVisitor& outer, std::string prefix)
      : outer_(outer), prefix_(std::move(prefix)) {}
  void parameter(const char* name, Tensor& t) override { outer_.parameter(full(name).c_str(), t); }
  void buffer(const char* name, Tensor& t) override { outer_.buffer(full(name).c_str(), t); }
  void child(const char* name, Linear& l) override { outer_.child(full(name).c_str(), l); }
  void child(const char* name, DepthwiseConv2d& l) override { outer_.child(full(name).c_str(), l); }
  void child(const char* name, LayerNorm& l) override { outer_.child(full(name).c_str(), l); }
  using MixerVisitor::child;

 private:
  std::string full(const char* name) const { return prefix_ + name; }
  MixerVisitor& outer_;
  std::string prefix_;
};

template <class M>
void MixerVisitor::child(const char* name, M& module) {
  InnerVisitor inner(*this, std::string(name) + ".");
  MixerVisitor& v = inner;
  module.fields(v);
}

// A walk of nn/module.hpp.
template <class V>
class MixerWalk final : public MixerVisitor {
 public:
  explicit MixerWalk(V& v) : v_(v) {}
  void parameter(const char* name, Tensor& t) override { v_.parameter(name, t); }
  void buffer(const char* name, Tensor& t) override { v_.buffer(name, t); }
  void child(const char* name, Linear& l) override { v_.child(name, l); }
  void child(const char* name, DepthwiseConv2d& l) override { v_.child(name, l); }
  void child(const char* name, LayerNorm& l) override { v_.child(name, l); }

 private:
  V& v_;
};

class AnyMixer {
 public:
  virtual ~AnyMixer() = default;
  virtual Tensor forward(const Tensor& x) const = 0;
  virtual MixerCost cost(const Shape& x) const = 0;
  virtual void fields(MixerVisitor& v) = 0;
  virtual std::unique_ptr<AnyMixer> copy() const = 0;
};

template <class M>
class MixerOf final : public AnyMixer {
 public:
  explicit MixerOf(M m) : m_(std::move(m)) {}
  Tensor forward(const Tensor& x) const override { return m_.forward(x); }
  MixerCost cost(const Shape& x) const override { return m_.cost(x); }
  void fields(MixerVisitor& v) override { m_.fields(v); }
  std::unique_ptr<AnyMixer> copy() const override { return std::make_unique<MixerOf>(m_); }

 private:
  M m_;
};

}  // namespace detail

/// Any mixer, as a value: copies share the elements of its tensors, as copies of every layer do.
class Mixer {
 public:
  /// One of a plain struct.
  template <class M>
  static Mixer of(M mixer) {
    return Mixer(std::make_unique<detail::MixerOf<M>>(std::move(mixer)));
  }
  /// The same mixer, whose tensors share their elements.
  Mixer(const Mixer& other) : any_(other.any_->copy()) {}
  /// Leaves `other` without a mixer.
  Mixer(Mixer&& other) noexcept = default;
  /// As the copy above.
  Mixer& operator=(const Mixer& other) {
    any_ = other.any_->copy();
    return *this;
  }
  /// As the move above.
  Mixer& operator=(Mixer&& other) noexcept = default;
  ~Mixer() = default;

  /// x (B,H,W,C), normalised -> (B,H,W,C). bf16 tokens are mixed in f32.
  PPMA_API Tensor forward(const Tensor& x) const;
  /// For tokens of a shape (B,H,W,C).
  MixerCost cost(const Shape& x) const { return any_->cost(x); }
  template <class V>
  void fields(V& v) {
    if constexpr (std::is_base_of_v<detail::MixerVisitor, V>) {
      any_->fields(v);
    } else {
      detail::MixerWalk<V> walk(v);
      any_->fields(walk);
    }
  }

 private:
  explicit Mixer(std::unique_ptr<detail::AnyMixer> any) : any_(std::move(any)) {}
  std::unique_ptr<detail::AnyMixer> any_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

Tensor Mixer::forward(const Tensor& x) const {
  check(x.defined() && x.rank() == 4 && x.numel() > 0, "mixer: tokens must be (B,H,W,C), got ",
        x.defined() ? x.shape() : Shape{});
  return cast(any_->forward(cast(x, accumulator_dtype(x.dtype()))), x.dtype());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
