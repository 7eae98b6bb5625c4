// UperNet and FCN heads: published sizes, names, and the shapes of a small one.
#include "ppma/heads/upernet.hpp"

#include "catch.hpp"
#include "heads/spread.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "sanitized.hpp"

using namespace ppma;

TEST_CASE("upernet: parameter counts as published") {
  const SkipInit skip;
  Rng rng(0);
  UperNetHead tiny(UperNetConfig{}, {64, 128, 256, 512}, rng);
  CHECK(parameter_count(tiny) == 29678742);
  UperNetHead large(UperNetConfig{}, {80, 160, 320, 512}, rng);
  CHECK(parameter_count(large) == 29736086);
  FcnHead aux(256, 256, 150, 0.1, rng), aux_base(320, 256, 150, 0.1, rng);
  CHECK(parameter_count(aux) == 628886);
  CHECK(parameter_count(aux_base) == 776342);
  CHECK(state_dict(aux)[2].name == "convs.0.conv.weight");
  CHECK(state_dict(tiny)[2].name == "psp_modules.0.1.conv.weight");
}

TEST_CASE(
    "segmentation heads: gradients in training, with dropout, through every map and a weight of "
    "each kind") {
  Rng rng(5);
  UperNetConfig c;
  c.channels = 4, c.num_classes = 3, c.dropout_ratio = 0.3, c.pool_scales = {1, 2, 3};
  UperNetHead upernet(c, {2, 3, 2, 3}, rng);
  FcnHead fcn(3, 4, 3, 0.3, rng);
  Fpn fpn({2, 3, 2, 3}, 4, rng);
  SemanticFpnHead semantic(4, 3, 3, 0.3, rng);
  to(upernet, DType::f64), to(fcn, DType::f64), to(fpn, DType::f64), to(semantic, DType::f64);
  const auto map = [&](i64 height, i64 width, i64 channels) {
    return Tensor::randn({2, height, width, channels}, rng, 1, DType::f64);
  };
  const std::vector<Tensor> maps{map(9, 7, 2), map(5, 4, 3), map(3, 2, 2), map(2, 2, 3)};
  const auto and_weights = [](std::vector<Tensor> inputs, const std::vector<Tensor>& weights) {
    inputs.insert(inputs.end(), weights.begin(), weights.end());
    return inputs;
  };
  const auto ok = [](const GradCheck& g) {
    INFO(g.report);
    CHECK(g.ok);
  };
  const GradCheckOptions some{.max_elements = brief() ? 6 : 0};
  ok(grad_check(
      [&](const std::vector<Tensor>& in) {
        upernet.psp_modules[1].conv.weight = in[4], upernet.fpn_convs[0].bn.weight = in[5],
        upernet.conv_seg.weight = in[6];
        Context training{true, Rng(8)};
        return upernet.forward({in[0], in[1], in[2], in[3]}, training);
      },
      and_weights(maps,
                  {upernet.psp_modules[1].conv.weight.detach(),
                   upernet.fpn_convs[0].bn.weight.detach(), upernet.conv_seg.weight.detach()}),
      some));
  ok(grad_check(
      [&](const std::vector<Tensor>& in) {
        fcn.convs[0].weight = in[1];
        Context training{true, Rng(8)};
        return fcn.forward(in[0], training);
      },
      {map(4, 5, 3), fcn.convs[0].weight.detach()}, some));
  ok(grad_check(
      [&](const std::vector<Tensor>& in) {
        fpn.lateral_convs[3].conv.weight = in[4], fpn.fpn_convs[0].conv.bias = in[5];
        std::vector<Tensor> all;
        for (const Tensor& p : fpn.forward({in[0], in[1], in[2], in[3]}))
          all.push_back(reshape(p, {p.numel()}));
        return concat(all, 0);
      },
      and_weights(maps,
                  {fpn.lateral_convs[3].conv.weight.detach(), fpn.fpn_convs[0].conv.bias.detach()}),
      some));
  ok(grad_check(
      [&](const std::vector<Tensor>& in) {
        semantic.scale_heads[3].convs[2].weight = in[4];
        Context training{true, Rng(8)};
        return semantic.forward({in[0], in[1], in[2], in[3]}, training);
      },
      {map(8, 6, 4), map(4, 3, 4), map(2, 2, 4), map(1, 1, 4),
       semantic.scale_heads[3].convs[2].weight.detach()},
      some));
}

TEST_CASE("segmentation heads: initial values") {
  Rng rng(1);
  UperNetConfig c;
  c.channels = 48;
  UperNetHead head(c, {40, 40, 40, 40}, rng);
  // Kaiming, by fan-out
  CHECK(is_normal(head.bottleneck.weight, std::sqrt(2.0 / (48 * 9))));
  CHECK(is_normal(head.fpn_bottleneck.weight, std::sqrt(2.0 / (48 * 9))));
  CHECK(is_normal(head.psp_modules[0].conv.weight, std::sqrt(2.0 / 48)));
  CHECK((is_all(head.bottleneck.bn.weight, 1) && is_all(head.bottleneck.bn.bias, 0)));
  // a convolution's default
  CHECK(is_uniform(head.conv_seg.weight, 1 / std::sqrt(48.0)));
  FcnHead aux(40, 48, 150, 0.1, rng);
  CHECK(is_normal(aux.convs[0].weight, std::sqrt(2.0 / (48 * 9))));
  Fpn fpn({64, 64, 64, 64}, 40, rng);
  CHECK(is_uniform(fpn.lateral_convs[1].conv.weight, std::sqrt(6.0 / (64 + 40))));  // Xavier
  CHECK(is_uniform(fpn.fpn_convs[2].conv.weight, std::sqrt(6.0 / (40 * 9 + 40 * 9))));
  CHECK((is_all(fpn.lateral_convs[0].conv.bias, 0) && is_all(fpn.fpn_convs[0].conv.bias, 0)));
}

TEST_CASE("upernet: logits at the finest map's size; every parameter gets a gradient") {
  Rng rng(1);
  UperNetConfig c;
  c.channels = 8, c.num_classes = 3;
  UperNetHead head(c, {4, 5, 6, 7}, rng);
  std::vector<Tensor> maps;
  for (const i64 s : {13, 7, 4, 2})
    maps.push_back(Tensor::randn({2, s, s + 1, 4 + static_cast<i64>(maps.size())}, rng));
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
  c.channels = 8, c.num_classes = 3, c.dropout_ratio = 0;
  UperNetHead head(c, {4, 5, 6, 7}, rng);
  std::vector<Tensor> one;
  for (const i64 s : {13, 7, 4, 2})
    one.push_back(Tensor::randn({1, s, s + 1, 4 + static_cast<i64>(one.size())}, rng));
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
