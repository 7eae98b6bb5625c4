#pragma once
#include "ppma/core/names_begin.hpp"
// Work on many tensors, cut into pieces of like size.

#include <algorithm>
#include <vector>

#include "ppma/core/parallel.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

inline constexpr i64 update_piece = 16384;  // elements

/// Calls f(i, begin, end) for pieces of at most update_piece elements that cover tensors of the
/// given sizes, in parallel. A network has hundreds of small tensors and a few large ones: pieces
/// of all of them share the threads.
template <class F>
void for_pieces(const std::vector<i64>& sizes, F&& f) {
  std::vector<i64> first{0};  // piece number at which each tensor begins
  for (const i64 n : sizes) first.push_back(first.back() + (n + update_piece - 1) / update_piece);
  parallel_for(first.back(), 2, [&](i64 begin, i64 end) {
    std::size_t i = 0;
    for (i64 piece = begin; piece < end; ++piece) {
      while (first[i + 1] <= piece) ++i;
      const i64 from = (piece - first[i]) * update_piece;
      f(i, from, std::min(sizes[i], from + update_piece));
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
