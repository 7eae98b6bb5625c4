#pragma once
#include "ppma/core/names_begin.hpp"
// The last stage of sums over rows, of many sums in one launch: a backward pass ends a hundred of
// them in small kernels that take as long to start as to run. Until then the results are not there;
// who collects must know when they are read (tensor/autograd.hpp).

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/column_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int later_room = 60;  // sums of a launch: arguments are at most 4 KiB
// Bytes that wait at most: they are still in the L2 cache.
inline constexpr i64 later_bytes = 16 << 20;

template <class A>
struct LaterTable {
  struct Entry {
    const A* partial;
    A* to[3];
    int pieces, columns, at_once, end[2], taps, first;  // its blocks: from `first` on
  };
  Entry entry[later_room];
  int count;
};

template <class A>
__global__ void __launch_bounds__(1024) later_columns(const LaterTable<A> t) {
  const int block = static_cast<int>(blockIdx.x);
  int low = 0, high = t.count;  // first of low <= block < first of high
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (t.entry[middle].first <= block ? low : high) = middle;
  }
  const typename LaterTable<A>::Entry& e = t.entry[low];
  ColumnPlaces<A> to(e.to[0], e.end[0], e.to[1], e.end[1] - e.end[0], e.to[2]);
  to.taps = e.taps;
  finish_block(static_cast<i64>(e.pieces), static_cast<i64>(e.columns), e.partial,
               static_cast<i64>(block - e.first) * e.at_once, e.at_once, to);
}

}  // namespace detail

/// Sums whose last stage waits.
class LaterSums {
 public:
  /// Those that this thread's kernels add to; null: none waits.
  static LaterSums*& in_use() {
    thread_local LaterSums* collecting = nullptr;
    return collecting;
  }

  /// Sums of partial (pieces, columns) over the pieces, which shall go to `to`.
  void add(std::unique_ptr<const Workspace<float>> partial, i64 pieces, i64 columns,
           const detail::ColumnPlaces<float>& to) {
    bytes_ += pieces * columns * static_cast<i64>(sizeof(float));
    for (float* const place : to.to)
      if (place != nullptr) places_.push_back(place);
    sums_.push_back({std::move(partial), pieces, columns, to});
  }
  /// Results so far that are not there.
  std::size_t waiting() const { return places_.size(); }
  /// Whether what begins at p is one of them.
  bool waits(const void* p) const {
    return std::find(places_.begin(), places_.end(), p) != places_.end();
  }
  /// Whether more should not wait.
  bool full() const { return bytes_ > detail::later_bytes; }
  /// From here on the results are there.
  void run() {
    for (std::size_t begin = 0; begin < sums_.size(); begin += detail::later_room) {
      detail::LaterTable<float> t{};
      i64 blocks = 0;
      for (std::size_t i = begin; i < std::min(sums_.size(), begin + detail::later_room); ++i) {
        const Sum& s = sums_[i];
        const auto small = [&](i64 n) { return static_cast<int>(std::min(n, s.columns)); };
        t.entry[t.count++] = {s.partial->data(),
                              {s.to.to[0], s.to.to[1], s.to.to[2]},
                              static_cast<int>(s.pieces),
                              static_cast<int>(s.columns),
                              detail::columns_at_once(s.pieces),
                              {small(s.to.end[0]), small(s.to.end[1])},
                              static_cast<int>(s.to.taps),
                              static_cast<int>(blocks)};
        const i64 at_once = detail::columns_at_once(s.pieces);
        blocks += (s.columns + at_once - 1) / at_once;
      }
      detail::later_columns<<<static_cast<unsigned>(blocks), 1024, 0, cuda::stream()>>>(t);
      cuda::launched("sums of columns");
    }
    sums_.clear(), places_.clear();
    bytes_ = 0;
  }

 private:
  struct Sum {
    std::unique_ptr<const Workspace<float>> partial;
    i64 pieces, columns;
    detail::ColumnPlaces<float> to;
  };
  std::vector<Sum> sums_{};
  std::vector<const void*> places_{};
  i64 bytes_ = 0;
};

namespace detail {

/// finish_columns(), which may wait.
template <class A>
void finish_columns_later(std::unique_ptr<const Workspace<A>> partial, i64 pieces, i64 columns,
                          const ColumnPlaces<A>& to, const char* op) {
  if constexpr (std::is_same_v<A, float>)
    if (LaterSums* const later = LaterSums::in_use(); later != nullptr) {
      later->add(std::move(partial), pieces, columns, to);
      return;
    }
  finish_columns(pieces, columns, static_cast<const A*>(partial->data()), to, op);
}

/// sum_columns_of(), whose last stage may wait.
template <class A, int V, int N, class F>
void sum_columns_of_later(i64 rows, i64 cols, F term, const ColumnPlaces<A>& to, const char* op) {
  ColumnPieces<A> sums = sum_pieces_of<A, V, N>(rows, cols, term, op);
  finish_columns_later(std::move(sums.partial), sums.pieces, N * cols, to, op);
}

}  // namespace detail

/// y[c] = sum over rows of x[r, c]; it may wait.
template <class T>
void column_sums(Cuda, i64 rows, i64 cols, const T* x, acc_t<T>* y) {
  using A = acc_t<T>;
  if (cols == 0) return;
  with_pack<T>(cols, [&](auto v) {
    detail::sum_columns_of_later<A, decltype(v)::value, 1>(
        rows, cols, detail::AddElement<T>{x, cols}, detail::ColumnPlaces<A>(y), "column_sums");
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
