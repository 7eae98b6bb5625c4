#pragma once
#include "ppma/core/names_begin.hpp"
// The training loop of a classifier: accumulation, clipping, AdamW, average of weights, evaluation,
// checkpoints.
//
//   Trainer<Ppma> trainer(model, options);
//   trainer.run(train, test, {.on_epoch = [&](const EpochRecord& r) { ... }});
//
// A step draws its random numbers (drop path) from a stream keyed by seed, epoch and batch, so that
// a run resumed from save() goes on exactly as if it had never stopped: there is no generator whose
// state could be lost.
// Nothing is printed here; an Observer hears of every batch and every epoch.

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ppma/core/float_bits.hpp"
#include "ppma/data/loader.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/metrics/accuracy.hpp"
#include "ppma/nn/module.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/ema.hpp"
#include "ppma/parallel/gradients.hpp"
#include "ppma/train/log.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/replayed_step.hpp"
#include "ppma/train/training_state.hpp"

namespace ppma::inline PPMA_ABI {

/// Where batches come from: a Loader, or two functions.
struct BatchSource {
  i64 batches = 0;  // per epoch
  // begins an epoch, whose batches depend on nothing but its number
  std::function<void(i64 epoch)> start;
  std::function<bool(Batch&)> next;  // false at the end of the epoch
};

/// The loader must outlive the source.
PPMA_API BatchSource batches_of(Loader& loader);

struct StepReport {
  i64 epoch, batch, batches;  // batch counts from 1
  i64 images;                 // seen in this epoch
  double loss;                // mean of this epoch so far
  double rate, gradient_norm;
};

struct Observer {
  std::function<void(const StepReport&)> on_batch{};                 // after every training batch
  std::function<void(i64 batch, i64 batches)> on_evaluation{};       // after every test batch
  std::function<void(const EpochRecord&, bool is_best)> on_epoch{};  // after every epoch
};

/// Mean cross entropy and accuracy of model.forward(images), without recording gradients. Labels
/// must be int64. With `among` over the parts of all processes.
template <class Model>
Evaluation evaluate(Model& model, const BatchSource& source,
                    const std::function<void(i64, i64)>& on_batch = {}, const Placement& at = {},
                    const Communicator* among = nullptr) {
  const NoGrad not_recorded;
  Accuracy accuracy;
  double loss = 0;
  Batch batch;
  source.start(0);
  for (i64 n = 1; source.next(batch); ++n) {
    if (!batch.images.defined()) continue;
    // (B, classes)
    const Tensor scores = model.forward(at(batch.images));
    // bf16 is not computed there
    const Tensor logits = cast(scores, accumulator_dtype(scores.dtype())).to(Device::cpu);
    loss += cross_entropy(logits, batch.targets).item() * static_cast<double>(logits.dim(0));
    accuracy.add(logits, batch.targets);
    if (on_batch) on_batch(n, source.batches);
  }
  if (among != nullptr) {
    const std::vector<double> all =
        among->sums({loss, static_cast<double>(accuracy.images), static_cast<double>(accuracy.top1),
                     static_cast<double>(accuracy.top5)});
    loss = all[0];
    accuracy.images = static_cast<i64>(all[1]), accuracy.top1 = static_cast<i64>(all[2]),
    accuracy.top5 = static_cast<i64>(all[3]);
  }
  check(accuracy.images > 0, "evaluate: the test set is empty");
  return {loss / static_cast<double>(accuracy.images), accuracy.acc1(), accuracy.acc5(),
          accuracy.images};
}

template <class Model>
class Trainer {
 public:
  Trainer(Model& model, const TrainOptions& options)
      : model_(model),
        options_(options),
        state_(as_tensors(state_dict(model))),
        optimizer_(parameters_of(model, no_decay_rules(options.weight_decay)), options.adamw) {
    check(options.epochs > 0 && options.accumulate > 0 && options.evaluate_every > 0,
          "training: epochs, accumulate and evaluate_every must be positive");
    if (!options.processes.empty()) {
      check(options.processes.size() == 2, "training: ", options.processes.size(),
            " communicators; two are needed");
      for (auto& entry : state_) among()->broadcast(entry.second, 0);
      std::vector<Tensor> parameters;
      for (const Parameter& p : optimizer_.parameters()) parameters.push_back(p.tensor);
      gradients_ = std::make_unique<GradientAverage>(options.processes[1], std::move(parameters));
    }
    if (options.ema_decay > 0) ema_.emplace(state_, options.ema_decay, options.ema_warm);
  }
  Trainer(const Trainer&) = delete;  // replayed steps refer to its optimiser
  Trainer& operator=(const Trainer&) = delete;

