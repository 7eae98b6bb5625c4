#pragma once
// Resizing channels-last maps to any grid. Legend: B batch, H W input grid, h w output grid, C channels.
//
//   bilinear             source = (o + 1/2) H / h - 1/2, at least 0; neighbours end at the last row
//   bilinear, corners    source = o (H - 1) / (h - 1)
//   nearest              source = floor(o H / h)
//
// An axis is a list of taps, one an output: y_o = (1 - f) x_low + f x_high. Backward gathers: the outputs that read one
// input are neighbours, so no two threads write one cell.

#include <algorithm>
#include <cmath>
#include <vector>

#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

enum class Resize { bilinear, bilinear_align_corners, nearest };

namespace kernels {

/// Which inputs each output of one axis reads, and which outputs read each input.
struct Taps {
  struct Tap {
    i64 low, high;
    double f;  // the share of `high`
    double share(i64 input) const { return (low == input ? 1 - f : 0) + (high == input ? f : 0); }
  };
  struct Range {
    i64 begin, end;
  };
  std::vector<Tap> of_output;
  std::vector<Range> of_input;

  i64 outputs() const { return static_cast<i64>(of_output.size()); }
  i64 inputs() const { return static_cast<i64>(of_input.size()); }
  const Tap& out(i64 o) const { return of_output[static_cast<std::size_t>(o)]; }
  const Range& in(i64 i) const { return of_input[static_cast<std::size_t>(i)]; }

  Taps(i64 size, i64 n, Resize how) : of_input(static_cast<std::size_t>(size), {n, 0}) {
    for (i64 o = 0; o < n; ++o) {
      Tap t{o * size / n, o * size / n, 0};
      if (how != Resize::nearest) {
        const double at = static_cast<double>(o), from = static_cast<double>(size), to = static_cast<double>(n);
        const double source = how == Resize::bilinear ? std::max(0.0, (at + 0.5) * from / to - 0.5)
                              : n > 1                 ? at * (from - 1) / (to - 1)
                                                      : 0.0;
        t.low = std::min(static_cast<i64>(source), size - 1);
        t.high = std::min(t.low + 1, size - 1);
        t.f = t.high > t.low ? source - static_cast<double>(t.low) : 0.0;
      }
      for (const i64 i : {t.low, t.high}) {
        Range& r = of_input[static_cast<std::size_t>(i)];
        r = {std::min(r.begin, o), std::max(r.end, o + 1)};
      }
      of_output.push_back(t);
    }
  }
};

template <class T>
void resize(Cpu, i64 batch, i64 channels, const Taps& rows, const Taps& cols, const T* x, T* y) {
  const i64 height = rows.inputs(), width = cols.inputs(), h = rows.outputs(), w = cols.outputs();
  parallel_for(batch * h, 1, [&, x, y](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit) {
      const Taps::Tap& r = rows.out(unit % h);
      const T *top = x + (unit / h * height + r.low) * width * channels, *bottom = top + (r.high - r.low) * width * channels;
      const T fr = static_cast<T>(r.f);
      for (i64 j = 0; j < w; ++j) {
        const Taps::Tap& c = cols.out(j);
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
void resize_backward(Cpu, i64 batch, i64 channels, const Taps& rows, const Taps& cols, const T* dy, T* dx) {
  const i64 height = rows.inputs(), width = cols.inputs(), h = rows.outputs(), w = cols.outputs();
  parallel_for(batch * height, 1, [&, dy, dx](i64 begin, i64 end) {
    for (i64 unit = begin; unit < end; ++unit)
      for (i64 j = 0; j < width; ++j) {
        const i64 i = unit % height;
        T* to = dx + (unit * width + j) * channels;
        std::fill_n(to, channels, T(0));
        for (i64 a = rows.in(i).begin; a < rows.in(i).end; ++a)
          for (i64 b = cols.in(j).begin; b < cols.in(j).end; ++b) {
            const T share = static_cast<T>(rows.out(a).share(i) * cols.out(b).share(j));
            const T* from = dy + ((unit / height * h + a) * w + b) * channels;
            for (i64 k = 0; k < channels; ++k) to[k] += share * from[k];
          }
      }
  });
}

}  // namespace kernels

/// x (B,H,W,C) -> (B,h,w,C), as PyTorch's interpolate with a size. Error: a map without elements, an empty grid.
inline Tensor resize(const Tensor& x, i64 h, i64 w, Resize how = Resize::bilinear) {
  check(x.defined() && x.rank() == 4 && x.numel() > 0, "resize: x must be (B,H,W,C) with elements, got ",
        x.defined() ? x.shape().str() : std::string("an undefined tensor"));
  check(h >= 1 && w >= 1, "resize: the output grid is ", h, " x ", w, "; both must be at least 1");
  const i64 batch = x.dim(0), channels = x.dim(3);
  const kernels::Taps rows(x.dim(1), h, how), cols(x.dim(2), w, how);
  Tensor y = Tensor::empty({batch, h, w, channels}, x.dtype(), x.device());
  visit_cpu(x.device(), x.dtype(), "resize", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::resize(on, batch, channels, rows, cols, x.data<T>(), y.data<T>());
  });
  return record(y, "resize", {x}, [=, shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    visit_cpu(dy.device(), dy.dtype(), "resize", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::resize_backward(on, batch, channels, rows, cols, dy.data<T>(), dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace ppma::inline PPMA_ABI
