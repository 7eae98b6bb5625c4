#pragma once
#include "ppma/core/names_begin.hpp"
// Average and largest of windows of a (B,H,W,C) array.

#include <algorithm>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/map.hpp"
#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// One axis of input cells cut into windows [begin, end); padding is cut off. Worked out, not
/// stored: threads of any device carry it along.
struct Windows {
  struct Range {
    i64 begin, end;
  };
  i64 size, count;  // input cells, windows
  // kernel 0: adaptive, window o is [floor(o size / count), ceil((o + 1) size / count))
  i64 kernel, stride, padding;

  PPMA_HD i64 outputs() const { return count; }
  PPMA_HD i64 inputs() const { return size; }
  PPMA_HD Range out(i64 o) const {
    if (kernel == 0) return {o * size / count, ((o + 1) * size + count - 1) / count};
    const i64 begin = o * stride - padding, end = begin + kernel;
    return {begin < 0 ? 0 : begin, end < size ? end : size};
  }
  /// The windows that hold cell i.
  PPMA_HD Range in(i64 i) const {
    if (kernel == 0) return {i * count / size, ((i + 1) * count + size - 1) / size};
    const i64 before = i + padding - kernel + stride, last = (i + padding) / stride + 1;
    return {before < 0 ? 0 : before / stride, last < count ? last : count};
  }
};

/// y (B,h,w,C) = mean over each window of x (B,H,W,C); divides by `area`, or by the window's own
/// cells if area is 0.
template <class T>
void avg_pool(Cpu, i64 batch, i64 channels, const Windows& rows, const Windows& cols, i64 area,
              const T* x, T* y) {
  const i64 height = rows.inputs(), width = cols.inputs(), h = rows.outputs(), w = cols.outputs();
  parallel_for(batch * h, 1, [&, x, y](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit) {
      const auto r = rows.out(unit % h);
      for (i64 j = 0; j < w; ++j) {
        const auto c = cols.out(j);
        T* to = y + (unit * w + j) * channels;
        std::fill_n(to, channels, T(0));
        for (i64 a = r.begin; a < r.end; ++a)
          for (i64 b = c.begin; b < c.end; ++b)
            detail::add_row(channels, x + ((unit / h * height + a) * width + b) * channels, to);
        const T scale =
            T(1) / static_cast<T>(area > 0 ? area : (r.end - r.begin) * (c.end - c.begin));
        for (i64 k = 0; k < channels; ++k) to[k] *= scale;
      }
    }
  });
}

template <class T>
void avg_pool_backward(Cpu, i64 batch, i64 channels, const Windows& rows, const Windows& cols,
                       i64 area, const T* dy, T* dx) {
  const i64 height = rows.inputs(), width = cols.inputs(), h = rows.outputs(), w = cols.outputs();
  parallel_for(batch * height, 1, [&, dy, dx](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit)
      for (i64 j = 0; j < width; ++j) {
        T* to = dx + (unit * width + j) * channels;
        std::fill_n(to, channels, T(0));
        const auto r = rows.in(unit % height), c = cols.in(j);
        for (i64 a = r.begin; a < r.end; ++a)
          for (i64 b = c.begin; b < c.end; ++b) {
            const auto wr = rows.out(a), wc = cols.out(b);
            const T scale =
                T(1) / static_cast<T>(area > 0 ? area : (wr.end - wr.begin) * (wc.end - wc.begin));
            const T* from = dy + ((unit / height * h + a) * w + b) * channels;
            for (i64 k = 0; k < channels; ++k) to[k] += scale * from[k];
          }
      }
  });
}

namespace detail {

template <class T>
PPMA_INLINE Vec<T> load_up_to(const T* p, i64 count) {
  return count == lanes<T> ? load(p) : load_some(p, count);
}
template <class T>
PPMA_INLINE void store_up_to(T* p, Vec<T> v, i64 count) {
  count == lanes<T> ? store<T>(p, v) : store_some<T>(p, v, count);
}

// Largest element of a window and the number of the first cell that holds it, for `count` channels
// at once. x is the sample's map from the first of these channels on.
template <class T>
PPMA_INLINE Vec<T> window_max(const Windows::Range& r, const Windows::Range& c, i64 width,
                              i64 channels, const T* x, i64 count, VecBits<T>& where) {
  const auto get = [=](i64 a, i64 b) { return load_up_to(x + (a * width + b) * channels, count); };
  using Int = std::decay_t<decltype(where[0])>;
  Vec<T> best = get(r.begin, c.begin);
  where = VecBits<T>{};
  Int cell = 0;
  for (i64 a = r.begin; a < r.end; ++a)
    for (i64 b = c.begin; b < c.end; ++b)
      take_extreme(get(a, b), VecBits<T>{} + cell++, T(1), best, where);
  return best;
}

}  // namespace detail

/// y (B,h,w,C) = the largest of each window of x (B,H,W,C).
template <class T>
void max_pool(Cpu, i64 batch, i64 channels, const Windows& rows, const Windows& cols, const T* x,
              T* y) {
  const i64 height = rows.inputs(), width = cols.inputs(), h = rows.outputs(), w = cols.outputs();
  parallel_for(batch * h, 1, [&, x, y](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit)
      for (i64 j = 0; j < w; ++j)
        for (i64 k = 0; k < channels; k += lanes<T>) {
          const i64 count = std::min(lanes<T>, channels - k);
          VecBits<T> where;
          const Vec<T> best =
              detail::window_max(rows.out(unit % h), cols.out(j), width, channels,
                                 x + unit / h * height * width * channels + k, count, where);
          detail::store_up_to<T>(y + (unit * w + j) * channels + k, best, count);
        }
  });
}

/// dx (zeros) += dy at the first largest cell of each window. One sample and one vector of channels
/// is one thread's.
template <class T>
void max_pool_backward(Cpu, i64 batch, i64 channels, const Windows& rows, const Windows& cols,
                       const T* x, const T* dy, T* dx) {
  const i64 height = rows.inputs(), width = cols.inputs(), h = rows.outputs(), w = cols.outputs();
  const i64 strips = (channels + lanes<T> - 1) / lanes<T>;
  parallel_for(batch * strips, 1, [&, x, dy, dx](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit) {
      const i64 b = unit / strips, k = unit % strips * lanes<T>,
                count = std::min(lanes<T>, channels - k);
      const i64 sample = b * height * width * channels + k;
      for (i64 i = 0; i < h; ++i)
        for (i64 j = 0; j < w; ++j) {
          const auto r = rows.out(i), c = cols.out(j);
          VecBits<T> where;
          detail::window_max(r, c, width, channels, x + sample, count, where);
          const Vec<T> g = detail::load_up_to(dy + ((b * h + i) * w + j) * channels + k, count);
          std::decay_t<decltype(where[0])> cell = 0;
          for (i64 a = r.begin; a < r.end; ++a)
            for (i64 e = c.begin; e < c.end; ++e) {
              T* to = dx + sample + (a * width + e) * channels;
              detail::store_up_to<T>(
                  to, detail::load_up_to(to, count) + (where == cell++ ? g : Vec<T>{}), count);
            }
        }
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/pool.cuh"
#endif

#include "ppma/core/names_end.hpp"
