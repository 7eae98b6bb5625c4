#pragma once
#include "ppma/core/names_begin.hpp"
// Bilinear and nearest resizing of a (B,H,W,C) array.

#include <algorithm>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/args.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// One axis: which inputs each output reads, and which outputs may read each input.
struct Axis {
  struct Tap {
    i64 low, high;
    double f;  // the share of `high`
    PPMA_HD double share(i64 input) const {
      return (low == input ? 1 - f : 0) + (high == input ? f : 0);
    }
  };
  struct Range {
    i64 begin, end;
  };
  i64 size, n;  // inputs, outputs
  Resize how;

  PPMA_HD i64 outputs() const { return n; }
  PPMA_HD i64 inputs() const { return size; }
  PPMA_HD double step() const {  // inputs an output
    return how != Resize::bilinear_align_corners
               ? static_cast<double>(size) / static_cast<double>(n)
           : n > 1 ? static_cast<double>(size - 1) / static_cast<double>(n - 1)
                   : 0;
  }
  PPMA_HD Tap out(i64 o) const {
    if (how == Resize::nearest) return {o * size / n, o * size / n, 0};
    double source = static_cast<double>(o) * step();
    if (how == Resize::bilinear)
      source =
          (static_cast<double>(o) + 0.5) * static_cast<double>(size) / static_cast<double>(n) - 0.5;
    if (source < 0) source = 0;
    i64 low = static_cast<i64>(source);
    if (low > size - 1) low = size - 1;
    return low + 1 < size ? Tap{low, low + 1, source - static_cast<double>(low)} : Tap{low, low, 0};
  }
  /// All outputs whose share of input i is not 0, and perhaps a neighbour more.
  PPMA_HD Range in(i64 i) const {
    if (how == Resize::nearest) return {(i * n + size - 1) / size, ((i + 1) * n + size - 1) / size};
    const double s = step(), shift = how == Resize::bilinear ? 0.5 : 0;
    Range r{0, n};
    if (s > 0) {
      const double first = (static_cast<double>(i - 1) + shift) / s - shift,
                   last = (static_cast<double>(i + 1) + shift) / s - shift;
      if (i > 0 && first >= 1) r.begin = static_cast<i64>(first);
      if (i < size - 1 && last + 2 < static_cast<double>(n)) r.end = static_cast<i64>(last) + 2;
    }
    return r;
  }
};

template <class T>
void resize(Cpu, i64 batch, i64 channels, const Axis& rows, const Axis& cols, const T* x, T* y) {
  const i64 height = rows.inputs(), width = cols.inputs(), h = rows.outputs(), w = cols.outputs();
  parallel_for(batch * h, 1, [&, x, y](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit) {
      const Axis::Tap r = rows.out(unit % h);
      const T *top = x + (unit / h * height + r.low) * width * channels,
              *bottom = top + (r.high - r.low) * width * channels;
      const T fr = static_cast<T>(r.f);
      for (i64 j = 0; j < w; ++j) {
        const Axis::Tap c = cols.out(j);
        const T fc = static_cast<T>(c.f);
        const T *a = top + c.low * channels, *b = top + c.high * channels;
        const T *d = bottom + c.low * channels, *e = bottom + c.high * channels;
        T* to = y + (unit * w + j) * channels;
        for (i64 k = 0; k < channels; ++k)
          to[k] = (1 - fr) * ((1 - fc) * a[k] + fc * b[k]) + fr * ((1 - fc) * d[k] + fc * e[k]);
      }
    }
  });
}

template <class T>
void resize_backward(Cpu, i64 batch, i64 channels, const Axis& rows, const Axis& cols, const T* dy,
                     T* dx) {
  const i64 height = rows.inputs(), width = cols.inputs(), h = rows.outputs(), w = cols.outputs();
  parallel_for(batch * height, 1, [&, dy, dx](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit)
      for (i64 j = 0; j < width; ++j) {
        const i64 i = unit % height;
        T* to = dx + (unit * width + j) * channels;
        std::fill_n(to, channels, T(0));
        const Axis::Range above = rows.in(i), beside = cols.in(j);
        for (i64 a = above.begin; a < above.end; ++a)
          for (i64 b = beside.begin; b < beside.end; ++b) {
            const T share = static_cast<T>(rows.out(a).share(i) * cols.out(b).share(j));
            if (share == 0) continue;
            const T* from = dy + ((unit / height * h + a) * w + b) * channels;
            for (i64 k = 0; k < channels; ++k) to[k] += share * from[k];
          }
      }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/resize.cuh"
#endif

#include "ppma/core/names_end.hpp"
