// The command-line tool as a user meets it: what it writes, what it says, how it exits.

#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "catch.hpp"
#include "distance.hpp"
#include "io/help.hpp"
#include "ppma/io/pth.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/vis/report.hpp"
#include "tool/help.hpp"

using namespace ppma;
using io_test::Folder;
using io_test::reference;
using namespace tool_test;

TEST_CASE("tool: help and errors", "[tool]") {
  NEEDS_TOOL();
  const Result help = run("--help");
  CHECK(help.code == 0);
  const std::vector<std::string> all = commands();
  for (const char* known :
       {"info", "summary", "train", "eval", "eval-coco", "eval-miou", "predict", "visualize",
        "convert", "run", "bench", "ablate", "sweep", "lr-find", "compare"})
    CHECK(std::find(all.begin(), all.end(), known) != all.end());
  for (const std::string& command : all) {
    INFO(command);
    const Result one = run(command + " --help");
    CHECK(one.code == 0);
    CHECK(one.out.find("Usage: ppma " + command) != std::string::npos);
    CHECK(one.err.empty());
  }
  struct Wrong {
    const char *arguments, *message;
  };
  for (const Wrong& w :
       {Wrong{"", "subcommand is required"}, Wrong{"frobnicate", "subcommand is required"},
        Wrong{"info", "FILE is required"}, Wrong{"info /nowhere.pth", "does not exist"},
        Wrong{"info '" __FILE__ "'", "tool_test.cpp: "}, Wrong{"bench --size 16", "not in range"},
        Wrong{"bench --model resnet", "no model is called \"resnet\""},
        Wrong{"bench --mask square", "there is no mask \"square\""}}) {
    INFO(w.arguments);
    const Result r = run(w.arguments);
    CHECK(r.code != 0);
    CHECK(r.out.empty());
    CHECK(r.err.starts_with("ppma: "));
    CHECK(r.err.find(w.message) != std::string::npos);
    CHECK(std::count(r.err.begin(), r.err.end(), '\n') == 1);
  }
}

TEST_CASE("tool: run reproduces the reference, evaluation and training step", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const TensorMap expected = read_safetensors(reference("mini_io.safetensors")).tensors;
  const std::string common = "--weights " + reference("mini_weights.safetensors") + " --input " +
                             reference("mini_io.safetensors") + " --output " +
                             folder / "out.safetensors";
  // Without --config: the weights file holds its configuration.
  REQUIRE(run("run " + common + " --dtype f64").code == 0);
  TensorMap out = read_safetensors(folder / "out.safetensors").tensors;
  CHECK(out.size() == 6);
  for (const char* name : {"patch_embed", "stage0", "stage1", "stage2", "stage3", "logits"}) {
    INFO(name);
    CHECK(distance(*find(out, name), *find(expected, std::string("eval.") + name)) < 1e-6);
  }
  write_file(folder / "c.json",
             read_safetensors(reference("mini_weights.safetensors")).metadata.at("config"));
  REQUIRE(run("run --config " + folder / "c.json" + " --train --dtype f64 " + common).code == 0);
  out = read_safetensors(folder / "out.safetensors").tensors;
  i64 compared = 0;
  for (const auto& [name, want] : expected) {
    if (!name.starts_with("train.")) continue;
    INFO(name);
    const Tensor* got = find(out, name.substr(6));
    REQUIRE(got != nullptr);
    double norm = 0;
    for (const double v : want.to_vector<double>()) norm += v * v;
    if (norm > 1e-20)
      CHECK(distance(got->viewed_as(want.shape()), want) < 1e-6);  // PyTorch's scalars are (1)
    else  // a bias in front of a batch norm: no gradient but rounding
      for (const double v : got->to_vector<double>()) CHECK(std::fabs(v) < 1e-12);
    ++compared;
  }
  CHECK(compared == 184);
  // Weights in bf16, activations in f32.
  REQUIRE(run("run " + common + " --dtype bf16").code == 0);
  out = read_safetensors(folder / "out.safetensors").tensors;
  const double off = distance(*find(out, "logits"), *find(expected, "eval.logits"));
  CHECK((off > 1e-5 && off < 2e-2));
  CHECK(run("run --train --dtype bf16 " + common).err.find("trains with --device cuda only") !=
        std::string::npos);
  CHECK(run("run --dtype tf32 " + common).err.find("it is f32, f64 or bf16") != std::string::npos);
  if (!cuda::compiled())
    CHECK(run("run --device cuda " + common).err.find("compiled without CUDA") !=
          std::string::npos);
}

