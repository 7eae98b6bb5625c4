#pragma once
// ppma lr-find: a learning-rate range test (ppma/commands/lr_find.hpp).

#include "ppma/commands/lr_find.hpp"
#include "train.hpp"

namespace tool {

/// Shows what is tested, and how far.
class ShownTest : public ShownRun<Evaluation> {
 public:
  explicit ShownTest(const LearningRateTest& o) : o_(o) {}

  void begin(const RunStart& r) override {
    std::printf("%s%s; %s: %lld steps of %lld images, rates from %g to %g\n", r.network.c_str(),
                masked(r.mask).c_str(), r.set.c_str(), static_cast<long long>(o_.find_steps),
                static_cast<long long>(std::min(o_.batch, r.training_images) * o_.accumulate),
                o_.least, o_.most);
    std::fflush(stdout);
  }

 private:
  const LearningRateTest& o_;
};

inline void lr_find(const LearningRateTest& o) {
  ShownTest shown(o);
  const RateRange range = find_learning_rate(o, shown);
  shown.over(range.stopped);
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
  auto o = std::make_shared<LearningRateTest>();
  o->out = "lr_find.png";
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
  ClassifierTraining::fields(*o, add);
  add_compute(*c, o->compute);
  add_threads(*c);
  c->callback([o, c] {
    refuse_other_data(*c, o->data.kind);
    check(tasks_of_data(o->data.kind).empty(), "lr-find: --data ", o->data.kind, " is to ",
          tasks_of_data(o->data.kind), ", lr-find is for classifiers");
    lr_find(*o);
  });
}

}  // namespace tool
