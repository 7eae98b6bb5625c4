#pragma once
#include "ppma/core/names_begin.hpp"
// A run of training, whatever the task: its folder, which is begun or resumed, the processes that
// share it, and the epochs.
//
//   OUT/train.json           the run's options: `resume` reads them
//   OUT/config.json          the network's configuration
//   OUT/log.jsonl            one line an epoch; how it, last and best are kept together, whenever
//                            the process dies: ppma/train/run_folder.hpp
//   OUT/log.csv              the same as a table
//   OUT/last.safetensors     all that `resume` needs; also written within an epoch
//   OUT/events.out.tfevents.*   with `tensorboard`: the same for TensorBoard (run_events.hpp)
//   OUT/best.safetensors     the weights (or their average) of the best epoch, with configuration
//                            and class names

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "ppma/commands/run_events.hpp"
#include "ppma/commands/training_observer.hpp"
#include "ppma/commands/training_options.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/optim/poly_schedule.hpp"
#include "ppma/optim/step_schedule.hpp"
#include "ppma/train/run_folder.hpp"
#include "ppma/train/trainer.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The learning rates of a run with so many steps an epoch, of which those of `warmup` epochs come
/// first. `usual`: the schedule where the options name none.
inline std::function<double(const Moment&)> schedule_of(const TrainingOptions& o,
                                                        const std::string& usual, i64 steps,
                                                        double warmup) {
  const std::string kind = o.schedule.empty() ? usual : o.schedule;
  const i64 warm_steps = std::llround(warmup * static_cast<double>(steps));
  if (kind == "poly")
    return PolySchedule{.rate = o.lr, .total = o.epochs * steps, .warmup = warm_steps};
  if (kind == "cosine")
    return WarmupCosine{.peak = o.lr,
                        .warmup = warmup,
                        .total = static_cast<double>(o.epochs),
                        .start = 1e-6,
                        .final = o.final_lr};
  const std::vector<i64> falls = kind == "constant" ? std::vector<i64>{}
                                 : o.steps.empty()  ? default_steps(o.epochs)
                                                    : o.steps;
  return StepSchedule{.rate = o.lr, .steps = falls, .warmup = warm_steps};
}

/// Marks the parameters that `freeze` names; returns how many tensors. Error: a pattern that fits
/// none.
template <class Model>
i64 freeze(Model& model, const std::string& patterns) {
  i64 frozen = 0;
  std::istringstream all(patterns);
  for (std::string pattern; std::getline(all, pattern, ',');) {
    const i64 before = frozen;
    std::string example;
    for_each_field(model, [&](const std::string& name, Tensor& t, Kind kind) {
      if (kind != Kind::parameter) return;
      example = name;
      if (matches(pattern, name)) t.requires_grad(false), ++frozen;
    });
    check(frozen > before, "`freeze` ", pattern, ": no parameter has such a name; they are called ",
          "as ", example, " (ppma info WEIGHTS lists them)");
  }
  return frozen;
}

/// The folder of images of a run that is resumed, where they have been moved. Error: the run made
/// them itself.
inline void take_moved_data(const std::string& moved, std::string& folder, const std::string& out) {
  if (moved.empty()) return;
  check(!folder.empty(), "`data_dir`: the run in ", out,
        " has no files of images but `data` shapes; leave it out");
  folder = moved;
}

/// Takes the options of the run in `out`, which is resumed, and its network; `data_dir` says where
/// its files are now.
template <class Command>
void take_kept(Command& o) {
  const std::string path = o.out + "/train.json", moved = o.data.folder;
  read_kept(parse_json(read_text(path), path), path, o);
  o.network = {}, o.drop_path = -1;
  o.network.config = o.out + "/config.json";
  take_moved_data(moved, o.data.folder, o.out);
}

/// f(), which reads the images of a run. Where those of a resumed one cannot be read, it says what
/// to do.
template <class Command, class F>
auto at_its_place(const Command& o, const std::string& folder, F f) {
  if (o.resume.empty() || folder.empty()) return f();
  try {
    return f();
  } catch (const Error& e) {
    throw Error(str(e.what(), "; the run in ", o.resume, " was trained on ", folder,
                    ": if its images have been moved, say where they are with `data_dir`"));
  }
}

/// Puts a figure into a record. One that is not finite, as the mean over no class, has no word in
/// JSON: it is left out.
inline void put_figure(Json& record, const std::string& key, double value) {
  if (is_finite(value)) record[key] = value;
}

/// The value of a key of a record; -1: it has none.
inline double figure_of(const Json& record, const std::string& key) {
  double value = -1;
  read_member(record, key.c_str(), "log.jsonl", value);
  return value;
}

