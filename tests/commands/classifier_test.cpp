// Commands about classifiers, called from a program: the same files and figures as the tool's.

#include "commands/help.hpp"
#include "ppma/commands/convert.hpp"
#include "ppma/commands/evaluate.hpp"
#include "ppma/commands/export.hpp"
#include "ppma/commands/lr_find.hpp"
#include "ppma/commands/predict.hpp"
#include "ppma/commands/visualize.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/io/image.hpp"
#include "sanitized.hpp"

using namespace commands_test;
using io_test::Contains;

namespace {

struct Heard : Kept<ClassifierObserver> {
  std::vector<RunStart> starts{};
  i64 batches = 0, tested = 0, epochs = 0;
  i64 stop_at = -1;  // batches
  std::vector<RunRest> rests{};
  void begin(const RunStart& r) override { starts.push_back(r); }
  void batch(const StepReport& r) override { batches += r.batch > 0; }
  void evaluation(i64 done, i64 all) override { tested += done <= all; }
  void epoch(const ClassifierRecord& r, bool is_best) override { epochs += is_best && r.test; }
  int stop() override { return stop_at >= 0 && batches >= stop_at ? 7 : 0; }
  void rest(const RunRest& r) override { rests.push_back(r); }
};

ClassifierTraining small_classifier(const Folder& folder, const std::string& out) {
  auto o = small_training<ClassifierTraining>(folder, out);
  o.network.config = small_network(folder);
  return o;
}

}  // namespace

TEST_CASE("commands: a program trains a classifier as the tool does, and uses it",
          "[commands][tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  Heard heard;
  const TrainedClassifier r = train_classifier(small_classifier(folder, "mine"), heard);
  const auto tools =
      run("train --config " + folder / "net.json" + small_arguments + " --out " + folder / "tools");
  INFO(tools.err);
  REQUIRE(tools.code == 0);
  CHECK(last_record(folder / "mine") == last_record(folder / "tools"));
  for (const char* file : {"best.safetensors", "last.safetensors", "config.json", "train.json"}) {
    INFO(file);
    const bool same = read_file(folder / "mine/" + file) == read_file(folder / "tools/" + file);
    CHECK((same || file == std::string("last.safetensors")));  // which has the log, with times
  }
  const json record = last_record(folder / "mine");
  CHECK(r.best ==
        std::max(record["test_acc1"].get<double>(), record["test_ema_acc1"].get<double>()));
  CHECK(r.weights == folder / "mine/best.safetensors");
  CHECK((r.epochs == 1 && r.first && r.stopped == 0 && r.test_images == 16));
  REQUIRE(r.confusion);
  CHECK(r.confusion->images() == 16);
  REQUIRE(heard.starts.size() == 1);
  CHECK((heard.starts[0].network == "ppma_nano" && heard.starts[0].training_images == 32));
  CHECK((heard.batches == 4 && heard.tested > 0 && heard.epochs == 1 && heard.rests.empty()));

  EvaluationOptions e;
  e.network.weights = r.weights;
  const ClassifierEvaluation mine = evaluate_classifier(e);
  const json theirs = json::parse(run("eval --json --weights " + r.weights).out);
  CHECK(mine.images == theirs["images"].get<i64>());
  CHECK(mine.loss == theirs["loss"].get<double>());
  CHECK(mine.acc1 == theirs["acc1"].get<double>());
  CHECK(100 * mine.confusion.mean_f1() == theirs["mean_f1"].get<double>());
  draw_confusion(folder / "c.svg", mine);
  CHECK(run("eval --weights " + r.weights + " --confusion " + folder / "d.svg").code == 0);
  CHECK(read_file(folder / "c.svg") == read_file(folder / "d.svg"));

  write_png(folder / "a.png", shapes({.images = 1}).get(0).image);
  write_file(folder / "b.png", std::string("no picture"));
  PredictOptions p;
  p.network.weights = r.weights, p.top = 3, p.images = {folder / "a.png", folder / "b.png"};
  Kept<PredictObserver> noted;
  const std::vector<PredictedImage> said = predict_classes(p, noted);
  const json named = json::parse(
      run("predict --json --top 3 --weights " + r.weights + " " + p.images[0] + " " + p.images[1])
          .out);
  REQUIRE((said.size() == 2 && said[0].top.size() == 3));
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(said[0].top[k].name == named[0]["top"][k]["name"].get<std::string>());
    CHECK(said[0].top[k].probability == named[0]["top"][k]["probability"].get<double>());
  }
  CHECK(said[1].error == named[1]["error"].get<std::string>());
  CHECK((noted.notes.size() == 1 && noted.notes[0] == said[1].error));

  ExportOptions x;
  x.network.weights = r.weights, x.out = folder / "a.onnx";
  const ExportedNetwork exported = export_network(x);
  CHECK(run("export --weights " + r.weights + " --out " + folder / "b.onnx")
            .out.find(exported.ends) != std::string::npos);
  CHECK(read_file(x.out) == read_file(folder / "b.onnx"));
  CHECK(exported.bytes == static_cast<i64>(read_file(x.out).size()));

  ConvertOptions c;
  c.in = r.weights, c.out = folder / "a.pth";
  Kept<Observer> told;
  CHECK(convert_weights(c, told).tensors.size() > 10);
  CHECK((told.notes.size() == 1 && told.notes[0].find("extra/metadata.json") < 1000));
  CHECK(run("convert " + c.in + " " + folder / "b.pth").code == 0);
  CHECK(read_file(c.out) == read_file(folder / "b.pth"));

  VisualizeOptions v;
  v.network.weights = r.weights, v.out = folder / "v.png", v.statistics = 2, v.samples = 1;
  const MaskReport seen = visualize(v);
  const json shown = json::parse(run("visualize --json --statistics 2 --samples 1 --weights " +
                                     r.weights + " --out " + folder / "w.png")
                                     .out);
  CHECK(rounded(seen.learnt.mask_radius.mean(), 1e-4) == shown["mask_radius"].get<double>());
  CHECK(seen.decays[0].size() == 2);
  CHECK(read_file(v.out) == read_file(folder / "w.png"));
}

