#pragma once
// ppma eval and ppma predict: a trained network on a test set, or on image files.

#include <chrono>
#include <memory>
#include <numeric>

#include "data.hpp"
#include "detect.hpp"
#include "segment.hpp"

namespace tool {

struct EvalCommand {
  NetworkOptions network;
  DataOptions data;
  ComputeOptions compute;
  i64 batch = 64;
  bool json = false;
};

inline void eval(EvalCommand o) {
  check(!o.network.weights.empty(), "eval: needs --weights");
  WeightsFile file = read_weights(o.network.weights, o.network.entry);
  if (const auto it = file.metadata.find("data"); o.data.kind.empty() && it != file.metadata.end()) {
    DataOptions trained = DataOptions::from_json(parse_json(it->second, o.network.weights + ": data"), o.network.weights + ": data");
    trained.workers = o.data.workers;
    if (!o.data.folder.empty()) trained.folder = o.data.folder;
    if (o.data.size > 0) trained.size = o.data.size;
    trained.no_exif = trained.no_exif || o.data.no_exif;
    o.data = trained;
  }
  check(!o.data.kind.empty(), "eval: the weights do not say what they were trained on; give --data");
  Network network = load_network(o.network);
  const Placement at = o.compute.placement();
  place(network.model, at, true);
  Data data = make_data(o.data, 0);
  check(data.test.classes() == network.model.config.num_classes, "eval: the network tells ",
        network.model.config.num_classes, " classes apart, ", data.test.name, " has ", data.test.classes());
  Loader loader(data.test, test_loading(data, o.batch, o.data.workers));
  const auto begin = std::chrono::steady_clock::now();
  const Evaluation e = evaluate(network.model, batches_of(loader), {}, at);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (o.json) {
    Json j;
    j["data"] = data.test.name;
    j["images"] = e.images;
    j["loss"] = e.loss;
    j["acc1"] = e.acc1;
    j["acc5"] = e.acc5;
    j["images_per_s"] = rounded(static_cast<double>(e.images) / seconds, 0.1);
    return print_json(j);
  }
  std::printf("%s: %s images, loss %.4f, top-1 %.2f %%, top-5 %.2f %%, %.0f images/s\n", data.test.name.c_str(),
              grouped_digits(e.images).c_str(), e.loss, e.acc1, e.acc5, static_cast<double>(e.images) / seconds);
}

inline void add_eval(CLI::App& app) {
  auto o = std::make_shared<EvalCommand>();
  auto* c = app.add_subcommand("eval", "Loss and accuracy of a trained network on a test set");
  add_network(*c, o->network);
  add_data(*c, o->data);
  c->get_option("--data")->description(c->get_option("--data")->get_description() +
                                       "; default: what it was trained on");
  c->add_option("--batch", o->batch, "images at a time")->check(CLI::PositiveNumber)->capture_default_str();
  add_compute(*c, o->compute);
  add_threads(*c);
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { eval(*o); });
}

struct PredictCommand {
  NetworkOptions network;
  ComputeOptions compute;
  std::vector<std::string> images;
  i64 top = 5;
  bool json = false, no_exif = false;
};

inline void predict(const PredictCommand& o) {
  check(!o.network.weights.empty(), "predict: needs --weights");
  Network network = load_network(o.network);
  const Placement at = o.compute.placement();
  place(network.model, at, true);
  const i64 classes = network.model.config.num_classes, top = std::min(o.top, classes);
  const NoGrad not_recorded;
  Json all = Json::array();
  for (const std::string& path : o.images) {
    const Tensor logits = network.model.forward(at(network_input(read_image(path, {.orient = !o.no_exif}), network.input)));  // (1,classes)
    const std::vector<double> probability = softmax(logits.to(Device::cpu)).to_vector<double>();
    std::vector<i64> order(static_cast<std::size_t>(classes));
    std::iota(order.begin(), order.end(), i64{0});
    std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) {
      return probability[static_cast<std::size_t>(a)] > probability[static_cast<std::size_t>(b)];
    });
    Json best = Json::array();
    if (!o.json) std::printf("%s\n", path.c_str());
    for (i64 k = 0; k < top; ++k) {
      const i64 c = order[static_cast<std::size_t>(k)];
      if (o.json)
        best.push_back({{"class", c}, {"name", network.input.class_name(c)}, {"probability", probability[static_cast<std::size_t>(c)]}});
      else
        std::printf("  %6.2f %%  %s\n", 100 * probability[static_cast<std::size_t>(c)], network.input.class_name(c).c_str());
    }
    all.push_back({{"image", path}, {"top", best}});
  }
  if (o.json) print_json(all);
}

inline void add_predict(CLI::App& app) {
  auto o = std::make_shared<PredictCommand>();
  auto detect = std::make_shared<DensePredictCommand>();
  auto task = std::make_shared<std::string>("classify");
  auto* c = app.add_subcommand("predict", "Names what is on images, or finds it");
  add_task(*c, *task, o->network, "classify: name the image; segment: name every pixel; detect: find objects. ");
  const char *const both = "With --task segment and detect", *const segment = "With --task segment";
  c->add_option("--out", detect->out, "folder for pictures and results")->capture_default_str()->group(both);
  c->add_option("--gt", detect->gt, "COCO annotations, of which results take the images' numbers, by file name, and the classes'; images are then read as stored (--no-exif), as annotations count pixels; default: numbers from 1")->check(CLI::ExistingFile)->group(both);
  c->add_option("--classes", detect->classes, "file with the classes' names, one a line; default: what the weights file says")->check(CLI::ExistingFile)->group(both);
  c->add_option("--longer", detect->longer, "images: longer side at most; default: as in training, or as published")->check(CLI::PositiveNumber)->group(both);
  c->add_option("--shorter", detect->shorter, "images: shorter side, with the aspect kept; the same")->check(CLI::PositiveNumber)->group(both);
  c->add_option("--least-score", detect->least_score, "what is shown")->check(CLI::Range(0.0, 1.0))->capture_default_str()->group("With --task detect");
  c->add_option("--crop", detect->crop, "side of windows that slide over the image; 0: the image at once")->check(CLI::Range(0, 8192))->capture_default_str()->group(segment);
  c->add_option("--stride", detect->stride, "from one window to the next; 0: two thirds of --crop")->check(CLI::Range(0, 8192))->capture_default_str()->group(segment);
  c->add_option("--scales", detect->scales, "sizes whose results are averaged, such as 0.75,1,1.25")->delimiter(',')->check(CLI::Range(0.1, 4.0))->group(segment);
  c->add_flag("--flip", detect->flip, "each size also flipped")->group(segment);
  add_no_exif(*c, o->no_exif);
  c->add_option("IMAGE", o->images, "PNG, JPEG, BMP, PPM or PGM files")->required()->check(CLI::ExistingFile);
  add_network(*c, o->network);
  c->add_option("--top", o->top, "how many classes to name")->check(CLI::PositiveNumber)->capture_default_str()->group("With --task classify");
  add_compute(*c, o->compute);
  add_threads(*c);
  c->add_flag("--json", o->json, "a JSON list instead of text");
  c->callback([o, detect, task, c] {
    refuse_others(*c, *task);
    if (*task == "classify") return predict(*o);
    detect->compute = o->compute, detect->network = o->network, detect->images = o->images, detect->json = o->json, detect->no_exif = o->no_exif;
    *task == "segment" ? predict_segment(*detect) : predict_detect(*detect);
  });
}

}  // namespace tool
