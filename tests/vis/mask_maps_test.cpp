// The maps of the figure against the composed attention's N x N arrays.

#include "ppma/vis/mask_maps.hpp"

#include "catch.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/train/run_folder.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

PpmaConfig small_config(MaskKind mask) {
  PpmaConfig c = ppma_nano();
  c.embed_dims = {8, 16, 16, 16};
  c.depths = {2, 1, 0, 1};
  c.num_heads = {2, 2, 2, 2};
  c.projection = 8;
  c.mask = mask;
  return c;
}

void check_row(const Tensor& map, const std::vector<double>& want) {
  const auto got = map.to_vector<double>();
  REQUIRE(got.size() == want.size());
  for (std::size_t t = 0; t < got.size(); ++t)
    CHECK(got[t] == Approx(want[t]).epsilon(1e-4).margin(1e-7));
}

}  // namespace

TEST_CASE("mask maps are rows of the attention's maps", "[vis]") {
  Rng rng(3);
  const Tensor input = Tensor::randn({1, 3, 36, 52}, rng);  // a 9 x 13 grid
  const Tensor image = Tensor::full({36, 52, 3}, 100, DType::uint8);
  for (const MaskKind kind : {MaskKind::polyline, MaskKind::v2h, MaskKind::rmt}) {
    Ppma model(small_config(kind), 5);
    // Weights as initialised give scores near 0: make them matter.
    for (Field& f : named_parameters(model))
      if (f.name.find("_proj.weight") != std::string::npos ||
          f.name.find("dt_linear") != std::string::npos)
        f.tensor.copy_from(Tensor::randn(f.tensor.shape(), rng, 0.4));
    const MaskView view{.stage = 0, .block = 1, .head = 1, .row = 0.6, .column = 0.3};
    const MaskMaps maps = mask_maps(model, image, input, view);
    CHECK(maps.row == 5);
    CHECK(maps.column == 3);
    const auto tokens = detail::tokens_before(model, input, 0, 1);
    const Tensor scores =
        // (1,G,N,N)
        matmul(detail::head_tokens(tokens.q, 2), detail::head_tokens(tokens.k, 2), false, true);
    const Tensor& decays = tokens.log_decays;
    const Paths paths = kind == MaskKind::polyline ? Paths::both : Paths::v2h;
    const auto row_of = [&](const Tensor& all) {  // (1,G,N,N): head 1, query (5,3)
      const auto v = all.to_vector<double>();
      const std::size_t n = 9 * 13, at = n * n + (5 * 13 + 3) * n;
      return std::vector<double>(v.begin() + static_cast<std::ptrdiff_t>(at),
                                 v.begin() + static_cast<std::ptrdiff_t>(at + n));
    };
    check_row(maps.unmasked, row_of(attention_map(scores, {}, Paths::none, Variant::code)));
    check_row(maps.masked, row_of(attention_map(scores, decays, paths, Variant::code)));
    auto mask = row_of(polyline_mask(decays, paths));
    if (paths == Paths::both)
      for (double& m : mask) m /= 2;
    check_row(maps.mask, mask);
    const auto alpha = exp(log_alpha_of(decays)).to_vector<double>();
    check_row(maps.alpha, {alpha.begin() + 117, alpha.end()});
    const Picture picture =
        mask_picture({maps, mask_maps(model, image, input, {.stage = 3, .block = 0})});
    CHECK(picture.width() > 6 * 200);
  }
  Ppma plain(small_config(MaskKind::none), 5), polyline(small_config(MaskKind::polyline), 5);
  CHECK(says([&] { mask_maps(plain, image, input); }, "mask is none; only masks along paths"));
  CHECK(says([&] { mask_maps(polyline, image, input, {.stage = 2}); }, "has no blocks"));
  CHECK(says([&] { mask_maps(polyline, image, input, {.head = 2}); }, "head 2 of 2"));
  Ppma linear(with_linear_attention(small_config(MaskKind::polyline)), 5);
  CHECK(says([&] { mask_maps(linear, image, input); }, "stage 0 has linear attention"));
}
