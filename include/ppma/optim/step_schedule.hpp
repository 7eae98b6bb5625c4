#pragma once
#include "ppma/core/names_begin.hpp"
// The learning rate of the detection recipe (recipes 3.3): linear warm-up over iterations, then a
// tenth after each step.

#include <vector>

#include "ppma/optim/schedule.hpp"

namespace ppma::inline PPMA_ABI {

struct StepSchedule {
  double rate = 1e-4;
  std::vector<i64> steps{8, 11};  // epochs, from 0, at which the rate falls
  double fall = 0.1;
  i64 warmup = 500;  // iterations
  double warmup_ratio = 0.001;

  /// Of an iteration (from 0 over the whole run) in an epoch: the warm-up's factor is 1 - (1 - t /
  /// warmup)(1 - ratio).
  PPMA_API double at(i64 epoch, i64 iteration) const;
  /// The rate at a moment of a run.
  double operator()(const Moment& m) const { return at(m.epoch, m.iteration); }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

double StepSchedule::at(i64 epoch, i64 iteration) const {
  check(epoch >= 0 && iteration >= 0, "schedule: epoch ", epoch, ", iteration ", iteration);
  double r = rate;
  for (const i64 s : steps) r *= epoch >= s ? fall : 1.0;
  if (iteration < warmup)
    r *=
        1 - (1 - static_cast<double>(iteration) / static_cast<double>(warmup)) * (1 - warmup_ratio);
  return r;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
