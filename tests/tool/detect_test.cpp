// train and predict with --task detect and --task segment as a user meets them.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/label_map.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/stb.hpp"
#include "ppma/vis/report.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;
using nlohmann::json;

namespace detect_test {

// The option for a network of half the arithmetic, where a test is about the run.
std::string light(const Folder& folder, const std::string& task) {
  const bool detects = task.starts_with("detect");
  const std::string file = folder / (detects ? "detector.json" : "segmentor.json");
  write_file(file, std::string_view(
                       detects ? R"({"channels": 16, "fc_channels": 32, "backbone": {"embed_dims":
                                  [8, 8, 16, 16], "depths": [1, 0, 0, 1],
                                  "num_heads": [1, 1, 1, 1]}})"
                               : R"({"channels": 16, "backbone": {"embed_dims": [8, 8, 16, 16],
                                  "depths": [1, 0, 0, 1], "num_heads": [1, 1, 1, 1]}})"));
  return std::string(detects ? " --detector '" : " --segmentor '") + file + "'";
}

}  // namespace detect_test

TEST_CASE("tool: a detector is trained, resumed, and finds things in a picture", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run";
  const Result first =
      run("train --task detect --images 8 --test-images 4 --size 64 --epochs 2 --batch 4 "
          "--stop-after 1 --out '" +
          out + "'");
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(first.out.find("loss_rpn_bbox") != std::string::npos);
  CHECK(first.out.find("masks  AP") != std::string::npos);
  REQUIRE(run("train --resume '" + out + "'").code == 0);
  CHECK(read_image(out + "/pictures/epoch_2.png").dim(0) > 500);
  const std::string log = text_of(out + "/log.jsonl");
  CHECK(std::count(log.begin(), log.end(), '\n') == 2);
  CHECK(json::parse(log.substr(0, log.find('\n'))).contains("segm_mAP_50"));
  const std::string page = text_of(out + "/report.html");
  CHECK(report_epoch(page) == 2);
  for (const char* part :
       {"mask AP75", "of 4 images, by their panoptic quality", "images/s", "<polyline",
        "data:image/png;base64,", "warmup_iterations", "Configuration: backbone"})
    CHECK(page.find(part) != std::string::npos);
  // Of options that say nothing of generated images, or of a detector, there is no word.
  for (const char* none : {">no_exif<", ">difficulty<", ">longer<", ">momentum<", ">mixup<"})
    CHECK(page.find(none) == std::string::npos);
  // Decays over training, of the part before it was resumed too.
  for (const char* part : {"<img data-epoch=\"1\"", "<img data-epoch=\"2\""})
    CHECK(page.find(part) != std::string::npos);
  CHECK(read_image(out + "/history/epoch_2.png").shape() == Shape{4 * 114, 3 * 114, 3});
  CHECK(text_of(out + "/curve.svg").starts_with("<svg xmlns="));
  CHECK(text_of(out + "/curve.png").starts_with("\x89PNG"));

  write_png(folder / "a.png", draw_shapes({.height = 50, .width = 70}, 1).image);
  const Result p =
      run("predict --task detect --json --weights '" + out + "/best.safetensors' --out '" +
          folder / "p" + "' '" + folder / "a.png" + "'");
  INFO(p.err);
  REQUIRE(p.code == 0);
  CHECK(json::parse(p.out).at(0).at("image_id") == 1);
  CHECK(read_image(folder / "p" + "/a.png").dim(1) % 70 == 0);
  CHECK(json::parse(text_of(folder / "p" + "/results.json")).is_array());
  CHECK(run("train --task detect --data coco --data-dir '" + std::string(folder / "") +
            "' --out '" + folder / "q" + "'")
            .err.find("there is none of") != std::string::npos);
  CHECK(run("train --data coco --out '" + folder / "q" + "'").err.find("is for --task detect") !=
        std::string::npos);
}

TEST_CASE("tool: train and predict --task segment, in windows and at several sizes", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run";
  const Result first =
      run("train --task segment --images 8 --test-images 4 --size 64 --epochs 1 --batch 4 --out '" +
          out + "'");
  INFO(first.err);
  REQUIRE(first.code == 0);
  write_png(folder / "a.png", draw_shapes({.height = 50, .width = 70}, 1).image);
  write_png(folder / "thin.png", Tensor::zeros({1, 40, 3}, DType::uint8));
  for (const char* how : {"", "--crop 32", "--crop 32 --stride 16", "--scales 0.5,1 --flip"}) {
    const Result p = run("predict --task segment --json " + std::string(how) + " --weights '" +
                         out + "/best.safetensors' --out '" + folder / "p" + "' '" +
                         folder / "a.png" + "' '" + folder / "thin.png" + "'");
    INFO(how << p.err);
    REQUIRE(p.code == 0);
    CHECK(json::parse(p.out).size() == 2);
    CHECK(read_label_map(folder / "p" + "/a_labels.png").shape() == Shape{50, 70});
    CHECK(read_label_map(folder / "p" + "/thin_labels.png").shape() == Shape{1, 40});
  }
  // What its mask has learnt, of its backbone, whose stages all have decays.
  const Result seen = run("visualize --json --size 64 --statistics 2 --samples 1 --out '" +
                          folder / "m.png" + "' --weights '" + out + "/best.safetensors'");
  INFO(seen.err);
  REQUIRE(seen.code == 0);
  CHECK(json::parse(seen.out)["decays"].size() == 2 + 2 + 3 + 4);
  CHECK(run("predict --task detect --weights '" + out + "/best.safetensors' '" + folder / "a.png" +
            "'")
            .err.find("does not describe a detector") != std::string::npos);
}

