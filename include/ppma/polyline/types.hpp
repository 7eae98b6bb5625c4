#pragma once
#include "ppma/core/names_begin.hpp"
// The choices between the paper's attentions, as values.

#include <string>

#include "ppma/core/config.hpp"
#include "ppma/kernels/args.hpp"

namespace ppma::inline PPMA_ABI {

/// How mask and softmax meet in a whole attention (spec 2.1): `code` averages two softmaxes of
/// masked scores (the published network), `paper` multiplies the softmax by L + L^T without
/// renormalising, `joint` renormalises that once.
enum class Variant { code, paper, joint };

PPMA_API std::string to_string(Paths p);
PPMA_API std::string to_string(Order o);
PPMA_API std::string to_string(Variant v);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

std::string to_string(Paths p) {
  return p == Paths::none ? "none" : p == Paths::v2h ? "v2h" : p == Paths::h2v ? "h2v" : "both";
}

std::string to_string(Order o) {
  return o == Order::rows_first      ? "rows_first"
         : o == Order::columns_first ? "columns_first"
                                     : "both";
}

std::string to_string(Variant v) {
  return v == Variant::code ? "code" : v == Variant::paper ? "paper" : "joint";
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
