#pragma once
#include "ppma/core/names_begin.hpp"
// A detector's choices on the GPU, where its tensors are: its best anchors and the best boxes of
// its regions, the cells of regions on their level, what anchors are to learn, and from which
// regions. What comes of a choice is f32 (B,N,6): a box x1 y1 x2 y2, its score, and the number of
// its group, a level or a class; -1 behind an image's last box, -2 where a score was not a number.
// Legend: B images, A ratios, K classes, N boxes.

#include <vector>

#include "ppma/core/random.hpp"
#include "ppma/kernels/box_choice.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI::detail {

/// How many are looked at and kept.
struct BoxChoice {
  i64 candidates = 0;    // of a group, before suppression
  double threshold = 0;  // a box goes that a better one of its group overlaps by more
  i64 most = 0;          // an image
};

/// (B,most,6) of each level's logits (B,H,W,A) and deltas (B,H,W,4A): sigmoids of the logits, boxes
/// clipped to the images and not empty. sizes f32 (B,4): width, height, ... Errors: tensors that
/// are not on the GPU.
PPMA_API Tensor best_anchors(const std::vector<Tensor>& scores, const std::vector<Tensor>& deltas,
                             const kernels::AnchorGrid& grid, const kernels::BoxDecoder& decoder,
                             const Tensor& sizes, const BoxChoice& choice);

/// (B,most,6) of regions (B,N,6) with probabilities f32 (B N,K+1), background last, above `least`
/// and deltas (B N,4K): boxes clipped to the images, then divided by how much these were scaled.
/// sizes f32 (B,4): width, height, scale x, scale y. Errors: tensors that are not on the GPU.
PPMA_API Tensor best_of_classes(const Tensor& regions, const Tensor& scores, const Tensor& deltas,
                                const kernels::BoxDecoder& decoder, double least,
                                const Tensor& sizes, const BoxChoice& choice);

/// Cells (B N,size,size,C) of boxes f32 (B,N,6) from four levels (..,H,W,C) at strides 4 to 32:
/// those of images first_image, first_image + 1 ..., each box on the level of its side, as
/// roi_level() says. No cell of a box without area is other than 0. Not differentiable. Errors:
/// tensors that are not on the GPU.
PPMA_API Tensor cells_of_regions(const std::vector<Tensor>& levels, const Tensor& boxes,
                                 i64 first_image, i64 size, double finest);

/// What the anchors of a level are to learn, and with what weight: f32, of its logits (B,H,W,A) and
/// of its deltas (B,H,W,4A).
struct LevelTargets {
  Tensor label, chosen, delta, positive;
};

struct AnchorTargets {
  std::vector<LevelTargets> levels;
  Tensor samples;  // f32 (B): how many anchors are chosen
};

/// Targets of a batch's anchors, as assign() and sample() choose them with rng.fork(first_image +
/// the image's number). boxes f32 (B,T,4): truths; sizes int64 (B,3): padded width and height, and
/// how many truths the image has. Errors: tensors that are not on the GPU.
PPMA_API AnchorTargets anchor_targets(const kernels::AnchorGrid& grid, const Tensor& boxes,
                                      const Tensor& sizes, const kernels::AnchorRules& rules,
                                      const kernels::BoxDecoder& coder, const Rng& rng,
                                      u64 first_image);

/// f32 (B,S,6), S = rules.count: the regions of truths and proposals f32 (B,N,6) that sample_rois()
/// chooses with rng.fork(first_image + the image's number), in its order: a box, the number of its
/// truth or -1, and 0; -1 there behind an image's last, -2 in its first row where a score was not a
/// number. boxes and sizes as for anchor_targets(). Errors: tensors that are not on the GPU.
PPMA_API Tensor drawn_regions(const Tensor& proposals, const Tensor& boxes, const Tensor& sizes,
                              const kernels::AnchorRules& rules, const Rng& rng, u64 first_image);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_IMAGES)

#include <cmath>

#include "ppma/tensor/autograd.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cuda/anchor_targets.cuh"
#include "ppma/kernels/cuda/box_candidates.cuh"
#include "ppma/kernels/cuda/drawn_regions.cuh"
#include "ppma/kernels/cuda/roi_align.cuh"
#endif