TEST_CASE("tool: Semantic FPN is trained, resumed and predicts", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run", all =
                                              "--images 8 --test-images 4 --size 64 --batch 4 "
                                              "--epochs 2 --evaluate-every 1 --stop-after 1 "
                                              "--tensorboard ";
  const Result first =
      run("train --task segment --head semantic_fpn " + all + "--out '" + out + "'");
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(first.out.find("Semantic FPN on ppma_nano") != std::string::npos);
  CHECK(json::parse(text_of(out + "/config.json")).at("head") == "semantic_fpn");
  REQUIRE(run("train --resume '" + out + "'").code == 0);
  const std::string log = text_of(out + "/log.jsonl");
  CHECK(std::count(log.begin(), log.end(), '\n') == 2);
  // Event files: one of each process, the second from the step on where the first stopped.
  std::vector<std::string> events;
  for (const auto& entry : std::filesystem::directory_iterator(out))
    if (entry.path().filename().string().starts_with("events.out.tfevents."))
      events.push_back(entry.path().string());
  std::sort(events.begin(), events.end());
  REQUIRE(events.size() == 2);
  const auto counted = [](const std::string& path, const std::string& word) {
    const std::string text = text_of(path);
    i64 n = 0;
    for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) ++n;
    return n;
  };
  for (const std::string& file : events) {
    CHECK(counted(file, "train/loss") == 2);  // two batches
    CHECK(counted(file, "test/mIoU") == 1);
    CHECK(counted(file, "\x89PNG") == 3);  // decays, confusion, predictions
  }
  // A start of the log at step 3 (field 2), after the version.
  CHECK(text_of(events[0]).find("\x10\x03:\x02\x08\x01") == std::string::npos);
  CHECK(text_of(events[1]).find("\x10\x03:\x02\x08\x01") < 100);
  // The page about the run; where the process died before it was written, its test is made again.
  const auto matrix = [](const std::string& html) {
    const std::size_t begin = html.find("aria-label=\"confusion matrix\"");
    return html.substr(begin, html.find("The run", begin) - begin);
  };
  const std::string page = text_of(out + "/report.html");
  CHECK(report_epoch(page) == 2);
  for (const char* part : {"mean IoU", "best of 4 images", "pyramid_channels", "</i>background"})
    CHECK(page.find(part) != std::string::npos);
  std::filesystem::remove(out + "/report.html");
  REQUIRE(run("train --resume '" + out + "'").code == 0);
  CHECK(matrix(text_of(out + "/report.html")) == matrix(page));
  for (const char* drawing : {"/curve.svg", "/confusion.svg"})
    CHECK(text_of(out + drawing).starts_with("<svg xmlns="));
  CHECK(read_image(out + "/confusion.png").dim(0) > 700);
  // percent: eight images' pixels
  const double pixels = json::parse(log.substr(0, log.find('\n'))).at("acc_seg").get<double>();
  CHECK((pixels > 0 && pixels < 100));
  write_png(folder / "a.png", draw_shapes({.height = 50, .width = 70}, 1).image);
  const Result p =
      run("predict --task segment --json --weights '" + out + "/best.safetensors' --out '" +
          folder / "p" + "' '" + folder / "a.png" + "'");
  INFO(p.err);
  REQUIRE(p.code == 0);
  CHECK(read_label_map(folder / "p" + "/a_labels.png").shape() == Shape{50, 70});
  // The description of a network, as another run wrote it; its head and --head must agree.
  const std::string described = "train --task segment --segmentor '" + out + "/config.json' " +
                                all + "--out '" + folder / "q" + "' ";
  CHECK(run(described).out.find("Semantic FPN") != std::string::npos);
  CHECK(run(described + "--overwrite --head upernet")
            .err.find("describes the head semantic_fpn, not upernet") != std::string::npos);
  CHECK(run("train --task segment --head unet --out '" + folder / "r" + "'").code != 0);
}

TEST_CASE("tool: a detector learns from images at many sizes, cropped", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const auto train = [&](const char* out, const char* more) {
    const Result r =
        run("train --task detect --boxes-only --images 8 --test-images 4 --size 96 --epochs 1 "
            "--batch 4 --out '" +
            folder / out + "' " + more);
    INFO(r.err);
    REQUIRE(r.code == 0);
    return json::parse(text_of(folder / out + "/log.jsonl"));
  };
  const json plain = train("plain", ""), many = train("many", "--multi-scale");
  CHECK(json::parse(text_of(folder / "many" + "/train.json")).at("multi_scale") == true);
  CHECK(many.at("loss").get<double>() != plain.at("loss").get<double>());  // other images
  CHECK(many.contains("bbox_mAP"));
}

TEST_CASE("tool: segmentation and detection begin with a classifier's backbone, frozen or trained",
          "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string weights = folder / "c" + "/best.safetensors";
  const Result classifier =
      run("train --images 16 --test-images 8 --size 32 --epochs 1 --batch 8 --out '" +
          folder / "c" + "'");
  INFO(classifier.err);
  REQUIRE(classifier.code == 0);
  TensorMap published;
  for (const auto& [name, tensor] : read_safetensors(weights).tensors)
    if (!name.starts_with("proj.") && !name.starts_with("norm.") && !name.starts_with("head."))
      published.emplace_back(name, tensor);
  REQUIRE(published.size() > 100);
  for (const std::string task : {"segment", "segment --head semantic_fpn", "detect --boxes-only"})
    for (const bool frozen : {true, false}) {
      INFO(task << (frozen ? ", frozen" : ", trained"));
      const Result r = run("train --task " + task +
                           " --images 8 --test-images 2 --size 64 --epochs 1 --batch 4 "
                           "--warmup-iterations 0 --overwrite --out '" +
                           folder / "d" + "' --weights '" + weights + "'" +
                           (frozen ? " --freeze-backbone" : ""));
      INFO(r.err);
      REQUIRE(r.code == 0);
      CHECK(r.out.find(str("backbone: ", published.size(), " tensors loaded")) !=
            std::string::npos);
      const TensorMap after = read_safetensors(folder / "d" + "/last.safetensors").tensors;
      i64 same = 0;
      for (const auto& [name, tensor] : published) {
        const Tensor* now = find(after, "model.backbone." + name);
        INFO(name);
        REQUIRE(now != nullptr);
        const bool equal = now->to_vector<double>() == tensor.to_vector<double>();
        same += equal;
        if (frozen) CHECK(equal);
      }
      if (!frozen) CHECK(same < static_cast<i64>(published.size()) / 4);
    }
  // Weights of something else.
  write_safetensors(folder / "x.safetensors", {{"a", Tensor::zeros({3})}});
  CHECK(run("train --task detect --images 4 --test-images 2 --size 64 --out '" + folder / "e" +
            "' --weights '" + folder / "x.safetensors" + "'")
            .err.find("nothing in it fits the backbone") != std::string::npos);
}

