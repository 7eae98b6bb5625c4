// Means of decays by what lies around an edge, by hand; and the decays of each stage.

#include "ppma/vis/decay_places.hpp"

#include <cmath>

#include "catch.hpp"
#include "ppma/vis/decay_history.hpp"
#include "ppma/vis/mask_maps.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("decays by place: contour, inside, ground, by hand", "[vis]") {
  // A 2 x 3 grid over 4 x 6 pixels; the figure covers the middle token of the top row and the one
  // below it, by 3 of 4 pixels each; the last column is another figure.
  const Tensor regions = Tensor::from<u8>({0, 0, 1, 1, 2, 2,  //
                                           0, 0, 0, 1, 2, 2,  //
                                           0, 1, 1, 1, 2, 2,  //
                                           0, 0, 1, 0, 2, 2},
                                          Shape{4, 6});
  const auto logs = [](std::vector<double> decays) {
    for (double& d : decays) d = std::log(d);
    return Tensor::from<double>(decays, Shape{1, 1, 2, 3});
  };
  // alpha[i,0] and beta[0,j] belong to no edge: 0.5 must not count.
  const Tensor decays = join_decays(logs({.5, .2, .4, .5, .1, .3}),   // rows cross contours alone
                                    logs({.5, .5, .5, .9, .8, .7}));  // columns none
  std::vector<HeadDecays> heads;
  add_decays(decays, regions, heads);
  REQUIRE(heads.size() == 1);
  const DecayMeans &alpha = heads[0][0], &beta = heads[0][1];
  CHECK(alpha[EdgePlace::contour] == Approx((.2 + .4 + .1 + .3) / 4));
  CHECK(std::isnan(alpha[EdgePlace::inside]));
  CHECK(std::isnan(alpha[EdgePlace::ground]));
  CHECK(std::isnan(beta[EdgePlace::contour]));
  CHECK(beta[EdgePlace::inside] == Approx((.8 + .7) / 2));
  CHECK(beta[EdgePlace::ground] == Approx(.9));
  // A second image adds to the first.
  add_decays(decays, Tensor::zeros(Shape{4, 6}, DType::uint8), heads);
  CHECK(alpha[EdgePlace::contour] == Approx(.25));
  CHECK(alpha[EdgePlace::ground] == Approx(.25));
  CHECK(beta[EdgePlace::ground] == Approx((.9 + .9 + .8 + .7) / 4));
  CHECK(says([&] { add_decays(Tensor(), regions, heads); }, "got nothing"));
  CHECK(says([&] { add_decays(decays, decays, heads); }, "regions must be uint8"));
}

TEST_CASE("decays by place: those of each stage are what its attention has", "[vis]") {
  PpmaConfig c = ppma_nano();
  c.embed_dims = {8, 16, 16, 16};
  c.depths = {2, 1, 0, 1};
  c.num_heads = {2, 2, 2, 2};
  c.projection = 8;
  Ppma model(c, 5);
  Rng rng(3);
  const Tensor input = Tensor::randn({1, 3, 36, 52}, rng);
  const std::vector<Tensor> all = log_decays_of(model.backbone, input, 1);
  REQUIRE(all.size() == 4);
  CHECK(!all[2].defined());
  for (const std::size_t s : {std::size_t{0}, std::size_t{1}, std::size_t{3}}) {
    const Tensor want = detail::tokens_before(model, input, s, s == 0 ? 1 : 0).log_decays;
    REQUIRE(all[s].shape() == want.shape());
    const auto x = all[s].to_vector<double>(), y = want.to_vector<double>();
    for (std::size_t k = 0; k < x.size(); ++k) REQUIRE(x[k] == Approx(y[k]).margin(1e-6));
  }
  c.mask = MaskKind::none;
  const Ppma plain(c, 5);
  for (const Tensor& t : log_decays_of(plain.backbone, input, 1)) CHECK(!t.defined());
  c.mask = MaskKind::polyline;
  Ppma mixed(with_mixers(c, "window,polyline_whole,none,none"), 5);
  const std::vector<Tensor> some = log_decays_of(mixed.backbone, input, 1);
  CHECK((!some[0].defined() && some[1].defined() && !some[3].defined()));
  CHECK(!decay_maps(mixed.backbone, MaskKind::polyline, input).alpha.defined());
  CHECK(says([&] { detail::tokens_before(mixed, input, 0, 0); },
             "block: it has another token mixer, not a polyline attention"));
}
