#pragma once
#include "ppma/core/names_begin.hpp"
// Where decays are large and where they are small: their means over the edges that cross a contour,
// lie inside a figure, or lie on the ground. The paper's Figure 7 says that they fall at contours;
// these means, beside those of a network as initialised, say by how much.
//
// Legend: H W the image's pixels, h w a token grid, G heads.

#include <array>
#include <vector>

#include "ppma/core/float_bits.hpp"
#include "ppma/models/ppma.hpp"

namespace ppma::inline PPMA_ABI {

/// An edge joins two neighbouring tokens. It crosses a contour if they lie in different regions; a
/// token lies where most of its pixels do.
enum class EdgePlace : u8 { contour, inside, ground };

/// Means of the decays of one head and direction, over edges of one kind each; NaN where there were
/// none.
struct DecayMeans {
  std::array<double, 3> sums{}, edges{};  // by EdgePlace

  /// The mean over edges of that kind.
  double operator[](EdgePlace place) const {
    const auto p = static_cast<std::size_t>(place);
    return edges[p] > 0 ? sums[p] / edges[p] : not_a_number<double>();
  }
};
using HeadDecays = std::array<DecayMeans, 2>;  // alpha, beta

/// Adds the decays of one image to the sums of each head.
///   log_decays  (2 or 1,1,G,h,w), on the CPU
///   regions     uint8 (H,W): 0 on the ground, another number for each figure
PPMA_API void add_decays(const Tensor& log_decays, const Tensor& regions,
                         std::vector<HeadDecays>& heads);

/// The log decays (2 or 1,1,G,h,w) of one block of each stage for an image `input` (1,3,H,W); of
/// the last block where a stage has fewer, undefined where it has none or a mask without decays.
PPMA_API std::vector<Tensor> log_decays_of(const Backbone& network, const Tensor& input,
                                           std::size_t block);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// The region that most pixels of each of h x w cells belong to, row-major.
inline std::vector<u8> region_of_tokens(const Tensor& regions, i64 h, i64 w) {
  const i64 H = regions.dim(0), W = regions.dim(1);
  std::vector<u8> most;
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < w; ++j) {
      std::array<i64, 256> pixels{};
      const i64 y0 = i * H / h, y1 = std::max(y0 + 1, (i + 1) * H / h), x0 = j * W / w,
                x1 = std::max(x0 + 1, (j + 1) * W / w);
      for (i64 y = y0; y < y1; ++y)
        for (i64 x = x0; x < x1; ++x) ++pixels[regions.data<u8>()[y * W + x]];
      most.push_back(
          static_cast<u8>(std::max_element(pixels.begin(), pixels.end()) - pixels.begin()));
    }
  return most;
}

}  // namespace detail

void add_decays(const Tensor& log_decays, const Tensor& regions, std::vector<HeadDecays>& heads) {
  check(log_decays.defined() && log_decays.rank() == 5 && log_decays.dim(1) == 1,
        "add_decays: log decays must be those of one image, (2,1,G,h,w) or (1,1,G,h,w), got ",
        log_decays.defined() ? log_decays.shape().str() : std::string("nothing"));
  check(regions.defined() && regions.rank() == 2 && regions.dtype() == DType::uint8,
        "add_decays: regions must be uint8 (H,W)");
  const i64 g = log_decays.dim(2), h = log_decays.dim(3), w = log_decays.dim(4);
  heads.resize(static_cast<std::size_t>(g));
  const std::vector<u8> region = detail::region_of_tokens(regions, h, w);
  const std::array<std::vector<double>, 2> logs{log_alpha_of(log_decays).to_vector<double>(),
                                                log_beta_of(log_decays).to_vector<double>()};
  for (std::size_t axis = 0; axis < 2; ++axis) {
    const i64 first_row = axis == 1, first_column = axis == 0, step = axis == 0 ? 1 : w;
    for (i64 i = first_row; i < h; ++i)
      for (i64 j = first_column; j < w; ++j) {
        const auto here = static_cast<std::size_t>(i * w + j),
                   before = here - static_cast<std::size_t>(step);
        const EdgePlace place = region[here] != region[before] ? EdgePlace::contour
                                : region[here] != 0            ? EdgePlace::inside
                                                               : EdgePlace::ground;
        for (std::size_t head = 0; head < heads.size(); ++head) {
          DecayMeans& means = heads[head][axis];
          means.sums[static_cast<std::size_t>(place)] +=
              std::exp(logs[axis][head * static_cast<std::size_t>(h * w) + here]);
          means.edges[static_cast<std::size_t>(place)] += 1;
        }
      }
  }
}

std::vector<Tensor> log_decays_of(const Backbone& network, const Tensor& input, std::size_t block) {
  const NoGrad not_recorded;
  Context ctx;
  Tensor x = network.patch_embed.forward(channels_last("log_decays_of", input), ctx);
  std::vector<Tensor> all;
  for (const Stage& stage : network.layers) {
    Tensor decays;
    for (std::size_t n = 0; n < stage.blocks.size(); ++n) {
      const Block& b = stage.blocks[n];
      if (n == std::min(block, stage.blocks.size() - 1) && b.retention)
        decays =
            b.attention().decays(b.retention_layer_norm.forward(b.positioned(x)), stage.Relpos);
      x = b.forward(x, stage.Relpos, ctx);
    }
    all.push_back(decays);
    x = stage.merge(x, ctx);
  }
  return all;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
