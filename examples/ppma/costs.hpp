#pragma once
// What networks cost, side by side: parameters, multiply-accumulates, images a second of training
// steps and of inference, and the most that is held in tensors. Measured on random images, in
// turns: a round times each network once, so that what else the machine does meanwhile meets all
// alike.

#include <chrono>

#include "bench.hpp"
#include "ppma/models/summary.hpp"

namespace tool {

struct Costs {
  i64 parameters = 0, macs = 0;               // of the backbone, an image
  double training = 0, inference = 0;         // images a second, medians of the rounds
  i64 training_peak = 0, inference_peak = 0;  // bytes in tensors

  bool known() const { return training > 0; }
  static std::vector<std::string> names() {
    return {"parameters",         "MACs",         "training images/s",
            "inference images/s", "training MiB", "inference MiB"};
  }
  std::vector<std::string> cells() const {
    const auto number = [](const char* format, double value) {
      char text[32];
      std::snprintf(text, sizeof text, format, value);
      return std::string(text);
    };
    return {grouped_digits(parameters),         number("%.1f M", static_cast<double>(macs) / 1e6),
            number("%.1f", training),           number("%.1f", inference),
            number("%.1f", mib(training_peak)), number("%.1f", mib(inference_peak))};
  }
  Json json() const {
    return {{"parameters", parameters},
            {"backbone_macs", macs},
            {"training_images_per_s", rounded(training, 1e-2)},
            {"inference_images_per_s", rounded(inference, 1e-2)},
            {"training_peak_bytes", training_peak},
            {"inference_peak_bytes", inference_peak}};
  }
  /// What json() wrote.
  static Costs of(const Json& j, const std::string& where) {
    return {member<i64>(j, "parameters", where),
            member<i64>(j, "backbone_macs", where),
            member<double>(j, "training_images_per_s", where),
            member<double>(j, "inference_images_per_s", where),
            member<i64>(j, "training_peak_bytes", where),
            member<i64>(j, "inference_peak_bytes", where)};
  }
};

/// A network whose costs are asked: the configuration that a run's config.json is.
struct Costed {
  std::string task, config;  // config: a path
  Costs costs{};
  std::vector<double> training_ms{}, inference_ms{};  // a round each
};

/// Times one step or pass of a network and takes what it held.
inline void take_turn(Costed& network, const BenchOptions& o) {
  const Placement at = o.compute.placement(o.train);
  Costs& costs = network.costs;
  const i64 before = memory_stats(at.device).live_bytes;
  Timing t;
  if (network.task == "classify") {
    Classifier model(classifier_config_from_text(read_text(network.config), network.config));
    costs.parameters = parameter_count(model);
    if (auto* staged = std::get_if<Ppma>(&model.network))
      costs.macs = summary(*staged, 1, o.size, o.size).macs();
    else
      costs.macs = summary(std::get<Vit>(model.network), 1).macs();
    place(model, at, !o.train);
    t = time_classifier(o, at, model, classes_of(model.config()));
  } else {
    NetworkOptions told;
    told.config = network.config;
    const auto said = descriptions(told, network.task);
    with_segmentation_head(head_in(said), [&]<class Head>() {
      Segmentor<Head> model(dense_config<SegmentorConfig<Head>>(told, "ppma_nano", said));
      costs.parameters = parameter_count(model);
      costs.macs = summary(model.backbone, 1, o.size, o.size).macs();
      place_dense(model, at, !o.train);
      t = time_segmentor(o, at, model);
    });
  }
  (o.train ? network.training_ms : network.inference_ms).push_back(t.ms);
  (o.train ? costs.training_peak : costs.inference_peak) = t.peak - before;
}

/// Measures all networks on images of `o.size` pixels, `o.batch` at a time. Rounds: five, three
/// where a round takes half a minute.
inline void measure_costs(std::vector<Costed>& networks, BenchOptions o) {
  using Clock = std::chrono::steady_clock;
  o.repeat = 3, o.warmup = 1;
  const auto begin = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  for (int round = 0; round < (seconds() > 30 * round ? 3 : 5); ++round)
    for (Costed& network : networks)
      for (const bool train : {true, false}) {
        o.train = train;
        take_turn(network, o);
      }
  const double images = 1000 * static_cast<double>(o.batch);
  for (Costed& network : networks) {
    network.costs.training = images / median(network.training_ms);
    network.costs.inference = images / median(network.inference_ms);
  }
}

}  // namespace tool
