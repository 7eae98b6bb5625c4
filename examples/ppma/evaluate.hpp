#pragma once
// ppma eval and ppma predict: a trained network on a test set, or on image files.

#include <chrono>
#include <memory>
#include <numeric>

#include "class_table.hpp"
#include "data.hpp"
#include "detect.hpp"
#include "ppma/io/image.hpp"
#include "ppma/vis/confusion_picture.hpp"
#include "ppma/vis/svg_file.hpp"
#include "segment.hpp"

namespace tool {

struct EvalCommand {
  NetworkOptions network;
  DataOptions data;
  ComputeOptions compute;
  std::string confusion;  // file of the picture; "": none
  i64 batch = 64;
  bool json = false, per_class = false;
};

/// The set to test on: that of the options, or what the weights say that they were trained on, in
/// another folder or with another number of images where an option says so.
inline DataOptions tested_data(const EvalCommand& o, const CLI::App& app,
                               const WeightsOfFile& file) {
  const std::string where = o.network.weights + ": data";
  DataOptions data = o.data;
  if (const auto it = file.metadata.find("data"); data.kind.empty() && it != file.metadata.end()) {
    data = data_of(parse_json(it->second, where), where);
    data.size = o.data.size, data.workers = o.data.workers;
    if (!o.data.folder.empty()) data.folder = o.data.folder;
    data.no_exif = data.no_exif || o.data.no_exif;
    if (app.count("--test-images") > 0) data.test_images = o.data.test_images;
  }
  check(!data.kind.empty(), "eval: the weights do not say what they were trained on; give --data");
  refuse_other_data(app, data.kind);
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
inline ClassMatch tested_classes(const LoadedNetwork<Classifier>& network,
                                 const std::string& weights, const Dataset& set) {
  if (network.input.classes.empty()) {
    const i64 known = classes_of(network.model.config());
    check(set.classes() == known, "eval: the network tells ", known, " classes apart, ", set.name,
          " has ", set.classes());
    note(weights, ": does not name its classes; those of ", set.name, " are taken in their order");
    return match_classes(set.class_names, weights, set.class_names, set.name);
  }
  ClassMatch match = match_classes(network.input.classes, weights, set.class_names, set.name);
  check(match.unknown.size() < set.class_names.size(), set.name, ": none of its classes ",
        listed(set.class_names), " is one of the network's, ", listed(network.input.classes),
        "; give the data that it was trained for, or rename the classes");
  return match;
}

inline void eval(const EvalCommand& o, const CLI::App& app) {
  check(!o.network.weights.empty(), "eval: needs --weights");
  const WeightsOfFile file = read_weights(o.network, notes());
  const DataOptions tested = tested_data(o, app, file);
  LoadedNetwork<Classifier> network = load_classifier(o.network, file);
  std::optional<InputInfo> expected;
  if (network.says_input) expected = with_size(network.input, o.data.size, true, notes());
  const ClassifierData data = make_data(tested, 0, false, expected, {}, notes());
  if (!expected)
    note(o.network.weights, ": does not say how it takes images; as suits ", tested.kind, ": ",
         data.input.size, " pixels, ", rounded(100 * data.input.crop, 0.1),
         " % of the shorter side");
  const ClassMatch match = tested_classes(network, o.network.weights, data.test);
  if (o.compute.device == "cpu")
    require_memory_of(network.model.config(), std::min(o.batch, data.test.size), data.input.size,
                      "--batch or --size");
  const Placement at = o.compute.placement();
  place(network.model, at, true);
  BatchStream<Batch> test(known_images(image_batches(renumbered(data.test, match.numbers),
                                                     test_loading(data, o.batch))),
                          {.workers = o.data.workers});
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Prediction> said;
  const Evaluation e = evaluate(network.model, test, {.at = at}, &said);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const i64 images = data.test.size, unknown = images - e.images;
  const double share = static_cast<double>(e.images) / static_cast<double>(images);
  const double acc1 = unknown > 0 ? e.acc1 * share : e.acc1,
               acc5 = unknown > 0 ? e.acc5 * share : e.acc5;
  if (unknown > 0)
    note(data.test.name, ": the network does not know the classes ", listed(match.unknown),
         "; their ", unknown,
         " images count as wrong, and not in the loss and the classes' figures");
  const Confusion confusion(classes_of(network.model.config()), said);
  const std::vector<std::string> names =
      shown_classes(network.input.classes.empty() ? data.test.class_names : network.input.classes);
  const std::string tested_on = shown_name(data.test.name);
  const auto draw = [&] {  // last: the figures are there where it cannot be written
    const ConfusionOptions how{.title = str(tested_on, ": ", grouped_digits(e.images), " images, ",
                                            percent(confusion.top1(), 1), " % right")};
    if (o.confusion.ends_with(".svg"))
      write_file(o.confusion, std::string_view(svg_file({svg_confusion(confusion, names, how)})));
    else if (!o.confusion.empty())
      write_png(o.confusion, confusion_picture(confusion, names, how).image());
  };
  if (o.json) {
    Json j;
    j["data"] = tested_on;
    j["images"] = images;
    j["loss"] = e.loss;
    j["acc1"] = acc1;
    j["acc5"] = acc5;
    if (unknown > 0) j["unknown_classes"] = match.unknown, j["unknown_images"] = unknown;
    j["images_per_s"] = rounded(static_cast<double>(images) / seconds, 0.1);
    put_confusion(j, confusion, names);
    print_json(j);
    return draw();
  }
  std::printf("%s: %s images, loss %.4f, top-1 %.2f %%, top-5 %.2f %%, %.0f images/s\n",
              tested_on.c_str(), grouped_digits(images).c_str(), e.loss, acc1, acc5,
              static_cast<double>(images) / seconds);
  print_confusion(confusion, names, o.per_class);
  draw();
}

inline void add_eval(CLI::App& app) {
  auto o = std::make_shared<EvalCommand>();
  auto* c = app.add_subcommand(
      "eval", "How a trained network does on a test set, and on each of its classes");
  add_network(*c, o->network);
  add_data(*c, o->data, false);
  DataOptions::fields(o->data, AddFields(*c));
  c->remove_option(c->get_option("--images"));  // only training images
  c->get_option("--data")->description(c->get_option("--data")->get_description() +
                                       "; default: what it was trained on");
  c->add_option("--batch", o->batch, "images at a time")
      ->check(in_range(i64{1}, most_batch))
      ->capture_default_str();
  add_compute(*c, o->compute);
  add_threads(*c);
  c->add_flag("--per-class", o->per_class, "figures of all classes, not only of the worst ones");
  c->add_option("--confusion", o->confusion,
                "file for a picture of the confusion matrix: .svg, else PNG")
      ->check(some_text());
  c->add_flag("--json", o->json, "one JSON object, with all figures, instead of text");
  c->callback([o, c] { eval(*o, *c); });
}

struct PredictCommand {
  NetworkOptions network;
  ComputeOptions compute;
  std::vector<std::string> images, formats;
  i64 top = 5;
  bool json = false, no_exif = false;
};

inline void predict(const PredictCommand& o, const PredictFormats& formats) {
  check(!o.network.weights.empty(), "predict: needs --weights");
  LoadedNetwork<Classifier> network = load_classifier(o.network, read_weights(o.network, notes()));
  if (!network.says_input)
    note(o.network.weights, ": does not say how it takes images; they are brought to ",
         network.input.size, " pixels with ImageNet's mean and deviation");
  if (o.compute.device == "cpu")
    require_memory_of(network.model.config(), 1, network.input.size,
                      "\"size\" in the weights' \"input\"");
  const Placement at = o.compute.placement();
  place(network.model, at, true);
  const i64 classes = classes_of(network.model.config()), top = std::min(o.top, classes);
  const NoGrad not_recorded;
  Json all = Json::array();
  EachImage each("predict");
  if (formats.csv) print_csv({"image", "rank", "class", "name", "probability"});
  for (const auto& [path, unused] : predict_inputs(o.images)) {
    Tensor input;
    if (!each.read(path, all, [&] {
          input = network_input(read_image(path, {.orient = !o.no_exif}), network.input);
        }))
      continue;
    const Tensor logits = network.model.forward(at(input));  // (1,classes)
    const std::vector<double> probability = softmax(logits.to(Device::cpu)).to_vector<double>();
    std::vector<i64> order(static_cast<std::size_t>(classes));
    std::iota(order.begin(), order.end(), i64{0});
    std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) {
      return probability[static_cast<std::size_t>(a)] > probability[static_cast<std::size_t>(b)];
    });
    Json best = Json::array();
    if (formats.text()) std::printf("%s\n", shown_name(path).c_str());
    for (i64 k = 0; k < top; ++k) {
      const i64 c = order[static_cast<std::size_t>(k)];
      const std::string name = shown_name(network.input.class_name(c));
      if (formats.json)
        best.push_back({{"class", c},
                        {"name", name},
                        {"probability", probability[static_cast<std::size_t>(c)]}});
      if (formats.csv)
        print_csv({shown_name(path), str(k + 1), str(c), name,
                   csv_number(probability[static_cast<std::size_t>(c)])});
      if (formats.text())
        std::printf("  %6.2f %%  %s\n", 100 * probability[static_cast<std::size_t>(c)],
                    name.c_str());
    }
    all.push_back({{"image", shown_name(path)}, {"top", best}});
  }
  if (formats.json) print_json(all);
  each.end();
}

