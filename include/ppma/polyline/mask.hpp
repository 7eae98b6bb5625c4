#pragma once
#include "ppma/core/names_begin.hpp"
// The 2-D polyline path mask by decay sums, in factored form, and applied in O(N) without being
// built (the paper's Theorems 1 and 2; spec 1.4 to 1.7). By definition, path by path:
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

namespace detail {

PPMA_API Tensor identity(i64 n, DType dtype, Device device = Device::cpu);

}  // namespace detail

// ---- the factors A and B ----------------------------------------------------------------------

/// Logs of the 1-D masks that L factors into: rows log A (B,G,H,W,W), columns log B (B,G,W,H,H).
struct LineMasks {
  Tensor rows, columns;
};

/// O(N (H + W)) numbers instead of N^2. Differentiable.
PPMA_API LineMasks line_log_masks(const Tensor& log_decays);

/// L_H (B,G,N,N) from A (B,G,H,W,W), block diagonal by rows: A_i[j,l] where i = k, else 0. For
/// small N.
PPMA_API Tensor row_factor(const Tensor& a);

/// L_V (B,G,N,N) from B (B,G,W,H,H), block diagonal by columns: B_l[i,k] where j = l, else 0. For
/// small N.
PPMA_API Tensor column_factor(const Tensor& m);

// ---- the N x N mask ---------------------------------------------------------------------------

/// log L (Paths::v2h) or log L^T (Paths::h2v), (B,G,N,N), query first, by Theorem 1 (b):
///   log L[(i,j),(k,l)] = -|a[i,j] - a[i,l]| - |b[i,l] - b[k,l]|
/// with a, b the running sums of the log decays (their differences are summed outwards: a closed
/// edge, -infinity, gives -infinity where it is crossed and nothing else). O(N^2). Differentiable:
/// the gradient is summed to A and B first (spec 1.6), so that nothing but itself has N^2 elements.
PPMA_API Tensor polyline_log_mask(const Tensor& log_decays, Paths path = Paths::v2h);

/// The mask itself, (B,G,N,N): L (v2h), L^T (h2v), L + L^T (both: the paper's L2D, diagonal 2) or
/// ones (none).
PPMA_API Tensor polyline_mask(const Tensor& log_decays, Paths paths = Paths::both);

// ---- y = L x without the mask -----------------------------------------------------------------

/// y = L x, L^T x, or their sum by Theorem 2 with the dense factors: O(N (H + W)) a channel.
/// Differentiable.
///   x (B,H,W,C); head g owns channels [g C/G, (g+1) C/G);  log_decays (2,B,G,H,W)
PPMA_API Tensor apply_mask_factored(const Tensor& x, const Tensor& log_decays, Paths paths);

/// y = L x, L^T x, or their sum by scans along columns and rows (spec 1.6): O(1) an element, no
/// mask, no factors.
/// Arguments as apply_mask_factored. Differentiable.
PPMA_API Tensor apply_mask(const Tensor& x, const Tensor& log_decays, Paths paths);

/// The one-way recurrence of 2DMamba (spec 2.6): h_hor[i,j] = d[i,j] h_hor[i,j-1] + x[i,j], then
/// h[i,j] = d[i,j] h[i-1,j] + h_hor[i,j]. One direction, one decay for both axes: L^T with alpha =
/// beta = d, restricted to keys above and to the left. G = C (one channel a head) is 2DMamba's own
/// diagonal decay.
///   x (B,H,W,C), log_decay (B,G,H,W); returns (B,H,W,C). Differentiable.
PPMA_API Tensor one_way_scan(const Tensor& x, const Tensor& log_decay);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/line_mask.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// x on the grid (B,G,H,W) of a decay.
inline void check_tokens(const char* op, const Tensor& x, const Shape& grid) {
  check(x.defined() && x.rank() == 4 && x.dim(0) == grid[0] && x.dim(1) == grid[2] &&
            x.dim(2) == grid[3] && x.dim(3) % grid[1] == 0,
        op, ": x must be (B,H,W,C) on the grid of the decays ", grid,
        " with C a multiple of its heads, got ", x.shape());
}

Tensor identity(i64 n, DType dtype, Device device) {
  std::vector<double> ones(static_cast<std::size_t>(n * n), 0.0);
  for (i64 i = 0; i < n; ++i) ones[static_cast<std::size_t>(i * n + i)] = 1;
  return cast(Tensor::from<double>(ones, {n, n}), dtype).to(device);
}

}  // namespace detail

