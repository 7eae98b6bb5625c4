// Products and convolutions with weights that were packed before: the same numbers.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "distance.hpp"
#include "ppma/kernels/cpu/amx.hpp"
#include "ppma/kernels/instruction_set.hpp"
#include "ppma/nn/layers.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/layout.hpp"
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
          const Tensor x = Tensor::randn({2, 9, 31, channels}, rng, 1, dtype),
                       w = Tensor::randn({38, channels / groups, 3, 3}, rng, 1, dtype),
                       b = Tensor::randn({38}, rng, 1, dtype);
          const PackedWeights packed = pack_conv2d(w, options);
          REQUIRE(packed.defined());
          CHECK(distance(conv2d(x, packed, b, options), conv2d(x, w, b, options)) == 0);
          CHECK(distance(conv2d(x, packed, Tensor(), options), conv2d(x, w, Tensor(), options)) ==
                0);
          // Of a small image plain weights are not transformed.
          const Tensor few = Tensor::randn({2, 5, 7, channels}, rng, 1, dtype);
          CHECK(distance(conv2d(few, packed, b, options), conv2d(few, w, b, options)) <
                (dtype == DType::f32 ? 1e-5 : 1e-14));
        }
      }
}

TEST_CASE("weights packed in bf16 give the product of the rounded weights", "[ops]") {
  Rng rng(6);
  const auto rounded = [](const Tensor& t) { return cast(cast(t, DType::bf16), DType::f32); };
  // What a product sees of the activations: AMX multiplies bf16 by bf16.
  const auto seen = [&](const Tensor& x) { return kernels::multiplies_bf16() ? rounded(x) : x; };
  for (const auto& [rows, in, out] : {std::array<i64, 3>{49, 64, 96},
                                      {1, 1024, 10},
                                      {200, 300, 33},
                                      {5, 3, 1},
                                      {700, 40, 48},
                                      {130, 513, 70}}) {
    const Tensor x = Tensor::randn({rows, in}, rng), w = Tensor::randn({out, in}, rng),
                 b = Tensor::randn({out}, rng), more = Tensor::randn({rows, out}, rng);
    const PackedWeights packed = pack_linear(cast(w, DType::bf16));
    REQUIRE(packed.defined());
    CHECK(packed.elements.dtype() == DType::bf16);
    CHECK(distance(linear(x, packed), linear(seen(x), rounded(w))) < 1e-6);
    CHECK(distance(linear(x, packed, b, more), linear(seen(x), rounded(w), b, more)) < 1e-6);
    CHECK(distance(linear(x, packed), linear(x, w)) > 1e-4);  // it is not f32
  }
  for (const i64 groups : {1, 2})
    for (const i64 stride : {1, 2})
      for (const i64 channels : {4, 34, 64}) {
        const ConvOptions options{stride, 1, groups};
        const Tensor x = Tensor::randn({2, 9, 11, channels}, rng),
                     w = Tensor::randn({38, channels / groups, 3, 3}, rng),
                     b = Tensor::randn({38}, rng);
        const PackedWeights packed = pack_conv2d(cast(w, DType::bf16), options);
        const Tensor there = groups == 1 ? seen(x) : x;
        CHECK(distance(conv2d(x, packed, b, options), conv2d(there, rounded(w), b, options)) <
              1e-6);
        CHECK(distance(conv2d(x, packed, Tensor(), options),
                       conv2d(there, rounded(w), Tensor(), options)) < 1e-6);
      }
}

TEST_CASE("products of bf16 by tiles, by the loops that say what a tile is", "[ops]") {
  Rng rng(7);
  for (const auto& [m, k, n] : {std::array<i64, 3>{1, 1, 1},
                                {32, 32, 32},
                                {33, 64, 31},
                                {49, 100, 70},
                                {300, 33, 40},
                                {70, 5000, 33}}) {
    const std::size_t wide = static_cast<std::size_t>(n + 3);  // rows of C lie further apart
    const Tensor x = Tensor::randn({m, k}, rng), w = cast(Tensor::randn({n, k}, rng), DType::bf16),
                 b = Tensor::randn({n}, rng), more = Tensor::randn({m, n + 3}, rng);
    std::vector<bf16> strips(static_cast<std::size_t>(kernels::strips_size(k, n)));
    kernels::pack_strips(
        k, n, [&, inputs = k](i64 p, i64 j) { return w.data<bf16>()[j * inputs + p]; },
        strips.data());
    std::vector<float> c(static_cast<std::size_t>(m) * wide, 7.0f);
    kernels::multiply_strips<kernels::detail::LoopTiles>(
        m, n, k, strips.data(), b.data<float>(), more.data<float>(), c.data(),
        static_cast<i64>(wide), [&, inputs = k](i64 i, bf16* to) {
          kernels::detail::LoopTiles::round(inputs, x.data<float>() + i * inputs, to);
        });
    double worst = 0;
    bool outside = true;
    for (i64 i = 0; i < m; ++i)
      for (i64 j = 0; j < n + 3; ++j) {
        const double got = c[static_cast<std::size_t>(i) * wide + static_cast<std::size_t>(j)];
        if (j >= n) {
          outside = outside && got == 7;
          continue;
        }
        double sum = static_cast<double>(b.data<float>()[j]) +
                     static_cast<double>(more.data<float>()[i * (n + 3) + j]),
               size = std::fabs(sum);
        for (i64 p = 0; p < k; ++p) {
          const double term =
              static_cast<double>(static_cast<float>(bf16(x.data<float>()[i * k + p]))) *
              static_cast<double>(static_cast<float>(w.data<bf16>()[j * k + p]));
          sum += term, size += std::fabs(term);
        }
        // the bound of a sum of k + 2 terms in any order, in f32
        worst =
            std::max(worst, std::fabs(got - sum) / (size * static_cast<double>(k + 2) * 0x1p-24));
      }
    CHECK(worst < 1);
    CHECK(outside);
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
  const PackedWeights transformed = pack_conv2d(Tensor::zeros({32, 32, 3, 3}));
  CHECK(transformed.transformed);
  CHECK(says(
      [&] {
        conv2d(Tensor::zeros({1, 5, 5, 32}), transformed, Tensor(), {2, 1, 1});
      },
      "w was packed for stride 1, not 2"));
  CHECK(says(
      [&] {
        conv2d(Tensor::zeros({1, 5, 5, 4}, DType::f64), packed);
      },
      "x is f64, w is f32"));
  const PackedWeights narrow = pack_conv2d(cast(w, DType::bf16));
  CHECK(says(
      [&] {
        conv2d(Tensor::zeros({1, 5, 5, 4}, DType::f64), narrow);
      },
      "weights packed in bf16 both must be f32"));
  CHECK(says(
      [&] {
        linear(Tensor::zeros({1, 4}), pack_linear(Tensor::zeros({7, 4}, DType::bf16)),
               Tensor::zeros({7}, DType::f64));
      },
      "b is f64"));
  Tensor leaf = x.clone();
  leaf.requires_grad(true);
  CHECK(says([&] { conv2d(leaf, packed); }, "for inference"));
  const PackedWeights product = pack_linear(Tensor::randn({7, 4}, rng));
  if (!product.defined()) return;
  CHECK(says([&] { linear(c, product); }, "must end in the 4 inputs"));
  CHECK(says([&] { linear(leaf, product); }, "for inference"));
  CHECK(says([&] { linear(x, product, Tensor(), x); }, "linear: add is"));
}
