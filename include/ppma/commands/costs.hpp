#pragma once
#include "ppma/core/names_begin.hpp"
// What networks cost, side by side: parameters, multiply-accumulates, images a second of training
// steps and of inference, and the most that is held in tensors. Measured on random images, in
// turns: a round times each network once, so that what else the machine does meanwhile meets all
// alike.

#include <string>
#include <vector>

#include "ppma/commands/json.hpp"
#include "ppma/commands/network.hpp"

namespace ppma::inline PPMA_ABI {

/// What a network costs.
struct NetworkCosts {
  i64 parameters = 0, macs = 0;               // of the backbone, an image
  double training = 0, inference = 0;         // images a second, medians of the rounds
  i64 training_peak = 0, inference_peak = 0;  // bytes in tensors

  /// Whether they were measured.
  bool known() const { return training > 0; }
  /// Of its columns in a table.
  PPMA_API static std::vector<std::string> names();
  /// A row of the table.
  PPMA_API std::vector<std::string> cells() const;
  /// For a file.
  PPMA_API Json json() const;
  /// What json() wrote.
  PPMA_API static NetworkCosts of(const Json& j, const std::string& where);
};

/// A network whose costs are asked: the configuration that a run's config.json is.
struct CostedNetwork {
  std::string task, config;  // config: a path
  NetworkCosts costs{};
};

/// Measures all of them on `batch` images of `size` pixels at a time, computed as `compute` says:
/// five rounds, three where a round takes half a minute. Errors: as bench_network(), but that no
/// memory is asked for beforehand; a detector.
PPMA_API void measure_costs(std::vector<CostedNetwork>& networks, i64 batch, i64 size,
                            const ComputeOptions& compute);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <chrono>
#include <cstdio>
#include <utility>
#include <variant>

#include "ppma/commands/bench_steps.hpp"

namespace ppma::inline PPMA_ABI {

std::vector<std::string> NetworkCosts::names() {
  return {"parameters",         "MACs",         "training images/s",
          "inference images/s", "training MiB", "inference MiB"};
}

std::vector<std::string> NetworkCosts::cells() const {
  const auto number = [](const char* format, double value) {
    char text[32];
    std::snprintf(text, sizeof text, format, value);
    return std::string(text);
  };
  return {detail::grouped_digits(parameters), number("%.1f M", static_cast<double>(macs) / 1e6),
          number("%.1f", training),           number("%.1f", inference),
          number("%.1f", mib(training_peak)), number("%.1f", mib(inference_peak))};
}

Json NetworkCosts::json() const {
  return {{"parameters", parameters},
          {"backbone_macs", macs},
          {"training_images_per_s", rounded(training, 1e-2)},
          {"inference_images_per_s", rounded(inference, 1e-2)},
          {"training_peak_bytes", training_peak},
          {"inference_peak_bytes", inference_peak}};
}

NetworkCosts NetworkCosts::of(const Json& j, const std::string& where) {
  return {member<i64>(j, "parameters", where),
          member<i64>(j, "backbone_macs", where),
          member<double>(j, "training_images_per_s", where),
          member<double>(j, "inference_images_per_s", where),
          member<i64>(j, "training_peak_bytes", where),
          member<i64>(j, "inference_peak_bytes", where)};
}

namespace detail {

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
    ppma::Classifier model(classifier_config_from_text(read_text(network.config), network.config));
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

}  // namespace detail

void measure_costs(std::vector<CostedNetwork>& asked, i64 batch, i64 size,
                   const ComputeOptions& compute) {
  check(batch > 0 && size >= least_size, "costs: `batch` is ", batch, ", `size` ", size,
        "; they must be at least 1 and ", least_size);
  std::vector<detail::TimedNetwork> networks;
  for (CostedNetwork& network : asked) {
    check(network.task == "classify" || network.task == "segment", network.config,
          ": what a network with `task` ", network.task,
          " costs is not measured; classify and segment are");
    networks.push_back({network});
  }
  BenchOptions o;
  o.compute = compute, o.batch = batch, o.size = size, o.repeat = 3, o.warmup = 1;
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  for (int round = 0; round < (seconds() > 30 * round ? 3 : 5); ++round)
    for (detail::TimedNetwork& network : networks)
      for (const bool train : {true, false}) {
        o.train = train;
        detail::take_turn(network, o);
      }
  const double images = 1000 * static_cast<double>(o.batch);
  for (detail::TimedNetwork& network : networks) {
    network.asked.costs.training = images / median(network.training_ms);
    network.asked.costs.inference = images / median(network.inference_ms);
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
