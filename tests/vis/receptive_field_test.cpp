// How far tokens reach: mixers whose reach is known, the gradient beside differences, figures.

#include "ppma/vis/receptive_field.hpp"

#include <algorithm>
#include <cmath>

#include "catch.hpp"
#include "ppma/mixers/all.hpp"
#include "ppma/ops/layout.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace receptive_field_test {

// One block on 16 x 16 tokens of 64 pixels, without depthwise convolutions around it.
PpmaConfig config(const std::string& mixer) {
  PpmaConfig c = ppma_nano();
  c.embed_dims = {16, 16, 16, 16};
  c.depths = {1, 1, 1, 1};
  c.num_heads = {2, 2, 2, 2};
  c.projection = 8;
  c.depthwise = false, c.lepe = false;
  return with_mixers(c, mixer);
}

Tensor images(i64 size = 64) {
  Rng rng(3);
  return Tensor::randn({1, 3, size, size}, rng);
}

// The cells of a map that are not 0.
template <class F>
void expect_where(const Tensor& map, F expected) {
  const std::vector<double> v = map.to_vector<double>();
  for (i64 i = 0; i < map.dim(0); ++i)
    for (i64 j = 0; j < map.dim(1); ++j) {
      INFO("(" << i << ", " << j << ")");
      CHECK((v[static_cast<std::size_t>(i * map.dim(1) + j)] != 0) == expected(i, j));
    }
}

}  // namespace receptive_field_test

using namespace receptive_field_test;

TEST_CASE("reach: whom a token tells something, of mixers of known reach", "[vis]") {
  const auto of = [](const std::string& mixer) {
    return reach_of(mixer, Ppma(config(mixer), 1).backbone, images());
  };
  const Reach none = of("none");
  CHECK((none.row == 8 && none.column == 8));
  CHECK(none.told() == 0);
  expect_where(of("mambaout").impulse,
               [](i64 i, i64 j) { return std::abs(i - 8) <= 3 && std::abs(j - 8) <= 3; });
  // windows from token 7 on, in a block that does not move them
  expect_where(of("window").impulse, [](i64 i, i64 j) { return i / 7 == 8 / 7 && j / 7 == 8 / 7; });
  // a causal sequence, row by row
  expect_where(of("retnet").impulse, [](i64 i, i64 j) { return i * 16 + j >= 8 * 16 + 8; });
  // the scans begin where the 3x3 convolution before them has told it
  expect_where(of("two_d_mamba").impulse, [](i64 i, i64 j) { return i >= 7 && j >= 7; });
  const Reach all = of("polyline_whole");
  expect_where(all.impulse, [](i64, i64) { return true; });
  CHECK(all.told() > 0.5);
}

TEST_CASE("reach: the receptive field of the stem, and what a gradient is", "[vis]") {
  // Four convolutions of 3 with strides 2, 1, 2, 1 see 1 + 2 + 4 + 4 + 8 = 19 pixels around 4 times the row.
  Ppma stem(config("none"), 2);
  const Reach r = reach_of("none", stem.backbone, images());
  const std::vector<double> field = r.field.to_vector<double>();
  i64 first_row = 64, last_row = -1, first_column = 64, last_column = -1;
  double all = 0;
  for (i64 i = 0; i < 64; ++i)
    for (i64 j = 0; j < 64; ++j)
      if (const double v = field[static_cast<std::size_t>(i * 64 + j)]; v != 0) {
        first_row = std::min(first_row, i), last_row = std::max(last_row, i);
        first_column = std::min(first_column, j), last_column = std::max(last_column, j);
        all += v;
      }
  CHECK(all == Approx(1));
  CHECK((first_row == 4 * 8 - 9 && last_row == 4 * 8 + 9));
  CHECK((first_column == first_row && last_column == last_row));
  CHECK((r.most <= 21 && r.half < r.most && r.half > 1));

  // Beside differences of what the token of stage 1 is, for three pixels.
  Ppma net(config("polyline_whole"), 4);
  const ReachView view{.stage = 1};
  const Tensor input = images(32);
  const Reach seen = reach_of("", net.backbone, input, view);
  to(net, DType::f64);
  const auto value = [&](const Tensor& x) {
    Context ctx;
    const NoGrad off;
    const Tensor map = net.backbone.forward(x, ctx)[1];
    double sum = 0;
    for (i64 c = 0; c < map.dim(3); ++c)
      sum += map.data<double>()[(seen.row * map.dim(2) + seen.column) * map.dim(3) + c];
    return sum;
  };
  std::vector<double> differences, gradients;
  for (const i64 pixel : {i64{16 * 32 + 16}, i64{10 * 32 + 20}, i64{3 * 32 + 3}}) {
    double d = 0;
    for (i64 colour = 0; colour < 3; ++colour) {
      Tensor up = cast(input, DType::f64).clone(), down = up.clone();
      up.data<double>()[colour * 1024 + pixel] += 1e-5;
      down.data<double>()[colour * 1024 + pixel] -= 1e-5;
      d += std::abs(value(up) - value(down)) / 2e-5;
    }
    differences.push_back(d);
    gradients.push_back(seen.field.data<double>()[pixel]);
  }
  for (std::size_t k = 1; k < 3; ++k)
    CHECK(gradients[k] / gradients[0] == Approx(differences[k] / differences[0]).epsilon(1e-5));
}

TEST_CASE("reach: squares of a share, the picture, errors", "[vis]") {
  const Tensor map = Tensor::from<double>({0, 0, 0, 0,  //
                                           0, 4, 1, 0,  //
                                           0, 1, 0, 0,  //
                                           0, 0, 0, 2},
                                          Shape{4, 4});
  CHECK(side_of_share(map, 1, 1, 0.5) == 1);
  CHECK(side_of_share(map, 1, 1, 0.6) == 3);
  CHECK(side_of_share(map, 1, 1, 0.75) == 3);
  CHECK(side_of_share(map, 1, 1, 1) == 5);
  CHECK(says([&] { side_of_share(map, 4, 0, 1); }, "cell (4, 0) is outside of the map (4, 4)"));
  const Ppma net(config("none"), 2);
  CHECK(says([&] { reach_of("", net.backbone, images(), {.stage = 4}); },
             "stage 4 does not exist or has no blocks"));
  CHECK(says(
      [&] {
        reach_of("", net.backbone, Tensor::zeros({3, 64, 64}));
      },
      "images must be (B,3,H,W)"));
  CHECK(says([] { reach_picture({}); }, "no networks are given"));
  const Reach r = reach_of("none", net.backbone, images());
  const Picture one = reach_picture({r}), three = reach_picture({r, r, r}, 2);
  CHECK((three.width() > one.width() && three.height() > one.height()));
}