/// What a run says of itself.
struct RunFacts {
  RunFolder::Metadata about;  // of its network, in the checkpoints
  Json options, network;      // train.json and config.json
  i64 training_images = 0, test_images = 0;
  i64 epochs = 0, stop = 0;       // of the run, and after how many it rests
  i64 patience = 0;               // evaluations without a better one after which it ends; 0: any
  std::string figure;             // that the best epoch has most of, in the metadata of `best`
  std::string key, averaged_key;  // the figure in the log: of the weights, and of their average
};

class TrainingRun {
 public:
  /// Opens the folder, on rank 0 alone, which speaks and writes for all.
  TrainingRun(const TrainingOptions& o, std::vector<Communicator> processes, RunObserver& observer)
      : processes_(std::move(processes)),
        observer_(observer),
        out_(o.out),
        resumed_(!o.resume.empty()),
        save_every_(60 * o.save_every_minutes),
        limit_(o.seconds()) {
    const auto start = resumed_      ? RunFolder::Start::resume
                       : o.overwrite ? RunFolder::Start::overwrite
                                     : RunFolder::Start::fresh;
    first_alone(processes_, [&] { folder_ = std::make_unique<RunFolder>(out_, start); });
  }

  const std::vector<Communicator>& processes() const { return processes_; }
  BatchPart part() const {
    return processes_.empty() ? BatchPart{} : BatchPart{processes_[0].rank, processes_[0].size};
  }
  bool speaks() const { return folder_ != nullptr; }
  /// Who hears of it: nobody but for rank 0.
  RunObserver& heard() const { return speaks() ? observer_ : nobody<RunObserver>(); }
  bool resumed() const { return resumed_; }
  /// Of rank 0.
  RunFolder& folder() { return *folder_; }
  std::string last() const { return out_ + "/last.safetensors"; }

  /// Brings the trainer and the folder to where a resumed run goes on, or to where a new one
  /// begins. Says what it cannot do. Error: the data has not as many images as the run had.
  void begin(TrainingLoop& trainer, RunFacts facts) {
    facts_ = std::move(facts);
    facts_.about["images"] =
        Json{{"training", facts_.training_images}, {"test", facts_.test_images}}.dump();
    RunFolder::Metadata saved;
    if (resumed_) saved = trainer.resume(last()), check_same_images(saved);
    first_alone(processes_, [&] { begin_folder(trainer, saved); });
  }

  /// Says that all is ready: what `r` says of the network and the images, and what is known here.
  void start(const TrainingLoop& trainer, RunStart r) {
    r.training_images = facts_.training_images, r.test_images = facts_.test_images;
    r.processes = part().ranks, r.folder = out_, r.resumed = resumed_;
    r.epoch = trainer.epoch(), r.epochs = facts_.epochs;
    heard().begin(r);
  }

  /// Trains until facts.stop epochs are done, time or patience is over, or the observer stops it.
  /// Saves the place where it stops. record_of(r) is an epoch's line in the
  /// log; what it writes besides, of weights that are soon gone, is there before that line: a run
  /// that dies between tests that epoch again. show(r, is_best) hears of it.
  template <class Trainer, class RecordOf, class Show>
  void train(Trainer& trainer, BatchStream<typename Trainer::Batch>& stream,
             typename Trainer::Observer observer, RecordOf record_of, Show show) {
    std::optional<RunEvents> board;
    const i64 batches = stream.batches();
    if (speaks() && facts_.options.value("tensorboard", false))
      board.emplace(*folder_, resumed_, trainer.epoch(), trainer.batch(), batches);
    const auto heard_batch = observer.on_batch;
    observer.on_batch = [&](const StepReport& r) {
      if (heard_batch) heard_batch(r);
      observer_.batch(r);
      if (board) board->batch(r);
    };
    if (speaks())
      observer.on_epoch = [&](const typename Trainer::Record& r, bool) {
        const Json record = record_of(r);
        show(r, folder_->save(record));
        if (board) board->epoch(record, batches);
        saved_ = Clock::now();
      };
    else
      observer = {};
    if (speaks()) observer.on_skip = [&](const SkippedStep& s) { observer_.skipped(s); };
    begin_ = saved_ = Clock::now();
    observer.rest = [&] { return stops() || over(limit_, begin_) || over(save_every_, saved_); };
    observer.on_evaluation = [&](i64 done, i64 all) {
      heard().evaluation(done, all);
      // It is done again when the run goes on.
      if (processes_.empty() && stops()) throw EvaluationLeft{};
    };
    bool ended = all_end();
    while (!ended && trainer.epoch() < facts_.stop && !impatient(trainer)) {
      try {
        trainer.run_epoch(stream, observer);
      } catch (const EvaluationLeft&) {
      }
      if (trainer.batch() > 0) {
        save_place();
        if (board) board->write();
      }
      ended = all_end();
    }
    if (!processes_.empty()) processes_[0].barrier();
    if (speaks() && trainer.epoch() < facts_.epochs)
      observer_.rest({.epoch = trainer.epoch(),
                      .batch = trainer.batch(),
                      .patience = impatient(trainer) ? facts_.patience : 0,
                      .folder = out_});
  }