TEST_CASE("tool: blocks that are computed again give the same weights", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  for (const std::string task :
       {"classify --model ppma_nano --size 32", "segment --size 64", "detect --size 64"}) {
    INFO(task);
    const auto train = [&](const char* out, const char* more) {
      const Result r = run("train --task " + task +
                           " --images 8 --test-images 4 --epochs 1 --batch 4 --overwrite --out '" +
                           folder / out + "' " + more +
                           (task.starts_with("classify") ? "" : detect_test::light(folder, task)));
      INFO(r.err);
      REQUIRE(r.code == 0);
      return read_safetensors(folder / out + "/last.safetensors").tensors;
    };
    const TensorMap kept = train("kept", ""), again = train("again", "--checkpoint-blocks");
    REQUIRE(kept.size() == again.size());
    for (std::size_t i = 0; i < kept.size(); ++i) {
      INFO(kept[i].first);
      REQUIRE(kept[i].second.to_vector<double>() == again[i].second.to_vector<double>());
    }
  }
}

TEST_CASE("tool: bad descriptions and files of segmentation and detection are named", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const auto error = [&](const std::string& arguments) {
    const Result r = run(arguments + " --images 4 --test-images 2 --size 64 --out '" +
                         folder / "run" + "' --overwrite");
    CHECK(r.code != 0);
    return r.err;
  };
  struct Wrong {
    const char *option, *text, *message;
  };
  for (const Wrong& w :
       {Wrong{"detect --detector", R"({"proposals": "many"})",
              "\"proposals\" must be a whole number, not"},
        Wrong{"detect --detector", "[1]", "must be a JSON object"},
        Wrong{"detect --detector", R"({"channels": -8})", "channels is -8; it must be 1 to 65536"},
        Wrong{"segment --segmentor", R"({"head": 7})", "\"head\" must be text, not 7"},
        Wrong{"segment --segmentor", R"({"backbone": {"depths": [1]}})",
              "\"depths\" must be a list of 4, each a whole number"}}) {
    INFO(w.text);
    write_file(folder / "c.json", std::string_view(w.text));
    const std::string said =
        error("train --task " + std::string(w.option) + " '" + folder / "c.json" + "'");
    INFO(said);
    CHECK(said.find(w.message) != std::string::npos);
  }
  write_file(folder / "c.json", std::string_view("{"));
  CHECK(error("train --task detect --detector '" + folder / "c.json" + "'")
            .find("c.json: not JSON, at byte 2") != std::string::npos);
  for (const std::string option : {"--segmentor", "--detector"})
    CHECK(error("train --task " + std::string(option == "--detector" ? "detect " : "segment ") +
                option + " '" + folder / "none.json" + "'")
              .find("none.json") != std::string::npos);
  write_safetensors(folder / "w.safetensors", {{"a", Tensor::zeros({2})}},
                    {{"detector", "{\"head\": 3"}, {"input", "{}"}});
#if PPMA_STB
  write_png(folder / "a.png", Tensor::zeros({8, 8, 3}, DType::uint8));
  const Result damaged = run("predict --task detect --weights '" + folder / "w.safetensors" +
                             "' '" + folder / "a.png" + "'");
  CHECK(damaged.code == 1);
  CHECK(damaged.err.find("w.safetensors: detector: not JSON, at byte") != std::string::npos);
#endif
}

