#pragma once
// ppma summary: what a network costs, layer by layer, and the memory that a pass takes.

#include <memory>
#include <optional>

#include "common.hpp"
#include "ppma/models/fold.hpp"
#include "ppma/models/memory_plan.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"

namespace tool {

struct SummaryCommand {
  NetworkOptions network;
  i64 size = 0, batch = 1;  // size 0: what the weights say
  int depth = 4;
  bool measure = false, json = false;
};

/// What a pass holds at most.
struct PassMemory {
  std::string pass;
  i64 planned = 0;     // bytes in tensors
  i64 measured = 0;    // bytes in tensors; 0: not measured
  double process = 0;  // MiB of the process, of all that it did so far

  template <class F>
  void measure(F&& run) {
    reset_peak_memory();
    run();
    measured = memory_stats().peak_bytes;
    process = peak_memory_mib();
  }
};

inline PassMemory inference_memory(const SummaryCommand& o, i64 size, LoadedNetwork<Ppma> network) {
  Ppma& model = network.model;
  PassMemory m{"inference", plan_inference(model.config, o.batch, size, size).bytes()};
  if (!o.measure) return m;
  prepare_for_inference(model, DType::f32);
  const Tensor images = Tensor::zeros({o.batch, 3, size, size});
  m.measure([&] { model.forward(images); });
  return m;
}

inline PassMemory training_memory(const SummaryCommand& o, i64 size, const PpmaConfig& config) {
  PassMemory m{"a training step", plan_training_step(config, o.batch, size, size).bytes()};
  if (!o.measure) return m;
  Ppma model(config);
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
  Rng rng(1);
  const Tensor images = Tensor::randn({o.batch, 3, size, size}, rng),
               labels = Tensor::zeros({o.batch}, DType::int64);
  m.measure([&] {
    Context training{true, Rng(2)};
    cross_entropy(model.forward(images, training), labels).backward();
    optimizer.step(1e-4);
  });
  return m;
}

inline void summarize(const SummaryCommand& o) {
  Summary s;
  std::vector<PassMemory> memory;
  WeightsOfFile file = read_weights(o.network, notes());
  const ClassifierConfig any = classifier_config(o.network, file, "ppma_tiny");
  if (const auto* vit = std::get_if<VitConfig>(&any)) {
    check(!o.measure, "summary --measure: the memory of ", vit->name,
          " is not planned; leave it out");
    Vit model(*vit);
    s = summary(model, o.batch);
  } else if (const auto* other = std::get_if<NetworkConfig>(&any)) {
    check(!o.measure, "summary --measure: the memory of ", other->name,
          " is not planned; leave it out");
    const std::optional<InputInfo> said = InputInfo::of(file.metadata, o.network.weights);
    const i64 size = with_size(said.value_or(InputInfo{}), o.size, said.has_value(), notes()).size;
    require_memory_of(any, o.batch, size, "--batch or --size");
    Network model(*other);
    s = summary(model, o.batch, size, size);
  } else {
    const PpmaConfig& config = std::get<PpmaConfig>(any);
    const std::optional<InputInfo> said = InputInfo::of(file.metadata, o.network.weights);
    const i64 size = with_size(said.value_or(InputInfo{}), o.size, said.has_value(), notes()).size;
    const double most = 4e18;  // figures are counted in 64 bits
    check(needs_of({config, o.batch, size, size}).operations < most, "a pass with ", o.batch,
          " images of ", size, " pixels takes more than ", most,
          " operations; choose a smaller --batch or --size");
    check(!o.measure || config.all_polyline(),
          "summary --measure: the memory of mixers beside polyline attention is not planned");
    check(!o.measure || has_memory_plan(config), "summary --measure: attention with mask ",
          to_string(config.mask), " visits tokens in another order, and its memory is not planned");
    if (o.measure) require_memory({config, o.batch, size, size, true}, "--batch or --size");
    LoadedNetwork<Ppma> network = load_network(o.network, file, "ppma_tiny");
    file = {};  // what is measured holds it once
    s = summary(network.model, o.batch, size, size);
    if (has_memory_plan(config)) {
      memory.push_back(inference_memory(o, size, std::move(network)));
      memory.push_back(training_memory(o, size, config));
    }
  }
  if (!o.json) {
    std::printf("%s", s.text(o.depth).c_str());
    for (const PassMemory& m : memory) {
      std::printf("memory of %s, batch %lld, %d thread%s: planned %.1f MiB", m.pass.c_str(),
                  static_cast<long long>(o.batch), threads(), threads() == 1 ? "" : "s",
                  mib(m.planned));
      if (m.measured > 0)
        std::printf(", measured %.1f MiB in tensors; %.0f MiB of the process\n", mib(m.measured),
                    m.process);
      else
        std::printf(" in tensors\n");
    }
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
  for (const PassMemory& m : memory) {
    Json& pass = j["memory"][m.pass == "inference" ? "inference" : "training_step"];
    pass["planned_bytes"] = m.planned;
    if (m.measured > 0)
      pass["measured_bytes"] = m.measured, pass["peak_rss_MiB"] = rounded(m.process, 0.1);
  }
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
