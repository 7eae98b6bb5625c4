// A layer norm that leaves the log decays of its result, on the GPU: the values and gradients of
// the two operations.

#if PPMA_TEST_GPU

#include <cmath>

#include "catch.hpp"
#include "distance.hpp"
#include "polyline/help.hpp"
#include "ppma/models/attention.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/polyline/decay.hpp"

using namespace ppma;

namespace {

struct Results {
  Tensor y, log_decays;
  std::vector<Tensor> gradients;  // of x, w, b, dt_weight, dt_bias, A_log
};

// What the loss is made of, beside the tokens that the norm gets.
enum class Of { normed, log_decays, both };

Results run(const std::vector<Tensor>& host, DType dtype, bool fused, Of of = Of::both,
            std::size_t frozen = 6) {
  std::vector<Tensor> in;
  for (std::size_t i = 0; i < host.size(); ++i) {
    in.push_back(cast(host[i], i == 0 ? dtype : accumulator_dtype(dtype)).to(Device::cuda));
    in.back().requires_grad(i != frozen);
  }
  NormedTokens normed{layer_norm(in[0], in[1], in[2], 1e-6), Tensor()};
  if (fused) normed = layer_norm_log_decay(in[0], in[1], in[2], 1e-6, in[3], in[4], in[5]);
  REQUIRE(normed.log_decays.defined() == fused);
  const Tensor decays = fused ? normed.log_decays : log_decay(normed.x, in[3], in[4], in[5]);
  // The norm adds to what else reads its input.
  Tensor total = sum(square(cast(in[0], decays.dtype())));
  if (of != Of::log_decays) total = total + sum(square(cast(normed.x, decays.dtype())));
  if (of != Of::normed)
    total = total + sum(square(log_alpha_of(decays))) + scale(sum(square(log_beta_of(decays))), 2);
  total.backward();
  Results r{normed.x.detach().to(Device::cpu), decays.detach().to(Device::cpu), {}};
  for (const Tensor& t : in)
    r.gradients.push_back(t.grad().defined() ? t.grad().to(Device::cpu) : Tensor());
  return r;
}

Tensor wide(const Tensor& t) { return cast(t, DType::f64); }

}  // namespace

TEST_CASE("a layer norm with log decays on the GPU gives what the two operations give", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  struct Size {
    i64 batch, height, width, heads, d, rows;
  };
  // One to eight packs a head, rows of lanes that are not full, two packs a lane; heads of 32, of
  // which a warp has four tokens in bf16, or two above 256 channels; and sizes that
  // take the two operations.
  for (const Size& s : {Size{2, 5, 7, 4, 16, 2}, Size{1, 3, 3, 8, 8, 2}, Size{3, 4, 5, 5, 16, 2},
                        Size{2, 3, 7, 16, 32, 2}, Size{2, 2, 3, 8, 64, 1}, Size{1, 1, 1, 1, 8, 1},
                        Size{3, 7, 5, 8, 32, 2}, Size{2, 4, 4, 8, 32, 1}, Size{1, 14, 14, 6, 32, 2},
                        Size{3, 3, 3, 16, 32, 2}, Size{1, 5, 3, 10, 32, 1}, Size{3, 1, 1, 5, 32, 2},
                        Size{2, 7, 7, 12, 32, 2}, Size{2, 3, 4, 3, 24, 2}, Size{2, 3, 4, 2, 5, 2},
                        Size{1, 2, 3, 32, 64, 2}})
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      INFO("heads " << s.heads << " of " << s.d << ", " << to_string(dtype));
      const i64 C = s.heads * s.d;
      const std::vector<Tensor> in{polyline_test::random({s.batch, s.height, s.width, C}, 1),
                                   polyline_test::random({C}, 2),
                                   polyline_test::random({C}, 3),
                                   polyline_test::random({s.rows, s.d}, 4, 0.3),
                                   polyline_test::random({s.heads}, 5),
                                   polyline_test::random({s.heads}, 6, 0.3)};
      const Results one = run(in, dtype, true), two = run(in, dtype, false);
      // bf16: y is rounded alike
      const double tolerance = dtype == DType::f64 ? 1e-13 : dtype == DType::f32 ? 2e-6 : 1e-5;
      CHECK(largest_difference(wide(one.y), wide(two.y)) == 0);
      CHECK(largest_difference(wide(one.log_decays), wide(two.log_decays)) <= tolerance);
      for (std::size_t i = 0; i < one.gradients.size(); ++i) {
        INFO("gradient " << i << " (x, w, b, dt_weight, dt_bias, A_log)");
        // bf16: one rounding of the tokens' gradient less
        CHECK(distance(wide(one.gradients[i]), wide(two.gradients[i])) <=
              (dtype == DType::bf16 ? 1e-2 : 10 * tolerance));
      }
    }
}

