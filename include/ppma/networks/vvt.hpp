#pragma once
#include "ppma/core/names_begin.hpp"
// Sun et al., "Vicinity Vision Transformer", 2022.
//
//   x = x + attention(LN(x));  x = x + W2 GELU(DWConv3x3(W1 LN(x)))
//
// The attention is linear and falls with the Manhattan distance (mixers/vicinity.hpp), with half of
// the channels in q, k and v, and what the mean of x says in every result. W1 is C -> 8 C in the
// first two stages, C -> 4 C in the others. Before each stage a convolution, 7x7 with stride 4,
// then 3x3 with stride 2, and a layer norm; another behind it. Head: mean, linear.
//
// Names, and what the paper leaves open, are those of the authors' checkpoint of VVT-tiny:
//   - the mean of the tokens is not squeezed: C -> C -> C, without biases;
//   - the products k^T v, one over the normaliser, q (k^T v), both together, and the result before
//     and after the mean speaks, are held between 1e-4 and 1e4 in magnitude, signs as they are.

#include <cstddef>
#include <vector>

#include "ppma/networks/parts.hpp"

namespace ppma::inline PPMA_ABI {

struct VvtAttention {
  i64 heads;
  Linear k_proj, v_proj, q_proj;  // C -> C / 2
  Linear out_proj;                // C / 2 -> C
  Linear squeeze, excite;         // C -> C, without biases

  PPMA_API VvtAttention(i64 channels, i64 heads_, Rng& rng);
  /// x (B,H,W,C), normalised -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  template <class V>
  void fields(V& v) {
    v.child("k_proj", k_proj), v.child("v_proj", v_proj), v.child("q_proj", q_proj);
    v.child("out_proj", out_proj), v.child("se_fc.0", squeeze), v.child("se_fc.2", excite);
  }
};

struct VvtBlock {
  LayerNorm norm1;
  VvtAttention attn;
  LayerNorm norm2;
  Linear fc1;
  Depthwise dwconv;  // 3x3
  Linear fc2;
  double drop_path;

  PPMA_API VvtBlock(i64 channels, i64 heads, i64 ratio, double drop, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(Tensor x, Context& ctx) const;
  /// Its rows of a summary for x.
  PPMA_API void describe(detail::LayerRows& w, const Shape& x);
  template <class V>
  void fields(V& v) {
    v.child("norm1", norm1), v.child("attn", attn), v.child("norm2", norm2);
    v.child("mlp.fc1", fc1), v.child("mlp.dwconv.dwconv", dwconv), v.child("mlp.fc2", fc2);
  }
};

struct Vvt {
  struct Stage {
    Conv2d proj;
    LayerNorm embed_norm;
    std::vector<VvtBlock> blocks;
    LayerNorm norm;
  };
  std::vector<Stage> stages;  // four
  Linear head;

