#pragma once
#include "ppma/core/names_begin.hpp"
// Which boxes a detector goes on with, chosen on the GPU: the best of each group of candidates (a
// level of an image's anchors, or a class of its regions), decoded, suppressed within their group,
// and the best of an image's groups together.
//
// A candidate is one number: its group above, then its score's bits, then its place, so that all
// groups are sorted at once (CUB's radix sort) and equal scores stay in order. Nothing waits for
// the host.

#include <algorithm>
#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "ppma/kernels/box_choice.hpp"
#include "ppma/kernels/cuda/nms.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// Candidates' numbers: greater is better. A score's bits count from 1; 0: no candidate.
struct BoxKeys {
  int groups, place_bits;

  BoxKeys(i64 groups_, i64 places)
      : groups(static_cast<int>(groups_)),
        place_bits(std::max(1, static_cast<int>(std::bit_width(static_cast<u64>(places - 1))))) {
    check(bits() <= 64, "detector: ", groups_, " groups of ", places,
          " candidates are too many for the GPU");
  }
  int bits() const {
    return place_bits + 32 + static_cast<int>(std::bit_width(static_cast<u64>(groups - 1)));
  }
  __device__ __forceinline__ u64 last() const { return (u64{1} << place_bits) - 1; }
  __device__ __forceinline__ u64 of(i64 group, unsigned score, i64 place) const {
    return ((static_cast<u64>(groups - 1 - group) << 32 | score) << place_bits) |
           (last() - static_cast<u64>(place));
  }
  __device__ __forceinline__ unsigned score(u64 key) const {
    return static_cast<unsigned>(key >> place_bits);
  }
  __device__ __forceinline__ i64 place(u64 key) const {
    return static_cast<i64>(last() - (key & last()));
  }
};
/// What is not a number is noted.
__device__ __forceinline__ unsigned score_bits(float score, int* wrong) {
  if (score != score) *wrong = 1;
  return score >= 0 ? __float_as_uint(score) + 1 : 0;
}

inline void sort_keys(const BoxKeys& keys, i64 n, const u64* from, u64* to) {
  check(n < (i64{1} << 31), "detector: ", n, " candidates are too many for the GPU");
  std::size_t bytes = 0;
  const auto sort = [&](void* memory) {
    cuda::require(cub::DeviceRadixSort::SortKeysDescending(
                      memory, bytes, from, to, static_cast<int>(n), 0, keys.bits(), cuda::stream()),
                  "sort candidates");
  };
  sort(nullptr);
  const Workspace<u8> memory(static_cast<i64>(std::max<std::size_t>(bytes, 1)), Device::cuda);
  sort(memory.data());
}

// The first n of each group of the sorted candidates as boxes (groups, n).
template <class Candidates>
__global__ void __launch_bounds__(256)
    decode_sorted(BoxKeys keys, int groups, int n, const u64* sorted, Candidates candidates,
                  float4* boxes, u8* there) {
  for (i64 e = cuda::first(); e < static_cast<i64>(groups) * n; e += cuda::stride()) {
    const int group = static_cast<int>(e / n), rank = static_cast<int>(e % n),
              image = group / candidates.groups, own = group % candidates.groups;
    float4 box{0, 0, 0, 0};
    bool here = false;
    if (rank < candidates.count(own)) {
      const u64 key = sorted[image * candidates.all + candidates.first(own) + rank];
      if (keys.score(key) > 0) box = candidates.box(image, own, keys.place(key), here);
    }
    boxes[e] = box, there[e] = here ? 1 : 0;
  }
}

// Numbers of the boxes (groups, n) among those of their image; of those that do not stay 0.
template <class Candidates>
__global__ void __launch_bounds__(256)
    keys_of_kept(BoxKeys to, BoxKeys from, int groups, int n, const u64* sorted,
                 Candidates candidates, const u64* kept, u64* keys) {
  const int words = (n + nms_word - 1) / nms_word;
  for (i64 e = cuda::first(); e < static_cast<i64>(groups) * n; e += cuda::stride()) {
    const int group = static_cast<int>(e / n), rank = static_cast<int>(e % n),
              image = group / candidates.groups, own = group % candidates.groups;
    keys[e] = to.of(image, 0, 0);
    if ((kept[static_cast<i64>(group) * words + rank / nms_word] >> (rank % nms_word) & 1) == 0)
      continue;
    const u64 key = sorted[image * candidates.all + candidates.first(own) + rank];
    keys[e] = to.of(image, from.score(key), candidates.place(own, rank, from.place(key), n));
  }
}

