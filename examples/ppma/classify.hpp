#pragma once
// ppma train --task classify: a network from images to a run folder (training_run.hpp), which also
// holds
//
//   OUT/curve.png, .svg      losses and accuracies
//   OUT/confusion.png, .svg  what is taken for what
//   OUT/history/             decays over training (decay_history.hpp)
//   OUT/report.html          all that is known of the last evaluation and of the run (report.hpp)

#include <optional>
#include <string>
#include <vector>

#include "data.hpp"
#include "ppma/data/rand_augment.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/train/classification.hpp"
#include "ppma/train/trainer.hpp"
#include "progress.hpp"
#include "report_classify.hpp"
#include "training_options.hpp"
#include "training_run.hpp"

namespace tool {

/// The defaults are for ppma_nano on `shapes`: about 95 % after two or three minutes on two cores.
struct TrainCommand : TrainingOptions {
  double warmup = 0.3, label_smoothing = 0, mixup = 0, cutmix = 0, erasing = 0, rand_augment = 0,
         least_area = 0.08;
  i64 rand_changes = 2, repeats = 1;
  bool rate_per_epoch = false, balanced = false;

  TrainCommand() { task = "classify", out = "runs/train", ema = 0.99, beta2 = 0.98; }
  struct Own {
    template <class Options, class F>
    static void fields(Options& o, F f) {
      f("warmup", o.warmup, Limits{0, most_epochs}, "epochs of linear warm-up");
      f("rate_per_epoch", o.rate_per_epoch,
        "change the cosine's learning rate once an epoch, as the published runs");
      f("label_smoothing", o.label_smoothing, fraction(),
        "share of the target that all classes get");
      f("mixup", o.mixup, Limits{0, 1000}, "mixup's alpha; 0: none");
      f("cutmix", o.cutmix, Limits{0, 1000}, "CutMix's alpha; 0: none");
      f("erasing", o.erasing, fraction(), "probability of random erasing");
      f("rand_augment", o.rand_augment, Limits{0, 10},
        "RandAugment's magnitude, published 9; 0: none");
      f("rand_changes", o.rand_changes, counts(100), "changes of RandAugment an image");
      f("least_area", o.least_area, Limits{0.001, 1},
        "folder, csv: random crops have at least this share of an image's area");
      f("repeats", o.repeats, counts(100),
        "repeated augmentation: each image so often in a row, published 3; an epoch sees fewer");
      f("balanced", o.balanced, "every class equally often, however many images it has");
    }
  };
  template <class Options, class F>
  static void fields(Options& o, F f) {
    TrainingOptions::fields(o, f);
    Own::fields(o, f);
  }
  TrainingCrops crops() const { return {.flip = no_flip ? 0 : 0.5, .least_area = least_area}; }
  void check_together() const {
    check_words();
    check(!balanced || repeats == 1, "--balanced and --repeats are two orders; leave one out");
    check(!rate_per_epoch || schedule.empty() || schedule == "cosine",
          "--rate-per-epoch is for --schedule cosine");
  }
};

/// How training images are changed at random: as suits the set, and what the options add.
inline Transform augmentation(const TrainCommand& o, const Transform& usual) {
  if (o.rand_augment == 0) return usual;
  return [usual, how = RandAugment{.changes = o.rand_changes, .magnitude = o.rand_augment}](
             const Tensor& image, Rng& rng) { return rand_augment(usual(image, rng), rng, how); };
}

/// Brings the head of `initial`, which knows what `known` says, to the classes of `data`: its rows
/// by the classes' names, or none, so that training begins with a new head. Says which it was.
inline std::string take_head(WeightsOfFile& initial, const std::optional<InputInfo>& known,
                             const ClassifierData& data, const std::string& where) {
  const Tensor* weight = find(initial.tensors, "head.weight");
  if (weight == nullptr) return str("new, ", where, " has none");
  const std::vector<std::string>& classes = data.input.classes;
  const auto begin_anew = [&](const std::string& why) {
    std::erase_if(initial.tensors, [](const auto& t) { return t.first.starts_with("head."); });
    return str("new, for ", classes.size(), " classes: ", why);
  };
  const i64 outputs = weight->dim(0);
  if (!known || known->classes.empty()) {
    if (outputs != static_cast<i64>(classes.size()))
      return begin_anew(str(where, " tells ", outputs, " apart"));
    return str("taken as it is; ", where, " does not name its classes");
  }
  known->check_outputs(outputs, where + ": input");
  const ClassMatch match = match_classes(known->classes, where, classes, data.test.name);
  if (!match.unknown.empty())
    return begin_anew(str(where, " does not know ", listed(match.unknown)));
  if (match.same) return "taken as it is, for the same classes";
  for (auto& [name, tensor] : initial.tensors)
    if (name.starts_with("head.")) tensor = chosen_rows(tensor, match.numbers);
  return "taken, its rows by the classes' names";
}

/// An epoch's line in the log; of few classes with what share of each is recognised, in percent.
inline Json record_of(const ClassifierRecord& r, const ClassificationTask<Classifier>& task,
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
  if (classes <= ClassTable::few && r.test) put("test_class_acc1", task.said);
  if (classes <= ClassTable::few && r.test_ema) put("test_ema_class_acc1", task.said_averaged);
  j["seconds"] = r.seconds;
  return j;
}

/// The network that is trained on a set: with its classes; a plain transformer, which takes images
/// of one size, with theirs.
inline ClassifierConfig training_config(const TrainCommand& o, const ClassifierData& data) {
  ClassifierConfig c = classifier_config(o.network, {}, "ppma_nano");
  if (auto* vit = std::get_if<VitConfig>(&c)) vit->image_size = data.input.size;
  each_config(c, [&](auto& of) {
    of.num_classes = data.train.classes();
    if (o.drop_path >= 0) of.drop_path_rate = o.drop_path;
  });
  return c;
}

/// Leaves of the training set what --fraction says.
inline void take_share(const TrainCommand& o, ClassifierData& data) {
  if (o.data_fraction == 1) return;
  std::vector<i64> which = share_of(data.train, o.data_fraction, o.seed);
  data.train = chosen(std::move(data.train), std::move(which));
}

/// Loads what training begins with; returns which head it was, as take_head().
inline std::string load_initial(Classifier& model, WeightsOfFile& initial,
                                const std::optional<InputInfo>& known, const ClassifierData& data,
                                const std::string& where) {
  const std::string head = take_head(initial, known, data, where);
  std::vector<std::string> ignore;
  if (find(initial.tensors, "head.weight") == nullptr) ignore.emplace_back("head.");
  load_state_dict(model, initial.tensors, {.strict = true, .ignore = ignore});
  return head;
}

/// How a step is made, but for its learning rate.
inline TrainOptions step_options(const TrainCommand& o) {
  TrainOptions t;
  t.at = o.compute.placement(true);
  t.accumulate = o.accumulate, t.clip = o.clip;
  t.rules = no_decay_rules(o.weight_decay), t.optimizer = o.optimizer_options();
  t.checkpoint_blocks = o.checkpoint_blocks, t.seed = o.seed;
  return t;
}

/// How training images become batches of --batch, or of all that there are.
inline ImageLoading training_images(const TrainCommand& o, const ClassifierData& data) {
  ImageLoading l;
  l.batch = std::min(o.batch, data.train.size), l.seed = o.seed;
  l.transform = augmentation(o, data.augment);
  l.repeats = o.repeats, l.balanced = o.balanced;
  l.normalization = data.input.normalization;
  l.erasing.probability = o.erasing;
  l.mix = {.mixup = o.mixup, .cutmix = o.cutmix, .smoothing = o.label_smoothing};
  return l;
}

/// `processes`: those that train with this one, if any (other_processes()). `ready`: the data,
/// where the caller has them.
inline void train(TrainCommand o, const std::vector<Communicator>& processes,
                  const ClassifierData* ready = nullptr) {
  TrainingRun run = open_run(o, processes);
  const i64 ranks = run.part().ranks;

  WeightsOfFile initial = read_weights(o.network, notes());
  const std::optional<InputInfo> known = InputInfo::of(initial.metadata, o.network.weights);
  ClassifierData data = at_its_place(o, o.data.folder, [&] {
    if (ready != nullptr) return *ready;
    if (!run.resumed()) return make_data(o.data, o.seed, true, known, o.crops(), notes());
    const auto had = InputInfo::of(read_safetensors(run.last()).metadata, run.last());
    ClassifierData d = make_data(o.data, o.seed, true, had, o.crops(), notes());
    if (had) check_classes_of_run(o.out, *had, d.input);
    return d;
  });
  take_share(o, data);
  ClassifierConfig config = training_config(o, data);
  if (is_generated(o.data.kind))
    require_bytes(3.0 * static_cast<double>(data.test.size) *
                      static_cast<double>(data.input.size * data.input.size),
                  str("a set of ", data.test.size, " test images of ", data.input.size, " pixels"),
                  "choose a smaller --test-images or --size");
  if (o.compute.device == "cpu")
    require_memory_of(config, (std::min(o.batch, data.train.size) + ranks - 1) / ranks,
                      data.input.size, "--batch or --size", true, o.checkpoint_blocks);
  Classifier model(config, o.seed);
  if (!initial.tensors.empty()) {
    if (run.speaks() && known)
      note("images as ", o.network.weights, " says: ", data.input.size, " pixels, ",
           100 * data.input.crop, " % of the shorter side, its mean and deviation");
    const std::string head = load_initial(model, initial, known, data, o.network.weights);
    if (run.speaks()) note("head: ", head);
  }

  TrainOptions options = step_options(o);
  place(model, options.at);
  const i64 frozen = freeze(model, o.freeze);
  if (run.speaks() && frozen > 0) note(frozen, " tensors of the network are not trained");
  options.epochs = o.epochs;
  options.ema_warm = !o.ema_plain;
  options.ema_decay = o.ema;
  options.evaluate_every = o.evaluate_every;
  options.processes = processes;

  ImageLoading loading = training_images(o, data);
  loading.batch = std::min(o.batch, data.train.size / ranks * ranks);
  loading.part = run.part();
  ImageLoading testing = test_loading(data, std::max<i64>(o.batch, 64 * ranks));
  testing.part = run.part();
  const StreamOptions made{.workers = o.data.workers};
  // Generated images are drawn once where they fit: 12,000 of 48 pixels are 83 MB.
  const bool drawn = ready == nullptr && is_generated(o.data.kind),
             fit = o.data.images * 3 * data.input.size * data.input.size <= i64{1} << 28;
  const auto kept = [](const Dataset& set, bool keep) { return keep ? in_memory(set) : set; };
  BatchStream<Batch> batches(image_batches(kept(data.train, drawn && fit && o.epochs > 1), loading),
                             made),
      test(image_batches(kept(data.test, drawn), testing), made);

  const i64 steps = (batches.batches() + o.accumulate - 1) / o.accumulate;
  options.rate = schedule_of(o, "cosine", steps, o.warmup);
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
  const auto draw = [&] { draw_curves(run.folder(), classifier_charts(run.folder().records())); };
  RunReport report(classifier_facts(options_of(o), told, data, o.compute, ranks));
  std::optional<DecayHistory> history;  // of stages, which a plain transformer has not
  if (const auto* staged = std::get_if<Ppma>(&model.network))
    history.emplace(staged->backbone, staged->config.mask, data.input.normalization, options.at,
                    data.test.size, [&](i64 i) {
                      Rng unused;
                      return data.prepare(data.test.get(i).image, unused);
                    });
  if (run.speaks()) {
    if (!run.folder().records().empty()) draw();
    std::printf(
        "%s, mask %s, %s parameters; %s: %s training and %s test images of %lld pixels, %lld "
        "classes\n",
        told["name"].get<std::string>().c_str(), told["mask"].get<std::string>().c_str(),
        grouped_digits(parameter_count(model)).c_str(), data.train.name.c_str(),
        grouped_digits(data.train.size).c_str(), grouped_digits(data.test.size).c_str(),
        static_cast<long long>(data.input.size), static_cast<long long>(data.train.classes()));
    std::printf("%s%lld threads, run folder %s%s\n",
                ranks > 1 ? str(ranks, " processes of ").c_str() : "",
                static_cast<long long>(threads()), o.out.c_str(),
                run.resumed() ? str(", resumed after epoch ", trainer.epoch()).c_str() : "");
    std::fflush(stdout);
  }

  if (run.speaks() && run.resumed() && trainer.epoch() >= o.stop() &&
      report.is_behind(run.folder())) {
    // It died before that was written, and tests no more: what the report is of is tested again.
    if (report.averaged(run.folder())) load_state_dict(model, trainer.average());
    testing.part = {};
    BatchStream<Batch> whole(image_batches(kept(data.test, drawn), testing), made);
    std::vector<Prediction> said;
    evaluate(model, whole, {.at = options.at}, &said);
    report_classifier(report, run.folder(), data, said);
  }
  Progress progress(trainer.epoch(), o.epochs);
  report.next_epoch();
  run.train(
      trainer, batches,
      {.on_batch = [&](const StepReport& r) { progress.batch(r), report.batch(r); },
       .on_evaluation = [&](i64 done, i64 all) { progress.evaluation(done, all); }},
      [&](const ClassifierRecord& r) {
        if (r.test && history) history->add(run.folder(), r.epoch + 1);
        return record_of(r, task, data.test.classes());
      },
      [&](const ClassifierRecord& r, bool is_best) {
        draw();
        if (r.test)
          report_classifier(report, run.folder(), data,
                            report.averaged(run.folder()) ? task.said_averaged : task.said);
        progress.epoch(r, is_best);
        report.next_epoch();
      });
  if (!run.speaks() || run.folder().best() < 0) return;  // nothing was evaluated yet
  std::printf("best accuracy %.2f %% on %s test images: %s\n", run.folder().best(),
              grouped_digits(data.test.size).c_str(),
              run.folder().path("best.safetensors").c_str());
  std::printf("report: %s\n", run.folder().path("report.html").c_str());
  const Json& last = run.folder().records().back();
  const std::vector<Prediction>& said =
      report.averaged(run.folder()) ? task.said_averaged : task.said;
  if (ready != nullptr || said.empty() || !last.contains("test_acc1")) return;
  std::printf("after the last epoch: ");
  print_confusion(Confusion(data.test.classes(), said), shown_classes(data.test.class_names),
                  o.per_class);
}

}  // namespace tool
