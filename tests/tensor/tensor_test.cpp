#include "ppma/tensor/tensor.hpp"

#include <algorithm>
#include <functional>

#include "ppma/tensor/autograd.hpp"
#include "thread_counts.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("tensors are made from values, constants and draws") {
  const Tensor t = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(t.shape() == Shape{2, 3});
  CHECK(t.dtype() == DType::f32);
  CHECK(t.data<float>()[4] == 5);
  CHECK(t.bytes() == 24);
  CHECK(Tensor::zeros({3}, DType::int64).to_vector<double>() == std::vector<double>{0, 0, 0});
  CHECK(Tensor::full({2}, 2.5, DType::bf16).to_vector<double>() == std::vector<double>{2.5, 2.5});
  CHECK(Tensor::scalar(3, DType::f64).item() == 3);
  CHECK_FALSE(Tensor().defined());
  Rng a(3), b(3);
  CHECK(Tensor::randn({5}, a).to_vector<float>() == Tensor::randn({5}, b).to_vector<float>());
  for (const double u : Tensor::rand({100}, a, -3, -2, DType::f64).to_vector<double>())
    CHECK((u >= -3 && u < -2));
  CHECK(says(
      [] {
        Tensor::from<float>({1, 2}, {3});
      },
      "Tensor::from: 2 values do not fill shape (3)"));
}

TEST_CASE("draws are the stream's next numbers in their order, by any number of threads") {
  const int before = threads();
  for (const int count : thread_counts({1, 2, 3})) {
    set_threads(count);
    Rng of_tensors(3), one_by_one(3);
    of_tensors.bits(), one_by_one.bits();  // from within a block
    const std::vector<double>
        uniform = Tensor::rand({5001}, of_tensors, -3, -2, DType::f64).to_vector<double>(),
        normal = Tensor::randn({3, 1667}, of_tensors, 0.5, DType::f64).to_vector<double>();
    const auto next = [](const std::vector<double>& all, const std::function<double()>& draw) {
      return std::all_of(all.begin(), all.end(), [&](double x) { return x == draw(); });
    };
    CHECK(next(uniform, [&] { return one_by_one.uniform(-3, -2); }));
    CHECK(next(normal, [&] { return 0.5 * one_by_one.normal(); }));
    CHECK(of_tensors.bits() == one_by_one.bits());
    CHECK(of_tensors.position() == one_by_one.position());
  }
  set_threads(before);
}

TEST_CASE("copies share elements, clones do not") {
  Tensor t = Tensor::from<float>({1, 2}, {2});
  const Tensor same = t, own = t.clone();
  CHECK_FALSE(t.sole_owner());
  t.data<float>()[0] = 9;
  CHECK(same.data<float>()[0] == 9);
  CHECK(own.data<float>()[0] == 1);
  CHECK(own.sole_owner());
  CHECK(t.viewed_as({2, 1}).data<float>() == same.data<float>());
  CHECK(says([&] { t.viewed_as({3}); }, "reshape: (2) has 2 elements, (3) has 3"));
}

TEST_CASE("a part shares elements of the whole, which lives on with it") {
  Tensor part;
  {
    Tensor whole = Tensor::from<float>({0, 1, 2, 3, 4, 5, 6}, {7});
    part = whole.part(2, {2, 2});
    whole.data<float>()[3] = 30;
    CHECK(whole.part(7, {0}).numel() == 0);
    CHECK(says([&] { whole.part(4, {2, 2}); }, "elements 4 to 8 are not in (7)"));
    CHECK(says([&] { whole.part(-1, {1}); }, "-1"));
  }
  CHECK(part.shape() == Shape{2, 2});
  CHECK(part.to_vector<float>() == std::vector<float>{2, 30, 4, 5});
  const i64 live = memory_stats().live_bytes;
  part = Tensor();
  CHECK(memory_stats().live_bytes < live);
  CHECK(says([&] { part.part(0, {1}); }, "undefined"));
}

TEST_CASE("elements are typed") {
  Tensor t = Tensor::zeros({2, 2});
  CHECK(says([&] { t.data<double>(); }, "the tensor of shape (2, 2) holds f32, not f64"));
  CHECK(says([] { Tensor().data<float>(); }, "the tensor is undefined"));
  CHECK(says([&] { t.item(); }, "item: needs a tensor of one element, got (2, 2)"));
  CHECK(says([] { Tensor().item(); }, "an undefined tensor"));
  t.copy_from(Tensor::from<double>({1, 2, 3, 4}, {2, 2}));
  CHECK(t.to_vector<i64>() == std::vector<i64>{1, 2, 3, 4});
  CHECK(says([&] { t.copy_from(Tensor::zeros({4})); }, "copy_from: shape (4) into (2, 2)"));
  CHECK(says([] { Tensor::zeros({2}, DType::int64).requires_grad(true); },
             "int64 tensors have no gradient"));
  CHECK(says([] { Tensor().requires_grad(true); }, "the tensor is undefined"));
}