// best (images, most, 6): the box, its score, its group; -1 behind the last, -2: a score is wrong.
template <class Candidates>
__global__ void __launch_bounds__(256)
    take_best(BoxKeys keys, i64 images, i64 most, i64 n, const u64* sorted, Candidates candidates,
              const float4* boxes, const int* wrong, float* best) {
  const i64 an_image = candidates.groups * n;
  for (i64 e = cuda::first(); e < images * most; e += cuda::stride()) {
    const i64 image = e / most, rank = e % most;
    const u64 key = rank < an_image ? sorted[image * an_image + rank] : 0;
    const unsigned score = rank < an_image ? keys.score(key) : 0;
    float4 box{0, 0, 0, 0};
    int group = *wrong != 0 ? -2 : -1;
    if (score > 0)
      box = candidates.taken(static_cast<int>(image), keys.place(key), n, boxes, group);
    float* const to = best + e * 6;
    to[0] = box.x, to[1] = box.y, to[2] = box.z, to[3] = box.w;
    to[4] = score > 0 ? __uint_as_float(score - 1) : 0.0f;
    to[5] = static_cast<float>(*wrong != 0 ? -2 : group);
  }
}

/// Delta to box: decode() of heads/boxes.hpp.
__device__ __forceinline__ float4 decode_box(const BoxDecoder& c, const float4& p,
                                             const float (&d)[4], const float* size) {
  const auto within = [](float v, float low, float high) {
    return v < low ? low : high < v ? high : v;
  };
  const float pw = p.z - p.x, ph = p.w - p.y, x = (p.x + p.z) / 2 + d[0] * c.stds[0] * pw,
              y = (p.y + p.w) / 2 + d[1] * c.stds[1] * ph,
              w = pw * ::expf(within(d[2] * c.stds[2], -c.most, c.most)) / 2,
              h = ph * ::expf(within(d[3] * c.stds[3], -c.most, c.most)) / 2;
  return {within(x - w, 0, size[0]), within(y - h, 0, size[1]), within(x + w, 0, size[0]),
          within(y + h, 0, size[1])};
}

}  // namespace detail

/// Candidates are images times groups, as the two in box_candidates.cuh; their numbers are `keys`
/// (images, all), of `places` in a group. best (images, most, 6), of the n best of each group
/// those that no better one of it overlaps by more than `limit`.
template <class Candidates>
void choose_boxes(Cuda on, const Candidates& candidates, i64 images, i64 places, i64 n, float limit,
                  i64 most, const u64* keys, const int* wrong, float* best) {
  const i64 groups = images * candidates.groups, count = groups * n,
            words = (n + detail::nms_word - 1) / detail::nms_word;
  const detail::BoxKeys in_groups(groups, places), in_images(images, candidates.places(n));
  const int of_all = static_cast<int>(groups), ranks = static_cast<int>(n);
  const Workspace<u64> sorted(images * candidates.all, Device::cuda),
      kept(groups * words, Device::cuda), left(count, Device::cuda),
      left_sorted(count, Device::cuda);
  const Workspace<float4> boxes(count, Device::cuda);
  const Workspace<u8> there(count, Device::cuda);
  const unsigned blocks = cuda::blocks(count, 256);
  detail::sort_keys(in_groups, images * candidates.all, keys, sorted.data());
  detail::decode_sorted<<<blocks, 256, 0, cuda::stream()>>>(in_groups, of_all, ranks, sorted.data(),
                                                            candidates, boxes.data(), there.data());
  nms_groups(on, groups, n, reinterpret_cast<const float*>(boxes.data()), there.data(), limit,
             kept.data());
  detail::keys_of_kept<<<blocks, 256, 0, cuda::stream()>>>(
      in_images, in_groups, of_all, ranks, sorted.data(), candidates, kept.data(), left.data());
  detail::sort_keys(in_images, count, left.data(), left_sorted.data());
  detail::take_best<<<cuda::blocks(images * most, 256), 256, 0, cuda::stream()>>>(
      in_images, images, most, n, left_sorted.data(), candidates, boxes.data(), wrong, best);
  cuda::launched("detector");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
