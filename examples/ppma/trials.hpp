#pragma once
// Trials: runs of `train` that are compared, what ablate and sweep have in common. Each of several
// variants (a mask, a learning rate) is trained with the same seeds, to a folder
//
//   OUT/VARIANT-SEED    a run of `train` each: those that are there are not trained again
//   OUT/job-K.log       with --jobs, what process K says
//
// Seeds are paired: runs of one seed see the same images in the same order, and begin with the same
// weights where their networks are the same. What counts is the last epoch's figure on the test
// images, of the average of weights where there is one; nothing is chosen by it.

#include <filesystem>
#include <functional>
#include <utility>
#include <variant>

#include "system.hpp"
#include "train.hpp"

namespace tool {

/// The options of a run of `train`, of any task.
using AnyCommand = std::variant<ClassifierTraining, SegmentorTraining, DetectorTraining>;

inline TrainingOptions& common_of(AnyCommand& c) {
  return std::visit([](auto& o) -> TrainingOptions& { return o; }, c);
}
inline const TrainingOptions& common_of(const AnyCommand& c) {
  return std::visit([](const auto& o) -> const TrainingOptions& { return o; }, c);
}
inline Json options_of(const AnyCommand& c) {
  return std::visit([](const auto& o) { return ppma::options_of(o); }, c);
}

/// What is told of a task: the figure on the test images, and where a run's log has it.
struct TaskFigure {
  std::string name;                                       // "accuracy"
  std::vector<std::pair<std::string, std::string>> keys;  // itself, and of averaged weights
  double scale = 1;                                       // to percent
  std::string loss;                                       // of training

  static TaskFigure of(const std::string& task) {
    if (task == "segment") return {"mIoU", {{"mIoU", "ema_mIoU"}}, 100, "loss"};
    if (task == "detect")
      return {"mAP", {{"segm_mAP", "ema_segm_mAP"}, {"bbox_mAP", "ema_bbox_mAP"}}, 100, "loss"};
    return {"accuracy", {{"test_acc1", "test_ema_acc1"}}, 1, "train_loss"};
  }
  /// Of a line of the log, in percent; nothing where the epoch was not evaluated.
  std::optional<double> in(const Json& record) const {
    for (const auto& [own, averaged] : keys)
      for (const std::string& key : {averaged, own})
        if (double value = -1; read_member(record, key.c_str(), "log.jsonl", value), value >= 0)
          return scale * value;
    return {};
  }
};

/// How a run did: its figure in the end and as the mean of all evaluations, and both over epochs.
struct Score {
  double last = 0, over_epochs = 0;
  Series figure{}, loss{};
};

/// A run of one variant.
struct Trial {
  std::size_t variant;
  AnyCommand command;
  std::optional<Score> score{};  // once it is trained
};

/// What is asked of all trials.
struct TrialOptions {
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
  AnyCommand chosen(const CLI::App& app) {
    const std::string& task = classify.task;
    refuse_others(app, task);
    refuse_other_data(app, classify.data.kind);
    const std::string name = app.get_name();
    const std::string of_data = task_of_data(classify.data.kind);
    check(of_data.empty() || of_data == task, name, ": --data ", classify.data.kind,
          " is for --task ", of_data);
    check(classify.patience == 0, name, ": runs are of one length; leave out --patience");
    if (task == "classify") return finished(app, classify);
    take_shared_(classify);
    return task == "segment" ? finished(app, segment) : finished(app, detect);
  }

 private:
  template <class Command>
  AnyCommand finished(const CLI::App& app, Command c) const {
    c.task = classify.task, c.out = classify.out;
    if (app.count("--evaluate-every") == 0) c.evaluate_every = c.epochs;  // the last one counts
    return c;
  }

