#pragma once
#include "ppma/core/names_begin.hpp"
// The 2-D polyline path mask by decay sums, in factored form, and applied in O(N) without being
// built (the paper's Theorems 1 and 2; algorithm 1.4 to 1.7). By definition, path by path:
// polyline/path.hpp.
//
// Legend: B batch, G heads, H W grid, N = H W, query (i,j), key (k,l), d head width.
//   A_i[j,l] = prod(alpha[i,:]; j..l)   W x W, one for every row
//   B_l[i,k] = prod(beta[:,l]; i..k)    H x H, one for every column
//   L[(i,j),(k,l)] = A_i[j,l] B_l[i,k]                                 V2H;  H2V is L^T
//
// Theorem 1:  (a) L = L_H L_V, L_H block diagonal by rows (A_i), L_V by columns (B_l);
//             (b) log L = log A + log B, broadcast.
// Theorem 2:  y = L x   <=>  z[:,l] = B_l x[:,l] down every column, then y[i,:] = A_i z[i,:] along
//             every row.

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// Logs of the 1-D masks that L factors into: rows log A (B,G,H,W,W), columns log B (B,G,W,H,H).
struct LineMasks {
  Tensor rows, columns;
};

/// O(N (H + W)) numbers instead of N^2. Differentiable.
PPMA_API LineMasks line_log_masks(const Tensor& log_decays);

/// Theorem 1 (a), (B,G,N,N), for small N: L_H from A (B,G,H,W,W), block diagonal by rows, A_i[j,l]
/// where i = k, else 0; and L_V from B (B,G,W,H,H), by columns, B_l[i,k] where j = l.
PPMA_API Tensor row_factor(const Tensor& a);
PPMA_API Tensor column_factor(const Tensor& m);

/// log L (Paths::v2h) or log L^T (Paths::h2v), (B,G,N,N), query first, by Theorem 1 (b):
///   log L[(i,j),(k,l)] = -|a[i,j] - a[i,l]| - |b[i,l] - b[k,l]|
/// with a, b the running sums of the log decays (their differences are summed outwards: a closed
/// edge, -infinity, gives -infinity where it is crossed and nothing else). O(N^2). Differentiable:
/// the gradient is summed to A and B first (algorithm 1.6), so that nothing but itself has N^2
/// elements.
PPMA_API Tensor polyline_log_mask(const Tensor& log_decays, Paths path = Paths::v2h);

/// The mask itself, (B,G,N,N): L (v2h), L^T (h2v), L + L^T (both: the paper's L2D, diagonal 2) or
/// ones (none).
PPMA_API Tensor polyline_mask(const Tensor& log_decays, Paths paths = Paths::both);

/// y = L x, L^T x, or their sum by Theorem 2 with the dense factors: O(N (H + W)) a channel.
/// Differentiable.
///   x (B,H,W,C), log_decays (2,B,G,H,W)
PPMA_API Tensor apply_mask_factored(const Tensor& x, const Tensor& log_decays, Paths paths);

/// The same by scans along columns and rows (algorithm 1.6): O(1) an element, no mask, no factors.
PPMA_API Tensor apply_mask(const Tensor& x, const Tensor& log_decays, Paths paths);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/line_mask.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// x on the grid of a log decay (B,G,H,W).
inline void check_tokens(const char* op, const Tensor& x, const Tensor& log_decay) {
  const Shape& grid = log_decay.shape();
  check(grid.rank() == 4 && x.defined() && x.rank() == 4 && x.dim(0) == grid[0] &&
            x.dim(1) == grid[2] && x.dim(2) == grid[3] && x.dim(3) % grid[1] == 0,
        op, ": x must be (B,H,W,C) on the grid (B,G,H,W) of the decays, ", grid,
        ", with C a multiple of its heads, got ", x.shape());
}

// The identity matrix (n,n), in the kind of `like`.
inline Tensor identity_like(const Tensor& like, i64 n) {
  std::vector<double> ones(static_cast<std::size_t>(n * n), 0.0);
  for (i64 i = 0; i < n; ++i) ones[static_cast<std::size_t>(i * n + i)] = 1;
  return cast(Tensor::from<double>(ones, {n, n}), like.dtype()).to(like.device());
}

// (B,H,W,C) -> (B,H,W,G,d), and a log decay (B,G,H,W) laid beside it, (B,H,W,G,1).
inline Tensor heads_apart(const Tensor& x, i64 heads) {
  return reshape(x, {x.dim(0), x.dim(1), x.dim(2), heads, x.dim(3) / heads});
}
inline Tensor by_token(const Tensor& log_decay) {
  return heads_apart(permute(log_decay, {0, 2, 3, 1}), log_decay.dim(1));
}

