#pragma once
#include "ppma/core/names_begin.hpp"
// What several runs say together: means over seeds with their intervals.

#include <vector>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// A mean and how far the truth may be from it.
struct Interval {
  double mean = 0, deviation = 0;  // of the values (n - 1)
  double low = 0, high = 0;        // 95 %: mean -+ t deviation / sqrt(n), Student's t of n - 1

  /// Whether the interval does not hold zero.
  bool differs_from_zero() const { return low > 0 || high < 0; }
};

/// The 95 % interval of the mean of values that are normally distributed. Of one value deviation
/// and interval are not known: not numbers. Error: no value.
PPMA_API Interval mean_interval(const std::vector<double>& values);

/// The same of the differences a[i] - b[i]: of runs that share a seed, so that what the seed does
/// to both is not in them. Error: a and b differ in number.
PPMA_API Interval paired_interval(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_METRICS)

#include <cmath>

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// The 97.5 % quantile of Student's t; beyond the table by the first terms of its expansion about
// the normal distribution (Abramowitz and Stegun 26.7.5).
inline double student_quantile(std::size_t freedom) {
  static constexpr double table[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469,
                                     2.3646,  2.3060, 2.2622, 2.2281, 2.2010, 2.1788,
                                     2.1604,  2.1448, 2.1314, 2.1199};
  if (freedom <= std::size(table)) return table[freedom - 1];
  const double z = 1.959964, n = static_cast<double>(freedom), z3 = z * z * z, z5 = z3 * z * z;
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n);
}

}  // namespace detail

Interval mean_interval(const std::vector<double>& values) {
  check(!values.empty(), "mean_interval: there is no value");
  const double n = static_cast<double>(values.size());
  Interval r;
  for (const double v : values) r.mean += v / n;
  if (values.size() == 1) {
    r.deviation = r.low = r.high = not_a_number<double>();
    return r;
  }
  double squares = 0;
  for (const double v : values) squares += (v - r.mean) * (v - r.mean);
  r.deviation = std::sqrt(squares / (n - 1));
  const double half = detail::student_quantile(values.size() - 1) * r.deviation / std::sqrt(n);
  r.low = r.mean - half, r.high = r.mean + half;
  return r;
}

Interval paired_interval(const std::vector<double>& a, const std::vector<double>& b) {
  check(a.size() == b.size(), "paired_interval: ", a.size(), " values and ", b.size());
  std::vector<double> differences;
  for (std::size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  return mean_interval(differences);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
