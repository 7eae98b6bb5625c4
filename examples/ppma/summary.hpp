#pragma once
// ppma summary: what a network costs, layer by layer.

#include <memory>

#include "common.hpp"

namespace tool {

struct SummaryCommand {
  NetworkOptions network;
  i64 size = 224, batch = 1;
  int depth = 4;
  bool json = false;
};

inline void summarize(const SummaryCommand& o) {
  // DeiT is the one network of another kind.
  Summary s;
  if (o.network.model == "deit_tiny") {
    Vit model(deit_tiny(o.network.mask.empty() ? MaskKind::none : parse_mask_kind(o.network.mask)));
    s = summary(model, o.batch);
  } else {
    Network network = load_network(o.network, "ppma_tiny");
    s = summary(network.model, o.batch, o.size, o.size);
  }
  if (!o.json) {
    std::printf("%s", s.text(o.depth).c_str());
    return;
  }
  Json j, rows = Json::array();
  j["model"] = s.model;
  j["input"] = std::vector<i64>(s.input.begin(), s.input.end());
  j["parameters"] = s.parameters();
  j["macs"] = s.macs();
  j["flops"] = s.flops();
  j["published_flops"] = s.published();
  j["activation_bytes"] = s.activation_bytes();
  for (const LayerSummary& l : s.grouped(o.depth))
    rows.push_back({{"name", l.name},
                    {"output", std::vector<i64>(l.output.begin(), l.output.end())},
                    {"parameters", l.parameters},
                    {"macs", l.macs},
                    {"flops", l.flops},
                    {"activation_bytes", l.activation_bytes}});
  j["layers"] = rows;
  print_json(j);
}

inline void add_summary(CLI::App& app) {
  auto o = std::make_shared<SummaryCommand>();
  auto* c = app.add_subcommand("summary", "Parameters, MACs, FLOPs and activation memory, layer by layer");
  add_network(*c, o->network);
  c->get_option("--model")->description(c->get_option("--model")->get_description() + ", deit_tiny [ppma_tiny]");
  c->add_option("--size", o->size, "height and width of the images")
      ->check(CLI::Range(32, 16384))
      ->capture_default_str();
  c->add_option("--batch", o->batch, "images at a time")->check(CLI::PositiveNumber)->capture_default_str();
  c->add_option("--depth", o->depth, "how many parts of a layer's name make a row; 4: one row a block")
      ->check(CLI::Range(1, 9))
      ->capture_default_str();
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { summarize(*o); });
}

}  // namespace tool
