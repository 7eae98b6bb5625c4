#pragma once
#include "ppma/core/names_begin.hpp"
// What a pass holds in tensors at most, planned without running it: which results are alive while
// each operation runs.
//
//   inference  of a prepared network (models/fold.hpp). A result dies when its last reader is done.
//              So what is alive at most belongs to one place of one block: the middle of the
//              feed-forward layer or the end of the attention. Where threads take image by image
//              (nn/image_by_image.hpp), each holds that.
//   training   Forward, an operation leaves what its backward reads, unless that is computed again
//              (tensor/saved.hpp). Backward, from the last operation to the first, each gives that
//              back and leaves the gradients of its parameters:
//
//                most = max over operations of ( kept by it and those before it
//                                              + gradients of those after it
//                                              + what it holds while it runs backward )
//
// Counted in elements. Of a kernel's own room only the large counts: that of the gradient of a
// convolution's weights, and what an attention's threads copy in inference; as with registers of 8
// floats (avx2). Wider ones are filled up in narrow layers: networks of 1 MB hold 5 % more there.
// Legend: B batch, N tokens of a stage, C its channels, G heads, F hidden channels;
// tokens = B N C, hidden = B N F.

#include "ppma/models/config.hpp"

namespace ppma::inline PPMA_ABI {

/// Bytes in tensors, in f32 on the CPU.
struct MemoryPlan {
  i64 weights = 0;  // in training with AdamW's means
  i64 images = 0;
  i64 tables = 0;  // that the rotary embeddings keep from the first pass on
  i64 most = 0;    // at once, of what comes and goes

  /// All of it.
  i64 bytes() const { return weights + images + tables + most; }
};

/// Whether a network's memory is planned: one whose attention holds no N x N arrays, and no copies
/// of its tokens in another order, as those with sequence masks (cross scan, Hilbert), and that has
/// no other mixer.
PPMA_API bool has_memory_plan(const PpmaConfig& c);

/// A pass of the prepared classifier on images (batch,3,height,width), by as many threads as there
/// are: at most, since not all need be where they hold most at the same time.
PPMA_API MemoryPlan plan_inference(const PpmaConfig& c, i64 batch, i64 height, i64 width);

/// Forward, backward and AdamW's step on such images, without checkpoints.
PPMA_API MemoryPlan plan_training_step(const PpmaConfig& c, i64 batch, i64 height, i64 width);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include <algorithm>
#include <utility>
#include <vector>

#include "ppma/core/error.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/nn/image_by_image.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// One operation of a training step.
struct PlannedOp {
  i64 kept;        // from its forward pass to its turn in backward
  i64 parameters;  // whose gradients are there from its turn on
  i64 running;     // beside both, backward: gradients that flow, inputs computed again
};

// A grid that convolutions of stride 2 halve.
struct PlannedGrid {
  i64 batch, height, width;

  void halve() { height = (height + 1) / 2, width = (width + 1) / 2; }
  i64 pixels() const { return batch * height * width; }
};

// A 3x3 convolution's result (B,H,W,out) and what the gradient of its weights takes: the tiles
// of Winograd's filtering (kernels/cpu/winograd.hpp), or partial sums (kernels/cpu/conv.hpp), as
// many as have 2^18 elements together, each of a quarter image or more.
struct PlannedConv {
  i64 result, parameters, room;

  PlannedConv(const PlannedGrid& to, i64 in, i64 out, i64 stride)
      : result(to.pixels() * out), parameters(9 * in * out + out) {
    if (stride == 1 && in >= 32 && out >= 32 && to.height * to.width >= 256) {
      const i64 tiles = to.batch * ((to.height + 1) / 2) * ((to.width + 1) / 2);
      room = 16 * (std::min(tiles, (i64{1} << 18) / (in + out)) * (in + out) + in * out);
      return;
    }
    const i64 one = 9 * in * ((out + 15) / 16 * 16), rows = (to.height + 3) / 4,
              quarters = to.batch * ((to.height + rows - 1) / rows);
    room = std::clamp<i64>((i64{1} << 18) / one, 1, std::min<i64>(16, quarters)) * one;
  }
};

struct PlannedStage {
  i64 channels, heads, hidden;  // channels of a token
  i64 tokens, middle, decays;   // elements of a batch: (B,N,C), (B,N,F), log decays
  i64 image_tokens, width;      // N of one image, columns of its grid
  bool criss_cross, linear;

  PlannedStage(const PpmaConfig& c, std::size_t s, const PlannedGrid& grid)
      : channels(c.embed_dims[s]),
        heads(c.num_heads[s]),
        hidden(static_cast<i64>(c.mlp_ratios[s] * static_cast<double>(channels))),
        tokens(grid.pixels() * channels),
        middle(grid.pixels() * hidden),
        decays(c.mask == MaskKind::none && !c.linear[s]
                   ? 0
                   : grid.pixels() * heads * (mask_of(c.mask).decays == 2 ? 2 : 1)),
        image_tokens(grid.height * grid.width),
        width(grid.width),
        criss_cross(c.chunkwise_recurrents[s]),
        linear(c.linear[s]) {}

