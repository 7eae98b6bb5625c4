// Decays of a network on the GPU are those of the same network on the CPU.

#if PPMA_TEST_GPU

#include "catch.hpp"
#include "distance.hpp"
#include "ppma/core/gpu.hpp"
#include "ppma/nn/module.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/vis/decay_history.hpp"

using namespace ppma;

TEST_CASE("decays of a network on the GPU are the CPU's", "[cuda][vis]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  PpmaConfig c = ppma_nano();
  c.embed_dims = {16, 16, 16, 16}, c.depths = {2, 1, 1, 1}, c.num_heads = {2, 2, 2, 2};
  Rng rng(3);
  const Tensor input = Tensor::randn({1, 3, 32, 48}, rng);
  for (const MaskKind kind : {MaskKind::polyline, MaskKind::shared, MaskKind::v2h}) {
    c.mask = kind;
    Ppma network(c, 5);
    const DecayMaps want = decay_maps(network.backbone, kind, input);
    to(network, Device::cuda);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO(to_string(kind) << ", " << to_string(dtype));
      const DecayMaps got = decay_maps(network.backbone, kind, cast(input, dtype).to(Device::cuda));
      REQUIRE(got.alpha.shape() == Shape{8, 12});
      const double tolerance = dtype == DType::f32 ? 1e-4 : 2e-2;
      CHECK(distance(got.alpha, want.alpha) < tolerance);
      CHECK(distance(got.beta, want.beta) < tolerance);
      CHECK(distance(got.mask, want.mask) < tolerance);
    }
  }
  c.mask = MaskKind::rmt;
  Ppma fixed(c, 5);
  to(fixed, Device::cuda);
  CHECK(!decay_maps(fixed.backbone, c.mask, input.to(Device::cuda)).alpha.defined());
}

#endif
