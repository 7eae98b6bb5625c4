#pragma once
#include "ppma/core/names_begin.hpp"
// How a trained classifier does on a test set, and on each of its classes. Classes are matched by
// name: images of one that the network does not know count as wrong.

#include <string>
#include <vector>

#include "ppma/commands/data.hpp"
#include "ppma/commands/network.hpp"
#include "ppma/metrics/confusion.hpp"

namespace ppma::inline PPMA_ABI {

/// Which classifier, on which images.
struct EvaluationOptions {
  NetworkOptions network;  // with weights
  ComputeOptions compute;
  DataOptions data;     // without a kind: what the weights say that they were trained on, where
                        // `folder`, `size` and `no_exif` say more
  i64 test_images = 0;  // of generated sets; 0: as many as the data say
  i64 batch = 64;       // images at a time
};

/// What came of it.
struct ClassifierEvaluation {
  std::string set;                             // its name
  i64 images = 0;                              // all of it
  double loss = 0;                             // mean cross entropy of the images of known classes
  double acc1 = 0, acc5 = 0;                   // percent of all images
  double seconds = 0;                          // that it took
  std::vector<std::string> unknown_classes{};  // the network's are others
  i64 unknown_images = 0;
  std::vector<std::string> classes;  // the network's
  Confusion confusion;               // of the images of known classes
};

/// Hears of an evaluation.
struct EvaluationObserver : Observer {
  /// Which data it is, before they are read; what is thrown refuses them.
  virtual void tested(const DataOptions& /*data*/) {}
};

/// Evaluates. Errors: no weights, or no data; none of the set's classes is the network's; what
/// weights, data and memory refuse.
PPMA_API ClassifierEvaluation evaluate_classifier(
    const EvaluationOptions& o, EvaluationObserver& observer = nobody<EvaluationObserver>());

/// Draws the confusion matrix to a file: .svg, else PNG.
PPMA_API void draw_confusion(const std::string& path, const ClassifierEvaluation& e);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

#include "ppma/io/image.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/train/classification.hpp"
#include "ppma/vis/confusion_picture.hpp"
#include "ppma/vis/svg_file.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The set to test on: that of the options, or what the weights say.
inline DataOptions tested_data(const EvaluationOptions& o, const WeightsOfFile& file) {
  const std::string where = o.network.weights + ": data";
  DataOptions data = o.data;
  if (const auto it = file.metadata.find("data"); data.kind.empty() && it != file.metadata.end()) {
    data = data_of(parse_json(it->second, where), where);
    data.size = o.data.size, data.workers = o.data.workers;
    if (!o.data.folder.empty()) data.folder = o.data.folder;
    data.no_exif = data.no_exif || o.data.no_exif;
  }
  if (o.test_images > 0) data.test_images = o.test_images;
  check(!data.kind.empty(), "eval: the weights do not say what they were trained on; give `data`");
  return data;
}

/// The set with its classes as the network numbers them; -1: one that the network does not know.
inline Dataset renumbered(Dataset set, const std::vector<i64>& numbers) {
  set.load = [load = std::move(set.load), numbers](i64 index) {
    Sample s = load(index);
    s.label = numbers[static_cast<std::size_t>(s.label)];
    return s;
  };
  return set;
}

/// Batches without the images of unknown classes (label -1).
inline BatchPlan<Batch> known_images(BatchPlan<Batch> plan) {
  plan.of_epoch = [whole = std::move(plan.of_epoch)](i64 epoch) {
    return [make = whole(epoch)](i64 number) {
      Batch batch = make(number);
      std::vector<i64> rows;
      for (i64 i = 0; i < batch.targets.numel(); ++i)
        if (batch.targets.data<i64>()[i] >= 0) rows.push_back(i);
      if (static_cast<i64>(rows.size()) == batch.targets.numel()) return batch;
      batch.targets = chosen_rows(batch.targets, rows);
      for (std::size_t i = 0; i < rows.size(); ++i)
        batch.samples[i] = batch.samples[static_cast<std::size_t>(rows[i])];
      batch.samples.resize(rows.size());
      batch.images = rows.empty() ? Tensor() : chosen_rows(batch.images, rows);
      return batch;
    };
  };
  return plan;
}

/// The set's classes by the network's names for them. Errors: none of them is the network's; it
/// names none, and there are more or less of them.
inline ClassMatch tested_classes(const LoadedNetwork<ppma::Classifier>& network,
                                 const std::string& weights, const Dataset& set,
                                 Observer& observer) {
  if (network.input.classes.empty()) {
    const i64 known = classes_of(network.model.config());
    check(set.classes() == known, "eval: the network tells ", known, " classes apart, ", set.name,
          " has ", set.classes());
    note(observer, weights, ": does not name its classes; those of ", set.name,
         " are taken in their order");
    return match_classes(set.class_names, weights, set.class_names, set.name);
  }
  ClassMatch match = match_classes(network.input.classes, weights, set.class_names, set.name);
  check(match.unknown.size() < set.class_names.size(), set.name, ": none of its classes ",
        listed(set.class_names), " is one of the network's, ", listed(network.input.classes),
        "; give the data that it was trained for, or rename the classes");
  return match;
}

}  // namespace detail

