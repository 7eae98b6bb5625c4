// 18: the mask in somebody else's network.
//
// PPMA's idea needs no network of its own. A plain vision transformer has one resolution, a class
// token, and attention that knows nothing of the grid but what its learnt positions tell it. Its
// scores get one more term, the log of the mask:
//
//   softmax( q k^T / sqrt(d) )   becomes   the mean of softmax( q k^T / sqrt(d) + ln L(x) )
//                                          and that with ln L(x)^T, both ways along the paths
//
// and L comes from the tokens themselves by 2 d + 2 G numbers a layer. Where L = 1 nothing changes.

#include "check.hpp"
#include "ppma/models/vit.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"

using namespace ppma;

namespace {

constexpr i64 side = 32, patch = 4;

// Two dots and a wall on a noisy ground: are the dots on the same side of it?
struct Batch {
  Tensor images;  // (B,3,S,S)
  Tensor labels;  // (B): 1 if nothing stands between the dots
};
Batch make_batch(i64 count, Rng rng) {
  Batch batch{Tensor::randn({count, 3, side, side}, rng, 0.1),
              Tensor::empty({count}, DType::int64)};
  for (i64 b = 0; b < count; ++b) {
    const auto fill = [&](i64 channel, i64 top, i64 left, i64 height, i64 width) {
      for (i64 i = top; i < top + height; ++i)
        for (i64 j = left; j < left + width; ++j)
          batch.images.data<float>()[((b * 3 + channel) * side + i) * side + j] += 2;
    };
    const i64 cells = side / patch, wall = 1 + rng.below(cells - 2), same = rng.below(2);
    const auto place = [&](i64 on_the_left) {  // a column of that side of the wall
      return on_the_left ? rng.below(wall) : wall + 1 + rng.below(cells - 1 - wall);
    };
    const i64 first = rng.below(2), second = same ? first : 1 - first;
    fill(0, 0, wall * patch, side, patch);
    fill(1, rng.below(cells) * patch, place(first) * patch, patch, patch);
    fill(2, rng.below(cells) * patch, place(second) * patch, patch, patch);
    batch.labels.data<i64>()[b] = same;
  }
  return batch;
}

VitConfig small(MaskKind mask) {
  VitConfig c;
  c.image_size = side, c.patch_size = patch, c.width = 48, c.depth = 3, c.heads = 3,
  c.mlp_ratio = 2, c.num_classes = 2, c.drop_path_rate = 0;
  c.mask = mask;  // this is all that changes
  return c;
}

// Learns a few images by heart; returns the loss that is left.
double learn(Vit& model, const Batch& batch) {
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)), {.beta2 = 0.98});
  double left = 0;
  for (i64 step = 0; step < 60; ++step) {
    Context context{true, Rng(1)};
    const Tensor loss = cross_entropy(model.forward(batch.images, context), batch.labels);
    loss.backward();
    optimizer.step(2e-3, clip_factor(gradient_norm(optimizer.parameters()), 1));
    optimizer.zero_grad();
    left = loss.item();
  }
  return left;
}

}  // namespace

int main() {
  // 1. What it costs: a handful of numbers a layer.
  Vit plain(small(MaskKind::none), 1), masked(small(MaskKind::polyline), 1);
  const long long count = parameter_count(plain), more = parameter_count(masked);
  std::printf("parameters: %lld plain, %lld with the mask\n", count, more);

  // 2. Without decay nothing changes: with a bias of -40 every step is free, as softplus(-40) = 0.
  const Batch few = make_batch(6, Rng(3));
  Vit free(small(MaskKind::polyline), 1);
  for (VitBlock& b : free.blocks)
    for (i64 g = 0; g < 3; ++g) b.attn.path_embed->dt_bias.data<float>()[g] = -40;
  const Tensor of_plain = plain.forward(few.images);
  std::printf("no decay gives the plain network: %s\n",
              largest_difference(of_plain, free.forward(few.images)) < 1e-5 ? "yes" : "NO");
  std::printf("with decay it is another: %s\n",
              largest_difference(of_plain, masked.forward(few.images)) > 1e-6 ? "yes" : "NO");

  // 3. The mask learns with everything else: its parameters have gradients. (All but the last
  // layer's, where only the class token is read: it has no place on the grid, and no mask.)
  Context context{true, Rng(1)};
  cross_entropy(masked.forward(few.images, context), few.labels).backward();
  bool all = true;
  for (const Field& f : named_parameters(masked))
    if (f.name.find("path_embed") != std::string::npos && !f.name.starts_with("blocks.2"))
      all = all && f.tensor.grad().defined() && sum(abs(f.tensor.grad())).item() > 0;
  std::printf("every decay parameter has a gradient: %s\n", all ? "yes" : "NO");

  // 4. Both learn a batch by heart: it trains. (What it is worth: docs/questions.md.)
  const Batch batch = make_batch(16, Rng(4));
  Vit first(small(MaskKind::none), 1), second(small(MaskKind::polyline), 1);
  const double without = learn(first, batch), with = learn(second, batch);
  std::fprintf(stderr, "loss left after 60 steps (at first 0.69): %.4f plain, %.4f with the mask\n",
               without, with);
  const bool learnt = without < 0.1 && with < 0.1;
  std::printf("both learn sixteen images by heart: %s\n", learnt ? "yes" : "NO");
  return all && learnt ? 0 : 1;
}

// Exercises (solutions/13_18.cpp):
//   1. DeiT-tiny has 12 layers of 3 heads of 64. How many parameters does the mask add?
//   2. Set all learnt positions (pos_embed) to 0 and exchange two patches of the image. Does the
//      plain network notice? Does the masked one?
