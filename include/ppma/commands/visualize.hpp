#pragma once
#include "ppma/core/names_begin.hpp"
// The paper's figure of what the mask has learnt, and numbers that go with it, beside those of the
// same network as initialised.

#include <array>
#include <string>
#include <vector>

#include "ppma/commands/network.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/vis/decay_places.hpp"

namespace ppma::inline PPMA_ABI {

/// Which network, on which images, and which part of it is drawn.
struct VisualizeOptions {
  NetworkOptions network{};           // a classifier, or a segmentor's or detector's weights
  std::vector<std::string> images{};  // paths, a row each; none: generated shapes
  bool no_exif = false;               // files as they are stored
  std::string out = "mask.png";       // the picture
  std::vector<double>
      query{};               // its row and column as fractions; none: on the figure, or the middle
  i64 size = 0;              // pixels that images are brought to; 0: what the weights say
  i64 stage = 0, block = 1;  // the last block, where the stage has fewer
  i64 head = -1;             // -1: mean over the heads
  i64 panel = 240;           // pixels of a panel
  i64 samples = 3;           // generated images that are drawn
  i64 statistics = 100;      // generated images that the figures are over
  u64 seed = 1;              // of the generated images, and of the network as initialised
};

/// The mean over what is a number.
struct MeanFigure {
  double sum = 0;
  i64 n = 0;

  /// Takes one; NaN does not count.
  void add(double x) {
    if (is_finite(x)) sum += x, ++n;
  }
  /// NaN of none.
  double mean() const { return n > 0 ? sum / static_cast<double>(n) : not_a_number<double>(); }
};

/// What MaskStatistics has of an image, over all images.
struct MaskFigures {
  MeanFigure alpha_at_contours{}, beta_at_contours{};
  MeanFigure mask_radius{}, unmasked_radius{}, masked_radius{};
  MeanFigure unmasked_inside{}, masked_inside{};
};

/// What was seen.
struct MaskReport {
  std::string picture;
  bool has_weights = false;
  i64 images = 0;                   // that the figures are over
  i64 height = 0, width = 0;        // of the stage's grid
  MaskFigures learnt{}, initial{};  // of the network, and of the same as initialised
  /// Mean decays by stage and head, of generated images.
  std::vector<std::vector<HeadDecays>> decays{4}, initial_decays{4};
};

/// Draws decays, mask and attention of a query token, and counts. Errors: what weights, images and
/// memory refuse; a stage that is not there.
PPMA_API MaskReport visualize(const VisualizeOptions& o, Observer& observer = nobody());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <cmath>
#include <cstddef>
#include <utility>

#include "ppma/commands/data.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/image.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/vis/mask_maps.hpp"
#include "ppma/vis/mask_picture.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// An image with, where it is generated, the place and extent of its main figure.
struct SeenImage {
  std::string name;
  Tensor image;                    // uint8 (H,W,3), as the network gets it
  Tensor object;                   // uint8 (H,W), undefined for image files
  Tensor regions;                  // uint8 (H,W): 0 the ground, 1 + k figure k; likewise
  double row = 0.5, column = 0.5;  // of the query, as fractions
};

// A generated scene; the query is the place on its main figure that is nearest to the figure's
// middle.
inline SeenImage generated_scene(i64 index, i64 size, u64 seed) {
  const Scene scene =
      draw_shapes({.height = size, .width = size, .seed = seed, .split = Split::test}, index);
  SeenImage seen{
      str(figure_names()[static_cast<std::size_t>(scene.label)], " (shapes/", index, ")"),
      scene.image, Tensor::zeros({size, size}, DType::uint8),
      Tensor::zeros({size, size}, DType::uint8)};
  const u8* mask = scene.masks.data<u8>();
  for (i64 at = 0; at < scene.masks.numel(); ++at)
    if (mask[at] != 0)
      seen.regions.data<u8>()[at % (size * size)] = static_cast<u8>(1 + at / (size * size));
  double y = 0, x = 0, n = 0;
  for (i64 at = 0; at < size * size; ++at) {
    seen.object.data<u8>()[at] = mask[at];
    if (mask[at] != 0)
      y += static_cast<double>(at / size), x += static_cast<double>(at % size), ++n;
  }
  y /= n, x /= n;
  double nearest = 1e9;
  for (i64 at = 0; at < size * size; ++at)
    if (const double d =
            std::hypot(static_cast<double>(at / size) - y, static_cast<double>(at % size) - x);
        mask[at] != 0 && d < nearest) {
      nearest = d;
      seen.row = (static_cast<double>(at / size) + 0.5) / static_cast<double>(size);
      seen.column = (static_cast<double>(at % size) + 0.5) / static_cast<double>(size);
    }
  return seen;
}

// The network that is looked at: a classifier, or the backbone of a segmentor or detector (with a
// classifier's head that nobody asks).
inline LoadedNetwork<Ppma> network_to_look_at(const NetworkOptions& o, Observer& observer) {
  if (o.weights.empty()) return load_network(o, read_weights(o, observer), "ppma_nano");
  WeightsOfFile file = read_weights(o, observer);
  for (const char* kind : {"segmentor", "detector"}) {
    const auto said = file.metadata.find(kind);
    if (said == file.metadata.end() || !o.config.empty() || !o.model.empty()) continue;
    const Json whole = parse_json(said->second, o.weights + ": " + kind);
    const PpmaConfig config =
        whole.contains("backbone") ? config_from_json(whole["backbone"]) : ppma_tiny();
    require_memory({config, 0, least_size, least_size}, "`size`");
    LoadedNetwork<Ppma> n{Ppma(config), InputInfo{}, true, false};
    if (const auto input = InputInfo::of(file.metadata, o.weights); input && input->size > 0)
      n.input = *input, n.says_input = true;
    TensorMap own;
    for (auto& [name, tensor] : file.tensors)
      if (name.starts_with("patch_embed.") || name.starts_with("layers."))
        own.emplace_back(name, tensor);
    load_state_dict(n.model.backbone, own);
    return n;
  }
  return load_network(o, file, "ppma_nano");
}

// What is drawn: the image files, or generated scenes.
inline std::vector<SeenImage> images_to_draw(const VisualizeOptions& o, const InputInfo& input) {
  std::vector<SeenImage> shown;
  for (const std::string& path : o.images) {
    Rng unused;
    shown.push_back(
        {path, prepare_transform(input)(read_image(path, {.orient = !o.no_exif}), unused), {}, {}});
  }
  if (o.images.empty())
    for (i64 k = 0; k < o.samples; ++k)
      shown.push_back(generated_scene(11 * k, input.size, o.seed));
  return shown;
}

/// Adds the mean decays of an image, of the network and of one as initialised.
inline void add_decays_of(MaskReport& view, const Ppma& network, const Ppma& untrained,
                          std::size_t block, const Tensor& input, const Tensor& regions) {
  const auto one = log_decays_of(network.backbone, input, block),
             other = log_decays_of(untrained.backbone, input, block);
  for (std::size_t s = 0; s < 4; ++s) {
    if (one[s].defined()) add_decays(one[s], regions, view.decays[s]);
    if (other[s].defined()) add_decays(other[s], regions, view.initial_decays[s]);
  }
}

inline void add_figures(MaskFigures& means, const MaskStatistics& s) {
  means.alpha_at_contours.add(s.alpha_at_contours), means.beta_at_contours.add(s.beta_at_contours);
  means.mask_radius.add(s.mask_radius), means.unmasked_radius.add(s.unmasked_radius);
  means.masked_radius.add(s.masked_radius), means.unmasked_inside.add(s.unmasked_inside);
  means.masked_inside.add(s.masked_inside);
}

}  // namespace detail

