#pragma once
#include "ppma/core/names_begin.hpp"
// What decayed sums (ops/decayed_sums.hpp) cost a mixer.

#include "ppma/mixers/mixer.hpp"
#include "ppma/ops/decayed_sums.hpp"

namespace ppma::inline PPMA_ABI {

/// Multiply-accumulates of those sums for a batch in chunks, and operations besides: the decays.
inline MixerCost decayed_sums_cost(i64 batch, i64 tokens, i64 heads, i64 d, i64 p) {
  const detail::Chunks chunks(tokens);
  const i64 each = batch * heads * chunks.count * chunks.length;
  const bool one = chunks.count == 1;
  return {each * (chunks.length * (d + p) + (one ? 0 : 2 * d * p)),
          each * (4 * chunks.length + (one ? 0 : 2 * p))};
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
