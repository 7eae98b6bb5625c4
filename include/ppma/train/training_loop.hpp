#pragma once
#include "ppma/core/names_begin.hpp"
// What of the training loop (trainer.hpp) does not depend on the task: the steps and epochs, and
// the file that a run is resumed from.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/data/batch_stream.hpp"
#include "ppma/io/element.hpp"
#include "ppma/nn/module.hpp"
#include "ppma/optim/ema.hpp"
#include "ppma/optim/optimizer.hpp"
#include "ppma/train/epoch_sums.hpp"
#include "ppma/train/log.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/task.hpp"

namespace ppma::inline PPMA_ABI {

class GradientAverage;
namespace detail {
struct Replays;
}  // namespace detail

/// What of a Trainer does not depend on the task.
class TrainingLoop {
 public:
  TrainingLoop(const TrainingLoop&) = delete;  // replayed steps refer to its optimiser
  TrainingLoop& operator=(const TrainingLoop&) = delete;

  /// The epoch that comes next, and the best figure so far (-1 before the first evaluation).
  i64 epoch() const { return epoch_; }
  /// See epoch().
  double best() const { return best_; }
  /// Evaluations since the one of the best figure.
  i64 since_best() const { return since_best_; }
  /// The batch of epoch() that comes next: not 0 where the epoch rests in the middle, or before it
  /// is evaluated. save() keeps the place; the next run_epoch() goes on there.
  i64 batch() const { return so_far_ ? so_far_->begun : 0; }
  /// As they were given.
  const TrainOptions& options() const { return options_; }
  /// What makes the steps.
  const Optimizer& optimizer() const { return optimizer_; }
  /// The network's weights as they are, and their average (empty if there is none).
  const TensorMap& weights() const { return state_; }
  /// See weights().
  PPMA_API TensorMap average() const;

  /// All that resume() needs, in one file, written aside and renamed: model.*, ema.*, optimizer.*,
  /// and the position in the metadata, to which `metadata` is added. Error: a tensor that is not
  /// finite; then the file stays as it was.
  PPMA_API void save(const std::string& path,
                     std::map<std::string, std::string> metadata = {}) const;

  /// Continues where save() was called; returns the metadata. Errors: another network, another
  /// seed, an average on one side only.
  PPMA_API std::map<std::string, std::string> resume(const std::string& path);

 protected:
  /// Of a network's fields; draws from the stream of that number. With `reads_back` the task's loss
  /// looks at numbers that are computed (train/task.hpp): its step is not replayed as a graph.
  PPMA_API TrainingLoop(const std::vector<Field>& network, const TrainOptions& options, u64 stream,
                        bool reads_back);
  PPMA_API virtual ~TrainingLoop();

  /// What pass() calls: see Trainer::Observer.
  struct Listeners {
    const std::function<void(const StepReport&)>& on_batch;
    const std::function<void(i64, i64)>& on_evaluation;
    const std::function<void(const SkippedStep&)>& on_skip;
    const std::function<bool()>& rest;
  };
  /// The rest of an epoch into `record`, and the evaluation after it; whether it is the best so
  /// far.
  PPMA_API bool pass(EpochReport& record, i64 batches, const Listeners& listeners);

 private:
  // What the task and its stream do.
  virtual bool next_batch() = 0;                     // the next one becomes the present one
  virtual std::vector<Tensor*> batch_tensors() = 0;  // of the present one: images, then the rest
  virtual Loss loss_of_batch(Context& context) = 0;  // of the present one
  virtual void drop_batch() = 0;                     // that is
  virtual double evaluate_task(const Testing& how) = 0;  // its figure

  PPMA_API void train_batches(detail::EpochSums& done, const Listeners& listeners);
  PPMA_API bool all_rest(const detail::EpochSums& done, const std::function<bool()>& rest) const;
  PPMA_API double test(const Testing& how);
  PPMA_API bool next_batch_timed(detail::EpochSums& done);
  PPMA_API void take_step(const Rng& rng, double rate, const Listeners& listeners,
                          detail::EpochSums& done);
  PPMA_API void launch_step(const Rng& rng, double rate, const Listeners& listeners,
                            detail::EpochSums& done);
  PPMA_API void finish_step(const Listeners& listeners, detail::EpochSums& done);
  PPMA_API void count_step(const Listeners& listeners, detail::EpochSums& done);
  PPMA_API i64 rows_of_all(i64 here, double all, i64 number) const;
  const Communicator* among() const {
    return options_.processes.empty() ? nullptr : options_.processes.data();
  }

