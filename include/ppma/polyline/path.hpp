#pragma once
#include "ppma/core/names_begin.hpp"
// The polyline path mask by definition: every path is walked, every entry is the product of the
// decays on its way (algorithm 1.4). O(N^2 (H + W)) and plain: this is what every faster form is
// tested against.
//
// V2H from key (k,l) to query (i,j): along the KEY's column l from row k to row i, then along the
// QUERY's row i from
// column l to column j.  H2V: along the key's row k to column j, then along the query's column j to
// row i.
//
//   L [(i,j),(k,l)] = prod(alpha[i,:]; j..l) prod(beta[:,l]; i..k)        V2H
//   Lt[(i,j),(k,l)] = prod(alpha[k,:]; j..l) prod(beta[:,j]; i..k)        H2V, = L^T
//
// prod(v; a..b) multiplies v[t] for min(a,b) < t <= max(a,b): each token stores the decay of the
// edge to its left and above. (The paper prints H2V with beta_{i:k,l}; that is a misprint, it would
// not be the transpose of L.)

#include <vector>

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// A token by its row and column.
struct Cell {
  i64 row, column;
  friend bool operator==(Cell a, Cell b) { return a.row == b.row && a.column == b.column; }
};

/// The tokens on the way from key to query, both included. `path` is Paths::v2h or Paths::h2v.
PPMA_API std::vector<Cell> polyline_path(Cell key, Cell query, Paths path);

/// The log mask (B,G,N,N), query first, by walking each path; not differentiable.
///   log_decays (2,B,G,H,W);  `path` is Paths::v2h (log L) or Paths::h2v (log L^T)
PPMA_API Tensor polyline_log_mask_by_definition(const Tensor& log_decays, Paths path);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

std::vector<Cell> polyline_path(Cell key, Cell query, Paths path) {
  check(path == Paths::v2h || path == Paths::h2v, "polyline_path: a path is v2h or h2v, not ",
        path);
  std::vector<Cell> cells{key};
  const auto walk = [&cells](i64 Cell::*along, i64 target) {
    for (Cell at = cells.back(); at.*along != target; cells.push_back(at))
      at.*along += at.*along < target ? 1 : -1;
  };
  if (path == Paths::v2h) walk(&Cell::row, query.row), walk(&Cell::column, query.column);
  if (path == Paths::h2v) walk(&Cell::column, query.column), walk(&Cell::row, query.row);
  return cells;
}

Tensor polyline_log_mask_by_definition(const Tensor& log_decays, Paths path) {
  detail::check_decays("polyline_log_mask_by_definition", log_decays);
  const i64 heads = log_decays.dim(1) * log_decays.dim(2), height = log_decays.dim(3),
            width = log_decays.dim(4);
  const i64 n = height * width;
  Tensor mask = Tensor::empty({log_decays.dim(1), log_decays.dim(2), n, n}, log_decays.dtype());
  visit_cpu(mask.device(), mask.dtype(), "polyline_log_mask_by_definition", [&](auto, auto t) {
    using T = decltype(t);
    const T *const alpha = log_decays.data<T>(), *const beta =
                                                     alpha + detail::beta_offset(log_decays);
    T* m = mask.data<T>();
    for (i64 head = 0; head < heads; ++head)
      for (i64 query = 0; query < n; ++query)
        for (i64 key = 0; key < n; ++key) {
          const auto cells =
              polyline_path({key / width, key % width}, {query / width, query % width}, path);
          T sum = 0;
          for (std::size_t step = 1; step < cells.size(); ++step) {
            const Cell from = cells[step - 1], to = cells[step];
            // The edge's decay is stored at its right or lower end.
            const T* decay = from.row == to.row ? alpha : beta;
            sum += decay[head * n + std::max(from.row, to.row) * width +
                         std::max(from.column, to.column)];
          }
          m[(head * n + query) * n + key] = sum;
        }
  });
  return mask;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
