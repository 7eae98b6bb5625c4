// Commands about segmentors and detectors, and about sets of images, called from a program: the
// same files and figures as the tool's.

#include "commands/help.hpp"
#include "ppma/commands/data_find.hpp"
#include "ppma/commands/dense_predict.hpp"
#include "ppma/commands/export.hpp"
#include "ppma/commands/score.hpp"
#include "ppma/io/image.hpp"

using namespace commands_test;
using io_test::Contains;

TEST_CASE("commands: a program trains a segmentor as the tool does, and uses it",
          "[commands][tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  auto o = small_training<SegmentorTraining>(folder, "mine");
  o.head = "semantic_fpn", o.evaluate_every = 1;
  struct Heard : Kept<SegmentorObserver> {
    i64 epochs = 0;
    void epoch(const SegmentorRecord& r, bool) override { epochs += r.test.has_value(); }
  } heard;
  const TrainedSegmentor r = train_segmentor(o, heard);
  CHECK((heard.epochs == 1 && r.best >= 0 && r.best <= 1 && r.epochs == 1));
  const auto classes = static_cast<i64>(r.classes.size());
  CHECK(classes == static_cast<i64>(figure_names().size()) + 1);  // and the ground
  const auto tools = run("train --task segment --head semantic_fpn --evaluate-every 1" +
                         small_arguments + " --out " + folder / "tools");
  INFO(tools.err);
  REQUIRE(tools.code == 0);
  CHECK(last_record(folder / "mine") == last_record(folder / "tools"));
  for (const char* file : {"best.safetensors", "config.json", "train.json"})
    CHECK(read_file(folder / "mine/" + file) == read_file(folder / "tools/" + file));

  write_png(folder / "a.png", shapes({.images = 1}).get(0).image);
  write_file(folder / "b.png", std::string("no picture"));
  DensePredictOptions p;
  p.network.weights = r.weights, p.images = {folder / "a.png", folder / "b.png"};
  p.out = folder / "p";
  const std::vector<SegmentedImage> said = predict_segments(p);
  const auto theirs =
      run("predict --task segment --json --format coco,png,json --weights " + r.weights + " " +
          p.images[0] + " " + p.images[1] + " --out " + folder / "q");
  const json named = json::parse(theirs.out);
  REQUIRE((said.size() == 2 && !said[0].shares.empty() && !said[1].error.empty()));
  for (const ClassShare& c : said[0].shares)
    CHECK(c.share == named[0]["shares"][c.name].get<double>());
  CHECK(said[1].error == named[1]["error"].get<std::string>());
  for (const char* file : {"a.png", "a_labels.png", "results.json", "images.json"}) {
    INFO(file);
    CHECK(read_file(folder / "p/" + file) == read_file(folder / "q/" + file));
  }
  std::filesystem::create_directories(folder / "gt");
  std::filesystem::copy(folder / "p/a_labels.png", folder / "gt/a.png");
  LabelMapScoreOptions s;
  s.pred = folder / "p", s.gt = folder / "gt", s.classes = classes;
  Kept<Observer> noted;
  const LabelMapScore score = score_label_maps(s, noted);
  CHECK((score.images == 1 && score.figures.mean_iou == 1));
  CHECK(noted.notes == score.warnings);
  const json scored = json::parse(
      run(str("eval-miou --json --classes ", classes, " --pred ") + s.pred + " --gt " + s.gt).out);
  CHECK(scored["aAcc"].get<double>() == score.figures.all_accuracy);
  s.classes = 0;
  CHECK_THAT(thrown([&] { score_label_maps(s); }), Contains("`classes` is 0"));

  ExportOptions x;
  x.network.weights = r.weights, x.out = folder / "a.onnx", x.task = "segment";
  CHECK_THAT(export_network(x).ends, Contains(str("logits (batch,", classes, ",48,48)")));
  CHECK(run("export --task segment --weights " + r.weights + " --out " + folder / "b.onnx").code ==
        0);
  CHECK(read_file(x.out) == read_file(folder / "b.onnx"));
}

