#pragma once
#include "ppma/core/names_begin.hpp"
// How far the tokens of networks reach (vis/receptive_field.hpp): one picture, and its figures.

#include <string>
#include <vector>

#include "ppma/commands/run_scores.hpp"
#include "ppma/commands/visualize.hpp"
#include "ppma/vis/receptive_field.hpp"

namespace ppma::inline PPMA_ABI {

/// What was seen, and where it is drawn.
struct ReachReport {
  std::string picture;
  bool has_weights = false;
  std::vector<Reach> networks{};
};

/// Whom a token tells something, and the sides of the squares of its field.
PPMA_API TextTable reach_table(const std::vector<Reach>& networks);

/// The same for a file.
PPMA_API Json json_of(const Reach& r);

/// Draws the reach of a token of a stage's block, means over the images. Of `o`, `head` and
/// `statistics` say nothing here, and generated images are `samples`. Without `mixers` it is the
/// network of the options; with them one beside the other the same network with each token mixer in
/// all stages (with_mixers(); "all" are all), all with random weights. Errors: as visualize();
/// mixers beside weights.
PPMA_API ReachReport reach(const VisualizeOptions& o, const std::vector<std::string>& mixers = {},
                           Observer& observer = nobody());

namespace detail {

/// The options' images as a network gets them: (B,3,H,W).
PPMA_API Tensor reach_images(const VisualizeOptions& o, const InputInfo& input);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include "ppma/mixers/mixers.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

Tensor detail::reach_images(const VisualizeOptions& o, const InputInfo& input) {
  std::vector<Tensor> images;
  for (const SeenImage& seen : images_to_draw(o, input))
    images.push_back(normalize(seen.image, input.normalization));
  return concat(images, 0);
}

Json json_of(const Reach& r) {
  return {
      {"network", r.name}, {"tells", rounded(r.told(), 1e-4)}, {"half", r.half}, {"most", r.most}};
}

TextTable reach_table(const std::vector<Reach>& networks) {
  TextTable t{{"network", "tells, % of the tokens", "half of its field, pixels",
               "90 % of its field, pixels"}};
  for (const Reach& r : networks)
    t.rows.push_back({r.name, detail::fixed("%.0f", 100 * r.told()), detail::fixed("%.0f", r.half),
                      detail::fixed("%.0f", r.most)});
  return t;
}

ReachReport reach(const VisualizeOptions& o, const std::vector<std::string>& mixers,
                  Observer& observer) {
  check(!o.out.empty(), "visualize: needs `out`, the picture to write");
  check(mixers.empty() || (o.network.weights.empty() && o.network.mixer.empty()),
        "`mixers`: compares networks with random weights; leave `weights` and `mixer` out");
  const LoadedNetwork<Ppma> network = detail::network_to_look_at(o.network, observer);
  const InputInfo input = with_size(network.input, o.size, network.says_input, observer);
  require_memory({network.model.config, 1, input.size, input.size}, "`size`");
  const Tensor images = detail::reach_images(o, input);
  const ReachView view{.stage = static_cast<std::size_t>(o.stage),
                       .block = static_cast<std::size_t>(o.block),
                       .row = o.query.empty() ? 0.5 : o.query[0],
                       .column = o.query.empty() ? 0.5 : o.query[1],
                       .seed = o.seed};
  ReachReport report{.picture = o.out, .has_weights = network.has_weights};
  const PpmaConfig& config = network.model.config;
  if (mixers.empty())
    report.networks.push_back(reach_of(config.name, network.model.backbone, images, view));
  std::vector<std::string> names = mixers;
  if (names == std::vector<std::string>{"all"}) {
    names = {"polyline_whole", "polyline_criss_cross", "polyline_linear"};
    for (const MixerKind& kind : ppma::mixers()) names.emplace_back(kind.name);
  }
  for (const std::string& name : names)
    report.networks.push_back(
        reach_of(name, Ppma(with_mixers(config, name), o.seed).backbone, images, view));
  write_png(o.out, reach_picture(report.networks, 5, {.size = o.panel}).image());
  return report;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
