// Constants that are kept: made once, of each shape, dtype and key; and on a GPU a graph's own while
// it lives.

#include "ppma/tensor/constant.hpp"

#include "catch.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/train/replay.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace constant_test {

std::vector<double> count_up(i64 n) {
  std::vector<double> v;
  for (i64 i = 0; i < n; ++i) v.push_back(static_cast<double>(i));
  return v;
}

}  // namespace constant_test

TEST_CASE("kept constants are made once", "[tensor]") {
  using namespace constant_test;
  int made = 0;
  const auto get = [&](const std::string& key, const Shape& shape, DType dtype) {
    return kept_constant(key, shape, dtype, Device::cpu, [&] {
      ++made;
      return count_up(shape.numel());
    });
  };
  const Tensor first = get("test", {2, 3}, DType::f64);
  CHECK(first.to_vector<double>() == count_up(6));
  CHECK(get("test", {2, 3}, DType::f64).raw() == first.raw());
  CHECK(made == 1);
  CHECK(get("test", {2, 3}, DType::f32).to_vector<double>() == count_up(6));
  CHECK(get("test", {6}, DType::f64).shape() == Shape{6});
  CHECK(get("another test", {2, 3}, DType::f64).raw() != first.raw());
  CHECK(made == 4);
  for (int k = 0; k < 64; ++k) get("test " + std::to_string(k), {1}, DType::f32);
  made = 0;
  get("test", {2, 3}, DType::f64);
  CHECK(made == 1);
  CHECK(says([] { kept_constant("odd", {3}, DType::f32, Device::cpu, [] { return count_up(2); }); },
             "kept_constant: \"odd\" has 2 numbers for the shape (3)"));
  if (brief()) return;  // 72 MiB, number by number
  // larger than all that may be kept: it is, alone
  get("large", {9 << 20}, DType::f64);
  made = 0;
  get("large", {9 << 20}, DType::f64);
  CHECK(made == 0);
  get("test", {2, 3}, DType::f64);
  CHECK(made == 1);
  get("large", {9 << 20}, DType::f64);
  CHECK(made == 2);
}

TEST_CASE("a graph's constants stay its own when others have taken their place", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace constant_test;
  const auto get = [](const std::string& key) {
    return kept_constant(key, {1000}, DType::f32, Device::cuda, [] { return count_up(1000); });
  };
  const Tensor x = Tensor::ones({1000}, DType::f32, Device::cuda);
  Tensor y;
  Replay step([&] { y = x + get("of a graph"); }, Device::cuda);
  for (int k = 0; k < 4; ++k) step();
  REQUIRE(step.captured());
  const std::vector<double> want = y.to_vector<double>();
  for (int k = 0; k < 64; ++k) get("of others " + std::to_string(k));
  std::vector<Tensor> others;
  for (int k = 0; k < 100; ++k) others.push_back(Tensor::full({1000}, 7, DType::f32, Device::cuda));
  step();
  CHECK(y.to_vector<double>() == want);
}