TEST_CASE("tool: convert and info", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  REQUIRE(
      run("convert " + reference("mini_checkpoint.pth") + " " + folder / "a.safetensors").code ==
      0);
  REQUIRE(run("convert " + folder / "a.safetensors" + " " + folder / "b.pth").code == 0);
  REQUIRE(run("convert " + folder / "b.pth" + " " + folder / "c.safetensors").code == 0);
  CHECK(read_file(folder / "a.safetensors") == read_file(folder / "c.safetensors"));
  // The averaged weights in that checkpoint are half the raw ones.
  REQUIRE(run("convert --entry model_ema " + reference("mini_checkpoint.pth") + " " +
              folder / "e.safetensors")
              .code == 0);
  const TensorMap raw = read_safetensors(folder / "a.safetensors").tensors,
                  ema = read_safetensors(folder / "e.safetensors").tensors;
  CHECK(find(ema, "head.weight")->to_vector<float>()[3] ==
        0.5f * find(raw, "head.weight")->to_vector<float>()[3]);

  const Result info = run("info --json " + folder / "b.pth");
  REQUIRE(info.code == 0);
  const auto j = nlohmann::json::parse(info.out);
  CHECK(j["tensors"] == raw.size());
  CHECK(j["entries"][0]["name"] == "patch_embed.proj.0.weight");
  CHECK(j["entries"][0]["shape"] == std::vector<i64>{8, 3, 3, 3});
  CHECK(run("info " + folder / "b.pth").out.find("head.bias ") != std::string::npos);
  CHECK(run("convert " + folder / "b.pth" + " " + folder / "b.txt").err.find("ending") !=
        std::string::npos);
}

TEST_CASE("tool: convert and info name what they leave out, and lose nothing else", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  // A training checkpoint's other entries are named once; the configuration survives a .pth.
  const Result out =
      run("convert " + reference("mini_checkpoint.pth") + " " + folder / "a.safetensors");
  CHECK(out.code == 0);
  CHECK(out.err.find("mini_checkpoint.pth: not copied, beside the weights: ") != std::string::npos);
  CHECK(out.err.find("model_ema (a dict of ") != std::string::npos);
  CHECK(run("info " + reference("mini_checkpoint.pth")).out.find("not listed above: ") !=
        std::string::npos);
  const std::string named = reference("mini_weights.safetensors");
  const Result to_pth = run("convert " + named + " " + folder / "b.pth");
  CHECK(to_pth.code == 0);
  CHECK(to_pth.err.find("config kept in its entry extra/metadata.json") != std::string::npos);
  CHECK(run("convert " + folder / "b.pth" + " " + folder / "c.safetensors").err.empty());
  CHECK(read_safetensors(folder / "c.safetensors").metadata == read_safetensors(named).metadata);
  // A training checkpoint's average as the published files have theirs.
  write_safetensors(folder / "last.safetensors", {{"model.w", Tensor::zeros({1})},
                                                  {"ema.w", Tensor::ones({1})},
                                                  {"optimizer.w.first", Tensor::zeros({1})}});
  REQUIRE(run("convert --entry ema --under model " + folder / "last.safetensors" + " " +
              folder / "published.pth")
              .code == 0);
  const PthFile published(read_file(folder / "published.pth"), "published.pth");
  CHECK(published.root().size() == 1);
  CHECK(published.tensor(published.root().find("model").find("w")).item() == 1);
  CHECK(run("convert --under model " + folder / "last.safetensors" + " " +
            folder / "published.safetensors")
            .err.find("has no dicts within it") != std::string::npos);
  // Wrappers' prefixes go, the network's own stay.
  write_safetensors(folder / "d.safetensors", {{"module._orig_mod.backbone.w", Tensor::ones({1})}});
  REQUIRE(run("convert " + folder / "d.safetensors" + " " + folder / "e.safetensors").code == 0);
  CHECK(read_safetensors(folder / "e.safetensors").tensors[0].first == "backbone.w");
  // Names that would steer the terminal; weights that are not finite.
  write_safetensors(folder / "f.safetensors",
                    {{"a\x1b[31m", Tensor::full({2}, std::numeric_limits<double>::infinity())}});
  const Result info = run("info " + folder / "f.safetensors");
  CHECK(info.out.find('\x1b') == std::string::npos);
  CHECK(info.out.find("a\\x1b[31m: 2 of its values are inf or NaN") != std::string::npos);
}

