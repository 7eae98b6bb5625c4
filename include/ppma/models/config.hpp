#pragma once
#include "ppma/core/names_begin.hpp"
// Configurations of the four-stage network: values, not classes. T, S, B are the published sizes; L
// puts PPMA blocks on RMT's large configuration (algorithm 4.1).

#include <array>
#include <string>
#include <vector>

#include "ppma/core/limits.hpp"
#include "ppma/polyline/masks.hpp"

namespace ppma::inline PPMA_ABI {

/// One entry a stage.
struct PpmaConfig {
  std::string name = "custom";
  std::array<i64, 4> embed_dims{64, 128, 256, 512};
  std::array<i64, 4> depths{2, 2, 8, 2};
  std::array<i64, 4> num_heads{4, 4, 8, 16};
  std::array<double, 4> mlp_ratios{3, 3, 3, 3};
  // criss-cross attention, else whole or, where linear says so, linear
  std::array<bool, 4> chunkwise_recurrents{true, true, false, false};
  std::array<bool, 4> layerscales{false, false, false, false};
  double layer_init_values = 1e-6;
  // RMT's fixed decays: range of the exponent a stage
  std::array<double, 4> heads_ranges{4, 4, 6, 6};
  i64 projection = 1024;
  i64 num_classes = 1000;
  double drop_path_rate = 0.1;  // of the last block; rises linearly from 0
  MaskKind mask = MaskKind::polyline;
  // attention without N x N arrays; false: composed from elementary operations, to compare with
  bool fused = true;
  // What tells a block where its tokens are, beside the mask (algorithm 3.9); off, it is not there.
  bool lepe = true;    // 5x5 depthwise convolution of the values
  bool rotary = true;  // queries and keys turned by their places
  bool depthwise =
      true;  // 3x3 depthwise convolutions, before a block and in its feed-forward layer
  // linear attention (PPMLA) in place of softmax attention (algorithm 3.10)
  std::array<bool, 4> linear{false, false, false, false};
  // What mixes the tokens of a stage: "polyline", the attention that the fields above describe, or
  // a mixer by its name (mixers/mixers.hpp), for which mask, lepe, rotary, chunkwise_recurrents and
  // linear mean nothing. set_mixer() takes those names and, for the attention, polyline_whole,
  // polyline_criss_cross and polyline_linear; so does JSON.
  std::array<std::string, 4> mixers{"polyline", "polyline", "polyline", "polyline"};

  // The most of each that is taken for meant: far above every published network.
  static constexpr i64 most_width = 16384, most_depth = 1000, most_projection = 65536,
                       most_classes = 1000000;
  static constexpr double most_ratio = 64;