  /// The epoch that comes next, and the best accuracy so far (percent; -1 before the first
  /// evaluation).
  i64 epoch() const { return epoch_; }
  double best_acc1() const { return best_acc1_; }
  const AdamW& optimizer() const { return optimizer_; }
  /// The network's weights as they are, and their average (empty if there is none).
  const TensorMap& weights() const { return state_; }
  TensorMap average() const { return ema_ ? ema_->average() : TensorMap(); }

  /// Trains until options.epochs epochs are done.
  void run(const BatchSource& train, const BatchSource& test, const Observer& observer = {}) {
    while (epoch_ < options_.epochs) run_epoch(train, test, observer);
  }

  /// Trains one epoch and evaluates.
  EpochRecord run_epoch(const BatchSource& train, const BatchSource& test,
                        const Observer& observer = {}) {
    const auto begin = std::chrono::steady_clock::now();
    EpochRecord record = train_epoch(train, observer);
    require_finite(state_, str("training: after epoch ", epoch_ + 1));
    const bool evaluated =
        (epoch_ + 1) % options_.evaluate_every == 0 || epoch_ + 1 == options_.epochs;
    if (evaluated) {
      record.test = evaluate(model_, test, observer.on_evaluation, options_.at, among());
      check_finite_test("loss on the test set", record.test.loss);
      if (ema_) {
        const Ema::InUse averaged(*ema_);
        record.test_ema = evaluate(model_, test, observer.on_evaluation, options_.at, among());
        check_finite_test("loss of the averaged weights on the test set", record.test_ema.loss);
      }
    }
    const bool is_best = evaluated && record.best_acc1() > best_acc1_;
    if (is_best) best_acc1_ = record.best_acc1();
    ++epoch_;
    record.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (observer.on_epoch) observer.on_epoch(record, is_best);
    return record;
  }

  /// All that resume() needs, in one file, written aside and renamed: model.*, ema.*, optimizer.*,
  /// and the position in the metadata, to which `metadata` is added. Error: a tensor that is not
  /// finite; then the file stays as it was.
  void save(const std::string& path, std::map<std::string, std::string> metadata = {}) const {
    TensorMap all;
    add(all, "model.", state_);
    if (ema_) add(all, "ema.", ema_->average());
    add(all, "optimizer.", optimizer_.state());
    metadata["epoch"] = std::to_string(epoch_);
    metadata["best_acc1"] = detail::number_text(best_acc1_);
    metadata["ema_updates"] = std::to_string(ema_ ? ema_->updates() : 0);
    metadata["seed"] = std::to_string(options_.seed);
    require_finite(all, path + ": not written");
    write_safetensors(path, all, metadata);
  }

  /// Continues where save() was called; returns the metadata. Errors: another network, another
  /// seed, an average on one side only.
  std::map<std::string, std::string> resume(const std::string& path) {
    Safetensors file = read_safetensors(path);
    const auto number = [&](const char* key) {
      return static_cast<i64>(detail::whole_of(file, path, key));
    };
    const std::string& seed = detail::position_of(file, path, "seed");
    check(seed == std::to_string(options_.seed), path, ": was trained with seed ", seed, ", not ",
          options_.seed, "; a resumed run must keep its seed");
    const std::string& best = detail::position_of(file, path, "best_acc1");
    char* end = nullptr;
    const double best_acc1 = std::strtod(best.c_str(), &end);
    check(!best.empty() && *end == 0, path, ": its best_acc1 is not a number but \"", best,
          "\"; the file is damaged");
    require_finite(file.tensors, path);
    const TensorMap weights = part(file.tensors, "model."), average = part(file.tensors, "ema.");
    check(average.empty() == !ema_, path, ": has ", average.empty() ? "no" : "an",
          " average of weights, this run has ", ema_ ? "one" : "none", "; keep ema_decay");
    check(weights.size() == state_.size(), path, ": has ", static_cast<i64>(weights.size()),
          " tensors, the network ", static_cast<i64>(state_.size()));
    for (auto& [name, tensor] : state_) {
      const Tensor* saved = find(weights, name);
      check(saved != nullptr && saved->shape() == tensor.shape(), path, ": has no ", name,
            " of shape ", tensor.shape());
      tensor.copy_from(*saved);
    }
    optimizer_.load_state(part(file.tensors, "optimizer."));
    if (ema_) ema_->load(average, number("ema_updates"));
    epoch_ = number("epoch");
    best_acc1_ = best_acc1;
    return std::move(file.metadata);
  }

