// NaN and infinity by their bits, against the standard library's functions. (tests/included.sh
// compiles with
// -ffast-math, where those no longer tell.)

#include "ppma/core/float_bits.hpp"

#include <cmath>
#include <limits>
#include <random>

#include "catch.hpp"

namespace {

template <class T>
void compare() {
  using namespace ppma;
  using Limits = std::numeric_limits<T>;
  std::mt19937_64 random(3);
  std::vector<T> values{
      0, T(-0.0), 1, Limits::max(), Limits::lowest(), Limits::min(), Limits::denorm_min()};
  for (const T x : {Limits::infinity(), Limits::quiet_NaN(), Limits::signaling_NaN()})
    values.insert(values.end(), {x, -x});
  // any bits; every eighth with the exponent of infinity and NaN
  for (int i = 0; i < 100000; ++i) {
    typename ppma::detail::FloatLayout<T>::Bits bits =
        static_cast<typename ppma::detail::FloatLayout<T>::Bits>(random());
    if (i % 8 == 0) bits |= ppma::detail::FloatLayout<T>::infinity;
    T x;
    std::memcpy(&x, &bits, sizeof x);
    values.push_back(x);
  }
  for (const T x : values) {
    INFO(x);
    if (is_nan(x) != std::isnan(x) || is_inf(x) != std::isinf(x) ||
        is_finite(x) != std::isfinite(x))
      FAIL();
  }
  CHECK(positive_infinity<T>() == Limits::infinity());
  CHECK(negative_infinity<T>() == -Limits::infinity());
  CHECK(std::isnan(not_a_number<T>()));
  CHECK(opaque(T(1.5)) == T(1.5));
}

}  // namespace

TEST_CASE("NaN and infinity are told by their bits as by the standard library") {
  compare<float>();
  compare<double>();
}