  TrainOptions options_;
  TensorMap state_;  // parameters and buffers, in the published order
  Optimizer optimizer_;
  u64 stream_;
  bool reads_back_;
  std::optional<Ema> ema_;
  std::unique_ptr<GradientAverage> gradients_;  // where there are other processes
  std::unique_ptr<detail::Replays> replays_;    // on a GPU
  i64 epoch_ = 0, iteration_ = 0, since_best_ = 0, skipped_in_a_row_ = 0;
  double best_ = -1;
  std::optional<detail::EpochSums> so_far_;  // of an epoch that rests
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <chrono>

#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/converted_weights.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/parallel/gradients.hpp"
#include "ppma/train/finite.hpp"
#include "ppma/train/replayed_step.hpp"
#include "ppma/train/transfer.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// What is trained of a network.
inline std::vector<Parameter> trained(const std::vector<Field>& network,
                                      const std::vector<ParameterRule>& rules) {
  TensorMap named;
  for (const Field& f : network)
    if (f.kind == Kind::parameter && f.tensor.requires_grad()) named.emplace_back(f.name, f.tensor);
  return parameters_with_rules(named, rules);
}

}  // namespace detail

TrainingLoop::TrainingLoop(const std::vector<Field>& network, const TrainOptions& options,
                           u64 stream, bool reads_back)
    : options_(options),
      state_(as_tensors(network)),
      optimizer_(detail::trained(network, options.rules), options.optimizer),
      stream_(stream),
      reads_back_(reads_back) {
  check(options.epochs > 0 && options.accumulate > 0 && options.evaluate_every >= 0,
        "training: epochs and accumulate must be positive, evaluate_every at least 0");
  check(options.rate != nullptr, "training: there is no learning rate; set options.rate");
  if (!options.processes.empty()) {
    check(options.processes.size() == 2, "training: ", options.processes.size(),
          " communicators; two are needed");
    for (auto& entry : state_) among()->broadcast(entry.second, 0);
    gradients_ = std::make_unique<GradientAverage>(options.processes[1],
                                                   tensors_of(optimizer_.parameters()));
  }
  if (options.ema_decay > 0) ema_.emplace(state_, options.ema_decay, options.ema_warm);
}

TrainingLoop::~TrainingLoop() = default;

TensorMap TrainingLoop::average() const { return ema_ ? ema_->average() : TensorMap(); }

bool TrainingLoop::pass(EpochReport& record, i64 batches, const Listeners& listeners) {
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  check(batches > 0, "training: the training set has no full batch");
  // Where a step fails, the epoch is as if it had not begun.
  detail::EpochSums done =
      std::exchange(so_far_, std::nullopt).value_or(detail::EpochSums{epoch_, batches});
  check(done.batches == batches, "training: the epoch had ", done.batches, " batches and has now ",
        batches, "; go on with the same images and batch size");
  train_batches(done, listeners);
  so_far_ = done;
  if (done.begun < batches) {
    so_far_->seconds += seconds();
    return false;
  }
  check(done.skipped < done.steps, "training: none of the ", done.steps, " steps of epoch ",
        epoch_ + 1,
        " had a finite loss and gradient; lower the learning rate or clip the gradients");
  record.epoch = epoch_;
  for (const Parameter& p : optimizer_.parameters()) record.n_parameters += p.tensor.numel();
  record.train_lr = done.rate_sum / static_cast<double>(done.steps);
  record.last_lr = done.rate;
  record.train_loss = done.mean(done.loss_sum);
  record.parts = done.means();
  require_finite(state_,
                 str("training: after epoch ", epoch_ + 1, ", ", iteration_, " iterations"));
  bool is_best = false;
  if (options_.evaluate_every > 0 &&
      ((epoch_ + 1) % options_.evaluate_every == 0 || epoch_ + 1 == options_.epochs)) {
    Testing how{options_.at, among(), epoch_ + 1, false, listeners.on_evaluation};
    double figure = test(how);
    if (ema_) {
      const Ema::InUse averaged(*ema_);
      how.averaged = true;
      figure = test(how);
    }
    is_best = figure > best_;
    if (is_best) best_ = figure;
    since_best_ = is_best ? 0 : since_best_ + 1;
  }
  ++epoch_, so_far_.reset();
  record.seconds = done.seconds + seconds();
  record.data_seconds = done.waited, record.skipped = done.skipped;
  return is_best;
}

double TrainingLoop::test(const Testing& how) {
  try {
    return evaluate_task(how);
  } catch (const Error& e) {
    fail("testing ", how.averaged ? "the averaged weights " : "", "after epoch ", how.epoch, ": ",
         e.what(),
         "; where the training has diverged, lower the learning rate, warm up longer or clip the "
         "gradients. What was saved before stays as it is");
  }
}

void TrainingLoop::train_batches(detail::EpochSums& done, const Listeners& listeners) {
  optimizer_.zero_grad();
  // On a GPU the host is a step ahead: it makes and sends the next batch, and hears of the loss,
  // while a step runs. With other processes only where sums do not pass through the host either.
  const bool ahead = options_.at.device == Device::cuda && options_.accumulate == 1 &&
                     (among() == nullptr || options_.processes[1].join);
  bool rests = false;
  try {
    while (!rests && next_batch_timed(done)) {
      check(batch_tensors()[0]->defined(), "training: batch ", done.begun,
            " has no part for this process; leave an incomplete batch out");
      const double rate = options_.rate({epoch_, done.begun, done.batches, iteration_});
      const Rng rng(options_.seed, static_cast<u64>(epoch_), static_cast<u64>(done.begun), stream_);
      ++done.begun;
      ahead ? launch_step(rng, rate, listeners, done) : take_step(rng, rate, listeners, done);
      rests = done.pending == 0 && all_rest(done, listeners.rest);
    }
    if (replays_) finish_step(listeners, done);  // none where only the evaluation was left
  } catch (...) {
    replays_.reset();  // what is underway counts in no epoch
    throw;
  }
  check(rests || done.begun == done.batches, "training: the stream gave ", done.begun,
        " batches instead of ", done.batches);
}

bool TrainingLoop::next_batch_timed(detail::EpochSums& done) {
  const auto begin = std::chrono::steady_clock::now();
  const bool there = next_batch();
  done.waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return there;
}

// Whether to rest after this step: where there are several processes all or none, which they ask
// one another now and then.
bool TrainingLoop::all_rest(const detail::EpochSums& done,
                            const std::function<bool()>& rest) const {
  if (among() == nullptr) return rest && rest();
  constexpr i64 between = 16;
  if (done.begun % between != 0) return false;
  return among()->sum(rest && rest() ? 1.0 : 0.0) > 0;
}

// One batch; with `accumulate` every so many batches make a step of the optimiser. All processes
// skip the same steps: their losses are added up, and so are their gradients.
void TrainingLoop::take_step(const Rng& rng, double rate, const Listeners& listeners,
                             detail::EpochSums& done) {
  const std::vector<Tensor*> tensors = batch_tensors();
  *tensors[0] = options_.at(*tensors[0]);
  for (std::size_t i = 1; i < tensors.size(); ++i) *tensors[i] = tensors[i]->to(options_.at.device);
  Context context{true, rng};
  context.among = among(), context.checkpoint_blocks = options_.checkpoint_blocks;
  std::optional<ConvertedWeights> once(std::in_place, tensors_of(optimizer_.parameters()),
                                       options_.at.activations());
  Loss loss = loss_of_batch(context);
  ++done.pending;
  const bool step = done.pending == options_.accumulate || done.begun == done.batches;
  // Before the loss is read, for which the host waits: a GPU goes on meanwhile. Gradients of a loss
  // that is not finite are dropped with the step.
  if (!done.bad && gradients_ && step)
    gradients_->backward(loss.total);
  else if (!done.bad)
    loss.total.backward();
  i64 rows = tensors[0]->dim(0);
  std::vector<double> values{loss.total.item()};
  for (const auto& part : loss.parts)
    values.push_back(part.second.defined() ? part.second.item() : 0.0);
  if (among() != nullptr) {
    values.push_back(static_cast<double>(rows));
    values = among()->sums(values);
    rows = rows_of_all(rows, values.back(), done.number);
    values.pop_back();
    for (double& v : values) v /= static_cast<double>(among()->size);
  }
  if (!done.bad && !is_finite(values[0]))
    done.bad = SkippedStep{epoch_, done.begun, "loss", values[0],
                           detail::first_not_finite(state_, *tensors[0], [&](auto observe) {
                             Context again{true, rng, std::move(observe)};
                             again.among = among();
                             loss_of_batch(again);
                           })};
  drop_batch();
  once.reset();
  if (step) {
    const double mean = 1 / static_cast<double>(done.pending);
    if (!done.bad) {
      done.norm = gradient_norm(optimizer_.parameters()) * mean;
      if (!is_finite(done.norm))
        done.bad = SkippedStep{epoch_, done.begun, "gradient's norm", done.norm,
                               detail::gradient_not_finite(optimizer_.parameters())};
    }
    if (!done.bad) {
      optimizer_.step(rate, mean * clip_factor(done.norm, options_.clip));
      if (ema_) ema_->update();
    }
    optimizer_.zero_grad();
    ++iteration_, done.pending = 0;
  }
  done.add(loss, values, rows, rate, step);
  if (step) count_step(listeners, done);
  if (listeners.on_batch) listeners.on_batch(done.report());
}

// After a step that was taken, or skipped because of done.bad.
void TrainingLoop::count_step(const Listeners& listeners, detail::EpochSums& done) {
  constexpr i64 most_in_a_row = 5;
  if (!done.bad) {
    skipped_in_a_row_ = 0;
    return;
  }
  SkippedStep skipped = *std::exchange(done.bad, std::nullopt);
  ++done.skipped, skipped.in_a_row = ++skipped_in_a_row_;
  if (listeners.on_skip) listeners.on_skip(skipped);
  check(skipped_in_a_row_ < most_in_a_row, "training: ", skipped.text(), "; it is step ",
        most_in_a_row,
        " in a row that cannot be taken: lower the learning rate, warm up longer or clip the "
        "gradients. What was saved before stays as it is");
}

// The rows of a batch in all processes together. Error: they have not as many each.
i64 TrainingLoop::rows_of_all(i64 here, double all, i64 number) const {
  check(all == static_cast<double>(here) * static_cast<double>(among()->size),
        "training: the processes have unequal parts of batch ", number, ", ", here, " of ", all,
        " samples here; leave an incomplete batch out");
  return static_cast<i64>(all);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
