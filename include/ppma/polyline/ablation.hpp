#pragma once
// The masks of the paper's ablation (Table 4; spec 2.7), chosen by one value.

#include <string>
#include <vector>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// Which structured mask the attention carries.
///   none         plain attention                    rmt      RMT's fixed Manhattan decay, one order
///   v2h          V2H polyline paths only            polyline both polyline paths: the model
///   shared       polyline with alpha = beta         cross_scan, hilbert   1-D masks along scan orders
enum class MaskKind { none, rmt, v2h, polyline, shared, cross_scan, hilbert };

}  // namespace ppma::inline PPMA_ABI
