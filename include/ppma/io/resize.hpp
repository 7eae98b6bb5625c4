#pragma once
#include "ppma/core/names_begin.hpp"
// Resizing 8-bit images and label maps, as the pipelines do that the published networks were
// trained with.
// Legend: H W rows and columns of the image, C channels. All functions take uint8 (H,W,C) and
// return (height,width,C).
//
//   resize_antialiased  Pillow's: separable, kernel widened when shrinking, rounded to 8 bits after
//                       each pass
//   resize_bilinear     OpenCV's and PyTorch's (align_corners false): two neighbours, no
//                       antialiasing
//   resize_nearest      label maps: source = floor(target * in / out)

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Kernels of a resize that averages where it shrinks.
enum class Filter : u8 { bilinear, bicubic };

namespace detail {

PPMA_API void check_resize(const Tensor& image, i64 height, i64 width, const char* op);

}  // namespace detail

/// Pillow's Image.resize((width, height), BILINEAR or BICUBIC), to the last bit: (H,W,C) to
/// (height,width,C). The horizontal pass comes first, as in every Pillow that the published
/// networks were trained with; Pillow 13 takes the vertical one first where that is cheaper, which
/// moves a pixel by a level or two.
PPMA_API Tensor resize_antialiased(const Tensor& image, i64 height, i64 width,
                                   Filter filter = Filter::bilinear);

/// Half-pixel bilinear without antialiasing: source = (target + 0.5) in / out - 0.5, clamped to the
/// image; the result is that of exact arithmetic, rounded.
PPMA_API Tensor resize_bilinear(const Tensor& image, i64 height, i64 width);

