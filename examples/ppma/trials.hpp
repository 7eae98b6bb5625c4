#pragma once
// What ablate and sweep have in common: options of their runs (ppma/commands/trials.hpp), several
// processes, and how what comes of it is shown.
//
//   OUT/job-K.log       with --jobs, what process K says

#include <filesystem>
#include <functional>
#include <utility>

#include "ppma/commands/study.hpp"
#include "system.hpp"
#include "train.hpp"

namespace tool {

/// What is asked of all trials.
struct TrialArguments {
  i64 seeds = 5, jobs = 1;
  std::string part = "0/1";
  bool report = false;

  void add(CLI::App& app) {
    app.add_option("--seeds", seeds, "runs of each, with seeds from --seed on")
        ->check(in_range(i64{1}, i64{1000}))
        ->capture_default_str();
    app.add_option("--part", part,
                   "K/N: train the K-th (from 0) of N parts of the runs, beside other processes")
        ->take_last()
        ->check(some_text())
        ->capture_default_str();
    app.add_option(
           "--jobs", jobs,
           "processes that train at the same time; they share the threads, or have --threads each")
        ->take_last()
        ->check(in_range(i64{1}, i64{1000}))
        ->capture_default_str();
    app.add_flag("--report", report, "train nothing: show what is there");
  }

  /// What they are. Error: a part that is none, or that does not go with several processes.
  TrialOptions options() const {
    TrialOptions o{.seeds = seeds, .report = report};
    o.part = -1, o.parts = 0;
    const std::size_t slash = part.find('/');
    check(slash != std::string::npos && parse_number(part.substr(0, slash), o.part) &&
              parse_number(part.substr(slash + 1), o.parts) && o.part >= 0 && o.part < o.parts,
          "--part ", part, ": must be K/N, with K from 0 to N - 1");
    check(jobs == 1 || o.parts == 1, "--part is for one process; --jobs ", jobs,
          " cuts the runs into parts by itself");
    return o;
  }
};

/// The options of `train`, for the task that was chosen.
class TrialBase {
 public:
  explicit TrialBase(const std::string& out) { classify.out = segment.out = detect.out = out; }

  ClassifierTraining classify;
  SegmentorTraining segment;
  DetectorTraining detect;

  /// All but those of the network.
  void add(CLI::App& app, const std::string& task_help) {
    add_task(app, classify.task, classify.network, task_help);
    app.add_option("--out", classify.out, "folder of the runs")
        ->check(some_text())
        ->capture_default_str();
    add_data(app, classify.data, true);
    app.get_option("--no-exif")->group("With --task classify");
    TrainingOptions::fields(classify, AddFields(app));
    ClassifierTraining::Own::fields(classify, AddFields(app, "With --task classify"));
    add_compute(app, classify.compute);
    add_threads(app);
    take_shared_ = add_dense_options(app, segment, detect);
  }
  /// What was given. Errors: an option of another task, or that makes runs incomparable.
  AnyTraining chosen(const CLI::App& app) {
    const std::string& task = classify.task;
    refuse_others(app, task);
    refuse_other_data(app, classify.data.kind);
    const std::string name = app.get_name();
    const std::string of_data = tasks_of_data(classify.data.kind);
    check(of_data.empty() || of_data.find(task) != std::string::npos, name, ": --data ",
          classify.data.kind, " is for --task ", of_data);
    check(classify.patience == 0, name, ": runs are of one length; leave out --patience");
    if (task == "classify") return finished(app, classify);
    take_shared_(classify);
    return task == "segment" ? finished(app, segment) : finished(app, detect);
  }

 private:
  template <class Command>
  AnyTraining finished(const CLI::App& app, Command c) const {
    c.task = classify.task, c.out = classify.out;
    if (app.count("--evaluate-every") == 0) c.evaluate_every = c.epochs;  // the last one counts
    return c;
  }

  std::function<void(const ClassifierTraining&)> take_shared_{};
};

/// Trains all trials by so many processes of this program.
inline void train_by_jobs(i64 processes, const std::string& out, std::vector<Trial>& trials) {
  std::filesystem::create_directories(out);
  std::vector<Job> jobs;
  for (i64 k = 0; k < processes; ++k)
    jobs.push_back(
        {{"--jobs", "1", "--part", str(k, "/", processes)}, str(out, "/job-", k, ".log")});
  std::printf("%zu runs by %zu processes, which write %s/job-0.log to job-%zu.log\n", trials.size(),
              jobs.size(), out.c_str(), jobs.size() - 1);
  std::size_t known = 0;
  const auto count = [&] {
    std::size_t trained = 0;
    for (Trial& trial : trials) {
      if (!trial.score) trial.score = score_of(trial.options);
      trained += trial.score.has_value();
    }
    if (trained > std::exchange(known, trained)) {
      std::printf("%zu of %zu trained\n", trained, trials.size());
      std::fflush(stdout);
    }
  };
  count();
  std::vector<std::size_t> failed;
  try {
    failed = run_jobs(jobs, count);
  } catch (const Interrupted&) {
    std::printf("stopped: the same command goes on\n");
    throw;
  }
  check(failed.empty(), failed.size(), " of ", processes, " processes failed; see ",
        failed.empty() ? "" : jobs[failed[0]].log);
}

/// Shows runs and what they say together.
class ShownStudy : public StudyObserver {
 public:
  explicit ShownStudy(const TrialArguments& trials) : trials_(trials) {}

  void note(const std::string& text) override { tool::note(text); }
  bool train_all(const std::string& out, std::vector<Trial>& trials) override {
    if (trials_.jobs == 1) return false;
    train_by_jobs(trials_.jobs, out, trials);
    return true;
  }
  void run(std::size_t number, std::size_t all) override {
    std::printf("\nrun %zu of %zu: ", number + 1, all);
  }
  TrainedRun train(const ClassifierTraining& o, const ClassifierData& images) override {
    return tool::train(o, {}, false, &images);
  }
  TrainedRun train(const SegmentorTraining& o) override { return tool::train(o, {}); }
  TrainedRun train(const DetectorTraining& o) override { return tool::train(o, {}); }
  void measure(std::vector<CostedNetwork>& networks, i64 batch, i64 size,
               const ComputeOptions& compute) override {
    std::printf("\ntiming %zu networks in turns\n", networks.size());
    std::fflush(stdout);
    StudyObserver::measure(networks, batch, size, compute);
  }
  void says(const Study& s, const StudySays& says) override {
    std::printf("\n%s", says.table.text().c_str());
    if (!says.costs.rows.empty())
      std::printf("\n%s\n%s", s.how_costs.c_str(), says.costs.text().c_str());
    if (!s.reaches.empty())
      std::printf("\n%s\n%s", s.how_reaches.c_str(), reach_table(s.reaches).text().c_str());
  }

 private:
  const TrialArguments& trials_;
};

/// The files, and what is not there yet.
inline void print_files(const MadeStudy& made) {
  const auto joined = [](const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
  };
  std::printf("\n%s\n", joined(made.files).c_str());
  if (!made.says.missing.empty())
    std::printf("not all trained yet: %s\n", joined(made.says.missing).c_str());
}

}  // namespace tool
