#pragma once
#include "ppma/core/names_begin.hpp"
// Resizing channels-last maps to any grid. Legend: B batch, H W input grid, h w output grid, C channels.
//
//   bilinear             source = (o + 1/2) H / h - 1/2, at least 0; neighbours end at the last row
//   bilinear, corners    source = o (H - 1) / (h - 1)
//   nearest              source = floor(o H / h)
//
// Along an axis y_o = (1 - f) x_low + f x_high. Backward gathers: the outputs that read one input are neighbours, so no
// two threads write one cell.

#include <algorithm>

#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

enum class Resize { bilinear, bilinear_align_corners, nearest };

namespace kernels {

/// One axis: which inputs each output reads, and which outputs may read each input.
struct Axis {
  struct Tap {
    i64 low, high;
    double f;  // the share of `high`
    PPMA_HD double share(i64 input) const { return (low == input ? 1 - f : 0) + (high == input ? f : 0); }
  };
  struct Range {
    i64 begin, end;
  };
  i64 size, n;  // inputs, outputs
  Resize how;

  PPMA_HD i64 outputs() const { return n; }
  PPMA_HD i64 inputs() const { return size; }
  PPMA_HD double step() const {  // inputs an output
    return how != Resize::bilinear_align_corners ? static_cast<double>(size) / static_cast<double>(n)
           : n > 1                               ? static_cast<double>(size - 1) / static_cast<double>(n - 1)
                                                 : 0;
  }
  PPMA_HD Tap out(i64 o) const {
    if (how == Resize::nearest) return {o * size / n, o * size / n, 0};
    double source = static_cast<double>(o) * step();
    if (how == Resize::bilinear) source = (static_cast<double>(o) + 0.5) * static_cast<double>(size) / static_cast<double>(n) - 0.5;
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
      const double first = (static_cast<double>(i - 1) + shift) / s - shift, last = (static_cast<double>(i + 1) + shift) / s - shift;
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
      const T *top = x + (unit / h * height + r.low) * width * channels, *bottom = top + (r.high - r.low) * width * channels;
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
void resize_backward(Cpu, i64 batch, i64 channels, const Axis& rows, const Axis& cols, const T* dy, T* dx) {
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

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/ops/resize.cuh"
#endif

namespace ppma::inline PPMA_ABI {

/// x (B,H,W,C) -> (B,h,w,C), as PyTorch's interpolate with a size. Error: a map without elements, an empty grid.
inline Tensor resize(const Tensor& x, i64 h, i64 w, Resize how = Resize::bilinear) {
  check(x.defined() && x.rank() == 4 && x.numel() > 0, "resize: x must be (B,H,W,C) with elements, got ",
        x.defined() ? x.shape().str() : std::string("an undefined tensor"));
  check(h >= 1 && w >= 1, "resize: the output grid is ", h, " x ", w, "; both must be at least 1");
  const i64 batch = x.dim(0), channels = x.dim(3);
  const kernels::Axis rows{x.dim(1), h, how}, cols{x.dim(2), w, how};
  Tensor y = Tensor::empty({batch, h, w, channels}, x.dtype(), x.device());
  visit(x.device(), x.dtype(), "resize", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::resize(on, batch, channels, rows, cols, x.data<T>(), y.data<T>());
  });
  return record(y, "resize", {x}, [=, shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), "resize", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::resize_backward(on, batch, channels, rows, cols, dy.data<T>(), dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