/// Copies pixels, so that labels stay labels.
PPMA_API Tensor resize_nearest(const Tensor& image, i64 height, i64 width);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace ppma::inline PPMA_ABI {

namespace detail {

void check_resize(const Tensor& image, i64 height, i64 width, const char* op) {
  check(image.defined() && image.rank() == 3 && image.dtype() == DType::uint8 && image.numel() > 0,
        op, ": needs a uint8 image (H,W,C), got ",
        image.defined() ? image.shape().str() : std::string("nothing"), " ", image.dtype());
  check(height > 0 && width > 0 && height <= 65535 && width <= 65535, op, ": cannot resize to ",
        height, " x ", width, " (1 to 65535)");
}

// Which inputs make one output, and their weights in units of 2^-22.
struct Taps {
  i64 first = 0;
  std::vector<std::int32_t> weights;
};

// Pillow's precompute_coeffs (src/libImaging/Resample.c), in its order of operations, so that
// results are the same.
inline std::vector<Taps> antialiased_taps(i64 in, i64 out, Filter filter) {
  const double scale = static_cast<double>(in) / static_cast<double>(out),
               widen = std::max(scale, 1.0);
  const double support = (filter == Filter::bilinear ? 1.0 : 2.0) * widen;
  const auto kernel = [filter](double x) {
    x = std::abs(x);
    if (filter == Filter::bilinear) return x < 1 ? 1 - x : 0.0;
    constexpr double a = -0.5;  // Keys
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
  };
  std::vector<Taps> taps(static_cast<std::size_t>(out));
  std::vector<double> w;
  for (i64 o = 0; o < out; ++o) {
    const double centre = (static_cast<double>(o) + 0.5) * scale;
    const i64 first = std::max(i64{0}, static_cast<i64>(centre - support + 0.5));
    const i64 last = std::min(in, static_cast<i64>(centre + support + 0.5));
    w.clear();
    double sum = 0;
    for (i64 i = first; i < last; ++i) {
      w.push_back(kernel((static_cast<double>(i) - centre + 0.5) * (1.0 / widen)));
      sum += w.back();
    }
    Taps& t = taps[static_cast<std::size_t>(o)];
    t.first = first;
    for (const double x : w) {
      const double fixed = (sum != 0 ? x / sum : x) * (1 << 22);
      t.weights.push_back(static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return taps;
}

inline std::vector<Taps> bilinear_taps(i64 in, i64 out) {
  std::vector<Taps> taps(static_cast<std::size_t>(out));
  for (i64 o = 0; o < out; ++o) {
    const double x =
        (static_cast<double>(o) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5;
    const double source = std::clamp(x, 0.0, static_cast<double>(in - 1));
    Taps& t = taps[static_cast<std::size_t>(o)];
    t.first = std::min(static_cast<i64>(source), std::max(in - 2, i64{0}));
    const auto second =
        static_cast<std::int32_t>(std::lround((source - static_cast<double>(t.first)) * (1 << 22)));
    t.weights = in > 1 ? std::vector<std::int32_t>{(1 << 22) - second, second}
                       : std::vector<std::int32_t>{1 << 22};
  }
  return taps;
}

// Resizes the middle axis of (outer, in, inner) to as many as there are taps; results are rounded
// and clipped.
inline Tensor apply_taps(const Tensor& x, const Shape& shape, i64 outer, i64 in, i64 inner,
                         const std::vector<Taps>& taps) {
  Tensor y = Tensor::empty(shape, DType::uint8);
  const u8* from = x.data<u8>();
  u8* to = y.data<u8>();
  std::vector<std::int32_t> sums(static_cast<std::size_t>(inner));
  for (i64 b = 0; b < outer; ++b)
    for (const Taps& t : taps) {
      std::fill(sums.begin(), sums.end(), 1 << 21);  // one half
      const u8* row = from + (b * in + t.first) * inner;
      for (const std::int32_t weight : t.weights) {
        for (i64 c = 0; c < inner; ++c) sums[static_cast<std::size_t>(c)] += weight * row[c];
        row += inner;
      }
      for (i64 c = 0; c < inner; ++c)
        to[c] = static_cast<u8>(std::clamp(sums[static_cast<std::size_t>(c)] >> 22, 0, 255));
      to += inner;
    }
  return y;
}

}  // namespace detail

Tensor resize_antialiased(const Tensor& image, i64 height, i64 width, Filter filter) {
  detail::check_resize(image, height, width, "resize_antialiased");
  const i64 H = image.dim(0), W = image.dim(1), C = image.dim(2);
  Tensor y = image;
  if (W != width)
    y = detail::apply_taps(y, {H, width, C}, H, W, C, detail::antialiased_taps(W, width, filter));
  if (H != height)
    y = detail::apply_taps(y, {height, width, C}, 1, H, width * C,
                           detail::antialiased_taps(H, height, filter));
  return y;
}

Tensor resize_bilinear(const Tensor& image, i64 height, i64 width) {
  detail::check_resize(image, height, width, "resize_bilinear");
  const i64 H = image.dim(0), W = image.dim(1), C = image.dim(2);
  // Rounded once, at the end: rows are kept with the 22 fractional bits of the horizontal weights.
  const std::vector<detail::Taps> rows = detail::bilinear_taps(H, height),
                                  columns = detail::bilinear_taps(W, width);
  struct Row {
    i64 index = -1;
    std::vector<std::int32_t> values;
  } kept[2];  // the two rows of the input that the last row of the output lay between
  for (Row& r : kept) r.values.resize(static_cast<std::size_t>(width * C));
  const auto widened = [&](i64 i) -> const std::int32_t* {
    Row& r = kept[i % 2];
    if (r.index == i) return r.values.data();
    r.index = i;
    const u8* x = image.data<u8>() + i * W * C;
    std::int32_t* to = r.values.data();
    for (const detail::Taps& t : columns) {
      const u8* left = x + t.first * C;
      for (i64 c = 0; c < C; ++c)
        *to++ = t.weights[0] * left[c] + (W > 1 ? t.weights[1] * left[C + c] : 0);
    }
    return r.values.data();
  };
  Tensor y = Tensor::empty({height, width, C}, DType::uint8);
  u8* to = y.data<u8>();
  for (const detail::Taps& t : rows) {
    const std::int32_t* above = widened(t.first);
    const std::int32_t* below = H > 1 ? widened(t.first + 1) : above;
    const i64 first = t.weights[0], second = H > 1 ? t.weights[1] : 0;
    for (i64 i = 0; i < width * C; ++i)
      to[i] = static_cast<u8>((first * above[i] + second * below[i] + (i64{1} << 43)) >> 44);
    to += width * C;
  }
  return y;
}

Tensor resize_nearest(const Tensor& image, i64 height, i64 width) {
  detail::check_resize(image, height, width, "resize_nearest");
  const i64 H = image.dim(0), W = image.dim(1), C = image.dim(2);
  Tensor y = Tensor::empty({height, width, C}, DType::uint8);
  u8* to = y.data<u8>();
  for (i64 i = 0; i < height; ++i)
    for (i64 j = 0; j < width; ++j, to += C)
      std::copy_n(image.data<u8>() + ((i * H / height) * W + j * W / width) * C, C, to);
  return y;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
