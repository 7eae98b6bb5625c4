// Sums over rows whose last stage waits until the backward pass ends, or until somebody reads them:
// gradients on the GPU are those of the CPU however leaves are used.

#if PPMA_TEST_GPU

#include "catch.hpp"
#include "cuda_compare.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/tensor/autograd.hpp"

using namespace ppma;

namespace later_sums {

Tensor some(const Shape& shape, u64 seed, double deviation = 1) {
  Rng rng(seed);
  return Tensor::randn(shape, rng, deviation);
}

// The leaves of a function and the gradients that it gave them.
using Values = std::vector<Tensor>;
struct Twice {
  Values here, there;

  explicit Twice(const Values& values) {
    for (const Tensor& t : values) {
      here.push_back(t.clone()), there.push_back(t.to(Device::cuda));
      here.back().requires_grad(true), there.back().requires_grad(true);
    }
  }
  // f of the leaves, times a fixed gradient, on both.
  void run(const std::function<Tensor(const Values&)>& f) {
    for (const Values* leaves : {&here, &there}) {
      const Tensor y = f(*leaves);
      y.backward(some(y.shape(), 99).to(y.device()));
    }
  }
  double apart() const {
    double most = 0;
    for (std::size_t i = 0; i < here.size(); ++i) {
      REQUIRE(here[i].grad().defined() == there[i].grad().defined());
      if (!here[i].grad().defined()) continue;
      const double d = distance(there[i].grad(), here[i].grad()).value;
      if (!(d <= most)) most = d;
    }
    return most;
  }
};

}  // namespace later_sums

using later_sums::some;
using later_sums::Twice;
using later_sums::Values;

TEST_CASE("sums that wait are there when a backward pass ends", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  cuda_test::poison(i64{1} << 20);
  Values leaves{some({3, 5, 4, 16}, 1)};
  constexpr int layers = 70;  // of four sums each: more than a launch takes
  for (int i = 0; i < layers; ++i) {
    const auto seed = static_cast<u64>(10 * i);
    leaves.push_back(some({16, 16}, seed + 2, 0.25)), leaves.push_back(some({16}, seed + 3));
    leaves.push_back(some({16}, seed + 4)), leaves.push_back(some({16}, seed + 5));
  }
  Twice twice(leaves);
  const auto net = [](const Values& l) {
    Tensor y;
    for (std::size_t i = 1; i < l.size(); i += 4) {
      const Tensor x = layer_norm(linear(l[0], l[i], l[i + 1]), l[i + 2], l[i + 3]);
      y = y.defined() ? y + x : x;
    }
    return y;
  };
  twice.run(net);
  CHECK(twice.apart() <= 2e-5);
  twice.run(net);  // added to what is there
  CHECK(twice.apart() <= 2e-5);
}

TEST_CASE("sums that wait are read when they are needed", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  cuda_test::poison(i64{1} << 20);
  SECTION("one bias and one norm for several layers") {
    Twice twice({some({40, 8}, 1), some({8, 8}, 2), some({8}, 3), some({8}, 4)});
    twice.run([](const Values& l) {
      Tensor x = l[0];
      for (int i = 0; i < 3; ++i) x = layer_norm(linear(x, l[1], l[2]), l[3], l[2]);
      return x;
    });
    CHECK(twice.apart() <= 1e-5);
  }
  SECTION("a bias that is a result, one of another shape, a frozen one") {
    Twice twice({some({40, 8}, 1), some({8, 8}, 2), some({8}, 3), some({1, 8}, 4)});
    const Tensor frozen = some({8}, 5);
    twice.run([&](const Values& l) {
      const Tensor x = linear(l[0], l[1], scale(l[2], 2) + l[2]);
      return layer_norm(linear(x, l[1], reshape(l[3], {8})), l[2], frozen.to(x.device()));
    });
    CHECK(twice.apart() <= 1e-5);
  }
  SECTION("a depthwise convolution without a bias, and with one that is a result") {
    Twice twice({some({2, 6, 5, 8}, 1), some({8, 1, 3, 3}, 2), some({8}, 3)});
    twice.run([](const Values& l) {
      return depthwise_conv2d(depthwise_conv2d(l[0], l[1]), l[1], scale(l[2], 3));
    });
    CHECK(twice.apart() <= 1e-5);
  }
  SECTION("who hears that a leaf is complete finds its gradient") {
    Twice twice({some({40, 8}, 1), some({8, 8}, 2), some({8}, 3), some({8}, 4)});
    int heard = 0;
    for (const Values* l : {&twice.here, &twice.there}) {
      const Tensor y = layer_norm(linear((*l)[0], (*l)[1], (*l)[2]), (*l)[3], (*l)[2]);
      std::vector<const GradInfo*> complete;
      std::vector<std::pair<const GradInfo*, Tensor>> then;
      const LeafListener listener{[&](const GradInfo* leaf) {
                                    complete.push_back(leaf);
                                    return true;
                                  },
                                  [&] {
                                    for (const GradInfo* leaf : complete)
                                      then.emplace_back(leaf, leaf->grad.to(Device::cpu).clone());
                                    complete.clear();
                                  }};
      backward(y, Tensor::ones(y.shape(), y.dtype(), y.device()), &listener);
      for (const auto& [leaf, gradient] : then) {
        CHECK(distance(gradient, leaf->grad).value == 0);
        ++heard;
      }
    }
    CHECK(heard == 8);
    CHECK(twice.apart() <= 1e-5);
  }
}

#endif