LineMasks line_log_masks(const Tensor& log_decays) {
  detail::check_decays("line_log_masks", log_decays);
  return {sequence_log_mask(log_alpha_of(log_decays)),
          sequence_log_mask(transpose(log_beta_of(log_decays), 2, 3))};
}

Tensor row_factor(const Tensor& a) {
  const i64 b = a.dim(0), g = a.dim(1), h = a.dim(2), w = a.dim(3);
  const Tensor same_row = reshape(detail::identity(h, a.dtype(), a.device()), {h, 1, h, 1});
  return reshape(reshape(a, {b, g, h, w, 1, w}) * same_row, {b, g, h * w, h * w});
}

Tensor column_factor(const Tensor& m) {
  const i64 b = m.dim(0), g = m.dim(1), w = m.dim(2), h = m.dim(3);
  const Tensor same_column = reshape(detail::identity(w, m.dtype(), m.device()), {w, 1, w});
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
  const Tensor log_alpha = log_alpha_of(log_decays);
  detail::check_tokens("apply_mask_factored", x, log_alpha.shape());
  check(paths != Paths::none, "apply_mask_factored: paths is none; choose v2h, h2v or both");
  const LineMasks m = line_log_masks(log_decays);
  const Tensor a = exp(m.rows), b = exp(m.columns);  // (B,G,H,W,W), (B,G,W,H,H)
  const i64 heads = log_alpha.dim(1);
  const Tensor split =
      permute(reshape(x, {x.dim(0), x.dim(1), x.dim(2), heads, x.dim(3) / heads}), {0, 3, 1, 2, 4});
  // (B,G,H,W,d)
  const auto along_rows = [&](const Tensor& t) { return matmul(a, t); };
  const auto down_columns = [&](const Tensor& t) {
    return transpose(matmul(b, transpose(t, 2, 3)), 2, 3);
  };
  Tensor y;
  // L   = L_H L_V
  if (paths != Paths::h2v) y = along_rows(down_columns(split));
  if (paths != Paths::v2h) {
    // L^T = L_V L_H
    const Tensor lt = down_columns(along_rows(split));
    y = y.defined() ? y + lt : lt;
  }
  return reshape(permute(y, {0, 2, 3, 1, 4}), x.shape());
}

Tensor apply_mask(const Tensor& x, const Tensor& log_decays, Paths paths) {
  const Tensor log_alpha = log_alpha_of(log_decays), log_beta = log_beta_of(log_decays);
  detail::check_tokens("apply_mask", x, log_alpha.shape());
  check(paths != Paths::none, "apply_mask: paths is none; choose v2h, h2v or both");
  const i64 b = x.dim(0), h = x.dim(1), w = x.dim(2), heads = log_alpha.dim(1);
  // (B,H,W,G,d)
  const Tensor split = reshape(x, {b, h, w, heads, x.dim(3) / heads});
  // (B,H,W,G,1)
  const Tensor la = reshape(permute(log_alpha, {0, 2, 3, 1}), {b, h, w, heads, 1});
  const Tensor lb = reshape(permute(log_beta, {0, 2, 3, 1}), {b, h, w, heads, 1});
  const auto along_rows = [&](const Tensor& t) { return decay_scan(t, la, 2); };
  const auto down_columns = [&](const Tensor& t) { return decay_scan(t, lb, 1); };
  Tensor y;
  if (paths != Paths::h2v) y = along_rows(down_columns(split));
  if (paths != Paths::v2h) {
    const Tensor lt = down_columns(along_rows(split));
    y = y.defined() ? y + lt : lt;
  }
  return reshape(y, x.shape());
}

Tensor one_way_scan(const Tensor& x, const Tensor& log_decay) {
  check(log_decay.defined() && log_decay.rank() == 4,
        "one_way_scan: log_decay must be (B,G,H,W), got ", log_decay.shape());
  detail::check_tokens("one_way_scan", x, log_decay.shape());
  const i64 b = x.dim(0), h = x.dim(1), w = x.dim(2), heads = log_decay.dim(1);
  // (B,H,W,G,d)
  const Tensor split = reshape(x, {b, h, w, heads, x.dim(3) / heads});
  // (B,H,W,G,1)
  const Tensor d = reshape(permute(log_decay, {0, 2, 3, 1}), {b, h, w, heads, 1});
  const Tensor horizontal = decay_scan(split, d, 2, ScanDirection::forward);
  return reshape(decay_scan(horizontal, d, 1, ScanDirection::forward), x.shape());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
