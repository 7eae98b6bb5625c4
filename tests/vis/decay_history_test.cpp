// Decays over training: maps that are those of mask_maps(), colours that mean the same everywhere, and
// which evaluations are kept.

#include "ppma/vis/decay_history.hpp"

#include <algorithm>

#include "catch.hpp"
#include "distance.hpp"
#include "ppma/vis/mask_maps.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("decays of a network's first stage are those that mask_maps shows", "[vis]") {
  PpmaConfig c = ppma_nano();
  c.embed_dims = {8, 8, 8, 8}, c.depths = {2, 1, 1, 1}, c.num_heads = {2, 2, 2, 2};
  Rng rng(3);
  const Tensor input = Tensor::randn({1, 3, 32, 48}, rng);
  for (const MaskKind kind : {MaskKind::polyline, MaskKind::shared, MaskKind::v2h}) {
    c.mask = kind;
    Ppma network(c, 5);
    const DecayMaps maps = decay_maps(network.backbone, kind, input);
    const MaskMaps want = mask_maps(network, Tensor::zeros({32, 48, 3}, DType::uint8), input);
    REQUIRE(maps.alpha.shape() == Shape{8, 12});
    CHECK(distance(maps.alpha, want.alpha) < 1e-6);
    CHECK(distance(maps.beta, want.beta) < 1e-6);
    CHECK(distance(maps.mask, want.mask) < 1e-6);
    CHECK(maps.mask.to_vector<double>()[4 * 12 + 6] == Approx(1));  // the middle sees itself
  }
  c.mask = MaskKind::rmt;  // decays that nothing is learnt of
  CHECK(!decay_maps(Ppma(c, 5).backbone, c.mask, input).alpha.defined());
}

TEST_CASE("decays are drawn on one scale, images beside them", "[vis]") {
  CHECK(decay_color(0) == color_of(ColorMap::viridis, 0));
  CHECK(decay_color(0.9) == color_of(ColorMap::viridis, 1.0 / 3));
  CHECK(decay_color(0.999) == color_of(ColorMap::viridis, 1));
  CHECK(decay_color(1) == color_of(ColorMap::viridis, 1));
  const auto full = [](i64 h, i64 w, double v) { return Tensor::full({h, w}, v, DType::f32); };
  const std::vector<DecayMaps> maps{{full(3, 4, 0.9), full(3, 4, 0), full(3, 4, 0.5)},
                                    {full(8, 8, 0), full(8, 8, 0.9), full(8, 8, 1)}};
  const Picture p = decay_picture(maps, 40);
  CHECK(p.width() == 3 * 42);
  CHECK(p.height() == 30 + 2 + 40 + 2);
  const auto at = [&](i64 i, i64 j) {
    const u8* x = p.image().data<u8>() + (i * p.width() + j) * 3;
    return Color{x[0], x[1], x[2]};
  };
  CHECK(at(15, 20) == decay_color(0.9));
  CHECK(at(15, 60) == decay_color(0));
  CHECK(at(15, 100) == color_of(ColorMap::viridis, 0.5));
  CHECK(at(50, 60) == decay_color(0.9));
  CHECK(at(31, 20) == Color{128, 128, 128});  // between rows
  const std::vector<Tensor> images{Tensor::full({30, 40, 3}, 7, DType::uint8),
                                   Tensor::full({99, 99, 3}, 9, DType::uint8)};
  const Picture column = decay_images(images, maps, 40);
  CHECK(column.height() == p.height());
  CHECK(column.width() * 3 == p.width());
  CHECK(says([&] { decay_images({images[0]}, maps); }, "1 images have 2 maps"));
  CHECK(says([&] { decay_picture({{}}); }, "an image has no maps"));
}

TEST_CASE("evaluations are thinned evenly, as they come", "[vis]") {
  std::vector<i64> kept;
  for (i64 epoch = 1; epoch <= 500; ++epoch) {
    kept.push_back(epoch);
    for (const i64 e : thinned_epochs(kept, 30)) std::erase(kept, e);
    REQUIRE(kept.size() == std::min<std::size_t>(30, static_cast<std::size_t>(epoch)));
    REQUIRE(kept.front() == 1);
    REQUIRE(kept.back() == epoch);
  }
  i64 least = 500, most = 0;
  for (std::size_t i = 1; i + 1 < kept.size(); ++i)  // up to the last, which comes as it comes
    least = std::min(least, kept[i] - kept[i - 1]), most = std::max(most, kept[i] - kept[i - 1]);
  CHECK(most <= 2 * least);
  CHECK(thinned_epochs({1, 2, 3}, 30).empty());
  CHECK(thinned_epochs({1, 2, 4, 8}, 3) == std::vector<i64>{2});
}
