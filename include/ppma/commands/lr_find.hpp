#pragma once
#include "ppma/core/names_begin.hpp"
// A learning-rate range test (Smith, 2017, "Cyclical Learning Rates for Training Neural Networks")
// of a classifier. The rate rises exponentially from the least to the most, a step each; the loss
// of every step is smoothed; the test ends early where that diverges. The suggestion is the rate at
// which the smoothed loss falls fastest over the logarithm of the rate, before its minimum. Writes
// nothing.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "ppma/commands/train_classifier.hpp"

namespace ppma::inline PPMA_ABI {

/// A range test of the training that the other options describe.
struct LearningRateTest : ClassifierTraining {
  double least = 1e-6, most = 1;  // rates of the first and the last step
  i64 find_steps = 100;           // of the optimiser
};

/// What was seen at each step.
struct RateRange {
  std::vector<double> rates{}, losses{}, smoothed{};
  bool diverged = false;  // which ended it early
  int stopped = 0;        // the observer's reason; 0: none

  /// Takes a step's loss; false where the test is over. The average forgets with 0.95 and is
  /// corrected for its beginning, as Adam's moments are.
  PPMA_API bool add(double rate, double loss);
  /// The steepest descent: the step at which the smoothed loss falls fastest, as the slope of the
  /// line through its neighbours, as far on each side as a twentieth of the steps; nothing where it
  /// does not fall.
  PPMA_API std::optional<std::size_t> suggestion() const;

