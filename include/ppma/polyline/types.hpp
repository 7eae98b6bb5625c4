#pragma once
#include "ppma/core/names_begin.hpp"
// What the paper's functions hand to each other: the log decays of all edges as one tensor, and the
// choices between its attentions as values.
//
// Log decays are (2,B,G,H,W) (B batch, G heads, H W grid): [0] ln alpha of the edge to the left of
// each token, [1] ln beta of the edge above it, each <= 0. Where both are the same numbers (one
// decay for both directions) they are kept once, (1,B,G,H,W). ln alpha[:,:,:,0] and
// ln beta[:,:,0,:] belong to no edge and are never read.

#include <string>

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// How mask and softmax meet in a whole attention (spec 2.1): `code` averages two softmaxes of
/// masked scores (the published network), `paper` multiplies the softmax by L + L^T without
/// renormalising, `joint` renormalises that once.
enum class Variant { code, paper, joint };

/// Log decays (2,B,G,H,W) of log_alpha and log_beta, (B,G,H,W) each. Differentiable.
PPMA_API Tensor join_decays(const Tensor& log_alpha, const Tensor& log_beta);

/// ln alpha, ln beta (B,G,H,W) of log decays (2,B,G,H,W), or (1,B,G,H,W) where they are the same.
/// Differentiable.
PPMA_API Tensor log_alpha_of(const Tensor& log_decays);
PPMA_API Tensor log_beta_of(const Tensor& log_decays);

namespace detail {

PPMA_API void check_decays(const char* op, const Tensor& log_decays);

// Where a kernel finds ln alpha and ln beta (or their gradients); null where there is no mask.
template <class T>
struct DecayPointers {
  T *alpha = nullptr, *beta = nullptr;
};
inline i64 beta_offset(const Tensor& log_decays) {
  return log_decays.dim(0) == 2 ? log_decays.numel() / 2 : 0;
}
template <class T>
DecayPointers<const T> decay_pointers(const Tensor& log_decays) {
  if (!log_decays.defined()) return {};
  return {log_decays.data<T>(), log_decays.data<T>() + beta_offset(log_decays)};
}
template <class T>
DecayPointers<T> decay_pointers(Tensor& log_decays) {
  if (!log_decays.defined()) return {};
  return {log_decays.data<T>(), log_decays.data<T>() + beta_offset(log_decays)};
}

// Room for the gradient of log decays: (2,B,G,H,W) also where they are shared (the tape sums both
// halves); undefined for undefined ones.
PPMA_API Tensor decay_gradient(const Tensor& log_decays);

}  // namespace detail

PPMA_API std::string to_string(Paths p);
PPMA_API std::string to_string(Order o);
PPMA_API std::string to_string(Variant v);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

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

Tensor decay_gradient(const Tensor& log_decays) {
  if (!log_decays.defined()) return Tensor();
  Shape both = log_decays.shape();
  both.set(0, 2);
  return Tensor::empty(both, log_decays.dtype(), log_decays.device());
}

}  // namespace detail

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
