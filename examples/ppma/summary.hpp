#pragma once
// ppma summary: what a network costs, layer by layer.

#include <memory>

#include "common.hpp"

namespace tool {

struct SummaryCommand {
  NetworkOptions network;
  i64 size = 0, batch = 1;  // size 0: what the weights say
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
    const WeightsFile file = read_weights(o.network);
    const PpmaConfig config = network_config(o.network, file, "ppma_tiny");
    const std::optional<InputInfo> said = InputInfo::of(file.metadata, o.network.weights);
    const i64 size = with_size(said.value_or(InputInfo{}), o.size, said.has_value()).size;
    const double most = 4e18;  // figures are counted in 64 bits
    check(needs_of({config, o.batch, size, size}).operations < most, "a pass with ", o.batch,
          " images of ", size, " pixels takes more than ", most,
          " operations; choose a smaller --batch or --size");
    Network network = load_network(o.network, file, "ppma_tiny");
    s = summary(network.model, o.batch, size, size);
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
  auto* c = app.add_subcommand("summary",
                               "Parameters, MACs, FLOPs and activation memory, layer by layer");
  add_network(*c, o->network);
  c->get_option("--model")->description(c->get_option("--model")->get_description() +
                                        ", deit_tiny [ppma_tiny]");
  c->add_option("--size", o->size,
                "height and width of the images; default: what the weights say, else 224")
      ->check(in_range(least_size, most_size));
  c->add_option("--batch", o->batch, "images at a time")
      ->check(in_range(i64{1}, most_batch))
      ->capture_default_str();
  c->add_option("--depth", o->depth,
                "how many parts of a layer's name make a row; 4: one row a block")
      ->check(in_range(1, 9))
      ->capture_default_str();
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { summarize(*o); });
}

}  // namespace tool
