#pragma once
// Times of repeated runs, by the host's clock or a GPU's events.

#include <algorithm>
#include <chrono>
#include <vector>

#include "ppma/ppma.hpp"

namespace tool {

using namespace ppma;

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

inline double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return (v[v.size() / 2] + v[(v.size() - 1) / 2]) / 2;
}

}  // namespace tool