TEST_CASE("tool: bench reports what it measured", "[tool]") {
  NEEDS_TOOL();
  const Result r =
      run("bench --model ppma_nano --batch 2 --size 32 --threads 1 --repeat 2 --warmup 1 --train "
          "--mask none --json");
  REQUIRE(r.code == 0);
  const auto j = nlohmann::json::parse(r.out);
  CHECK(j["model"] == "ppma_nano");
  CHECK(j["mask"] == "none");
  CHECK(j["threads"] == 1);
  CHECK(j["train"] == true);
  CHECK(j["ms"] > 0);
  CHECK(j["images_per_s"].get<double>() == Approx(2000 / j["ms"].get<double>()).epsilon(0.01));
  CHECK(j["peak_rss_MiB"] > j["peak_tensors_MiB"]);
  CHECK(j["floor_ms"] > 0);
  CHECK(j["share_of_floor"].get<double>() ==
        Approx(j["floor_ms"].get<double>() / j["ms"].get<double>()).margin(2e-3));
}

TEST_CASE("tool: bench and run know the dense networks", "[tool]") {
  NEEDS_TOOL();
  const std::string small =
      " --model ppma_nano --batch 1 --size 64 --width 32 --threads 1 --repeat 1 --warmup 0 --json";
  for (const bool train : {false, true}) {
    const Result r = run("bench --task segment" + small + (train ? " --train" : ""));
    INFO(r.err);
    REQUIRE(r.code == 0);
    const auto j = nlohmann::json::parse(r.out);
    CHECK(j["model"] == "upernet ppma_nano");
    CHECK(j["train"] == train);
    CHECK((j["size"] == 64 && j["width"] == 32 && j["ms"] > 0));
  }
  const io_test::Folder folder;
  // A detector of which every box is something: the least score is 0.
  write_file(
      folder / "detector.json",
      std::string_view(
          R"({"least_score": 0, "channels": 16, "fc_channels": 16, "num_classes": 2, "detections": 7})"));
  const std::string config = " --config " + (folder / "detector.json");
  for (const char* heads : {"", " --heads-only"}) {
    const Result r =
        run("bench --task detect --size 64 --width 96 --batch 2 --threads 1 --repeat 1 --warmup 0 "
            "--json" +
            config + heads);
    INFO(r.err);
    REQUIRE(r.code == 0);
    CHECK(nlohmann::json::parse(r.out)["objects"] == 14);
  }
  Rng rng(1);
  write_safetensors(folder / "image", {{"input", Tensor::randn({1, 3, 64, 96}, rng)}}, {});
  TensorMap maps;
  for (i64 s = 0; s < 4; ++s)
    maps.emplace_back(str("map", s), Tensor::randn({1, i64{64} << s, 16 >> s, 24 >> s}, rng));
  write_safetensors(folder / "maps", maps, {});
  for (const char* input : {"image", "maps"}) {
    const Result r =
        run("run --task detect --input " + folder / input + " --output " + folder / "out" + config);
    INFO(r.err);
    REQUIRE(r.code == 0);
    const TensorMap out = read_safetensors(folder / "out").tensors;
    CHECK(find(out, "boxes")->shape() == Shape{7, 4});
    const std::vector<double> scores = find(out, "scores")->to_vector<double>();
    CHECK(std::is_sorted(scores.rbegin(), scores.rend()));
  }
  REQUIRE(run("run --task segment --model ppma_nano --input " + folder / "image" + " --output " +
              folder / "out")
              .code == 0);
  CHECK(find(read_safetensors(folder / "out").tensors, "logits")->shape() == Shape{1, 64, 96, 150});
  struct Wrong {
    std::string arguments;
    const char* message;
  };
  for (const Wrong& w :
       {Wrong{"bench --task detect --train", "times inference; leave out --train"},
        Wrong{"bench --heads-only", "is for --task detect"},
        Wrong{"bench --task detect --size 50", "multiples of 32, not 50 x 50"},
        Wrong{"bench --task paint", "--task: paint not in"},
        Wrong{"run --task segment --train --input " + folder / "image" + " --output " +
                  folder / "out",
              "leave out --train"},
        Wrong{"run --task segment --input " + folder / "maps" + " --output " + folder / "out",
              "has no tensor \"input\""}}) {
    INFO(w.arguments);
    const Result r = run(w.arguments);
    CHECK(r.code != 0);
    CHECK(r.err.find(w.message) != std::string::npos);
  }
}