  // Elements that each thread of the attention copies: its head, and scores of a block of columns
  // (whole) or of all rows, while these are few (criss-cross), beside those of a line.
  i64 copied() const {
    const i64 d = channels / heads, rows = image_tokens * width <= (i64{1} << 19) ? width : 0;
    if (criss_cross && !linear)
      return image_tokens * (5 * d + 1 + rows) + width * (4 * d + 2 * width) +
             2 * d * image_tokens / width;
    return image_tokens * (linear ? 4 * d + 2 : 2 * d + 17);
  }
  // The same backward; a softmax attention's is less than the feed-forward layer holds.
  i64 copied_backward() const { return linear ? image_tokens * (5 * channels / heads + 3) : 0; }
};

// f(s, stage, grid) for each stage: the stem halves the grid twice, each merging once.
template <class F>
void for_planned_stages(const PpmaConfig& c, PlannedGrid grid, F f) {
  grid.halve();
  for (std::size_t s = 0; s < 4; ++s) {
    grid.halve();
    f(s, PlannedStage(c, s, grid), grid);
  }
}

// Elements at most at once in a pass of inference by so many threads.
inline i64 most_of_inference(const PpmaConfig& c, const PlannedGrid& images, i64 workers) {
  i64 most = 0, stages = 0;  // the stages' results stay to the end
  const auto alive = [&](i64 elements) { most = std::max(most, stages + elements); };
  PlannedGrid half = images;
  half.halve();
  const i64 first = half.pixels() * (c.embed_dims[0] / 2);  // of the stem's convolutions
  alive(3 * images.pixels() + first), alive(2 * first);
  for_planned_stages(c, images, [&](std::size_t s, const PlannedStage& a, const PlannedGrid&) {
    alive(a.tokens + (s == 0 ? first : 0));
    if (c.depths[s] > 0) {
      alive(6 * a.tokens);  // x, LN x, q and k as they are and turned
      alive(5 * a.tokens + a.decays + workers * a.copied());  // x, q, k, v, attention
      // and + local, projected
      alive((c.lepe ? 7 : 6) * a.tokens + a.decays);
      // x, fc1, its GELU, what fc2 reads; without a convolution fc2 reads the GELU
      if (c.depthwise) alive(a.tokens + 3 * a.middle);
      alive(2 * a.tokens + 2 * a.middle);
    }
    stages += a.tokens;
    if (s == 3) alive(2 * a.tokens / a.channels * c.projection);
  });
  return most;
}

// The operations of a block; `again`: its input is not kept but computed again.
inline void plan_block(const PpmaConfig& c, std::size_t s, const PlannedStage& a, bool again,
                       std::vector<PlannedOp>& ops) {
  const bool layer_scale = c.layerscales[s];
  const i64 decay_rows = mask_of(c.mask).decays;
  const i64 t = a.tokens, m = a.middle, C = a.channels, F = a.hidden, statistics = 2 * t / C,
            scaled = layer_scale ? t : 0, gamma = layer_scale ? C : 0, d = C / a.heads,
            path_embed = decay_rows > 0 ? decay_rows * d + 2 * a.heads : 0;
  // A branch's gradient, where it is not that of the sum.
  const i64 branch = layer_scale || c.drop_path_rate > 0 ? t : 0;
  if (c.depthwise) ops.push_back({again ? 0 : t, 10 * C, (again ? 3 : 2) * t});  // pos
  ops.push_back({t + statistics, 2 * C, 2 * t});                                 // norm
  ops.push_back({0, 3 * (C * C + C), 6 * t});                                    // q, k, v
  if (a.linear) ops.push_back({2 * t, 0, 6 * t});                                // softplus
  ops.push_back({3 * t + a.decays, path_embed,
                 6 * t + 2 * a.decays + threads() * a.copied_backward()});  // attention
  if (a.linear) ops.push_back({t + 2 * t / d, 2 * d, 3 * t});               // its norm
  if (c.lepe) ops.push_back({0, 26 * C, 3 * t});                            // local term
  ops.push_back({t + scaled, C * C + C + gamma, 3 * t});                    // out_proj, residual
  ops.push_back({t + statistics, 2 * C, 2 * t});                            // norm
  ops.push_back({0, C * F + F, 3 * t + m});                                 // fc1
  if (c.depthwise) {
    ops.push_back({m, 10 * F, t + branch + 3 * m});  // GELU and depthwise: dy, GELU again, dx
    ops.push_back({m + scaled, F * C + C + gamma, 2 * t + m});  // fc2, residual
  } else {
    ops.push_back({m, 0, t + branch + 3 * m});                  // GELU: dy, what fc2 made again, dx
    ops.push_back({scaled, F * C + C + gamma, 2 * t + 2 * m});  // fc2, residual
  }
}

inline std::vector<PlannedOp> plan_training(const PpmaConfig& c, const PlannedGrid& images) {
  std::vector<PlannedOp> ops;
  // A convolution and the norm behind it; `again`: its input is not kept but computed again.
  const auto conv = [&](i64 input, bool again, const PlannedConv& l, i64 channels) {
    ops.push_back({again ? 0 : input, l.parameters, (again ? 2 : 1) * input + l.result + l.room});
    ops.push_back({l.result, 2 * channels, 2 * l.result});
    return l.result;
  };
  PlannedGrid half = images;
  half.halve();
  const i64 stem = c.embed_dims[0], stem_half = stem / 2;
  i64 x = conv(3 * images.pixels(), false, PlannedConv(half, 3, stem_half, 2), stem_half);
  x = conv(x, true, PlannedConv(half, stem_half, stem_half, 1), stem_half);
  for_planned_stages(c, images, [&](std::size_t s, const PlannedStage& a, const PlannedGrid& grid) {
    bool again = true;  // the result of a norm
    if (s == 0) {
      x = conv(x, true, PlannedConv(grid, stem_half, stem, 2), stem);
      conv(x, true, PlannedConv(grid, stem, stem, 1), stem);
    }
    for (i64 n = 0; n < c.depths[s]; ++n, again = false) plan_block(c, s, a, again, ops);
    if (s == 3) {
      const i64 projected = a.tokens / a.channels * c.projection;
      ops.push_back({again ? 0 : a.tokens, a.channels * c.projection + c.projection,
                     2 * a.tokens + projected});
      ops.push_back({projected, 2 * c.projection, 3 * projected});  // norm, swish, mean
      ops.push_back({images.batch * c.projection, (c.projection + 1) * c.num_classes, 0});
      return;
    }
    PlannedGrid next = grid;
    next.halve();
    const i64 out = c.embed_dims[s + 1];
    conv(a.tokens, again, PlannedConv(next, a.channels, out, 2), out);
  });
  return ops;
}

// Elements of cosines and sines that the rotary embeddings keep.
inline i64 rotary_elements(const PpmaConfig& c, const PlannedGrid& images) {
  i64 elements = 0;
  if (!c.rotary) return elements;
  for_planned_stages(c, images, [&](std::size_t s, const PlannedStage& a, const PlannedGrid& grid) {
    if (c.depths[s] > 0) elements += 2 * grid.height * grid.width * (a.channels / a.heads);
  });
  return elements;
}

inline PlannedGrid planned_images(const PpmaConfig& c, i64 batch, i64 height, i64 width) {
  check(c.all_polyline(), "memory plan: ", c.name,
        " has token mixers beside polyline attention, whose memory is not planned");
  check(
      has_memory_plan(c), "memory plan: ", c.name, " with mask ", to_string(c.mask),
      " computes attention with N x N arrays or in another order of tokens, which is not planned");
  check(batch > 0 && height >= 32 && width >= 32,
        "memory plan: needs a batch and images of at least 32 x 32, got ", batch, ", ", height,
        " x ", width);
  return {batch, height, width};
}

// `copies` of every weight, and what else is there.
inline MemoryPlan planned_bytes(const PpmaConfig& c, const PlannedGrid& images,
                                const std::vector<PlannedOp>& ops, i64 copies, i64 most) {
  i64 weights = 0;
  for (const PlannedOp& op : ops) weights += op.parameters;
  const i64 size = sizeof(float);
  return {copies * weights * size, 3 * images.pixels() * size, rotary_elements(c, images) * size,
          most * size};
}

}  // namespace detail

