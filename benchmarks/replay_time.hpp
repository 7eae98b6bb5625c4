#pragma once
// How long work takes on a GPU when a graph of it is replayed.

#include <algorithm>
#include <vector>

#include "ppma/train/replay.hpp"

/// Milliseconds of a replay of f: the median of 20, behind 5.
template <class F>
double median_ms(F&& f) {
  ppma::Replay step(f, ppma::Device::cuda);
  for (int i = 0; i < 5; ++i) step();
  std::vector<double> ms;
  ppma::cuda::Timer timer;
  for (int i = 0; i < 20; ++i) {
    timer.start();
    step();
    ms.push_back(timer.stop());
  }
  std::sort(ms.begin(), ms.end());
  return (ms[9] + ms[10]) / 2;
}
