#pragma once
// How the later lessons and the solutions check themselves: expect() prints a line and counts
// failures, which main() returns.

#include <cmath>
#include <cstdio>
#include <vector>

#include "ppma/tensor/tensor.hpp"

inline int failures = 0;

inline void expect(bool ok, const char* what) {
  std::printf("%s: %s\n", ok ? "ok" : "FAILED", what);
  if (!ok) ++failures;
}

inline double largest_difference(const ppma::Tensor& a, const ppma::Tensor& b) {
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  double most = x.size() == y.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < x.size() && i < y.size(); ++i)
    most = std::fmax(most, std::fabs(x[i] - y[i]));
  return most;
}