TEST_CASE("tool: a damaged file of a trained network is named, with what is wrong in it",
          "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  write_png(folder / "a.png", draw_shapes({.height = 48, .width = 64}, 1).image);
  struct Wrong {
    const char *key, *value, *message;
  };
  for (const std::string task : {"segment", "detect"}) {
    const std::string out = folder / task;
    REQUIRE(
        run("train --task " + task +
            " --images 4 --test-images 2 --size 64 --epochs 2 --batch 4 --stop-after 1 --out '" +
            out + "'" + detect_test::light(folder, task))
            .code == 0);
    const Safetensors whole = read_safetensors(out + "/last.safetensors");
    const auto predict = [&](const char* part, const std::string& text) {
      auto metadata = whole.metadata;
      metadata[part] = text;
      write_safetensors(folder / "w.safetensors", whole.tensors, metadata);
      const Result r = run("predict --task " + task + " --weights '" + folder / "w.safetensors" +
                           "' --out '" + folder / "p" + "' '" + folder / "a.png" + "'");
      CHECK(r.code == 1);
      CHECK(r.err.find("w.safetensors: ") != std::string::npos);
      return r.err;
    };
    const auto check_one = [&](const Wrong& w) {
      INFO(task << " " << w.key << " " << w.value);
      json input = json::parse(whole.metadata.at("input"));
      input[w.key] = json::parse(w.value);
      const std::string said = predict("input", input.dump());
      INFO(said);
      CHECK(said.find(w.message) != std::string::npos);
    };
    for (const Wrong& w :
         {Wrong{"classes", "[\"a\"]", "\"classes\" has 1 entries, the network tells 1"},
          Wrong{"classes", "[]", "\"classes\" has 0 entries"},
          Wrong{"classes", "[1]", "\"classes[0]\" must be text, not 1"},
          Wrong{"classes", "null", "has no \"classes\""},
          Wrong{"longer", "0", "\"longer\" must be at least 1, not 0"},
          Wrong{"longer", "\"64\"", "\"longer\" must be a whole number, not \"64\""},
          Wrong{"shorter", "-4", "\"shorter\" must be at least 1, not -4"},
          Wrong{"mean", "[0, 0]", "\"mean\" must be a list of 3, each a number"},
          Wrong{"deviation", "[1, 0, 1]", "\"deviation\" must be positive, not 0"}})
      check_one(w);
    if (task == "detect") check_one({"category_ids", "[]", "\"category_ids\" has 0 entries"});
    CHECK(predict("input", "[]").find("must be a JSON object, not array") != std::string::npos);
    CHECK(predict(task == "detect" ? "detector" : "segmentor", R"({"channels": "many"})")
              .find("\"channels\" must be a whole number") != std::string::npos);

    // The same of a run's own files.
    const auto resumed = [&](const char* name, const std::string& from, const std::string& to) {
      const std::string path = out + "/" + name, before = text_of(path);
      std::string after = before;
      after.replace(after.find(from), from.size(), to);
      write_file(path, std::string_view(after));
      const Result r = run("train --resume '" + out + "'");
      write_file(path, std::string_view(before));
      CHECK(r.code == 1);
      return r.err;
    };
    CHECK(resumed("train.json", "\"batch\": 4", "\"batch\": \"4\"")
              .find("train.json: \"batch\" must be a whole number, not \"4\"") !=
          std::string::npos);
    CHECK(resumed("train.json", "\"task\": \"", "\"task\": \"x")
              .find("train.json: there is no task \"x" + task) != std::string::npos);
    CHECK(resumed("log.jsonl", "\"epoch\":0", "\"epoch\":\"0\"")
              .find("log.jsonl: line 1: \"epoch\" must be a whole number") != std::string::npos);
  }
}

TEST_CASE("tool: numbers that no run can have are refused by the option's name", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  struct Wrong {
    std::string arguments;
    const char* message;
  };
  const std::string coco = "detect --data coco --data-dir '" + folder / "" + "' ";
  std::vector<Wrong> all{{coco + "--longer 0 --shorter 0", "--shorter must be at least 1"},
                         {coco + "--shorter 0", "--longer and --shorter must be at least 1"},
                         {"segment --longer -3", "--longer: -3 is not in range 0, or 1 to "},
                         {"detect --steps 0", "--steps: 0 is not in range 1 to "},
                         {"segment --crop -32", "--crop: -32 is not in range 0, or 32 to "},
                         {"segment --crop 16", "--crop: 16 is not in range 0, or 32 to "},
                         {"segment --least-factor 0", "--least-factor: 0 is not in range 0.01 to "},
                         {"segment --most-factor 0.1", "at most --most-factor 0.1"}};
  for (const std::string task : {"segment", "detect"})
    for (const char* option : {"--epochs", "--batch", "--evaluate-every", "--stop-after",
                               "--warmup-iterations", "--lr", "--weight-decay", "--clip"})
      all.push_back({task + " " + option + " -3", option});
  for (const std::string task : {"segment", "detect"})
    for (const char* option : {"--epochs", "--batch", "--evaluate-every"})
      all.push_back({task + " " + option + " 0", ": 0 is not in range 1 to "});
  for (const Wrong& w : all) {
    const Result r = run("train --out '" + folder / "run" + "' --task " + w.arguments);
    INFO(w.arguments << ": " << r.err);
    CHECK((r.code == 1 || r.code == 2));
    CHECK(r.out.empty());
    CHECK(r.err.starts_with("ppma: --"));
    CHECK(r.err.find(w.message) != std::string::npos);
  }
}

TEST_CASE("tool: predict writes over nothing that it reads, and no result over another", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  for (const char* name : {"x", "y"}) std::filesystem::create_directory(folder / name);
  const Tensor image = draw_shapes({.height = 48, .width = 64}, 1).image;
  for (const char* name : {"a.png", "a_labels.png", "x/same.png", "y/same.png"})
    write_png(folder / name, image);
  std::filesystem::create_symlink(folder / "a.png", folder / "x/a.png");
  const std::vector<u8> photograph = read_file(folder / "a.png");
  for (const std::string task : {"segment", "detect"}) {
    const std::string out = folder / task, begin = "predict --task " + task + " --weights '" + out +
                                                   "/last.safetensors' --out '" + folder / "";
    REQUIRE(run("train --task " + task +
                " --images 4 --test-images 2 --size 64 --epochs 1 --batch 4 --out '" + out + "'")
                .code == 0);
    for (const std::string to : {".", "x"}) {  // a.png itself, and a link to it
      const Result r = run(begin + to + "' '" + folder / "a.png" + "'");
      INFO(r.err);
      CHECK(r.code == 1);
      CHECK(r.err.find("a.png would be overwritten") != std::string::npos);
    }
    const Result both =
        run(begin + "p' '" + folder / "x/same.png" + "' '" + folder / "y/same.png" + "'");
    CHECK(both.code == 1);
    CHECK(both.err.find("x/same.png and ") != std::string::npos);
    CHECK(both.err.find("would both be written to ") != std::string::npos);
    CHECK(!std::filesystem::exists(folder / "p"));
    CHECK(read_file(folder / "a.png") == photograph);
    CHECK(run(begin + "q' '" + folder / "a.png" + "' '" + folder / "x/same.png" + "'").code == 0);
    // The label map of a.png has the name of a_labels.png's picture.
    CHECK(run(begin + "q' '" + folder / "a.png" + "' '" + folder / "a_labels.png" + "'").code ==
          (task == "segment" ? 1 : 0));
  }
}

