#pragma once
#include "ppma/core/names_begin.hpp"
// Trains a classifier: from images to a run folder (training_run.hpp), which also holds
//
//   OUT/curve.png, .svg      losses and accuracies
//   OUT/confusion.png, .svg  what is taken for what
//   OUT/history/             decays over training (run_decays.hpp)
//   OUT/report.html          all that is known of the last evaluation and of the run

#include <optional>
#include <string>
#include <vector>

#include "ppma/commands/classifier_training.hpp"
#include "ppma/commands/training_observer.hpp"
#include "ppma/metrics/confusion.hpp"

namespace ppma::inline PPMA_ABI {

/// Hears of a classifier's run.
using ClassifierObserver = TrainingObserver<Evaluation>;

/// A run's classifier: its weights lie in the folder, and load_classifier() reads them.
struct TrainedClassifier : TrainedRun {  // best: top-1 in percent
  i64 test_images = 0;
  std::vector<std::string> classes{};
  /// Of the last epoch, by the weights or their average, whichever is better; nothing where that
  /// was not evaluated, or not in this call.
  std::optional<Confusion> confusion{};
};

/// Trains a classifier, or goes on with `o.resume`. `processes` train with this one
/// (other_processes()); `ready` are the images, where the caller has them. Errors: options outside
/// of their limits, or that do not go together; what data, weights, folder and memory refuse.
PPMA_API TrainedClassifier train_classifier(
    ClassifierTraining o, ClassifierObserver& observer = nobody<ClassifierObserver>(),
    const std::vector<Communicator>& processes = {}, const ClassifierData* ready = nullptr);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <utility>
#include <variant>

#include "ppma/commands/classifier_report.hpp"
#include "ppma/commands/classifier_steps.hpp"
#include "ppma/train/classification.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

constexpr i64 few_classes = 20;  // that are all told of

/// An epoch's line in the log; of few classes with what share of each is recognised, in percent.
inline Json record_of(const ClassifierRecord& r, const ClassificationTask<ppma::Classifier>& task,
                      i64 classes) {
  Json j = Json::parse(to_json(r));
  j.erase("seconds");
  const auto put = [&](const char* key, const std::vector<Prediction>& said) {
    const Confusion confusion(classes, said);
    for (i64 k = 0; k < classes; ++k) {
      const double recall = confusion.of_class(k).recall();
      j[key].push_back(is_nan(recall) ? Json() : Json(100 * recall));
    }
  };
  if (classes <= few_classes && r.test) put("test_class_acc1", task.said);
  if (classes <= few_classes && r.test_ema) put("test_ema_class_acc1", task.said_averaged);
  j["seconds"] = r.seconds;
  return j;
}

}  // namespace detail

