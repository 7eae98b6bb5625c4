#pragma once
// What the subcommands share: which network, with which weights, on how many threads; and how
// figures are reported.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "options.hpp"
#include "ppma/commands/json.hpp"
#include "ppma/commands/network.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/train/trainer.hpp"
#include "system.hpp"

namespace tool {

// ---- options ----------------------------------------------------------------------------------

/// --threads N: 0 takes every core that this process may use.
inline void add_threads(CLI::App& app) {
  app.add_option_function<int>(
         "--threads",
         [](int n) {
           if (n > 0) set_threads(n);
         },
         "threads to compute with; 0: all cores")
      ->default_str("0")
      ->check(in_range(0, 1024));
}

/// Where and in what to compute: --device, --dtype.
inline void add_compute(CLI::App& app, ComputeOptions& o) {
  app.add_option("--device", o.device, "where to compute")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option(
         "--dtype", o.dtype,
         "element type to compute in; tf32 on the GPU, bf16 there or, of weights, in inference")
      ->check(CLI::IsMember({"f32", "f64", "bf16", "tf32"}))
      ->capture_default_str();
}

/// Which network: --config, --model, --mask, --mixer, --weights.
inline void add_network(CLI::App& app, NetworkOptions& o) {
  auto* weights = app.add_option("--weights", o.weights,
                                 "weights: .safetensors, .pth or .pt; random ones if absent")
                      ->check(CLI::ExistingFile);
  app.add_option(
         "--entry", o.entry,
         "entry of a .pth (such as model_ema), or part of a training checkpoint (model, ema)")
      ->check(some_text())
      ->needs(weights);
  auto* config = app.add_option("--config", o.config,
                                "configuration as JSON; default: what the weights file says")
                     ->check(CLI::ExistingFile);
  std::string names;
  for (const std::string& name : network_names()) names += (names.empty() ? "" : ", ") + name;
  app.add_option("--model", o.model,
                 "a configuration by name: ppma_nano, ppma_tiny, ppma_small, ppma_base, "
                 "ppma_large, ppma_nano_linear, ppma_tiny_linear, rmt_...; plain transformers: "
                 "deit_tiny, vit_nano; networks of other papers: " +
                     names)
      ->excludes(config)
      ->check(accepted_by([](const std::string& name) { classifier_config_by_name(name); }));
  names.clear();
  try {
    for (const Mask& mask : masks()) names += (names.empty() ? "" : ", ") + std::string(mask.name);
  } catch (const Error&) {  // PPMA_ISA cannot be followed: the command says so, help goes without
  }
  app.add_option("--mask", o.mask, "another mask: " + names)
      ->check(accepted_by([](const std::string& name) { parse_mask_kind(name); }));
  names.clear();
  for (const std::string& name : mixer_names()) names += (names.empty() ? "" : ", ") + name;
  app.add_option("--mixer", o.mixer,
                 "another token mixer in all stages, or four with commas between: " + names)
      ->check(accepted_by([](const std::string& name) { with_mixers(PpmaConfig(), name); }));
}

// ---- reports ----------------------------------------------------------------------------------

using ppma::detail::grouped_digits;  // 1234567 -> "1,234,567"

inline void print_json(const Json& j) {
  std::printf("%s\n", j.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

}  // namespace tool