TEST_CASE("tool: a detector's rate falls as published, and not at all in a very short run",
          "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const auto train = [&](const std::string& more) {
    const Result r =
        run("train --task detect --boxes-only --images 2 --test-images 1 --size 64 --batch 2 --lr "
            "1e-3 --warmup-iterations 0 --overwrite --out '" +
            folder / "run" + "' " + more + detect_test::light(folder, "detect"));
    INFO(r.err);
    REQUIRE(r.code == 0);
  };
  const auto rates = [&](const std::string& more) {
    train(more);
    std::istringstream lines(text_of(folder / "run" + "/log.jsonl"));
    std::vector<double> all;
    for (std::string line; std::getline(lines, line);)
      all.push_back(json::parse(line).at("lr").get<double>());
    return all;
  };
  const auto are = [](const std::vector<double>& got, const std::vector<double>& expected) {
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(expected[i]));
  };
  are(rates("--epochs 1"), {1e-3});
  are(rates("--epochs 3"), {1e-3, 1e-3, 1e-3});
  are(rates("--epochs 4"), {1e-3, 1e-3, 1e-4, 1e-5});
  are(rates("--epochs 3 --steps 1"), {1e-3, 1e-4, 1e-4});
  const auto steps = [&](const char* epochs) {
    train(std::string("--stop-after 1 --epochs ") + epochs);
    return json::parse(text_of(folder / "run" + "/train.json")).at("steps").get<std::vector<i64>>();
  };
  CHECK(steps("12") == std::vector<i64>{8, 11});
  CHECK(steps("24") == std::vector<i64>{16, 22});
  CHECK(steps("36") == std::vector<i64>{27, 33});
}

TEST_CASE("tool: without anything to score there is a log without figures, and no best file",
          "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  namespace fs = std::filesystem;
  for (const char* part : {"train", "val"}) {
    for (const char* kind : {"s/img_dir/", "s/ann_dir/", "d/images/"})
      fs::create_directories(folder / kind + part);
    for (const char* name : {"/0.png", "/1.png"}) {
      const Scene scene = draw_shapes({.height = 48, .width = 64}, 1);
      write_png(folder / "s/img_dir/" + part + name, scene.image),
          write_png(folder / "d/images/" + part + name, scene.image);
      write_png(folder / "s/ann_dir/" + part + name,
                Tensor::full({48, 64, 1}, part[0] == 'v' ? 255 : 1, DType::uint8));
    }
  }
  write_file(folder / "s/classes.txt", std::string_view("a\nb\n"));
  fs::create_directory(folder / "d/annotations");
  const json images = json::parse(
      R"([{"id": 1, "file_name": "0.png", "height": 48, "width": 64}, {"id": 2, "file_name": "1.png", "height": 48, "width": 64}])");
  const json object = json::parse(
      R"([{"id": 1, "image_id": 1, "category_id": 2, "bbox": [10, 12, 30, 25], "area": 750, "iscrowd": 0}])");
  for (const bool train : {true, false})
    write_file(folder / (train ? "d/annotations/instances_train.json"
                               : "d/annotations/instances_val.json"),
               std::string_view(json{{"images", images},
                                     {"categories", {{{"id", 2}, {"name", "a"}}}},
                                     {"annotations", train ? object : json::array()}}
                                    .dump()));
  for (const std::string task : {"segment --data folder --crop 32",
                                 "detect --data coco --boxes-only --longer 64 --shorter 48"}) {
    const std::string out = folder / "run";
    const Result r = run("train --overwrite --epochs 2 --stop-after 1 --batch 2 --data-dir '" +
                         folder / task.substr(0, 1) + "' --out '" + out + "' --task " + task);
    INFO(task << r.err);
    REQUIRE(r.code == 0);
    CHECK(r.out.find("best.safetensors; the weights are in ") != std::string::npos);
    CHECK(!fs::exists(out + "/best.safetensors"));
    const json record = json::parse(text_of(out + "/log.jsonl"));
    CHECK((!record.contains("mIoU") && record.contains("loss")));
    REQUIRE(run("train --resume '" + out + "'").code == 0);
  }
}

TEST_CASE("tool: --overwrite with a mistake in another option costs no run", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run",
                    files[] = {"/log.jsonl", "/last.safetensors", "/train.json", "/config.json"};
  write_file(folder / "c.json", std::string_view(R"({"chanels": 8})"));
  for (const std::string task : {"classify", "segment", "detect"}) {
    const std::string begin = "train --overwrite --out '" + out + "' --task " + task;
    REQUIRE(run(begin + " --images 4 --test-images 2 --size 64 --batch 2 --epochs 1" +
                (task == "classify" ? "" : detect_test::light(folder, task)))
                .code == 0);
    std::vector<std::vector<u8>> before;
    for (const std::string& f : files) before.push_back(read_file(out + f));
    std::vector<std::string> mistakes{" --data folder --data-dir '" + folder / "" + "'",
                                      " --model ppma_gigantic"};
    if (task == "segment") mistakes.push_back(" --segmentor '" + folder / "c.json" + "'");
    if (task == "detect") mistakes.push_back(" --detector '" + folder / "c.json" + "'");
    for (const std::string& mistake : mistakes) {
      INFO(task << mistake);
      CHECK(run(begin + mistake).code > 0);
      for (std::size_t i = 0; i < before.size(); ++i) CHECK(read_file(out + files[i]) == before[i]);
    }
    const std::string elsewhere = folder / "new";
    CHECK(run("train --out '" + elsewhere + "' --model ppma_gigantic --task " + task).code > 0);
    CHECK(!std::filesystem::exists(elsewhere));
  }
}

