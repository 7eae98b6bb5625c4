// The whole segmentation network: published size, and ignored pixels in the loss.
#include "catch.hpp"
#include "ppma/heads/segment.hpp"
#include "ppma/heads/upernet.hpp"
#include "ppma/optim/parameters.hpp"
#include "sanitized.hpp"

using namespace ppma;

TEST_CASE("segmentor: parameter counts as published") {
  const SkipInit skip;
  struct Row {
    PpmaConfig backbone;
    i64 classes, parameters;
  };
  // ADE20K
  for (const Row& row : std::vector<Row>{{ppma_tiny(), 150, 43092460},
                                         {ppma_small(), 150, 55726660},
                                         {ppma_base(), 150, 83120736},
                                         // Cityscapes
                                         {ppma_tiny(), 19, 42991590},
                                         {ppma_small(), 19, 55625790},
                                         {ppma_base(), 19, 83019866}}) {
    if (brief() && row.backbone.name != "ppma_tiny") continue;  // sums over shapes alone
    INFO(row.backbone.name << ", " << row.classes << " classes");
    SegmentorConfig<UperNet> c;
    c.backbone = row.backbone, c.head.num_classes = row.classes;
    Segmentor<UperNet> model(c);
    CHECK(parameter_count(model) == row.parameters);
  }
}

TEST_CASE("segmentor: what is decayed goes by names, as published") {
  const SkipInit skip;
  Segmentor<UperNet> tiny{SegmentorConfig<UperNet>{}};
  i64 tensors[2] = {}, elements[2] = {};
  for (const Parameter& p : parameters_of(tiny, norm_rules(0.05))) {
    const bool decayed = p.weight_decay > 0;
    ++tensors[decayed], elements[decayed] += p.tensor.numel();
    INFO(p.name);
    CHECK(decayed == (p.name.find("norm") == std::string::npos));
    if (p.name.ends_with("bn.weight") || p.name.ends_with("dt_bias") || p.name.ends_with("A_log") ||
        p.name.ends_with("conv_seg.bias"))
      CHECK(p.weight_decay == 0.05);
  }
  CHECK((tensors[0] == 70 && elements[0] == 17536));
  CHECK((tensors[1] == 359 && elements[1] == 43074924));
}

TEST_CASE("segmentor: ignored pixels have no loss and count in its mean") {
  SegmentorConfig<UperNet> c;
  c.backbone = ppma_nano();
  c.head.channels = 8, c.head.num_classes = 3, c.head.auxiliary_channels = 8;
  Segmentor<UperNet> s(c);
  Context ctx;
  Rng rng(3);
  const Tensor image = Tensor::randn({1, 3, 32, 48}, rng);
  Tensor labels = Tensor::zeros({1, 32, 48}, DType::int64);
  CHECK(s.forward(image, ctx).shape() == Shape{1, 32, 48, 3});
  const double full = s.loss(image, labels, ctx).total.item();
  std::fill_n(labels.data<i64>(), 16 * 48, 255);
  const double lower = s.loss(image, labels, ctx).total.item();
  std::fill_n(labels.data<i64>(), 16 * 48, 0);
  std::fill_n(labels.data<i64>() + 16 * 48, 16 * 48, 255);
  const double upper = s.loss(image, labels, ctx).total.item();
  CHECK(full > 0);
  CHECK(lower + upper == Approx(full).epsilon(1e-5));
}

TEST_CASE("segmentor: accuracy of pixels by hand, ignored ones aside") {
  // 0, 1, 2, 0
  const Tensor logits = Tensor::from<float>({2, 1, 0, 1, 2, 0, 0, 1, 2, 3, 1, 0}, {1, 2, 2, 3});
  const auto of = [&](const std::vector<i64>& labels, i64 ignore) {
    return pixel_accuracy(logits, Tensor::from<i64>(labels, {1, 2, 2}), ignore).item();
  };
  CHECK(of({0, 1, 2, 0}, 255) == Approx(100));
  CHECK(of({0, 1, 0, 1}, 255) == Approx(50));
  CHECK(of({0, 2, 255, 255}, 255) == Approx(50));
  CHECK(of({0, 1, 0, 0}, 0) == Approx(100));  // an ignored label that is a class
  CHECK(of({255, 255, 255, 255}, 255) == Approx(100));
  SegmentorConfig<UperNet> c;
  c.backbone = ppma_nano();
  c.head.channels = 8, c.head.num_classes = 3, c.head.auxiliary_channels = 8;
  Segmentor<UperNet> s(c);
  for (Conv2d* classifier : {&s.head.decode_head.conv_seg, &s.head.auxiliary_head.conv_seg})
    std::fill_n(classifier->weight.data<float>(), classifier->weight.numel(), 0.0f),
        std::fill_n(classifier->bias.data<float>(), 3, 0.0f);
  // always class 0, always class 1
  s.head.decode_head.conv_seg.bias.data<float>()[0] = 9,
  s.head.auxiliary_head.conv_seg.bias.data<float>()[1] = 9;
  Tensor labels = Tensor::zeros({1, 32, 32}, DType::int64);
  std::fill_n(labels.data<i64>(), 8 * 32, 1),
      std::fill_n(labels.data<i64>() + 8 * 32, 16 * 32, 255);
  Context ctx;
  const SegmentationLoss l = s.loss(Tensor::ones({1, 3, 32, 32}), labels, ctx);
  CHECK(l.decode_accuracy.item() == Approx(50));
  CHECK(l.auxiliary_accuracy.item() == Approx(50));
  std::fill_n(labels.data<i64>(), 4 * 32, 255);
  const SegmentationLoss fewer = s.loss(Tensor::ones({1, 3, 32, 32}), labels, ctx);
  CHECK(fewer.decode_accuracy.item() == Approx(100 * 8.0 / 12));
  CHECK(fewer.auxiliary_accuracy.item() == Approx(100 * 4.0 / 12));
}

TEST_CASE("segmentor: images of one row or column, however long") {
  SegmentorConfig<UperNet> c;
  c.backbone = ppma_nano();
  c.head.channels = 8, c.head.num_classes = 3, c.head.auxiliary_channels = 8;
  Segmentor<UperNet> s(c);
  for (const auto& [height, width] :
       std::vector<std::pair<i64, i64>>{{1, 1}, {1, 40}, {40, 1}, {1, 3000}}) {
    const Tensor image = Tensor::full({height, width, 3}, 90, DType::uint8);
    CHECK(segment(s, image, {.longer = 64, .shorter = 32}).shape() == Shape{height, width});
    CHECK(segment(s, image,
                  {.longer = 64,
                   .shorter = 32,
                   .crop = 32,
                   .stride = 16,
                   .factors = {0.5, 1},
                   .flip = true})
              .shape() == Shape{height, width});
  }
}
