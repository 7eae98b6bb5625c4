// What the other tests measure with: a distance is of the right size and names the element.
#include "distance.hpp"

#include <limits>
#include <sstream>

#include "catch.hpp"

using namespace ppma;

namespace {

std::string text(const Distance& d) {
  std::ostringstream out;
  out << d;
  return out.str();
}

}  // namespace

TEST_CASE("a distance names the element that is farthest off", "[distance]") {
  const Tensor want = Tensor::from<double>({3, 0, 0, 4, 0, 0}, {2, 3});
  Tensor got = want.clone();
  CHECK(distance(got, want) == 0);
  CHECK(text(largest_difference(got, want)) == "0 (equal)");
  got.data<double>()[1] = 0.5, got.data<double>()[5] = -1;
  CHECK(distance(got, want) == Approx(std::sqrt(1.25) / 5));
  CHECK(text(largest_difference(got, want)) == "0.25 (worst of 6: [1, 2] is -1, not 0)");
  CHECK(distance(want, Tensor::zeros({2, 3})) == Approx(5));
  CHECK(distance({1, 2}, {1, 4}) > 0.4);
}

TEST_CASE("of what is no number nothing can be said but where it is", "[distance]") {
  Tensor got = Tensor::zeros({4}, DType::f64);
  const Tensor want = Tensor::ones({4}, DType::f64);
  got.data<double>()[2] = std::numeric_limits<double>::quiet_NaN();
  for (const Distance& d : {distance(got, want), largest_difference(got, want)}) {
    CHECK(std::isnan(d));
    CHECK_FALSE(d < 1e300);
    CHECK_FALSE(d > 0);
    CHECK(d.worst == "worst of 4: [2] is nan, not 1");
  }
  CHECK(std::isnan(distance(want, got)));
}