TEST_CASE("tool: summary has the published figures", "[tool]") {
  NEEDS_TOOL();
  const auto j = nlohmann::json::parse(run("summary --json").out);
  CHECK(j["parameters"] == 14335272);
  CHECK(j["macs"] == 2695525376);
  CHECK(run("summary").out.find("14,335,272") != std::string::npos);
  CHECK(nlohmann::json::parse(run("summary --model deit_tiny --json").out)["parameters"] ==
        5717416);
}

TEST_CASE("tool: summary plans memory as it is held", "[tool]") {
  NEEDS_TOOL();
  const std::string nano = "summary --model ppma_nano --size 48 --batch 16 --threads 1";
  const auto j = nlohmann::json::parse(run(nano + " --measure --json").out)["memory"];
  for (const char* pass : {"inference", "training_step"}) {
    const double planned = j[pass]["planned_bytes"], measured = j[pass]["measured_bytes"];
    CAPTURE(pass, planned, measured);
    CHECK(std::abs(planned / measured - 1) < 0.05);
  }
  CHECK(run(nano).out.find("memory of a training step, batch 16, 1 thread: planned") !=
        std::string::npos);
  CHECK(run("summary --model ppma_nano --mask hilbert --measure").err.find("not planned") !=
        std::string::npos);
}

