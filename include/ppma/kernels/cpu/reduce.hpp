#pragma once
#include "ppma/core/names_begin.hpp"
// Sums and extremes over axes, on raw pointers. Long sums are cut into pieces of fixed length whose
// partial sums are added in order: rounding grows with the number of pieces' logarithm instead of
// the length, and the result does not depend on the threads.

#include <algorithm>
#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/core/config.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

template <class T>
PPMA_INLINE void add_row(i64 n, const T* x, T* y) {
  i64 i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) store<T>(y + i, load(y + i) + load(x + i));
  for (; i < n; ++i) y[i] += x[i];
}

}  // namespace detail

/// y += x, n elements.
template <class T>
void add_to(Cpu, i64 n, const T* x, T* y) {
  parallel_for(n, 1 << 15,
               [=](i64 begin, i64 end) { detail::add_row(end - begin, x + begin, y + begin); });
}

/// Sum of n contiguous elements: four vectors of running sums, pairwise over pieces of at most
/// 4096.
template <class T>
T sum_contiguous(const T* x, i64 n) {
  if (n > 4096) {
    const i64 half = n / 2 / 64 * 64;
    return sum_contiguous(x, half) + sum_contiguous(x + half, n - half);
  }
  constexpr i64 w = lanes<T>;
  Vec<T> s0{}, s1{}, s2{}, s3{};
  i64 i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    s0 += load(x + i);
    s1 += load(x + i + w);
    s2 += load(x + i + 2 * w);
    s3 += load(x + i + 3 * w);
  }
  for (; i + w <= n; i += w) s0 += load(x + i);
  T total = lane_sum<T>((s0 + s1) + (s2 + s3));
  for (; i < n; ++i) total += x[i];
  return total;
}

/// y[c] = sum over rows of x[r, c]; x is (rows, cols). Rows are summed in blocks of 256, then the
/// blocks.
template <class T>
void sum_rows(Cpu, i64 rows, i64 cols, const T* x, T* y) {
  constexpr i64 block = 256;
  const i64 blocks = (rows + block - 1) / block;
  if (blocks <= 1) {
    std::fill_n(y, cols, T(0));
    for (i64 r = 0; r < rows; ++r) detail::add_row(cols, x + r * cols, y);
    return;
  }
  const Workspace<T> partial(blocks * cols);
  T* p = partial.data();
  parallel_for(blocks, std::max<i64>(1, 65536 / (block * cols)), [=](i64 begin, i64 end) {
    for (i64 b = begin; b < end; ++b)
      sum_rows(Cpu{}, std::min(block, rows - b * block), cols, x + b * block * cols, p + b * cols);
  });
  sum_rows(Cpu{}, blocks, cols, p, y);
}

/// y (shape `to`) = x (shape `from`) summed over the axes where `to` is 1 (or absent, in front) and
/// `from` is not.
template <class T>
void sum_to(Cpu, const Shape& from, const T* x, const Shape& to, T* y) {
  // Neighbouring axes of one kind (kept or summed) are one axis: kind[a], size[a] from the
  // outermost.
  std::vector<i64> size;
  std::vector<bool> summed;
  for (int a = 0; a < from.rank(); ++a) {
    const int b = a - (from.rank() - to.rank());
    const i64 n = from[a];
    if (n == 1) continue;
    const bool s = b < 0 || to[b] == 1;
    if (!size.empty() && summed.back() == s)
      size.back() *= n;
    else
      size.push_back(n), summed.push_back(s);
  }
  const i64 n = from.numel();
  if (n == 0) {
    std::fill_n(y, to.numel(), T(0));
  } else if (size.empty() || (size.size() == 1 && !summed[0])) {
    std::copy_n(x, n, y);
  } else if (size.size() == 1) {
    // 16 Ki elements a piece; the pieces' sums in order.
    constexpr i64 piece = 16384;
    const i64 pieces = (n + piece - 1) / piece;
    const Workspace<T> partial(pieces);
    T* p = partial.data();
    parallel_for(pieces, 4, [=](i64 begin, i64 end) {
      for (i64 i = begin; i < end; ++i)
        p[i] = sum_contiguous(x + i * piece, std::min(piece, n - i * piece));
    });
    *y = sum_contiguous(p, pieces);
  } else if (size.size() == 2 && summed[1]) {  // (kept, summed)
    const i64 cols = size[1];
    parallel_for(size[0], std::max<i64>(1, 32768 / cols), [=](i64 begin, i64 end) {
      for (i64 r = begin; r < end; ++r) y[r] = sum_contiguous(x + r * cols, cols);
    });
  } else if (size.size() == 2) {  // (summed, kept)
    sum_rows(Cpu{}, size[0], size[1], x, y);
  } else {
    // Sum the innermost summed axis away and go on with what is left: kept axes outside of it are a
    // batch.
    const bool inner = summed.back();
    const i64 kept = inner ? 1 : size.back();
    const i64 count = inner ? size.back() : size[size.size() - 2];
    const i64 batch = n / (kept * count);
    const Workspace<T> left(batch * kept);
    T* p = left.data();
    parallel_for(batch, std::max<i64>(1, 32768 / (count * kept)), [=](i64 begin, i64 end) {
      for (i64 b = begin; b < end; ++b) {
        if (inner)
          p[b] = sum_contiguous(x + b * count, count);
        else
          sum_rows(Cpu{}, count, kept, x + b * count * kept, p + b * kept);
      }
    });
    Shape rest, target;
    for (std::size_t a = 0; a + (inner ? 1 : 2) < size.size(); ++a)
      rest.push_back(size[a]), target.push_back(summed[a] ? 1 : size[a]);
    rest.push_back(kept), target.push_back(kept);
    sum_to(Cpu{}, rest, p, target, y);
  }
}

