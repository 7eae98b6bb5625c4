#pragma once
#include "ppma/core/names_begin.hpp"
// What a detector's anchors are to learn, on the GPU: assign(), sample() and encode() of heads/ for
// all anchors of a batch, to the same anchor.
//
// A truth's best overlap first (overlaps are not negative, so that their bits are in their order,
// and a maximum of integers finds it whoever comes first). Then every anchor's truth. Then a block
// an image draws the sample: the n least of its anchors' drawn numbers (select.cuh; three digits of
// eight are nearly always enough). Last, what was chosen is written into the maps of the levels.
// All but the last is the same of regions (drawn_regions.cuh).

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/core/cuda.cuh"
#include "ppma/kernels/box_choice.hpp"
#include "ppma/kernels/cuda/select.cuh"

namespace ppma::inline PPMA_ABI::kernels {

/// The truths of a batch, and which cells of its maps are an image and not its padding.
struct AnchorTruths {
  i64 images, most;      // the most truths of an image
  const Corners* boxes;  // (images, most)
  const i64* sizes;      // (images, 3): padded width and height, how many truths there are

  __device__ __forceinline__ i64 count(i64 image) const { return sizes[3 * image + 2]; }
};

/// A level's targets and weights: of its logits (images, anchors), of its deltas (.., 4).
struct LevelMaps {
  float *label, *chosen, *delta, *positive;
};
struct AnchorMaps {
  LevelMaps level[most_levels];
};

namespace detail {

inline constexpr int anchor_threads = 256;

struct PlacedBox {
  int level;
  i64 place;
  Corners box;
  bool inside;     // of its image: whether it may learn a truth that it overlaps
  int truth = -1;  // that it is itself
};
__device__ __forceinline__ PlacedBox placed_box(const AnchorGrid& grid, const AnchorTruths& t,
                                                i64 image, i64 k) {
  int level = 0;
  while (level + 1 < grid.levels && k >= grid.first[level + 1]) ++level;
  const i64 place = k - grid.first[level], cell = place / grid.ratios, width = grid.width[level];
  const i64 stride = grid.stride[level];
  return {
      level, place, anchor_of(grid, level, place),
      cell % width * stride < t.sizes[3 * image] && cell / width * stride < t.sizes[3 * image + 1]};
}

// best (images, most): each truth's greatest overlap with a box, as bits; zero before. Boxes: a
// grid of anchors, or RegionBoxes.
template <int threads, class Boxes>
__global__ void __launch_bounds__(threads)
    best_overlaps(Boxes boxes, AnchorTruths t, unsigned* best) {
  const i64 image = blockIdx.y, k = static_cast<i64>(blockIdx.x) * threads + threadIdx.x;
  const PlacedBox a = placed_box(boxes, t, image, k < boxes.all ? k : 0);
  for (i64 e = image * t.most; e < image * t.most + t.count(image); ++e) {
    const float o = a.inside && k < boxes.all ? overlap(a.box, t.boxes[e]) : 0.0f;
    const unsigned most = __reduce_max_sync(~0u, __float_as_uint(o));
    if (most > 0 && threadIdx.x % 32 == 0) atomicMax(best + e, most);
  }
}

// assigned (images, boxes): a truth's number, -1: background, -2: ignored.
template <int threads, class Boxes>
__global__ void __launch_bounds__(threads)
    assign_boxes(Boxes boxes, AnchorTruths t, AnchorRules rules, const unsigned* best,
                 int* assigned) {
  const i64 image = blockIdx.y, k = static_cast<i64>(blockIdx.x) * threads + threadIdx.x;
  if (k >= boxes.all) return;
  const PlacedBox a = placed_box(boxes, t, image, k);
  float own = 0;
  int mine = 0, low = -1;
  for (int n = 0; a.inside && n < t.count(image); ++n) {
    const float o = overlap(a.box, t.boxes[image * t.most + n]),
                most = __uint_as_float(best[image * t.most + n]);
    if (o > own) own = o, mine = n;
    if (rules.low_quality && most > 0 && static_cast<double>(most) >= rules.least_positive &&
        o >= most)
      low = n;
  }
  int result = -1;
  if (!a.inside || (t.count(image) > 0 && static_cast<double>(own) >= rules.negative)) result = -2;
  if (a.inside && t.count(image) > 0 && static_cast<double>(own) >= rules.positive) result = mine;
  if (low >= 0) result = low;
  assigned[image * boxes.all + k] = a.truth >= 0 ? a.truth : result;
}

__device__ __forceinline__ int kind_of(int assigned) { return assigned >= 0 ? 0 : assigned == -1; }

// Of the drawn numbers of the boxes of a kind (0: with a truth, 1: background) the n-th least.
template <int threads>
__device__ __forceinline__ u64 nth_drawn(const Rng& rng, i64 boxes, const int* assigned, int kind,
                                         i64 n, i64& taken) {
  const auto of_kind = [&](i64 k) {
    return k < boxes && assigned[k] != -2 && kind_of(assigned[k]) == kind;
  };
  return nth_least<threads>(n, taken, [&](auto&& f) {
    for (i64 k = 4 * static_cast<i64>(threadIdx.x); k < boxes; k += 4 * threads)
      for (i64 e = k; e < k + 4; ++e)  // four of one block of the stream
        if (of_kind(e)) f(drawn_number(rng, e));
  });
}

// limits (images, 2): up to which drawn number boxes of either kind are chosen. chosen (images).
template <int threads>
__global__ void __launch_bounds__(threads)
    draw_boxes(i64 boxes, AnchorRules rules, Rng rng, u64 first_image, const int* assigned,
               u64* limits, float* chosen) {
  const i64 image = blockIdx.x;
  const Rng own = rng.fork(first_image + static_cast<u64>(image));
  i64 with_truth = 0, background = 0;
  const u64 first =
      nth_drawn<threads>(own, boxes, assigned + image * boxes, 0, rules.positives, with_truth);
  const u64 second = nth_drawn<threads>(own, boxes, assigned + image * boxes, 1,
                                        rules.count - with_truth, background);
  if (threadIdx.x != 0) return;
  limits[2 * image] = first, limits[2 * image + 1] = second;
  chosen[image] = static_cast<float>(with_truth + background);
}

template <int threads>
__global__ void __launch_bounds__(threads)
    write_targets(AnchorGrid grid, AnchorTruths t, BoxDecoder coder, Rng rng, u64 first_image,
                  const int* assigned, const u64* limits, AnchorMaps maps) {
  const i64 image = blockIdx.y, k = static_cast<i64>(blockIdx.x) * threads + threadIdx.x;
  if (k >= grid.all) return;
  const PlacedBox a = placed_box(grid, t, image, k);
  const int mine = assigned[image * grid.all + k];
  const bool chosen = mine != -2 && drawn_number(rng.fork(first_image + static_cast<u64>(image)),
                                                 k) <= limits[2 * image + kind_of(mine)];
  const bool positive = chosen && mine >= 0;
  float4 delta{0, 0, 0, 0};
  if (positive) {  // encode() of heads/boxes.hpp
    const Corners &p = a.box, &g = t.boxes[image * t.most + mine];
    const float w = p.x2 - p.x1, h = p.y2 - p.y1;
    delta = {((g.x1 + g.x2) - (p.x1 + p.x2)) / 2 / w / coder.stds[0],
             ((g.y1 + g.y2) - (p.y1 + p.y2)) / 2 / h / coder.stds[1],
             ::logf((g.x2 - g.x1) / w) / coder.stds[2], ::logf((g.y2 - g.y1) / h) / coder.stds[3]};
  }
  const LevelMaps& to = maps.level[a.level];
  const i64 at = image * grid.count(a.level) + a.place;
  const float weight = positive ? 1.0f : 0.0f;
  to.chosen[at] = chosen ? 1.0f : 0.0f, to.label[at] = weight;
  reinterpret_cast<float4*>(to.delta)[at] = delta;
  reinterpret_cast<float4*>(to.positive)[at] = {weight, weight, weight, weight};
}

// Which boxes of a batch are learnt from: assigned (images, boxes.all), limits (images, 2), chosen
// (images) as above.
template <class Boxes>
void choose_boxes(const Boxes& boxes, const AnchorTruths& truths, const AnchorRules& rules,
                  const Rng& rng, u64 first_image, int* assigned, u64* limits, float* chosen) {
  constexpr int threads = anchor_threads, many = 1024;
  check(truths.images < 65536 && boxes.all < (i64{1} << 31), "detector: ", truths.images,
        " images of ", boxes.all, " boxes are too many for the GPU");
  const i64 all_truths = std::max<i64>(truths.images * truths.most, 1);
  const Workspace<unsigned> best(all_truths, Device::cuda);
  zero_bytes(best.data(), Device::cuda, all_truths * static_cast<i64>(sizeof(unsigned)));
  const dim3 blocks(static_cast<unsigned>((boxes.all + threads - 1) / threads),
                    static_cast<unsigned>(truths.images));
  const auto stream = cuda::stream();
  if (rules.low_quality)
    best_overlaps<threads><<<blocks, threads, 0, stream>>>(boxes, truths, best.data());
  assign_boxes<threads>
      <<<blocks, threads, 0, stream>>>(boxes, truths, rules, best.data(), assigned);
  draw_boxes<many><<<static_cast<unsigned>(truths.images), many, 0, stream>>>(
      boxes.all, rules, rng, first_image, assigned, limits, chosen);
}

}  // namespace detail

/// Targets and weights of all anchors. An image's sample is drawn by rng.fork(first_image + its
/// number), as the CPU's; chosen (images): how many that are.
inline void anchor_targets(Cuda, const AnchorGrid& grid, const AnchorTruths& truths,
                           const AnchorRules& rules, const BoxDecoder& coder, const Rng& rng,
                           u64 first_image, const AnchorMaps& maps, float* chosen) {
  if (truths.images == 0 || grid.all == 0) return;
  constexpr int threads = detail::anchor_threads;
  const Workspace<int> assigned(truths.images * grid.all, Device::cuda);
  const Workspace<u64> limits(2 * truths.images, Device::cuda);
  detail::choose_boxes(grid, truths, rules, rng, first_image, assigned.data(), limits.data(),
                       chosen);
  const dim3 blocks(static_cast<unsigned>((grid.all + threads - 1) / threads),
                    static_cast<unsigned>(truths.images));
  detail::write_targets<threads><<<blocks, threads, 0, cuda::stream()>>>(
      grid, truths, coder, rng, first_image, assigned.data(), limits.data(), maps);
  cuda::launched("detector's targets");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
