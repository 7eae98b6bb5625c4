#pragma once
#include "ppma/core/names_begin.hpp"
// Learning rates over a run: a linear warm-up, then half a cosine.
//
//   s(t) = start + t (peak - start) / warmup                            t < warmup
//   s(t) = final + (peak - final) (1 + cos(pi t / total)) / 2
//         else; the warm-up is not subtracted
//
// t counts epochs, whole or with a fraction. The published runs change the rate once per epoch, and
// with the number of the epoch that has just ended, so that epochs 0 and 1 both run at `start`:
// published_epoch(). A run of few epochs does better with a rate that moves every step: at((epoch +
// fraction)).

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// A moment of a run, as learning rates count it: a batch (from 0) of an epoch (from 0), and the
/// steps that the optimiser has made since the run began.
struct Moment {
  i64 epoch = 0, batch = 0, batches = 1;
  i64 iteration = 0;

  /// Epochs, with the fraction that is done.
  double epochs() const {
    return static_cast<double>(epoch) + static_cast<double>(batch) / static_cast<double>(batches);
  }
};

struct WarmupCosine {
  double peak = 1e-3;
  double warmup = 5;   // epochs
  double total = 300;  // epochs
  double start = 1e-6;
  double final = 1e-5;

  /// The rate at t >= 0 epochs; behind the end it stays at `final`.
  PPMA_API double at(double t) const;
  /// The rate at a moment of a run.
  double operator()(const Moment& m) const { return at(m.epochs()); }
  /// The rate that the published training used in an epoch (from 0).
  double published_epoch(i64 epoch) const {
    return at(static_cast<double>(epoch > 1 ? epoch - 1 : 0));
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include <cmath>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

double WarmupCosine::at(double t) const {
  check(total > 0 && t >= 0, "schedule: needs total > 0 and t >= 0, got total ", total, " and t ",
        t);
  if (t < warmup) return start + t * (peak - start) / warmup;
  if (t > total) return final;
  return final + 0.5 * (peak - final) * (1 + std::cos(3.14159265358979323846 * t / total));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
