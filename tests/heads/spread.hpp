#pragma once
// How initial values are spread, to compare with the distribution they should come from.

#include <cmath>

#include "ppma/tensor/tensor.hpp"

struct Spread {
  double mean = 0, deviation = 0, most = 0;  // most: the largest absolute value
};

inline Spread spread(const ppma::Tensor& t) {
  Spread s;
  const std::vector<double> v = t.to_vector<double>();
  for (const double x : v)
    s.mean += x / static_cast<double>(v.size()), s.most = std::max(s.most, std::abs(x));
  for (const double x : v)
    s.deviation += (x - s.mean) * (x - s.mean) / static_cast<double>(v.size());
  s.deviation = std::sqrt(s.deviation);
  return s;
}

/// Of some ten thousand values: the deviation to 3 %, the mean 0 beside it.
inline bool is_normal(const ppma::Tensor& t, double deviation) {
  const Spread s = spread(t);
  return std::abs(s.deviation / deviation - 1) < 0.03 && std::abs(s.mean) < 0.05 * deviation &&
         s.most > 3 * deviation;
}
inline bool is_uniform(const ppma::Tensor& t, double bound) {
  const Spread s = spread(t);
  return std::abs(s.deviation * std::sqrt(3.0) / bound - 1) < 0.03 &&
         std::abs(s.mean) < 0.05 * bound && s.most <= bound * 1.0001 && s.most > 0.99 * bound;
}
inline bool is_all(const ppma::Tensor& t, double value) {
  for (const double x : t.to_vector<double>())
    if (x != value) return false;
  return true;
}
