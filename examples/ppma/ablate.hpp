#pragma once
// ppma ablate: what is a mask worth? The same network, data and budget with each mask and several
// seeds, to a folder
//
//   OUT/STRUCTURE-MASK-SEED    a run of `train` each: those that are there are not trained again
//   OUT/ablation.json          accuracies, means, intervals
//   OUT/ablation.png           differences from no mask with their intervals
//
// Seeds are paired: networks of one seed begin with the same weights but for the mask's own and see
// the same images in the same order. What counts is the last epoch's accuracy on the test images,
// of the average of weights where there is one; nothing is chosen by it.

#include <filesystem>

#include "ppma/metrics/interval.hpp"
#include "ppma/vis/intervals.hpp"
#include "train.hpp"

namespace tool {

struct AblateCommand : TrainCommand {
  std::vector<std::string> masks{"all"}, structures{"whole"};
  i64 seeds = 5;
  std::string part = "0/1";
  bool report = false;

  AblateCommand() { out = "runs/ablation"; }
};

/// One run: which network, and how it did once it is trained.
struct AblationRun {
  std::string structure, mask, folder;
  u64 seed;
  std::optional<double> accuracy{};
};

inline std::vector<AblationRun> ablation_runs(const AblateCommand& o) {
  std::vector<AblationRun> runs;
  for (i64 k = 0; k < o.seeds; ++k)
    for (const std::string& structure : o.structures)
      for (const std::string& mask : o.masks) {
        const u64 seed = o.seed + static_cast<u64>(k);
        runs.push_back({structure, mask, str(o.out, "/", structure, "-", mask, "-", seed), seed});
      }
  return runs;
}

/// The options of one run, with its network in OUT/networks.
inline TrainCommand command_of(const AblateCommand& o, const AblationRun& run) {
  TrainCommand c = o;
  PpmaConfig config = network_config(o.network, {}, "ppma_nano");
  config.chunkwise_recurrents.fill(run.structure == "criss_cross");
  config.linear.fill(run.structure == "linear");
  config.mask = parse_mask_kind(run.mask);
  config.name = str(config.name, ", ", run.structure);
  std::filesystem::create_directories(o.out + "/networks");
  c.network = {};
  c.network.config = str(o.out, "/networks/", run.structure, "-", run.mask, ".json");
  write_file(c.network.config, config_to_json(config).dump(1) + "\n");
  c.out = run.folder, c.seed = run.seed;
  return c;
}

/// A run's accuracy, if it is trained to its end. Error: it was told something else.
inline std::optional<double> accuracy_of(const TrainCommand& c) {
  const std::string path = c.out + "/train.json";
  if (!std::filesystem::exists(path)) return {};
  check(parse_json(read_text(path), path) == Json(options_of(c)), c.out,
        ": was trained with other options; choose another --out, or the same options");
  const std::vector<ClassifierRecord> log = read_log(c.out + "/log.jsonl");
  if (log.empty() || log.back().epoch + 1 < c.epochs || !log.back().test) return {};
  return (log.back().test_ema ? log.back().test_ema : log.back().test)->acc1;
}

/// A figure of the table; what is not known, as the deviation of one run, is "?".
inline std::string fixed(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return is_finite(value) ? text : "?";
}

/// The table, ablation.json and ablation.png of the masks whose runs are all trained.
inline void report(const AblateCommand& o, const std::vector<AblationRun>& runs) {
  // Empty: not all are trained.
  const auto accuracies = [&](const std::string& structure, const std::string& mask) {
    std::vector<double> values;
    for (const AblationRun& r : runs)
      if (r.structure == structure && r.mask == mask && r.accuracy) values.push_back(*r.accuracy);
    return static_cast<i64>(values.size()) == o.seeds ? values : std::vector<double>{};
  };
  Json all{{"options", options_of(static_cast<const TrainCommand&>(o))}, {"rows", Json::array()}};
  all["options"].erase("seed");
  std::vector<IntervalRow> rows;
  std::string missing;
  std::printf(
      "\n| structure | mask | accuracy, %lld seeds | deviation | minus none, paired 95 %% |\n"
      "| --- | --- | --- | --- | --- |\n",
      static_cast<long long>(o.seeds));
  for (const std::string& structure : o.structures) {
    if (o.structures.size() > 1) rows.push_back({structure});
    const std::vector<double> none = accuracies(structure, "none");
    for (const std::string& mask : o.masks) {
      const std::vector<double> values = accuracies(structure, mask);
      if (values.empty()) {
        missing += str(missing.empty() ? "" : ", ", structure, " ", mask);
        continue;
      }
      const Interval mean = mean_interval(values);
      Json row{
          {"structure", structure}, {"mask", mask}, {"accuracies", values}, {"mean", mean.mean}};
      std::string difference = "-";
      if (!none.empty() && mask != "none") {
        const Interval d = paired_interval(values, none);
        std::vector<double> differences;
        for (std::size_t i = 0; i < values.size(); ++i) differences.push_back(values[i] - none[i]);
        rows.push_back({mask, d, differences});
        row["minus_none"] = d.mean;
        if (o.seeds > 1) row["interval"] = {d.low, d.high};
        difference = fixed("%+.2f", d.mean) + " (" + fixed("%+.2f", d.low) + " to " +
                     fixed("%+.2f", d.high) + ")";
      }
      std::printf("| %s | %s | %.2f %% | %s | %s |\n", structure.c_str(), mask.c_str(), mean.mean,
                  fixed("%.2f", mean.deviation).c_str(), difference.c_str());
      all["rows"].push_back(std::move(row));
    }
  }
  write_file(o.out + "/ablation.json", all.dump(1) + "\n");
  std::printf("\n%s/ablation.json", o.out.c_str());
  if (std::any_of(rows.begin(), rows.end(), [](const auto& r) { return !r.values.empty(); })) {
    write_png(
        o.out + "/ablation.png",
        intervals(rows,
                  {.title = str(o.data.kind == "paths" ? "paths, " + o.data.question : o.data.kind,
                                ": accuracy minus that without a mask"),
                   .x_label = str("percentage points, ", o.seeds, " seeds, paired 95 % intervals")})
            .image());
    std::printf(", %s/ablation.png", o.out.c_str());
  }
  std::printf("\n");
  if (!missing.empty()) std::printf("not all trained yet: %s\n", missing.c_str());
}

inline void ablate(AblateCommand o) {
  if (o.masks == std::vector<std::string>{"all"}) {
    o.masks.clear();
    for (const Mask& mask : masks()) o.masks.push_back(mask.name);
  }
  const std::size_t slash = o.part.find('/');
  i64 part = -1, parts = 0;
  check(slash != std::string::npos && parse_number(o.part.substr(0, slash), part) &&
            parse_number(o.part.substr(slash + 1), parts) && part >= 0 && part < parts,
        "--part ", o.part, ": must be K/N, with K from 0 to N - 1");
  std::vector<AblationRun> runs = ablation_runs(o);
  std::optional<Data> data;  // of one seed
  u64 data_seed = 0;
  for (std::size_t k = 0; k < runs.size(); ++k) {
    TrainCommand c = command_of(o, runs[k]);
    runs[k].accuracy = accuracy_of(c);
    if (runs[k].accuracy || o.report || static_cast<i64>(k) % parts != part) continue;
    if (!data || data_seed != c.seed) {
      data = make_data(c.data, c.seed);
      if (generated(c.data.kind)) {
        data->train = in_memory(data->train);
        data->test = in_memory(data->test);
      }
      data_seed = c.seed;
    }
    std::printf("\nrun %zu of %zu: ", k + 1, runs.size());
    TrainCommand run = c;
    if (std::filesystem::exists(c.out + "/last.safetensors")) run.resume = c.out;
    train(run, {}, &*data);
    runs[k].accuracy = accuracy_of(c);
  }
  report(o, runs);
}

inline void add_ablate(CLI::App& app) {
  auto o = std::make_shared<AblateCommand>();
  auto* c = app.add_subcommand(
      "ablate", "Trains a classifier with each mask and several seeds: means and intervals");
  c->add_option("--masks", o->masks, "masks to compare, or all")
      ->check(accepted_by([](const std::string& name) {
        if (name != "all") parse_mask_kind(name);
      }))
      ->delimiter(',')
      ->capture_default_str();
  c->add_option("--structures", o->structures,
                "attention of all stages: whole, criss_cross, linear")
      ->check(CLI::IsMember({"whole", "criss_cross", "linear"}))
      ->delimiter(',')
      ->capture_default_str();
  c->add_option("--seeds", o->seeds, "runs of each, with seeds from --seed on")
      ->check(in_range(i64{1}, i64{1000}))
      ->capture_default_str();
  c->add_option("--part", o->part,
                "K/N: train every N-th run, from the K-th on (from 0), beside other processes")
      ->check(some_text())
      ->capture_default_str();
  c->add_flag("--report", o->report, "train nothing: show what is there");
  c->add_option("--out", o->out, "folder of the runs")->check(some_text())->capture_default_str();
  add_data(*c, o->data, true);
  auto* config = c->add_option("--config", o->network.config, "the network's configuration as JSON")
                     ->check(CLI::ExistingFile);
  c->add_option("--model", o->network.model, "a configuration by name [ppma_nano]")
      ->excludes(config)
      ->check(accepted_by([](const std::string& name) { config_by_name(name); }));
  TrainingOptions::fields(*o, AddFields(*c));
  TrainCommand::Own::fields(*o, AddFields(*c));
  add_compute(*c, o->compute);
  add_threads(*c);
  c->callback([o, c] {
    refuse_other_data(*c, o->data.kind);
    check(o->data.kind != "coco", "ablate: --data coco is for detection");
    if (c->count("--evaluate-every") == 0)
      o->evaluate_every = o->epochs;  // what counts is the last
    ablate(*o);
  });
}

}  // namespace tool
