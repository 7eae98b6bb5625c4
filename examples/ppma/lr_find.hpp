#pragma once
// ppma lr-find: a learning-rate range test (Smith, 2017, "Cyclical Learning Rates for Training
// Neural Networks") of a classifier. The rate rises exponentially from --least to --most, a step
// each; the loss of every step is smoothed; the test ends early where that diverges. The suggestion
// is the rate at which the smoothed loss falls fastest over the logarithm of the rate, before its
// minimum. Writes the picture of it and nothing else.

#include "train.hpp"

namespace tool {

struct LrFindCommand : TrainCommand {
  double least = 1e-6, most = 1;
  i64 find_steps = 100;

  LrFindCommand() { out = "lr_find.png"; }
};

/// What was seen at each step.
struct RateRange {
  std::vector<double> rates{}, losses{}, smoothed{};
  bool diverged = false;

  /// Takes a step's loss; false where the test is over. The average forgets with 0.95 and is
  /// corrected for its beginning, as Adam's moments are.
  bool add(double rate, double loss) {
    if (!is_finite(loss)) return diverged = true, false;
    average_ = 0.95 * average_ + 0.05 * loss;
    rates.push_back(rate), losses.push_back(loss);
    smoothed.push_back(average_ / (1 - std::pow(0.95, static_cast<double>(losses.size()))));
    lowest_ = losses.size() == 1 ? smoothed.back() : std::min(lowest_, smoothed.back());
    diverged = smoothed.back() > 4 * lowest_;
    return !diverged;
  }
  /// The steepest descent: the step at which the smoothed loss falls fastest, as the slope of the
  /// line through its neighbours, as far on each side as a twentieth of the steps; nothing where it
  /// does not fall.
  std::optional<std::size_t> suggestion() const {
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

 private:
  double average_ = 0, lowest_ = 0;
};

/// The smoothed losses over the logarithm of the rate, the suggestion marked.
inline void draw_rates(const std::string& path, const RateRange& range) {
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

inline RateRange test_rates(const LrFindCommand& o) {
  WeightsOfFile initial = read_weights(o.network, notes());
  const std::optional<InputInfo> known = InputInfo::of(initial.metadata, o.network.weights);
  ClassifierData data = make_data(o.data, o.seed, true, known, o.crops(), notes());
  take_share(o, data);
  const ClassifierConfig config = training_config(o, data);
  if (o.compute.device == "cpu")
    require_memory_of(config, std::min(o.batch, data.train.size), data.input.size,
                      "--batch or --size", true, o.checkpoint_blocks);
  Classifier model(config, o.seed);
  if (!initial.tensors.empty()) load_initial(model, initial, known, data, o.network.weights);
  TrainOptions options = step_options(o);
  place(model, options.at);
  freeze(model, o.freeze);
  options.epochs = most_epochs;
  i64 steps = 0;
  options.rate = [&](const Moment& m) {
    const double part = static_cast<double>(m.iteration) / static_cast<double>(o.find_steps - 1);
    return o.least * std::pow(o.most / o.least, std::min(1.0, part));
  };
  options.evaluate_every = 0;

  const ImageLoading loading = training_images(o, data);
  const StreamOptions made{.workers = o.data.workers};
  BatchStream<Batch> batches(image_batches(data.train, loading), made),
      test(image_batches(data.test, test_loading(data, o.batch)), made);
  ClassificationTask<Classifier> task(model, test, o.label_smoothing);
  Trainer<ClassificationTask<Classifier>> trainer(task, options);
  const Json told = classifier_config_to_json(config);
  std::printf("%s, mask %s; %s: %lld steps of %lld images, rates from %g to %g\n",
              told["name"].get<std::string>().c_str(), told["mask"].get<std::string>().c_str(),
              data.train.name.c_str(), static_cast<long long>(o.find_steps),
              static_cast<long long>(loading.batch * o.accumulate), o.least, o.most);
  std::fflush(stdout);

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
  const SignalWatch watch;
  const auto ends = [&] { return over || SignalWatch::signal() != 0; };
  try {
    while (!ends()) trainer.run_epoch(batches, {.on_batch = on_batch, .rest = ends});
  } catch (const Error& e) {  // a loss or a gradient that is not finite
    if (range.smoothed.size() < 3) throw;
    range.diverged = true;
    note(e.what());
  }
  if (SignalWatch::signal() != 0) throw Interrupted{SignalWatch::signal()};
  return range;
}

inline void lr_find(const LrFindCommand& o) {
  o.check_together();
  check(o.least < o.most, "lr-find: --least ", o.least, " must be less than --most ", o.most);
  const RateRange range = test_rates(o);
  const std::size_t n = range.smoothed.size();
  if (range.diverged) std::printf("diverged at %.2e, after %zu steps\n", range.rates.back(), n);
  const auto lowest = static_cast<std::size_t>(
      std::min_element(range.smoothed.begin(), range.smoothed.end()) - range.smoothed.begin());
  std::printf("smoothed loss: %.4f at first, lowest %.4f at %.2e\n", range.smoothed.front(),
              range.smoothed[lowest], range.rates[lowest]);
  if (const auto at = range.suggestion())
    std::printf(
        "suggestion: --lr %.1e, where the smoothed loss falls fastest over the logarithm of "
        "the rate\n",
        range.rates[*at]);
  else
    std::printf("no suggestion: the loss does not fall between these rates\n");
  draw_rates(o.out, range);
  std::printf("%s\n", o.out.c_str());
}

inline void add_lr_find(CLI::App& app) {
  auto o = std::make_shared<LrFindCommand>();
  auto* c = app.add_subcommand(
      "lr-find", "Suggests a learning rate for a classifier: a learning-rate range test");
  c->add_option("--least", o->least, "learning rate of the first step")
      ->check(in_range(1e-12, 1e6))
      ->capture_default_str();
  c->add_option("--most", o->most, "learning rate of the last step")
      ->check(in_range(1e-12, 1e6))
      ->capture_default_str();
  c->add_option("--steps", o->find_steps, "steps of the optimiser")
      ->check(in_range(i64{10}, i64{1000000}))
      ->capture_default_str();
  c->add_option("--out", o->out, "the picture, a PNG")->check(some_text())->capture_default_str();
  add_data(*c, o->data, true);
  add_network(*c, o->network);
  // What a step depends on.
  const AddFields add_field(*c);
  const auto add = [&add_field](const char* key, auto&&... field) {
    for (const char* known : {"size",     "images",          "question",     "difficulty",
                              "batch",    "accumulate",      "optimizer",    "beta2",
                              "momentum", "nesterov",        "weight_decay", "clip",
                              "freeze",   "fraction",        "no_flip",      "checkpoint_blocks",
                              "seed",     "label_smoothing", "mixup",        "cutmix",
                              "erasing",  "rand_augment",    "rand_changes", "least_area",
                              "repeats",  "balanced"})
      if (std::string_view(key) == known) add_field(key, field...);
  };
  TrainCommand::fields(*o, add);
  add_compute(*c, o->compute);
  add_threads(*c);
  c->callback([o, c] {
    refuse_other_data(*c, o->data.kind);
    check(task_of_data(o->data.kind).empty(), "lr-find: --data ", o->data.kind, " is to ",
          task_of_data(o->data.kind), ", lr-find is for classifiers");
    lr_find(*o);
  });
}

}  // namespace tool
