// Products and convolutions with weights that were packed before: the same numbers.
#include <array>
#include <cstdlib>

#include "distance.hpp"
#include "ppma/kernels/instruction_set.hpp"
#include "ppma/nn/layers.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/linear.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

struct Both {
  Linear fc;
  Conv2d conv;
  template <class V>
  void fields(V& v) {
    v.child("fc", fc), v.child("conv", conv);
  }
};

}  // namespace

TEST_CASE("packed weights give the product that plain ones give", "[ops]") {
  Rng rng(1);
  for (const DType dtype : {DType::f32, DType::f64})
    // rows, in, out: whole panels and parts of one, k beyond a block of 256, one row
    for (const auto& [rows, in, out] : {std::array<i64, 3>{49, 64, 96},
                                        {1, 1024, 10},
                                        {200, 300, 33},
                                        {5, 3, 1},
                                        {130, 513, 70}}) {
      const Tensor x = Tensor::randn({rows, in}, rng, 1, dtype),
                   w = Tensor::randn({out, in}, rng, 1, dtype),
                   b = Tensor::randn({out}, rng, 1, dtype),
                   more = Tensor::randn({rows, out}, rng, 1, dtype);
      const PackedWeights packed = pack_linear(w);
      // Where Eigen computes products, with narrow registers or because it was asked for, weights
      // stay as they are.
      if (instruction_set().starts_with("avx") && std::getenv("PPMA_GEMM") == nullptr)
        REQUIRE(packed.defined());
      const double eps = dtype == DType::f32 ? 1e-5 : 1e-14;
      const Tensor plain = linear(x, w, b);
      CHECK(distance(linear(x, w, b, more), add(plain, more)) < eps);
      if (!packed.defined()) continue;
      CHECK(packed.shape == w.shape());
      CHECK(distance(linear(x, packed), linear(x, w)) == 0);
      CHECK(distance(linear(x, packed, b), plain) == 0);
      CHECK(distance(linear(x, packed, b, more), linear(x, w, b, more)) == 0);
    }
}

TEST_CASE("packed weights give the convolution that plain ones give", "[ops]") {
  Rng rng(2);
  for (const DType dtype : {DType::f32, DType::f64})
    for (const i64 groups : {1, 2})
      for (const i64 stride : {1, 2}) {
        const ConvOptions options{stride, 1, groups};
        for (const i64 channels : {4, 34}) {
          const Tensor x = Tensor::randn({2, 9, 11, channels}, rng, 1, dtype),
                       w = Tensor::randn({38, channels / groups, 3, 3}, rng, 1, dtype),
                       b = Tensor::randn({38}, rng, 1, dtype);
          const PackedWeights packed = pack_conv2d(w, groups);
          REQUIRE(packed.defined());
          CHECK(distance(conv2d(x, packed, b, options), conv2d(x, w, b, options)) == 0);
          CHECK(distance(conv2d(x, packed, Tensor(), options), conv2d(x, w, Tensor(), options)) ==
                0);
        }
      }
}

TEST_CASE("layers keep packed weights in place of plain ones", "[ops]") {
  Rng rng(3);
  Both m{Linear(6, 20, rng), Conv2d(6, 20, 3, ConvOptions{1, 1, 1}, rng)};
  const NoGrad off;
  const Tensor x = Tensor::randn({2, 5, 5, 6}, rng), y = m.fc.forward(x), z = m.conv.forward(x);
  pack_weights(m);
  CHECK(m.fc.weight.defined() != m.fc.packed.defined());
  CHECK_FALSE(m.conv.weight.defined());
  CHECK(distance(m.fc.forward(x), y) == 0);
  CHECK(distance(m.conv.forward(x), z) == 0);
  pack_weights(m);  // once is enough
  CHECK(distance(m.fc.forward(x), y) == 0);
}

TEST_CASE("packed weights and what does not go with them are errors", "[ops]") {
  Rng rng(4);
  const Tensor w = Tensor::randn({38, 4, 3, 3}, rng);
  const PackedWeights packed = pack_conv2d(w);
  const Tensor x = Tensor::zeros({1, 5, 5, 4}), c = Tensor::zeros({1, 5, 5, 6});
  CHECK(says([&] { pack_conv2d(Tensor::zeros({3, 4})); }, "pack_conv2d: w must be"));
  CHECK(says([&] { pack_linear(w); }, "pack_linear: w must be (out, in)"));
  CHECK(says([&] { conv2d(c, packed); }, "has 6 channels"));
  CHECK(says(
      [&] {
        conv2d(Tensor::zeros({1, 5, 5, 4}, DType::f64), packed);
      },
      "x is f64, w is f32"));
  Tensor leaf = x.clone();
  leaf.requires_grad(true);
  CHECK(says([&] { conv2d(leaf, packed); }, "for inference"));
  const PackedWeights product = pack_linear(Tensor::randn({7, 4}, rng));
  if (!product.defined()) return;
  CHECK(says([&] { linear(c, product); }, "must end in the 4 inputs"));
  CHECK(says([&] { linear(leaf, product); }, "for inference"));
  CHECK(says([&] { linear(x, product, Tensor(), x); }, "linear: add is"));
}
