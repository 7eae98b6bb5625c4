#pragma once
#include "ppma/core/names_begin.hpp"
// Which regions a detector's box head is to learn from, on the GPU: sample_rois() of heads/ for a
// batch, to the same region in the same order. Truths and proposals of an image are assigned and
// drawn as its anchors are (anchor_targets.cuh); then a block an image writes those that were
// chosen, positive ones first.

#include "ppma/kernels/cuda/anchor_targets.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// The boxes of an image: its truths, then its proposals, then nothing.
struct RegionBoxes {
  const float* rows;  // (images, proposals, 6): box, score, level; level < 0: no box
  i64 proposals, all;
};
__device__ __forceinline__ PlacedBox placed_box(const RegionBoxes& r, const AnchorTruths& t,
                                                i64 image, i64 k) {
  const i64 truths = t.count(image), row = k - truths;
  if (row < 0) return {0, k, t.boxes[image * t.most + k], false, static_cast<int>(k)};
  if (row >= r.proposals) return {0, k, {0, 0, 0, 0}, false};
  const float* const b = r.rows + (image * r.proposals + row) * 6;
  return {0, k, {b[0], b[1], b[2], b[3]}, b[5] >= 0};
}

// regions (images, count, 6): box, its truth or -1, 0; what is behind an image's last has -1 last,
// and where a proposal had a score that was no number the first has -2.
template <int threads>
__global__ void __launch_bounds__(threads)
    write_regions(RegionBoxes boxes, AnchorTruths t, Rng rng, u64 first_image, const int* assigned,
                  const u64* limits, i64 count, float* regions) {
  __shared__ int of_warp[threads / 32];
  const i64 image = blockIdx.x;
  const Rng own = rng.fork(first_image + static_cast<u64>(image));
  const int tid = static_cast<int>(threadIdx.x), warp = tid / 32, lane = tid % 32;
  float* const to = regions + image * count * 6;
  i64 written = 0;
  for (int kind = 0; kind < 2; ++kind)
    for (i64 begin = 0; begin < boxes.all; begin += threads) {
      const i64 k = begin + tid;
      const int mine = k < boxes.all ? assigned[image * boxes.all + k] : -2;
      const bool chosen =
          mine != -2 && kind_of(mine) == kind && drawn_number(own, k) <= limits[2 * image + kind];
      const unsigned of_lanes = __ballot_sync(~0u, chosen);
      if (lane == 0) of_warp[warp] = __popc(of_lanes);
      __syncthreads();
      i64 at = written + __popc(of_lanes & ((1u << lane) - 1));
      for (int w = 0; w < threads / 32; ++w) {
        if (w < warp) at += of_warp[w];
        written += of_warp[w];
      }
      if (chosen) {
        const Corners box = placed_box(boxes, t, image, k).box;
        float* const row = to + at * 6;
        row[0] = box.x1, row[1] = box.y1, row[2] = box.x2, row[3] = box.y2;
        row[4] = static_cast<float>(mine), row[5] = 0;
      }
      __syncthreads();
    }
  for (i64 e = written * 6 + tid; e < count * 6; e += threads) to[e] = e % 6 < 4 ? 0.0f : -1.0f;
  bool wrong = false;
  for (i64 row = tid; row < boxes.proposals; row += threads)
    wrong |= boxes.rows[(image * boxes.proposals + row) * 6 + 5] == -2;
  if (__syncthreads_or(wrong) && tid == 0) to[5] = -2;
}

}  // namespace detail

/// regions (images, rules.count, 6) of proposals (images, N, 6), as best_anchors() leaves them. An
/// image's sample is drawn by rng.fork(first_image + its number), as the CPU's.
inline void drawn_regions(Cuda, const float* proposals, i64 n, const AnchorTruths& truths,
                          const AnchorRules& rules, const Rng& rng, u64 first_image,
                          float* regions) {
  if (truths.images == 0 || rules.count == 0) return;
  constexpr int threads = 512;
  const detail::RegionBoxes boxes{proposals, n, truths.most + n};
  const Workspace<int> assigned(truths.images * boxes.all, Device::cuda);
  const Workspace<u64> limits(2 * truths.images, Device::cuda);
  const Workspace<float> chosen(truths.images, Device::cuda);
  detail::choose_boxes(boxes, truths, rules, rng, first_image, assigned.data(), limits.data(),
                       chosen.data());
  detail::write_regions<threads>
      <<<static_cast<unsigned>(truths.images), threads, 0, cuda::stream()>>>(
          boxes, truths, rng, first_image, assigned.data(), limits.data(), rules.count, regions);
  cuda::launched("detector's regions");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
