// Solutions of the exercises of lessons 19 to 21.

#include <algorithm>

#include "../check.hpp"
#include "../lesson_scene.hpp"
#include "ppma/mixers/biformer.hpp"
#include "ppma/mixers/mixers.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/selective_scan.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/mask.hpp"

using namespace ppma;

namespace {

Tensor normal(const Shape& shape, u64 seed) {
  Rng rng(seed);
  return Tensor::randn(shape, rng, 1, DType::f64);
}

void lesson_19_1() {
  const i64 n = 12, reset = 5;
  Tensor dt = softplus(normal({n}, 1));
  dt.data<double>()[reset] = 2000;
  const Tensor mask = exp(sequence_log_mask(scale(dt, -0.5)));
  bool apart = true;
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < i; ++j)
      apart = apart && ((mask.data<double>()[i * n + j] == 0) == (j < reset && reset <= i));
  expect(apart, "19.1: 0 between those before it and the others");

  const auto grid = [&](const Tensor& t) { return reshape(t, {1, 1, n, t.numel() / n}); };
  const Tensor a = Tensor::full({1, 3}, -0.5, DType::f64), b = grid(normal({n, 3}, 2)),
               c = grid(normal({n, 3}, 3));
  Tensor u = normal({n}, 4);
  const auto after = [&] {
    return narrow(selective_scan(grid(u), grid(dt), a, b, c), 2, reset, n - reset);
  };
  const Tensor first = after();
  for (i64 t = 0; t < reset; ++t) u.data<double>()[t] = 7;
  expect(largest_difference(after(), first) == 0,
         "19.1: it makes the state forget, and writes itself alone");
}

void lesson_19_2() {
  const i64 h = 4, w = 5, n = h * w;
  const Tensor dt = softplus(normal({1, h, w, 1}, 5)), one = Tensor::ones({1, h, w, 1}, DType::f64);
  const Tensor decays = reshape(scale(dt, -0.5), {1, 1, h, w});
  const Tensor both = stack({decays, decays});                        // (2,1,1,H,W)
  const Tensor mask = reshape(exp(polyline_log_mask(both)), {n, n});  // L
  double worst = 0;
  for (i64 from = 0; from < n; ++from) {
    Tensor u = Tensor::zeros({1, h, w, 1}, DType::f64);
    u.data<double>()[from] = 1 / dt.data<double>()[from];
    const Tensor y = selective_scan(u, dt, Tensor::full({1, 1}, -0.5, DType::f64), one, one);
    for (i64 to = 0; to < n; ++to) {
      const bool sees = to / w >= from / w && to % w >= from % w;
      const double want = sees ? mask.data<double>()[from * n + to] : 0;  // L^T
      worst = std::fmax(worst, std::fabs(y.data<double>()[to] - want));
    }
  }
  expect(worst < 1e-14, "19.2: of L^T, with one decay for both directions, what is above and left");
}

void lesson_20_1() {
  const Tensor q = normal({9, 5}, 6), k = normal({9, 5}, 7), tenfold = scale(q, 10);
  const auto soft = [&](const Tensor& t) { return softmax(matmul(t, k, false, true)); };
  const auto linear = [&](const Tensor& t) {
    const Tensor weights = matmul(relu(t), relu(k), false, true);
    return weights / sum(weights, {1}, true);
  };
  expect(mean(max(soft(tenfold), 1).values).item() > mean(max(soft(q), 1).values).item() + 0.2,
         "20.1: the softmax map gets sharper");
  expect(largest_difference(linear(tenfold), linear(q)) < 1e-15,
         "20.1: the linear one stays, a factor of a row falls out of its shares");
}

void lesson_20_2() {
  // of d features, and of f d for vicinity's four: 2 N N d against N (f d d + d f d)
  const auto first = [](i64 d, i64 f) {
    i64 n = 1;
    while (2 * n * f * d * d >= 2 * n * n * d) ++n;
    return n;
  };
  expect(first(64, 1) == 65, "20.2: from 65, more than there are channels");
  expect(first(64, 4) == 257, "20.2: from 257, as if there were four times the channels");
}

// How many tokens of x (1,n,n,C) reach the one at (row,column) of y = f(x); the last are in `map`.
template <class F>
i64 reach(Tensor x, const Cell& at, std::vector<double>& map, F f) {
  x = x.detach();
  x.requires_grad(true);
  sum(narrow(narrow(f(x), 1, at.row, 1), 2, at.column, 1)).backward();
  map = sum(abs(x.grad()), {3}).to_vector<double>();
  return std::count_if(map.begin(), map.end(), [](double v) { return v != 0; });
}

void lesson_21_1() {
  const i64 n = 28;
  const LessonScene scene = lesson_scene(n);
  std::vector<double> map;
  const auto of = [&](i64 blocks) {
    Rng rng(8);
    return reach(normal({1, n, n, 8}, 9), scene.query, map, [&](const Tensor& in) {
      Tensor y = in;
      for (i64 b = 0; b < blocks; ++b) {
        Mixer m = mixer_of("window").make({8, 2, 0, b}, rng);
        to(m, DType::f64);
        y = y + m.forward(y);
      }
      return y;
    });
  };
  expect(of(4) < n * n && of(5) == n * n, "21.1: in five");
}

void lesson_21_2() {
  const i64 n = 28;
  const LessonScene scene = lesson_scene(n);
  const Tensor unit = scene.colors / sqrt(sum(square(scene.colors), {3}, true));
  Rng rng(10);
  RoutedAttention m({3, 1}, rng);  // of the first stage: one region
  Tensor same = Tensor::zeros({9, 3});
  for (i64 c = 0; c < 9; ++c) same.data<float>()[c * 3 + c % 3] = 1;
  m.qkv.weight = same, m.lepe.weight = Tensor::zeros(m.lepe.weight.shape());
  to(m, DType::f64);
  std::vector<double> map;
  const i64 tokens = reach(unit, scene.query, map, [&](const Tensor& x) { return m.forward(x); });
  bool star = tokens == 17;  // and the query itself
  for (std::size_t t = 0; t < map.size(); ++t)
    star = star && (map[t] == 0 || scene.regions[t] == Region::star);
  expect(star, "21.2: one of the star, whose colour is like its own");
}

}  // namespace

int main() {
  lesson_19_1(), lesson_19_2(), lesson_20_1(), lesson_20_2(), lesson_21_1(), lesson_21_2();
  return failures;
}