inline void add_predict(CLI::App& app) {
  auto o = std::make_shared<PredictCommand>();
  auto detect = std::make_shared<DensePredictCommand>();
  auto task = std::make_shared<std::string>("classify");
  auto* c = app.add_subcommand("predict", "Names what is on images, or finds it");
  add_task(*c, *task, o->network,
           "classify: name the image; segment: name every pixel; detect: find objects. ");
  const char *const both = "With --task segment and detect", *const segment = "With --task segment";
  c->add_option("--out", detect->out, "folder for pictures and results")
      ->check(some_text())
      ->capture_default_str()
      ->group(both);
  c->add_option("--gt", detect->gt,
                "COCO annotations, of which results take the images' numbers, by file name, and "
                "the classes'; images are then read as stored (--no-exif), as annotations count "
                "pixels; default: numbers from 1")
      ->check(CLI::ExistingFile)
      ->group(both);
  c->add_option("--classes", detect->classes,
                "file with the classes' names, one a line; default: what the weights file says")
      ->check(CLI::ExistingFile)
      ->group(both);
  c->add_option("--longer", detect->longer,
                "images: longer side at most; default: as in training, or as published")
      ->check(in_range(i64{1}, most_size))
      ->group(both);
  c->add_option("--shorter", detect->shorter,
                "images: shorter side, with the aspect kept; the same")
      ->check(in_range(i64{1}, most_size))
      ->group(both);
  c->add_option("--least-score", detect->least_score, "what is shown")
      ->check(in_range(0.0, 1.0))
      ->capture_default_str()
      ->group("With --task detect");
  c->add_option("--crop", detect->crop,
                "side of windows that slide over the image; 0: the image at once")
      ->check(in_range(i64{0}, i64{8192}))
      ->capture_default_str()
      ->group(segment);
  c->add_option("--stride", detect->stride, "from one window to the next; 0: two thirds of --crop")
      ->check(in_range(i64{0}, i64{8192}))
      ->capture_default_str()
      ->group(segment);
  c->add_option("--scales", detect->scales, "sizes whose results are averaged, such as 0.75,1,1.25")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(in_range(0.1, 4.0))
      ->group(segment);
  c->add_flag("--flip", detect->flip, "each size also flipped")->group(segment);
  add_no_exif(*c, o->no_exif);
  c->add_option(
       "IMAGE", o->images,
       "PNG, JPEG, BMP, PPM or PGM files, folders with all images below them (such as a video's "
       "frames), or patterns in quotes: 'DIR/**/*.jpg', 'a{1..9}.png'; one that cannot be read is "
       "named, and the others go on")
      ->required();
  add_network(*c, o->network);
  c->add_option("--top", o->top, "how many classes to name")
      ->check(in_range(i64{1}, i64{1000000}))
      ->capture_default_str()
      ->group("With --task classify");
  add_compute(*c, o->compute);
  add_threads(*c);
  c->add_flag("--json", o->json, "a JSON list instead of text");
  add_format(*c, o->formats);
  c->callback([o, detect, task, c] {
    refuse_others(*c, *task);
    const PredictFormats formats = PredictFormats::of(o->formats, o->json, *task);
    if (*task == "classify") return predict(*o, formats);
    detect->compute = o->compute, detect->network = o->network,
    detect->images = predict_inputs(o->images), detect->formats = formats,
    detect->no_exif = o->no_exif;
    *task == "segment" ? predict_segment(*detect) : predict_detect(*detect);
  });
}

}  // namespace tool
