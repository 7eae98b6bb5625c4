#pragma once
#include "ppma/core/names_begin.hpp"
// The masks of the paper's ablation (Table 4; algorithm 2.7), chosen by one value.
//
// A mask is none, one or two N x N log masks M_r. Whole attention averages rowsoftmax(S + M_r) over
// r. Criss-cross attention uses the masks' restrictions to row i, M[(i,:),(i,:)], and to column l,
// M[(:,l),(:,l)].
//
//   name        log masks                                             criss-cross          decays
//   none        -                                                     rows, columns        0
//   rmt         Manhattan distance * decay_log of the head            rows, columns        0, fixed
//   v2h         M                                                     columns, rows        2
//   polyline    M and M^T                                             mean of both orders  2
//   shared      M and M^T with alpha = beta                           mean of both orders  1
//   cross_scan  sequences: row-major (alpha), column-major (beta)     mean of both orders  2
//   hilbert     sequences: Hilbert curve (alpha), transposed (beta)   mean of both orders  2
//
// Where two masks differ in their restrictions (cross_scan, hilbert) the first serves the rows, the
// second the columns.
//
// To add a mask: its name in MaskKind and its row in masks(), from which networks, summaries and
// the tool know all the rest.

#include <optional>
#include <string>
#include <vector>

#include "ppma/polyline/sequence.hpp"
#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// Those of masks(), algorithm 2.7.
enum class MaskKind { none, rmt, v2h, polyline, shared, cross_scan, hilbert };

/// All that is asked of a mask.
struct Mask {
  MaskKind kind;
  const char* name;
  // Learnt for a token: 2 (alpha, beta), 1 where they are equal, 0 where they are fixed.
  i64 decays;
  // In memory O(N): the paths of whole_attention() that give it; empty: only by its log masks.
  std::optional<Paths> paths;
  bool polyline_lines;  // its restrictions to rows and columns are the polyline mask's
  Order order;          // in which a criss-cross stage mixes
  // Its log masks, (B,G,N,N) each, none, one or two, for any grid.
  std::vector<Tensor> (*log_masks)(const Tensor& log_decays);
  SequenceOrders (*orders)(i64 height, i64 width) = nullptr;  // of the sequence masks
};

/// Every mask, one row each.
PPMA_API const std::vector<Mask>& masks();
/// The row of a kind.
PPMA_API const Mask& mask_of(MaskKind kind);

/// Its name in masks().
PPMA_API std::string to_string(MaskKind kind);

/// The mask of a name; "2d" is another word for polyline. Throws, naming all masks, for any other.
PPMA_API MaskKind parse_mask_kind(const std::string& name);

/// The log masks of a kind, (B,G,N,N) each, for any grid; small N (they are N x N).
///   log_decays  (2,B,G,H,W), or (1,B,G,H,W) for shared and rmt (constant ones); ignored for none
PPMA_API std::vector<Tensor> ablation_log_masks(MaskKind kind, const Tensor& log_decays);

/// Whole attention with a mask of the ablation. q, k, v (B,H,W,C), k scaled, rotary applied;
/// log_decays as ablation_log_masks. In memory O(N).
PPMA_API Tensor masked_whole_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                       MaskKind kind, const Tensor& log_decays);

/// Criss-cross attention with a mask of the ablation; arguments as masked_whole_attention. All run
/// fused: the cross scan's restrictions to rows and columns are the polyline mask's, Hilbert's
/// lines are visited in orders of their own.
PPMA_API Tensor masked_criss_cross(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                   MaskKind kind, const Tensor& log_decays);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include "ppma/ops/layout.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/polyline/fused.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// M of the vertical and horizontal decays, and its transpose where both paths count.
inline std::vector<Tensor> one_path(const Tensor& log_decays) {
  return {polyline_log_mask(log_decays)};
}
inline std::vector<Tensor> both_paths(const Tensor& log_decays) {
  const Tensor m = polyline_log_mask(log_decays);
  return {m, transpose(m, 2, 3)};
}
template <auto orders>
std::vector<Tensor> sequences(const Tensor& log_decays) {
  return sequence_log_masks(log_decays, orders(log_decays.dim(3), log_decays.dim(4)));
}

}  // namespace detail

const std::vector<Mask>& masks() {
  using detail::both_paths, detail::one_path, detail::sequences;
  const auto none = [](const Tensor&) { return std::vector<Tensor>(); };
  // RMT's decays are constant: M = M^T, one softmax is enough.
  static const std::vector<Mask> all{
      {MaskKind::none, "none", 0, Paths::none, true, Order::rows_first, none},
      {MaskKind::rmt, "rmt", 0, Paths::v2h, true, Order::rows_first, one_path},
      {MaskKind::v2h, "v2h", 2, Paths::v2h, true, Order::columns_first, one_path},
      {MaskKind::polyline, "polyline", 2, Paths::both, true, Order::both, both_paths},
      {MaskKind::shared, "shared", 1, Paths::both, true, Order::both, both_paths},
      // clang-format off
      {MaskKind::cross_scan, "cross_scan", 2, {}, true, Order::both, sequences<cross_scan_orders>,
       cross_scan_orders},
      {MaskKind::hilbert, "hilbert", 2, {}, false, Order::both, sequences<hilbert_orders>,
       hilbert_orders}};
  // clang-format on
  return all;
}

const Mask& mask_of(MaskKind kind) {
  for (const Mask& m : masks())
    if (m.kind == kind) return m;
  fail("mask: there is no mask of number ", static_cast<i64>(kind), "; masks() has them all");
}

std::string to_string(MaskKind kind) { return mask_of(kind).name; }

MaskKind parse_mask_kind(const std::string& name) {
  if (name == "2d") return MaskKind::polyline;
  std::string names;
  for (const Mask& m : masks()) {
    if (name == m.name) return m.kind;
    names += (names.empty() ? "" : ", ") + std::string(m.name);
  }
  fail("mask: there is no mask \"", name, "\"; the masks are ", names);
}

std::vector<Tensor> ablation_log_masks(MaskKind kind, const Tensor& log_decays) {
  if (kind != MaskKind::none) detail::check_decays("ablation_log_masks", log_decays);
  return mask_of(kind).log_masks(log_decays);
}

Tensor masked_whole_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                              MaskKind kind, const Tensor& log_decays) {
  const Mask& mask = mask_of(kind);
  if (mask.paths) return whole_attention(q, k, v, heads, log_decays, *mask.paths);
  return sequence_attention(q, k, v, heads, log_decays, mask.orders(q.dim(1), q.dim(2)));
}

Tensor masked_criss_cross(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                          MaskKind kind, const Tensor& log_decays) {
  const Mask& mask = mask_of(kind);
  if (kind == MaskKind::none) return criss_cross_attention(q, k, v, heads, Tensor(), mask.order);
  if (mask.polyline_lines) return criss_cross_attention(q, k, v, heads, log_decays, mask.order);
  return sequence_criss_cross(q, k, v, heads, log_decays, mask.orders(q.dim(1), q.dim(2)));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
