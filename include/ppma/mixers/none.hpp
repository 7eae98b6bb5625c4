#pragma once
#include "ppma/core/names_begin.hpp"
// No mixer: each token stays with itself, IdentityFormer of Yu et al., "MetaFormer Baselines for
// Vision", 2024. What the block's convolutions alone are worth.

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

/// y = x
struct NoMixer {
  /// Needs nothing.
  NoMixer(const MixerConfig&, Rng&) {}
  /// x itself.
  Tensor forward(const Tensor& x) const { return x; }
  /// Nothing.
  MixerCost cost(const Shape&) const { return {}; }
  template <class V>
  void fields(V&) {}
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
