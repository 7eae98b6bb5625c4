#pragma once
// Detection's arithmetic on boxes: anchors, delta coding (spec 7.1).

#include "ppma/ops/nms.hpp"

namespace ppma::inline PPMA_ABI {

struct AnchorConfig {
  double scale = 8;  // side = scale * stride
  std::vector<double> ratios{0.5, 1, 2};  // height / width
};

/// Anchors of an H x W map, in order of rows, columns, ratios; centres at (column, row) * stride.
inline std::vector<Box> anchors(i64 height, i64 width, i64 stride, const AnchorConfig& c = {}) {
  std::vector<Box> boxes;
  const double side = c.scale * static_cast<double>(stride);
  for (i64 i = 0; i < height; ++i)
    for (i64 j = 0; j < width; ++j)
      for (const double r : c.ratios) {
        const double x = static_cast<double>(j * stride), y = static_cast<double>(i * stride);
        const double w = side / std::sqrt(r) / 2, h = side * std::sqrt(r) / 2;
        boxes.push_back({static_cast<float>(x - w), static_cast<float>(y - h), static_cast<float>(x + w), static_cast<float>(y + h)});
      }
  return boxes;
}

struct Delta {
  float dx = 0, dy = 0, dw = 0, dh = 0;
};

/// What moves box p onto g, divided by the deviations. Both must have positive sizes.
inline Delta encode(const Box& p, const Box& g, const Delta& stds = {1, 1, 1, 1}) {
  return {((g.x1 + g.x2) - (p.x1 + p.x2)) / 2 / p.width() / stds.dx,
          ((g.y1 + g.y2) - (p.y1 + p.y2)) / 2 / p.height() / stds.dy,
          std::log(g.width() / p.width()) / stds.dw, std::log(g.height() / p.height()) / stds.dh};
}

/// The inverse; dw and dh are clamped to +-|ln(16/1000)|, the box to the image.
inline Box decode(const Box& p, const Delta& d, float image_width, float image_height, const Delta& stds = {1, 1, 1, 1}) {
  const float most = std::abs(std::log(16.0f / 1000));
  const float x = (p.x1 + p.x2) / 2 + d.dx * stds.dx * p.width(), y = (p.y1 + p.y2) / 2 + d.dy * stds.dy * p.height();
  const float w = p.width() * std::exp(std::clamp(d.dw * stds.dw, -most, most)) / 2;
  const float h = p.height() * std::exp(std::clamp(d.dh * stds.dh, -most, most)) / 2;
  return {std::clamp(x - w, 0.0f, image_width), std::clamp(y - h, 0.0f, image_height),
          std::clamp(x + w, 0.0f, image_width), std::clamp(y + h, 0.0f, image_height)};
}

}  // namespace ppma::inline PPMA_ABI