ClassifierEvaluation evaluate_classifier(const EvaluationOptions& o, EvaluationObserver& observer) {
  check(!o.network.weights.empty(), "eval: needs `weights`");
  check(o.batch > 0, "eval: `batch` is ", o.batch, "; it must be at least 1");
  const WeightsOfFile file = read_weights(o.network, observer);
  const DataOptions tested = detail::tested_data(o, file);
  observer.tested(tested);
  LoadedNetwork<Classifier> network = load_classifier(o.network, file);
  std::optional<InputInfo> expected;
  if (network.says_input) expected = with_size(network.input, o.data.size, true, observer);
  const ClassifierData data = make_data(tested, 0, false, expected, {}, observer);
  if (!expected)
    detail::note(observer, o.network.weights, ": does not say how it takes images; as suits ",
                 tested.kind, ": ", data.input.size, " pixels, ",
                 rounded(100 * data.input.crop, 0.1), " % of the shorter side");
  const ClassMatch match = detail::tested_classes(network, o.network.weights, data.test, observer);
  if (o.compute.device == "cpu")
    require_memory_of(network.model.config(), std::min(o.batch, data.test.size), data.input.size,
                      "`batch` or `size`");
  const Placement at = o.compute.placement();
  place(network.model, at, true);
  BatchStream<Batch> test(
      detail::known_images(
          image_batches(detail::renumbered(data.test, match.numbers), test_loading(data, o.batch))),
      stream_options(o.data, o.compute.device));
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Prediction> said;
  const Evaluation e = evaluate(network.model, test, {.at = at}, &said);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const i64 images = data.test.size, unknown = images - e.images;
  const double share = static_cast<double>(e.images) / static_cast<double>(images);
  if (unknown > 0)
    detail::note(observer, data.test.name, ": the network does not know the classes ",
                 listed(match.unknown), "; their ", unknown,
                 " images count as wrong, and not in the loss and the classes' figures");
  return {.set = data.test.name,
          .images = images,
          .loss = e.loss,
          .acc1 = unknown > 0 ? e.acc1 * share : e.acc1,
          .acc5 = unknown > 0 ? e.acc5 * share : e.acc5,
          .seconds = seconds,
          .unknown_classes = match.unknown,
          .unknown_images = unknown,
          .classes = network.input.classes.empty() ? data.test.class_names : network.input.classes,
          .confusion = Confusion(classes_of(network.model.config()), said)};
}

void draw_confusion(const std::string& path, const ClassifierEvaluation& e) {
  const std::vector<std::string> names = detail::printable_names(e.classes);
  const std::string set = printable(e.set, e.set.size());
  const ConfusionOptions how{
      .title = str(set, ": ", detail::grouped_digits(e.images - e.unknown_images), " images, ",
                   detail::percent(e.confusion.top1(), 1), " % right")};
  if (path.ends_with(".svg"))
    write_file(path, std::string_view(svg_file({svg_confusion(e.confusion, names, how)})));
  else
    write_png(path, confusion_picture(e.confusion, names, how).image());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
