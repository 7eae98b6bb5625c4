#pragma once
#include "ppma/core/names_begin.hpp"
// All token mixers, and the lines of their table. A new one is a header in this folder and a line
// here: docs/mixers.md. A program that links the compiled library has them without this header.

#include "ppma/mixers/biformer.hpp"
#include "ppma/mixers/mamba2.hpp"
#include "ppma/mixers/mambaout.hpp"
#include "ppma/mixers/mixers.hpp"
#include "ppma/mixers/none.hpp"
#include "ppma/mixers/retnet.hpp"
#include "ppma/mixers/spatial_mamba.hpp"
#include "ppma/mixers/two_d_mamba.hpp"
#include "ppma/mixers/vicinity.hpp"
#include "ppma/mixers/vmamba.hpp"
#include "ppma/mixers/window.hpp"

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class M>
Mixer make_mixer(const MixerConfig& c, Rng& rng) {
  return Mixer::of(M(c, rng));
}

inline bool fill_mixer_table() {
  mixer_table() = {
      {"none", "Yu et al., MetaFormer Baselines, 2024", make_mixer<NoMixer>},
      {"mambaout", "Yu and Wang, MambaOut, 2025", make_mixer<GatedConv>},
      {"window", "Liu et al., Swin Transformer, 2021", make_mixer<WindowAttention>},
      {"biformer", "Zhu et al., BiFormer, 2023", make_mixer<RoutedAttention>},
      {"vicinity", "Sun et al., Vicinity Vision Transformer, 2022", make_mixer<VicinityAttention>},
      {"retnet", "Sun et al., Retentive Network, 2023", make_mixer<Retention>},
      {"mamba2", "Dao and Gu, Transformers are SSMs, 2024", make_mixer<DualScan>},
      {"vmamba", "Liu et al., VMamba, 2024", make_mixer<CrossScan>},
      {"spatial_mamba", "Xiao et al., Spatial-Mamba, 2025", make_mixer<SpatialScan>},
      {"two_d_mamba", "Zhang et al., 2DMamba, 2025", make_mixer<GridScan>},
  };
  return true;
}

// Before main() begins.
inline const bool mixer_table_is_filled = fill_mixer_table();

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
