#pragma once
// The pictures of lesson 10: figures of flat colours, with noise that is to be smoothed away; and
// what a token knows of itself.

#include <algorithm>
#include <cmath>

#include "ppma/data/shapes.hpp"
#include "ppma/ops/arithmetic.hpp"

inline constexpr ppma::i64 sheet_side = 24, sheet_tokens = sheet_side * sheet_side;

struct Sheet {
  ppma::Tensor labels;        // uint8 (H,W): 0 on the ground
  ppma::Tensor clean, noisy;  // f64 (1,H,W,3), colours from 0 to 1
};

/// Sheet number `index`, each with a palette of its own; the noise has deviation 0.1.
inline Sheet make_sheet(ppma::u64 index) {
  using namespace ppma;
  const Scene scene =
      draw_shapes({.height = sheet_side, .width = sheet_side, .most_extra = 2, .most_clutter = 0},
                  static_cast<i64>(index));
  Rng rng(10, index);
  double palette[1 + figure_count][3];
  for (auto& color : palette)
    for (double& c : color) c = rng.uniform(0.0, 1.0);
  Tensor clean = Tensor::empty({1, sheet_side, sheet_side, 3}, DType::f64);
  for (i64 p = 0; p < sheet_tokens; ++p)
    for (i64 c = 0; c < 3; ++c)
      clean.data<double>()[3 * p + c] = palette[scene.labels.data<u8>()[p]][c];
  return {scene.labels, clean, clean + Tensor::randn(clean.shape(), rng, 0.1, DType::f64)};
}

/// (1,H,W,5): a token's colour and, with `mixed`, how far it is from the left and from the upper
/// neighbour's, squared, times 4, which convolutions with kernels (-1 1) would tell; else zeros.
inline ppma::Tensor sheet_features(const ppma::Tensor& x, bool mixed) {
  using namespace ppma;
  Tensor f = Tensor::zeros({1, sheet_side, sheet_side, 5}, DType::f64);
  const double* v = x.data<double>();
  for (i64 p = 0; p < sheet_tokens; ++p)
    for (i64 c = 0; c < 3; ++c) {
      double* to = f.data<double>() + 5 * p;
      to[c] = v[3 * p + c];
      const auto far = [&](i64 q) { return 4 * (to[c] - v[3 * q + c]) * (to[c] - v[3 * q + c]); };
      if (mixed && p % sheet_side > 0) to[3] += far(p - 1);
      if (mixed && p / sheet_side > 0) to[4] += far(p - sheet_side);
    }
  return f;
}

/// The mean alpha of log decays (2,1,1,H,W) on edges across a contour, or on the others.
inline double mean_alpha(const Sheet& s, const ppma::Tensor& log_decays, bool contour) {
  using namespace ppma;
  const u8* label = s.labels.data<u8>();
  double sum = 0, count = 0;
  for (i64 p = 1; p < sheet_tokens; ++p)
    if (p % sheet_side != 0 && (label[p] != label[p - 1]) == contour)
      sum += std::exp(log_decays.data<double>()[p]), ++count;
  return sum / count;
}

/// uint8 (H,W,3), to look at.
inline ppma::Tensor sheet_photo(const ppma::Tensor& x) {
  using namespace ppma;
  Tensor image = Tensor::empty({sheet_side, sheet_side, 3}, DType::uint8);
  for (i64 p = 0; p < image.numel(); ++p)
    image.data<u8>()[p] = static_cast<u8>(255 * std::clamp(x.data<double>()[p], 0.0, 1.0));
  return image;
}