TEST_CASE("tool: a set whose first image is a line is segmented", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  for (const char* part : {"train", "val"}) {
    for (const char* kind : {"img_dir/", "ann_dir/"})
      std::filesystem::create_directories(folder / kind + part);
    for (const i64 height : {1, 48}) {
      const std::string name = str("/", height, ".png");
      write_png(folder / "img_dir/" + part + name, Tensor::zeros({height, 64, 3}, DType::uint8));
      write_png(folder / "ann_dir/" + part + name, Tensor::zeros({height, 64, 1}, DType::uint8));
    }
  }
  write_file(folder / "classes.txt", std::string_view("a\nb\n"));
  const Result r = run("train --task segment --data folder --batch 2 --epochs 1 --data-dir '" +
                       folder / "" + "' --out '" + folder / "run" + "'");
  INFO(r.err);
  CHECK(r.code == 0);
  const json options = json::parse(text_of(folder / "run" + "/train.json"));
  CHECK((options.at("longer") == 64 && options.at("shorter") == 32 && options.at("crop") == 32));
}

TEST_CASE(
    "tool: --model, --mask and --drop-path are about the backbone of segmentation and detection, "
    "in every command",
    "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run";
  const auto described = [&](const std::string& arguments) {
    const Result r =
        run("train --images 2 --test-images 1 --size 32 --batch 2 --epochs 1 --overwrite --out '" +
            out + "' --task " + arguments);
    INFO(arguments << ": " << r.err);
    REQUIRE(r.code == 0);
    return json::parse(text_of(out + "/config.json"));
  };
  write_file(folder / "few.json",
             std::string_view(R"({"channels": 24, "backbone": {"projection": 32}})"));
  for (const std::string task : {"segment", "segment --head semantic_fpn", "detect"}) {
    INFO(task);
    const std::string own = " --" + std::string(task == "detect" ? "detector" : "segmentor") +
                            " '" + folder / "few.json" + "'";
    const json small = described(task), drop = described(task + " --mask none --drop-path 0.3"),
               on_top = described(task + own);
    CHECK((small.at("channels") == 64 && small.at("backbone").at("name") == "ppma_nano" &&
           small.at("backbone").at("mask") == "polyline"));
    CHECK((drop.at("channels") == 64 && drop.at("backbone").at("mask") == "none" &&
           drop.at("backbone").at("drop_path_rate") == 0.3));
    CHECK((on_top.at("channels") == 24 && on_top.at("backbone").at("projection") == 32 &&
           on_top.at("backbone").at("name") == "ppma_nano"));
  }
  // The published heads, from which a few keys make what is quick to train.
  write_file(
      folder / "light.json",
      std::string_view(
          R"({"channels": 16, "backbone": {"embed_dims": [8, 8, 16, 16], "depths": [1, 0, 0, 1], "num_heads": [1, 1, 1, 1]}})"));
  const json upernet =
      described("segment --model rmt_small --segmentor '" + folder / "light.json" + "'");
  CHECK((upernet.at("channels") == 16 && upernet.at("auxiliary_channels") == 256 &&
         upernet.at("backbone").at("name") == "rmt_small" &&
         upernet.at("backbone").at("mask") == "rmt"));
  const json rcnn =
      described("detect --model ppma_small --detector '" + folder / "light.json" + "'");
  CHECK((rcnn.at("channels") == 16 && rcnn.at("fc_channels") == 1024 &&
         rcnn.at("proposals") == 1000 && rcnn.at("backbone").at("drop_path_rate") == 0.15));
  // A whole description, as a run wrote it, is read by all.
  const std::string config = folder / "whole.json";
  write_file(config, std::string_view(rcnn.dump()));
  CHECK(described("detect --config '" + config + "'") == rcnn);
  const auto bench = [](const std::string& arguments) {
    const Result r = run(
        "bench --size 32 --batch 1 --threads 1 --repeat 1 --warmup 0 --json --task " + arguments);
    INFO(arguments << ": " << r.err);
    REQUIRE(r.code == 0);
    return json::parse(r.out);
  };
  const json measured =
      bench("detect --model ppma_small --mask none --detector '" + folder / "light.json" + "'");
  CHECK((measured.at("model") == "mask_rcnn ppma_small" && measured.at("mask") == "none"));
  CHECK(bench("detect --config '" + config + "' --mask none").at("model") ==
        "mask_rcnn ppma_small");
  CHECK(bench("segment --model ppma_nano").at("peak_tensors_MiB") <
        bench("segment --model ppma_tiny").at("peak_tensors_MiB"));
  const auto peak_of_step = [](const std::string& more) {
    const Result r =
        run("bench --task segment --model ppma_nano --train --size 128 --batch 2 --threads 1 "
            "--repeat 1 --warmup 0 --json " +
            more);
    INFO(r.err);
    REQUIRE(r.code == 0);
    return json::parse(r.out).at("peak_tensors_MiB").get<double>();
  };
  CHECK(peak_of_step("--checkpoint-blocks") < peak_of_step(""));
  Rng rng(1);
  write_safetensors(folder / "image", {{"input", Tensor::randn({1, 3, 32, 64}, rng)}}, {});
  REQUIRE(run("run --task segment --model ppma_small --segmentor '" + folder / "light.json" +
              "' --input '" + folder / "image" + "' --output '" + folder / "o" + "'")
              .code == 0);
  const json ran = json::parse(read_safetensors(folder / "o").metadata.at("config"));
  CHECK((ran.at("channels") == 16 && ran.at("num_classes") == 150 &&
         ran.at("backbone").at("name") == "ppma_small"));
  // predict goes by the options too; the weights say how many classes there are.
  described("segment");
  write_png(folder / "a.png", draw_shapes({.height = 48, .width = 64}, 1).image);
  const auto predict = [&](const std::string& more) {
    return run("predict --task segment --weights '" + out + "/last.safetensors' --out '" +
               folder / "p" + "' '" + folder / "a.png" + "' " + more);
  };
  const auto labels = [&](const std::string& more) {
    const Result r = predict(more);
    INFO(more << ": " << r.err);
    REQUIRE(r.code == 0);
    return read_label_map(folder / "p" + "/a_labels.png").to_vector<double>();
  };
  CHECK(labels("--model ppma_nano") == labels(""));
  CHECK(labels("--entry model") == labels(""));
  // of the weights, not of this network
  CHECK(predict("--mask none").err.find("path_embed") != std::string::npos);
  CHECK(predict("--entry foo").err.find("has no part \"foo\"") != std::string::npos);
}