/// Running extreme of one vector of lines, or of one line: v at step k. A NaN wins, and the first
/// of equals.
template <class V, class B, class T>
PPMA_INLINE void take_extreme(V v, B k, T sign, V& best, B& at) {
  auto take = sign * v > sign * best;
  take |= nan_of(v);
  take &= nan_of(best) == 0;
  best = take ? v : best;
  at = take ? k : at;
}

/// Largest (sign = 1) or smallest (sign = -1) element along the middle axis of x (outer, n, inner),
/// n >= 1, and its first index; a NaN wins.
template <class T>
void extreme(Cpu, i64 outer, i64 n, i64 inner, T sign, const T* x, T* best, i64* index) {
  using Int = typename ppma::detail::BitsOf<T>::type;
  parallel_for(outer, std::max<i64>(1, 8192 / (n * inner)), [=](i64 begin, i64 end) {
    for (i64 o = begin; o < end; ++o) {
      const T* p = x + o * n * inner;
      T* b = best + o * inner;
      i64* at = index + o * inner;
      i64 i = 0;
      if (inner == 1 && n >= 2 * lanes<T>) {  // a long line: lane l sees elements l, l + lanes, ...
        Vec<T> most = load(p);
        VecBits<T> where{};
        i64 k = lanes<T>;
        for (; k + lanes<T> <= n; k += lanes<T>)
          take_extreme(load(p + k), VecBits<T>{} + static_cast<Int>(k / lanes<T>), sign, most,
                       where);
        i64 first = 0;
        T value = most[0];
        const auto better = [&](T v, i64 position) {
          const bool nan = is_nan(v), was_nan = is_nan(value);
          if (nan != was_nan ? nan
              : nan          ? position < first
                             : (sign * v > sign * value || (v == value && position < first)))
            value = v, first = position;
        };
        first = where[0] * lanes<T>;
        for (i64 l = 1; l < lanes<T>; ++l) better(most[l], where[l] * lanes<T> + l);
        for (; k < n; ++k) better(p[k], k);
        *b = value, *at = first;
        continue;
      }
      for (; i + lanes<T> <= inner; i += lanes<T>) {
        Vec<T> most = load(p + i);
        VecBits<T> where{};
        for (i64 k = 1; k < n; ++k)
          take_extreme(load(p + k * inner + i), VecBits<T>{} + static_cast<Int>(k), sign, most,
                       where);
        store<T>(b + i, most);
        for (i64 l = 0; l < lanes<T>; ++l) at[i + l] = where[l];
      }
      for (; i < inner; ++i) {
        b[i] = p[i], at[i] = 0;
        for (i64 k = 1; k < n; ++k) take_extreme(p[k * inner + i], k, sign, b[i], at[i]);
      }
    }
  });
}

/// dx (outer, n, inner), zeros before, gets dy (outer, inner) at each line's index: the gradient of
/// extreme.
template <class T>
void scatter_extreme(Cpu, i64 outer, i64 n, i64 inner, const i64* index, const T* dy, T* dx) {
  for (i64 i = 0; i < outer * inner; ++i)
    dx[(i / inner * n + index[i]) * inner + i % inner] = dy[i];
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/reduce.cuh"
#endif

#include "ppma/core/names_end.hpp"
