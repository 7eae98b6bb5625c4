#pragma once
#include "ppma/core/names_begin.hpp"
// Times of repeated runs, by the host's clock or a GPU's events.

#include <chrono>
#include <ratio>
#include <vector>

#include "ppma/core/device.hpp"
#include "ppma/core/gpu.hpp"

namespace ppma::inline PPMA_ABI {

/// Milliseconds of each of `repeat` runs of f, by the host's clock, or on the GPU by its events.
template <class F>
std::vector<double> timed(i64 repeat, Device device, F&& f) {
  std::vector<double> ms;
  if (device == Device::cuda) {
    cuda::Timer timer;
    for (i64 i = 0; i < repeat; ++i) {
      timer.start();
      f();
      ms.push_back(timer.stop());
    }
    return ms;
  }
  for (i64 i = 0; i < repeat; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
                     .count());
  }
  return ms;
}

/// The number in the middle, or the mean of the two that are. Error: there is none.
PPMA_API double median(std::vector<double> v);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

double median(std::vector<double> v) {
  check(!v.empty(), "median: of no numbers");
  std::sort(v.begin(), v.end());
  return (v[v.size() / 2] + v[(v.size() - 1) / 2]) / 2;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
