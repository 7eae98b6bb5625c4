// Layout beyond the op table: every dtype, random permutations against index arithmetic,
// conversions.

#include "ppma/ops/layout.hpp"

#include <cmath>
#include <numeric>
#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

Tensor counting(const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, DType::f64);
  for (i64 i = 0; i < t.numel(); ++i) t.data<double>()[i] = static_cast<double>(i % 251);
  return cast(t, dtype);
}

}  // namespace

TEST_CASE("random permutations of every dtype agree with index arithmetic") {
  Rng rng(6);
  const DType dtypes[] = {DType::f32, DType::f64, DType::bf16, DType::int64, DType::uint8};
  for (int trial = 0; trial < 200; ++trial) {
    const int rank = 1 + static_cast<int>(rng.below(5));
    Shape shape;
    std::vector<int> axes(static_cast<std::size_t>(rank));
    std::iota(axes.begin(), axes.end(), 0);
    for (int k = 0; k < rank; ++k)
      shape.push_back(rng.flip(0.2) ? 1 : 1 + rng.below(rank < 3 ? 70 : 9));
    for (std::size_t k = axes.size(); k > 1; --k)
      std::swap(axes[k - 1], axes[static_cast<std::size_t>(rng.below(static_cast<i64>(k)))]);
    const Tensor x = counting(shape, dtypes[trial % 5]), y = permute(x, axes);
    const std::vector<double> from = x.to_vector<double>(), to = y.to_vector<double>();
    bool same = y.dtype() == x.dtype();
    for (i64 i = 0; i < x.numel(); ++i) {
      i64 at[Shape::max_rank] = {}, rest = i, target = 0;
      for (int k = rank - 1; k >= 0; --k) at[k] = rest % shape[k], rest /= shape[k];
      for (int k = 0; k < rank; ++k)
        target = target * y.dim(k) + at[axes[static_cast<std::size_t>(k)]];
      same = same && to[static_cast<std::size_t>(target)] == from[static_cast<std::size_t>(i)];
    }
    INFO(shape.str());
    CHECK(same);
  }
  CHECK(permute(Tensor::zeros({0, 3}), {1, 0}).shape() == Shape{3, 0});
}

TEST_CASE("cutting and joining work for every dtype and undo each other") {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::int64, DType::uint8}) {
    const Tensor x = counting({3, 5, 4}, dtype);
    for (int axis = 0; axis < 3; ++axis) {
      const i64 n = x.dim(axis);
      const Tensor again = concat(
          {narrow(x, axis, 0, 1), narrow(x, axis, 1, n - 2), narrow(x, axis, n - 1, 1)}, axis);
      CHECK(again.to_vector<double>() == x.to_vector<double>());
      CHECK(flip(flip(x, axis), axis).to_vector<double>() == x.to_vector<double>());
      std::vector<Tensor> slices;
      for (i64 i = 0; i < n; ++i) slices.push_back(select(x, axis, i));
      CHECK(stack(slices, axis).to_vector<double>() == x.to_vector<double>());
    }
    CHECK(narrow(x, 1, 2, 0).shape() == Shape{3, 0, 4});
  }
}

TEST_CASE("reshape shares elements") {
  const Tensor x = Tensor::zeros({2, 6});
  CHECK(reshape(x, {3, 4}).raw() == x.raw());
  CHECK(reshape(x, {-1}).shape() == Shape{12});
  CHECK(reshape(x, Shape{1, 12}).shape() == Shape{1, 12});
  CHECK(reshape(Tensor::zeros({1}), Shape{}).shape() == Shape{});
  CHECK(says([&] { reshape(x, {-1, -1}); }, "only one size may be -1"));
  CHECK(says([&] { reshape(x, {5, 2}); }, "reshape: (2, 6) has 12 elements, (5, 2) has 10"));
}

TEST_CASE("cast converts, and its gradient comes back in the dtype of the input") {
  const Tensor x = Tensor::from<double>({1.0 / 3, -2.75, 300}, {3});
  CHECK(cast(x, DType::f32).to_vector<float>() == std::vector<float>{1.0f / 3, -2.75f, 300});
  CHECK(cast(x, DType::int64).to_vector<i64>() == std::vector<i64>{0, -2, 300});
  CHECK(cast(cast(x, DType::bf16), DType::f32).to_vector<float>()[0] == 0x1.56p-2f);
  CHECK(cast(x, DType::f64).raw() == x.raw());

  Tensor leaf = Tensor::from<float>({1, 2}, {2}).requires_grad(true);
  sum(mul(cast(leaf, DType::f64), Tensor::from<double>({3, 4}, {2}))).backward();
  CHECK(leaf.grad().dtype() == DType::f32);
  CHECK(leaf.grad().to_vector<float>() == std::vector<float>{3, 4});
  CHECK_FALSE(cast(leaf, DType::int64).requires_grad());
}

TEST_CASE("concat differentiates only what needs it") {
  Tensor a = Tensor::ones({2, 2}, DType::f64).requires_grad(true);
  const Tensor b = Tensor::ones({2, 3}, DType::f64);
  concat({b, a}, 1).backward(Tensor::from<double>({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {2, 5}));
  CHECK(a.grad().to_vector<double>() == std::vector<double>{4, 5, 9, 10});
}