bool has_memory_plan(const PpmaConfig& c) {
  if (!c.all_polyline()) return false;
  const Mask& mask = mask_of(c.mask);
  for (std::size_t s = 0; s < 4; ++s) {
    const bool lines = c.mask == MaskKind::none || mask.polyline_lines;
    if (c.depths[s] > 0 &&
        (!c.fused || !(c.chunkwise_recurrents[s] ? lines : mask.paths.has_value())))
      return false;
  }
  return true;
}

MemoryPlan plan_inference(const PpmaConfig& c, i64 batch, i64 height, i64 width) {
  const detail::PlannedGrid images = detail::planned_images(c, batch, height, width);
  const ImageParts parts = parts_of_batch(batch, height, width);
  const i64 most = batch > 1 && parts.count > 0
                       ? threads() * detail::most_of_inference(c, {parts.images, height, width}, 1)
                       : detail::most_of_inference(c, images, threads());
  return detail::planned_bytes(c, images, detail::plan_training(c, images), 1, most);
}

MemoryPlan plan_training_step(const PpmaConfig& c, i64 batch, i64 height, i64 width) {
  const detail::PlannedGrid images = detail::planned_images(c, batch, height, width);
  const std::vector<detail::PlannedOp> ops = detail::plan_training(c, images);
  i64 kept = 0, gradients = 0, most = 0;
  for (const detail::PlannedOp& op : ops) kept += op.kept;
  for (auto op = ops.rbegin(); op != ops.rend(); ++op) {
    gradients += op->parameters;
    most = std::max(most, kept + gradients + op->running);
    kept -= op->kept;
  }
  return detail::planned_bytes(c, images, ops, 3, most);  // a weight, its mean and mean square
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