 private:
  // What an epoch adds up.
  struct Progress {
    i64 images = 0, number = 0, steps = 0;
    double loss_sum = 0, rate_sum = 0, norm = 0;
  };
  // A step that the GPU may still be computing.
  struct Underway {
    i64 rows;
    double rate;
  };

  EpochRecord train_epoch(const BatchSource& source, const Observer& observer) {
    check(source.batches > 0, "training: the training set has no full batch");
    Progress done;
    i64 number = 0, pending = 0;
    Batch batch;
    optimizer_.zero_grad();
    source.start(epoch_);
    // On a GPU the host is a step ahead: it makes and sends the next batch, and hears of the loss,
    // while a step runs. With other processes only where sums do not pass through the host either.
    const bool ahead = options_.at.device == Device::cuda && options_.accumulate == 1 &&
                       (among() == nullptr || options_.processes[1].join);
    std::optional<Underway> underway;
    while (source.next(batch)) {
      const double position = static_cast<double>(epoch_) +
                              static_cast<double>(number) / static_cast<double>(source.batches);
      const double rate = options_.rate_per_epoch ? options_.schedule.published_epoch(epoch_)
                                                  : options_.schedule.at(position);
      check(batch.images.defined(), "training: batch ", number,
            " has no part for this process; leave an incomplete batch out");
      const Rng rng(options_.seed, static_cast<u64>(epoch_), static_cast<u64>(number),
                    drop_path_stream);
      ++number;
      if (ahead) {
        detail::ReplayedStep<Model>& step = replayed(batch);
        step(batch, rng, rate, *upload_);
        if (ema_) ema_->update();
        readback_->ask(step.results());
        if (underway) finish(*underway, source, observer, done);
        underway = Underway{batch.images.dim(0), rate};
      } else {
        take_step(batch, rng, rate, number == source.batches, pending, source, observer, done);
      }
    }
    if (underway) finish(*underway, source, observer, done);
    check(number == source.batches, "training: the source gave ", number, " batches instead of ",
          source.batches);
    EpochRecord record;
    record.epoch = epoch_;
    for (const Parameter& p : optimizer_.parameters()) record.n_parameters += p.tensor.numel();
    record.train_lr = done.rate_sum / static_cast<double>(done.steps);
    record.train_loss = done.loss_sum / static_cast<double>(done.images);
    return record;
  }

  // One batch; with `accumulate` every so many batches make a step of the optimiser.
  void take_step(const Batch& batch, const Rng& rng, double rate, bool last, i64& pending,
                 const BatchSource& source, const Observer& observer, Progress& done) {
    Context context{true, rng};
    context.among = among(), context.checkpoint_blocks = options_.checkpoint_blocks;
    const Tensor logits = model_.forward(options_.at(batch.images), context);  // (B, classes)
    // mixed: smoothed when it was mixed
    const bool soft = batch.targets.dtype() != DType::int64;
    const Tensor loss = cross_entropy(logits, batch.targets.to(options_.at.device),
                                      {soft ? 0.0 : options_.label_smoothing});
    double value = loss.item(), rows = static_cast<double>(logits.dim(0));
    if (among() != nullptr) {  // of all processes: so all stop where one has no finite loss
      rows = rows_of_all(logits.dim(0), done.number);
      value = among()->sum(value) / static_cast<double>(among()->size);
    }
    check_finite("loss", value, done.number);
    ++pending;
    const bool step = pending == options_.accumulate || last;
    if (gradients_ && step)
      gradients_->backward(loss);
    else
      loss.backward();
    if (step) {
      const double mean = 1 / static_cast<double>(pending);
      done.norm = options_.clip > 0 ? gradient_norm(optimizer_.parameters()) * mean : 0;
      check_finite("gradient's norm", done.norm, done.number);
      optimizer_.step(rate, mean * clip_factor(done.norm, options_.clip));
      optimizer_.zero_grad();
      if (ema_) ema_->update();
      pending = 0;
    }
    count(value, static_cast<i64>(rows), rate, step, source, observer, done);
  }