TEST_CASE("tool: train, resume, eval and predict", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  write_file(
      folder / "small.json",
      std::string_view(
          R"({"embed_dims": [8, 8, 16, 16], "depths": [1, 0, 1, 1], "num_heads": [1, 1, 1, 1],
    "mlp_ratios": [2, 2, 2, 2], "chunkwise_recurrents": [true, false, false, false], "projection": 16, "drop_path_rate": 0.1})"));
  const std::string options = "--config " + folder / "small.json" +
                              " --images 64 --test-images 32 --size 32 --batch 16 --warmup 1 "
                              "--threads 1 --mixup 0.5 --out ";
  const Result straight = run("train --epochs 3 " + options + folder / "a");
  INFO(straight.err);
  REQUIRE(straight.code == 0);
  CHECK(straight.out.find("epoch   3/3  loss") != std::string::npos);
  CHECK(straight.out.find('\r') == std::string::npos);  // not a terminal: no bar
  const std::string log = text_of(folder / "a/log.jsonl");
  CHECK(std::count(log.begin(), log.end(), '\n') == 3);
  const auto line = nlohmann::json::parse(log.substr(0, log.find('\n')));
  for (const char* key :
       {"epoch", "n_parameters", "train_lr", "train_loss", "test_loss", "test_acc1", "test_acc5",
        "test_ema_loss", "test_ema_acc1", "test_ema_acc5"})
    CHECK(line.contains(key));
  REQUIRE(line["test_class_acc1"].size() == 10);
  CHECK(line["test_ema_class_acc1"].size() == 10);
  CHECK(straight.out.find("worst of 10 classes") != std::string::npos);

  // The same run with another number of workers, in two parts.
  REQUIRE(run("train --epochs 3 --stop-after 2 --workers 1 " + options + folder / "b").code == 0);
  const Result rest = run("train --per-class --resume " + folder / "b");
  REQUIRE(rest.code == 0);
  CHECK(rest.out.find("\nclass ") != std::string::npos);  // each of them
  CHECK(rest.out.find("\nheart ") != std::string::npos);
  CHECK(read_file(folder / "a/last.safetensors") == read_file(folder / "b/last.safetensors"));
  CHECK(read_file(folder / "a/best.safetensors") == read_file(folder / "b/best.safetensors"));
  CHECK(run("train --epochs 3 " + options + folder / "b").err.find("already holds a run") !=
        std::string::npos);
  CHECK(run("train --resume " + folder / "b" + " --lr 1").err.find("leave out --lr") !=
        std::string::npos);
  REQUIRE(run("train --resume " + folder / "b").code == 0);  // nothing is left to do
  CHECK(read_file(folder / "a/last.safetensors") == read_file(folder / "b/last.safetensors"));

  const Result eval = run("eval --json --weights " + folder / "a/best.safetensors");
  REQUIRE(eval.code == 0);
  const auto j = nlohmann::json::parse(eval.out);
  CHECK(j["images"] == 32);
  double best = 0;
  for (std::size_t at = 0; at < log.size(); at = log.find('\n', at) + 1) {
    const auto r = nlohmann::json::parse(log.substr(at, log.find('\n', at) - at));
    best = std::max({best, r["test_acc1"].get<double>(), r["test_ema_acc1"].get<double>()});
  }
  CHECK(j["acc1"] == best);
  // The page about the run; where the process died before it was written, its last test is made again.
  const std::string page = text_of(folder / "a/report.html");
  CHECK(report_epoch(page) == 3);
  for (const char* part : {"after epoch 3 of 3", "<polyline", "circle", "images/s", "CPU kernels",
                           "data:image/png;base64,", "embed_dims", "warmup"})
    CHECK(page.find(part) != std::string::npos);
  const auto matrix = [](const std::string& html) {
    const std::size_t begin = html.find("aria-label=\"confusion matrix\"");
    return html.substr(begin, html.find("</svg>", begin) - begin);
  };
  std::filesystem::remove(folder / "b/report.html");
  REQUIRE(run("train --resume " + folder / "b").code == 0);
  CHECK(matrix(text_of(folder / "b/report.html")) == matrix(page));
  // What is said of classes is of the same images.
  i64 images = 0, right = 0;
  for (const auto& pair : j["confusion"]) {
    images += pair[2].get<i64>();
    right += pair[0] == pair[1] ? pair[2].get<i64>() : 0;
  }
  CHECK(images == 32);
  CHECK(j["acc1"] == 100.0 * static_cast<double>(right) / 32);
  REQUIRE(j["classes"].size() == 10);
  CHECK(j["classes"][0]["name"] == "circle");
  for (const char* key : {"mean_recall", "mean_f1", "calibration_error"}) CHECK(j[key].is_number());
  const Result told = run("eval --weights " + folder / "a/best.safetensors" + " --confusion " +
                          folder / "confusion.png");
  CHECK(told.out.find("worst of 10 classes") != std::string::npos);
  CHECK(std::count(told.out.begin(), told.out.end(), '\n') == 9);
  const Result each = run("eval --per-class --weights " + folder / "a/best.safetensors");
  CHECK(std::count(each.out.begin(), each.out.end(), '\n') == 14);
  if (PPMA_STB != 0)
    CHECK(text_of(folder / "confusion.png").starts_with("\x89PNG"));
  else
    CHECK(told.err.find("without stb_image_write") != std::string::npos);

  write_file(folder / "image.ppm", "P6 2 1 255\n" + std::string("\x10\x20\x30\x40\x50\x60"));
  const Result predict = run("predict --json --top 3 --weights " + folder / "a/best.safetensors" +
                             " " + folder / "image.ppm");
  REQUIRE(predict.code == 0);
  const auto p = nlohmann::json::parse(predict.out);
  REQUIRE(p[0]["top"].size() == 3);
  CHECK(p[0]["top"][0]["probability"] >= p[0]["top"][1]["probability"]);
  CHECK(p[0]["top"][0]["name"].is_string());
  CHECK(run("predict " + folder / "image.ppm").err.find("needs --weights") != std::string::npos);

  // The figure, for generated images and for a file, at any size.
  const Result drawn = run("visualize --json --statistics 5 --size 64 --weights " +
                           folder / "a/best.safetensors" + " --out " + folder / "mask.png");
  REQUIRE(drawn.code == 0);
  const auto m = nlohmann::json::parse(drawn.out);
  CHECK(m["grid"] == std::vector<i64>{16, 16});
  CHECK(m["mask_radius"] > 0);
  CHECK(m["masked_inside"].is_number());
  // Beside a network as initialised, and the decays of each head by what lies around an edge.
  CHECK(m["as_initialised"]["masked_inside"].is_number());
  CHECK(m["as_initialised"]["mask_radius"] != m["mask_radius"]);
  REQUIRE(!m["decays"].empty());
  for (const char* direction : {"alpha", "beta"})
    for (const char* place : {"contour", "inside", "ground"}) {
      const double decay = m["decays"][0]["decay"][direction][place];
      CHECK((decay > 0 && decay <= 1));
    }
  CHECK(text_of(folder / "mask.png").starts_with("\x89PNG"));
  for (const char* picture : {"a/curve", "a/confusion"}) {
    CHECK(text_of(folder / picture + ".png").starts_with("\x89PNG"));
    CHECK(text_of(folder / picture + ".svg").starts_with("<svg xmlns="));
  }
  REQUIRE(run("eval --weights " + folder / "a/best.safetensors" + " --confusion " +
              folder / "confusion.svg")
              .code == 0);
  CHECK(text_of(folder / "confusion.svg").starts_with("<svg xmlns="));
  const Result file = run("visualize --query 0.2 0.8 --weights " + folder / "a/best.safetensors" +
                          " --out " + folder / "file.png --image " + folder / "image.ppm");
  CHECK(file.err.empty());
  CHECK(file.out.find("decay at contours") != std::string::npos);
  CHECK(file.out.find("the same network as initialised") != std::string::npos);
  CHECK(run("visualize --stage 1 --weights " + folder / "a/best.safetensors")
            .err.find("has no blocks") != std::string::npos);
}