  /// What is there now.
  TrainedRun trained(const TrainingLoop& trainer) const {
    TrainedRun r{.folder = out_, .epochs = trainer.epoch(), .stopped = stopped_};
    r.first = speaks();
    if (speaks() && folder_->best() >= 0)
      r.best = folder_->best(), r.weights = folder_->path("best.safetensors");
    return r;
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct EvaluationLeft {};

  bool stops() {
    if (stopped_ == 0) stopped_ = observer_.stop();
    return stopped_ != 0;
  }
  // Whether the run rests here. What stops one process stops all of them, for the same reason: who
  // started them sees it in each.
  bool all_end() {
    stops();
    double late = over(limit_, begin_) ? 1 : 0;
    if (!processes_.empty()) {
      const Communicator& all = processes_[0];
      std::vector<double> said(static_cast<std::size_t>(all.size) + 1);
      said[static_cast<std::size_t>(all.rank)] = stopped_, said.back() = late;
      said = all.sums(said);
      late = said.back();
      stopped_ = static_cast<int>(*std::max_element(said.begin(), said.end() - 1));
    }
    return stopped_ != 0 || late > 0;
  }

  static bool over(double seconds, Clock::time_point since) {
    return seconds > 0 && std::chrono::duration<double>(Clock::now() - since).count() > seconds;
  }
  bool impatient(const TrainingLoop& trainer) const {
    return facts_.patience > 0 && trainer.since_best() >= facts_.patience;
  }
  void save_place() {
    if (speaks()) folder_->save_place();
    saved_ = Clock::now();
  }
  void begin_folder(TrainingLoop& trainer, const RunFolder::Metadata& saved) {
    const std::string told = facts_.options.dump(1) + "\n";
    // The weights are `best` or their average is, where that is as good.
    const RunFacts& f = facts_;
    const RunFolder::Training training{
        [f](const Json& r) { return std::max(figure_of(r, f.key), figure_of(r, f.averaged_key)); },
        [f, &trainer](const std::string& path, const RunFolder::Metadata& more) {
          RunFolder::Metadata all = f.about;
          all.insert(more.begin(), more.end());
          trainer.save(path, all);
        },
        [f, &trainer](const std::string& path, const Json& record) {
          const double own = figure_of(record, f.key), averaged = figure_of(record, f.averaged_key);
          RunFolder::Metadata all = f.about;
          all["epoch"] = std::to_string(member<i64>(record, "epoch", path));
          all[f.figure] = Json(std::max(own, averaged)).dump();
          write_safetensors(path, averaged >= own ? trainer.average() : trainer.weights(), all);
        }};
    std::vector<std::string> notes;
    if (resumed_) {
      notes = folder_->resume(saved, trainer.epoch(), training);
      // the images have been moved
      if (read_text(folder_->path("train.json")) != told) folder_->replace_options(told);
    } else {
      folder_->begin({{"train.json", told}, {"config.json", facts_.network.dump(1) + "\n"}},
                     training);
    }
    if (!folder_->can_lock())
      notes.push_back(out_ + ": its file system has no locks; let no second process train in it");
    for (const std::string& n : notes) observer_.note(n);
  }

  void check_same_images(const RunFolder::Metadata& saved) const {
    const auto had = saved.find("images");
    if (had == saved.end()) return;  // of a run before they were counted
    const std::string where = last() + ": images";
    const Json j = parse_json(had->second, where);
    const i64 then[] = {member<i64>(j, "training", where), member<i64>(j, "test", where)};
    check(then[0] == facts_.training_images && then[1] == facts_.test_images, out_,
          ": was trained on ", then[0], " images and tested on ", then[1], ", but there are now ",
          facts_.training_images, " and ", facts_.test_images,
          "; bring the images back (`data_dir` says where they are), or start a new run with "
          "`weights` ",
          last());
  }

  std::vector<Communicator> processes_;
  RunObserver& observer_;
  int stopped_ = 0;
  std::string out_;
  bool resumed_;
  double save_every_, limit_;  // seconds between savings within an epoch, and of this call
  std::unique_ptr<RunFolder> folder_;
  RunFacts facts_;
  Clock::time_point begin_{}, saved_{};  // of this call's training; when the run was last saved
};

/// What errors call options that a program gives.
inline const std::string options_name = "options";

/// Opens the run's folder and takes its options: those given, or those of the run that is resumed.
/// Nothing is written yet.
template <class Command>
TrainingRun open_run(Command& o, const std::vector<Communicator>& processes,
                     RunObserver& observer) {
  TrainingOptions::OfCall::fields(o, CheckFields{options_name});
  if (o.resume.empty())
    check_fields(o, options_name), o.check_together();
  else
    o.out = o.resume;
  TrainingRun run(o, processes, observer);
  if (!run.resumed()) return run;
  take_kept(o);
  o.check_together();
  return run;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
