// UperNet and FCN heads: published sizes, names, and the shapes of a small one.
#include "ppma/heads/upernet.hpp"

#include "catch.hpp"

using namespace ppma;

TEST_CASE("upernet: parameter counts as published") {
  const SkipInit skip;
  Rng rng(0);
  UperNetHead tiny(UperNetConfig{}, rng);
  CHECK(parameter_count(tiny) == 29678742);
  UperNetConfig base;
  base.in_channels = {80, 160, 320, 512};
  UperNetHead large(base, rng);
  CHECK(parameter_count(large) == 29736086);
  FcnHead aux(FcnConfig{}, rng), aux_base(FcnConfig{320, 256, 150, 0.1}, rng);
  CHECK(parameter_count(aux) == 628886);
  CHECK(parameter_count(aux_base) == 776342);
  CHECK(state_dict(aux)[2].name == "convs.0.conv.weight");
  CHECK(state_dict(tiny)[2].name == "psp_modules.0.1.conv.weight");
}

TEST_CASE("upernet: logits at the finest map's size; every parameter gets a gradient") {
  Rng rng(1);
  UperNetConfig c;
  c.in_channels = {4, 5, 6, 7}, c.channels = 8, c.num_classes = 3;
  UperNetHead head(c, rng);
  std::vector<Tensor> maps;
  for (const i64 s : {13, 7, 4, 2}) maps.push_back(Tensor::randn({2, s, s + 1, 4 + static_cast<i64>(maps.size())}, rng));
  Context ctx;
  ctx.training = true;
  const Tensor y = head.forward(maps, ctx);
  CHECK(y.shape() == Shape{2, 13, 14, 3});
  sum(square(y)).backward();
  for (const Field& f : named_parameters(head)) {
    INFO(f.name);
    REQUIRE(f.tensor.grad().defined());
    CHECK(sum(square(f.tensor.grad())).item() > 0);
  }
}

TEST_CASE("upernet: a training step of one image, whose coarsest pool is one cell") {
  Rng rng(1);
  UperNetConfig c;
  c.in_channels = {4, 5, 6, 7}, c.channels = 8, c.num_classes = 3, c.dropout_ratio = 0;
  UperNetHead head(c, rng);
  std::vector<Tensor> one;
  for (const i64 s : {13, 7, 4, 2}) one.push_back(Tensor::randn({1, s, s + 1, 4 + static_cast<i64>(one.size())}, rng));
  Context training{true, Rng(2)};
  sum(square(head.forward(one, training))).backward();
  for (const Field& f : named_parameters(head)) {
    INFO(f.name);
    REQUIRE(f.tensor.grad().defined());
    CHECK(std::isfinite(sum(f.tensor.grad()).item()));
  }
  const Tensor& unseen = head.psp_modules[0].conv.bn.running_mean;
  CHECK(sum(square(unseen)).item() == 0);
  CHECK(sum(square(head.psp_modules[1].conv.bn.running_mean)).item() > 0);
}
