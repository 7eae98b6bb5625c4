#pragma once
#include "ppma/core/names_begin.hpp"
// How far a token of a network reaches, from both ends.
//
//   impulse response   how much the mixer of one block changes each token where one token is
//                      changed: whom it tells something, in one step
//   receptive field    |d tokens / d image| of one token of a stage's map: all that it depends on
//                      (Luo et al., "Understanding the Effective Receptive Field in Deep
//                      Convolutional Neural Networks", NeurIPS 2016)
//
// Legend: B images, Hin Win their pixels, h w the stage's grid, C its channels.

#include <string>
#include <vector>

#include "ppma/models/ppma.hpp"
#include "ppma/vis/panels.hpp"

namespace ppma::inline PPMA_ABI {

/// Which token of which network, as fractions of the image's height and width.
struct ReachView {
  std::size_t stage = 0, block = 0;  // the last block, where the stage has fewer
  double row = 0.5, column = 0.5;
  u64 seed = 0;  // of the changes that are tried
};

/// What is seen from one token. Maps are f64.
struct Reach {
  std::string name;
  Tensor impulse;             // (h,w): how much each token changes, for a change of 1
  Tensor field;               // (Hin,Win): shares of the gradient, which add up to 1
  i64 row = 0, column = 0;    // of the token, in the grid
  double half = 0, most = 0;  // sides of the squares around it that hold 50 and 90 % of the field

  /// The share of the other tokens that change by more than a thousandth of the one that changes
  /// most: 0 if a token tells no other, 1 if it tells all.
  PPMA_API double told() const;
};

/// Of a network on images (B,3,Hin,Win), in evaluation and in f64, wherever it is itself; means
/// over the images. The gradient is that of the sum of the token's channels; a change goes in
/// random directions, the same for all networks of one width. Errors: no such stage or block; a
/// token that depends on no pixel.
PPMA_API Reach reach_of(std::string name, const Backbone& network, const Tensor& images,
                        const ReachView& view = {});

/// The side, in cells, of the smallest square around a cell of a map (H,W) that holds `share` of
/// its sum; a square ends where the map ends.
PPMA_API i64 side_of_share(const Tensor& map, i64 row, i64 column, double share);

/// Impulse responses above receptive fields, `across` networks side by side. Colours are decimal
/// logarithms of the parts of each map's greatest value, four decades, the same in all panels.
PPMA_API Picture reach_picture(const std::vector<Reach>& networks, std::size_t across = 6,
                               const PanelOptions& options = {.size = 160});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>

#include "ppma/nn/module.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// A network of its own to compute with: f64, on the CPU, not trained.
inline Backbone exact(const Backbone& network) {
  Backbone own = network;
  for_each_field(own, [](const std::string&, Tensor& t, Kind) {
    t = t.detach().to(Device::cpu);
    if (is_floating(t.dtype())) t = cast(t, DType::f64);
  });
  return own;
}

// The mean response of block b to a small change of token (i,j) of what it gets, x (B,h,w,C).
inline Tensor response(const Block& b, const Positions& at, const Tensor& x, i64 i, i64 j,
                       Rng& rng) {
  const NoGrad not_recorded;
  const Context ctx;
  const i64 batch = x.dim(0), h = x.dim(1), w = x.dim(2), channels = x.dim(3);
  const Tensor before = b.mixed(x, at, ctx);
  const double size = std::sqrt(mean(x * x).item());
  const double step = 1e-4 * (size > 0 ? size : 1);
  const i64 directions = 4;
  Tensor squares = Tensor::zeros({h, w}, DType::f64);
  for (i64 k = 0; k < directions; ++k) {
    std::vector<double> way(static_cast<std::size_t>(channels));
    double length = 0;
    for (double& v : way) v = rng.normal(), length += v * v;
    Tensor moved = x.clone();
    for (i64 n = 0; n < batch; ++n)
      for (i64 c = 0; c < channels; ++c)
        moved.data<double>()[((n * h + i) * w + j) * channels + c] +=
            step * way[static_cast<std::size_t>(c)] / std::sqrt(length);
    const Tensor by = (b.mixed(moved, at, ctx) - before) * (1 / step);
    squares = squares + sum(by * by, {0, 3});
  }
  return sqrt(squares * (1 / static_cast<double>(directions * batch)));
}

// Four decades of a map's parts of its greatest value.
inline Tensor decades(const Tensor& map) {
  std::vector<double> v = map.to_vector<double>();
  const double most = *std::max_element(v.begin(), v.end());
  for (double& x : v) x = x > 1e-4 * most ? std::log10(x / most) : -4;
  return Tensor::from(v, map.shape());
}

}  // namespace detail

double Reach::told() const {
  const std::vector<double> v = impulse.to_vector<double>();
  const std::size_t own = static_cast<std::size_t>(row * impulse.dim(1) + column);
  const double greatest = *std::max_element(v.begin(), v.end());
  i64 n = 0;
  for (std::size_t t = 0; t < v.size(); ++t) n += t != own && v[t] > 1e-3 * greatest;
  return v.size() > 1 ? static_cast<double>(n) / static_cast<double>(v.size() - 1) : 0;
}