namespace ppma::inline PPMA_ABI::detail {

inline void require_gpu(const Tensor& x) {
  check(x.defined() && x.device() == Device::cuda,
        "detector: boxes are chosen here on the GPU; on the CPU nms() does it");
}

// Rounded down: as many floats lie above it as above the threshold.
inline float float_limit(double threshold) {
  const float limit = static_cast<float>(threshold);
  return static_cast<double>(limit) > threshold ? std::nextafter(limit, -1.0f) : limit;
}

Tensor best_anchors(const std::vector<Tensor>& scores, const std::vector<Tensor>& deltas,
                    [[maybe_unused]] const kernels::AnchorGrid& grid,
                    [[maybe_unused]] const kernels::BoxDecoder& decoder, const Tensor& sizes,
                    const BoxChoice& choice) {
  check(!scores.empty() && scores.size() == deltas.size(), "detector: there are no levels");
  for (const Tensor& t : scores) require_gpu(t);
  for (const Tensor& t : deltas) require_gpu(t);
  require_gpu(sizes);
  Tensor best = Tensor::empty({sizes.dim(0), choice.most, 6}, DType::f32, Device::cuda);
#if PPMA_CUDA
  visit(Device::cuda, scores[0].dtype(), "detector", [&](auto on, auto t) {
    using T = decltype(t);
    if constexpr (decltype(on)::device == Device::cuda) {
      std::vector<const T*> of_scores, of_deltas;
      for (std::size_t l = 0; l < scores.size(); ++l)
        of_scores.push_back(scores[l].data<T>()), of_deltas.push_back(deltas[l].data<T>());
      kernels::best_anchors<T>(on, grid, decoder, sizes.dim(0), choice.candidates,
                               float_limit(choice.threshold), choice.most, of_scores.data(),
                               of_deltas.data(), sizes.data<float>(), best.data<float>());
    }
  });
#endif
  return best;
}

Tensor best_of_classes(const Tensor& regions, const Tensor& scores, const Tensor& deltas,
                       [[maybe_unused]] const kernels::BoxDecoder& decoder,
                       [[maybe_unused]] double least, const Tensor& sizes,
                       const BoxChoice& choice) {
  for (const Tensor& t : {regions, scores, deltas, sizes}) require_gpu(t);
  Tensor best = Tensor::empty({sizes.dim(0), choice.most, 6}, DType::f32, Device::cuda);
#if PPMA_CUDA
  visit(Device::cuda, deltas.dtype(), "detector", [&](auto on, auto t) {
    using T = decltype(t);
    if constexpr (decltype(on)::device == Device::cuda)
      kernels::best_of_classes<T>(on, decoder, sizes.dim(0), regions.dim(1), scores.dim(1) - 1,
                                  least, float_limit(choice.threshold), choice.most,
                                  regions.data<float>(), scores.data<float>(), deltas.data<T>(),
                                  sizes.data<float>(), best.data<float>());
  });
#endif
  return best;
}

Tensor cells_of_regions(const std::vector<Tensor>& levels, const Tensor& boxes,
                        [[maybe_unused]] i64 first_image, i64 size,
                        [[maybe_unused]] double finest) {
  check(levels.size() >= 4, "detector: needs four levels, got ", levels.size());
  for (const Tensor& t : levels) require_gpu(t);
  require_gpu(boxes);
  Tensor y = Tensor::empty({boxes.dim(0) * boxes.dim(1), size, size, levels[0].dim(3)},
                           levels[0].dtype(), Device::cuda);
#if PPMA_CUDA
  visit(Device::cuda, y.dtype(), "detector", [&](auto on, auto t) {
    using T = decltype(t);
    if constexpr (decltype(on)::device == Device::cuda) {
      kernels::RoiLevels<T> maps{};
      for (std::size_t l = 0; l < 4; ++l)
        maps.x[l] = levels[l].data<T>(), maps.height[l] = levels[l].dim(1),
        maps.width[l] = levels[l].dim(2);
      kernels::roi_align_levels(on, maps, levels[0].dim(3), first_image, boxes.dim(0), boxes.dim(1),
                                size, finest, boxes.data<float>(), y.data<T>());
    }
  });
#endif
  return y;
}

#if PPMA_CUDA
inline kernels::AnchorTruths truths_of(const Tensor& boxes, const Tensor& sizes) {
  return {sizes.dim(0), boxes.dim(1),
          reinterpret_cast<const kernels::Corners*>(boxes.data<float>()), sizes.data<i64>()};
}
#endif

AnchorTargets anchor_targets(const kernels::AnchorGrid& grid, const Tensor& boxes,
                             const Tensor& sizes,
                             [[maybe_unused]] const kernels::AnchorRules& rules,
                             [[maybe_unused]] const kernels::BoxDecoder& coder,
                             [[maybe_unused]] const Rng& rng, [[maybe_unused]] u64 first_image) {
  require_gpu(boxes), require_gpu(sizes);
  const i64 images = sizes.dim(0);
  const auto floats = [](i64 n) { return Tensor::empty({n}, DType::f32, Device::cuda); };
  AnchorTargets t;
  for (int l = 0; l < grid.levels; ++l) {
    const i64 n = images * grid.count(l);
    t.levels.push_back({floats(n), floats(n), floats(4 * n), floats(4 * n)});
  }
  t.samples = floats(images);
#if PPMA_CUDA
  kernels::AnchorMaps maps{};
  for (std::size_t l = 0; l < t.levels.size(); ++l) {
    LevelTargets& of = t.levels[l];
    maps.level[l] = {of.label.data<float>(), of.chosen.data<float>(), of.delta.data<float>(),
                     of.positive.data<float>()};
  }
  kernels::anchor_targets(Cuda{}, grid, truths_of(boxes, sizes), rules, coder, rng, first_image,
                          maps, t.samples.data<float>());
#endif
  return t;
}

Tensor drawn_regions(const Tensor& proposals, const Tensor& boxes, const Tensor& sizes,
                     const kernels::AnchorRules& rules, [[maybe_unused]] const Rng& rng,
                     [[maybe_unused]] u64 first_image) {
  for (const Tensor& t : {proposals, boxes, sizes}) require_gpu(t);
  Tensor regions = Tensor::empty({sizes.dim(0), rules.count, 6}, DType::f32, Device::cuda);
#if PPMA_CUDA
  kernels::drawn_regions(Cuda{}, proposals.data<float>(), proposals.dim(1), truths_of(boxes, sizes),
                         rules, rng, first_image, regions.data<float>());
#endif
  return regions;
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
