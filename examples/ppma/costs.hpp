#pragma once
// What networks cost, side by side: parameters, multiply-accumulates, images a second of training
// steps and of inference, and the most that is held in tensors. Measured on random images, in
// turns: a round times each network once, so that what else the machine does meanwhile meets all
// alike.

#include <chrono>

#include "bench.hpp"
#include "ppma/commands/study.hpp"
#include "ppma/models/summary.hpp"

namespace tool {

/// A network that is timed.
struct TimedNetwork {
  CostedNetwork& asked;
  std::vector<double> training_ms{}, inference_ms{};  // a round each
};

/// Times one step or pass of a network and takes what it held.
inline void take_turn(TimedNetwork& timed, const BenchOptions& o) {
  const Placement at = o.compute.placement(o.train);
  CostedNetwork& network = timed.asked;
  NetworkCosts& costs = network.costs;
  const i64 before = memory_stats(at.device).live_bytes;
  Timing t;
  if (network.task == "classify") {
    Classifier model(classifier_config_from_text(read_text(network.config), network.config));
    costs.parameters = parameter_count(model);
    if (auto* staged = std::get_if<Ppma>(&model.network))
      costs.macs = summary(*staged, 1, o.size, o.size).macs();
    else if (auto* other = std::get_if<Network>(&model.network))
      costs.macs = summary(*other, 1, o.size, o.size).macs();
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
  (o.train ? timed.training_ms : timed.inference_ms).push_back(t.ms);
  (o.train ? costs.training_peak : costs.inference_peak) = t.peak - before;
}

/// Measures all networks on images of `o.size` pixels, `o.batch` at a time. Rounds: five, three
/// where a round takes half a minute.
inline void measure_costs(std::vector<CostedNetwork>& asked, BenchOptions o) {
  std::vector<TimedNetwork> networks;
  for (CostedNetwork& network : asked) networks.push_back({network});
  using Clock = std::chrono::steady_clock;
  o.repeat = 3, o.warmup = 1;
  const auto begin = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  for (int round = 0; round < (seconds() > 30 * round ? 3 : 5); ++round)
    for (TimedNetwork& network : networks)
      for (const bool train : {true, false}) {
        o.train = train;
        take_turn(network, o);
      }
  const double images = 1000 * static_cast<double>(o.batch);
  for (TimedNetwork& network : networks) {
    network.asked.costs.training = images / median(network.training_ms);
    network.asked.costs.inference = images / median(network.inference_ms);
  }
}

}  // namespace tool
