#pragma once
#include "ppma/core/names_begin.hpp"
// How much memory the heads of segmentors and detectors need at least: see memory_needs.hpp.

#include <array>

#include "ppma/commands/memory_needs.hpp"
#include "ppma/heads/mask_rcnn.hpp"
#include "ppma/heads/segmentor.hpp"
#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/heads/upernet.hpp"

namespace ppma::inline PPMA_ABI {

/// The cells of the backbone's four maps of an image, finest (stride 4) first.
PPMA_API std::array<double, 4> map_cells(i64 height, i64 width);

/// A head that nobody has counted: the backbone alone is what is needed at least.
template <class Head>
HeadNeeds head_needs(const SegmentorConfig<Head>&, i64, i64) {
  return {};
}

/// UperNet, and the auxiliary head, whose weights are there in inference too. A convolution's
/// result is kept for its norm, and the norm's for the ReLU or what follows it.
PPMA_API HeadNeeds head_needs(const SegmentorConfig<UperNet>& config, i64 height, i64 width);

/// A feature pyramid of P channels: its four levels as they are added up, and convolved.
PPMA_API HeadNeeds pyramid_needs(const PpmaConfig& backbone, double P,
                                 const std::array<double, 4>& n);

PPMA_API HeadNeeds head_needs(const SegmentorConfig<SemanticFpn>& config, i64 height, i64 width);

/// What the heads make of single regions is left out: how many regions there are, the images
/// decide.
PPMA_API HeadNeeds head_needs(const MaskRcnnConfig& c, i64 height, i64 width);

/// The fields that decide how large the network of a task is.
PPMA_API std::string network_options(const std::string& task);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

namespace ppma::inline PPMA_ABI {

std::array<double, 4> map_cells(i64 height, i64 width) {
  const auto half = [](i64 n) { return (n + 1) / 2; };
  std::array<double, 4> cells{};
  i64 h = half(height), w = half(width);
  for (double& c : cells) {
    h = half(h), w = half(w);
    c = static_cast<double>(h) * static_cast<double>(w);
  }
  return cells;
}

HeadNeeds head_needs(const SegmentorConfig<UperNet>& config, i64 height, i64 width) {
  const UperNetConfig& c = config.head;
  const std::array<double, 4> n = map_cells(height, width);
  const double pixels = static_cast<double>(height) * static_cast<double>(width);
  const double D = static_cast<double>(c.channels);
  const double K = static_cast<double>(c.num_classes);
  const double A = static_cast<double>(c.auxiliary_channels);
  const double scales = static_cast<double>(c.pool_scales.size());
  const auto width_of = [&](std::size_t i) {
    return static_cast<double>(config.backbone.embed_dims[i]);
  };
  HeadNeeds h;
  h.weights = D * K + A * K + scales * width_of(3) * D + 9 * (width_of(3) + scales * D) * D +
              9 * width_of(2) * A + 3 * 9 * D * D + 9 * 4 * D * D;
  h.kept = 2 * D * n[3] + 2 * A * n[2] + 6 * D * n[0] + 2 * K * pixels;  // 4: what is fused
  for (std::size_t i = 0; i < 3; ++i) h.weights += width_of(i) * D, h.kept += 4 * D * n[i];
  h.largest = std::max(5 * D * n[0], K * (n[0] + pixels));
  return h;
}

HeadNeeds pyramid_needs(const PpmaConfig& backbone, double P, const std::array<double, 4>& n) {
  HeadNeeds h;
  for (std::size_t i = 0; i < 4; ++i) {
    h.weights += static_cast<double>(backbone.embed_dims[i]) * P + 9 * P * P;
    h.kept += 2 * P * n[i], h.largest += P * n[i];
  }
  h.largest += P * n[0];
  return h;
}

HeadNeeds head_needs(const SegmentorConfig<SemanticFpn>& config, i64 height, i64 width) {
  const SemanticFpnConfig& c = config.head;
  const std::array<double, 4> n = map_cells(height, width);
  const double pixels = static_cast<double>(height) * static_cast<double>(width);
  const double P = static_cast<double>(c.pyramid_channels), D = static_cast<double>(c.channels);
  const double K = static_cast<double>(c.num_classes);
  HeadNeeds h = pyramid_needs(config.backbone, P, n);
  h.weights += D * K, h.kept += K * pixels;
  for (std::size_t level = 0; level < 4; ++level) {
    h.weights += 9 * P * D + (level > 1 ? static_cast<double>(level - 1) * 9 * D * D : 0);
    for (std::size_t k = 0; k < std::max<std::size_t>(1, level); ++k)
      h.kept += 2 * D * n[level - k];
  }
  h.largest = std::max(h.largest, K * (n[0] + pixels));
  return h;
}

HeadNeeds head_needs(const MaskRcnnConfig& c, i64 height, i64 width) {
  const std::array<double, 4> n = map_cells(height, width);
  const double P = static_cast<double>(c.rpn.channels), F = static_cast<double>(c.roi.fc_channels);
  const double K = static_cast<double>(c.roi.num_classes);
  const double box = static_cast<double>(c.roi.box_size) * static_cast<double>(c.roi.box_size);
  HeadNeeds h = pyramid_needs(c.backbone, P, n);
  h.weights += 9 * P * P + 5 * P * static_cast<double>(c.rpn.anchor.ratios.size());
  h.weights += P * box * F + static_cast<double>(c.roi.shared_fcs - 1) * F * F + F * (5 * K + 1);
  if (c.with_mask)
    h.weights += static_cast<double>(c.roi.mask_convs) * 9 * P * P + 4 * P * P + P * K;
  for (const double cells : n) h.kept += P * cells;  // of the proposals' convolution
  return h;
}

std::string network_options(const std::string& task) {
  return task == "segment"  ? "`config`, `model` or `segmentor`"
         : task == "detect" ? "`config`, `model` or `detector`"
                            : "`config` or `model`";
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
