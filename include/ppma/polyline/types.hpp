#pragma once
#include "ppma/core/names_begin.hpp"
// The choices between the paper's attentions, as values.

#include <string>

#include "ppma/core/config.hpp"
#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// Which polyline paths from key to query a whole attention uses. V2H walks along the key's column first, then along the
/// query's row (log-mask M); H2V along the key's row, then the query's column (M^T). `none` is plain softmax attention.
enum class Paths { none, v2h, h2v, both };

/// In which order a criss-cross attention mixes: rows first (O1, path H2V), columns first (O2, path V2H), or the mean.
enum class Order { rows_first, columns_first, both };

/// How mask and softmax meet in a whole attention (spec 2.1): `code` averages two softmaxes of masked scores (the
/// published network), `paper` multiplies the softmax by L + L^T without renormalising, `joint` renormalises that once.
enum class Variant { code, paper, joint };

inline std::string to_string(Paths p) {
  return p == Paths::none ? "none" : p == Paths::v2h ? "v2h" : p == Paths::h2v ? "h2v" : "both";
}
inline std::string to_string(Order o) {
  return o == Order::rows_first ? "rows_first" : o == Order::columns_first ? "columns_first" : "both";
}
inline std::string to_string(Variant v) {
  return v == Variant::code ? "code" : v == Variant::paper ? "paper" : "joint";
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
