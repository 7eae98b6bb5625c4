// Means over seeds and their intervals: the values are scipy's (stats.t.interval, ttest_rel).

#include "ppma/metrics/interval.hpp"

#include "catch.hpp"
#include "ppma/core/float_bits.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("the interval of a mean is Student's", "[metrics]") {
  const Interval r = mean_interval({91.2, 90.4, 92.1, 91.0, 90.8});
  CHECK(r.mean == Approx(91.1));
  CHECK(r.deviation == Approx(0.6324555));
  CHECK(r.low == Approx(90.3147).epsilon(1e-5));
  CHECK(r.high == Approx(91.8853).epsilon(1e-5));
  std::vector<double> many;  // beyond the table
  for (int i = 0; i < 40; ++i) many.push_back(0.25 * (i % 7) - 0.5);
  const Interval m = mean_interval(many);
  CHECK(m.low == Approx(0.05967728).epsilon(1e-4));
  CHECK(m.differs_from_zero());
}

TEST_CASE("differences of pairs have the interval of their mean", "[metrics]") {
  const Interval d = paired_interval({3, 5, 4}, {2, 5, 1});
  CHECK(d.mean == Approx(4.0 / 3));
  CHECK(d.low == Approx(-2.46125).epsilon(1e-4));
  CHECK_FALSE(d.differs_from_zero());
  CHECK(says([] { paired_interval({1, 2}, {1}); }, "2 values and 1"));
  CHECK(says([] { mean_interval({}); }, "there is no value"));
  CHECK(is_nan(mean_interval({7}).low));
}
