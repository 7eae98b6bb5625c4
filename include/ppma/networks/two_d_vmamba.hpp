#pragma once
#include "ppma/core/names_begin.hpp"
// The 2DVMamba of Zhang et al., "2DMamba: Efficient State Space Model for Image Representation with
// Applications on Giga-Pixel Whole Slide Image Classification", 2025: VMamba (networks/vmamba.hpp)
// whose four scans go along the rows of their grid and then down its columns.
//
//   g_ij = e^(D_ij A) g_i,j-1 + D_ij B_ij u_ij      along row i
//   h_ij = e^(D_ij A) h_i-1,j + g_ij                down column j
//   y_ij = C_ij . h_ij + D u_ij
//
// on the grid, on the grid with rows and columns exchanged, and on both turned by half a turn: the
// tokens as VMamba's four orders lay them out. The authors have published no weights of it; names
// and shapes are VMamba's, whose weights load.

#include "ppma/networks/vmamba.hpp"

namespace ppma::inline PPMA_ABI {

struct TwoDVMamba : VMamba {
  TwoDVMamba(const NetworkConfig& c, Rng& rng) : VMamba(c, true, rng) {}
  /// two_d_vmamba_tiny, nano.
  PPMA_API static std::vector<NetworkConfig> configs();
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

namespace ppma::inline PPMA_ABI {

std::vector<NetworkConfig> TwoDVMamba::configs() {
  return {{"two_d_vmamba_tiny", "two_d_vmamba", {2, 2, 8, 2}, {96, 192, 384, 768}},
          {"two_d_vmamba_nano", "two_d_vmamba", {1, 1, 2, 1}, {24, 48, 64, 80}, {}, 10, 0.05}};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