TEST_CASE("commands: an observer stops a classifier's run, which goes on where it stopped",
          "[commands]") {
  if (PPMA_STB == 0) PPMA_SKIP("no stb_image, so no PNG");
  if (brief()) return;  // three runs of what the others above do once
  const Folder folder;
  ClassifierTraining o = small_classifier(folder, "run");
  o.data.images = 16;
  Heard heard;
  heard.stop_at = 1;
  const TrainedClassifier first = train_classifier(o, heard);
  CHECK((first.stopped == 7 && first.best < 0 && first.weights.empty() && !first.confusion));
  REQUIRE(heard.rests.size() == 1);
  CHECK((heard.rests[0].epoch == 0 && heard.rests[0].batch == 1 && heard.rests[0].patience == 0));
  ClassifierTraining again;
  again.resume = o.out;
  Heard second;
  const TrainedClassifier whole = train_classifier(again, second);
  CHECK((whole.stopped == 0 && whole.epochs == 1 && whole.best >= 0 && second.batches == 1));
  CHECK((second.starts[0].resumed && second.starts[0].epochs == 1));
  o.out = folder / "at once";
  train_classifier(o);
  CHECK(last_record(folder / "run") == last_record(folder / "at once"));
}

TEST_CASE("commands: a range test from a program", "[commands][tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  LearningRateTest o;
  o.network.config = small_network(folder);
  o.data.images = 32, o.data.test_images = 16, o.data.size = 48, o.batch = 8, o.find_steps = 12;
  Heard heard;
  const RateRange range = find_learning_rate(o, heard);
  REQUIRE(range.smoothed.size() == 12);
  CHECK(heard.starts.size() == 1);
  draw_rates(folder / "a.png", range);
  const auto tools = run("lr-find --steps 12 --images 32 --size 48 --batch 8 --config " +
                         o.network.config + " --out " + folder / "b.png");
  INFO(tools.err);
  CHECK(tools.code == 0);
  char lowest[80];
  std::snprintf(lowest, sizeof lowest, "smoothed loss: %.4f at first", range.smoothed[0]);
  CHECK_THAT(tools.out, Contains(lowest));
  CHECK(read_file(folder / "a.png") == read_file(folder / "b.png"));
  o.least = 2;
  CHECK_THAT(thrown([&] { find_learning_rate(o); }), Contains("`least` 2 must be less than"));
  o.least = 1e-6, o.find_steps = 2;
  CHECK_THAT(thrown([&] { find_learning_rate(o); }), Contains("take 10 or more"));
}

