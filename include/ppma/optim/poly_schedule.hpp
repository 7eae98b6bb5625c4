#pragma once
#include "ppma/core/names_begin.hpp"
// The learning rate of the segmentation recipe (recipes 2.2), by iterations t from 0.
//
//   lr(t) = rate (1 - t / total)^power,  times 1 - (1 - t / warmup)(1 - ratio) while t < warmup

#include "ppma/optim/schedule.hpp"

namespace ppma::inline PPMA_ABI {

struct PolySchedule {
  double rate = 6e-5;
  i64 total = 160000;
  double power = 1;
  i64 warmup = 1500;
  double warmup_ratio = 1e-6;

  /// The rate at iteration t.
  PPMA_API double at(i64 t) const;
  /// The rate at a moment of a run.
  double operator()(const Moment& m) const { return at(m.iteration); }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include <cmath>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

double PolySchedule::at(i64 t) const {
  check(total > 0 && t >= 0, "schedule: iteration ", t, " of ", total);
  const double left = t < total ? 1 - static_cast<double>(t) / static_cast<double>(total) : 0;
  const double r = rate * std::pow(left, power);
  return t < warmup ? r * (1 - (1 - static_cast<double>(t) / static_cast<double>(warmup)) *
                                   (1 - warmup_ratio))
                    : r;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