TEST_CASE("tool: ablate trains each mask with each seed once, and pairs seeds", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  write_file(folder / "net.json",
             "{\"model\": \"ppma_nano\", \"embed_dims\": [8, 8, 8, 8], "
             "\"num_heads\": [2, 2, 2, 2], \"projection\": 8, \"lepe\": false, "
             "\"rotary\": false, \"depthwise\": false}");
  const std::string same =
      "ablate --data paths --question curve --difficulty 1 --images 16 "
      "--test-images 8 --size 32 --batch 8 --threads 1 "
      "--masks none,polyline --seeds 2 --config " +
      folder / "net.json" + " --out " + folder / "";
  const std::string command = same + "a" + " --epochs 1";
  const Result part = run(command + " --part 1/2");  // both masks of one seed
  INFO(part.err);
  REQUIRE(part.code == 0);
  CHECK(part.out.find("run 3 of 4") != std::string::npos);
  CHECK(part.out.find("not all trained yet: whole none, whole polyline") != std::string::npos);
  const Result whole = run(command);
  REQUIRE(whole.code == 0);
  CHECK(whole.out.find("run 2 of 4") != std::string::npos);
  CHECK(whole.out.find("run 3 of 4") == std::string::npos);
  CHECK(whole.out.find("not all trained") == std::string::npos);

  // By two processes, and evaluated twice: the mean of both stands beside the last.
  const std::string twice = same + "ab" + " --epochs 2 --evaluate-every 1 --jobs 2";
  const Result jobs = run(twice);
  INFO(jobs.out << jobs.err);
  REQUIRE(jobs.code == 0);
  CHECK(jobs.out.find("4 of 4 trained") != std::string::npos);
  CHECK(jobs.out.find("mean of all evaluations") != std::string::npos);
  CHECK(text_of(folder / "ab/job-1.log").find("run 4 of 4") != std::string::npos);
  const auto both = nlohmann::json::parse(text_of(folder / "ab/ablation.json"));
  std::istringstream lines(text_of(folder / "ab/whole-none-1/log.jsonl"));
  double mean = 0, last = 0;
  for (std::string line; std::getline(lines, line); mean += last / 2)
    last = nlohmann::json::parse(line)["test_ema_acc1"];
  CHECK(both["rows"][0]["values"][1] == last);
  CHECK(both["rows"][0]["over_epochs"]["values"][1].get<double>() == Approx(mean));
  write_file(folder / "ab/whole-none-1/train.json", "{");
  CHECK(run(twice).err.find("whole-none-1/train.json") != std::string::npos);

  const auto j = nlohmann::json::parse(text_of(folder / "a/ablation.json"));
  REQUIRE(j["rows"].size() == 2);
  double difference = 0;
  for (std::size_t k = 0; k < 2; ++k) {
    const std::string log =
        text_of(folder / ("a/whole-polyline-" + std::to_string(k) + "/log.jsonl"));
    const double accuracy = nlohmann::json::parse(log)["test_ema_acc1"];
    CHECK(j["rows"][1]["values"][k] == accuracy);
    difference += (accuracy - j["rows"][0]["values"][k].get<double>()) / 2;
  }
  CHECK(j["rows"][1]["minus_none"].get<double>() == Approx(difference));
  CHECK(read_file(folder / "a/ablation.png").size() > 1000);
  CHECK(j["figure"] == "accuracy");
  CHECK(whole.out.find("timing 2 networks in turns") != std::string::npos);
  for (const char* cost : {"parameters", "backbone_macs", "training_images_per_s",
                           "inference_images_per_s", "training_peak_bytes"})
    CHECK(j["rows"][1]["costs"][cost].get<double>() > 0);
  CHECK(j["rows"][1]["costs"]["parameters"] > j["rows"][0]["costs"]["parameters"]);
  // What was measured stays, and is not measured again.
  const Result shown = run(command + " --report");
  CHECK(shown.out.find("timing") == std::string::npos);
  CHECK(nlohmann::json::parse(text_of(folder / "a/ablation.json")) == j);
  CHECK(text_of(folder / "a/ablation.html").find("Learning curves") != std::string::npos);

  // One of the runs by `train` alone: the same.
  REQUIRE(run("train --data paths --question curve --difficulty 1 --images 16 --test-images 8 "
              "--size 32 --batch 8 --epochs 1 --threads 1 --seed 1 --config " +
              folder / "a/networks/whole-polyline.json" + " --out " + folder / "one")
              .code == 0);
  CHECK(read_file(folder / "one/last.safetensors") ==
        read_file(folder / "a/whole-polyline-1/last.safetensors"));

  CHECK(run(command + " --lr 1").err.find("was trained with other options") != std::string::npos);
  CHECK(run(twice + " --part 0/2").err.find("--part is for one process") != std::string::npos);
  CHECK(run(command + " --part 2/2").err.find("must be K/N") != std::string::npos);
  CHECK(run(command + " --masks square").err.find("there is no mask \"square\"") !=
        std::string::npos);
  CHECK(run("train --difficulty 2").err.find("--difficulty is for --data paths") !=
        std::string::npos);
  CHECK(run("train --data paths --question why").err.find("there is no question \"why\"") !=
        std::string::npos);
}

