#pragma once
// ppma train: a network from images to a run folder (training_run.hpp), which also holds
//
//   OUT/curve.png            losses and accuracies

#include <sys/stat.h>

#include <functional>
#include <memory>

#include "data.hpp"
#include "detect.hpp"
#include "ppma/io/image.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/train/classification.hpp"
#include "ppma/train/trainer.hpp"
#include "ppma/vis/curve.hpp"
#include "progress.hpp"
#include "segment.hpp"
#include "training_run.hpp"

namespace tool {

/// The defaults are for ppma_nano on `shapes`: about 95 % after a minute or two on two cores.
struct TrainCommand {
  NetworkOptions network;
  ComputeOptions compute;
  DataOptions data;
  std::string task = "classify", out = "runs/train", resume;
  bool overwrite = false;
  i64 epochs = 6, batch = 16, accumulate = 1, evaluate_every = 1, stop_after = 0;
  u64 seed = 0;
  double lr = 2e-3, final_lr = 1e-5, warmup = 0.3, weight_decay = 0.05, label_smoothing = 0,
         clip = 1, ema = 0.99, drop_path = -1, beta2 = 0.98, mixup = 0, cutmix = 0, erasing = 0;
  bool rate_per_epoch = false, checkpoint_blocks = false;

  // Calls f(key, value) for all that a resumed run must keep.
  template <class F>
  void each(F f) {
    f("epochs", epochs), f("batch", batch), f("accumulate", accumulate),
        f("evaluate_every", evaluate_every), f("seed", seed);
    f("lr", lr), f("final_lr", final_lr), f("warmup", warmup), f("weight_decay", weight_decay);
    f("label_smoothing", label_smoothing), f("clip", clip), f("ema", ema), f("beta2", beta2);
    f("dtype", compute.dtype), f("mixup", mixup), f("cutmix", cutmix), f("erasing", erasing),
        f("rate_per_epoch", rate_per_epoch), f("checkpoint_blocks", checkpoint_blocks);
  }
  Json to_json() {
    Json j = data.to_json();
    each([&](const char* key, const auto& value) { j[key] = value; });
    return j;
  }
  void read_json(const std::string& path) {
    const Json j = parse_json(read_text(path), path);
    const i64 workers = data.workers;
    data = DataOptions::from_json(j, path);
    data.workers = workers;
    each([&](const char* key, auto& value) { read_member(j, key, path, value); });
  }
};

/// Accuracies above losses, over epochs.
inline void draw_curves(const std::string& path, const std::vector<ClassifierRecord>& log) {
  Series acc1{"top-1", {}, {}}, ema1{"averaged", {}, {}}, train_loss{"training", {}, {}},
      test_loss{"test", {}, {}};
  for (const ClassifierRecord& r : log) {
    const double epoch = static_cast<double>(r.epoch + 1);
    const auto add = [&](Series& s, double y) { s.x.push_back(epoch), s.y.push_back(y); };
    add(train_loss, r.train_loss);
    if (r.test) add(acc1, r.test->acc1), add(test_loss, r.test->loss);
    if (r.test_ema) add(ema1, r.test_ema->acc1);
  }
  std::vector<Series> accuracies, losses{train_loss};
  if (!acc1.x.empty()) accuracies.push_back(acc1), losses.push_back(test_loss);
  if (!ema1.x.empty()) accuracies.push_back(ema1);
  const Picture below =
      curves(losses, {.title = "Loss", .x_label = "epoch", .y_label = "cross entropy"});
  if (accuracies.empty()) return write_png(path, below.image());
  const Picture above = curves(
      accuracies, {.title = "Accuracy on the test images", .x_label = "epoch", .y_label = "%"});
  Picture sheet(above.width(), above.height() + below.height());
  sheet.paste(0, 0, above.image());
  sheet.paste(0, above.height(), below.image());
  write_png(path, sheet.image());
}

/// Brings the head of `initial`, which knows what `known` says, to the classes of `data`: its rows
/// by the classes' names, or none, so that training begins with a new head. Says which it was.
inline std::string take_head(WeightsFile& initial, const std::optional<InputInfo>& known,
                             const Data& data, const std::string& where) {
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

/// `processes`: those that train with this one, if any (other_processes()).
inline void train(TrainCommand o, const std::vector<Communicator>& processes) {
  if (!o.resume.empty()) o.out = o.resume;
  TrainingRun run(o, processes);
  const i64 ranks = run.part().ranks;
  if (run.resumed()) {
    const std::string moved = o.data.folder;
    o.read_json(o.out + "/train.json");
    o.network = {};
    o.network.config = o.out + "/config.json";
    take_moved_data(moved, o.data.folder, o.out);
  }

  WeightsFile initial;
  if (!o.network.weights.empty()) initial = read_weights(o.network.weights, o.network.entry);
  const std::optional<InputInfo> known = InputInfo::of(initial.metadata, o.network.weights);
  const Data data = at_its_place(o, o.data.folder, [&] {
    if (!run.resumed()) return make_data(o.data, o.seed, true, known);
    const auto had = InputInfo::of(read_safetensors(run.last()).metadata, run.last());
    Data d = make_data(o.data, o.seed, true, had);
    if (had) check_classes_of_run(o.out, *had, d.input);
    return d;
  });
  PpmaConfig config = network_config(o.network, {}, "ppma_nano");
  config.num_classes = data.train.classes();
  if (o.drop_path >= 0) config.drop_path_rate = o.drop_path;
  if (o.data.kind == "shapes")
    require_bytes(3.0 * static_cast<double>(data.test.size) *
                      static_cast<double>(data.input.size * data.input.size),
                  str("a set of ", data.test.size, " test images of ", data.input.size, " pixels"),
                  "choose a smaller --test-images or --size");
  if (o.compute.device == "cpu")
    require_memory({config, (std::min(o.batch, data.train.size) + ranks - 1) / ranks,
                    data.input.size, data.input.size, true, o.checkpoint_blocks},
                   "--batch or --size");
  Ppma model(config, o.seed);
  if (!initial.tensors.empty()) {
    if (run.speaks() && known)
      note("images as ", o.network.weights, " says: ", data.input.size, " pixels, ",
           100 * data.input.crop, " % of the shorter side, its mean and deviation");
    const std::string head = take_head(initial, known, data, o.network.weights);
    if (run.speaks()) note("head: ", head);
    const bool has_head = find(initial.tensors, "head.weight") != nullptr;
    load_state_dict(
        model, initial.tensors,
        {.strict = true,
         .ignore = has_head ? std::vector<std::string>{} : std::vector<std::string>{"head."}});
  }

  TrainOptions options;
  options.at = o.compute.placement();
  place(model, options.at);
  options.epochs = o.epochs;
  options.accumulate = o.accumulate;
  options.clip = o.clip;
  options.rules = no_decay_rules(o.weight_decay);
  options.optimizer = AdamWOptions{.beta2 = o.beta2};
  const WarmupCosine schedule{.peak = o.lr,
                              .warmup = o.warmup,
                              .total = static_cast<double>(o.epochs),
                              .start = 1e-6,
                              .final = o.final_lr};
  if (o.rate_per_epoch)
    options.rate = [schedule](const Moment& m) { return schedule.published_epoch(m.epoch); };
  else
    options.rate = schedule;
  options.checkpoint_blocks = o.checkpoint_blocks;
  options.ema_decay = o.ema;
  options.evaluate_every = o.evaluate_every;
  options.seed = o.seed;
  options.processes = processes;

  ImageLoading loading;
  loading.batch = std::min(o.batch, data.train.size / ranks * ranks);
  loading.part = run.part();
  loading.seed = o.seed;
  loading.transform = data.augment;
  loading.normalization = data.input.normalization;
  loading.erasing.probability = o.erasing;
  loading.mix = {.mixup = o.mixup, .cutmix = o.cutmix, .smoothing = o.label_smoothing};
  ImageLoading testing = test_loading(data, std::max<i64>(o.batch, 64 * ranks));
  testing.part = run.part();
  const StreamOptions made{.workers = o.data.workers};
  BatchStream<Batch> batches(image_batches(data.train, loading), made),
      test(image_batches(o.data.kind == "shapes" ? in_memory(data.test) : data.test, testing),
           made);

  ClassificationTask<Ppma> task(model, test, o.label_smoothing);
  Trainer<ClassificationTask<Ppma>> trainer(task, options);
  run.begin(trainer, {.about = {{"config", config_to_json(config).dump()},
                                {"input", data.input.to_json().dump()},
                                {"data", o.data.to_json().dump()}},
                      .options = o.to_json(),
                      .network = config_to_json(config),
                      .training_images = data.train.size,
                      .test_images = data.test.size,
                      .epochs = o.epochs,
                      .stop = o.stop_after > 0 ? std::min(o.stop_after, o.epochs) : o.epochs,
                      .figure = "acc1",
                      .key = "test_acc1",
                      .averaged_key = "test_ema_acc1"});
  const auto draw = [&] {
    draw_curves(run.folder().path("curve.png"), read_log(run.folder().path("log.jsonl")));
  };
  if (run.speaks()) {
    if (!run.folder().records().empty()) draw();
    std::printf(
        "%s, mask %s, %s parameters; %s: %s training and %s test images of %lld pixels, %lld "
        "classes\n",
        config.name.c_str(), to_string(config.mask).c_str(),
        grouped_digits(parameter_count(model)).c_str(), data.train.name.c_str(),
        grouped_digits(data.train.size).c_str(), grouped_digits(data.test.size).c_str(),
        static_cast<long long>(data.input.size), static_cast<long long>(config.num_classes));
    std::printf("%s%lld threads, run folder %s%s\n",
                ranks > 1 ? str(ranks, " processes of ").c_str() : "",
                static_cast<long long>(threads()), o.out.c_str(),
                run.resumed() ? str(", resumed after epoch ", trainer.epoch()).c_str() : "");
    std::fflush(stdout);
  }

  Progress progress(trainer.epoch(), o.epochs);
  run.train(
      trainer, batches,
      {.on_batch = [&](const StepReport& r) { progress.batch(r); },
       .on_evaluation = [&](i64 done, i64 all) { progress.evaluation(done, all); }},
      [](const ClassifierRecord& r) { return Json::parse(to_json(r)); },
      [&](const ClassifierRecord& r, bool is_best) {
        draw();
        progress.epoch(r, is_best);
      });
  if (!run.speaks() || run.folder().best() < 0) return;  // nothing was evaluated yet
  std::printf("best accuracy %.2f %% on %s test images: %s\n", run.folder().best(),
              grouped_digits(data.test.size).c_str(),
              run.folder().path("best.safetensors").c_str());
}

/// What --task segment and --task detect take beside the options that they share with the
/// classifier; returns a function that puts the shared ones into both, which keep their own
/// defaults where an option is not given.
inline std::function<void(const TrainCommand&)> add_dense_options(CLI::App& app,
                                                                  SegmentCommand& segment,
                                                                  DetectCommand& detect) {
  const char* const both = "With --task segment and detect";
  for (const char* name : {"--no-exif", "--final-lr", "--warmup", "--rate-per-epoch", "--beta2",
                           "--label-smoothing", "--mixup", "--cutmix", "--erasing"})
    app.get_option(name)->group("With --task classify");
  const auto number = [&app](const char* group, const char* name, auto& value, const char* text,
                             CLI::Validator range) {
    app.add_option(name, value, text)->capture_default_str()->group(group)->check(std::move(range));
  };
  number(both, "--longer", detect.longer, "images: longer side at most; segment: the first image's",
         in_range(i64{1}, most_size));
  number(both, "--shorter", detect.shorter,
         "images: shorter side, with the aspect kept; segment: the first image's",
         in_range(i64{1}, most_size));
  number(both, "--warmup-iterations", detect.warmup_iterations, "iterations of linear warm-up",
         in_range(i64{0}, i64{1000000000}));
  app.add_flag("--freeze-backbone", detect.freeze_backbone, "train the heads alone")->group(both);
  number("With --task detect", "--steps", detect.steps,
         "epochs after which the rate falls to a tenth; default: 8 and 11 of 12, 27 and 33 of 36, "
         "none of fewer than 4",
         in_range(i64{1}, most_epochs));
  app.add_flag("--boxes-only", detect.boxes_only, "no mask head (Faster R-CNN)")
      ->group("With --task detect");
  app.add_flag("--multi-scale", detect.multi_scale,
               "the 3x schedule's augmentation: shorter sides of 0.6 to 1 --shorter, half of the "
               "images cropped")
      ->group("With --task detect");
  app.add_option(
         "--head", segment.head,
         "upernet, or semantic_fpn, which is light; default: what --segmentor says, else upernet")
      ->check(CLI::IsMember({"upernet", "semantic_fpn"}))
      ->group("With --task segment");
  number("With --task segment", "--crop", segment.crop,
         "side of the crops that are learnt from; 0: the shorter side",
         in_range(least_size, most_size, {0}));
  number("With --task segment", "--least-factor", segment.least_factor,
         "images are resized by a random factor from this", in_range(0.01, 100.0));
  number("With --task segment", "--most-factor", segment.most_factor, "to this",
         in_range(0.01, 100.0));
  return [&app, &segment, &detect](const TrainCommand& o) {
    const auto take = [&app](const char* name, auto& into, const auto& value) {
      if (app.count(name) > 0) into = value;
    };
    const bool shapes = app.count("--data") == 0 || o.data.kind == "shapes";
    for (const char* name : {"--images", "--test-images", "--size"})
      check(shapes || app.count(name) == 0, name, " is for --data shapes");
    for (const char* name : {"--longer", "--shorter"})
      check(!shapes || o.task != "detect" || app.count(name) == 0, name,
            " is for --data coco; images of shapes have --size pixels");
    for (DenseTraining* d :
         {static_cast<DenseTraining*>(&segment), static_cast<DenseTraining*>(&detect)}) {
      take("--data", d->data, o.data.kind), take("--data-dir", d->folder, o.data.folder),
          take("--images", d->images, o.data.images);
      take("--test-images", d->test_images, o.data.test_images),
          take("--size", d->size, o.data.size), take("--out", d->out, o.out);
      take("--epochs", d->epochs, o.epochs), take("--batch", d->batch, o.batch),
          take("--stop-after", d->stop_after, o.stop_after);
      take("--evaluate-every", d->evaluate_every, o.evaluate_every), take("--lr", d->lr, o.lr),
          take("--clip", d->clip, o.clip);
      take("--accumulate", d->accumulate, o.accumulate), take("--ema", d->ema, o.ema);
      d->workers = o.data.workers;
      take("--weight-decay", d->weight_decay, o.weight_decay), take("--seed", d->seed, o.seed);
      take("--longer", d->longer, detect.longer), take("--shorter", d->shorter, detect.shorter);
      take("--warmup-iterations", d->warmup_iterations, detect.warmup_iterations);
      d->checkpoint_blocks = o.checkpoint_blocks, d->freeze_backbone = detect.freeze_backbone;
      d->network = o.network, d->drop_path = o.drop_path, d->compute = o.compute,
      d->resume = o.resume, d->overwrite = o.overwrite;
    }
  };
}

inline void add_train(CLI::App& app) {
  auto o = std::make_shared<TrainCommand>();
  auto segment = std::make_shared<SegmentCommand>();
  auto detect = std::make_shared<DetectCommand>();
  auto* c = app.add_subcommand("train", "Trains a network on images");
  add_task(*c, o->task, o->network, "what to learn: to classify, segment or detect. ");
  o->data.kind = "shapes";
  add_data(*c, o->data, true);
  add_network(*c, o->network);
  c->get_option("--model")->description(c->get_option("--model")->get_description() +
                                        " [ppma_nano]");
  const auto number = [c](const char* name, auto& value, const char* text, CLI::Validator range) {
    c->add_option(name, value, text)->capture_default_str()->check(std::move(range));
  };
  number("--out", o->out, "run folder", some_text());
  c->add_flag("--overwrite", o->overwrite, "start anew in a run folder that holds a run");
  c->add_option(
       "--resume", o->resume,
       "continue the run in this folder, with its options; --data-dir: where its data are now")
      ->check(CLI::ExistingDirectory)
      ->check(some_text());
  const CLI::Validator a_rate = in_range(0.0, 1e6), a_share = in_range(0.0, 1.0),
                       below_one = in_range(0.0, 0.9999999);
  number("--epochs", o->epochs, "passes over the training images", in_range(i64{1}, most_epochs));
  number("--stop-after", o->stop_after, "stop after so many epochs, to be resumed; 0: do all",
         in_range(i64{0}, most_epochs));
  number("--batch", o->batch, "images a batch", in_range(i64{1}, most_batch));
  number("--accumulate", o->accumulate, "batches a step", in_range(i64{1}, most_batch));
  number("--lr", o->lr, "peak learning rate", a_rate);
  number("--final-lr", o->final_lr, "learning rate at the end of the cosine", a_rate);
  number("--warmup", o->warmup, "epochs of linear warm-up",
         in_range(0.0, static_cast<double>(most_epochs)));
  c->add_flag("--rate-per-epoch", o->rate_per_epoch,
              "change the learning rate once an epoch, as the published runs");
  c->add_flag("--checkpoint-blocks", o->checkpoint_blocks,
              "compute the blocks again in backward instead of keeping their results: less memory, "
              "more time");
  number("--weight-decay", o->weight_decay, "AdamW's weight decay", in_range(0.0, 100.0));
  number("--beta2", o->beta2, "AdamW's second momentum", below_one);
  number("--clip", o->clip, "limit of the gradients' norm; 0: none", in_range(0.0, 1e9));
  number("--label-smoothing", o->label_smoothing, "share of the target that all classes get",
         a_share);
  number("--drop-path", o->drop_path, "drop path of the last block; -1: the configuration's",
         in_range(0.0, 0.99, {-1}));
  number("--ema", o->ema, "decay of the average of weights; 0: none", below_one);
  number("--mixup", o->mixup, "mixup's alpha; 0: none", in_range(0.0, 1000.0));
  number("--cutmix", o->cutmix, "CutMix's alpha; 0: none", in_range(0.0, 1000.0));
  number("--erasing", o->erasing, "probability of random erasing", a_share);
  number("--evaluate-every", o->evaluate_every, "epochs between evaluations",
         in_range(i64{1}, most_epochs));
  number("--seed", o->seed, "of weights, order and augmentation", in_range(u64{0}, ~u64{0}));
  add_compute(*c, o->compute);
  add_threads(*c);
  const auto take_shared = add_dense_options(*c, *segment, *detect);
  c->callback([o, c, detect, segment, take_shared] {
    if (!o->resume.empty())
      for (const CLI::Option* option : c->get_options()) {
        const std::string name = option->get_name();
        check(option->count() == 0 || name == "--resume" || name == "--threads" ||
                  name == "--workers" || name == "--stop-after" || name == "--device" ||
                  name == "--data-dir",
              "--resume continues with the run's own options; leave out ", name);
      }
    const std::optional<Launch> launch = launch_from_environment();
    std::vector<Communicator> processes;
    if (!o->resume.empty()) {  // so that train.json is of the run that is there
      processes = other_processes(launch, o->compute.placement().device);
      first_alone(processes, [&] { RunFolder(o->resume, RunFolder::Start::resume); });
    }
    if (const std::string path = o->resume + "/train.json"; !o->resume.empty())
      read_member(parse_json(read_text(path), path), "task", path, o->task);
    check(o->task == "classify" || o->task == "segment" || o->task == "detect", o->resume,
          "/train.json: there is no task \"", o->task, "\"");
    refuse_others(*c, o->task);
    if (o->resume.empty()) refuse_other_data(*c, o->data.kind);
    if (o->resume.empty()) processes = other_processes(launch, o->compute.placement().device);
    if (o->task == "classify") return train(*o, processes);
    take_shared(*o);
    o->task == "segment" ? train_segment(*segment, processes) : train_detect(*detect, processes);
  });
}

}  // namespace tool
