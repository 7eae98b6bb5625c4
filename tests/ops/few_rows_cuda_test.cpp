// Products of few rows on a GPU, whose kernels begin before those ahead of them have ended: against
// the CPU in float64 on the same bf16 numbers, twice for the same bits, and in long rows of them.

#include <vector>

#include "catch.hpp"
#include "cuda_compare.hpp"
#include "distance.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/pool.hpp"
#include "ppma/tensor/autograd.hpp"

#if PPMA_TEST_GPU

using namespace ppma;

namespace few_rows_test {

Tensor as(const Tensor& t, DType dtype) {
  Tensor y = Tensor::empty(t.shape(), dtype);
  y.copy_from(t);
  return y;
}
Tensor drawn(const Shape& shape, Rng& rng, double width) {
  return as(Tensor::randn(shape, rng, width), DType::bf16);
}
// f() twice on the GPU: the same bits, and those of `expected` within rounding.
template <class F>
void check_against(const Tensor& expected, F&& f) {
  const Tensor one = f().to(Device::cpu), two = f().to(Device::cpu);
  CHECK(distance(one, expected) < 4e-3);
  CHECK(cuda_test::same_bits(one, two));
}

}  // namespace few_rows_test

TEST_CASE("cuda: products of few rows", "[cuda]") {
  using namespace few_rows_test;
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const NoGrad off;
  struct Size {
    i64 rows, in, out;
  };
  // All tiles; sums shorter than a block's warps; results that end within a tile, or are too many.
  for (const Size& s :
       {Size{1, 1024, 1000}, Size{49, 512, 512}, Size{50, 48, 20}, Size{33, 16, 36},
        Size{196, 768, 256}, Size{784, 128, 384}, Size{3137, 64, 64}, Size{3137, 192, 64},
        Size{7, 1536, 512}, Size{13000, 64, 192}, Size{1561, 256, 260}, Size{784, 384, 128}}) {
    INFO(s.rows << " rows, " << s.in << " to " << s.out);
    Rng rng(5);
    const Tensor x = drawn({s.rows, s.in}, rng, 1), w = drawn({s.out, s.in}, rng, 0.1),
                 b = drawn({s.out}, rng, 0.3), add = drawn({s.rows, s.out}, rng, 1);
    const Tensor xd = x.to(Device::cuda), wd = w.to(Device::cuda), bd = b.to(Device::cuda),
                 addd = add.to(Device::cuda);
    const auto wide = [](const Tensor& t) { return as(t, DType::f64); };
    const PackedWeights packed = pack_linear(wd);
    REQUIRE(packed.defined());
    const Tensor plain = linear(wide(x), wide(w), wide(b));
    check_against(plain, [&] { return linear(xd, packed, bd); });
    check_against(plain, [&] { return linear(xd, wd, bd); });
    check_against(ppma::add(plain, wide(add)), [&] { return linear(xd, packed, bd, addd); });
    check_against(linear(wide(x), wide(w)), [&] { return linear(xd, packed); });
  }
}

