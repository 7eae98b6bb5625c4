#pragma once
// A run of `train`, whatever the task: its folder, which is begun or resumed, the processes that
// share it, and the epochs.
//
//   OUT/train.json           the run's options: --resume OUT reads them
//   OUT/config.json          the network's configuration
//   OUT/log.jsonl            one line an epoch; how it, last and best are kept together, whenever
//                            the process dies: ppma/train/run_folder.hpp
//   OUT/log.csv              the same as a table
//   OUT/last.safetensors     everything that --resume needs; also written within an epoch
//   OUT/events.out.tfevents.*   with --tensorboard: the same for TensorBoard (tensorboard.hpp)
//   OUT/best.safetensors     the weights (or their average) of the best epoch, with configuration
//                            and class names

#include <chrono>
#include <memory>

#include "common.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/train/run_folder.hpp"
#include "ppma/train/training_loop.hpp"
#include "system.hpp"
#include "tensorboard.hpp"
#include "training_options.hpp"

namespace tool {

/// f(), which reads the images of a run. Where those of a resumed one cannot be read, it says what
/// to do.
template <class Command, class F>
auto at_its_place(const Command& o, const std::string& folder, F f) {
  if (o.resume.empty() || folder.empty()) return f();
  try {
    return f();
  } catch (const Error& e) {
    throw Error(str(e.what(), "; the run in ", o.resume, " was trained on ", folder,
                    ": if its images have been moved, say where they are with --data-dir"));
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
  template <class Command>
  TrainingRun(const Command& o, std::vector<Communicator> processes)
      : processes_(std::move(processes)),
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

  /// Trains until facts.stop epochs are done, time or patience is over, or a signal comes. Saves
  /// the place where it stops; Interrupted after a signal. record_of(r) is an epoch's line in the
  /// log; what it writes besides, of weights that are soon gone, is there before that line: a run
  /// that dies between tests that epoch again. show(r, is_best) shows it to people.
  template <class Trainer, class RecordOf, class Show>
  void train(Trainer& trainer, BatchStream<typename Trainer::Batch>& stream,
             typename Trainer::Observer observer, RecordOf record_of, Show show) {
    std::optional<TensorBoard> board;
    const i64 batches = stream.batches();
    if (speaks() && facts_.options.value("tensorboard", false))
      board.emplace(*folder_, resumed_, trainer.epoch(), trainer.batch(), batches);
    if (board)
      observer.on_batch = [&, watched = observer.on_batch](const StepReport& r) {
        if (watched) watched(r);
        board->batch(r);
      };
    if (speaks())
      observer.on_epoch = [&](const typename Trainer::Record& r, bool) {
        const Json record = record_of(r);
        show(r, folder_->save(record));
        if (board) board->epoch(record, batches);
        std::fflush(stdout);
        saved_ = Clock::now();
      };
    else
      observer = {};
    if (speaks())
      observer.on_skip = [](const SkippedStep& s) {
        if (output_is_terminal()) std::printf("\r\033[K"), std::fflush(stdout);
        note(s.text(), "; this step is skipped");
      };
    const SignalWatch watch;
    begin_ = saved_ = Clock::now();
    const auto ends = [&] { return SignalWatch::signal() != 0 || over(limit_, begin_); };
    observer.rest = [&] { return ends() || over(save_every_, saved_); };
    if (processes_.empty())  // an evaluation is done again when the run goes on
      observer.on_evaluation = [watched = observer.on_evaluation](i64 done, i64 all) {
        if (watched) watched(done, all);
        if (SignalWatch::signal() != 0) throw Interrupted{SignalWatch::signal()};
      };
    int signal = 0;
    bool ended = false;
    while (!ended && trainer.epoch() < facts_.stop && !impatient(trainer)) {
      try {
        trainer.run_epoch(stream, observer);
      } catch (const Interrupted&) {
      }
      if (trainer.batch() > 0) {
        save_place();
        if (board) board->write();
      }
      signal = signal_to_any();
      ended = any_process(over(limit_, begin_)) || signal != 0;
    }
    if (!processes_.empty()) processes_[0].barrier();
    if (speaks() && trainer.epoch() < facts_.epochs) say_end(trainer);
    if (signal == 0) signal = SignalWatch::signal();  // after the last epoch
    if (signal != 0) throw Interrupted{signal};
  }

 private:
  using Clock = std::chrono::steady_clock;

  static bool over(double seconds, Clock::time_point since) {
    return seconds > 0 && std::chrono::duration<double>(Clock::now() - since).count() > seconds;
  }
  bool impatient(const TrainingLoop& trainer) const {
    return facts_.patience > 0 && trainer.since_best() >= facts_.patience;
  }
  bool any_process(bool own) const {
    return processes_.empty() ? own : processes_[0].sum(own ? 1 : 0) > 0;
  }
  // What came to one process ends all of them alike: who started them sees it in each.
  int signal_to_any() const {
    const int own = SignalWatch::signal();
    for (const int signal : {SIGTERM, SIGINT})
      if (any_process(own == signal)) return signal;
    return 0;
  }
  void save_place() {
    if (speaks()) folder_->save_place();
    saved_ = Clock::now();
  }
  void say_end(const TrainingLoop& trainer) const {
    const long long epochs = static_cast<long long>(trainer.epoch());
    if (output_is_terminal()) std::printf("\r\033[K");
    if (impatient(trainer))
      std::printf("ended after epoch %lld: none of the last %lld evaluations was the best\n",
                  epochs, static_cast<long long>(facts_.patience));
    else
      std::printf(
          "stopped %s; continue with --resume %s\n",
          trainer.batch() > 0
              ? str("in epoch ", epochs + 1, ", after ", trainer.batch(), " batches").c_str()
              : str("after epoch ", epochs).c_str(),
          out_.c_str());
    std::fflush(stdout);
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
    for (const std::string& n : notes) note(n);
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
          "; bring the images back (--data-dir says where they are), or start a new run with "
          "--weights ",
          last());
  }

  std::vector<Communicator> processes_;
  std::string out_;
  bool resumed_;
  double save_every_, limit_;  // seconds between savings within an epoch, and of this call
  std::unique_ptr<RunFolder> folder_;
  RunFacts facts_;
  Clock::time_point begin_{}, saved_{};  // of this call's training; when the run was last saved
};

/// Opens the run's folder and takes its options: those given, or those of the run that is resumed.
/// Nothing is written yet.
template <class Command>
TrainingRun open_run(Command& o, const std::vector<Communicator>& processes) {
  if (o.resume.empty())
    o.check_together();
  else
    o.out = o.resume;
  TrainingRun run(o, processes);
  if (!run.resumed()) return run;
  take_kept(o);
  o.check_together();
  return run;
}

}  // namespace tool