TrainedClassifier train_classifier(ClassifierTraining o, ClassifierObserver& observer,
                                   const std::vector<Communicator>& processes,
                                   const ClassifierData* ready) {
  detail::TrainingRun run = detail::open_run(o, processes, observer);
  const i64 ranks = run.part().ranks;

  WeightsOfFile initial = read_weights(o.network, observer);
  const std::optional<InputInfo> known = InputInfo::of(initial.metadata, o.network.weights);
  ClassifierData data = detail::at_its_place(o, o.data.folder, [&] {
    if (ready != nullptr) return *ready;
    if (!run.resumed()) return make_data(o.data, o.seed, true, known, o.crops(), observer);
    const auto had = InputInfo::of(read_safetensors(run.last()).metadata, run.last());
    ClassifierData d = make_data(o.data, o.seed, true, had, o.crops(), observer);
    if (had) check_classes_of_run(o.out, *had, d.input);
    return d;
  });
  detail::take_share(o, data);
  ClassifierConfig config = detail::training_config(o, data);
  if (is_generated(o.data.kind))
    require_bytes(3.0 * static_cast<double>(data.test.size) *
                      static_cast<double>(data.input.size * data.input.size),
                  str("a set of ", data.test.size, " test images of ", data.input.size, " pixels"),
                  "choose a smaller `test_images` or `size`");
  if (o.compute.device == "cpu")
    require_memory_of(config, (std::min(o.batch, data.train.size) + ranks - 1) / ranks,
                      data.input.size, "`batch` or `size`", true, o.checkpoint_blocks);
  Classifier model(config, o.seed);
  if (!initial.tensors.empty()) {
    if (known)
      detail::note(run.heard(), "images as ", o.network.weights, " says: ", data.input.size,
                   " pixels, ", 100 * data.input.crop,
                   " % of the shorter side, its mean and deviation");
    detail::note(run.heard(),
                 "head: ", detail::load_initial(model, initial, known, data, o.network.weights));
  }

  TrainOptions options = detail::step_options(o);
  place(model, options.at);
  const i64 frozen = detail::freeze(model, o.freeze);
  if (frozen > 0) detail::note(run.heard(), frozen, " tensors of the network are not trained");
  options.epochs = o.epochs;
  options.ema_warm = !o.ema_plain;
  options.ema_decay = o.ema;
  options.evaluate_every = o.evaluate_every;
  options.processes = processes;

  ImageLoading loading = detail::training_images(o, data);
  loading.batch = std::min(o.batch, data.train.size / ranks * ranks);
  loading.part = run.part();
  ImageLoading testing = test_loading(data, std::max<i64>(o.batch, 64 * ranks));
  testing.part = run.part();
  const StreamOptions made = stream_options(o.data, o.compute.device);
  // Generated images are drawn once where they fit: 12,000 of 48 pixels are 83 MB.
  const bool drawn = ready == nullptr && is_generated(o.data.kind),
             fit = o.data.images * 3 * data.input.size * data.input.size <= i64{1} << 28;
  const auto kept = [](const Dataset& set, bool keep) { return keep ? in_memory(set) : set; };
  BatchStream<Batch> batches(image_batches(kept(data.train, drawn && fit && o.epochs > 1), loading),
                             made),
      test(image_batches(kept(data.test, drawn), testing), made);

  const i64 steps = (batches.batches() + o.accumulate - 1) / o.accumulate;
  options.rate = detail::schedule_of(o, "cosine", steps, o.warmup);
  if (o.rate_per_epoch)
    options.rate = [rate = options.rate](const Moment& m) {
      return rate({std::max<i64>(0, m.epoch - 1)});
    };
  ClassificationTask<Classifier> task(model, test, o.label_smoothing);
  Trainer<ClassificationTask<Classifier>> trainer(task, options);
  const Json told = classifier_config_to_json(config);
  run.begin(trainer, {.about = {{"config", told.dump()},
                                {"input", data.input.to_json().dump()},
                                {"data", options_of(o.data).dump()}},
                      .options = options_of(o),
                      .network = told,
                      .training_images = data.train.size,
                      .test_images = data.test.size,
                      .epochs = o.epochs,
                      .stop = o.stop(),
                      .patience = o.patience,
                      .figure = "acc1",
                      .key = "test_acc1",
                      .averaged_key = "test_ema_acc1"});
  const auto draw = [&] {
    detail::draw_curves(run.folder(), detail::classifier_charts(run.folder().records()));
  };
  detail::RunReport report(detail::classifier_facts(options_of(o), told, data, o.compute, ranks));
  std::optional<detail::RunDecays> history;  // of stages, which a plain transformer has not
  if (const auto* staged = std::get_if<Ppma>(&model.network))
    history.emplace(staged->backbone, staged->config.mask, data.input.normalization, options.at,
                    data.test.size, [&](i64 i) {
                      Rng unused;
                      return data.prepare(data.test.get(i).image, unused);
                    });
  if (run.speaks() && !run.folder().records().empty()) draw();
  run.start(trainer, {.network = member<std::string>(told, "name", "config"),
                      .mask = told.value("mask", ""),
                      .parameters = parameter_count(model),
                      .set = data.train.name,
                      .size = data.input.size,
                      .classes = data.train.class_names});

  if (run.speaks() && run.resumed() && trainer.epoch() >= o.stop() &&
      report.is_behind(run.folder())) {
    // It died before that was written, and tests no more: what the report is of is tested again.
    if (report.averaged(run.folder())) load_state_dict(model, trainer.average());
    testing.part = {};
    BatchStream<Batch> whole(image_batches(kept(data.test, drawn), testing), made);
    std::vector<Prediction> said;
    evaluate(model, whole, {.at = options.at}, &said);
    detail::report_classifier(report, run.folder(), data, said);
  }
  report.next_epoch();
  run.train(
      trainer, batches, {.on_batch = [&](const StepReport& r) { report.batch(r); }},
      [&](const ClassifierRecord& r) {
        if (r.test && history) history->add(run.folder(), r.epoch + 1);
        return detail::record_of(r, task, data.test.classes());
      },
      [&](const ClassifierRecord& r, bool is_best) {
        draw();
        if (r.test)
          detail::report_classifier(report, run.folder(), data,
                                    report.averaged(run.folder()) ? task.said_averaged : task.said);
        observer.epoch(r, is_best);
        report.next_epoch();
      });
  TrainedClassifier trained{run.trained(trainer)};
  trained.test_images = data.test.size, trained.classes = data.test.class_names;
  if (trained.best < 0) return trained;
  const std::vector<Prediction>& said =
      report.averaged(run.folder()) ? task.said_averaged : task.said;
  if (!said.empty() && run.folder().records().back().contains("test_acc1"))
    trained.confusion.emplace(data.test.classes(), said);
  return trained;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