// And of some more, in columns and gathered.
TEST_CASE("cuda: convolutions of few pixels with packed weights", "[cuda]") {
  using namespace few_rows_test;
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const NoGrad off;
  struct Size {
    i64 batch, h, w, in, out, kernel, stride, padding;
  };
  for (const Size& s : {Size{1, 14, 14, 256, 512, 3, 2, 1}, Size{1, 28, 28, 128, 256, 3, 2, 1},
                        Size{2, 7, 9, 64, 128, 3, 2, 1}, Size{1, 56, 56, 64, 64, 3, 1, 1},
                        Size{1, 57, 55, 32, 64, 3, 2, 1}, Size{3, 5, 4, 16, 36, 3, 1, 0},
                        Size{1, 9, 8, 48, 24, 5, 1, 2}, Size{2, 8, 8, 16, 32, 2, 2, 0},
                        Size{1, 6, 7, 32, 48, 1, 1, 0}, Size{9, 40, 40, 32, 64, 3, 1, 1},
                        Size{1, 6, 7, 8, 16, 3, 1, 1}, Size{4, 28, 28, 128, 256, 3, 2, 1},
                        Size{8, 28, 28, 128, 256, 3, 2, 1}, Size{3, 21, 19, 136, 248, 3, 1, 1},
                        Size{8, 13, 13, 256, 160, 3, 2, 1}, Size{12, 40, 40, 48, 96, 3, 2, 1},
                        Size{1, 41, 43, 32, 160, 3, 1, 1}, Size{1, 60, 61, 32, 32, 3, 1, 1}}) {
    INFO(s.batch << " x " << s.h << " x " << s.w << ", " << s.in << " to " << s.out << ", kernel "
                 << s.kernel << ", stride " << s.stride);
    Rng rng(6);
    const ConvOptions options{s.stride, s.padding, 1};
    const Tensor x = drawn({s.batch, s.h, s.w, s.in}, rng, 1),
                 w = drawn({s.out, s.in, s.kernel, s.kernel}, rng, 0.1),
                 b = drawn({s.out}, rng, 0.3);
    const Tensor xd = x.to(Device::cuda), bd = b.to(Device::cuda);
    const PackedWeights packed = pack_conv2d(w.to(Device::cuda), options);
    REQUIRE(packed.defined());
    const auto wide = [](const Tensor& t) { return as(t, DType::f64); };
    const Tensor y = conv2d(wide(x), wide(w), wide(b), options);
    check_against(y, [&] { return conv2d(xd, packed, bd, options); });
    check_against(gelu(y), [&] { return conv2d_gelu(xd, packed, bd, options); });
    check_against(conv2d(wide(x), wide(w), Tensor(), options),
                  [&] { return conv2d(xd, packed, Tensor(), options); });
  }
  CHECK(!pack_conv2d(Tensor::zeros({8, 3, 3, 3}, DType::bf16, Device::cuda)).defined());
}

TEST_CASE("cuda: the mean of silu over a grid in one pass", "[cuda]") {
  using namespace few_rows_test;
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const NoGrad off;
  for (const Shape& shape : {Shape{1, 7, 7, 1024}, Shape{3, 1, 1, 64}, Shape{5, 13, 9, 192}}) {
    Rng rng(4);
    const Tensor x = drawn(shape, rng, 2), xd = x.to(Device::cuda);
    check_against(silu_avg_pool(as(x, DType::f64)), [&] { return silu_avg_pool(xd); });
  }
}

TEST_CASE("cuda: kernels that begin before others have ended see what those wrote", "[cuda]") {
  using namespace few_rows_test;
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const NoGrad off;
  Rng rng(8);
  const i64 c = 128;
  const Tensor start = drawn({1, 20, 20, c}, rng, 1).to(Device::cuda);
  std::vector<Tensor> drawn_ones, weights;
  std::vector<PackedWeights> packed;
  for (int i = 0; i < 6; ++i) {
    drawn_ones.push_back(drawn({c, c}, rng, 0.08).to(Device::cuda));
    weights.push_back(Tensor::zeros({c, c}, DType::bf16, Device::cuda));
    packed.push_back(pack_linear(weights.back()));
  }
  const Tensor taps = Tensor::randn({c, 1, 3, 3}, rng, 0.2).to(Device::cuda),
               shift = Tensor::randn({c}, rng, 0.1).to(Device::cuda);
  // Parameters change between rows of kernels, by kernels that are none of these.
  const auto run = [&](bool wait) {
    for (std::size_t i = 0; i < 6; ++i) weights[i].copy_from(drawn_ones[i]);
    Tensor x = start;
    for (int i = 0; i < 120; ++i) {
      const std::size_t at = static_cast<std::size_t>(i) % 6;
      if (i % 20 == 10) weights[at].copy_from(scale(weights[at], -1.0));
      x = linear(x, packed[at], Tensor(), i % 3 == 0 ? x : Tensor());
      if (wait) cuda::synchronize();
      if (i % 2 == 0) x = depthwise_conv2d(x, taps, shift, i % 4 == 0 ? x : Tensor());
      if (wait) cuda::synchronize();
      if (i % 10 == 9) x = clamp(x, -3.0, 3.0);
      if (wait) cuda::synchronize();
    }
    return x.to(Device::cpu);
  };
  const Tensor in_step = run(true);
  for (int again = 0; again < 3; ++again) CHECK(cuda_test::same_bits(run(false), in_step));
}

#endif
