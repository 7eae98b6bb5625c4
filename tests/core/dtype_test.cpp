#include "ppma/core/dtype.hpp"

#include <cmath>
#include <limits>

#include "catch.hpp"

using namespace ppma;

namespace {
float stored(float x) { return static_cast<float>(bf16(x)); }
}  // namespace

TEST_CASE("bf16 keeps eight bits of the significand, rounded to nearest even") {
  CHECK(stored(1.0f) == 1.0f);
  CHECK(stored(-0.15625f) == -0.15625f);
  CHECK(stored(1.0f + 0x1p-8f) == 1.0f);                // half way: to the even neighbour below
  CHECK(stored(1.0f + 3 * 0x1p-8f) == 1.0f + 0x1p-6f);  // half way: to the even neighbour above
  CHECK(stored(1.0f + 0x1.02p-8f) == 1.0f + 0x1p-7f);   // above half way
  CHECK(stored(0x1.fep127f) == 0x1.fep127f);            // the largest bf16
  CHECK(std::isinf(stored(0x1.ffp127f)));               // rounds beyond it
}

TEST_CASE("bf16 keeps infinities and NaN") {
  CHECK(stored(std::numeric_limits<float>::infinity()) == std::numeric_limits<float>::infinity());
  CHECK(stored(-std::numeric_limits<float>::infinity()) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(stored(std::numeric_limits<float>::quiet_NaN())));
  // A NaN whose payload is in the lower half only must not become infinity.
  u32 bits = 0x7f800001u;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  CHECK(std::isnan(stored(x)));
}

TEST_CASE("dtypes know their size, name and C++ type") {
  CHECK(size_of(DType::f32) == 4);
  CHECK(size_of(DType::f64) == 8);
  CHECK(size_of(DType::bf16) == 2);
  CHECK(size_of(DType::int64) == 8);
  CHECK(size_of(DType::uint8) == 1);
  for (const DType t : {DType::f32, DType::f64, DType::bf16, DType::int64, DType::uint8}) {
    visit_any(t, [t](auto zero) {
      CHECK(dtype_of<decltype(zero)> == t);
      CHECK(static_cast<i64>(sizeof zero) == size_of(t));
    });
  }
  CHECK(to_string(DType::bf16) == "bf16");
  CHECK(is_floating(DType::bf16));
  CHECK_FALSE(is_floating(DType::uint8));
}
