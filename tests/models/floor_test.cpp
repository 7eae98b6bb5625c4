// The floor that `ppma bench` reports its share of: products as the summary counts them, bytes by
// hand.

#include "ppma/commands/floor.hpp"

#include <limits>

#include "catch.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/init.hpp"
#include "sanitized.hpp"

using namespace ppma;

namespace {

constexpr double endless = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("floor: the products are the summary's, but for depthwise convolutions and decays",
          "[floor]") {
  PpmaConfig bare = ppma_tiny(), linear = with_linear_attention(ppma_tiny()), one_path = linear;
  bare.mask = MaskKind::none, bare.lepe = bare.depthwise = false;
  one_path.mask = MaskKind::v2h;
  for (const PpmaConfig& c : {ppma_tiny(), bare, linear, one_path}) {
    const SkipInit skip;
    Ppma model(c);
    double flops = 0;
    for (const LayerSummary& l : summary(model, 2, 224, 160).layers) {
      bool counted = true;
      for (const char* other : {".pos", ".lepe", ".dwconv", ".path_embed"})
        counted = counted && !l.name.ends_with(other);
      if (counted) flops += 2 * static_cast<double>(l.macs);
    }
    CHECK(floor_of(c, {1e12, endless, endless}, 2, 224, 160, 2, false) * 1e12 ==
          Approx(flops).epsilon(1e-9));
  }
}

TEST_CASE(
    "floor: bytes of a block, exponentials of a whole and a criss-cross attention, a training step",
    "[floor]") {
  PpmaConfig with = ppma_tiny(), without = with;
  without.depths[2] = with.depths[2] - 1;
  const auto difference = [&](const Ceilings& peak, bool train) {
    return floor_of(with, peak, 3, 224, 224, 4, train) -
           floor_of(without, peak, 3, 224, 224, 4, train);
  };
  const double channels = 256, hidden = 768, tokens = 196, heads = 8;
  const double weights = (9 + 25) * channels + 4 * channels * channels + 2 * channels * hidden;
  const double bytes = 4 * (3 * tokens * (16 * channels + 2 * hidden) + weights);
  CHECK(difference({endless, 1, endless}, false) == Approx(bytes).epsilon(1e-9));
  CHECK(difference({endless, 1, endless}, true) == Approx(3 * bytes + 28 * weights).epsilon(1e-9));
  CHECK(difference({endless, endless, 1}, false) ==
        Approx(3 * heads * tokens * tokens).epsilon(1e-9));
  const double linear = 2 * tokens * (4 * channels * channels + 2 * channels * hidden),
               attention = 4 * tokens * tokens * channels;
  CHECK(difference({1, endless, endless}, true) ==
        Approx(3 * (3 * linear + 3.5 * attention)).epsilon(1e-9));

  without = with;
  without.depths[0] = with.depths[0] - 1;
  CHECK(difference({endless, endless, 1}, false) == Approx(3.0 * 4 * 3136 * 112).epsilon(1e-9));
}

TEST_CASE("floor: what the machine reaches is measured", "[floor]") {
  if (sanitized()) return;  // another machine's, and its loops are not the library's
  const Ceilings c = measure_ceilings({});
  CHECK(c.flops > 1e8);
  CHECK(c.bytes > 1e8);
  CHECK(c.exponentials > 1e6);
}