// L x = L_H L_V x, L^T x = L_V L_H x, or their sum; L_H = along_rows, L_V = down_columns.
template <class Rows, class Columns>
Tensor along_paths(const char* op, const Tensor& x, Paths paths, const Rows& along_rows,
                   const Columns& down_columns) {
  check(paths != Paths::none, op, ": paths is none; choose v2h, h2v or both");
  if (paths == Paths::v2h) return along_rows(down_columns(x));
  if (paths == Paths::h2v) return down_columns(along_rows(x));
  return along_rows(down_columns(x)) + down_columns(along_rows(x));
}

}  // namespace detail

LineMasks line_log_masks(const Tensor& log_decays) {
  detail::check_decays("line_log_masks", log_decays);
  return {sequence_log_mask(log_alpha_of(log_decays)),
          sequence_log_mask(transpose(log_beta_of(log_decays), 2, 3))};
}

Tensor row_factor(const Tensor& a) {
  const i64 b = a.dim(0), g = a.dim(1), h = a.dim(2), w = a.dim(3);
  const Tensor same_row = reshape(detail::identity_like(a, h), {h, 1, h, 1});
  return reshape(reshape(a, {b, g, h, w, 1, w}) * same_row, {b, g, h * w, h * w});
}

Tensor column_factor(const Tensor& m) {
  const i64 b = m.dim(0), g = m.dim(1), w = m.dim(2), h = m.dim(3);
  const Tensor same_column = reshape(detail::identity_like(m, w), {w, 1, w});
  return reshape(reshape(permute(m, {0, 1, 3, 4, 2}), {b, g, h, 1, h, w}) * same_column,
                 {b, g, h * w, h * w});
}

Tensor polyline_log_mask(const Tensor& log_decays, Paths path) {
  check(path == Paths::v2h || path == Paths::h2v,
        "polyline_log_mask: one log mask belongs to v2h or h2v, not to ", path,
        "; their sum is polyline_mask");
  const LineMasks m = line_log_masks(log_decays);
  const i64 b = log_decays.dim(1), g = log_decays.dim(2), h = log_decays.dim(3),
            w = log_decays.dim(4), n = h * w;
  // (B,G,i,j,1,l)
  const Tensor rows = reshape(m.rows, {b, g, h, w, 1, w});
  // (B,G,i,1,k,l)
  const Tensor columns = reshape(permute(m.columns, {0, 1, 3, 4, 2}), {b, g, h, 1, h, w});
  // (B,G,N,N)
  const Tensor log_l = reshape(rows + columns, {b, g, n, n});
  return path == Paths::v2h ? log_l : transpose(log_l, 2, 3);
}

Tensor polyline_mask(const Tensor& log_decays, Paths paths) {
  detail::check_decays("polyline_mask", log_decays);
  const i64 n = log_decays.dim(3) * log_decays.dim(4);
  if (paths == Paths::none)
    return Tensor::ones({log_decays.dim(1), log_decays.dim(2), n, n}, log_decays.dtype(),
                        log_decays.device());
  const Tensor l = exp(polyline_log_mask(log_decays, paths == Paths::both ? Paths::v2h : paths));
  return paths == Paths::both ? l + transpose(l, 2, 3) : l;
}

Tensor apply_mask_factored(const Tensor& x, const Tensor& log_decays, Paths paths) {
  detail::check_tokens("apply_mask_factored", x, log_alpha_of(log_decays));
  const LineMasks m = line_log_masks(log_decays);
  const Tensor a = exp(m.rows), b = exp(m.columns);  // (B,G,H,W,W), (B,G,W,H,H)
  const Tensor y = detail::along_paths(
      "apply_mask_factored", detail::split_heads(x, log_decays.dim(2)), paths,
      [&](const Tensor& t) { return matmul(a, t); },
      [&](const Tensor& t) { return transpose(matmul(b, transpose(t, 2, 3)), 2, 3); });
  return detail::merge_heads(y);
}

Tensor apply_mask(const Tensor& x, const Tensor& log_decays, Paths paths) {
  const Tensor log_alpha = log_alpha_of(log_decays);
  detail::check_tokens("apply_mask", x, log_alpha);
  const Tensor la = detail::by_token(log_alpha), lb = detail::by_token(log_beta_of(log_decays));
  const Tensor y = detail::along_paths(
      "apply_mask", detail::heads_apart(x, log_decays.dim(2)), paths,
      [&](const Tensor& t) { return decay_scan(t, la, 2); },
      [&](const Tensor& t) { return decay_scan(t, lb, 1); });
  return reshape(y, x.shape());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