 private:
  double average_ = 0, lowest_ = 0;
};

/// Makes the test. Errors: as of train_classifier(); rates that do not rise; a loss that is not
/// finite in the first steps.
PPMA_API RateRange find_learning_rate(const LearningRateTest& o,
                                      ClassifierObserver& observer = nobody<ClassifierObserver>());

/// A picture, PNG: the smoothed losses over the logarithm of the rate, the suggestion marked.
PPMA_API void draw_rates(const std::string& path, const RateRange& range);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "ppma/commands/classifier_steps.hpp"
#include "ppma/io/image.hpp"
#include "ppma/train/classification.hpp"
#include "ppma/vis/curve.hpp"

namespace ppma::inline PPMA_ABI {

bool RateRange::add(double rate, double loss) {
  if (!is_finite(loss)) return diverged = true, false;
  average_ = 0.95 * average_ + 0.05 * loss;
  rates.push_back(rate), losses.push_back(loss);
  smoothed.push_back(average_ / (1 - std::pow(0.95, static_cast<double>(losses.size()))));
  lowest_ = losses.size() == 1 ? smoothed.back() : std::min(lowest_, smoothed.back());
  diverged = smoothed.back() > 4 * lowest_;
  return !diverged;
}

std::optional<std::size_t> RateRange::suggestion() const {
  const std::size_t n = smoothed.size(), side = std::max<std::size_t>(1, n / 20);
  const auto end = static_cast<std::size_t>(std::min_element(smoothed.begin(), smoothed.end()) -
                                            smoothed.begin());
  std::optional<std::size_t> best;
  double steepest = 0;
  for (std::size_t k = side; k <= end && k + side < n; ++k) {
    const double slope =
        (smoothed[k + side] - smoothed[k - side]) / std::log(rates[k + side] / rates[k - side]);
    if (slope < steepest) steepest = slope, best = k;
  }
  return best;
}

RateRange find_learning_rate(const LearningRateTest& o, ClassifierObserver& observer) {
  check_fields(o, "options"), o.check_together();
  check(o.least > 0 && o.least < o.most, "lr-find: `least` ", o.least, " must be less than `most` ",
        o.most);
  check(o.find_steps >= 10, "lr-find: ", o.find_steps, " steps are too few; take 10 or more");
  WeightsOfFile initial = read_weights(o.network, observer);
  const std::optional<InputInfo> known = InputInfo::of(initial.metadata, o.network.weights);
  ClassifierData data = make_data(o.data, o.seed, true, known, o.crops(), observer);
  detail::take_share(o, data);
  const ClassifierConfig config = detail::training_config(o, data);
  if (o.compute.device == "cpu")
    require_memory_of(config, std::min(o.batch, data.train.size), data.input.size,
                      "`batch` or `size`", true, o.checkpoint_blocks);
  Classifier model(config, o.seed);
  if (!initial.tensors.empty())
    detail::load_initial(model, initial, known, data, o.network.weights);
  TrainOptions options = detail::step_options(o);
  place(model, options.at);
  detail::freeze(model, o.freeze);
  options.epochs = most_epochs;
  i64 steps = 0;
  options.rate = [&](const Moment& m) {
    const double part = static_cast<double>(m.iteration) / static_cast<double>(o.find_steps - 1);
    return o.least * std::pow(o.most / o.least, std::min(1.0, part));
  };
  options.evaluate_every = 0;

  const ImageLoading loading = detail::training_images(o, data);
  const StreamOptions made = stream_options(o.data, o.compute.device);
  BatchStream<Batch> batches(image_batches(data.train, loading), made),
      test(image_batches(data.test, test_loading(data, o.batch)), made);
  ClassificationTask<Classifier> task(model, test, o.label_smoothing);
  Trainer<ClassificationTask<Classifier>> trainer(task, options);
  const Json told = classifier_config_to_json(config);
  observer.begin({.network = member<std::string>(told, "name", "config"),
                  .mask = told.value("mask", ""),
                  .parameters = parameter_count(model),
                  .set = data.train.name,
                  .training_images = data.train.size,
                  .test_images = data.test.size,
                  .size = data.input.size,
                  .classes = data.train.class_names});
  RateRange range;
  bool over = false;
  double before = 0;  // sum of the epoch's losses, and its images
  i64 images = 0;
  const auto on_batch = [&](const StepReport& r) {
    if (r.batch == 1) before = 0, images = 0;
    const double sum = r.loss * static_cast<double>(r.images);
    const double loss = (sum - before) / static_cast<double>(r.images - images);
    before = sum, images = r.images;
    if (r.batch % o.accumulate != 0 && r.batch != r.batches) return;  // a step is not yet done
    over = !range.add(r.rate, loss) || ++steps >= o.find_steps;
  };
  const auto ends = [&] {
    if (range.stopped == 0) range.stopped = observer.stop();
    return over || range.stopped != 0;
  };
  try {
    while (!ends()) trainer.run_epoch(batches, {.on_batch = on_batch, .rest = ends});
  } catch (const Error& e) {  // a loss or a gradient that is not finite
    if (range.smoothed.size() < 3) throw;
    range.diverged = true;
    observer.note(e.what());
  }
  return range;
}

void draw_rates(const std::string& path, const RateRange& range) {
  Series loss{"", {}, {}};
  for (std::size_t k = 0; k < range.rates.size(); ++k)
    loss.x.push_back(std::log10(range.rates[k])), loss.y.push_back(range.smoothed[k]);
  std::vector<Series> series{loss};
  const auto [low, high] = std::minmax_element(loss.y.begin(), loss.y.end());
  if (const auto at = range.suggestion()) {
    char name[40];
    std::snprintf(name, sizeof name, "%.1e", range.rates[*at]);
    series.push_back({name, {loss.x[*at], loss.x[*at]}, {*low, loss.y[*at]}});
  }
  // What lies above the first losses is divergence.
  const double top = std::min(*high, loss.y.front() + 0.25 * (loss.y.front() - *low) + 1e-3);
  for (double& y : series.front().y)
    if (y > top) y = not_a_number<double>();
  write_png(path, curves(series, {.title = "Loss in a learning-rate range test",
                                  .x_label = "log10 of the learning rate",
                                  .y_label = "smoothed loss",
                                  .y_range = Range{*low, top}})
                      .image());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
