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
#include "ppma/nn/visitor.hpp"

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

class AnyMixer {
 public:
  virtual ~AnyMixer() = default;
  virtual Tensor forward(const Tensor& x) const = 0;
  virtual MixerCost cost(const Shape& x) const = 0;
  virtual void fields(ModuleVisitor& v) = 0;
  virtual std::unique_ptr<AnyMixer> copy() const = 0;
};

template <class M>
class MixerOf final : public AnyMixer {
 public:
  explicit MixerOf(M m) : m_(std::move(m)) {}
  Tensor forward(const Tensor& x) const override { return m_.forward(x); }
  MixerCost cost(const Shape& x) const override { return m_.cost(x); }
  void fields(ModuleVisitor& v) override { m_.fields(v); }
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

  /// x (B,H,W,C), normalised -> (B,H,W,C) of its dtype. Beside bf16 tokens (on a GPU) what has the
  /// range of a sum is f32.
  PPMA_API Tensor forward(const Tensor& x) const;
  /// For tokens of a shape (B,H,W,C).
  MixerCost cost(const Shape& x) const { return any_->cost(x); }
  template <class V>
  void fields(V& v) {
    if constexpr (std::is_base_of_v<detail::ModuleVisitor, V>) {
      any_->fields(v);
    } else {
      detail::VisitorWalk<V> walk(v);
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

namespace detail {

// f32 of bf16, others as they are.
inline Tensor wide(const Tensor& x) { return cast(x, accumulator_dtype(x.dtype())); }

// A parameter as tokens are.
inline Tensor beside(const Tensor& x, const Tensor& parameter) {
  return cast(parameter, x.dtype());
}

}  // namespace detail

Tensor Mixer::forward(const Tensor& x) const {
  check(x.defined() && x.rank() == 4 && x.numel() > 0, "mixer: tokens must be (B,H,W,C), got ",
        x.defined() ? x.shape() : Shape{});
  return any_->forward(x);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
