#pragma once
// How far two tensors are apart, and where: a failed CHECK shows the element that is farthest off.
//
//   CHECK(distance(y, expected) < 1e-12);
//   // 0.0021 (worst of 24: [1, 0, 3] is 0.5, not 0.25) < 1e-12

#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "ppma/core/error.hpp"
#include "ppma/tensor/tensor.hpp"

/// A relative distance and its largest part in words. NaN where a NaN is in it: neither small nor
/// large.
struct Distance {
  double value = 0;
  std::string worst;

  operator double() const { return value; }
  friend std::ostream& operator<<(std::ostream& out, const Distance& d) {
    return out << d.value << " (" << d.worst << ")";
  }
};

namespace distance_detail {

// The differences of two lists of numbers, and where the largest is.
struct Differences {
  double squares = 0, largest = 0;            // of got - want
  double want_squares = 0, want_largest = 0;  // of want
  std::string worst = "equal";

  Differences(const std::vector<double>& got, const std::vector<double>& want,
              const ppma::Shape& shape) {
    std::size_t at = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double difference = std::fabs(got[i] - want[i]);
      squares += difference * difference, want_squares += want[i] * want[i];
      want_largest = std::max(want_largest, std::fabs(want[i]));
      const double apart = std::isnan(difference) ? HUGE_VAL : difference;
      if (apart <= largest) continue;
      at = i, largest = apart;
    }
    if (largest > 0)
      worst = ppma::str("worst of ", got.size(), ": ", place(at, shape), " is ", got[at], ", not ",
                        want[at]);
  }

  // "[1, 0, 3]": the indices of element i.
  static std::string place(std::size_t i, const ppma::Shape& shape) {
    std::string text;
    ppma::i64 rest = static_cast<ppma::i64>(i);
    for (int axis = shape.rank(); axis-- > 0;) {
      text = ppma::str(rest % shape[axis], text.empty() ? "" : ", ", text);
      rest /= shape[axis];
    }
    return "[" + text + "]";
  }
};

}  // namespace distance_detail

/// |got - want| / |want| in the Euclidean norm; |got| where want is 0.
inline Distance distance(const std::vector<double>& got, const std::vector<double>& want,
                         const ppma::Shape& shape) {
  const distance_detail::Differences d(got, want, shape);
  return {std::sqrt(d.want_squares > 0 ? d.squares / d.want_squares : d.squares), d.worst};
}
inline Distance distance(const std::vector<double>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  return distance(got, want, {static_cast<ppma::i64>(got.size())});
}
inline Distance distance(const ppma::Tensor& got, const ppma::Tensor& want) {
  REQUIRE((got.defined() && want.defined()));
  REQUIRE(got.shape() == want.shape());
  return distance(got.to_vector<double>(), want.to_vector<double>(), want.shape());
}

/// The largest difference, relative to the largest number of `want`.
inline Distance largest_difference(const ppma::Tensor& got, const ppma::Tensor& want) {
  REQUIRE((got.defined() && want.defined()));
  REQUIRE(got.shape() == want.shape());
  const distance_detail::Differences d(got.to_vector<double>(), want.to_vector<double>(),
                                       want.shape());
  const double largest = std::isnan(d.squares) ? d.squares : d.largest;
  return {largest / std::max(d.want_largest, 1e-300), d.worst};
}