  bool operator==(const PpmaConfig&) const = default;
  /// Under the names of the published configuration files; fused and what follows it are ours.
  template <class Config, class F>
  static void fields(Config& c, F f) {
    f("name", c.name);
    f("embed_dims", c.embed_dims, counts(most_width));
    f("depths", c.depths, Limits{0, most_depth});
    f("num_heads", c.num_heads, counts(most_width));
    f("mlp_ratios", c.mlp_ratios, Limits::positive(most_ratio));
    f("chunkwise_recurrents", c.chunkwise_recurrents);
    f("layerscales", c.layerscales);
    f("layer_init_values", c.layer_init_values, Limits{-1000, 1000});
    f("heads_ranges", c.heads_ranges, Limits{0, 100});
    f("projection", c.projection, counts(most_projection));
    f("num_classes", c.num_classes, counts(most_classes));
    f("drop_path_rate", c.drop_path_rate, Limits::below(1));
    f("mask", c.mask);
    f("fused", c.fused);
    f("lepe", c.lepe);
    f("rotary", c.rotary);
    f("depthwise", c.depthwise);
    f("linear", c.linear);
    f("mixers", c.mixers);
  }
  /// How many blocks the network has.
  i64 blocks() const { return depths[0] + depths[1] + depths[2] + depths[3]; }
  /// Whether all stages that have blocks have our attention.
  PPMA_API bool all_polyline() const;
};

/// Ours, for images of 32 to 64 pixels: 0.67 M parameters with ten classes. Such images have few
/// tokens, so every stage can afford whole attention.
PPMA_API PpmaConfig ppma_nano();

/// PPMA-T, 14.3 M parameters (algorithm 4.1).
PPMA_API PpmaConfig ppma_tiny();

/// PPMA-S, 27.0 M parameters.
PPMA_API PpmaConfig ppma_small();

/// PPMA-B, 54.2 M parameters.
PPMA_API PpmaConfig ppma_base();

/// PPMA-L, 95.5 M parameters: blocks of PPMA on RMT-L's configuration, which is not published.
PPMA_API PpmaConfig ppma_large();

/// The same network with linear attention in all four stages, called name + "_linear": its cost
/// grows with the number of tokens.
PPMA_API PpmaConfig with_linear_attention(PpmaConfig c);

/// Names of all token mixers: the three of polyline attention, then those of mixers().
PPMA_API std::vector<std::string> mixer_names();

/// Gives a stage a mixer by one of those names ("polyline": the attention that is described).
/// Error: there is no such mixer.
PPMA_API void set_mixer(PpmaConfig& c, std::size_t stage, const std::string& name);

/// Gives all stages a mixer, or each one of its own: "vmamba", or four names with commas between.
/// The configuration is called name + "_" + the text.
PPMA_API PpmaConfig with_mixers(PpmaConfig c, const std::string& names);

/// A configuration by name: ppma_nano (ours); ppma_tiny, ppma_small, ppma_base, as published;
/// ppma_large, of which neither code nor weights are published (algorithm 4.1); ppma_nano_linear
/// and ppma_tiny_linear, with linear attention (ours); rmt_... for the same with RMT's decays.
PPMA_API PpmaConfig config_by_name(const std::string& name);

/// Throws an Error that names the first entry that makes no network.
PPMA_API void check_config(const PpmaConfig& c);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include <algorithm>

#include "ppma/mixers/mixers.hpp"
#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

PpmaConfig ppma_nano() {
  PpmaConfig c;
  c.name = "ppma_nano";
  c.embed_dims = {32, 64, 96, 128};
  c.depths = {1, 1, 2, 1};
  c.num_heads = {2, 2, 3, 4};
  c.chunkwise_recurrents = {false, false, false, false};
  c.heads_ranges = {4, 4, 6, 6};
  c.projection = 256;
  c.num_classes = 10;
  c.drop_path_rate = 0;
  return c;
}

PpmaConfig ppma_tiny() {
  PpmaConfig c;
  c.name = "ppma_tiny";
  return c;
}

PpmaConfig ppma_small() {
  PpmaConfig c;
  c.name = "ppma_small";
  c.depths = {3, 4, 18, 4};
  c.mlp_ratios = {4, 4, 3, 3};
  c.chunkwise_recurrents = {true, true, true, false};
  c.drop_path_rate = 0.15;
  return c;
}

PpmaConfig ppma_base() {
  PpmaConfig c = ppma_small();
  c.name = "ppma_base";
  c.embed_dims = {80, 160, 320, 512};
  c.depths = {4, 8, 25, 8};
  c.num_heads = {5, 5, 10, 16};
  c.layerscales = {false, false, true, true};
  c.heads_ranges = {5, 5, 6, 6};
  c.drop_path_rate = 0.4;
  return c;
}

PpmaConfig ppma_large() {
  PpmaConfig c = ppma_base();
  c.name = "ppma_large";
  c.embed_dims = {112, 224, 448, 640};
  c.num_heads = {7, 7, 14, 20};
  c.heads_ranges = {6, 6, 6, 6};
  c.drop_path_rate = 0.5;
  return c;
}

PpmaConfig with_linear_attention(PpmaConfig c) {
  c.name += "_linear";
  c.chunkwise_recurrents = {false, false, false, false};
  c.linear = {true, true, true, true};
  return c;
}

bool PpmaConfig::all_polyline() const {
  for (std::size_t s = 0; s < 4; ++s)
    if (depths[s] > 0 && mixers[s] != "polyline") return false;
  return true;
}

std::vector<std::string> mixer_names() {
  std::vector<std::string> names{"polyline_whole", "polyline_criss_cross", "polyline_linear"};
  for (const MixerKind& kind : ppma::mixers()) names.push_back(kind.name);
  return names;
}

void set_mixer(PpmaConfig& c, std::size_t stage, const std::string& name) {
  if (name == "polyline") {
    c.mixers[stage] = name;
    return;
  }
  const std::vector<std::string> names = mixer_names();
  const auto at = std::find(names.begin(), names.end(), name);
  check(at != names.end(), "config: no mixer is called \"", name, "\"; ",
        at != names.end() ? "" : detail::other_mixers(name, names));
  c.chunkwise_recurrents[stage] = name == "polyline_criss_cross";
  c.linear[stage] = name == "polyline_linear";
  c.mixers[stage] = at - names.begin() < 3 ? "polyline" : name;
}

PpmaConfig with_mixers(PpmaConfig c, const std::string& names) {
  std::vector<std::string> each{""};
  for (const char letter : names) {
    if (letter == ',')
      each.emplace_back();
    else
      each.back() += letter;
  }
  check(each.size() == 1 || each.size() == 4, "config: mixers \"", names, "\" names ", each.size(),
        "; it must be one for all stages, or four");
  for (std::size_t s = 0; s < 4; ++s) set_mixer(c, s, each[each.size() == 1 ? 0 : s]);
  c.name += "_" + names;
  return c;
}

PpmaConfig config_by_name(const std::string& name) {
  const bool rmt = name.compare(0, 4, "rmt_") == 0;
  for (PpmaConfig c : {ppma_nano(), ppma_tiny(), ppma_small(), ppma_base(), ppma_large(),
                       with_linear_attention(ppma_nano()), with_linear_attention(ppma_tiny())}) {
    if (name == c.name) return c;
    if (rmt && name.substr(3) == c.name.substr(4)) {
      c.name = name;
      c.mask = MaskKind::rmt;
      return c;
    }
  }
  fail("config: no model is called \"", name,
       "\"; there are ppma_nano, ppma_tiny, ppma_small, ppma_base, ppma_large, ppma_nano_linear, "
       "ppma_tiny_linear, and rmt_ for ppma_");
}

void check_config(const PpmaConfig& c) {
  check_fields(c);
  for (std::size_t s = 0; s < 4; ++s) {
    check(c.embed_dims[s] % c.num_heads[s] == 0 && c.embed_dims[s] / c.num_heads[s] % 2 == 0,
          "config: stage ", s, " has ", c.embed_dims[s], " channels for ", c.num_heads[s],
          " heads; the head width must be a whole even number");
    check(c.mlp_ratios[s] * static_cast<double>(c.embed_dims[s]) >= 1,
          "config: mlp_ratios of stage ", s, " is ", c.mlp_ratios[s],
          "; it must make at least one channel");
    if (c.mixers[s] != "polyline") mixer_of(c.mixers[s]);
    if (!c.linear[s] || c.mixers[s] != "polyline") continue;
    check(!c.chunkwise_recurrents[s], "config: stage ", s,
          " is both criss-cross (chunkwise_recurrents) and linear; it can be one of them");
    check(mask_of(c.mask).paths.has_value(), "config: stage ", s, " is linear, with mask ",
          to_string(c.mask),
          "; a linear attention takes none or a mask along paths (rmt, v2h, polyline, shared)");
  }
  check(c.embed_dims[0] % 2 == 0, "config: the stem needs an even embed_dims[0], got ",
        c.embed_dims[0]);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
