#pragma once
#include "ppma/core/names_begin.hpp"
// How a network's decays become what they are: maps of a few fixed images, drawn after each
// evaluation in colours that mean the same in all of them, so that pictures can be compared.
//
// Legend: h w a token grid, G heads.

#include <string>
#include <vector>

#include "ppma/models/ppma.hpp"
#include "ppma/vis/colormap.hpp"
#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

/// The first stage's decays for an image, means over its heads, and the mask of the token in the
/// middle; (h,w) each, from 0 to 1. Of two paths the mask is their mean, as in mask_maps().
struct DecayMaps {
  Tensor alpha, beta, mask;
};

/// Of one block (the last one, where there are fewer) for `input` (1,3,H,W), where the network is.
/// Undefined maps: the first stage has no blocks or no decays that are learnt.
PPMA_API DecayMaps decay_maps(const Backbone& network, MaskKind kind, const Tensor& input,
                              std::size_t block = 1);

/// The colour of a decay: three decades of 1 - decay, so that 0.99 and 0.9 are told apart as well
/// as 0.9 and 0; dark is small. 0.999 and more is the lightest.
PPMA_API Color decay_color(double decay);

/// One row for each image: alpha, beta, mask, without a word. Maps above `side` cells are drawn
/// smaller, small ones of whole pixels a cell. Error: undefined maps.
PPMA_API Picture decay_picture(const std::vector<DecayMaps>& images, i64 side = 112);
/// The images of those rows, uint8 (H,W,3), in one column of the same heights. Error: not one for
/// each.
PPMA_API Picture decay_images(const std::vector<Tensor>& images, const std::vector<DecayMaps>& maps,
                              i64 side = 112);

/// Which of many evaluations to leave out, one by one, until at most `most` are left: first and
/// last stay, and gaps stay as even as they can. Epochs must ascend.
PPMA_API std::vector<i64> thinned_epochs(const std::vector<i64>& epochs, std::size_t most);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <array>
#include <cmath>

#include "ppma/io/resize.hpp"
#include "ppma/vis/mask_maps.hpp"

