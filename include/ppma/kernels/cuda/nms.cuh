#pragma once
#include "ppma/core/names_begin.hpp"
// Non-maximum suppression of many groups of boxes on the GPU, each sorted, best first: to the box
// what nms() of ops/nms.hpp keeps.
//
// First all pairs of a group in parallel: a bit each, 64 boxes a word. Then a block a group walks
// through the words in order: one thread settles a word's own 64 boxes in registers, and all
// threads together take away what those that stay cover further behind.

#include "ppma/core/buffer.hpp"
#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int nms_word = 64;

// As KeptBoxes::cover() computes it, in whose order nothing is contracted.
__device__ __forceinline__ float box_area(const float4& b) {
  return __fmul_rn(::fmaxf(b.z - b.x, 0.0f), ::fmaxf(b.w - b.y, 0.0f));
}
__device__ __forceinline__ bool covers(const float4& a, const float4& b, float limit) {
  const float w = ::fminf(a.z, b.z) - ::fmaxf(a.x, b.x), h = ::fminf(a.w, b.w) - ::fmaxf(a.y, b.y),
              both = __fmul_rn(::fmaxf(w, 0.0f), ::fmaxf(h, 0.0f));
  return both / (__fadd_rn(box_area(a), box_area(b)) - both) > limit;
}

// covered (groups, n, words): bit k of word j of box i: i covers box 64 j + k behind it.
// Block (word of the covered, word of the covering, group).
template <int threads>  // nms_word
__global__ void __launch_bounds__(threads)
    nms_pairs(int n, int words, const float4* boxes, const u8* there, float limit, u64* covered) {
  __shared__ float4 behind[nms_word];
  const int word = static_cast<int>(blockIdx.x), of = static_cast<int>(blockIdx.y),
            lane = static_cast<int>(threadIdx.x), i = of * nms_word + lane;
  if (word < of) return;
  const float4* const group = boxes + static_cast<i64>(blockIdx.z) * n;
  const u8* const in_group = there + static_cast<i64>(blockIdx.z) * n;
  const int first = word * nms_word, count = ::min(nms_word, n - first);
  const bool here = i < n && in_group[i] != 0;
  // those that are not there are behind the others, or few
  if (__syncthreads_or(here) == 0) return;
  if (lane < count) behind[lane] = group[first + lane];
  __syncthreads();
  if (!here) return;
  const float4 own = group[i];
  u64 bits = 0;
  for (int k = word == of ? lane + 1 : 0; k < count; ++k)
    if (covers(own, behind[k], limit)) bits |= u64{1} << k;
  covered[(static_cast<i64>(blockIdx.z) * n + i) * words + word] = bits;
}

inline constexpr int nms_threads = 256;
__device__ __forceinline__ void take_away(u64* from, u64 bits) {
  atomicOr(reinterpret_cast<unsigned long long*>(from), static_cast<unsigned long long>(bits));
}

// kept (groups, words). Block: a group. there: boxes that count.
template <int threads>
__global__ void __launch_bounds__(threads)
    nms_settle(int n, int words, const u8* there, const u64* covered, u64* kept) {
  extern __shared__ u64 gone[];  // words
  __shared__ u64 own[nms_word], stay;
  const int lane = static_cast<int>(threadIdx.x);
  const i64 group = static_cast<i64>(blockIdx.x) * n;
  for (int word = lane; word < words; word += threads) gone[word] = 0;
  __syncthreads();
  for (int i = lane; i < words * nms_word; i += threads)
    if (i >= n || there[group + i] == 0) take_away(gone + i / nms_word, u64{1} << (i % nms_word));
  __syncthreads();
  for (int word = 0; word < words; ++word) {
    const int first = word * nms_word, behind = words - word - 1;
    if (lane < nms_word && (gone[word] >> lane & 1) == 0)
      own[lane] = covered[(group + first + lane) * words + word];
    __syncthreads();
    if (lane == 0) {
      u64 left = gone[word], result = 0;
      while (~left != 0) {
        const int k = __ffsll(static_cast<long long>(~left)) - 1;  // the best that is left
        result |= u64{1} << k;
        left |= u64{1} << k | own[k];
      }
      stay = result;
      kept[static_cast<i64>(blockIdx.x) * words + word] = result;
    }
    __syncthreads();
#pragma unroll 4
    for (int e = lane; e < nms_word * behind; e += threads) {
      const int k = e / behind, other = word + 1 + e % behind;
      if ((stay >> k & 1) != 0)
        take_away(gone + other, covered[(group + first + k) * words + other]);
    }
    __syncthreads();
  }
}

}  // namespace detail

/// kept (groups, words of 64): which of the boxes (groups, n), each group's best first, stay; those
/// that are not `there` do not count. A box goes if a better one that stays overlaps it by more
/// than `limit`.
inline void nms_groups(Cuda, i64 groups, i64 n, const float* boxes, const u8* there, float limit,
                       u64* kept) {
  if (groups == 0 || n == 0) return;
  const int words = static_cast<int>((n + detail::nms_word - 1) / detail::nms_word);
  check(groups < 65536 && words <= 4096, "nms: ", groups, " groups of ", n,
        " boxes are too many for the GPU");
  const Workspace<u64> covered(groups * n * words, Device::cuda);
  const dim3 pairs(static_cast<unsigned>(words), static_cast<unsigned>(words),
                   static_cast<unsigned>(groups));
  detail::nms_pairs<detail::nms_word><<<pairs, detail::nms_word, 0, cuda::stream()>>>(
      static_cast<int>(n), words, reinterpret_cast<const float4*>(boxes), there, limit,
      covered.data());
  detail::nms_settle<detail::nms_threads>
      <<<static_cast<unsigned>(groups), detail::nms_threads,
         static_cast<std::size_t>(words) * sizeof(u64), cuda::stream()>>>(
          static_cast<int>(n), words, there, covered.data(), kept);
  cuda::launched("nms");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
