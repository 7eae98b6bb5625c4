#pragma once
#include "ppma/core/names_begin.hpp"
// All networks of other papers, and the lines of their table. A new one is a header in this folder
// and a line here: docs/networks.md. A program that links the compiled library has them without
// this header.

#include "ppma/networks/biformer.hpp"
#include "ppma/networks/mambaout.hpp"
#include "ppma/networks/networks.hpp"
#include "ppma/networks/spatial_mamba.hpp"
#include "ppma/networks/two_d_vmamba.hpp"
#include "ppma/networks/vmamba.hpp"
#include "ppma/networks/vvt.hpp"

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class N>
Network make_network(const NetworkConfig& c, Rng& rng) {
  return Network::of(c, N(c, rng));
}

inline bool fill_network_table() {
  network_table() = {
      {"mambaout", "Yu and Wang, MambaOut, 2025", "head.fc2", MambaOut::configs(),
       make_network<MambaOut>},
      {"vmamba", "Liu et al., VMamba, 2024", "classifier.head", VMamba::configs(),
       make_network<VMamba>},
      {"spatial_mamba", "Xiao et al., Spatial-Mamba, 2025", "head", SpatialMamba::configs(),
       make_network<SpatialMamba>},
      {"two_d_vmamba", "Zhang et al., 2DMamba, 2025", "classifier.head", TwoDVMamba::configs(),
       make_network<TwoDVMamba>},
      {"biformer", "Zhu et al., BiFormer, 2023", "head", BiFormer::configs(),
       make_network<BiFormer>},
      {"vvt", "Sun et al., Vicinity Vision Transformer, 2022", "head", Vvt::configs(),
       make_network<Vvt>},
  };
  return true;
}

// Before main() begins.
inline const bool network_table_is_filled = fill_network_table();

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