TEST_CASE("tool: ablate on segmentation: mIoU of the same runs as train's", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string how =
      " --task segment --head semantic_fpn --images 8 --test-images 4 --size 48 --batch 4 --epochs "
      "2 --ema 0.5 --threads 1 --evaluate-every 1 --out " +
      folder / "";
  const std::string command = "ablate --masks none,polyline --seeds 1 --no-bench" + how + "a";
  const Result first = run(command);
  INFO(first.err);
  REQUIRE(first.code == 0);
  const auto j = nlohmann::json::parse(text_of(folder / "a/ablation.json"));
  CHECK(j["figure"] == "mIoU");
  CHECK(!j["rows"][0].contains("costs"));
  std::istringstream lines(text_of(folder / "a/whole-polyline-0/log.jsonl"));
  double mean = 0, last = 0;
  for (std::string line; std::getline(lines, line); mean += last / 2)
    last = 100 * nlohmann::json::parse(line)["ema_mIoU"].get<double>();
  CHECK(j["rows"][1]["values"][0].get<double>() == Approx(last));
  CHECK(j["rows"][1]["over_epochs"]["values"][0].get<double>() == Approx(mean));
  CHECK(run(command).out.find("run 1 of 2") == std::string::npos);  // they are there
  CHECK(run(command + " --crop 32").err.find("was trained with other options") !=
        std::string::npos);
  REQUIRE(run("train --config " + folder / "a/networks/whole-polyline.json" + how + "one").code ==
          0);
  CHECK(read_file(folder / "one/last.safetensors") ==
        read_file(folder / "a/whole-polyline-0/last.safetensors"));
  CHECK(run("ablate --head upernet").err.find("--head is for --task segment") != std::string::npos);
}
