#pragma once
#include "ppma/core/names_begin.hpp"
// The training loop, whatever is learnt: accumulation, clipping, AdamW or SGD, average of weights,
// evaluation, checkpoints, several processes, and on a GPU steps that are replayed as graphs. What
// is learnt is a Task (task.hpp).
//
//   Ppma model(ppma_nano());
//   BatchStream<Batch> train(image_batches(...)), test(image_batches(...));
//   ClassificationTask task(model, test);
//   Trainer trainer(task, options);
//   trainer.run(train, {.on_epoch = [&](const auto& record, bool is_best) { ... }});
//
// A step draws its random numbers (drop path) from a stream keyed by seed, epoch and batch, so that
// a run resumed from save() goes on exactly as if it had never stopped: there is no generator whose
// state could be lost.
// Nothing is printed here; an Observer hears of every batch and every epoch.

#include <functional>
#include <utility>
#include <vector>

#include "ppma/data/batch_stream.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/train/log.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/replayed_loop.hpp"
#include "ppma/train/saved_loop.hpp"
#include "ppma/train/task.hpp"
#include "ppma/train/training_loop.hpp"

namespace ppma::inline PPMA_ABI {

/// Trains the network of a task (task.hpp), which must outlive it. Parameters that do not require a
/// gradient are left as they are.
template <class Task>
class Trainer : public TrainingLoop {
 public:
  /// What a step is made of.
  using Batch = typename Task::Batch;
  /// What the task says of its test set.
  using Evaluation = decltype(std::declval<Task&>().evaluate(Testing{}));
  /// A line of the log.
  using Record = EpochRecord<Evaluation>;

  struct Observer {
    std::function<void(const StepReport&)> on_batch{};            // after every training batch
    std::function<void(i64 done, i64 all)> on_evaluation{};       // while it is tested
    std::function<void(const Record&, bool is_best)> on_epoch{};  // after every epoch
    std::function<void(const SkippedStep&)> on_skip{};            // after a step that was not taken
    std::function<bool()> rest{};  // asked between steps: whether to stop there
  };

  /// Errors: epochs or accumulate below 1; what the rules and the optimiser refuse.
  Trainer(Task& task, const TrainOptions& options)
      : TrainingLoop(state_dict(task.model), options, stream_of(), reads_back()), task_(task) {}

  /// Trains until options().epochs epochs are done, or one rests.
  void run(BatchStream<Batch>& train, const Observer& observer = {}) {
    while (epoch() < options().epochs) {
      run_epoch(train, observer);
      if (batch() > 0) return;
    }
  }

  /// Trains one epoch, or what is left of one, and evaluates where that is due. Where the observer
  /// has it rest, batch() is not 0 and the record is empty. A step whose loss or gradient is not
  /// finite is skipped: weights stay as they were. Errors: five of these in a row, or all of an
  /// epoch; a weight that is not finite; an epoch that rested has another number of batches now.
  Record run_epoch(BatchStream<Batch>& train, const Observer& observer = {}) {
    Record record;
    train.start(epoch(), batch());
    train_ = &train, record_ = &record;
    const Listeners listeners{observer.on_batch, observer.on_evaluation, observer.on_skip,
                              observer.rest};
    const bool is_best = pass(record, train.batches(), listeners);
    train_ = nullptr, record_ = nullptr;
    if (batch() == 0 && observer.on_epoch) observer.on_epoch(record, is_best);
    return record;
  }

 private:
  static constexpr u64 stream_of() {
    if constexpr (requires { Task::stream; })
      return Task::stream;
    else
      return 1;
  }
  static constexpr bool reads_back() {
    if constexpr (requires { Task::reads_back; })
      return Task::reads_back;
    else
      return false;
  }
  bool next_batch() override { return train_->next(batch_); }
  std::vector<Tensor*> batch_tensors() override { return batch_.tensors(); }
  Loss loss_of_batch(Context& context) override { return task_.loss(batch_, context); }
  void drop_batch() override { batch_ = Batch{}; }
  double evaluate_task(const Testing& how) override {
    auto& result = how.averaged ? record_->test_ema : record_->test;
    result = task_.evaluate(how);
    return record_->figure();
  }

  Task& task_;
  Batch batch_{};
  BatchStream<Batch>* train_ = nullptr;  // of the epoch that runs
  Record* record_ = nullptr;
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