  // The rows of a batch in all processes together, which have as many each.
  double rows_of_all(i64 here, i64 number) const {
    const double rows = static_cast<double>(here), all = among()->sum(rows);
    check(all == rows * static_cast<double>(among()->size),
          "training: the processes have unequal parts of batch ", number, ", ", here, " of ", all,
          " samples here; leave an incomplete batch out");
    return all;
  }

  // Hears of the oldest step underway.
  void finish(const Underway& step, const BatchSource& source, const Observer& observer,
              Progress& done) {
    const std::vector<double> results = readback_->take();
    if (gradients_) gradients_->require_group();  // sums that were aborted are none
    const i64 processes = among() == nullptr ? 1 : among()->size;
    const double loss = results[0] / static_cast<double>(processes);
    check_finite("loss", loss, done.number);
    if (results.size() > 1) check_finite("gradient's norm", done.norm = results[1], done.number);
    count(loss, step.rows * processes, step.rate, true, source, observer, done);
  }
  void check_finite(const char* what, double value, i64 number) const {
    check(is_finite(value), "training: the ", what, " is ", value, " in epoch ", epoch_, ", batch ",
          number, "; lower the learning rate or clip the gradients");
  }
  void check_finite_test(const char* what, double value) const {
    check(is_finite(value), "training: the ", what, " is ", value, " after epoch ", epoch_ + 1,
          "; lower the learning rate, warm up longer or clip the gradients. What was saved before "
          "stays as it is");
  }
  void count(double loss, i64 rows, double rate, bool step, const BatchSource& source,
             const Observer& observer, Progress& done) {
    ++done.number, done.images += rows, done.loss_sum += loss * static_cast<double>(rows);
    if (step) ++done.steps, done.rate_sum += rate;
    if (observer.on_batch)
      observer.on_batch({epoch_, done.number, source.batches, done.images,
                         done.loss_sum / static_cast<double>(done.images), rate, done.norm});
  }

  // The step for batches of this shape: one, or two where the last batch of an epoch is smaller.
  detail::ReplayedStep<Model>& replayed(const Batch& batch) {
    if (!upload_) upload_.emplace(options_.at.device), readback_.emplace(options_.at.device);
    for (auto& step : steps_)
      if (step->takes(batch)) return *step;
    if (among() != nullptr) rows_of_all(batch.images.dim(0), batch.number);
    return *steps_.emplace_back(std::make_unique<detail::ReplayedStep<Model>>(
        model_, optimizer_, options_, gradients_.get(), batch));
  }

  const Communicator* among() const {
    return options_.processes.empty() ? nullptr : options_.processes.data();
  }

  static constexpr u64 drop_path_stream = 1;

  static void add(TensorMap& all, const std::string& prefix, const TensorMap& more) {
    for (const auto& entry : more) all.emplace_back(prefix + entry.first, entry.second);
  }
  static TensorMap part(const TensorMap& all, const std::string& prefix) {
    TensorMap out;
    for (const auto& entry : all)
      if (entry.first.starts_with(prefix))
        out.emplace_back(entry.first.substr(prefix.size()), entry.second);
    return out;
  }

  Model& model_;
  TrainOptions options_;
  TensorMap state_;  // parameters and buffers, in the published order
  AdamW optimizer_;
  std::optional<Ema> ema_;
  std::unique_ptr<GradientAverage> gradients_;  // where there are other processes
  std::vector<std::unique_ptr<detail::ReplayedStep<Model>>> steps_;  // on a GPU
  std::optional<Upload> upload_;
  std::optional<Readback> readback_;
  i64 epoch_ = 0;
  double best_acc1_ = -1;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <cstdlib>

namespace ppma::inline PPMA_ABI {

BatchSource batches_of(Loader& loader) {
  return {loader.batches(), [&loader](i64 epoch) { loader.start(epoch); },
          [&loader](Batch& b) { return loader.next(b); }};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
