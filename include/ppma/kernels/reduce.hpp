#pragma once
// Sums over axes, on raw pointers. Long sums are cut into pieces of fixed length whose partial sums are added in order:
// rounding grows with the logarithm-like depth instead of the length, and the result does not depend on the threads.

#include <algorithm>
#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/core/config.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/core/shape.hpp"

namespace ppma::inline PPMA_ABI::kernels {

/// y += x, n elements.
template <class T>
void add_to(Cpu, i64 n, const T* x, T* y) {
  parallel_for(n, 1 << 15, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) y[i] += x[i];
  });
}

/// Sum of n contiguous elements: sixteen running sums, then pairwise over pieces of 4096.
template <class T>
T sum_contiguous(const T* x, i64 n) {
  if (n > 4096) {
    const i64 half = n / 2 / 16 * 16;
    return sum_contiguous(x, half) + sum_contiguous(x + half, n - half);
  }
  T lane[16] = {};
  i64 i = 0;
  for (; i + 16 <= n; i += 16)
    for (int l = 0; l < 16; ++l) lane[l] += x[i + l];
  T total = 0;
  for (int l = 0; l < 16; ++l) total += lane[l];
  for (; i < n; ++i) total += x[i];
  return total;
}

/// y[c] = sum over rows of x[r, c]; x is (rows, cols). Rows are summed in blocks of 256, then the blocks.
template <class T>
void sum_rows(Cpu, i64 rows, i64 cols, const T* x, T* y) {
  constexpr i64 block = 256;
  const i64 blocks = (rows + block - 1) / block;
  if (blocks <= 1) {
    std::fill_n(y, cols, T(0));
    for (i64 r = 0; r < rows; ++r)
      for (i64 c = 0; c < cols; ++c) y[c] += x[r * cols + c];
    return;
  }
  const Workspace<T> partial(blocks * cols);
  T* p = partial.data();
  parallel_for(blocks, std::max<i64>(1, 65536 / (block * cols)), [=](i64 begin, i64 end) {
    for (i64 b = begin; b < end; ++b) sum_rows(Cpu{}, std::min(block, rows - b * block), cols, x + b * block * cols, p + b * cols);
  });
  sum_rows(Cpu{}, blocks, cols, p, y);
}

/// y (shape `to`) = x (shape `from`) summed over the axes where `to` is 1 (or absent, in front) and `from` is not.
template <class T>
void sum_to(Cpu, const Shape& from, const T* x, const Shape& to, T* y) {
  // Neighbouring axes of one kind (kept or summed) are one axis: kind[a], size[a] from the outermost.
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
    *y = sum_contiguous(x, n);
  } else if (size.size() == 2 && summed[1]) {  // (kept, summed)
    const i64 cols = size[1];
    parallel_for(size[0], std::max<i64>(1, 32768 / cols), [=](i64 begin, i64 end) {
      for (i64 r = begin; r < end; ++r) y[r] = sum_contiguous(x + r * cols, cols);
    });
  } else if (size.size() == 2) {  // (summed, kept)
    sum_rows(Cpu{}, size[0], size[1], x, y);
  } else {
    // Sum the innermost summed axis away and go on with what is left: kept axes outside of it are a batch.
    const bool inner = summed.back();
    const i64 kept = inner ? 1 : size.back();
    const i64 count = inner ? size.back() : size[size.size() - 2];
    const i64 batch = n / (kept * count);
    const Workspace<T> left(batch * kept);
    T* p = left.data();
    for (i64 b = 0; b < batch; ++b) {
      if (inner) p[b] = sum_contiguous(x + b * count, count);
      else sum_rows(Cpu{}, count, kept, x + b * count * kept, p + b * kept);
    }
    Shape rest, target;
    for (std::size_t a = 0; a + (inner ? 1 : 2) < size.size(); ++a) rest.push_back(size[a]), target.push_back(summed[a] ? 1 : size[a]);
    rest.push_back(kept), target.push_back(kept);
    sum_to(Cpu{}, rest, p, target, y);
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels
