#pragma once
#include "ppma/core/names_begin.hpp"
// Trials: runs of training that are compared. Each of several variants (a mask, a learning rate) is
// trained with the same seeds, to a folder
//
//   OUT/VARIANT-SEED    a run each: those that are there are not trained again
//
// Seeds are paired: runs of one seed see the same images in the same order, and begin with the same
// weights where their networks are the same. What counts is the last epoch's figure on the test
// images, of the average of weights where there is one; nothing is chosen by it.

#include <cstddef>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ppma/commands/run_scores.hpp"
#include "ppma/commands/train.hpp"

namespace ppma::inline PPMA_ABI {

/// The options of a run, of any task.
using AnyTraining = std::variant<ClassifierTraining, SegmentorTraining, DetectorTraining>;

/// What all tasks have.
inline TrainingOptions& common_of(AnyTraining& c) {
  return std::visit([](auto& o) -> TrainingOptions& { return o; }, c);
}
inline const TrainingOptions& common_of(const AnyTraining& c) {
  return std::visit([](const auto& o) -> const TrainingOptions& { return o; }, c);
}
/// As its train.json keeps them.
PPMA_API Json options_of(const AnyTraining& c);

/// A run of one variant.
struct Trial {
  std::size_t variant = 0;
  AnyTraining options;
  std::optional<RunScore> score{};  // once it is trained
};

/// What is asked of all trials.
struct TrialOptions {
  i64 seeds = 5;            // runs of each, with seeds from `seed` on
  i64 part = 0, parts = 1;  // train this part of the runs, beside other processes
  bool report = false;      // train nothing: what is there counts
};

/// Hears of trials, and trains them.
struct TrialObserver : Observer {
  /// Trains all of them in a way of its own, such as by several processes, and returns true.
  virtual bool train_all(const std::string& /*out*/, std::vector<Trial>& /*trials*/) {
    return false;
  }
  /// A run is about to be trained: its number from 0, of so many.
  virtual void run(std::size_t /*number*/, std::size_t /*all*/) {}
  /// Trains one. The trials end where its observer has stopped it.
  virtual TrainedRun train(const ClassifierTraining& o, const ClassifierData& images) {
    return train_classifier(o, nobody<ClassifierObserver>(), {}, &images);
  }
  virtual TrainedRun train(const SegmentorTraining& o) { return train_segmentor(o); }
  virtual TrainedRun train(const DetectorTraining& o) { return train_detector(o); }
};

/// A run's score, if it is trained to its end. Error: it was told something else.
PPMA_API std::optional<RunScore> score_of(const AnyTraining& c);

/// Trains those of the trials that are this part's and are not yet trained, and says how those that
/// are did. Errors: no such part; what training refuses.
PPMA_API void run_trials(const TrialOptions& o, const std::string& out, std::vector<Trial>& trials,
                         TrialObserver& observer = nobody<TrialObserver>());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <filesystem>
#include <utility>

#include "ppma/commands/data.hpp"

namespace ppma::inline PPMA_ABI {

Json options_of(const AnyTraining& c) {
  return std::visit([](const auto& o) { return options_of(o); }, c);
}

namespace detail {

/// Images that neighbouring runs of a classifier share.
class SharedData {
 public:
  const ClassifierData& of(const ClassifierTraining& c, Observer& observer) {
    if (data_ && seed_ == c.seed && options_ == options_of(c.data)) return *data_;
    data_ = make_data(c.data, c.seed, true, {}, c.crops(), observer);
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

/// Trains a run, or goes on with it. Returns whether it was stopped.
inline bool train_trial(AnyTraining c, SharedData& data, TrialObserver& observer) {
  TrainingOptions& o = common_of(c);
  if (std::filesystem::exists(o.out + "/last.safetensors")) o.resume = o.out;
  if (const auto* classify = std::get_if<ClassifierTraining>(&c))
    return observer.train(*classify, data.of(*classify, observer)).stopped != 0;
  if (const auto* segment = std::get_if<SegmentorTraining>(&c))
    return observer.train(*segment).stopped != 0;
  return observer.train(std::get<DetectorTraining>(c)).stopped != 0;
}

}  // namespace detail

std::optional<RunScore> score_of(const AnyTraining& c) {
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
        ": was trained with other options; choose another `out`, or the same options");
  return score_of_log(o.out, o.task, o.epochs);
}

void run_trials(const TrialOptions& o, const std::string& out, std::vector<Trial>& trials,
                TrialObserver& observer) {
  check(o.part >= 0 && o.part < o.parts, "`part` ", o.part, "/", o.parts,
        ": must be K/N, with K from 0 to N - 1");
  if (!o.report && observer.train_all(out, trials)) return;
  detail::SharedData data;
  for (std::size_t k = 0; k < trials.size(); ++k) {
    Trial& trial = trials[k];
    trial.score = score_of(trial.options);
    // Parts are neighbours: most of them draw the images of one seed.
    const bool other = static_cast<i64>(k) * o.parts / static_cast<i64>(trials.size()) != o.part;
    if (trial.score || o.report || other) continue;
    observer.run(k, trials.size());
    if (detail::train_trial(trial.options, data, observer)) return;
    trial.score = score_of(trial.options);
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
