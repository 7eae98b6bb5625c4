#pragma once
#include "ppma/core/names_begin.hpp"
// Moving elements without changing them: permuted axes, and blocks cut out of or put into rows or
// added to them.
// Elements are moved as unsigned integers of their size, so one kernel serves every dtype.

#include <algorithm>
#include <cstring>
#include <utility>

#include "ppma/core/config.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/kernels/cpu/columns.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// `rows` times `bytes` bytes, from rows at distance `from_step` to rows at distance `to_step`.
inline void copy_rows(Cpu, i64 rows, i64 bytes, const void* from, i64 from_step, void* to,
                      i64 to_step) {
  if (bytes == 0) return;
  if (bytes == from_step && bytes == to_step) bytes *= rows, rows = std::min<i64>(rows, 1);
  const char* source = static_cast<const char*>(from);
  char* target = static_cast<char*>(to);
  constexpr i64 piece = i64{1} << 16;
  const i64 pieces = (bytes + piece - 1) / piece;
  parallel_for(rows * pieces, std::max<i64>(1, 2 * piece / std::min(bytes, piece)),
               [=](i64 begin, i64 end) {
                 for (i64 unit = begin; unit < end; ++unit) {
                   const i64 row = unit / pieces, start = unit % pieces * piece;
                   std::memcpy(target + row * to_step + start, source + row * from_step + start,
                               static_cast<std::size_t>(std::min(piece, bytes - start)));
                 }
               });
}

/// The rows of `from` (rows, cols) added to rows of `to`, both at distances in elements.
template <class T>
void add_rows(Cpu, i64 rows, i64 cols, const T* from, i64 from_step, T* to, i64 to_step) {
  parallel_for(rows, std::max<i64>(1, 32768 / std::max<i64>(1, cols)), [=](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r)
      columns<T>(cols, [=](i64 c, auto lane) {
        using V = decltype(lane);
        T* const at = to + r * to_step + c;
        put(at, V(get<V>(at) + get<V>(from + r * from_step + c)));
      });
  });
}

namespace detail {

// The output's axes, neighbours that stay neighbours joined: sizes, and the distance of one step in
// the input.
struct Moved {
  int rank = 0;
  i64 size[Shape::max_rank] = {}, step[Shape::max_rank] = {};
};

inline Moved moved(const Shape& shape, const int* axes) {
  i64 step[Shape::max_rank] = {}, n = 1;
  for (int k = shape.rank() - 1; k >= 0; --k) step[k] = n, n *= shape[k];
  Moved m;
  for (int k = 0; k < shape.rank(); ++k) {
    const i64 size = shape[axes[k]], s = step[axes[k]];
    if (size == 1) continue;
    if (m.rank > 0 && m.step[m.rank - 1] == s * size)
      m.size[m.rank - 1] *= size, m.step[m.rank - 1] = s;
    else
      m.size[m.rank] = size, m.step[m.rank] = s, ++m.rank;
  }
  return m;
}

// n elements, without a call for short runs such as one head of a token.
template <class T>
PPMA_INLINE void copy_run(i64 n, const T* x, T* y) {
  constexpr i64 line = 64 / static_cast<i64>(sizeof(T));
  for (; n >= line; n -= line, x += line, y += line) std::memcpy(y, x, 64);
  if (n > 0) std::memcpy(y, x, static_cast<std::size_t>(n) * sizeof(T));
}

// y (cols, rows) = the transpose of x (rows, cols), with leading dimensions; 16 x 16 elements at a
// time, so that the 16 lines that are read and the 16 that are written stay in L1.
template <class T>
void transpose_tiles(i64 rows, i64 cols, const T* x, i64 ldx, T* y, i64 ldy) {
  constexpr i64 tile = 16;
  for (i64 r = 0; r < rows; r += tile) {
    const i64 nr = std::min(tile, rows - r);
    for (i64 c = 0; c < cols; c += tile) {
      const i64 nc = std::min(tile, cols - c);
      const T* px = x + r * ldx + c;
      T* py = y + c * ldy + r;
      if (nr == tile && nc == tile) {
        for (i64 j = 0; j < tile; ++j)
          for (i64 i = 0; i < tile; ++i) py[j * ldy + i] = px[i * ldx + j];
      } else {
        for (i64 j = 0; j < nc; ++j)
          for (i64 i = 0; i < nr; ++i) py[j * ldy + i] = px[i * ldx + j];
      }
    }
  }
}

}  // namespace detail

/// y has axis k of size shape[axes[k]]: numpy's transpose.
template <class T>
void permute(Cpu, const Shape& shape, const int* axes, const T* x, T* y) {
  if (shape.numel() == 0) return;
  const detail::Moved m = detail::moved(shape, axes);
  const int last = m.rank - 1;
  if (m.rank <= 1) {  // nothing moves
    const i64 bytes = shape.numel() * static_cast<i64>(sizeof(T));
    copy_rows(Cpu{}, 1, bytes, x, bytes, y, bytes);
    return;
  }
  // Each output axis but two is walked by an odometer. The two are the last one and, where the last
  // axis stays last, the one before (rows are copied), else the axis that was the last one (a
  // matrix is transposed).
  int other = last - 1;
  if (m.step[last] != 1)
    while (m.step[other] != 1) --other;
  i64 size[Shape::max_rank] = {}, in[Shape::max_rank] = {}, out[Shape::max_rank] = {},
      other_out = 1, next = 1, count = 1;
  int outer = 0;
  for (int k = last; k >= 0; --k) {
    if (k == other)
      other_out = next;
    else if (k != last)
      size[outer] = m.size[k], in[outer] = m.step[k], out[outer] = next, count *= m.size[k],
      ++outer;
    next *= m.size[k];
  }
  // Neighbours in the input follow each other, so that what one unit brings into the cache the next
  // one finds there.
  for (int k = 1; k < outer; ++k)
    for (int j = k; j > 0 && in[j] < in[j - 1]; --j)
      std::swap(size[j], size[j - 1]), std::swap(in[j], in[j - 1]), std::swap(out[j], out[j - 1]);
  const i64 n = m.size[last], step = m.step[last], others = m.size[other], other_in = m.step[other];
  const i64 strip = std::min<i64>(others, 64), strips = (others + strip - 1) / strip;
  parallel_for(count * strips, std::max<i64>(1, 16384 / (n * strip)), [=](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit) {
      i64 rest = unit % count;
      const i64 first = unit / count * strip, rows = std::min(strip, others - first);
      i64 from = first * other_in, to = first * other_out;
      for (int k = 0; k < outer; ++k) {
        const i64 at = rest % size[k];
        rest /= size[k];
        from += at * in[k];
        to += at * out[k];
      }
      if (step == 1)
        for (i64 r = 0; r < rows; ++r)
          detail::copy_run(n, x + from + r * other_in, y + to + r * other_out);
      else
        detail::transpose_tiles(n, rows, x + from, step, y + to, other_out);
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/permute.cuh"
#endif

#include "ppma/core/names_end.hpp"
