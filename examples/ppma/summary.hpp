#pragma once
// ppma summary: what a network costs, layer by layer, and the memory that a pass takes.

#include <memory>
#include <optional>

#include "common.hpp"
#include "ppma/commands/summarize.hpp"

namespace tool {

struct SummaryCommand : SummaryOptions {
  int depth = 4;
  bool json = false;
};

inline void print_memory(const SummaryCommand& o, const char* pass,
                         const std::optional<PassMemory>& m) {
  if (!m) return;
  std::printf("memory of %s, batch %lld, %d thread%s: planned %.1f MiB", pass,
              static_cast<long long>(o.batch), threads(), threads() == 1 ? "" : "s",
              mib(m->planned));
  if (m->measured > 0)
    std::printf(", measured %.1f MiB in tensors; %.0f MiB of the process\n", mib(m->measured),
                m->process);
  else
    std::printf(" in tensors\n");
}

inline Json json_of(const PassMemory& m) {
  Json j{{"planned_bytes", m.planned}};
  if (m.measured > 0) j["measured_bytes"] = m.measured, j["peak_rss_MiB"] = rounded(m.process, 0.1);
  return j;
}

inline void summarize(const SummaryCommand& o) {
  const NetworkSummary network = summarize_network(o, notes());
  const Summary& s = network.layers;
  if (!o.json) {
    std::printf("%s", s.text(o.depth).c_str());
    print_memory(o, "inference", network.inference);
    print_memory(o, "a training step", network.training);
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
  if (network.inference) j["memory"]["inference"] = json_of(*network.inference);
  if (network.training) j["memory"]["training_step"] = json_of(*network.training);
  print_json(j);
}

inline void add_summary(CLI::App& app) {
  auto o = std::make_shared<SummaryCommand>();
  auto* c = app.add_subcommand(
      "summary",
      "Parameters, MACs, FLOPs and activations, layer by layer, and the memory of a pass");
  add_network(*c, o->network);
  c->get_option("--model")->description(c->get_option("--model")->get_description() +
                                        " [ppma_tiny]");
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
  c->add_flag(
      "--measure", o->measure,
      "run a pass of inference and a training step, and say what they held of memory beside "
      "what is planned");
  add_threads(*c);
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { summarize(*o); });
}

}  // namespace tool
