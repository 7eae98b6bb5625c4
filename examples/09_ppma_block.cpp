// 09: a PPMA block, step by step. Three sums lie between an image's tokens and the same tokens
// after they looked around.
//
//   x += pos(x)                                        where am I: a depthwise convolution
//   x += out( attention(q, k, v; mask) + lepe(v) )
//         who matters to me, and how far away is it along the paths
//   x += ffn(x)                                        what do I make of it
//
// The block of the library does it in one call; here it is taken apart, and the two are compared.

#include <cmath>
#include <cstdio>

#include "ppma/models/block.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/fused.hpp"

using namespace ppma;

namespace {

bool all_right = true;
void check_that(const char* what, bool ok) {
  std::printf("%s %s\n", ok ? "[ok]" : "[WRONG]", what);
  all_right = all_right && ok;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double most = 0;
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  for (std::size_t i = 0; i < x.size(); ++i) most = std::fmax(most, std::fabs(x[i] - y[i]));
  return most;
}

}  // namespace

int main() {
  // 4 x 6 tokens of 16 channels, two heads of 8. Left half and right half are two different
  // surfaces.
  const i64 height = 4, width = 6, channels = 16, heads = 2, d = channels / heads;
  Rng rng(1);
  Tensor tokens = Tensor::randn({1, height, width, channels}, rng, 0.1, DType::f64);  // (B,H,W,C)
  for (i64 i = 0; i < height; ++i)
    for (i64 j = 0; j < width; ++j)
      for (i64 c = 0; c < channels; ++c)
        tokens.data<double>()[(i * width + j) * channels + c] +=
            (c % 2 == 0) == (j < width / 2) ? 1 : -1;

  const StageConfig config{channels, heads, 3 * channels,       false,
                           false,    1,     MaskKind::polyline, true};
  Block block(config, 0, rng);
  Positions positions(config, 4);
  to(block, DType::f64), to(positions, DType::f64);
  // Training would find out what should cost something. Here the block is told: every step on the
  // right surface costs a lot, not only the one across the contour. A decay is a function of one
  // token; a contour is between two, and only features that convolutions mixed can show it.
  Tensor& w = block.retention.path_embed->dt_linear_weight;  // (2,d)
  for (i64 c = 0; c < 2 * d; ++c) w.data<double>()[c] = c % 2 == 0 ? -0.7 : 0.7;

  const NoGrad off;
  Context evaluation;
  const Tensor whole = block.forward(tokens, positions, evaluation);

  // 1. Position: each token feels its eight neighbours.
  Tensor x = tokens + depthwise_conv2d(tokens, block.pos.weight, block.pos.bias);  // (B,H,W,C)

  // 2. Queries, keys and values of the normalised tokens; q and k are turned by their place in the
  // raster.
  const Attention& a = block.retention;
  // (B,H,W,C)
  const Tensor n = block.retention_layer_norm.forward(x);
  // (B,H,W,C)
  const Tensor q = rotary(a.q_proj.forward(n), positions.angle, heads);
  // (B,H,W,C)
  const Tensor k = rotary(a.k_proj.forward(n), positions.angle, heads, 1 / std::sqrt(8.0));
  // (B,H,W,C)
  const Tensor v = a.v_proj.forward(n);

  // 3. What each step to the right (alpha) and down (beta) costs, from the same normalised tokens.
  const Tensor decays = a.path_embed->forward(n);  // (2,B,G,H,W): alpha, beta
  std::printf("alpha of head 0, the decay of the step from the left neighbour:\n");
  for (i64 i = 0; i < height; ++i) {
    for (i64 j = 1; j < width; ++j)
      std::printf("  %.3f", std::exp(decays.data<double>()[i * width + j]));
    std::printf("\n");
  }

  // 4. Attention under both polyline paths, a local term on the values, the output projection.
  const Tensor y = whole_attention(q, k, v, heads, decays);  // (B,H,W,C)
  x = x + a.out_proj.forward(y + depthwise_conv2d(v, a.lepe.weight, a.lepe.bias));

  // 5. The feed-forward network, itself with a look at the neighbours.
  const Tensor h = gelu(block.ffn.fc1.forward(block.final_layer_norm.forward(x)));  // (B,H,W,F)
  x = x + block.ffn.fc2.forward(
              h + depthwise_conv2d(h, block.ffn.dwconv.weight, block.ffn.dwconv.bias));
  check_that("step by step equals the block", largest_difference(x, whole) < 1e-12);

  // What the mask does: how much the token (1,0) takes from the left half, with and without it.
  const auto by_head = [&](const Tensor& t) {
    return permute(reshape(t, {1, height * width, heads, d}), {0, 2, 1, 3});
  };
  const Tensor scores = matmul(by_head(q), by_head(k), false, true);  // (B,G,N,N)
  const auto from_left = [&](const Tensor& map) {
    double sum = 0;
    for (i64 u = 0; u < height * width; ++u)
      if (u % width < width / 2) sum += map.data<double>()[1 * width * height * width + u];
    return sum;
  };
  const double plain = from_left(attention_map(scores, Tensor(), Paths::none, Variant::code));
  const double masked = from_left(attention_map(scores, decays, Paths::both, Variant::code));
  std::printf("token (1,0) takes from its own half: %.2f without the mask, %.2f with it\n", plain,
              masked);
  check_that("the mask keeps attention on the token's own surface", masked > plain + 0.2);

  std::printf("%lld parameters, %lld of them for the mask\n",
              static_cast<long long>(parameter_count(block)),
              static_cast<long long>(parameter_count(*block.retention.path_embed)));
  check_that("the mask costs 2 d + 2 G parameters",
             parameter_count(*block.retention.path_embed) == 2 * d + 2 * heads);
  return all_right ? 0 : 1;
}
