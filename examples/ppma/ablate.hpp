#pragma once
// ppma ablate: what is a mask worth? The same network, data and budget with each mask and several
// seeds, to a folder
//
//   OUT/STRUCTURE-MASK-SEED    a run of `train` each: those that are there are not trained again
//   OUT/ablation.json          accuracies, means, intervals
//   OUT/ablation.png           differences from no mask with their intervals
//   OUT/job-K.log              with --jobs, what process K says
//
// Seeds are paired: networks of one seed begin with the same weights but for the mask's own and see
// the same images in the same order. What counts is the last epoch's accuracy on the test images,
// of the average of weights where there is one; nothing is chosen by it. Where runs are evaluated
// more than once, the mean of all evaluations stands beside it: how soon a network learnt.

#include <filesystem>
#include <utility>

#include "ppma/metrics/interval.hpp"
#include "ppma/vis/intervals.hpp"
#include "system.hpp"
#include "train.hpp"

namespace tool {

struct AblateCommand : TrainCommand {
  std::vector<std::string> masks{"all"}, structures{"whole"};
  i64 seeds = 5, jobs = 1;
  std::string part = "0/1";
  bool report = false;

  AblateCommand() { out = "runs/ablation"; }
};

/// Accuracy on the test images: of the last epoch, and the mean of all that were evaluated.
struct Accuracy {
  double last = 0, over_epochs = 0;
};

/// One run: which network, and how it did once it is trained.
struct AblationRun {
  std::string structure, mask, folder;
  u64 seed;
  std::optional<Accuracy> accuracy{};
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
inline std::optional<Accuracy> accuracy_of(const TrainCommand& c) {
  const std::string path = c.out + "/train.json";
  if (!std::filesystem::exists(path)) return {};
  check(parse_json(read_text(path), path) == Json(options_of(c)), c.out,
        ": was trained with other options; choose another --out, or the same options");
  const std::vector<ClassifierRecord> log = read_log(c.out + "/log.jsonl");
  if (log.empty() || log.back().epoch + 1 < c.epochs) return {};
  Accuracy a;
  double evaluations = 0;
  for (const ClassifierRecord& r : log)
    if (r.test) {
      a.last = (r.test_ema ? r.test_ema : r.test)->acc1;
      a.over_epochs += a.last, ++evaluations;
    }
  a.over_epochs /= evaluations;
  return a;
}

/// A figure of the table; what is not known, as the deviation of one run, is "?".
inline std::string fixed(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return is_finite(value) ? text : "?";
}

/// What the seeds of one mask say: a cell or two of the table and a part of ablation.json.
struct Comparison {
  Json json;
  std::string cells;
  std::optional<IntervalRow> row;  // of the picture
};

/// Accuracies of one mask beside those without, seed by seed; `none` is empty where there are none.
inline Comparison compare(const std::string& mask, const std::vector<double>& values,
                          const std::vector<double>& none) {
  const Interval mean = mean_interval(values);
  Comparison c{{{"accuracies", values}, {"mean", mean.mean}},
               fixed("%.2f %%", mean.mean) + " | " + fixed("%.2f", mean.deviation) + " | ",
               {}};
  if (none.empty() || mask == "none") {
    c.cells += "-";
    return c;
  }
  const Interval d = paired_interval(values, none);
  std::vector<double> differences;
  for (std::size_t i = 0; i < values.size(); ++i) differences.push_back(values[i] - none[i]);
  c.row = IntervalRow{mask, d, differences};
  c.json["minus_none"] = d.mean;
  if (values.size() > 1) c.json["interval"] = {d.low, d.high};
  c.cells +=
      fixed("%+.2f", d.mean) + " (" + fixed("%+.2f", d.low) + " to " + fixed("%+.2f", d.high) + ")";
  return c;
}

/// The table, ablation.json and ablation.png of the masks whose runs are all trained.
inline void report(const AblateCommand& o, const std::vector<AblationRun>& runs) {
  // Empty: not all are trained.
  const auto accuracies = [&](const std::string& structure, const std::string& mask,
                              double Accuracy::*of) {
    std::vector<double> values;
    for (const AblationRun& r : runs)
      if (r.structure == structure && r.mask == mask && r.accuracy)
        values.push_back((*r.accuracy).*of);
    return static_cast<i64>(values.size()) == o.seeds ? values : std::vector<double>{};
  };
  const bool over_epochs = o.evaluate_every < o.epochs;
  Json all{{"options", options_of(static_cast<const TrainCommand&>(o))}, {"rows", Json::array()}};
  all["options"].erase("seed");
  std::vector<IntervalRow> rows;
  std::string missing;
  const std::string columns = " deviation | minus none, paired 95 % |";
  std::printf(
      "\n| structure | mask | accuracy, seeds: %lld |%s%s\n| --- | --- | --- | --- | --- |%s\n",
      static_cast<long long>(o.seeds), columns.c_str(),
      over_epochs ? (" mean of all evaluations |" + columns).c_str() : "",
      over_epochs ? " --- | --- | --- |" : "");
  for (const std::string& structure : o.structures) {
    if (o.structures.size() > 1) rows.push_back({structure});
    for (const std::string& mask : o.masks) {
      const auto compared = [&](double Accuracy::*of) {
        return compare(mask, accuracies(structure, mask, of), accuracies(structure, "none", of));
      };
      if (accuracies(structure, mask, &Accuracy::last).empty()) {
        missing += str(missing.empty() ? "" : ", ", structure, " ", mask);
        continue;
      }
      Comparison last = compared(&Accuracy::last);
      if (last.row) rows.push_back(*last.row);
      last.json["structure"] = structure, last.json["mask"] = mask;
      std::printf("| %s | %s | %s |", structure.c_str(), mask.c_str(), last.cells.c_str());
      if (over_epochs) {
        const Comparison mean = compared(&Accuracy::over_epochs);
        last.json["over_epochs"] = mean.json;
        std::printf(" %s |", mean.cells.c_str());
      }
      std::printf("\n");
      all["rows"].push_back(std::move(last.json));
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

/// Trains all runs by so many processes of this program.
inline void train_by_jobs(const AblateCommand& o, std::vector<AblationRun>& runs) {
  std::filesystem::create_directories(o.out);
  std::vector<Job> jobs;
  for (i64 k = 0; k < o.jobs; ++k)
    jobs.push_back(
        {{"--jobs", "1", "--part", str(k, "/", o.jobs)}, str(o.out, "/job-", k, ".log")});
  std::printf("%zu runs by %zu processes, which write %s/job-0.log to job-%zu.log\n", runs.size(),
              jobs.size(), o.out.c_str(), jobs.size() - 1);
  std::vector<TrainCommand> commands;
  for (const AblationRun& r : runs) commands.push_back(command_of(o, r));
  std::size_t known = 0;
  const auto count = [&] {
    std::size_t trained = 0;
    for (std::size_t k = 0; k < runs.size(); ++k) {
      if (!runs[k].accuracy) runs[k].accuracy = accuracy_of(commands[k]);
      trained += runs[k].accuracy.has_value();
    }
    if (trained > std::exchange(known, trained)) {
      std::printf("%zu of %zu trained\n", trained, runs.size());
      std::fflush(stdout);
    }
  };
  count();
  const std::vector<std::size_t> failed = run_jobs(jobs, count);
  check(failed.empty(), failed.size(), " of ", o.jobs, " processes failed; see ",
        failed.empty() ? "" : jobs[failed[0]].log);
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
  check(o.jobs == 1 || parts == 1, "--part is for one process; --jobs ", o.jobs,
        " cuts the runs into parts by itself");
  if (o.jobs > 1 && !o.report) {
    train_by_jobs(o, runs);
    return report(o, runs);
  }
  std::optional<Data> data;  // of one seed
  u64 data_seed = 0;
  for (std::size_t k = 0; k < runs.size(); ++k) {
    TrainCommand c = command_of(o, runs[k]);
    runs[k].accuracy = accuracy_of(c);
    // Parts are neighbours: most of them draw the images of one seed.
    const bool other_part = static_cast<i64>(k) * parts / static_cast<i64>(runs.size()) != part;
    if (runs[k].accuracy || o.report || other_part) continue;
    if (!data || data_seed != c.seed) {
      data = make_data(c.data, c.seed, true, {}, c.crops());
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
                "K/N: train the K-th (from 0) of N parts of the runs, beside other processes")
      ->take_last()
      ->check(some_text())
      ->capture_default_str();
  c->add_option(
       "--jobs", o->jobs,
       "processes that train at the same time; they share the threads, or have --threads each")
      ->take_last()
      ->check(in_range(i64{1}, i64{1000}))
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
    check(o->patience == 0, "ablate: runs are of one length; leave out --patience");
    if (c->count("--evaluate-every") == 0)
      o->evaluate_every = o->epochs;  // what counts is the last
    ablate(*o);
  });
}

}  // namespace tool
