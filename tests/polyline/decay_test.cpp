// Decay factors: the fused pass against the composed formula, against finite differences, and by
// hand.

#include "ppma/polyline/decay.hpp"

#include "polyline/help.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/models/attention.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/tensor.hpp"
#include "thrown.hpp"

using namespace polyline_test;

namespace decay_test {

namespace {

struct Case {
  i64 batch, height, width, heads, d, rows;
};
// Widths around a vector's lanes, one token, a block of 64 tokens and a few more, shared decays.
const Case cases[] = {{2, 3, 5, 3, 4, 2},  {1, 1, 1, 1, 1, 2}, {1, 9, 15, 2, 16, 2},
                      {2, 8, 8, 2, 19, 2}, {1, 5, 7, 4, 8, 1}, {1, 3, 2, 1, 33, 1}};

std::vector<Tensor> inputs(const Case& c) {
  return {random({c.batch, c.height, c.width, c.heads * c.d}, 1), random({c.rows, c.d}, 2, 0.5),
          random({c.heads}, 3), random({c.heads}, 4, 0.3)};
}

// Both outputs in one tensor, weighted so that they cannot be exchanged.
Tensor joined(const Tensor& log_decays) {
  return join_decays(log_alpha_of(log_decays), scale(log_beta_of(log_decays), 1.5));
}
Tensor fused(const std::vector<Tensor>& x) { return joined(log_decay(x[0], x[1], x[2], x[3])); }
Tensor composed(const std::vector<Tensor>& x) {
  return joined(log_decay_composed(x[0], x[1], x[2], x[3]));
}

}  // namespace

TEST_CASE("log_decay: the fused pass equals the composed formula", "[polyline][decay]") {
  for (const Case& c : cases) {
    INFO(c.batch << " x " << c.height << "x" << c.width << ", heads " << c.heads << ", d " << c.d
                 << ", rows " << c.rows);
    check_equal(fused, composed, inputs(c), 1e-13);
    check_equal(fused, composed, to_f32(inputs(c)), 1.6e-5);  // sums over 2 x 135 tokens, 6e-8 each
  }
}

TEST_CASE("log_decay: gradients", "[polyline][decay]") {
  for (const Case& c : {cases[0], cases[4]}) {
    const GradCheck g = grad_check(fused, inputs(c));
    INFO(g.report);
    CHECK(g.ok);
  }
}

TEST_CASE("log_decay: by hand", "[polyline][decay]") {
  // One token, one head of two channels: z = 0.5 * 2 - 1 * 3 = -2 and 1 * 2 + 0 = 2, b = 1, A = 2.
  const Tensor d = log_decay(
      Tensor::from<double>({2, 3}, {1, 1, 1, 2}), Tensor::from<double>({0.5, -1, 1, 0}, {2, 2}),
      Tensor::from<double>({1}, {1}), Tensor::from<double>({std::log(2.0)}, {1}));
  CHECK(log_alpha_of(d).item() == Approx(-2 * std::log1p(std::exp(-1.0))).epsilon(1e-14));
  CHECK(log_beta_of(d).item() == Approx(-2 * std::log1p(std::exp(3.0))).epsilon(1e-14));
}

TEST_CASE(
    "log_decay: values that came with the tokens are taken as they are, with the same gradients",
    "[polyline][decay]") {
  for (const Case& c : cases) {
    if (c.heads * c.d == 1) continue;  // a norm of one channel
    const auto with_values = [](const std::vector<Tensor>& x) {
      const NormedTokens n =
          layer_norm_log_decay(x[0], Tensor::ones({x[0].dim(3)}, DType::f64),
                               Tensor::zeros({x[0].dim(3)}, DType::f64), 1e-6, x[1], x[2], x[3]);
      REQUIRE(!n.log_decays.defined());  // the CPU has no such kernel
      const Tensor values = log_decay(n.x.detach(), x[1].detach(), x[2].detach(), x[3].detach());
      return joined(log_decay(n.x, x[1], x[2], x[3], values));
    };
    const auto without = [](const std::vector<Tensor>& x) {
      return joined(log_decay(layer_norm(x[0], Tensor::ones({x[0].dim(3)}, DType::f64),
                                         Tensor::zeros({x[0].dim(3)}, DType::f64), 1e-6),
                              x[1], x[2], x[3]));
    };
    check_equal(with_values, without, inputs(c), 1e-300);
  }
}

TEST_CASE("log_decay: extreme inputs stay finite and negative", "[polyline][decay]") {
  for (const DType type : {DType::f32, DType::f64})
    for (const double x : {-1e4, -100.0, 100.0, 1e4}) {
      const Tensor d = log_decay(Tensor::full({1, 1, 2, 4}, x, type), Tensor::ones({2, 4}, type),
                                 Tensor::zeros({1}, type), Tensor::zeros({1}, type));
      for (const double v : d.to_vector<double>()) {
        CHECK(std::isfinite(v));
        CHECK(v <= 0);
      }
    }
}

TEST_CASE("log_decay: factors that overflow or vanish, and decays of 0", "[polyline][decay]") {
  // A_log and t; in f32 e^A_log or softplus(t) is 0 or infinite, but for the last: its product is.
  struct Pair {
    double a_log, t;
  };
  for (const auto& [a_log, t] :
       {Pair{90, -120}, Pair{200, -120}, Pair{800, -5}, Pair{100, 3}, Pair{200, -3e38},
        Pair{-200, 5}, Pair{-200, -120}, Pair{-95, -95}, Pair{-1e3, 3e38}, Pair{88, 1e30}})
    for (const DType dtype : {DType::f32, DType::f64}) {
      INFO("A_log " << a_log << ", t " << t << ", " << to_string(dtype));
      // ln A softplus(t), as far as it is needed.
      const double log_step = t > 30    ? std::log(t)
                              : t < -30 ? t
                                        : std::log(std::log1p(std::exp(t)));
      const double log_slope = t < 0 ? t - std::log1p(std::exp(t)) : -std::log1p(std::exp(-t));
      const auto rounded = [&](double x) {
        return dtype == DType::f32 ? static_cast<double>(static_cast<float>(x)) : x;
      };
      const double want = rounded(-std::exp(a_log + log_step)), most = std::fabs(want);
      const double u = is_inf(want) ? 0 : 2;  // nothing passes a closed edge
      const auto one = [&](const Shape& s, double x) {
        return Tensor::full(s, x, dtype).requires_grad(true);
      };
      // Half of t from the token, half from the bias: 3e38 + 3e38 is infinite in f32.
      const double half = std::fabs(t) > 1e38 ? t : t / 2;
      const std::vector<Tensor> in{one({1, 1, 1, 1}, half), one({1, 1}, 1), one({1}, half),
                                   one({1}, a_log)};
      const Tensor y = log_decay(in[0], in[1], in[2], in[3]);
      const double got = y.item();
      CHECK((got == want || std::fabs(got - want) <= 2e-5 * most));
      y.backward(Tensor::full(y.shape(), u, dtype));
      const double slope = u == 0 ? 0 : -u * rounded(std::exp(a_log + log_slope));
      const double da = u == 0 ? 0 : u * want;
      for (const std::size_t i : {std::size_t{0}, std::size_t{2}}) {
        CHECK(std::fabs(in[i].grad().item() - slope) <= 2e-5 * std::fabs(slope) + 1e-37);
      }
      CHECK(std::fabs(in[3].grad().item() - da) <= 2e-5 * std::fabs(da) + 1e-37);
      CHECK(is_finite(in[1].grad().item()));
    }
}

TEST_CASE("log_decay: the same on any number of threads", "[polyline][decay]") {
  const std::vector<Tensor> x = to_f32(inputs({3, 17, 19, 2, 16, 2}));
  const int before = threads();
  set_threads(1);
  const std::vector<Tensor> one = gradients(fused, x);
  set_threads(3);
  const std::vector<Tensor> three = gradients(fused, x);
  set_threads(before);
  for (std::size_t i = 0; i < one.size(); ++i)
    CHECK(one[i].to_vector<float>() == three[i].to_vector<float>());
}

TEST_CASE("log_decay: misuse is explained", "[polyline][decay]") {
  const auto z = [](const Shape& s) { return Tensor::zeros(s, DType::f64); };
  CHECK(says([&] { log_decay(z({2, 3, 8}), z({2, 4}), z({2}), z({2})); }, "x must be (B,H,W,C)"));
  CHECK(says(
      [&] {
        log_decay(z({1, 2, 3, 9}), z({2, 4}), z({2}), z({2}));
      },
      "do not divide into 2 heads"));
  CHECK(says(
      [&] {
        log_decay(z({1, 2, 3, 8}), z({3, 4}), z({2}), z({2}));
      },
      "dt_weight must be (2,4)"));
  CHECK(says([&] { log_decay(z({1, 2, 3, 8}), z({2, 4}), z({2}), z({3})); }, "must both be (G)"));
  CHECK(says(
      [&] {
        log_decay(z({1, 2, 3, 8}), z({2, 4}), z({2}), z({2}), z({1, 1, 2, 2, 3}));
      },
      "the values must be (2, 1, 2, 2, 3), got (1, 1, 2, 2, 3)"));
}

}  // namespace decay_test