TEST_CASE("tool: an option of another task is refused by its name", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  write_file(folder / "c.json", std::string_view("{}"));
  write_file(folder / "i.png", std::string_view("x"));
  write_file(folder / "w.pth", std::string_view("x"));
  struct Command {
    std::string begin;
    std::vector<std::string> tasks, options;
    const char* whose;
  };
  const std::string json_file = " '" + folder / "c.json" + "'",
                    predict =
                        "predict '" + folder / "i.png" + "' --weights '" + folder / "w.pth" + "'",
                    dense = "--task segment and detect";
  for (const Command& c :
       {Command{"train",
                {"segment", "detect"},
                {"--repeats 3", "--mixup 1", "--cutmix 1", "--erasing 0.1", "--label-smoothing 0.1",
                 "--warmup 1", "--rand-augment 9", "--rate-per-epoch", "--balanced"},
                "--task classify"},
        Command{"train",
                {"classify"},
                {"--longer 64", "--shorter 64", "--warmup-iterations 3", "--freeze-backbone"},
                dense.c_str()},
        Command{"train",
                {"classify", "segment"},
                {"--boxes-only", "--multi-scale", "--detector" + json_file},
                "--task detect"},
        Command{"train",
                {"classify", "detect"},
                {"--head upernet", "--crop 64", "--least-factor 1", "--most-factor 1",
                 "--segmentor" + json_file},
                "--task segment"},
        Command{predict, {"segment", "detect"}, {"--top 3"}, "--task classify"},
        Command{predict, {"classify"}, {"--out x"}, dense.c_str()},
        Command{predict, {"classify", "segment"}, {"--least-score 0.1"}, "--task detect"},
        Command{predict,
                {"classify", "detect"},
                {"--crop 64", "--stride 3", "--scales 1", "--flip"},
                "--task segment"},
        Command{"bench",
                {"classify", "segment"},
                {"--heads-only", "--detector" + json_file},
                "--task detect"},
        Command{"bench", {"classify", "detect"}, {"--segmentor" + json_file}, "--task segment"}})
    for (const std::string& task : c.tasks)
      for (const std::string& option : c.options) {
        const Result r = run(c.begin + " --task " + task + " " + option);
        INFO(c.begin << " " << task << " " << option << ": " << r.err);
        CHECK(r.code == 1);
        CHECK(r.err.find(option.substr(0, option.find(' ')) + " is for " + c.whose + ", not " +
                         task) != std::string::npos);
      }
  CHECK(run("train --task segment --data folder --data-dir '" + folder / "" + "' --size 64")
            .err.find("--size is for --data shapes") != std::string::npos);
  CHECK(run("train --task detect --longer 64").err.find("--longer is for --data coco") !=
        std::string::npos);
}

TEST_CASE("tool: predict writes results that eval-coco scores, with the numbers of the annotations",
          "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  std::filesystem::create_directory(folder / "y");
  for (const char* name : {"a.png", "y/b.png"})
    write_png(folder / name, draw_shapes({.height = 48, .width = 64}, 1).image);
  // The names of classes in another order, and other numbers than ours.
  json categories = json::array();
  const std::vector<std::string> figures = figure_names();
  for (std::size_t c = figures.size(); c-- > 0;)
    categories.push_back({{"id", 100 - c}, {"name", figures[c]}});
  categories.push_back({{"id", 7}, {"name", "background"}});
  const json gt{{"images",
                 {{{"id", 31}, {"file_name", "a.png"}, {"height", 48}, {"width", 64}},
                  {{"id", 12}, {"file_name", "y/b.png"}, {"height", 48}, {"width", 64}}}},
                {"categories", categories},
                {"annotations",
                 {{{"id", 1},
                   {"image_id", 31},
                   {"category_id", 7},
                   {"bbox", {0, 0, 64, 48}},
                   {"area", 3072},
                   {"iscrowd", 0},
                   {"segmentation", {{0, 0, 64, 0, 64, 48, 0, 48}}}}}}};
  write_file(folder / "gt.json", std::string_view(gt.dump()));
  for (const std::string task : {"segment", "detect"}) {
    const std::string out = folder / task,
                      begin = "predict --task " + task + " --json --weights '" + out +
                              "/last.safetensors' --out '" + folder / "p" + "' ",
                      both = "'" + folder / "a.png" + "' '" + folder / "y/b.png" + "' ";
    REQUIRE(run("train --task " + task +
                " --images 4 --test-images 2 --size 64 --epochs 1 --batch 4 --out '" + out + "'")
                .code == 0);
    const auto predicted = [&](const std::string& more) {
      const Result r = run(begin + both + more);
      INFO(r.err);
      REQUIRE(r.code == 0);
      return json::parse(r.out);
    };
    const json plain = predicted(""), numbered = predicted("--gt '" + folder / "gt.json" + "'");
    CHECK((plain.at(0).at("image_id") == 1 && plain.at(1).at("image_id") == 2));
    CHECK((numbered.at(0).at("image_id") == 31 && numbered.at(1).at("image_id") == 12));
    const json images = json::parse(text_of(folder / "p/images.json")),
               results = json::parse(text_of(folder / "p/results.json"));
    CHECK((images.at("images").at(1).at("file_name") == "b.png" &&
           images.at("images").at(1).at("id") == 12 &&
           images.at("images").at(1).at("width") == 64));
    const Result scored =
        run("eval-coco --json --type " + std::string(task == "segment" ? "segm" : "bbox") +
            " --gt '" + folder / "gt.json" + "' --dt '" + folder / "p/results.json" + "'");
    INFO(scored.err);
    CHECK(scored.code == 0);
    CHECK(scored.err.empty());  // every category is one of the annotations'
    if (task == "segment") {
      // Every pixel is in one mask.
      double shares = 0;
      for (const json& r : results) {
        CHECK((r.at("image_id") == 31 || r.at("image_id") == 12));
        CHECK(r.at("segmentation").at("size") == json::array({48, 64}));
        const std::string name = r.at("category_id") == 7
                                     ? "background"
                                     : figures[100 - r.at("category_id").get<std::size_t>()];
        shares += numbered.at(r.at("image_id") == 31 ? 0 : 1).at("shares").at(name).get<double>();
      }
      CHECK(shares == Approx(2));
    }
    json other = gt;
    other["images"][0]["file_name"] = "aa.png";
    write_file(folder / "other.json", std::string_view(other.dump()));
    CHECK(run(begin + both + "--gt '" + folder / "other.json" + "'")
              .err.find("has no image with the file_name of " + folder / "a.png") !=
          std::string::npos);
  }
}