namespace ppma::inline PPMA_ABI {

DecayMaps decay_maps(const Backbone& network, MaskKind kind, const Tensor& input,
                     std::size_t block) {
  const bool two_paths = kind == MaskKind::polyline || kind == MaskKind::shared;
  const Stage& stage = network.layers[0];
  if ((!two_paths && kind != MaskKind::v2h) || stage.blocks.empty() || !stage.blocks[0].retention)
    return {};
  const NoGrad not_recorded;
  Context ctx;
  Tensor x = network.patch_embed.forward(channels_last("decay_maps", input), ctx);
  const std::size_t last = std::min(block, stage.blocks.size() - 1);
  for (std::size_t n = 0; n < last; ++n) x = stage.blocks[n].forward(x, stage.Relpos, ctx);
  const Block& b = stage.blocks[last];
  const Tensor decays =
      b.attention().decays(b.retention_layer_norm.forward(b.positioned(x)), stage.Relpos);
  if (!decays.defined()) return {};
  const i64 heads = decays.dim(2), h = decays.dim(3), w = decays.dim(4), n = h * w;
  const std::vector<double> both = decays.to_vector<double>();  // (2 or 1,1,G,h,w)
  const double *const log_alpha = both.data(), *const log_beta =
                                                   both.data() + both.size() - heads * n;
  std::array<std::vector<double>, 3> sums;
  for (auto& s : sums) s.resize(static_cast<std::size_t>(n));
  const double part = 1 / static_cast<double>(heads);
  for (i64 g = 0; g < heads; ++g) {
    const std::vector<double> la(log_alpha + g * n, log_alpha + (g + 1) * n),
        lb(log_beta + g * n, log_beta + (g + 1) * n);
    const auto rows = detail::log_mask_rows(la, lb, h, w, h / 2, w / 2);
    for (std::size_t t = 0; t < la.size(); ++t) {
      sums[0][t] += part * std::exp(la[t]);
      sums[1][t] += part * std::exp(lb[t]);
      sums[2][t] += part * (two_paths ? (std::exp(rows[0][t]) + std::exp(rows[1][t])) / 2
                                      : std::exp(rows[0][t]));
    }
  }
  const auto map = [&](std::size_t k) { return Tensor::from(sums[k], {h, w}); };
  return {map(0), map(1), map(2)};
}

Color decay_color(double decay) {
  constexpr double decades = 3;
  const double closed = std::max(1 - decay, 1e-9);
  return color_of(ColorMap::viridis, -std::log10(closed) / decades);
}

namespace detail {

inline constexpr i64 decay_gap = 2;

/// The height of a map's row in which cells are `side` wide.
inline i64 decay_row(const DecayMaps& m, i64 side) {
  check(m.alpha.defined() && m.beta.defined() && m.mask.defined(),
        "decay_picture: an image has no maps");
  return std::max(i64{1}, (side * m.alpha.dim(0) + m.alpha.dim(1) / 2) / m.alpha.dim(1));
}

/// A grey sheet for these rows.
inline Picture decay_sheet(const std::vector<DecayMaps>& maps, i64 columns, i64 side) {
  i64 height = 0;
  for (const DecayMaps& m : maps) height += decay_row(m, side) + decay_gap;
  Picture sheet(columns * (side + decay_gap), std::max(i64{1}, height));
  sheet.fill(0, 0, static_cast<double>(sheet.width()), static_cast<double>(height),
             {128, 128, 128});
  return sheet;
}

inline Tensor decay_colored(const Tensor& map) {
  const std::vector<double> v = map.to_vector<double>();
  Tensor image = Tensor::empty({map.dim(0), map.dim(1), 3}, DType::uint8);
  for (std::size_t t = 0; t < v.size(); ++t) {
    const Color c = decay_color(v[t]);
    std::copy(c.begin(), c.end(), image.data<u8>() + 3 * t);
  }
  return image;
}

}  // namespace detail

Picture decay_picture(const std::vector<DecayMaps>& images, i64 side) {
  Picture sheet = detail::decay_sheet(images, 3, side);
  i64 y = 0;
  for (const DecayMaps& m : images) {
    const i64 height = detail::decay_row(m, side), step = side + detail::decay_gap;
    const bool smaller = m.alpha.dim(1) > side;
    const auto paste = [&](i64 column, const Tensor& image) {
      sheet.paste(
          column * step, y,
          smaller ? resize_antialiased(image, height, side) : resize_nearest(image, height, side));
    };
    paste(0, detail::decay_colored(m.alpha));
    paste(1, detail::decay_colored(m.beta));
    paste(2, colorize(m.mask, ColorMap::viridis, {0, 1}));
    y += height + detail::decay_gap;
  }
  return sheet;
}

Picture decay_images(const std::vector<Tensor>& images, const std::vector<DecayMaps>& maps,
                     i64 side) {
  check(images.size() == maps.size(), "decay_images: ", images.size(), " images have ", maps.size(),
        " maps");
  Picture sheet = detail::decay_sheet(maps, 1, side);
  i64 y = 0;
  for (std::size_t k = 0; k < images.size(); ++k) {
    const i64 height = detail::decay_row(maps[k], side);
    sheet.paste(0, y, resize_antialiased(images[k], height, side));
    y += height + detail::decay_gap;
  }
  return sheet;
}

std::vector<i64> thinned_epochs(const std::vector<i64>& epochs, std::size_t most) {
  std::vector<i64> left = epochs, out;
  while (left.size() > std::max(most, std::size_t{2})) {
    std::size_t at = 1;  // the one whose neighbours are nearest to each other, the oldest of equals
    for (std::size_t i = 1; i + 1 < left.size(); ++i)
      if (left[i + 1] - left[i - 1] < left[at + 1] - left[at - 1]) at = i;
    out.push_back(left[at]);
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return out;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
