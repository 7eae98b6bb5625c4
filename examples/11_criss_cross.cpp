// 11: criss-cross attention. A token asks only those of its row and of its column; two such steps,
// one after the other, reach every token of the grid.
//
//   R = softmax(S + M) within rows,   C = softmax(S + M) within columns
//   Y = 1/2 (R C + C R) V             N (H + W) scores, where whole attention has N^2
//
// It is not whole attention computed faster: a far token is reached by way of the one at the path's
// corner, and counts only if that one looks there. Both are the same on a single line, and where
// all scores are equal and all decays are. What the exchange does to a network's accuracy has not
// been measured here; its cost can be counted.
//
//   11_criss_cross [PICTURE.png]

#include "check.hpp"
#include "lesson_scene.hpp"
#include "ppma/io/image.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/init.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/mask.hpp"

using namespace ppma;

namespace {

// (N,N): 0 for two tokens of one row (or column), -infinity for all others.
Tensor only_lines(i64 n, bool rows) {
  Tensor t = Tensor::empty({n * n, n * n}, DType::f64);
  for (i64 u = 0; u < n * n; ++u)
    for (i64 v = 0; v < n * n; ++v)
      t.data<double>()[u * n * n + v] = (rows ? u / n == v / n : u % n == v % n) ? 0 : -INFINITY;
  return t;
}

// Prints the multiply-accumulates of PPMA-T at 224 x 224: of its attentions, whose scores and sums
// this counts, and of all, as the library counts. Returns what is not attention.
i64 print_macs(const char* name, const std::array<bool, 4>& criss_cross) {
  PpmaConfig c = ppma_tiny();
  c.chunkwise_recurrents = criss_cross;
  const SkipInit skip;
  Ppma model(c);
  i64 attention = 0, all = summary(model, 1, 224, 224).macs();
  for (std::size_t s = 0; s < 4; ++s) {
    const i64 side = 56 >> s, n = side * side;  // tokens
    attention += c.depths[s] * c.embed_dims[s] * (criss_cross[s] ? 3 * n * 2 * side : 2 * n * n);
  }
  std::printf("  %-28s%9lld%9lld\n", name, static_cast<long long>(attention / 1000000),
              static_cast<long long>(all / 1000000));
  return all - attention;
}

}  // namespace

int main(int argc, char** argv) {
  const LessonScene scene = lesson_scene(28);
  const i64 n = 28, tokens = n * n;
  const Tensor q = scale(scene.colors, 4), k = scene.colors;  // (1,H,W,3), as in lesson 09
  Rng rng(11);
  const Tensor v = Tensor::randn({1, n, n, 3}, rng, 1, DType::f64);

  const Tensor s = matmul(reshape(q, {tokens, 3}), reshape(k, {tokens, 3}), false, true);
  const Tensor m = reshape(polyline_log_mask(scene.decays), {tokens, tokens});  // (N,N) ln L
  const Tensor r = softmax(s + m + only_lines(n, true)), c = softmax(s + m + only_lines(n, false));
  const Tensor rc = matmul(r, c), cr = matmul(c, r), map = scale(rc + cr, 0.5);  // (N,N)
  const Tensor y = reshape(matmul(map, reshape(v, {tokens, 3})), v.shape());
  expect(largest_difference(y, criss_cross_attention(q, k, v, 1, scene.decays)) < 1e-12,
         "these lines are criss_cross_attention()");
  const Tensor whole = scale(softmax(s + m) + softmax(s + transpose(m, 0, 1)), 0.5);

  std::printf("\nwhat the query on the star takes       star  heart   disc ground    sum\n");
  scene.print_shares("one step: along its row", r);
  scene.print_shares("one step: along its column", c);
  scene.print_shares("criss-cross, both orders", map);
  scene.print_shares("whole attention", whole);
  expect(scene.within(scene.of_query(whole), Region::heart) > 0.02 &&
             scene.within(scene.of_query(map), Region::heart) < 0.001,
         "the heart is out of reach: no token of the star's colour lies at a corner on the way");

  // When both are one.
  const auto differ = [&](const Tensor& scores, const Tensor& decays) {
    return largest_difference(criss_cross_attention(scores, scores, v, 1, decays),
                              whole_attention(scores, scores, v, 1, decays));
  };
  const Tensor even = constant_log_decay(Tensor::from<double>({std::log(0.9)}, Shape{1}), 1, n, n);
  const Tensor none = Tensor::zeros(v.shape(), DType::f64);
  std::printf("\n");
  expect(differ(none, even) < 1e-12, "equal scores, equal decays: the same as whole attention");
  expect(differ(none, scene.decays) > 0.01, "the scene's decays: not the same");
  expect(differ(q, even) > 0.01, "scores of colours: not the same");

  // What it saves in a network whose stages have 56, 28, 14 and 7 tokens a side.
  std::printf("\nMACs, millions                attention  network\n");
  const i64 rest = print_macs("whole attention throughout", {false, false, false, false});
  expect(rest == print_macs("criss-cross in stages 1, 2", {true, true, false, false}) &&
             rest == print_macs("criss-cross throughout", {true, true, true, true}),
         "without attention the networks cost the same");

  if (argc > 1) {
    write_png(argv[1], panels({{scene.photo("scene, query"), scene.panel("R: its row", r, 0.25),
                                scene.panel("C: its column", c, 0.25), scene.panel("R C", rc, 0.02),
                                scene.panel("C R", cr, 0.02), scene.panel("their mean", map, 0.02),
                                scene.panel("whole attention", whole, 0.02)}},
                              {.size = 168})
                           .image());
  }
  return failures;
}

// Exercises (solutions/09_12.cpp):
//   1. On a single row of tokens criss-cross attention is whole attention whatever scores and
//      decays are. Why? Check it.
//   2. An image of 448 x 448 has four times the tokens of one of 224 x 224. How many times as
//      much does each attention cost?