TEST_CASE("gradients of a norm's tokens, of their log decays or of both, to the last bit again",
          "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  // Rows of part of a warp, of a warp, of more packs than lanes; of so many images that blocks have
  // several rows; heads of three packs.
  for (const Shape& shape :
       {Shape{3, 5, 7, 4, 16}, Shape{2, 29, 31, 4, 16}, Shape{40, 14, 14, 8, 32},
        Shape{65, 7, 7, 16, 32}, Shape{3, 5, 7, 3, 24}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const i64 C = shape[3] * shape[4];
      const std::vector<Tensor> in{polyline_test::random({shape[0], shape[1], shape[2], C}, 1),
                                   polyline_test::random({C}, 2),
                                   polyline_test::random({C}, 3),
                                   polyline_test::random({2, shape[4]}, 4, 0.3),
                                   polyline_test::random({shape[3]}, 5),
                                   polyline_test::random({shape[3]}, 6, 0.3)};
      for (const Of of : {Of::normed, Of::log_decays, Of::both})
        for (const std::size_t frozen : {6U, 0U, 1U, 3U}) {
          INFO(str(shape) << ", " << to_string(dtype) << ", of " << static_cast<int>(of)
                          << ", without gradient " << frozen);
          const Results one = run(in, dtype, true, of, frozen),
                        two = run(in, dtype, false, of, frozen),
                        again = run(in, dtype, true, of, frozen);
          for (std::size_t i = 0; i < one.gradients.size(); ++i) {
            INFO("gradient " << i << " (x, w, b, dt_weight, dt_bias, A_log)");
            REQUIRE(one.gradients[i].defined() == two.gradients[i].defined());
            if (!one.gradients[i].defined()) continue;
            CHECK(distance(wide(one.gradients[i]), wide(two.gradients[i])) <=
                  (dtype == DType::bf16 ? 1e-2 : 2e-5));
            CHECK(largest_difference(wide(one.gradients[i]), wide(again.gradients[i])) == 0);
          }
        }
    }
}

TEST_CASE("beside a norm log decays' factors overflow or vanish as without", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const std::vector<double> a_log{200, 100, 90, 88, 1, -80, -200, -1e3},
      bias{-120, -60, 3, -20, 1, -5, 5, 1e30};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const i64 C = 256;
    const auto on_gpu = [](const Tensor& t, DType as) { return cast(t, as).to(Device::cuda); };
    const Tensor x = on_gpu(polyline_test::random({3, 5, 7, C}, 1), dtype),
                 w = on_gpu(polyline_test::random({C}, 2), DType::f32),
                 b = on_gpu(polyline_test::random({C}, 3), DType::f32),
                 dt_weight = on_gpu(polyline_test::random({2, 32}, 4, 0.3), DType::f32),
                 dt_bias = on_gpu(Tensor::from(bias, {8}), DType::f32),
                 factors = on_gpu(Tensor::from(a_log, {8}), DType::f32);
    const NormedTokens one = layer_norm_log_decay(x, w, b, 1e-6, dt_weight, dt_bias, factors);
    REQUIRE(one.log_decays.defined());
    const std::vector<double>
        got = one.log_decays.to(Device::cpu).to_vector<double>(),
        want = log_decay(one.x, dt_weight, dt_bias, factors).to(Device::cpu).to_vector<double>();
    REQUIRE(got.size() == want.size());
    i64 apart = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      apart += !(got[i] == want[i] || std::fabs(got[i] - want[i]) <= 5e-5 * std::fabs(want[i]));
    CHECK(apart == 0);
  }
}

#endif
