// The same digits for any number of threads: every operation that sums over rows, forward and
// backward.

#include <cstring>

#include "catch.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/ops/residual.hpp"
#include "ppma/ops/rotary.hpp"
#include "thread_counts.hpp"

using namespace ppma;

namespace {

using In = const std::vector<Tensor>&;

template <class Op>
std::vector<Tensor> outcome(int count, const std::vector<Shape>& shapes, Op&& op) {
  const int before = threads();
  set_threads(count);
  Rng rng(11);
  std::vector<Tensor> in;
  for (const Shape& s : shapes) in.push_back(Tensor::randn(s, rng).requires_grad(true));
  const Tensor y = op(in);
  y.backward(Tensor::randn(y.shape(), rng));
  std::vector<Tensor> all{y};
  for (const Tensor& t : in) all.push_back(t.grad());
  set_threads(before);
  return all;
}

template <class Op>
void check_threads(const char* name, const std::vector<Shape>& shapes, Op&& op) {
  const std::vector<Tensor> one = outcome(1, shapes, op);
  for (const int count : thread_counts({2, 3, 7})) {
    const std::vector<Tensor> many = outcome(count, shapes, op);
    for (std::size_t i = 0; i < one.size(); ++i) {
      INFO(name << ", " << count << " threads, " << (i == 0 ? "output" : "gradient ") << i);
      CHECK(std::memcmp(one[i].raw(), many[i].raw(), static_cast<std::size_t>(one[i].bytes())) ==
            0);
    }
  }
}

}  // namespace

TEST_CASE("products, convolutions and norms do not depend on the number of threads") {
  check_threads("matmul", {{3, 70, 50}, {3, 50, 90}}, [](In x) { return matmul(x[0], x[1]); });
  check_threads("linear", {{2, 700, 64}, {96, 64}, {96}},
                [](In x) { return linear(x[0], x[1], x[2]); });
  check_threads("layer_norm", {{1500, 64}, {64}, {64}},
                [](In x) { return layer_norm(x[0], x[1], x[2]); });
  check_threads("batch_norm", {{3000, 40}, {40}, {40}}, [](In x) {
    Tensor mean = Tensor::zeros({40}), var = Tensor::ones({40});
    const Tensor y = batch_norm(x[0], x[1], x[2], mean, var, true);
    return y;
  });
  check_threads("conv2d", {{2, 41, 30, 24}, {48, 24, 3, 3}, {48}},
                [](In x) { return conv2d(x[0], x[1], x[2], {.stride = 2, .padding = 1}); });
  check_threads("conv2d, large weights", {{1, 14, 14, 96}, {192, 96, 3, 3}, {192}},
                [](In x) { return conv2d(x[0], x[1], x[2], {.padding = 1}); });
  check_threads("depthwise 3x3", {{2, 29, 30, 40}, {40, 1, 3, 3}, {40}},
                [](In x) { return depthwise_conv2d(x[0], x[1], x[2], x[0]); });
  check_threads("depthwise 5x5", {{2, 29, 30, 40}, {40, 1, 5, 5}, {40}},
                [](In x) { return depthwise_conv2d(x[0], x[1], x[2]); });
  check_threads("residual", {{4, 500, 24}, {4, 500, 24}, {24}},
                [](In x) { return residual(x[0], x[1], x[2]); });
  check_threads("rotary", {{2, 20, 20, 64}},
                [](In x) { return rotary(x[0], rotary_angle(16), 4); });
}
