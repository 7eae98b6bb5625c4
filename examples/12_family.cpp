// 12: the family of masks. One token holds 1, all others 0: what arrives where? The answer, a
// mask's impulse response, is its column for that token.
//
//   none        1 everywhere
//   RMT         0.9^(|i - k| + |j - l|): fixed, it does not see the image
//   V2H         L: down the column, then along the rows; decays from the image, as in all below
//   polyline    (L + L^T) / 2: both ways
//   cross scan  two 1-D masks, the grid read as one line row by row, and column by column
//   Hilbert     the same along Hilbert's curve, and along the transposed one
//   2DMamba     L^T with one decay a token for both directions, from above and the left alone
//   PPMLA       linear attention: (Q K^T) * (L + L^T), scores times mask and no softmax, so that
//               unlike tokens count negatively
//
// Decays are set by hand here: what a mask can do, not what a network makes of it.
//
//   12_family [PICTURE.png]

#include "check.hpp"
#include "lesson_scene.hpp"
#include "ppma/io/image.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/masks.hpp"
#include "ppma/polyline/volume.hpp"

using namespace ppma;

namespace {

constexpr i64 n = 28;

// The mean of a kind's masks, (N,N).
Tensor mean_mask(MaskKind kind, const Tensor& log_decays) {
  if (kind == MaskKind::none) return Tensor::ones({n * n, n * n}, DType::f64);
  const std::vector<Tensor> logs = ablation_log_masks(kind, log_decays);
  Tensor sum = Tensor::zeros({n * n, n * n}, DType::f64);
  for (const Tensor& m : logs) sum = sum + reshape(exp(m), sum.shape());
  return scale(sum, 1.0 / static_cast<double>(logs.size()));
}

}  // namespace

int main(int argc, char** argv) {
  const LessonScene scene = lesson_scene(n);
  const Tensor& decays = scene.decays;
  const Tensor gamma = Tensor::from<double>({std::log(0.9)}, Shape{1}),
               even = constant_log_decay(gamma, 1, n, n);
  Tensor x = Tensor::zeros({1, n, n, 3}, DType::f64);  // the impulse, in the first of 3 channels
  x.data<double>()[3 * scene.query_token()] = 1;
  const auto first = [](const Tensor& y) { return reshape(narrow(y, 3, 0, 1), {n, n}); };
  const auto response = [&](MaskKind kind, const Tensor& logs) {
    return scene.of_query(mean_mask(kind, logs), true);
  };

  const Tensor smaller = minimum(log_alpha_of(decays), log_beta_of(decays));  // (1,1,H,W)
  const Tensor linear = linear_attention(scene.colors, scene.colors, x, 1, decays);
  struct Member {
    const char* name;
    Tensor response;  // (n,n)
  };
  const std::vector<Member> family{{"none", response(MaskKind::none, decays)},
                                   {"RMT", response(MaskKind::rmt, even)},
                                   {"V2H", response(MaskKind::v2h, decays)},
                                   {"2-D polyline", response(MaskKind::polyline, decays)},
                                   {"cross scan", response(MaskKind::cross_scan, decays)},
                                   {"Hilbert scan", response(MaskKind::hilbert, decays)},
                                   {"2DMamba", first(one_way_scan(x, smaller))},
                                   {"PPMLA", first(linear)}};

  std::printf("what a token gets, mean     star   heart    disc  ground\n");
  const Tensor everywhere = Tensor::ones({n, n}, DType::f64);
  const auto mean = [&](const Tensor& t, Region r) {
    return scene.within(t, r) / scene.within(everywhere, r);
  };
  for (const Member& m : family) {
    std::printf("  %-22s", m.name);
    for (const Region r : {Region::star, Region::heart, Region::disc, Region::ground})
      std::printf(" %7.3f", mean(m.response, r));
    std::printf("\n");
  }

  expect(largest_difference(family[1].response, response(MaskKind::polyline, even)) < 1e-12,
         "RMT is the polyline mask whose decays are all 0.9");
  expect(largest_difference(family[2].response, first(apply_mask(x, decays, Paths::v2h))) < 1e-12,
         "V2H by two scans, which need no N x N mask");
  double before = 0;
  for (i64 u = 0; u < n * n; ++u)
    if (u / n < scene.query.row || u % n < scene.query.column)
      before += family[6].response.data<double>()[u];
  expect(before == 0, "2DMamba tells nobody above or to the left");
  bool fullest = true;
  for (const int other : {4, 5, 6})
    fullest =
        fullest && mean(family[3].response, Region::star) >
                       3 * mean(family[static_cast<std::size_t>(other)].response, Region::star);
  expect(fullest, "the polyline mask fills the star, one-line scans and one-way scans do not");

  if (argc > 1) {
    std::vector<std::vector<Panel>> rows{{scene.photo("scene, one token")}};
    for (const Member& m : family) {
      if (rows.back().size() == 3) rows.emplace_back();
      const bool linear_one = &m == &family.back();
      rows.back().push_back(
          scene.panel(m.name, m.response, linear_one ? 2 : 1, linear_one ? -2 : 0));
    }
    write_png(argv[1], panels(rows, {.size = 224}).image());
  }
  return failures;
}

// Exercises (solutions/09_12.cpp):
//   1. Set one beta to 0.01, that of the edge above the token. What changes in the picture of V2H,
//      and what in that of its transpose?
//   2. How many tokens still get a hundredth under RMT if its decay is 0.5?