Reach reach_of(std::string name, const Backbone& network, const Tensor& images,
               const ReachView& view) {
  check(view.stage < network.layers.size() && !network.layers[view.stage].blocks.empty(),
        "reach_of: stage ", view.stage, " does not exist or has no blocks; stages are 0 to 3");
  const Backbone net = detail::exact(network);
  const Stage& here = net.layers[view.stage];
  const std::size_t block = std::min(view.block, here.blocks.size() - 1);
  const Tensor input = cast(images.detach().to(Device::cpu), DType::f64);
  check(input.rank() == 4 && input.dim(0) > 0, "reach_of: images must be (B,3,H,W), got ",
        input.shape());
  Reach reach{std::move(name), {}, {}};
  Rng rng(view.seed);
  for (i64 n = 0; n < input.dim(0); ++n) {
    Tensor image = narrow(input, 0, n, 1).clone();
    image.requires_grad(true);
    Context ctx;
    Tensor x = net.patch_embed.forward(channels_last("reach_of", image), ctx);  // (1,h,w,C)
    for (std::size_t s = 0; s < view.stage; ++s)
      x = net.layers[s].merge(net.layers[s].forward(x, ctx), ctx);
    const i64 h = x.dim(1), w = x.dim(2);
    reach.row = detail::cell_at(view.row, h), reach.column = detail::cell_at(view.column, w);
    for (std::size_t k = 0; k < here.blocks.size(); ++k) {
      if (k == block) {
        Rng ways = rng;  // the same for each image
        const Tensor one =
            detail::response(here.blocks[k], here.Relpos, here.blocks[k].positioned(x.detach()),
                             reach.row, reach.column, ways);
        reach.impulse = reach.impulse.defined() ? reach.impulse + one : one;
      }
      x = here.blocks[k].forward(x, here.Relpos, ctx);
    }
    sum(narrow(narrow(x, 1, reach.row, 1), 2, reach.column, 1)).backward();
    const Tensor one = sum(abs(image.grad()), {0, 1});
    reach.field = reach.field.defined() ? reach.field + one : one;
  }
  const double all = sum(reach.field).item();
  check(all > 0, "reach_of: token (", reach.row, ", ", reach.column, ") of stage ", view.stage,
        " depends on no pixel");
  reach.field = reach.field * (1 / all);
  reach.impulse = reach.impulse * (1 / static_cast<double>(input.dim(0)));
  const auto pixel = [](i64 cell, i64 cells, i64 pixels) {
    return (2 * cell + 1) * pixels / (2 * cells);
  };
  const i64 y = pixel(reach.row, reach.impulse.dim(0), input.dim(2)),
            at = pixel(reach.column, reach.impulse.dim(1), input.dim(3));
  reach.half = static_cast<double>(side_of_share(reach.field, y, at, 0.5));
  reach.most = static_cast<double>(side_of_share(reach.field, y, at, 0.9));
  return reach;
}

i64 side_of_share(const Tensor& map, i64 row, i64 column, double share) {
  check(map.defined() && map.rank() == 2, "side_of_share: the map must be (H,W)");
  const i64 h = map.dim(0), w = map.dim(1);
  check(row >= 0 && row < h && column >= 0 && column < w, "side_of_share: cell (", row, ", ",
        column, ") is outside of the map ", map.shape());
  const std::vector<double> v = map.to_vector<double>();
  std::vector<double> rings(static_cast<std::size_t>(std::max(h, w)));  // by distance
  double all = 0;
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < w; ++j) {
      const double x = v[static_cast<std::size_t>(i * w + j)];
      rings[static_cast<std::size_t>(std::max(std::abs(i - row), std::abs(j - column)))] += x;
      all += x;
    }
  double inside = 0;
  for (std::size_t r = 0; r < rings.size(); ++r) {
    inside += rings[r];
    // what rounding leaves of a sum of thousands is not a ring
    if (inside >= share * all * (1 - 1e-12)) return 2 * static_cast<i64>(r) + 1;
  }
  return 2 * static_cast<i64>(rings.size()) - 1;
}

Picture reach_picture(const std::vector<Reach>& networks, std::size_t across,
                      const PanelOptions& options) {
  check(!networks.empty() && across > 0, "reach_picture: no networks are given");
  std::vector<std::vector<Panel>> rows;
  for (std::size_t first = 0; first < networks.size(); first += across) {
    std::vector<Panel> above, below;
    for (std::size_t k = first; k < std::min(first + across, networks.size()); ++k) {
      const Reach& r = networks[k];
      const Range range{-4, 0};
      above.push_back(map_panel(r.name, detail::decades(r.impulse), ColorMap::magma, range));
      above.back().marked = GridCell{r.row, r.column, r.impulse.dim(0), r.impulse.dim(1)};
      below.push_back(map_panel("90 %: " + short_number(r.most) + " pixels",
                                detail::decades(r.field), ColorMap::magma, range));
      below.back().marked = above.back().marked;
    }
    rows.push_back(std::move(above)), rows.push_back(std::move(below));
  }
  return panels(rows, options);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
