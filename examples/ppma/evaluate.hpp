#pragma once
// ppma eval: a trained network on a test set.

#include <memory>

#include "class_table.hpp"
#include "data.hpp"
#include "ppma/commands/evaluate.hpp"

namespace tool {

struct EvalCommand : EvaluationOptions {
  std::string confusion;  // file of the picture; "": none
  bool json = false, per_class = false;
};

/// Refuses options that say nothing about the data that are tested on.
class TestedData : public EvaluationObserver {
 public:
  explicit TestedData(const CLI::App& app) : app_(app) {}

  void note(const std::string& text) override { tool::note(text); }
  void tested(const DataOptions& data) override { refuse_other_data(app_, data.kind); }

 private:
  const CLI::App& app_;
};

inline void eval(const EvalCommand& o, const CLI::App& app) {
  TestedData observer(app);
  const ClassifierEvaluation e = evaluate_classifier(o, observer);
  const std::vector<std::string> names = shown_classes(e.classes);
  const std::string tested_on = shown_name(e.set);
  const double rate = static_cast<double>(e.images) / e.seconds;
  if (o.json) {
    Json j;
    j["data"] = tested_on;
    j["images"] = e.images;
    j["loss"] = e.loss;
    j["acc1"] = e.acc1;
    j["acc5"] = e.acc5;
    if (e.unknown_images > 0)
      j["unknown_classes"] = e.unknown_classes, j["unknown_images"] = e.unknown_images;
    j["images_per_s"] = rounded(rate, 0.1);
    put_confusion(j, e.confusion, names);
    print_json(j);
  } else {
    std::printf("%s: %s images, loss %.4f, top-1 %.2f %%, top-5 %.2f %%, %.0f images/s\n",
                tested_on.c_str(), grouped_digits(e.images).c_str(), e.loss, e.acc1, e.acc5, rate);
    print_confusion(e.confusion, names, o.per_class);
  }
  // Last: the figures are there where it cannot be written.
  if (!o.confusion.empty()) draw_confusion(o.confusion, e);
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
  c->callback([o, c] {
    if (c->count("--test-images") > 0) o->test_images = o->data.test_images;
    eval(*o, *c);
  });
}

}  // namespace tool
