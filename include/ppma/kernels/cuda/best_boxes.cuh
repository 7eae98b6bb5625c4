#pragma once
#include "ppma/core/names_begin.hpp"
// Which boxes a detector goes on with, chosen on the GPU: the best of each group of candidates (a
// level of an image's anchors, or a class of its regions), decoded, suppressed within their group,
// and the best of an image's groups together.
//
// A candidate is one number: its score's bits above, then its place, the first the greatest, so
// that equal scores stay in order. A block a group takes the best (select.cuh). Nothing waits for
// the host.

#include <algorithm>
#include <bit>

#include "ppma/kernels/box_choice.hpp"
#include "ppma/kernels/cuda/nms.cuh"
#include "ppma/kernels/cuda/select.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// A candidate's number: greater is better. A score's bits count from 1; 0: no candidate.
__device__ __forceinline__ u64 box_key(unsigned score, i64 place) {
  return score == 0 ? 0 : u64{score} << 32 | (0xffffffffu - static_cast<u64>(place));
}
__device__ __forceinline__ unsigned score_of(u64 key) { return static_cast<unsigned>(key >> 32); }
__device__ __forceinline__ i64 place_of(u64 key) {
  return static_cast<i64>(0xffffffffu - (key & 0xffffffffu));
}
/// What is not a number is noted.
__device__ __forceinline__ unsigned score_bits(float score, int* wrong) {
  if (score != score) *wrong = 1;
  return score >= 0 ? __float_as_uint(score) + 1 : 0;
}

// best (groups, n): the greatest keys of each group, sorted, 0 behind the last. Block: a group, of
// `of_image` an image; first(g) and count(g): where its keys lie among the image's `all`. Shared:
// `room` numbers, a power of two, at least n.
template <int threads, class Groups>
__global__ void __launch_bounds__(threads)
    best_keys(Groups groups, int of_image, i64 all, int n, int room, const u64* keys, u64* best) {
  extern __shared__ u64 chosen[];
  __shared__ int found;
  const int image = static_cast<int>(blockIdx.x) / of_image,
            own = static_cast<int>(blockIdx.x) % of_image, lane = static_cast<int>(threadIdx.x);
  const u64* const from = keys + image * all + groups.first(own);
  const i64 count = groups.count(own);
  const auto visit = [&](auto&& f) {  // the greatest key is the least number
    constexpr int at_once = 8;        // reads on their way
    for (i64 k = lane; k < count; k += at_once * threads) {
      u64 some[at_once];
#pragma unroll
      for (int e = 0; e < at_once; ++e)
        some[e] = k + e * threads < count ? from[k + e * threads] : 0;
#pragma unroll
      for (int e = 0; e < at_once; ++e)
        if (some[e] != 0) f(~some[e]);
    }
  };
  i64 taken;
  const u64 last = nth_least<threads>(n, taken, visit);
  for (int k = lane; k < room; k += threads) chosen[k] = 0;
  if (lane == 0) found = 0;
  __syncthreads();
  visit([&](u64 number) {
    if (number <= last) chosen[atomicAdd(&found, 1)] = ~number;
  });
  sort_descending<threads>(chosen, room);
  for (int k = lane; k < n; k += threads) best[static_cast<i64>(blockIdx.x) * n + k] = chosen[k];
}

// All keys of an image.
struct OneGroup {
  i64 keys;
  __device__ __forceinline__ i64 first(int) const { return 0; }
  __device__ __forceinline__ i64 count(int) const { return keys; }
};

template <class Groups>
void take_best_keys(const Groups& groups, i64 images, int of_image, i64 all, i64 n, const u64* keys,
                    u64* best) {
  constexpr int threads = 1024;
  check(n <= most_boxes && all < (i64{1} << 32), "detector: the best ", n, " of ", all,
        " candidates are too many for the GPU; it takes ", most_boxes, " at most");
  const int room = static_cast<int>(std::bit_ceil(static_cast<u64>(std::max<i64>(n, 2))));
  const std::size_t bytes = static_cast<std::size_t>(room) * sizeof(u64);
  const auto kernel = best_keys<threads, Groups>;
  cuda::require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(bytes)),
                "shared memory for the best boxes");
  kernel<<<static_cast<unsigned>(images * of_image), threads, bytes, cuda::stream()>>>(
      groups, of_image, all, static_cast<int>(n), room, keys, best);
}

