#pragma once
// ppma visualize: the paper's figure of what the mask has learnt, and numbers that go with it,
// beside those of the same network as initialised.

#include <memory>

#include "data.hpp"
#include "ppma/commands/reach.hpp"
#include "ppma/mixers/mixers.hpp"

namespace tool {

/// A mean, or null of nothing.
inline Json json_of(const MeanFigure& m) {
  return m.n > 0 ? Json(rounded(m.mean(), 1e-4)) : Json();
}

inline Json json_of(const MaskFigures& f) {
  return {{"alpha_at_contours", json_of(f.alpha_at_contours)},
          {"beta_at_contours", json_of(f.beta_at_contours)},
          {"mask_radius", json_of(f.mask_radius)},
          {"unmasked_radius", json_of(f.unmasked_radius)},
          {"masked_radius", json_of(f.masked_radius)},
          {"unmasked_inside", json_of(f.unmasked_inside)},
          {"masked_inside", json_of(f.masked_inside)}};
}

/// The mean decays of one head of a stage; by direction and place.
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

inline Json json_of_decays(const MaskReport& r) {
  Json all = Json::array();
  for (std::size_t s = 0; s < 4; ++s)
    for (std::size_t g = 0; g < r.decays[s].size(); ++g)
      all.push_back({{"stage", s},
                     {"head", g},
                     {"decay", json_of(r.decays[s][g])},
                     {"as_initialised", json_of(r.initial_decays[s][g])}});
  return all;
}

inline void print_decays(const MaskReport& r) {
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
    for (std::size_t g = 0; g < r.decays[s].size(); ++g) {
      std::printf("  stage %zu head %-2zu", s, g);
      for (std::size_t d = 0; d < 2; ++d)
        three(r.decays[s][g][d]), three(r.initial_decays[s][g][d]);
      std::printf("\n");
    }
}

inline void print_figures(const MaskFigures& f) {
  std::printf(
      "    decay at contours     correlation of 1 - alpha with the horizontal change of the image "
      "%.3f, of 1 - beta with the vertical %.3f\n",
      f.alpha_at_contours.mean(), f.beta_at_contours.mean());
  std::printf(
      "    reach from the query  mask %.2f tokens; attention %.2f without mask, %.2f with it\n",
      f.mask_radius.mean(), f.unmasked_radius.mean(), f.masked_radius.mean());
  if (f.unmasked_inside.n > 0)
    std::printf(
        "    on the query's figure %.1f %% of the attention without mask, %.1f %% with it\n",
        100 * f.unmasked_inside.mean(), 100 * f.masked_inside.mean());
}

inline void show(const VisualizeOptions& o, bool json) {
  const MaskReport r = visualize(o, notes());
  if (json) {
    Json j = json_of(r.learnt);
    j["picture"] = r.picture;
    j["grid"] = {r.height, r.width};
    j["images"] = r.images;
    j["as_initialised"] = json_of(r.initial);
    j["decays"] = json_of_decays(r);
    return print_json(j);
  }
  if (!r.has_weights)
    std::printf("random weights: give --weights to see what training makes of them\n");
  std::printf("%s\n", r.picture.c_str());
  std::printf("mean over %lld images, stage %lld, grid %lld x %lld:\n",
              static_cast<long long>(r.images), static_cast<long long>(o.stage),
              static_cast<long long>(r.height), static_cast<long long>(r.width));
  std::printf("  this network\n");
  print_figures(r.learnt);
  std::printf("  the same network as initialised\n");
  print_figures(r.initial);
  if (o.images.empty()) print_decays(r);
}

inline void show_reach(const VisualizeOptions& o, const std::vector<std::string>& mixers,
                       bool json) {
  const ReachReport r = reach(o, mixers, notes());
  if (json) {
    Json j{{"picture", r.picture}, {"networks", Json::array()}};
    for (const Reach& n : r.networks) j["networks"].push_back(json_of(n));
    return print_json(j);
  }
  if (!r.has_weights)
    std::printf("random weights%s\n",
                mixers.empty() ? ": give --weights to see what training makes of them" : "");
  std::printf(
      "%s: above whom a token tells something in block %lld of stage %lld, below what it "
      "depends on\n\n%s",
      r.picture.c_str(), static_cast<long long>(o.block), static_cast<long long>(o.stage),
      reach_table(r.networks).text().c_str());
}

inline void add_visualize(CLI::App& app) {
  auto o = std::make_shared<VisualizeOptions>();
  auto json = std::make_shared<bool>(false);
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
  auto* head = number("--head", o->head, "head to look at; -1: mean over the heads",
                      in_range(i64{0}, i64{1023}, {-1}));
  const std::vector<CLI::Option*> of_generated{
      number("--samples", o->samples,
             "generated images to draw, or with --reach to take means over",
             in_range(i64{1}, i64{64})),
      number("--statistics", o->statistics, "generated images that the statistics are over",
             in_range(i64{1}, i64{100000})),
      number("--seed", o->seed, "of the generated images", in_range(u64{0}, ~u64{0}))};
  for (CLI::Option* option : of_generated) option->excludes("--image");
  auto reaches = std::make_shared<bool>(false);
  auto* wants_reach =
      c->add_flag("--reach", *reaches,
                  "draw how far the token reaches: whom a block's mixer lets it tell "
                  "something, and its effective receptive field")
          ->excludes(head)
          ->excludes(of_generated[1]);
  auto mixers = std::make_shared<std::vector<std::string>>();
  c->add_option("--mixers", *mixers,
                "with --reach: token mixers to draw side by side, by the names of --mixer, or all")
      ->check(accepted_by([](const std::string& name) {
        if (name != "all") with_mixers(ppma_nano(), name);
      }))
      ->delimiter(',')
      ->needs(wants_reach)
      ->excludes("--weights")
      ->excludes("--mixer");
  number("--panel", o->panel, "pixels of a panel", in_range(i64{32}, i64{1024}));
  add_threads(*c);
  c->add_flag("--json", *json, "one JSON object instead of text");
  c->callback(
      [o, json, mixers, reaches] { *reaches ? show_reach(*o, *mixers, *json) : show(*o, *json); });
}

}  // namespace tool
