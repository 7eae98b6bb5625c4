#pragma once
// ppma visualize: the paper's figure of what the mask has learnt, and numbers that go with it,
// beside those of the same network as initialised.

#include <memory>

#include "data.hpp"
#include "ppma/vis/decay_places.hpp"
#include "ppma/vis/mask_maps.hpp"

namespace tool {

struct VisualizeCommand {
  NetworkOptions network;
  std::vector<std::string> images;
  bool no_exif = false;
  std::string out = "mask.png";
  std::vector<double> query;
  i64 size = 0, stage = 0, block = 1, head = -1, panel = 240, samples = 3, statistics = 100;
  u64 seed = 1;
  bool json = false;
};

// An image with, where it is generated, the place and extent of its main figure.
struct Seen {
  std::string name;
  Tensor image;                    // uint8 (H,W,3), as the network gets it
  Tensor object;                   // uint8 (H,W), undefined for image files
  Tensor regions;                  // uint8 (H,W): 0 the ground, 1 + k figure k; likewise
  double row = 0.5, column = 0.5;  // of the query, as fractions
};

// A generated scene; the query is the place on its main figure that is nearest to the figure's
// middle.
inline Seen generated(i64 index, i64 size, u64 seed) {
  const Scene scene =
      draw_shapes({.height = size, .width = size, .seed = seed, .split = Split::test}, index);
  Seen seen{str(figure_names()[static_cast<std::size_t>(scene.label)], " (shapes/", index, ")"),
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

// Mean over what is a number.
struct Mean {
  double sum = 0;
  i64 n = 0;
  void add(double x) {
    if (is_finite(x)) sum += x, ++n;
  }
  Json json() const { return n > 0 ? Json(rounded(sum / static_cast<double>(n), 1e-4)) : Json(); }
};

// The network that is looked at: a classifier, or the backbone of a segmentor or detector (with a
// classifier's head that nobody asks).
inline LoadedNetwork<Ppma> network_to_look_at(const NetworkOptions& o) {
  if (o.weights.empty()) return load_network(o, read_weights(o, notes()), "ppma_nano");
  WeightsOfFile file = read_weights(o, notes());
  for (const char* kind : {"segmentor", "detector"}) {
    const auto said = file.metadata.find(kind);
    if (said == file.metadata.end() || !o.config.empty() || !o.model.empty()) continue;
    const Json whole = parse_json(said->second, o.weights + ": " + kind);
    const PpmaConfig config =
        whole.contains("backbone") ? config_from_json(whole["backbone"]) : ppma_tiny();
    require_memory({config, 0, least_size, least_size}, "--size");
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

// The mean decays of one head of a stage; by direction and place.
inline Json json_of(const HeadDecays& head) {
  Json j;
  const char* const directions[] = {"alpha", "beta"};
  const char* const places[] = {"contour", "inside", "ground"};
  for (std::size_t d = 0; d < 2; ++d)
    for (std::size_t p = 0; p < 3; ++p) {
      const double mean = head[d][static_cast<EdgePlace>(p)];
      j[directions[d]][places[p]] = is_finite(mean) ? Json(rounded(mean, 1e-4)) : Json();
    }
  return j;
}

// Mean decays by stage and head, of the network and of one as initialised.
struct DecayTable {
  std::vector<std::vector<HeadDecays>> learnt{4}, initial{4};

  void add(const Ppma& network, const Ppma& untrained, std::size_t block, const Tensor& input,
           const Tensor& regions) {
    const auto one = log_decays_of(network.backbone, input, block),
               other = log_decays_of(untrained.backbone, input, block);
    for (std::size_t s = 0; s < 4; ++s) {
      if (one[s].defined()) add_decays(one[s], regions, learnt[s]);
      if (other[s].defined()) add_decays(other[s], regions, initial[s]);
    }
  }
  Json json() const {
    Json all = Json::array();
    for (std::size_t s = 0; s < 4; ++s)
      for (std::size_t g = 0; g < learnt[s].size(); ++g)
        all.push_back({{"stage", s},
                       {"head", g},
                       {"decay", json_of(learnt[s][g])},
                       {"as_initialised", json_of(initial[s][g])}});
    return all;
  }
  void print() const {
    std::printf(
        "  mean decay of the edges that cross a contour / lie inside a figure / on the ground\n"
        "                   alpha                 as initialised        beta                  as "
        "initialised\n");
    const auto three = [](const DecayMeans& m) {
      std::printf("  ");
      for (const EdgePlace p : {EdgePlace::contour, EdgePlace::inside, EdgePlace::ground})
        is_finite(m[p]) ? std::printf(" %.3f", m[p]) : std::printf("   -  ");
    };
    for (std::size_t s = 0; s < 4; ++s)
      for (std::size_t g = 0; g < learnt[s].size(); ++g) {
        std::printf("  stage %zu head %-2zu", s, g);
        for (std::size_t d = 0; d < 2; ++d) three(learnt[s][g][d]), three(initial[s][g][d]);
        std::printf("\n");
      }
  }
};

constexpr const char* figure_keys[] = {"alpha_at_contours", "beta_at_contours", "mask_radius",
                                       "unmasked_radius",   "masked_radius",    "unmasked_inside",
                                       "masked_inside"};
using Figures = std::array<Mean, 7>;

inline void add_figures(Figures& means, const MaskStatistics& s) {
  const double values[] = {s.alpha_at_contours, s.beta_at_contours, s.mask_radius,
                           s.unmasked_radius,   s.masked_radius,    s.unmasked_inside,
                           s.masked_inside};
  for (std::size_t f = 0; f < 7; ++f) means[f].add(values[f]);
}

inline Json json_of(const Figures& means) {
  Json j;
  for (std::size_t k = 0; k < 7; ++k) j[figure_keys[k]] = means[k].json();
  return j;
}

inline void print_figures(const Figures& means) {
  const auto figure = [&](std::size_t k) {
    return means[k].n > 0 ? means[k].sum / static_cast<double>(means[k].n) : not_a_number<double>();
  };
  std::printf(
      "    decay at contours     correlation of 1 - alpha with the horizontal change of the image "
      "%.3f, of 1 - beta with the vertical %.3f\n",
      figure(0), figure(1));
  std::printf(
      "    reach from the query  mask %.2f tokens; attention %.2f without mask, %.2f with it\n",
      figure(2), figure(3), figure(4));
  if (means[5].n > 0)
    std::printf(
        "    on the query's figure %.1f %% of the attention without mask, %.1f %% with it\n",
        100 * figure(5), 100 * figure(6));
}

inline void visualize(const VisualizeCommand& o) {
  LoadedNetwork<Ppma> network = network_to_look_at(o.network);
  // The control: what does a figure say of the mask if random weights have it too?
  Ppma untrained(network.model.config, o.seed);
  const InputInfo input = with_size(network.input, o.size, network.says_input, notes());
  require_memory({network.model.config, 1, input.size, input.size}, "--size");
  std::vector<Seen> shown;
  for (const std::string& path : o.images) {
    Rng unused;
    shown.push_back(
        {path, prepare_transform(input)(read_image(path, {.orient = !o.no_exif}), unused), {}, {}});
  }
  if (o.images.empty()) {
    for (i64 k = 0; k < o.samples; ++k) shown.push_back(generated(11 * k, input.size, o.seed));
  }
  const i64 counted = o.images.empty() ? o.statistics : static_cast<i64>(shown.size());
  const auto maps_of = [&](Ppma& model, const Seen& seen) {
    return mask_maps(model, seen.image, normalize(seen.image, input.normalization),
                     {.stage = static_cast<std::size_t>(o.stage),
                      .block = static_cast<std::size_t>(o.block),
                      .head = o.head,
                      .row = o.query.empty() ? seen.row : o.query[0],
                      .column = o.query.empty() ? seen.column : o.query[1]});
  };
  std::vector<MaskMaps> rows;
  for (const Seen& seen : shown) rows.push_back(maps_of(network.model, seen));
  write_png(o.out, mask_picture(rows, {.size = o.panel}).image());

  Figures means, control;
  DecayTable decays;
  for (i64 k = 0; k < counted; ++k) {
    const Seen seen =
        o.images.empty() ? generated(k, input.size, o.seed) : shown[static_cast<std::size_t>(k)];
    add_figures(means, mask_statistics(maps_of(network.model, seen), seen.object));
    add_figures(control, mask_statistics(maps_of(untrained, seen), seen.object));
    if (seen.regions.defined())
      decays.add(network.model, untrained, static_cast<std::size_t>(o.block),
                 normalize(seen.image, input.normalization), seen.regions);
  }
  if (o.json) {
    Json j = json_of(means);
    j["picture"] = o.out;
    j["grid"] = {rows[0].alpha.dim(0), rows[0].alpha.dim(1)};
    j["images"] = counted;
    j["as_initialised"] = json_of(control);
    j["decays"] = decays.json();
    return print_json(j);
  }
  if (!network.has_weights)
    std::printf("random weights: give --weights to see what training makes of them\n");
  std::printf("%s\n", o.out.c_str());
  std::printf("mean over %lld images, stage %lld, grid %lld x %lld:\n",
              static_cast<long long>(counted), static_cast<long long>(o.stage),
              static_cast<long long>(rows[0].alpha.dim(0)),
              static_cast<long long>(rows[0].alpha.dim(1)));
  std::printf("  this network\n");
  print_figures(means);
  std::printf("  the same network as initialised\n");
  print_figures(control);
  if (o.images.empty()) decays.print();
}

inline void add_visualize(CLI::App& app) {
  auto o = std::make_shared<VisualizeCommand>();
  auto* c = app.add_subcommand(
      "visualize", "Draws decays, mask and attention of a query token, and prints statistics");
  add_network(*c, o->network);
  auto* image =
      c->add_option("--image", o->images, "image files, one row each; default: generated shapes")
          ->check(CLI::ExistingFile);
  add_no_exif(*c, o->no_exif)->needs(image);
  const auto number = [c](const char* name, auto& value, const char* text, CLI::Validator range) {
    return c->add_option(name, value, text)->capture_default_str()->check(std::move(range));
  };
  number("--out", o->out, "picture to write", some_text());
  number("--size", o->size, "pixels that images are brought to; 0: what the weights say",
         in_range(least_size, i64{4096}, {0}));
  c->add_option("--query", o->query,
                "row and column of the query as fractions; default: on the figure, or the middle")
      ->expected(2)
      ->check(in_range(0.0, 1.0));
  number("--stage", o->stage, "stage to look at", in_range(i64{0}, i64{3}));
  number("--block", o->block, "block of the stage; the last one if it has fewer",
         in_range(i64{0}, PpmaConfig::most_depth - 1));
  number("--head", o->head, "head to look at; -1: mean over the heads",
         in_range(i64{0}, i64{1023}, {-1}));
  const std::vector<CLI::Option*> of_generated{
      number("--samples", o->samples, "generated images to draw", in_range(i64{1}, i64{64})),
      number("--statistics", o->statistics, "generated images that the statistics are over",
             in_range(i64{1}, i64{100000})),
      number("--seed", o->seed, "of the generated images", in_range(u64{0}, ~u64{0}))};
  for (CLI::Option* option : of_generated) option->excludes("--image");
  number("--panel", o->panel, "pixels of a panel", in_range(i64{32}, i64{1024}));
  add_threads(*c);
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { visualize(*o); });
}

}  // namespace tool