TEST_CASE(
    "tool: predict takes weights that say nothing of their network, with what the options say",
    "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  write_png(folder / "a.png", draw_shapes({.height = 48, .width = 64}, 1).image);
  for (const std::string task : {"segment", "segment --head semantic_fpn", "detect"}) {
    INFO(task);
    const std::string out = folder / "run", name = task.substr(0, task.find(' '));
    REQUIRE(run("train --overwrite --task " + task +
                " --images 4 --test-images 2 --size 64 --epochs 1 --batch 4 --out '" + out + "'" +
                detect_test::light(folder, task))
                .code == 0);
    const Safetensors trained = read_safetensors(out + "/last.safetensors");
    TensorMap bare;
    for (const auto& [key, tensor] : trained.tensors)
      if (key.starts_with("model.")) bare.emplace_back(key.substr(6), tensor);
    save_weights(folder / "w.pth", bare);
    const auto classes =
        json::parse(trained.metadata.at("input")).at("classes").get<std::vector<std::string>>();
    std::string names;
    for (const std::string& c : classes) names += c + "\n";
    write_file(folder / "names.txt", std::string_view(names));
    const auto predict = [&](const std::string& weights, const std::string& more) {
      const Result r = run("predict --json --task " + name + " --out '" + folder / "p" + "' '" +
                           folder / "a.png" + "' --weights '" + weights + "' " + more);
      INFO(r.err);
      return r;
    };
    const std::string how = "--config '" + out + "/config.json' --longer 64 --shorter 64 ";
    const Result r = predict(folder / "w.pth", how + "--classes '" + folder / "names.txt" + "'");
    INFO(r.err);
    REQUIRE(r.code == 0);
    CHECK(json::parse(text_of(folder / "p/images.json")).at("categories").at(0).at("name") ==
          classes[0]);
    REQUIRE(predict(folder / "w.pth", how).code == 0);
    const std::vector<u8> bare_labels =
        name == "segment" ? read_file(folder / "p/a_labels.png") : std::vector<u8>{};
    CHECK(json::parse(text_of(folder / "p/images.json")).at("categories").at(1).at("name") ==
          "class 1");
    CHECK(predict(folder / "w.pth", "").err.find("w.pth: does not describe a ") !=
          std::string::npos);
    write_file(folder / "names.txt", std::string_view("one\n"));
    CHECK(predict(folder / "w.pth", how + "--classes '" + folder / "names.txt" + "'")
              .err.find("names.txt: names 1 classes, the network tells ") != std::string::npos);
    // The same network as in the run's file, which describes itself, with --config or without. (The
    // detector learnt with other colours than the published ones.)
    for (const std::string& more : {std::string(), "--config '" + out + "/config.json'"}) {
      REQUIRE(predict(out + "/last.safetensors", more).code == 0);
      if (name == "segment") CHECK(read_file(folder / "p/a_labels.png") == bare_labels);
    }
  }
}

TEST_CASE(
    "tool: a resumed run of segmentation or detection ends in the same weights as one without a "
    "stop",
    "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  for (const std::string task : {"segment", "segment --head semantic_fpn --drop-path 0.2", "detect",
                                 "detect --boxes-only --multi-scale"}) {
    INFO(task);
    const std::string begin =
        "train --overwrite --images 8 --test-images 2 --size 64 --epochs 3 --batch 4 "
        "--evaluate-every 1 --task " +
        task + detect_test::light(folder, task);
    REQUIRE(run(begin + " --out '" + folder / "a" + "'").code == 0);
    REQUIRE(run(begin + " --stop-after 1 --out '" + folder / "b" + "'").code == 0);
    CHECK(read_file(folder / "a/last.safetensors") != read_file(folder / "b/last.safetensors"));
    REQUIRE(run("train --resume '" + folder / "b" + "'").code == 0);
    CHECK(read_file(folder / "a/last.safetensors") == read_file(folder / "b/last.safetensors"));
    REQUIRE(std::filesystem::exists(folder / "a/best.safetensors") ==
            std::filesystem::exists(folder / "b/best.safetensors"));
    if (std::filesystem::exists(folder / "a/best.safetensors"))
      CHECK(read_file(folder / "a/best.safetensors") == read_file(folder / "b/best.safetensors"));
    CHECK(text_of(folder / "a/config.json") == text_of(folder / "b/config.json"));
    // And its log says the same, but for the time it took.
    const auto log = [&](const char* run_folder) {
      std::istringstream lines(text_of(folder / run_folder + "/log.jsonl"));
      std::vector<json> all;
      for (std::string line; std::getline(lines, line);)
        all.push_back(json::parse(line)), all.back().erase("seconds"),
            all.back().erase("data_seconds");
      return all;
    };
    CHECK(log("a").size() == 3);
    CHECK(log("a") == log("b"));
  }
}