TEST_CASE("commands: a program trains a detector as the tool does, and uses it",
          "[commands][tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  auto o = small_training<DetectorTraining>(folder, "mine");
  o.data.images = 8, o.data.test_images = 4, o.data.size = 64, o.batch = 4;
  Kept<DetectorObserver> heard;
  const TrainedDetector r = train_detector(o, heard);
  CHECK((r.classes == figure_names() && r.best >= 0 && r.epochs == 1));
  const auto tools =
      run("train --task detect --images 8 --test-images 4 --size 64 --batch 4 --epochs 1 --out " +
          folder / "tools");
  INFO(tools.err);
  REQUIRE(tools.code == 0);
  CHECK(last_record(folder / "mine") == last_record(folder / "tools"));
  for (const char* file : {"best.safetensors", "config.json", "train.json"})
    CHECK(read_file(folder / "mine/" + file) == read_file(folder / "tools/" + file));

  write_png(folder / "a.png", shapes({.images = 1}).get(0).image);
  DensePredictOptions p;
  p.network.weights = r.weights, p.images = {folder / "a.png"}, p.least_score = 0.05;
  p.out = folder / "p";
  const std::vector<DetectedImage> said = predict_objects(p);
  const json named = json::parse(run("predict --task detect --json --least-score 0.05 --weights " +
                                     r.weights + " " + p.images[0] + " --out " + folder / "q")
                                     .out);
  REQUIRE((said.size() == 1 && said[0].objects.size() == named[0]["objects"].size()));
  for (std::size_t k = 0; k < said[0].objects.size(); ++k)
    CHECK(said[0].objects[k].score == named[0]["objects"][k]["score"].get<double>());
  o.longer = 0;
  CHECK_THAT(thrown([&] { train_detector(o); }), Contains("`longer` and `shorter`"));
  o.out = folder / "never", o.longer = 64, o.data.kind = "voc", o.data.folder = folder / "";
  CHECK_THAT(thrown([&] { train_detector(o); }), Contains("`data` voc has boxes and no masks"));
}

TEST_CASE("commands: options of a segmentor are taken from a file that says few of them",
          "[commands]") {
  SegmentorTraining o;
  read_kept(Json{{"lr", 5e-4}}, "few.json", o);  // its sizes stay 0: those of the first image
  CHECK((o.lr == 5e-4 && o.longer == 0));
  CHECK_THAT(thrown([&] {
               read_kept(Json{{"longer", -1}}, "few.json", o);
             }),
             Contains("few.json: longer is -1; it must be 0, or 1 to 16384"));
}

TEST_CASE("commands: detections in files are scored from a program", "[commands][tool]") {
  NEEDS_TOOL();
  const Folder folder;
  write_file(folder / "gt.json",
             std::string("{\"images\":[{\"id\":1,\"file_name\":\"a.png\",\"height\":10,\"width\":"
                         "10}],\"categories\":[{\"id\":3,\"name\":\"cat\"}],\"annotations\":[{"
                         "\"id\":1,\"image_id\":1,\"category_id\":3,\"bbox\":[1,1,5,5],\"area\":25,"
                         "\"iscrowd\":0}]}"));
  write_file(folder / "dt.json",
             std::string("[{\"image_id\":1,\"category_id\":3,\"bbox\":[1,1,5,4],\"score\":0.9}]"));
  DetectionScoreOptions o;
  o.gt = folder / "gt.json", o.dt = folder / "dt.json";
  const DetectionScore s = score_detections(o);
  CHECK((s.images == 1 && s.annotations == 1 && s.detections == 1));
  const json theirs = json::parse(run("eval-coco --json --gt " + o.gt + " --dt " + o.dt).out);
  for (std::size_t i = 0; i < 12; ++i)
    CHECK(s.scores.figures[i] == theirs[s.figure_names[i]].get<double>());
  CHECK(s.scores.figures[0] == Approx(0.7));  // overlap 0.8: right at 0.5 to 0.8
  o.protocol = "mine";
  CHECK_THAT(thrown([&] { score_detections(o); }), Contains("`protocol` mine: must be"));
  o.protocol = "mmdet2", o.type = "dots";
  CHECK_THAT(thrown([&] { score_detections(o); }), Contains("`type` dots: must be"));
}

TEST_CASE("commands: what a folder is, from a program", "[commands][tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const Dataset set = shapes({.images = 8});
  for (const char* part : {"train", "val"})
    for (i64 i = 0; i < 4; ++i) {
      const std::string to = folder / part + (i % 2 == 0 ? "/even" : "/odd");
      std::filesystem::create_directories(to);
      write_png(str(to, "/", i, ".png"), set.get(i).image);
    }
  const FoundSet found = find_set(folder / "");
  CHECK((found.data == "folder" && found.task == "classify" && found.trains));
  REQUIRE(found.parts.size() == 2);
  const SetLook look = look_at(found.parts[0]);
  CHECK(look.images == std::vector<i64>{2, 2});
  CHECK((look.readable == 4 && look.heights.most == 64 && look.broken.empty()));
  write_png(folder / "a.png", sample_sheet(found.parts[0], look));
  const auto theirs = run("data --out " + folder / "b.png " + folder / "");
  CHECK_THAT(theirs.out, Contains("ppma train --data folder --data-dir"));
  CHECK(read_file(folder / "a.png") == read_file(folder / "b.png"));
  // What stands between backticks in a path is shown as it is, unless it could be a field.
  CHECK_THAT(run("data '" + folder / "a`B c`d.tar" + "'").err, Contains("a`B c`d.tar"));
}
