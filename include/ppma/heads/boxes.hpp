#pragma once
#include "ppma/core/names_begin.hpp"
// Detection's arithmetic on boxes: anchors, delta coding (recipes 3.1).

#include <array>
#include <vector>

#include "ppma/kernels/box_choice.hpp"
#include "ppma/ops/nms.hpp"

namespace ppma::inline PPMA_ABI {

struct AnchorConfig {
  double scale = 8;                       // side = scale * stride
  std::vector<double> ratios{0.5, 1, 2};  // height / width

  bool operator==(const AnchorConfig&) const = default;
};

/// The anchor of a cell of a map, with one of the ratios; its centre is at (column, row) * stride.
PPMA_API Box anchor(i64 row, i64 column, std::size_t ratio, i64 stride, const AnchorConfig& c = {});

/// Anchors of an H x W map, in order of rows, columns, ratios.
PPMA_API std::vector<Box> anchors(i64 height, i64 width, i64 stride, const AnchorConfig& c = {});

struct Delta {
  float dx = 0, dy = 0, dw = 0, dh = 0;
};

struct BoxCoder {
  std::array<double, 4> stds{1, 1, 1, 1};  // of dx, dy, dw, dh
  // decoding changes a side by this factor at least, by its inverse at most
  double wh_ratio_clip = 16.0 / 1000;

  /// The deviations as a delta.
  PPMA_API Delta deviations() const;
  /// What kernels take of it.
  PPMA_API kernels::BoxDecoder decoder() const;
  bool operator==(const BoxCoder&) const = default;
};

/// What moves box p onto g, divided by the deviations. Both must have positive sizes.
PPMA_API Delta encode(const Box& p, const Box& g, const BoxCoder& c = {});

/// The inverse; dw and dh are clamped to +-|ln(wh_ratio_clip)|, the box to the image.
PPMA_API Box decode(const Box& p, const Delta& d, float image_width, float image_height,
                    const BoxCoder& c = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>
#include <cmath>

namespace ppma::inline PPMA_ABI {

Box anchor(i64 row, i64 column, std::size_t ratio, i64 stride, const AnchorConfig& c) {
  const double side = c.scale * static_cast<double>(stride), root = std::sqrt(c.ratios[ratio]);
  const double x = static_cast<double>(column * stride), y = static_cast<double>(row * stride),
               w = side / root / 2, h = side * root / 2;
  return {static_cast<float>(x - w), static_cast<float>(y - h), static_cast<float>(x + w),
          static_cast<float>(y + h)};
}

std::vector<Box> anchors(i64 height, i64 width, i64 stride, const AnchorConfig& c) {
  std::vector<Box> boxes;
  boxes.reserve(static_cast<std::size_t>(height * width) * c.ratios.size());
  for (i64 i = 0; i < height; ++i)
    for (i64 j = 0; j < width; ++j)
      for (std::size_t r = 0; r < c.ratios.size(); ++r) boxes.push_back(anchor(i, j, r, stride, c));
  return boxes;
}

Delta BoxCoder::deviations() const {
  return {static_cast<float>(stds[0]), static_cast<float>(stds[1]), static_cast<float>(stds[2]),
          static_cast<float>(stds[3])};
}

kernels::BoxDecoder BoxCoder::decoder() const {
  const Delta d = deviations();
  return {{d.dx, d.dy, d.dw, d.dh}, std::abs(std::log(static_cast<float>(wh_ratio_clip)))};
}

Delta encode(const Box& p, const Box& g, const BoxCoder& c) {
  const Delta stds = c.deviations();
  return {((g.x1 + g.x2) - (p.x1 + p.x2)) / 2 / p.width() / stds.dx,
          ((g.y1 + g.y2) - (p.y1 + p.y2)) / 2 / p.height() / stds.dy,
          std::log(g.width() / p.width()) / stds.dw, std::log(g.height() / p.height()) / stds.dh};
}

Box decode(const Box& p, const Delta& d, float image_width, float image_height, const BoxCoder& c) {
  const Delta stds = c.deviations();
  const float most = c.decoder().most;
  const float x = (p.x1 + p.x2) / 2 + d.dx * stds.dx * p.width(),
              y = (p.y1 + p.y2) / 2 + d.dy * stds.dy * p.height();
  const float w = p.width() * std::exp(std::clamp(d.dw * stds.dw, -most, most)) / 2;
  const float h = p.height() * std::exp(std::clamp(d.dh * stds.dh, -most, most)) / 2;
  return {std::clamp(x - w, 0.0f, image_width), std::clamp(y - h, 0.0f, image_height),
          std::clamp(x + w, 0.0f, image_width), std::clamp(y + h, 0.0f, image_height)};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