// The first n of each group of the sorted candidates as boxes (groups, n).
template <class Candidates>
__global__ void __launch_bounds__(256)
    decode_sorted(int groups, int n, const u64* sorted, Candidates candidates, float4* boxes,
                  u8* there) {
  for (i64 e = cuda::first(); e < static_cast<i64>(groups) * n; e += cuda::stride()) {
    const int group = static_cast<int>(e / n), image = group / candidates.groups,
              own = group % candidates.groups;
    float4 box{0, 0, 0, 0};
    bool here = false;
    if (sorted[e] != 0) box = candidates.box(image, own, place_of(sorted[e]), here);
    boxes[e] = box, there[e] = here ? 1 : 0;
  }
}

// Numbers of the boxes (groups, n) among those of their image; of those that do not stay 0.
template <class Candidates>
__global__ void __launch_bounds__(256)
    keys_of_kept(int groups, int n, const u64* sorted, Candidates candidates, const u64* kept,
                 u64* keys) {
  const int words = (n + nms_word - 1) / nms_word;
  for (i64 e = cuda::first(); e < static_cast<i64>(groups) * n; e += cuda::stride()) {
    const int group = static_cast<int>(e / n), rank = static_cast<int>(e % n),
              own = group % candidates.groups;
    const bool stays =
        (kept[static_cast<i64>(group) * words + rank / nms_word] >> (rank % nms_word) & 1) != 0;
    keys[e] =
        stays ? box_key(score_of(sorted[e]), candidates.place(own, rank, place_of(sorted[e]), n))
              : 0;
  }
}

// best (images, most, 6): the box, its score, its group; -1 behind the last, -2: a score is wrong.
template <class Candidates>
__global__ void __launch_bounds__(256)
    take_best(i64 images, i64 most, i64 n, const u64* sorted, Candidates candidates,
              const float4* boxes, const int* wrong, float* best) {
  for (i64 e = cuda::first(); e < images * most; e += cuda::stride()) {
    const i64 image = e / most;
    const unsigned score = score_of(sorted[e]);
    float4 box{0, 0, 0, 0};
    int group = *wrong != 0 ? -2 : -1;
    if (score > 0)
      box = candidates.taken(static_cast<int>(image), place_of(sorted[e]), n, boxes, group);
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
/// (images, all). best (images, most, 6), of the n best of each group those that no better one of
/// it overlaps by more than `limit`.
template <class Candidates>
void choose_boxes(Cuda on, const Candidates& candidates, i64 images, i64 n, float limit, i64 most,
                  const u64* keys, const int* wrong, float* best) {
  const i64 groups = images * candidates.groups, count = groups * n,
            words = (n + detail::nms_word - 1) / detail::nms_word;
  const int of_all = static_cast<int>(groups), ranks = static_cast<int>(n);
  const Workspace<u64> sorted(count, Device::cuda), kept(groups * words, Device::cuda),
      left(count, Device::cuda), left_sorted(images * most, Device::cuda);
  const Workspace<float4> boxes(count, Device::cuda);
  const Workspace<u8> there(count, Device::cuda);
  const unsigned blocks = cuda::blocks(count, 256);
  detail::take_best_keys(candidates, images, candidates.groups, candidates.all, n, keys,
                         sorted.data());
  detail::decode_sorted<<<blocks, 256, 0, cuda::stream()>>>(of_all, ranks, sorted.data(),
                                                            candidates, boxes.data(), there.data());
  nms_groups(on, groups, n, reinterpret_cast<const float*>(boxes.data()), there.data(), limit,
             kept.data());
  detail::keys_of_kept<<<blocks, 256, 0, cuda::stream()>>>(of_all, ranks, sorted.data(), candidates,
                                                           kept.data(), left.data());
  detail::take_best_keys(detail::OneGroup{candidates.groups * n}, images, 1, candidates.groups * n,
                         most, left.data(), left_sorted.data());
  detail::take_best<<<cuda::blocks(images * most, 256), 256, 0, cuda::stream()>>>(
      images, most, n, left_sorted.data(), candidates, boxes.data(), wrong, best);
  cuda::launched("detector");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