  std::function<void(const ClassifierTraining&)> take_shared_{};
};

/// Objects of a file that has one a line; none where there is no file. Error: a line is no JSON.
inline std::vector<Json> json_lines(const std::string& path) {
  std::vector<Json> all;
  if (!std::filesystem::exists(path)) return all;
  std::istringstream lines(read_text(path));
  for (std::string line; std::getline(lines, line);) all.push_back(parse_json(line, path));
  return all;
}

/// What the log of a run in `folder` says; nothing where it has fewer than `epochs`.
inline std::optional<Score> score_of_log(const std::string& folder, const std::string& task,
                                         i64 epochs) {
  const std::string path = folder + "/log.jsonl";
  const std::vector<Json> log = json_lines(path);
  const TaskFigure figure = TaskFigure::of(task);
  if (log.empty() || member<i64>(log.back(), "epoch", path) + 1 < epochs) return {};
  Score s;
  for (const Json& r : log) {
    const double epoch = static_cast<double>(member<i64>(r, "epoch", path) + 1);
    s.loss.x.push_back(epoch), s.loss.y.push_back(member<double>(r, figure.loss.c_str(), path));
    const std::optional<double> value = figure.in(r);
    if (!value) continue;
    s.last = *value, s.over_epochs += *value;
    s.figure.x.push_back(epoch), s.figure.y.push_back(*value);
  }
  check(!s.figure.y.empty(), path, ": no epoch has been evaluated");
  s.over_epochs /= static_cast<double>(s.figure.y.size());
  return s;
}

/// A run's score, if it is trained to its end. Error: it was told something else.
inline std::optional<Score> score_of(const AnyCommand& c) {
  const TrainingOptions& o = common_of(c);
  const std::string path = o.out + "/train.json";
  if (!std::filesystem::exists(path)) return {};
  Json told = options_of(c), kept = parse_json(read_text(path), path);
  // Sizes that were not given are written down as the first image had them.
  for (const char* key : {"longer", "shorter", "crop", "head", "steps"})
    if (const auto it = told.find(key);
        it != told.end() && (*it == 0 || *it == "" || *it == Json::array()))
      told.erase(key), kept.erase(key);
  if (o.task == "detect" && o.data.kind == "shapes")
    for (const char* key : {"longer", "shorter"}) told.erase(key), kept.erase(key);
  check(kept == told, o.out,
        ": was trained with other options; choose another --out, or the same options");
  return score_of_log(o.out, o.task, o.epochs);
}

/// Trains all trials by so many processes of this program.
inline void train_by_jobs(const TrialOptions& t, const std::string& out,
                          std::vector<Trial>& trials) {
  std::filesystem::create_directories(out);
  std::vector<Job> jobs;
  for (i64 k = 0; k < t.jobs; ++k)
    jobs.push_back({{"--jobs", "1", "--part", str(k, "/", t.jobs)}, str(out, "/job-", k, ".log")});
  std::printf("%zu runs by %zu processes, which write %s/job-0.log to job-%zu.log\n", trials.size(),
              jobs.size(), out.c_str(), jobs.size() - 1);
  std::size_t known = 0;
  const auto count = [&] {
    std::size_t trained = 0;
    for (Trial& trial : trials) {
      if (!trial.score) trial.score = score_of(trial.command);
      trained += trial.score.has_value();
    }
    if (trained > std::exchange(known, trained)) {
      std::printf("%zu of %zu trained\n", trained, trials.size());
      std::fflush(stdout);
    }
  };
  count();
  const std::vector<std::size_t> failed = run_jobs(jobs, count);
  check(failed.empty(), failed.size(), " of ", t.jobs, " processes failed; see ",
        failed.empty() ? "" : jobs[failed[0]].log);
}

/// Images that neighbouring runs of a classifier share.
class SharedData {
 public:
  const ClassifierData& of(const ClassifierTraining& c) {
    if (data_ && seed_ == c.seed && options_ == options_of(c.data)) return *data_;
    data_ = make_data(c.data, c.seed, true, {}, c.crops(), notes());
    if (is_generated(c.data.kind))
      data_->train = in_memory(data_->train), data_->test = in_memory(data_->test);
    seed_ = c.seed, options_ = options_of(c.data);
    return *data_;
  }

 private:
  std::optional<ClassifierData> data_{};
  u64 seed_ = 0;
  Json options_{};
};

inline void train_trial(AnyCommand c, SharedData& data) {
  TrainingOptions& o = common_of(c);
  if (std::filesystem::exists(o.out + "/last.safetensors")) o.resume = o.out;
  if (const auto* classify = std::get_if<ClassifierTraining>(&c))
    train(*classify, {}, false, &data.of(*classify));
  else if (const auto* segment = std::get_if<SegmentorTraining>(&c))
    train(*segment, {});
  else
    train(std::get<DetectorTraining>(c), {});
}

/// Trains those of the trials that are this process's and are not yet trained. Error: --part and
/// --jobs that do not go together, or what training refuses.
inline void run_trials(const TrialOptions& t, const std::string& out, std::vector<Trial>& trials) {
  const std::size_t slash = t.part.find('/');
  i64 part = -1, parts = 0;
  check(slash != std::string::npos && parse_number(t.part.substr(0, slash), part) &&
            parse_number(t.part.substr(slash + 1), parts) && part >= 0 && part < parts,
        "--part ", t.part, ": must be K/N, with K from 0 to N - 1");
  check(t.jobs == 1 || parts == 1, "--part is for one process; --jobs ", t.jobs,
        " cuts the runs into parts by itself");
  if (t.jobs > 1 && !t.report) return train_by_jobs(t, out, trials);
  SharedData data;
  for (std::size_t k = 0; k < trials.size(); ++k) {
    trials[k].score = score_of(trials[k].command);
    // Parts are neighbours: most of them draw the images of one seed.
    const bool other_part = static_cast<i64>(k) * parts / static_cast<i64>(trials.size()) != part;
    if (trials[k].score || t.report || other_part) continue;
    std::printf("\nrun %zu of %zu: ", k + 1, trials.size());
    train_trial(trials[k].command, data);
    trials[k].score = score_of(trials[k].command);
  }
}

}  // namespace tool
