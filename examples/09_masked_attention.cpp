// 09: from scores to masked attention. The mask meets the scores inside the softmax, once for each
// of its two paths.
//
//   S = Q K^T,  M = ln L                            how alike two tokens are; how near along V2H
//   Y = 1/2 softmax(S + M) V + 1/2 softmax(S + M^T) V
//
// softmax(S + M) is softmax(S) times L, entry by entry, with each row divided by what is left of
// it: the mask chooses whom a token attends to, not how much it attends. The paper prints another
// formula (Eq. 10), softmax(S) * (L + L^T), which divides by nothing: there a token in a small
// closed place takes little from anyone. The published network computes the first.
//
//   09_masked_attention [PICTURE.png]

#include <cmath>
#include <cstdio>
#include <vector>

#include "check.hpp"
#include "lesson_scene.hpp"
#include "ppma/io/image.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/fused.hpp"

using namespace ppma;

int main(int argc, char** argv) {
  // Queries and keys are colours: tokens of one colour have high scores. Values are random numbers.
  const LessonScene scene = lesson_scene(28);
  const i64 n = 28, tokens = n * n;
  const Tensor grid_q = scale(scene.colors, 4), grid_k = scene.colors;  // (1,H,W,3)
  Rng rng(9);
  const Tensor grid_v = Tensor::randn({1, n, n, 3}, rng, 1, DType::f64);
  const Tensor q = reshape(grid_q, {tokens, 3}), k = reshape(grid_k, {tokens, 3}),
               v = reshape(grid_v, {tokens, 3});

  // Masked attention, all of it.
  const Tensor s = matmul(q, k, false, true);                                   // (N,N)
  const Tensor m = reshape(polyline_log_mask(scene.decays), {tokens, tokens});  // (N,N) ln L
  const Tensor v2h = softmax(s + m), h2v = softmax(s + transpose(m, 0, 1));     // (N,N)
  const Tensor map = scale(v2h + h2v, 0.5);                                     // (N,N)
  const Tensor y = matmul(map, v);                                              // (N,3)
  expect(largest_difference(y, whole_attention(grid_q, grid_k, grid_v, 1, scene.decays)) < 1e-12,
         "these lines are whole_attention()");

  // The paper's Eq. 10 beside it.
  const Tensor p = softmax(s), l = exp(m);           // (N,N)
  const Tensor eq10 = p * (l + transpose(l, 0, 1));  // (N,N)
  expect(largest_difference(matmul(eq10, v),
                            whole_attention_composed(grid_q, grid_k, grid_v, 1, scene.decays,
                                                     Paths::both, Variant::paper)) < 1e-12,
         "Eq. 10 is its variant `paper`");

  // What is between the two: each path's map, divided by the sum of its rows.
  const Tensor damped = p * l;
  expect(largest_difference(v2h, damped / sum(damped, {1}, true)) < 1e-12,
         "softmax(S + M) = softmax(S) * L, rows divided by their sums");
  const Tensor open = Tensor::zeros(scene.decays.shape(), DType::f64);  // every decay 1
  const auto open_map = [&](Variant variant) {
    return attention_map(reshape(s, {1, 1, tokens, tokens}), open, Paths::both, variant);
  };
  expect(largest_difference(open_map(Variant::paper), scale(open_map(Variant::code), 2)) < 1e-12,
         "without decay both are the plain softmax, Eq. 10 twice that");

  std::printf("\nwhat the query on the star takes       star  heart   disc ground    sum\n");
  scene.print_shares("scores alone: its colour", p);
  scene.print_shares("masked: its colour, and near it", map);
  scene.print_shares("Eq. 10", eq10);
  const Tensor star = scene.of_query(map);
  expect(scene.within(star, Region::star) > 0.8 && std::fabs(sum(star).item() - 1) < 1e-12,
         "the mask keeps attention on the star, and its rows sum to 1");
  const Tensor sums = sum(eq10, {1});  // (N)
  std::printf("rows of Eq. 10 sum to %.2f at least, %.2f at most, those of the code to 1\n",
              min(sums, 0).values.item(), max(sums, 0).values.item());

  if (argc > 1) {
    const Tensor both = scale(l + transpose(l, 0, 1), 0.5);
    write_png(argv[1], panels({{scene.photo("scene, query"), scene.panel("scores alone", p, 0.02),
                                scene.panel("mask, mean of both paths", both, 1),
                                scene.panel("masked attention", map, 0.02),
                                scene.panel("Eq. 10", eq10, 0.02)}},
                              {.size = 196})
                           .image());
  }
  return failures;
}

// Exercises (solutions/09_12.cpp):
//   1. Close every edge: decays of 0. What does masked attention return? What does Eq. 10?
//   2. Set every decay to 1. How much does the query take from the heart now?
