// 21: routing and windows. Attention of all tokens to all is dear; what if a token saw fewer? Which
// ones, and who else reaches it in a few blocks?
//
//   window     the 7 x 7 tokens of its window; every other block moves windows by 3
//   conv 7x7   the tokens around it
//   routing    a region sees the k regions whose means its own mean answers best: by content
//   scans      those before it; all of them in four directions
//
// Whom a token sees is asked of the gradient: of what comes out at the query, by every token that
// went in. Where it is 0 nothing gets through.
//
//   21_routing_and_windows [PICTURE.png]

#include "check.hpp"
#include "lesson_scene.hpp"
#include "ppma/io/image.hpp"
#include "ppma/mixers/biformer.hpp"
#include "ppma/mixers/mixers.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/polyline/fused.hpp"

using namespace ppma;

namespace {

constexpr i64 n = 28;

// 1 where a token of x (1,n,n,C) reaches the query of y = f(x), else 0: (n,n).
template <class F>
Tensor seen(const LessonScene& scene, Tensor x, F f) {
  x = x.detach();
  x.requires_grad(true);
  const Tensor y = f(x);
  sum(narrow(narrow(y, 1, scene.query.row, 1), 2, scene.query.column, 1)).backward();
  Tensor map = Tensor::zeros({n, n}, DType::f64);
  const std::vector<double> slopes = sum(abs(x.grad()), {3}).to_vector<double>();
  for (std::size_t t = 0; t < slopes.size(); ++t) map.data<double>()[t] = slopes[t] != 0;
  return map;
}

i64 count(const Tensor& map) { return std::lround(sum(map).item()); }

}  // namespace

int main(int argc, char** argv) {
  const LessonScene scene = lesson_scene(n);
  Rng rng(21);
  const Tensor x = Tensor::randn({1, n, n, 8}, rng, 1, DType::f64);
  std::vector<Panel> drawn{scene.photo("scene, query")};
  // After so many blocks x + mixer(x); `moves`: whether these are numbered.
  const auto after = [&](const char* name, i64 blocks, bool moves = true) {
    return seen(scene, x, [&](const Tensor& in) {
      Tensor y = in;
      for (i64 b = 0; b < blocks; ++b) {
        Mixer m = mixer_of(name).make({8, 2, 0, moves ? b : 0}, rng);
        to(m, DType::f64);
        y = y + m.forward(y);
      }
      return y;
    });
  };

  std::printf("tokens of 784 that reach the query\n  blocks    windows  and moved   conv 7x7\n");
  std::vector<i64> still, moved, conv;
  for (const i64 blocks : {1, 2, 3, 4}) {
    const Tensor windows = after("window", blocks);
    still.push_back(count(after("window", blocks, false))), moved.push_back(count(windows));
    conv.push_back(count(after("mambaout", blocks)));
    std::printf("  %6d %10d %10d %10d\n", int(blocks), int(still.back()), int(moved.back()),
                int(conv.back()));
    if (blocks != 3)
      drawn.push_back(scene.panel(str("windows, blocks: ", blocks).c_str(), windows, 1));
  }
  expect(still == std::vector<i64>{49, 49, 49, 49}, "nothing leaves windows that lie still");
  expect(moved[1] == 14 * 14 && conv[1] == 13 * 13,
         "moved ones join four, a convolution grows by 6");
  expect(count(after("vmamba", 1)) == n * n, "scans in four directions see everything at once");
  expect(count(after("retnet", 1)) == scene.query_token() + 1, "a one-way scan those before it");
  drawn.push_back(scene.panel("conv 7x7, blocks: 4", after("mambaout", 4), 1));

  // Routing. Queries, keys and values are colours, and nothing else is added.
  RoutedAttention m({3, 1}, rng);
  const auto set = [](const Tensor& t, double v) {
    t.detach().copy_from(Tensor::full(t.shape(), v));
  };
  set(m.qkv.weight, 0), set(m.out_proj.weight, 0), set(m.lepe.weight, 0), set(m.lepe.bias, 0);
  for (i64 c = 0; c < 9; ++c) m.qkv.weight.data<float>()[c * 3 + c % 3] = 1;
  for (i64 c = 0; c < 3; ++c) m.out_proj.weight.data<float>()[c * 3 + c] = 1;
  to(m, DType::f64);
  std::printf("\nrouting, regions of 4 x 4     star  heart   disc ground  tokens\n");
  for (const i64 k : {1, 4, 16, 49}) {
    m.most = k;
    const Tensor map = seen(scene, scene.colors, [&](const Tensor& in) { return m.forward(in); });
    std::printf("  %2lld of 49 regions          ", static_cast<long long>(k));
    for (const Region r : {Region::star, Region::heart, Region::disc, Region::ground})
      std::printf(" %6.0f", scene.within(map, r));
    std::printf(" %7lld\n", static_cast<long long>(count(map)));
    if (k < 49) drawn.push_back(scene.panel(str("routing, regions: ", k).c_str(), map, 1));
    if (k == 4)
      expect(scene.within(map, Region::star) + scene.within(map, Region::heart) == 4 * 16,
             "four regions, each of the query's colour, however far away");
  }
  const Tensor open = Tensor::zeros(scene.decays.shape(), DType::f64);
  expect(largest_difference(m.forward(scene.colors),
                            whole_attention(scale(scene.colors, 1 / std::sqrt(3.0)), scene.colors,
                                            scene.colors, 1, open)) < 1e-12,
         "routed to all regions it is whole attention");
  std::printf("The first choice is the heart: it is lighter, and products grow with that.\n");

  if (argc > 1) {
    const auto at = drawn.begin();
    write_png(argv[1], panels({{at, at + 4}, {at + 4, at + 8}}, {.size = 196}).image());
  }
  return failures;
}

// Exercises (solutions/19_21.cpp):
//   1. In how many blocks of moved windows does every token reach the query?
//   2. Divide each colour by its length. Which region does the query's region choose first now?
