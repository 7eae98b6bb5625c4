#pragma once
// ppma train: options of all tasks, and which of them is trained (training_shown.hpp).

#include <filesystem>
#include <functional>
#include <memory>

#include "data.hpp"
#include "dense_network.hpp"
#include "ppma/train/run_folder.hpp"
#include "recipes.hpp"
#include "short_help.hpp"
#include "training_options.hpp"
#include "training_shown.hpp"

namespace tool {

/// What --task segment and --task detect take beside the options that they share with the
/// classifier; returns a function that puts the shared ones into both, which keep their own
/// defaults where an option is not given.
inline std::function<void(const ClassifierTraining&)> add_dense_options(CLI::App& app,
                                                                        SegmentorTraining& segment,
                                                                        DetectorTraining& detect) {
  DenseTraining::Shared::fields(detect, AddFields(app, "With --task segment and detect"));
  DetectorTraining::Own::fields(detect, AddFields(app, "With --task detect"));
  app.add_option(
         "--head", segment.head,
         "upernet, or semantic_fpn, which is light; default: what --segmentor says, else upernet")
      ->check(CLI::IsMember(SegmentationHeads::names()))
      ->group("With --task segment");
  SegmentorTraining::Own::fields(segment, AddFields(app, "With --task segment"));
  return [&app, &segment, &detect](const ClassifierTraining& o) {
    const bool shapes = o.data.kind == "shapes";
    for (const char* name : {"--images", "--test-images", "--size"})
      check(shapes || app.count(name) == 0, name, " is for --data shapes");
    for (const char* name : {"--longer", "--shorter"})
      check(!shapes || o.task != "detect" || app.count(name) == 0, name,
            " is for --data coco, voc and yolo; images of shapes have --size pixels");
    take_given<DenseTraining::Shared>(app, detect, segment);
    for (DenseTraining* d : std::initializer_list<DenseTraining*>{&segment, &detect}) {
      take_given<TrainingOptions>(app, o, *d);
      take_given<TrainingOptions::OfCall>(app, o, *d);
      d->data.workers = o.data.workers, d->network = o.network, d->compute = o.compute,
      d->resume = o.resume;
    }
  };
}

inline void add_train(CLI::App& app) {
  auto o = std::make_shared<ClassifierTraining>();
  auto segment = std::make_shared<SegmentorTraining>();
  auto detect = std::make_shared<DetectorTraining>();
  auto named = std::make_shared<std::string>();  // the recipe
  auto per_class = std::make_shared<bool>(false);
  auto* c = app.add_subcommand("train", "Trains a network on images");
  add_task(*c, o->task, o->network, "what to learn: to classify, segment or detect. ");
  add_data(*c, o->data, true);
  c->get_option("--no-exif")->group("With --task classify");
  add_network(*c, o->network);
  c->get_option("--model")->description(c->get_option("--model")->get_description() +
                                        " [ppma_nano]");
  c->get_option("--config")
      ->description(
          "a network's configuration as JSON; or a run's options, as its train.json, which repeats "
          "the run: other options count more");
  c->add_option("--recipe", *named,
                "options under one name, beside which others count more; " + recipes_help())
      ->check(accepted_by([](const std::string& name) { recipe(name); }));
  TrainingOptions::OfCall::fields(*o, AddFields(*c));
  c->add_flag(
      "--per-class", *per_class,
      "print figures of all classes, not of the five worst; to segment and detect all of up "
      "to 20 are");
  c->add_option(
       "--resume", o->resume,
       "continue the run in this folder, with its options; --data-dir: where its data are now")
      ->check(CLI::ExistingDirectory)
      ->check(some_text());
  TrainingOptions::fields(*o, AddFields(*c));
  ClassifierTraining::Own::fields(*o, AddFields(*c, "With --task classify"));
  add_compute(*c, o->compute);
  add_threads(*c);
  const auto take_shared = add_dense_options(*c, *segment, *detect);
  group_options(*c, "Images",
                {"--data", "--data-dir", "--workers", "--size", "--images", "--test-images",
                 "--question", "--difficulty", "--fraction", "--no-flip"});
  group_options(*c, "Network",
                {"--weights", "--entry", "--config", "--model", "--mask", "--mixer", "--drop-path",
                 "--checkpoint-blocks", "--freeze"});
  group_options(
      *c, "Optimiser",
      {"--batch", "--accumulate", "--lr", "--schedule", "--steps", "--final-lr", "--optimizer",
       "--beta2", "--momentum", "--nesterov", "--weight-decay", "--clip", "--ema", "--ema-plain"});
  shorten_help(*c, {"--task", "--data", "--data-dir", "--weights", "--model", "--config",
                    "--recipe", "--mask", "--out", "--resume", "--size", "--epochs", "--batch",
                    "--lr", "--seed", "--device", "--threads"});
  c->callback([o, c, detect, segment, named, per_class, take_shared] {
    if (!o->resume.empty())
      for (const CLI::Option* option : c->get_options()) {
        const std::string name = option->get_name();
        check(option->count() == 0 || name == "--resume" || name == "--threads" ||
                  name == "--workers" || name == "--stop-after" || name == "--device" ||
                  name == "--data-dir" || name == "--per-class" || name == "--time-limit" ||
                  name == "--save-every-minutes",
              "--resume continues with the run's own options; leave out ", name);
      }
    const std::optional<Launch> launch = launch_from_environment();
    std::vector<Communicator> processes;
    if (!o->resume.empty()) {  // so that train.json is of the run that is there
      processes = other_processes(launch, o->compute.placement(true).device);
      first_alone(processes, [&] { RunFolder(o->resume, RunFolder::Start::resume); });
    }
    if (const std::string path = o->resume + "/train.json"; !o->resume.empty())
      read_member(parse_json(read_text(path), path), "task", path, o->task);
    check(o->task == "classify" || o->task == "segment" || o->task == "detect", o->resume,
          "/train.json: there is no task \"", o->task, "\"");
    std::string file = o->network.config;
    std::optional<Json> told = run_options(file);
    const bool of_a_run = told.has_value();
    if (!named->empty()) {
      const Recipe& taken = recipe(*named);
      check(!of_a_run, "--recipe ", *named, ": ", file,
            " has a run's options already; leave one out");
      check(taken.model != nullptr || !o->network.weights.empty(), "--recipe ", *named,
            " is for --weights, with which training begins");
      if (o->network.config.empty() && o->network.model.empty() && o->network.weights.empty())
        o->network.model = taken.model;
      file = "--recipe " + *named;
      told = taken.options;
      (*told)["task"] = taken.task;
    }
    if (of_a_run) {  // the network of that run lies beside it
      const std::string beside =
          (std::filesystem::path(file).parent_path() / "config.json").string();
      o->network.config = std::filesystem::exists(beside) ? beside : "";
    }
    if (told) {
      std::string task = o->task;
      read_member(*told, "task", file, task);
      check(c->count("--task") == 0 || task == o->task, file, ": its task is ", task, ", not ",
            o->task);
      o->task = task;
    }
    refuse_others(*c, o->task);
    if (told && o->task == "classify") take_run(*c, *told, file, *o);
    if (o->resume.empty() && !of_a_run) refuse_other_data(*c, o->data.kind);
    if (o->resume.empty()) processes = other_processes(launch, o->compute.placement(true).device);
    if (o->task == "classify") {
      train(*o, processes, *per_class);
      return;
    }
    take_shared(*o);
    if (told && o->task == "segment") take_run(*c, *told, file, *segment);
    if (told && o->task == "detect") take_run(*c, *told, file, *detect);
    o->task == "segment" ? train(*segment, processes, *per_class)
                         : train(*detect, processes, *per_class);
  });
}

}  // namespace tool
