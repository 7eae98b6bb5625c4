#pragma once
#include "ppma/core/names_begin.hpp"
// Many f32 arrays to bf16 by few launches: a table of pointers travels as the kernel's argument. In
// the results each array begins a piece, so that a block's place follows from its number.

#include <algorithm>
#include <cstddef>
#include <vector>

#include "ppma/core/cuda.cuh"
#include "ppma/core/dtype.hpp"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {
inline constexpr i64 convert_piece = 4096;  // elements a block
inline constexpr int convert_room = 200;    // arrays of a launch: arguments are at most 4 KiB
struct ConvertTable {
  const float* from[convert_room];
  int size[convert_room], first[convert_room + 1];  // its blocks: first[i] .. first[i + 1]
  int count;
};

template <class To>
__global__ void __launch_bounds__(256) convert_pieces(ConvertTable t, To* to) {
  const int block = static_cast<int>(blockIdx.x);
  int low = 0, high = t.count;  // first[low] <= block < first[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (t.first[middle] <= block ? low : high) = middle;
  }
  const i64 begin = (block - t.first[low]) * convert_piece,
            end = ::min(static_cast<i64>(t.size[low]), begin + convert_piece);
  To* const piece = to + block * convert_piece - begin;
  for (i64 i = begin + threadIdx.x * 4; i < end; i += 1024) {
    if (i + 4 <= end) {
      float v[4];
      load_pack<4>(t.from[low] + i, v);
      store_pack<4>(piece + i, v);
    } else {
      for (i64 k = i; k < end; ++k) piece[k] = To(t.from[low][k]);
    }
  }
}
}  // namespace detail

/// add() all, then run() into room() elements; place(i): where the i-th begins.
class ConvertMany {
 public:
  void add(i64 n, const float* from) {
    arrays_.push_back({n, from, room_});
    room_ += (n + detail::convert_piece - 1) / detail::convert_piece * detail::convert_piece;
  }
  i64 room() const { return room_; }
  i64 place(std::size_t i) const { return arrays_[i].place; }
  void run(bf16* to) const {
    for (std::size_t begin = 0; begin < arrays_.size(); begin += detail::convert_room) {
      detail::ConvertTable t{};
      for (std::size_t i = begin; i < arrays_.size() && t.count < detail::convert_room; ++i) {
        const int at = t.count++;
        t.from[at] = arrays_[i].from, t.size[at] = static_cast<int>(arrays_[i].n);
        t.first[at + 1] =
            t.first[at] +
            static_cast<int>((arrays_[i].n + detail::convert_piece - 1) / detail::convert_piece);
      }
      detail::convert_pieces<<<static_cast<unsigned>(t.first[t.count]), 256, 0, cuda::stream()>>>(
          t, to + arrays_[begin].place);
      cuda::launched("converted weights");
    }
  }

 private:
  struct Array {
    i64 n;
    const float* from;
    i64 place;
  };
  std::vector<Array> arrays_{};
  i64 room_ = 0;
};

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