MaskReport visualize(const VisualizeOptions& o, Observer& observer) {
  check(!o.out.empty(), "visualize: needs `out`, the picture to write");
  LoadedNetwork<Ppma> network = detail::network_to_look_at(o.network, observer);
  // The control: what does a figure say of the mask if random weights have it too?
  Ppma untrained(network.model.config, o.seed);
  const InputInfo input = with_size(network.input, o.size, network.says_input, observer);
  require_memory({network.model.config, 1, input.size, input.size}, "`size`");
  const std::vector<detail::SeenImage> shown = detail::images_to_draw(o, input);
  const i64 counted = o.images.empty() ? o.statistics : static_cast<i64>(shown.size());
  const auto maps_of = [&](Ppma& model, const detail::SeenImage& seen) {
    return mask_maps(model, seen.image, normalize(seen.image, input.normalization),
                     {.stage = static_cast<std::size_t>(o.stage),
                      .block = static_cast<std::size_t>(o.block),
                      .head = o.head,
                      .row = o.query.empty() ? seen.row : o.query[0],
                      .column = o.query.empty() ? seen.column : o.query[1]});
  };
  std::vector<MaskMaps> rows;
  for (const detail::SeenImage& seen : shown) rows.push_back(maps_of(network.model, seen));
  write_png(o.out, mask_picture(rows, {.size = o.panel}).image());

  MaskReport view{.picture = o.out,
                  .has_weights = network.has_weights,
                  .images = counted,
                  .height = rows[0].alpha.dim(0),
                  .width = rows[0].alpha.dim(1)};
  for (i64 k = 0; k < counted; ++k) {
    const detail::SeenImage seen = o.images.empty() ? detail::generated_scene(k, input.size, o.seed)
                                                    : shown[static_cast<std::size_t>(k)];
    detail::add_figures(view.learnt, mask_statistics(maps_of(network.model, seen), seen.object));
    detail::add_figures(view.initial, mask_statistics(maps_of(untrained, seen), seen.object));
    if (seen.regions.defined())
      detail::add_decays_of(view, network.model, untrained, static_cast<std::size_t>(o.block),
                            normalize(seen.image, input.normalization), seen.regions);
  }
  return view;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
