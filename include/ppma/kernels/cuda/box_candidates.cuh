#pragma once
#include "ppma/core/names_begin.hpp"
// The two kinds of candidates that a detector chooses its boxes from (best_boxes.cuh): the anchors
// of a pyramid's levels, and the classes of regions.

#include "ppma/kernels/activation.hpp"
#include "ppma/kernels/cuda/best_boxes.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// A group is a level; a place the anchor's number in it. Equal scores: the finer level first.
template <class T>
struct AnchorCandidates {
  AnchorGrid grid;
  BoxDecoder decoder;
  int groups;
  i64 all;
  const T *scores[most_levels], *deltas[most_levels];
  const float* sizes;  // (images, 4): width, height

  __device__ __forceinline__ i64 first(int level) const { return grid.first[level]; }
  __device__ __forceinline__ i64 count(int level) const { return grid.count(level); }
  __device__ __forceinline__ float4 box(int image, int level, i64 place, bool& here) const {
    const Corners p = anchor_of(grid, level, place);
    const T* const from = deltas[level] + (image * count(level) + place) * 4;
    const float d[4] = {static_cast<float>(from[0]), static_cast<float>(from[1]),
                        static_cast<float>(from[2]), static_cast<float>(from[3])};
    const float4 b = decode_box(decoder, {p.x1, p.y1, p.x2, p.y2}, d, sizes + image * 4);
    here = b.z - b.x > 0 && b.w - b.y > 0;
    return b;
  }
  __device__ __forceinline__ i64 place(int level, int rank, i64, int n) const {
    return static_cast<i64>(level) * n + rank;
  }
  __device__ __forceinline__ float4 taken(int image, i64 place, i64 n, const float4* boxes,
                                          int& group) const {
    group = static_cast<int>(place / n);
    return boxes[image * groups * n + place];
  }
};

/// A group is a class; a place the region's number. Equal scores: the first region first.
template <class T>
struct ClassCandidates {
  BoxDecoder decoder;
  int groups;
  i64 regions, all;
  const float* boxes;  // (images, regions, 6)
  const T* deltas;     // (images, regions, 4 classes)
  const float* sizes;  // (images, 4): width, height, and by how much the image was scaled

  __device__ __forceinline__ i64 first(int of_class) const { return of_class * regions; }
  __device__ __forceinline__ i64 count(int) const { return regions; }
  __device__ __forceinline__ float4 box(int image, int of_class, i64 place, bool& here) const {
    const i64 row = image * regions + place;
    const float *const p = boxes + row * 6, *const size = sizes + image * 4;
    const T* const from = deltas + (row * groups + of_class) * 4;
    const float d[4] = {static_cast<float>(from[0]), static_cast<float>(from[1]),
                        static_cast<float>(from[2]), static_cast<float>(from[3])};
    const float4 b = decode_box(decoder, {p[0], p[1], p[2], p[3]}, d, size);
    here = true;
    return {b.x / size[2], b.y / size[3], b.z / size[2], b.w / size[3]};
  }
  __device__ __forceinline__ i64 place(int of_class, int, i64 region, int) const {
    return region * groups + of_class;
  }
  __device__ __forceinline__ float4 taken(int image, i64 place, i64, const float4*,
                                          int& group) const {
    group = static_cast<int>(place % groups);
    bool here;
    return box(image, group, place / groups, here);
  }
};

template <class T>
__global__ void __launch_bounds__(256)
    anchor_keys(i64 images, AnchorCandidates<T> c, u64* keys, int* wrong) {
  for (i64 e = cuda::first(); e < images * c.all; e += cuda::stride()) {
    const i64 image = e / c.all, at = e % c.all;
    int level = 0;
    while (level + 1 < c.groups && at >= c.first(level + 1)) ++level;
    const i64 place = at - c.first(level);
    const float logit = static_cast<float>(c.scores[level][image * c.count(level) + place]);
    keys[e] = box_key(score_bits(functions::Sigmoid{}.f(logit), wrong), place);
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    class_keys(i64 images, ClassCandidates<T> c, const float* scores, double least, u64* keys,
               int* wrong) {
  for (i64 e = cuda::first(); e < images * c.all; e += cuda::stride()) {
    const i64 image = e / c.all, row = e / c.groups, of_class = e % c.groups,
              region = row % c.regions;
    const float score = scores[row * (c.groups + 1) + of_class], level = c.boxes[row * 6 + 5];
    unsigned bits = score_bits(score, wrong);
    if (level == -2) *wrong = 1;
    if (level < 0 || static_cast<double>(score) <= least) bits = 0;
    keys[image * c.all + c.first(static_cast<int>(of_class)) + region] = box_key(bits, region);
  }
}

}  // namespace detail

/// The best anchors (images, most, 6): of logits (images, cells, ratios) and deltas, by level.
/// sizes (images, 4).
template <class T>
void best_anchors(Cuda on, const AnchorGrid& grid, const BoxDecoder& decoder, i64 images, i64 n,
                  float limit, i64 most, const T* const* scores, const T* const* deltas,
                  const float* sizes, float* best) {
  detail::AnchorCandidates<T> c{grid, decoder, grid.levels, grid.all, {}, {}, sizes};
  i64 largest = 0;  // level
  for (int l = 0; l < grid.levels; ++l) {
    c.scores[l] = scores[l], c.deltas[l] = deltas[l];
    largest = std::max(largest, grid.count(l));
  }
  const Workspace<u64> keys(images * c.all, Device::cuda);
  const Workspace<int> wrong(1, Device::cuda);
  zero_bytes(wrong.data(), Device::cuda, sizeof(int));
  detail::anchor_keys<<<cuda::blocks(images * c.all, 256), 256, 0, cuda::stream()>>>(
      images, c, keys.data(), wrong.data());
  choose_boxes(on, c, images, std::min(n, largest), limit, most, keys.data(), wrong.data(), best);
}

/// The best boxes (images, most, 6) of the classes of regions (images, count, 6): scores (images,
/// count, classes + 1) above `least`, deltas (images, count, 4 classes).
template <class T>
void best_of_classes(Cuda on, const BoxDecoder& decoder, i64 images, i64 count, i64 classes,
                     double least, float limit, i64 most, const float* regions, const float* scores,
                     const T* deltas, const float* sizes, float* best) {
  const detail::ClassCandidates<T> c{
      decoder, static_cast<int>(classes), count, count * classes, regions, deltas, sizes};
  const Workspace<u64> keys(images * c.all, Device::cuda);
  const Workspace<int> wrong(1, Device::cuda);
  zero_bytes(wrong.data(), Device::cuda, sizeof(int));
  detail::class_keys<<<cuda::blocks(images * c.all, 256), 256, 0, cuda::stream()>>>(
      images, c, scores, least, keys.data(), wrong.data());
  choose_boxes(on, c, images, count, limit, most, keys.data(), wrong.data(), best);
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
