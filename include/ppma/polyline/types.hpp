#pragma once
#include "ppma/core/names_begin.hpp"
// What the paper's functions hand to each other: tokens, log decays, and the choices between its
// attentions as values.
//
// Legend: B batch, H W grid, N = H W tokens, G heads, d head width, C = G d channels.
// Tokens are (B,H,W,C); head g owns channels [g d, (g+1) d).
// Log decays are (2,B,G,H,W): [0] ln alpha of the edge to the left of each token, [1] ln beta of
// the edge above it, each <= 0; -infinity closes an edge. Where both are the same numbers (one
// decay for both directions) they are kept once, (1,B,G,H,W). ln alpha[:,:,:,0] and
// ln beta[:,:,0,:] belong to no edge and are never read.

#include <string>

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// How mask and softmax meet in a whole attention (algorithm 2.1): `code` averages two softmaxes of
/// masked scores (the published network), `paper` multiplies the softmax by L + L^T without
/// renormalising, `joint` renormalises that once.
enum class Variant { code, paper, joint };

/// The forms of linear and of structured attention: same result, different cost.
enum class LinearForm { quadratic, scan, chunked };

/// "none", "v2h", "h2v", "both".
PPMA_API std::string to_string(Paths p);
/// "rows_first", "columns_first", "both".
PPMA_API std::string to_string(Order o);
/// "code", "paper", "joint".
PPMA_API std::string to_string(Variant v);
/// "quadratic", "scan", "chunked".
PPMA_API std::string to_string(LinearForm f);

/// Log decays (2,B,G,H,W) of log_alpha and log_beta, (B,G,H,W) each. Differentiable.
PPMA_API Tensor join_decays(const Tensor& log_alpha, const Tensor& log_beta);

/// ln alpha, ln beta (B,G,H,W) of log decays (2,B,G,H,W), or (1,B,G,H,W) where they are the same.
/// Differentiable.
PPMA_API Tensor log_alpha_of(const Tensor& log_decays);
PPMA_API Tensor log_beta_of(const Tensor& log_decays);

namespace detail {

PPMA_API void check_decays(const char* op, const Tensor& log_decays);

// Where ln beta begins in log decays, or in their gradient.
inline i64 beta_offset(const Tensor& log_decays) {
  return log_decays.dim(0) == 2 ? log_decays.numel() / 2 : 0;
}

// Tokens by head: (B,H,W,C) -> (B,G,H,W,d) and back.
PPMA_API Tensor split_heads(const Tensor& x, i64 heads);
PPMA_API Tensor merge_heads(const Tensor& x);

// Tokens by head in a row: (B,H,W,C) -> (B,G,N,d), and back to the grid of `like`.
PPMA_API Tensor head_tokens(const Tensor& x, i64 heads);
PPMA_API Tensor tokens_to_grid(const Tensor& y, const Tensor& like);

}  // namespace detail
}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include "ppma/ops/layout.hpp"

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

std::string to_string(LinearForm f) {
  return f == LinearForm::quadratic ? "quadratic" : f == LinearForm::scan ? "scan" : "chunked";
}

Tensor join_decays(const Tensor& log_alpha, const Tensor& log_beta) {
  check(log_alpha.defined() && log_beta.defined(), "join_decays: a log decay is undefined");
  check(log_alpha.rank() == 4 && log_alpha.shape() == log_beta.shape(),
        "join_decays: log_alpha and log_beta must both be (B,G,H,W), got ", log_alpha.shape(),
        " and ", log_beta.shape());
  return stack({log_alpha, log_beta});
}

Tensor log_alpha_of(const Tensor& log_decays) {
  detail::check_decays("log_alpha_of", log_decays);
  return select(log_decays, 0, 0);
}

Tensor log_beta_of(const Tensor& log_decays) {
  detail::check_decays("log_beta_of", log_decays);
  return select(log_decays, 0, log_decays.dim(0) - 1);
}

namespace detail {

void check_decays(const char* op, const Tensor& log_decays) {
  check(log_decays.defined(), op, ": log_decays is undefined");
  check(log_decays.rank() == 5 && (log_decays.dim(0) == 2 || log_decays.dim(0) == 1), op,
        ": log_decays must be (2,B,G,H,W), or (1,B,G,H,W) where alpha = beta, got ",
        log_decays.shape(), "; join_decays() makes them of two tensors");
}

Tensor split_heads(const Tensor& x, i64 heads) {
  return permute(reshape(x, {x.dim(0), x.dim(1), x.dim(2), heads, x.dim(3) / heads}),
                 {0, 3, 1, 2, 4});
}

Tensor merge_heads(const Tensor& x) {
  return reshape(permute(x, {0, 2, 3, 1, 4}), {x.dim(0), x.dim(2), x.dim(3), x.dim(1) * x.dim(4)});
}

Tensor head_tokens(const Tensor& x, i64 heads) {
  return reshape(split_heads(x, heads), {x.dim(0), heads, x.dim(1) * x.dim(2), x.dim(3) / heads});
}

Tensor tokens_to_grid(const Tensor& y, const Tensor& like) {
  return merge_heads(reshape(y, {like.dim(0), y.dim(1), like.dim(1), like.dim(2), y.dim(3)}));
}

}  // namespace detail
}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
