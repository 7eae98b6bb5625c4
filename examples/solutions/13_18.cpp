// Solutions of the exercises of lessons 13 to 18.

#include <algorithm>
#include <string>

#include "../check.hpp"
#include "ppma/heads/boxes.hpp"
#include "ppma/metrics/mean_iou.hpp"
#include "ppma/models/block.hpp"
#include "ppma/models/vit.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/nms.hpp"
#include "ppma/optim/schedule.hpp"
#include "ppma/polyline/fused.hpp"

using namespace ppma;

namespace {

void lesson_13() {
  const StageConfig config{16, 2, 48, false, false, 1, MaskKind::polyline, true};
  Rng rng(1);
  Block block(config, 0, rng);
  Positions positions(config, 4);
  to(block, DType::f64), to(positions, DType::f64);
  const Tensor x = Tensor::randn({1, 4, 6, 16}, rng, 1, DType::f64);
  const NoGrad off;

  // Softplus of -40 is 0, so every decay is 1.
  PathEmbed& decays = *block.retention->path_embed;
  for (i64 g = 0; g < 2; ++g) decays.dt_bias.data<double>()[g] = -40;
  expect(largest_difference(whole_attention(x, x, x, 2, decays.forward(x)),
                            whole_attention(x, x, x, 2, Tensor(), Paths::none)) < 1e-12,
         "13.2: attention without a mask");

  // The last layer of each of the three branches: nothing is added.
  const auto zero = [](const Tensor& t) {
    Tensor(t).copy_from(Tensor::zeros(t.shape(), t.dtype()));
  };
  zero(block.pos->weight), zero(block.pos->bias);
  zero(block.retention->out_proj.weight), zero(block.retention->out_proj.bias);
  zero(block.ffn.fc2.weight), zero(block.ffn.fc2.bias);
  Context evaluation;
  expect(largest_difference(block.forward(x, positions, evaluation), x) == 0,
         "13.1: pos, out_proj and fc2");
}

void lesson_14() {
  const Tensor same = Tensor::zeros({3, 3}), figures = Tensor::from<i64>({0, 1, 2}, {3});
  expect(std::fabs(cross_entropy(same, figures).item() - std::log(3.0)) < 1e-6, "14.1: ln 3");
  const WarmupCosine schedule{.peak = 2e-3, .warmup = 0.5, .total = 12};
  // From 1e-6 to the peak in half an epoch, then down to 1e-5.
  expect(std::fabs(schedule.at(0.25) - (1e-6 + 2e-3) / 2) < 1e-9 &&
             std::fabs(schedule.at(12) - 1e-5) < 1e-9,
         "14.2: half of the peak, and 1e-5");
}

void lesson_15() {
  // 1000 pixels, 100 of them of class 1: the ground's IoU is 900 / 1000, the other three have 0.
  Tensor ground = Tensor::zeros({10, 100}, DType::uint8), labels = ground.clone();
  for (i64 p = 0; p < 100; ++p) labels.data<u8>()[p] = static_cast<u8>(1 + p % 3);
  MeanIou all_ground(4);
  all_ground.add(ground, labels, "ground");
  expect(std::fabs(all_ground.result().mean_iou - 0.9 / 4) < 1e-12, "15.1: 0.225");
  expect(std::fabs(iou({0, 0, 10, 10}, {1, 0, 11, 10}) - 90.0f / 110) < 1e-6f, "15.2: 90 / 110");
}

void lesson_16() {
  // Three boxes 70 wide, each 30 further: 40 of 100 in common with the next, 10 of 130 with the
  // one after.
  const std::vector<Box> row{{0, 0, 70, 10}, {30, 0, 100, 10}, {60, 0, 130, 10}};
  const std::vector<float> scores{0.8f, 0.9f, 0.7f};
  expect(std::fabs(iou(row[0], row[1]) - 0.4f) < 1e-6f && nms(row, scores, {}, 0.5).size() == 3 &&
             nms(row, scores, {}, 0.3) == std::vector<i64>{1},
         "16.1: all three, and the one in the middle");
  const Delta d = encode({0, 0, 64, 64}, {-32, 16, 96, 48});
  expect(d.dx == 0 && d.dy == 0 && std::fabs(d.dw - std::log(2.0f)) < 1e-6f &&
             std::fabs(d.dh + std::log(2.0f)) < 1e-6f,
         "16.2: 0, 0, ln 2, -ln 2");
}

void lesson_17() {
  Rng rng(17);
  Linear layer(8, 4, rng);
  std::vector<std::pair<std::string, Tensor>> file = as_tensors(state_dict(layer));
  file[0].first = "wieght";
  std::string said;
  try {
    load_state_dict(layer, file);
  } catch (const Error& e) {
    said = e.what();
  }
  expect(said.find("wieght") != std::string::npos && said.find("weight") != std::string::npos,
         "17.1: the name that is missing and the one that is not expected");
  // bf16 keeps 8 binary digits of a number: half of the last one is 1/256 of it at most.
  const Tensor x = Tensor::randn(Shape{1000}, rng), stored = cast(cast(x, DType::bf16), DType::f32);
  float most = 0;
  for (i64 i = 0; i < 1000; ++i)
    most = std::max(most, std::fabs(stored.data<float>()[i] / x.data<float>()[i] - 1));
  expect(most > 1.0f / 512 && most <= 1.0f / 256, "17.2: by 1/256 at most");
}

void lesson_18_1() {
  const SkipInit skip;
  Vit plain(deit_tiny()), masked(deit_tiny(MaskKind::polyline));
  expect(parameter_count(masked) - parameter_count(plain) == 12 * (2 * 64 + 2 * 3), "18.1: 1608");
}

void lesson_18_2() {
  VitConfig c;
  c.image_size = 32, c.patch_size = 8, c.width = 24, c.depth = 2, c.heads = 2, c.num_classes = 10;
  Rng rng(18);
  const Tensor image = Tensor::randn({1, 3, 32, 32}, rng, 1, DType::f64);
  Tensor exchanged = image.clone();  // the patches at rows 0, columns 0 and at rows 16, columns 8
  for (i64 ch = 0; ch < 3; ++ch)
    for (i64 i = 0; i < 8; ++i)
      for (i64 j = 0; j < 8; ++j) {
        double* plane = exchanged.data<double>() + ch * 32 * 32;
        std::swap(plane[i * 32 + j], plane[(i + 16) * 32 + j + 8]);
      }
  const auto notices = [&](MaskKind mask) {
    c.mask = mask;
    Vit model(c, 1);
    to(model, DType::f64);
    const NoGrad off;
    model.pos_embed.copy_from(Tensor::zeros(model.pos_embed.shape(), DType::f64));
    return largest_difference(model.forward(image), model.forward(exchanged)) > 1e-12;
  };
  expect(!notices(MaskKind::none), "18.2: the plain one does not, its tokens have no order");
  expect(notices(MaskKind::polyline), "18.2: the masked one does, tokens lie on a grid");
}

}  // namespace

int main() {
  lesson_13(), lesson_14(), lesson_15(), lesson_16(), lesson_17(), lesson_18_1(), lesson_18_2();
  return failures;
}
