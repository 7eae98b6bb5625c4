#pragma once
#include "ppma/core/names_begin.hpp"
// The n best of many numbers, by one block: up to which number they go is found digit by digit from
// the top (a radix select: count the numbers that have each next digit, take the one where the n-th
// lies, go on with that digit's), and the few that are left are sorted in shared memory (Batcher's
// bitonic network). Nothing but the chosen is ever moved.

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

inline constexpr int digit_bits = 8, digits_at_all = 1 << digit_bits;

/// The n-th least of distinct numbers, all bits where there are no more than n, 0 where n <= 0.
/// visit(f) calls f(number) for every number of this thread, the same ones each time; all threads
/// of the block must call. `taken`: how many numbers are up to there; none of them is 0.
template <int threads, class Visit>
__device__ u64 nth_least(i64 n, i64& taken, Visit&& visit) {
  __shared__ int bins[digits_at_all], all_numbers, of_digit;
  __shared__ u64 shared_digits;
  __shared__ i64 shared_left;
  const int lane = static_cast<int>(threadIdx.x);
  u64 digits = 0;  // of the n-th, so far
  i64 left = n;    // it is the left-th of the numbers that begin so
  for (int shift = 64 - digit_bits; shift >= 0; shift -= digit_bits) {
    const bool first = shift == 64 - digit_bits;
    __syncthreads();
    for (int b = lane; b < digits_at_all; b += threads) bins[b] = 0;
    if (first && lane == 0) all_numbers = 0;
    __syncthreads();
    int seen = 0;
    visit([&](u64 number) {
      ++seen;
      if (!first && number >> (shift + digit_bits) != digits) return;
      // Many may have the same digit, as scores do: one thread of a warp counts for all of these.
      const int digit = static_cast<int>(number >> shift & (digits_at_all - 1));
      const unsigned same = __match_any_sync(__activemask(), digit);
      if (__ffs(static_cast<int>(same)) - 1 == lane % 32) atomicAdd(bins + digit, __popc(same));
    });
    if (first) atomicAdd(&all_numbers, seen);
    __syncthreads();
    if (first && all_numbers <= n) {
      taken = all_numbers;
      return ~u64{0};
    }
    taken = n > 0 ? n : 0;
    if (n <= 0) return 0;
    if (lane == 0) {
      int digit = 0;
      while (bins[digit] < left) left -= bins[digit++];
      shared_digits = digits << digit_bits | static_cast<u64>(digit), shared_left = left;
      of_digit = bins[digit];
    }
    __syncthreads();
    digits = shared_digits, left = shared_left;
    if (of_digit == left)  // all that begin so: the other digits do not matter
      return digits << shift | ((u64{1} << shift) - 1);
  }
  return digits;
}

/// Sorts `count` numbers, a power of two, greatest first.
template <int threads>
__device__ void sort_descending(u64* numbers, int count) {
  for (int run = 2; run <= count; run *= 2)
    for (int step = run / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int k = static_cast<int>(threadIdx.x); k < count / 2; k += threads) {
        const int low = k / step * 2 * step + k % step, high = low + step;
        const bool falling = (low & run) == 0;
        if ((numbers[low] < numbers[high]) == falling) {
          const u64 other = numbers[low];
          numbers[low] = numbers[high], numbers[high] = other;
        }
      }
    }
  __syncthreads();
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
