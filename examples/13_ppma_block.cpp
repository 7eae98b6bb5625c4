// 13: a PPMA block, step by step. Three sums lie between an image's tokens and the same tokens
// after they looked around.
//
//   x += pos(x)                                        where am I: a depthwise convolution
//   x += out( attention(q, k, v; mask) + lepe(v) )     who matters to me, how far is it along paths
//   x += ffn(x)                                        what do I make of it
//
// The block of the library does it in one call; here it is taken apart, and the two are compared.
// Its weights are random: its decays have not learnt to see anything yet (lesson 10 shows how they
// do), and how large each branch is says how a block begins, not what it becomes.

#include "check.hpp"
#include "ppma/models/block.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/polyline/fused.hpp"

using namespace ppma;

namespace {

// A line of the diagram: what a step makes, its shape, its size (root mean square), its parameters.
i64 counted = 0;
void line(const char* diagram, const Tensor& t, i64 parameters) {
  std::printf("%-36s %-16s %6.3f %6lld\n", diagram, t.shape().str().c_str(),
              std::sqrt(mean(t * t).item()), static_cast<long long>(parameters));
  counted += parameters;
}

template <class... Layers>
i64 count(Layers&... layers) {
  return (parameter_count(layers) + ...);
}

}  // namespace

int main() {
  // 4 x 6 tokens of 16 channels, two heads of 8.
  const i64 height = 4, width = 6, channels = 16, heads = 2, d = channels / heads;
  Rng rng(1);
  const Tensor tokens = Tensor::randn({1, height, width, channels}, rng, 1, DType::f64);
  const StageConfig config{channels, heads, 3 * channels,       false,
                           false,    1,     MaskKind::polyline, true};
  Block block(config, 0, rng);
  Positions positions(config, 4);
  to(block, DType::f64), to(positions, DType::f64);
  const NoGrad off;
  std::printf("%-36s %-16s %6s %6s\n", "", "shape", "size", "params");
  line("tokens x", tokens, 0);

  // 1. Position: each token feels its eight neighbours.
  const Tensor pos = depthwise_conv2d(tokens, block.pos->weight, block.pos->bias);  // (B,H,W,C)
  Tensor x = tokens + pos;
  line("|-- pos: convolution 3 x 3 --+", pos, count(*block.pos));

  // 2. Queries, keys and values of the normalised tokens; q and k are turned by their place in the
  // raster, so that their products know how far apart two tokens are.
  Attention& a = *block.retention;
  const Tensor n = block.retention_layer_norm.forward(x);                // (B,H,W,C)
  const Tensor q = rotary(a.q_proj.forward(n), positions.angle, heads),  // (B,H,W,C)
      k = rotary(a.k_proj.forward(n), positions.angle, heads, 1 / std::sqrt(8.0)),
               v = a.v_proj.forward(n);
  line("|-- norm", n, count(block.retention_layer_norm));
  line("|   |-- q: linear, rotary", q, count(a.q_proj));
  line("|   |-- k: linear, rotary, / sqrt(d)", k, count(a.k_proj));
  line("|   |-- v: linear", v, count(a.v_proj));

  // 3. What each step to the right (alpha) and down (beta) costs, from the same normalised tokens.
  const Tensor decays = a.path_embed->forward(n);  // (2,B,G,H,W), logarithms
  line("|   |-- decays", exp(decays), count(*a.path_embed));

  // 4. Attention under both polyline paths, a local term on the values, the output projection.
  const Tensor y = whole_attention(q, k, v, heads, decays);  // (B,H,W,C)
  const Tensor lepe = depthwise_conv2d(v, a.lepe->weight, a.lepe->bias),
               attended = a.out_proj.forward(y + lepe);
  x = x + attended;
  line("|   |-- attention (q, k, v, decays)", y, 0);
  line("|   |-- lepe: v, convolution 5 x 5", lepe, count(*a.lepe));
  line("|   +-- out: their sum, linear --+", attended, count(a.out_proj));

  // 5. The feed-forward network, itself with a look at the neighbours.
  FeedForward& f = block.ffn;
  const Tensor h = gelu(f.fc1.forward(block.final_layer_norm.forward(x)));  // (B,H,W,F)
  const Tensor local = depthwise_conv2d(h, f.dwconv->weight, f.dwconv->bias),
               fed = f.fc2.forward(h + local);
  x = x + fed;
  line("|-- norm, linear, gelu", h, count(block.final_layer_norm, f.fc1));
  line("|   |-- convolution 3 x 3", local, count(*f.dwconv));
  line("|   +-- their sum, linear --+", fed, count(f.fc2));
  line("x", x, 0);

  Context evaluation;
  expect(largest_difference(x, block.forward(tokens, positions, evaluation)) < 1e-12,
         "step by step equals the block");
  expect(count(*a.path_embed) == 2 * d + 2 * heads, "the mask costs 2 d + 2 G parameters");
  std::printf("%lld parameters\n", static_cast<long long>(counted));
  expect(counted == count(block), "no parameter is left out");
  return failures;
}

// Exercises (solutions/13_18.cpp):
//   1. Which weights must be 0 for the block to return its tokens unchanged? Check it.
//   2. Let b = -40 for every head. What has become of the mask?
