// The functions of kernels/cpu/functions.hpp against long double.

#include "ppma/kernels/cpu/functions.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/core/random.hpp"

using namespace ppma;

namespace {

// |got - exact| in units of the last place of `exact`.
template <class T>
double ulps(T got, long double exact) {
  int exponent;
  std::frexp(exact, &exponent);
  const int digits = std::numeric_limits<T>::digits,
            least = std::numeric_limits<T>::min_exponent - digits;
  const long double unit = std::ldexp(1.0L, std::max(exponent - digits, least));
  return static_cast<double>(std::fabs(static_cast<long double>(got) - exact) / unit);
}

// The largest error over `count` draws of `draw`; a register and a scalar give the same bits.
template <class T, class F, class Exact, class Draw>
double worst(i64 count, F f, Exact exact, Draw draw) {
  double most = 0;
  for (i64 i = 0; i < count; i += lanes<T>) {
    Vec<T> x, y;
    for (i64 l = 0; l < lanes<T>; ++l) x[l] = draw();
    y = f(x);
    for (i64 l = 0; l < lanes<T>; ++l) {
      const T alone = f(T(x[l]));
      REQUIRE(alone == y[l]);
      most = std::max(most, ulps<T>(y[l], exact(static_cast<long double>(x[l]))));
    }
  }
  return most;
}

}  // namespace

TEST_CASE("log is exact to a unit in the last place") {
  Rng rng(1);
  const auto f = [](auto x) { return log_of(x); };
  const auto exact = [](long double x) { return std::log(x); };
  const auto check = [&](auto draw) {
    CHECK(worst<float>(100000, f, exact, [&] { return static_cast<float>(draw()); }) < 1);
    CHECK(worst<double>(10000, f, exact, [&] { return static_cast<double>(draw()); }) < 1);
  };
  check([&] { return 0.5 + rng.uniform(); });
  check([&] { return 1000 * rng.uniform(); });
  check([&] { return std::exp(rng.uniform(-87, 88)); });
  check([&] { return 1 + 1e-4 * (rng.uniform() - 0.5); });
  CHECK(worst<float>(10000, f, exact, [&] {
          return static_cast<float>(std::exp(rng.uniform(-103, -87)));  // denormal
        }) < 1);
}

TEST_CASE("log at the edges") {
  const float inf = positive_infinity<float>(), none = not_a_number<float>();
  for (const float x : {0.f, -0.f}) CHECK(log_of(x) == -inf);
  CHECK(log_of(inf) == inf);
  CHECK(log_of(1.f) == 0);
  for (const float x : {-1.f, -1e-40f, -inf, none, -none}) CHECK(is_nan(log_of(x)));
  CHECK(log_of(std::numeric_limits<float>::max()) == Approx(88.722839f).epsilon(1e-7));
  CHECK(log_of(std::numeric_limits<float>::denorm_min()) == Approx(-103.27893f).epsilon(1e-7));
}

TEST_CASE("both exponentials are exact to two units in the last place") {
  Rng rng(2);
  const auto exact = [](long double x) { return std::exp(x); };
  const auto check = [&](auto f, double low, double high) {
    CHECK(worst<float>(100000, f, exact, [&] {
            return static_cast<float>(rng.uniform(std::max(low, -87.3), std::min(high, 88.7)));
          }) < 2);
    CHECK(worst<double>(10000, f, exact, [&] { return rng.uniform(low, high); }) < 2);
  };
  const auto any = [](auto x) { return exp_of(x); };
  check(any, -708, 709);
  check(any, -1, 1);
  const auto below_zero = [](auto x) { return exp_below_zero(x); };
  check(below_zero, -708, 0);
  check(below_zero, -1, 0);
}

TEST_CASE("the exponential of a softmax at the edges") {
  const auto check = [](auto below, auto none) {
    using T = decltype(below);
    CHECK(exp_below_zero(T(0)) == 1);
    for (const T x : {below, T(-1000), T(-1e9), T(-1e30), -positive_infinity<T>()})
      CHECK(exp_below_zero(x) == 0);
    CHECK(is_nan(exp_below_zero(none)));
  };
  check(-87.7f, not_a_number<float>());
  check(-708.8, not_a_number<double>());
}
