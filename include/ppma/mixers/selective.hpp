#pragma once
#include "ppma/core/names_begin.hpp"
// The selection of Mamba (Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State
// Spaces", 2023, algorithm 2), which its descendants for images share: step sizes, B and C come
// from the tokens.
//
//   D_t = softplus(W_d (W_r u_t) + b),  B_t = W_B u_t,  C_t = W_C u_t,  A = -e^(A_log)
//   h_t = e^(D_t A) h_before + D_t B_t u_t     of each channel and state
//   y_t = C_t . h_t + D u_t
//
// Which token comes before t is the mixer's own.
// Legend: E channels, S states a channel, R rank of the step sizes.

#include "ppma/mixers/mixer.hpp"
#include "ppma/ops/selective_scan.hpp"

namespace ppma::inline PPMA_ABI {

/// What is selected by tokens u (...,E).
struct Selected {
  Tensor dt;    // (...,E), step sizes before softplus
  Tensor B, C;  // (...,S)
};

struct Selection {
  i64 rank, states;
  Tensor x_proj;     // (R + 2 S,E): W_r, W_B, W_C
  Tensor dt_weight;  // (E,R)
  Tensor dt_bias;    // (E)
  Tensor A_log;      // (E,S)
  Tensor D;          // (E)

  /// Step sizes log-uniform in [0.001, 0.1], A = -1 .. -S, D = 1.
  PPMA_API Selection(i64 channels, i64 rank_, i64 states_, Rng& rng);
  /// Of tokens (...,E).
  PPMA_API Selected select(const Tensor& u) const;
  /// A, (E,S).
  PPMA_API Tensor A() const;
  /// y (B,H,W,E) of tokens u (B,H,W,E), scanned in an order (ops/selective_scan.hpp).
  PPMA_API Tensor scan(const Tensor& u, TokenOrder order) const;
  /// Of tokens whose scan takes `scans` products a state.
  PPMA_API MixerCost cost(i64 tokens, i64 scans) const;
  template <class V>
  void fields(V& v) {
    v.parameter("x_proj", x_proj), v.parameter("dt_weight", dt_weight);
    v.parameter("dt_bias", dt_bias), v.parameter("A_log", A_log), v.parameter("D", D);
  }
};

namespace detail {

// Biases of n step sizes: softplus of them is log-uniform in [0.001, 0.1].
PPMA_API Tensor step_biases(i64 n, Rng& rng);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include <cmath>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"

namespace ppma::inline PPMA_ABI {

Tensor detail::step_biases(i64 n, Rng& rng) {
  Tensor bias = Tensor::empty({n});
  for (i64 e = 0; e < n; ++e) {
    const double dt = std::exp(rng.uniform(std::log(0.001), std::log(0.1)));
    bias.data<float>()[e] = static_cast<float>(dt + std::log(-std::expm1(-dt)));
  }
  return bias;
}

Selection::Selection(i64 channels, i64 rank_, i64 states_, Rng& rng)
    : rank(rank_),
      states(states_),
      x_proj(parameter(uniform_fan_in({rank + 2 * states, channels}, channels, rng))),
      dt_weight(parameter(uniform_fan_in({channels, rank}, rank, rng))),
      dt_bias(parameter(detail::step_biases(channels, rng))),
      D(parameter(Tensor::ones({channels}))) {
  Tensor a = Tensor::empty({channels, states});
  for (i64 k = 0; k < a.numel(); ++k)
    a.data<float>()[k] = std::log(static_cast<float>(k % states + 1));
  A_log = parameter(a);
}

Selected Selection::select(const Tensor& u) const {
  const Tensor p = linear(u, x_proj);  // (...,R + 2S)
  return {linear(narrow(p, -1, 0, rank), dt_weight, dt_bias), narrow(p, -1, rank, states),
          narrow(p, -1, rank + states, states)};
}

Tensor Selection::A() const { return neg(exp(A_log)); }

Tensor Selection::scan(const Tensor& u, TokenOrder order) const {
  const Selected s = select(u);
  return selective_scan(u, s.dt, A(), s.B, s.C, order, D, Tensor(), StepSizes::softplus);
}

MixerCost Selection::cost(i64 tokens, i64 scans) const {
  const i64 channels = D.numel();
  // its two projections; input, scan, C . h; D u
  const i64 macs =
      channels * (rank + 2 * states) + channels * rank + channels * states * (2 + scans) + channels;
  // bias and softplus, D_t u_t, e^(D_t A)
  return {tokens * macs, tokens * channels * (5 + 2 * states)};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