  /// Error: heads that do not divide half of the channels, or none.
  PPMA_API Vvt(const NetworkConfig& c, Rng& rng);
  /// (B,H,W,3) -> logits (B,classes)
  PPMA_API Tensor forward(const Tensor& images, Context& ctx) const;
  /// Its rows of a summary for images (B,H,W,3).
  PPMA_API void describe(detail::LayerRows& w, const Shape& images);
  /// vvt_tiny, small, medium; vvt_nano.
  PPMA_API static std::vector<NetworkConfig> configs();
  template <class V>
  void fields(V& v) {
    for (std::size_t s = 0; s < stages.size(); ++s) {
      v.child(str("patch_embed", s + 1, ".proj").c_str(), stages[s].proj);
      v.child(str("patch_embed", s + 1, ".norm").c_str(), stages[s].embed_norm);
      v.children(str("block", s + 1).c_str(), stages[s].blocks);
      v.child(str("norm", s + 1).c_str(), stages[s].norm);
    }
    v.child("head", head);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

#include "ppma/mixers/vicinity.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/residual.hpp"

namespace ppma::inline PPMA_ABI {

VvtAttention::VvtAttention(i64 channels, i64 heads_, Rng& rng)
    : heads(heads_),
      k_proj(channels, channels / 2, rng),
      v_proj(channels, channels / 2, rng),
      q_proj(channels, channels / 2, rng),
      out_proj(channels / 2, channels, rng),
      squeeze(channels, channels, rng, false),
      excite(channels, channels, rng, false) {}

Tensor VvtAttention::forward(const Tensor& x) const {
  const i64 batch = x.dim(0), n = x.dim(1) * x.dim(2), width = x.dim(3) / 2;
  const auto held = [](const Tensor& t) { return clamp_magnitude(t, 1e-4, 1e4); };
  const Tensor turns = detail::quarter_turns(x.dim(1), x.dim(2), x.dtype(), x.device());
  const auto by_head = [&](const Linear& l) {  // (B,G,N,d)
    return permute(reshape(l.forward(x), Shape{batch, n, heads, width / heads}), {0, 2, 1, 3});
  };
  const Tensor q = detail::turned(relu(by_head(q_proj)), turns),
               k = detail::turned(relu(by_head(k_proj)), turns);      // (B,G,N,4d)
  const Tensor sums = held(matmul(k, by_head(v_proj), true, false));  // (B,G,4d,d)
  const Tensor weights = matmul(q, sum(k, {2}, true), false, true);   // (B,G,N,1)
  const Tensor shares = held(pow(add_scalar(weights, 1e-4), -1));
  const Tensor y = permute(held(held(matmul(q, sums)) * shares), {0, 2, 1, 3});
  const Tensor mixed = reshape(y, Shape{batch, x.dim(1), x.dim(2), width});
  const Tensor z = held(out_proj.forward(mixed));
  return held(z + z * sigmoid(excite.forward(relu(squeeze.forward(mean(x, {1, 2}, true))))));
}

VvtBlock::VvtBlock(i64 channels, i64 heads, i64 ratio, double drop, Rng& rng)
    : norm1(channels, 1e-6),
      attn(channels, heads, rng),
      norm2(channels, 1e-6),
      fc1(channels, ratio * channels, rng),
      dwconv(ratio * channels, 3, rng),
      fc2(ratio * channels, channels, rng),
      drop_path(drop) {}

Tensor VvtBlock::forward(Tensor x, Context& ctx) const {
  x = residual(x, attn.forward(norm1.forward(x)), Tensor(), ctx.drop_path(x, drop_path));
  return residual(x, fc2.forward(gelu(dwconv.forward(fc1.forward(norm2.forward(x))))), Tensor(),
                  ctx.drop_path(x, drop_path));
}

std::vector<NetworkConfig> Vvt::configs() {
  const std::vector<i64> dims{96, 160, 320, 512}, heads{1, 2, 5, 8};
  return {{"vvt_tiny", "vvt", {2, 2, 2, 2}, dims, heads, 1000, 0.1},
          {"vvt_small", "vvt", {3, 3, 9, 3}, dims, heads, 1000, 0.3},
          {"vvt_medium", "vvt", {3, 3, 27, 3}, dims, heads, 1000, 0.3},
          {"vvt_nano", "vvt", {1, 1, 2, 1}, {16, 32, 48, 64}, {1, 2, 3, 4}, 10, 0.05}};
}

Vvt::Vvt(const NetworkConfig& c, Rng& rng) : head(c.dims[3], c.num_classes, rng) {
  check(c.heads.size() == 4, "vvt: `heads` must name those of the four stages' attentions");
  i64 block = 0;
  for (std::size_t s = 0; s < 4; ++s) {
    const i64 dim = c.dims[s], kernel = s == 0 ? 7 : 3;
    check(dim % (2 * c.heads[s]) == 0, "vvt: half of the ", dim, " channels of stage ", s,
          " does not divide into ", c.heads[s], " heads");
    stages.push_back({Conv2d(s == 0 ? 3 : c.dims[s - 1], dim, kernel,
                             ConvOptions{s == 0 ? 4 : 2, kernel / 2, 1}, rng),
                      LayerNorm(dim),
                      {},
                      LayerNorm(dim, 1e-6)});
    for (i64 n = 0; n < c.depths[s]; ++n)
      stages[s].blocks.emplace_back(dim, c.heads[s], s < 2 ? 8 : 4,
                                    detail::drop_path_of(c, block++), rng);
  }
}

Tensor Vvt::forward(const Tensor& images, Context& ctx) const {
  Tensor x = images;
  for (std::size_t s = 0; s < 4; ++s) {
    x = stages[s].embed_norm.forward(stages[s].proj.forward(x));
    x = detail::through_blocks(stages[s].blocks, str("block", s + 1), std::move(x), ctx);
    x = stages[s].norm.forward(x);
  }
  return head.forward(mean(x, {1, 2}));
}

void VvtBlock::describe(detail::LayerRows& w, const Shape& x) {
  const i64 tokens = x[0] * x[1] * x[2], width = x[3] / 2, d = width / attn.heads;
  const Shape half{x[0], x[1], x[2], width}, pooled{x[0], x[3]};
  w.norm("norm1", norm1, x);
  w.within("attn", [&] {
    w.linear("k_proj", attn.k_proj, x), w.linear("v_proj", attn.v_proj, x);
    w.linear("q_proj", attn.q_proj, x);
    // k^T v, q (k^T v), q . sum of k; relus, turns, sums, limits and shares
    w.row("attention", half, 0, tokens * 4 * width * (2 * d + 1),
          tokens * (2 * width + 12 * width + 3 * width + 3 * attn.heads));
    w.linear("out_proj", attn.out_proj, half);
    w.row("pool", pooled, 0, 0, x.numel());
    w.linear("se_fc.0", attn.squeeze, pooled), w.linear("se_fc.2", attn.excite, pooled);
    w.elementwise("excite", x, 4);  // two limits, a product, a sum
  });
  w.elementwise("residual_1", x, 1), w.norm("norm2", norm2, x);
  w.within("mlp", [&] {
    const Shape h = w.depthwise("dwconv", dwconv, w.linear("fc1", fc1, x));
    w.linear("fc2", fc2, w.elementwise("gelu", h, detail::gelu_ops));
  });
  w.elementwise("residual_2", x, 1);
}

void Vvt::describe(detail::LayerRows& w, const Shape& images) {
  Shape x = images;
  for (std::size_t s = 0; s < 4; ++s) {
    w.within(str("patch_embed", s + 1),
             [&] { x = w.norm("norm", stages[s].embed_norm, w.conv("proj", stages[s].proj, x)); });
    for (std::size_t n = 0; n < stages[s].blocks.size(); ++n)
      w.within(str("block", s + 1, ".", n), [&] { stages[s].blocks[n].describe(w, x); });
    w.norm(str("norm", s + 1), stages[s].norm, x);
  }
  const Shape pooled{x[0], x[3]};
  w.row("pool", pooled, 0, 0, x.numel()), w.linear("head", head, pooled);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
