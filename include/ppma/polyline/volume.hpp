#pragma once
#include "ppma/core/names_begin.hpp"
// The polyline path mask of a volume (algorithm 1.9): a third decay gamma along depth; and, at the
// end, the one-way scan of a grid that 2DMamba has in its place (algorithm 2.6).
//
// Legend: B batch, G heads, H W D volume, N = H W D tokens (depth fastest), query (i,j,k), key
// (l,m,n).
//
//   L3D[(i,j,k),(l,m,n)] = prod(alpha[i,:,k]; j..m) prod(beta[:,m,k]; i..l) prod(gamma[l,m,:];
//   k..n)
//
// Walking from the key: along its own depth line, then down the column, then along the query's row.
// As a product L3D = L_H L_V L_D; as scans: depth first, then vertical, then horizontal.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Logs of the decays of the edges to the left (alpha), above (beta) and in front (gamma),
/// (B,G,H,W,D) each.
struct VolumeLogDecay {
  Tensor log_alpha, log_beta, log_gamma;
};

/// log L3D (B,G,N,N) by walking each path; not differentiable.
PPMA_API Tensor volume_log_mask_by_definition(const VolumeLogDecay& decay);

/// log L3D (B,G,N,N) by decay sums: the three 1-D log masks, broadcast and added. Differentiable.
PPMA_API Tensor volume_log_mask(const VolumeLogDecay& decay);

/// y = L3D x by scans, x (B,H,W,D,C), head g owns channels [g C/G, (g+1) C/G): O(1) an element.
/// Differentiable.
PPMA_API Tensor apply_volume_mask(const Tensor& x, const VolumeLogDecay& decay);

/// The one-way recurrence of 2DMamba (algorithm 2.6): h_hor[i,j] = d[i,j] h_hor[i,j-1] + x[i,j],
/// then h[i,j] = d[i,j] h[i-1,j] + h_hor[i,j]. One direction, one decay for both axes: L^T with
/// alpha = beta = d, restricted to keys above and to the left. G = C (one channel a head) is
/// 2DMamba's own diagonal decay.
///   x (B,H,W,C), log_decay (B,G,H,W); returns (B,H,W,C). Differentiable.
PPMA_API Tensor one_way_scan(const Tensor& x, const Tensor& log_decay);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include <algorithm>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/mask.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void check_volume(const char* op, const VolumeLogDecay& d) {
  check(d.log_alpha.defined() && d.log_alpha.rank() == 5 &&
            d.log_beta.shape() == d.log_alpha.shape() && d.log_gamma.shape() == d.log_alpha.shape(),
        op, ": the three log decays must all be (B,G,H,W,D), got ", d.log_alpha.shape(), ", ",
        d.log_beta.shape(), " and ", d.log_gamma.shape());
}

}  // namespace detail

Tensor volume_log_mask_by_definition(const VolumeLogDecay& decay) {
  detail::check_volume("volume_log_mask_by_definition", decay);
  const Shape& s = decay.log_alpha.shape();
  const i64 w = s[3], depth = s[4], n = s[2] * w * depth;
  Tensor mask = Tensor::empty({s[0], s[1], n, n}, decay.log_alpha.dtype());
  visit_cpu(mask.device(), mask.dtype(), "volume_log_mask_by_definition", [&](auto, auto t) {
    using T = decltype(t);
    T* m = mask.data<T>();
    for (i64 head = 0; head < s[0] * s[1]; ++head) {
      // Sum of a decay over the edges between a and b on the line whose tokens lie `step` apart
      // from `first`.
      const auto walk = [&](const Tensor& log_decay, i64 first, i64 step, i64 a, i64 b) {
        T sum = 0;
        for (i64 e = std::min(a, b) + 1; e <= std::max(a, b); ++e)
          sum += log_decay.data<T>()[head * n + first + e * step];
        return sum;
      };
      for (i64 query = 0; query < n; ++query)
        for (i64 key = 0; key < n; ++key) {
          const i64 qi = query / (w * depth), qj = query / depth % w, qk = query % depth;
          const i64 ki = key / (w * depth), kj = key / depth % w, kk = key % depth;
          m[(head * n + query) * n + key] =
              walk(decay.log_gamma, (ki * w + kj) * depth, 1, qk, kk) +
              walk(decay.log_beta, kj * depth + qk, w * depth, qi, ki) +
              walk(decay.log_alpha, qi * w * depth + qk, depth, qj, kj);
        }
    }
  });
  return mask;
}

Tensor volume_log_mask(const VolumeLogDecay& decay) {
  detail::check_volume("volume_log_mask", decay);
  const Shape& s = decay.log_alpha.shape();
  const i64 b = s[0], g = s[1], h = s[2], w = s[3], d = s[4];
  // (B,G,i,k,j,m)
  const Tensor rows = sequence_log_mask(permute(decay.log_alpha, {0, 1, 2, 4, 3}));
  // (B,G,m,k,i,l)
  const Tensor columns = sequence_log_mask(permute(decay.log_beta, {0, 1, 3, 4, 2}));
  // (B,G,l,m,k,n)
  const Tensor depths = sequence_log_mask(decay.log_gamma);
  // i j k . m .
  const Tensor along_row = reshape(permute(rows, {0, 1, 2, 4, 3, 5}), {b, g, h, w, d, 1, w, 1});
  // i . k l m .
  const Tensor down_column =
      reshape(permute(columns, {0, 1, 4, 3, 5, 2}), {b, g, h, 1, d, h, w, 1});
  // . . k l m n
  const Tensor in_depth = reshape(permute(depths, {0, 1, 4, 2, 3, 5}), {b, g, 1, 1, d, h, w, d});
  return reshape(along_row + down_column + in_depth, {b, g, h * w * d, h * w * d});
}

Tensor apply_volume_mask(const Tensor& x, const VolumeLogDecay& decay) {
  detail::check_volume("apply_volume_mask", decay);
  const Shape& s = decay.log_alpha.shape();
  check(x.defined() && x.rank() == 5 && x.dim(0) == s[0] && x.dim(1) == s[2] && x.dim(2) == s[3] &&
            x.dim(3) == s[4] && x.dim(4) % s[1] == 0,
        "apply_volume_mask: x must be (B,H,W,D,C) on the volume of the decays ", s,
        " with C a multiple of its heads, got ", x.shape());
  // (B,H,W,D,G,1)
  const Shape grid{s[0], s[2], s[3], s[4], s[1], 1};
  const auto by_token = [&](const Tensor& log_decay) {
    return reshape(permute(log_decay, {0, 2, 3, 4, 1}), grid);
  };
  // (B,H,W,D,G,d)
  const Tensor split = reshape(x, {s[0], s[2], s[3], s[4], s[1], x.dim(4) / s[1]});
  // L_D x
  const Tensor depth = decay_scan(split, by_token(decay.log_gamma), 3);
  const Tensor vertical = decay_scan(depth, by_token(decay.log_beta), 1);         // L_V
  return reshape(decay_scan(vertical, by_token(decay.log_alpha), 2), x.shape());  // L_H
}

Tensor one_way_scan(const Tensor& x, const Tensor& log_decay) {
  detail::check_tokens("one_way_scan", x, log_decay);
  const Tensor d = detail::by_token(log_decay);
  const Tensor horizontal =
      decay_scan(detail::heads_apart(x, log_decay.dim(1)), d, 2, ScanDirection::forward);
  return reshape(decay_scan(horizontal, d, 1, ScanDirection::forward), x.shape());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
