// Solutions of the exercises of lessons 09 to 12.

#include "../check.hpp"
#include "../lesson_scene.hpp"
#include "../lesson_sheet.hpp"
#include "ppma/nn/init.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/masks.hpp"

using namespace ppma;

namespace {

constexpr i64 n = 28, tokens = n * n;

Tensor even(double decay) {  // (2,1,1,H,W)
  return Tensor::full({2, 1, 1, n, n}, std::log(decay), DType::f64);
}

// The scores of lesson 09, (1,1,N,N).
Tensor scores(const LessonScene& scene) {
  const Tensor c = reshape(scene.colors, {tokens, 3});
  return reshape(matmul(scale(c, 4), c, false, true), {1, 1, tokens, tokens});
}

void lesson_09_1() {
  const LessonScene scene = lesson_scene(n);
  const Tensor s = scores(scene);
  const auto diagonal = [&](Variant variant) {
    const Tensor map = scene.of_query(attention_map(s, even(0), Paths::both, variant));
    return map.data<double>()[scene.query_token()];
  };
  // exp(-infinity) = 0: only the token itself is left. The code's rows still sum to 1.
  const double p = scene.of_query(softmax(s)).data<double>()[scene.query_token()];
  expect(diagonal(Variant::code) == 1, "09.1: every token its own value");
  expect(std::fabs(diagonal(Variant::paper) - 2 * p) < 1e-15 && p < 0.05,
         "09.1: Eq. 10 the little that its softmax left to the token itself, twice");
}

void lesson_09_2() {
  const LessonScene scene = lesson_scene(n);
  const Tensor s = scores(scene), map = attention_map(s, even(1), Paths::both, Variant::code);
  expect(std::fabs(scene.within(scene.of_query(map), Region::heart) -
                   scene.within(scene.of_query(softmax(s)), Region::heart)) < 1e-12,
         "09.2: what it takes by scores alone, as ln 1 = 0 is added to them");
}

void lesson_10_1() {
  const auto decay = [](double z, double b) {
    const Tensor none = Tensor::zeros(Shape{1}, DType::f64);
    return std::exp(log_decay(Tensor::full({1, 1, 1, 1}, z, DType::f64),
                              Tensor::ones({1, 1}, DType::f64),
                              Tensor::full(Shape{1}, b, DType::f64), none)
                        .item());
  };
  expect(decay(800, 0) < 1e-12 && decay(-800, 0) == 1, "10.1: 0 and 1");
  // exp(-softplus(b)) = 1 / (1 + e^b) = 0.9, so e^b = 1/9.
  expect(std::fabs(decay(0, std::log(1.0 / 9)) - 0.9) < 1e-12, "10.1: b = -ln 9");
}

void lesson_10_2() {
  // As the lesson learns, but each clean sheet is to become itself.
  const Tensor w = parameter(Tensor::zeros({2, 5}, DType::f64)),
               b = parameter(Tensor::full(Shape{1}, -3, DType::f64)),
               a_log = parameter(Tensor::zeros(Shape{1}, DType::f64));
  AdamW optimizer(parameters_with_rules({{"w", w}, {"b", b}, {"A_log", a_log}}, {{}}));
  const auto error = [&](u64 index) {
    const Tensor x = make_sheet(index).clean, zero = scale(x, 0);
    const Tensor off =
        whole_attention(zero, zero, x, 1, log_decay(sheet_features(x, true), w, b, a_log)) - x;
    return mean(off * off);
  };
  for (u64 step = 0; step < 60; ++step) {
    error(step).backward();
    optimizer.step(0.1);
    optimizer.zero_grad();
  }
  const NoGrad off;
  const Sheet s = make_sheet(1008);
  const Tensor logs = log_decay(sheet_features(s.clean, true), w, b, a_log);
  std::printf("without noise: alpha %.2f across contours, %.2f elsewhere\n",
              mean_alpha(s, logs, true), mean_alpha(s, logs, false));
  expect(mean_alpha(s, logs, true) < 0.05 && mean_alpha(s, logs, false) < 0.05,
         "10.2: every edge closes: without noise a token alone is right already");
}

void lesson_11_1() {
  // Within a column of one token the softmax is 1: C is the identity, and R is whole attention,
  // where L is symmetric.
  const LessonScene scene = lesson_scene(n);
  const Tensor q = narrow(scene.colors, 1, 9, 1), decays = narrow(scene.decays, 3, 9, 1);
  Rng rng(11);
  const Tensor v = Tensor::randn(q.shape(), rng, 1, DType::f64);
  expect(largest_difference(criss_cross_attention(q, q, v, 1, decays),
                            whole_attention(q, q, v, 1, decays)) < 1e-12,
         "11.1: on a line both are one softmax");
}

void lesson_11_2() {
  const auto whole = [](i64 side) { return side * side * side * side; };
  const auto crossed = [](i64 side) { return side * side * 2 * side; };
  expect(whole(112) == 16 * whole(56) && crossed(112) == 8 * crossed(56),
         "11.2: N^2 grows to 16 times, N (H + W) to 8 times as much");
}

void lesson_12_1() {
  const LessonScene scene = lesson_scene(n);
  const i64 row = scene.query.row, column = scene.query.column;
  Tensor cut = scene.decays.clone();
  double& beta = cut.data<double>()[tokens + scene.query_token()];
  const double factor = 0.01 / std::exp(beta);
  beta = std::log(0.01);
  bool as_predicted = true;
  for (const Paths path : {Paths::v2h, Paths::h2v}) {
    const Tensor before = scene.of_query(polyline_mask(scene.decays, path), true),
                 after = scene.of_query(polyline_mask(cut, path), true);
    for (i64 u = 0; u < tokens; ++u) {
      // V2H leaves the token along its column: all rows above. H2V enters columns from the token's
      // row: only its own column has that edge.
      const bool behind = u / n < row && (path == Paths::v2h || u % n == column);
      const double want = before.data<double>()[u] * (behind ? factor : 1);
      as_predicted = as_predicted && std::fabs(after.data<double>()[u] - want) < 1e-14;
    }
  }
  expect(as_predicted, "12.1: all rows above by V2H; one column above by its transpose");
}

void lesson_12_2() {
  const LessonScene scene = lesson_scene(n);
  const Tensor mask = exp(ablation_log_masks(MaskKind::rmt, even(0.5))[0]),
               response = scene.of_query(mask, true);
  int reached = 0;
  for (const double v : response.to_vector<double>()) reached += v >= 0.01;
  // 0.5^6 = 0.016, 0.5^7 = 0.008: up to 6 steps, 1 + 4 (1 + ... + 6) tokens.
  expect(reached == 85, "12.2: 85, those within six steps");
}

}  // namespace

int main() {
  lesson_09_1(), lesson_09_2(), lesson_10_1(), lesson_10_2(), lesson_11_1(), lesson_11_2();
  lesson_12_1(), lesson_12_2();
  return failures;
}