TEST_CASE("commands: a GPU's batches are made by all threads, a processor's by two", "[commands]") {
  DataOptions o;
  CHECK(stream_options(o, "cpu").workers == 2);
  CHECK(stream_options(o, "cpu").ahead == 4);
  CHECK(stream_options(o, "cpu", 1).ahead == 2);
  CHECK(stream_options(o, "cuda").workers == std::max(2, threads()));
  for (const i64 workers : {0, 1, 9}) {
    o.workers = workers;
    for (const char* device : {"cpu", "cuda"}) {
      CHECK(stream_options(o, device).workers == workers);
      CHECK(stream_options(o, device).ahead == std::max<i64>(4, workers));
    }
  }
  o.workers = -2;
  CHECK_THAT(thrown([&] { stream_options(o, "cpu"); }), Contains("data: -2 workers"));
}

TEST_CASE("commands: what a program's options may not be", "[commands]") {
  const Folder folder;
  const auto wrong = [&](auto change, const char* message) {
    ClassifierTraining o = small_training<ClassifierTraining>(folder, "never");
    change(o);
    CHECK_THAT(thrown([&] { train_classifier(o); }), Contains(message));
  };
  wrong([](auto& o) { o.epochs = 0; }, "options: epochs is 0; it must be 1 to 1000000");
  wrong([](auto& o) { o.drop_path = 2; }, "options: drop_path is 2");
  wrong([](auto& o) { o.optimizer = "adam"; }, "`optimizer` adam: must be adamw or sgd");
  wrong([](auto& o) { o.time_limit = "soon"; }, "`time_limit` soon: must be a time such as");
  wrong([](auto& o) { o.balanced = true, o.repeats = 2; }, "`balanced` and `repeats`");
  wrong([](auto& o) { o.data.kind = "photos"; }, "`data` photos: there is no such kind of data");
  wrong([](auto& o) { o.data.kind = "coco"; }, "`data` coco is for `task` detect");
  wrong([](auto& o) { o.data.kind = "folder"; }, "`data` folder needs `data_dir`");
  wrong([](auto& o) { o.compute.device = "tpu"; }, "`device` tpu: must be cpu or cuda");
  wrong([](auto& o) { o.compute.dtype = "f16"; }, "`dtype` f16: must be f32");
  wrong([](auto& o) { o.freeze = "nothing.*"; }, "`freeze` nothing.*: no parameter");
  CHECK_FALSE(std::filesystem::exists(folder / "never"));
  CHECK_THAT(thrown([] { evaluate_classifier({}); }), Contains("eval: needs `weights`"));
  CHECK_THAT(thrown([] { predict_classes({}); }), Contains("predict: needs `weights`"));
  CHECK_THAT(thrown([] { export_network({}); }), Contains("export: needs `out`"));
  ExportOptions x;
  x.task = "sing", x.out = folder / "x.onnx";
  CHECK_THAT(thrown([&] { export_network(x); }), Contains("`task` sing: must be"));
  CHECK(options_of_recipe<ClassifierTraining>("small").rand_augment == 5);
  CHECK(options_of_recipe<ClassifierTraining>("small").network.model == "ppma_nano");
  CHECK_THAT(thrown([] { options_of_recipe<DetectorTraining>("small"); }),
             Contains("is to classify, not to detect"));
}
