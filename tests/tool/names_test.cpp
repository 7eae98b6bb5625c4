// What weights say of their input and classes is what counts, for data of any other kind and order.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/safetensors.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// A network that is small enough to learn three colours in a second.
constexpr std::string_view small = R"({"embed_dims": [8, 8, 16, 16], "depths": [1, 0, 1, 1],
  "num_heads": [1, 1, 1, 1], "mlp_ratios": [2, 2, 2, 2],
  "chunkwise_recurrents": [false, false, false, false], "projection": 16, "drop_path_rate": 0})";

// `count` noisy images of 32 pixels of one colour, in folder/NAME.
void write_class(const std::string& folder, const std::string& name, std::array<int, 3> colour,
                 i64 count) {
  fs::create_directories(folder + "/" + name);
  Rng rng(static_cast<u64>(name.back()));
  for (i64 k = 0; k < count; ++k) {
    Tensor image = Tensor::empty({32, 32, 3}, DType::uint8);
    for (i64 i = 0; i < image.numel(); ++i)
      image.data<u8>()[i] =
          static_cast<u8>(colour[static_cast<std::size_t>(i % 3)] + rng.below(50) - 25);
    write_png(folder + "/" + name + str("/", k, ".png"), image);
  }
}
constexpr std::array<int, 3> red{200, 30, 30}, green{30, 200, 30}, blue{30, 30, 200},
    yellow{200, 200, 30};

void write_three_classes(const std::string& folder) {
  for (const auto& [part, count] : {std::pair{"/train", i64{16}}, {"/val", i64{4}}}) {
    write_class(folder + part, "a", red, count);
    write_class(folder + part, "b", green, count);
    write_class(folder + part, "c", blue, count);
  }
}

// How many images of a folder of class folders `predict` gives the right name.
i64 named_right(const std::string& weights, const std::string& folder) {
  std::string images;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) images += " '" + entry.path().string() + "'";
  const Result r = run("predict --json --weights '" + weights + "'" + images);
  REQUIRE(r.code == 0);
  i64 right = 0;
  for (const json& image : json::parse(r.out))
    right += image["top"][0]["name"] ==
             fs::path(image["image"].get<std::string>()).parent_path().filename().string();
  return right;
}

json evaluated(const std::string& arguments) {
  const Result r = run("eval --json " + arguments);
  INFO(r.err);
  REQUIRE(r.code == 0);
  return json::parse(r.out);
}

}  // namespace

TEST_CASE("tool: eval matches classes by name, and a resumed run keeps its classes", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string abc = folder / "abc", out = folder / "run", best = out + "/best.safetensors";
  write_three_classes(abc);
  write_file(folder / "small.json", small);
  const std::string train =
      "train --config '" + (folder / "small.json") + "' --size 32 --batch 8 --threads 1 ";
  const std::string data = "--data folder --data-dir '" + abc + "' ";
  const Result first = run(train + data + "--epochs 6 --lr 1e-2 --out '" + out + "'");
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(evaluated("--weights '" + best + "'")["acc1"] == 100);

  // Other folders: b and c look the same, the network knows no d.
  write_class(folder / "bcd" + "/val", "b", green, 4);
  write_class(folder / "bcd" + "/val", "c", blue, 4);
  const std::string other = "--weights '" + best + "' --data-dir '" + (folder / "bcd") + "'";
  CHECK(evaluated(other)["acc1"] == 100);  // test images alone, of two classes
  CHECK(named_right(best, folder / "bcd") == 8);
  write_class(folder / "bcd" + "/val", "d", yellow, 4);
  const json j = evaluated(other);
  CHECK(j["images"] == 12);
  CHECK(j["acc1"].get<double>() == Approx(100.0 * 8 / 12));
  CHECK(j["unknown_classes"] == std::vector<std::string>{"d"});
  CHECK(run("eval " + other)
            .err.find("does not know the classes \"d\"; their 4 images count as wrong") !=
        std::string::npos);
  write_class(folder / "xyz", "x", red, 1);
  write_class(folder / "xyz", "y", red, 1);
  write_class(folder / "xyz", "z", red, 1);
  const Result none = run("eval --weights '" + best + "' --data-dir '" + (folder / "xyz") + "'");
  CHECK(none.code == 1);
  CHECK(
      none.err.find(
          "none of its classes \"x\", \"y\", \"z\" is one of the network's, \"a\", \"b\", \"c\"") !=
      std::string::npos);
  CHECK(run("eval --test-images 5 --weights '" + best + "'")
            .err.find("is for --data shapes or paths, not folder") != std::string::npos);

  // Another run begins with these weights: the head keeps what it knows of the classes, by name.
  fs::create_directories(folder / "ca");
  for (const char* part : {"/train", "/val"}) {
    write_class(folder / "ca" + part, "c", blue, 4);
    write_class(folder / "ca" + part, "a", red, 4);
  }
  const std::string again = train + "--epochs 1 --lr 0 --weights '" + best + "' --out '" +
                            (folder / "again") + "' --overwrite --data folder --data-dir '";
  const Result part = run(again + (folder / "ca") + "'");
  INFO(part.err);
  REQUIRE(part.code == 0);
  CHECK(part.err.find("head: taken, its rows by the classes' names") != std::string::npos);
  CHECK(evaluated("--weights '" + (folder / "again/best.safetensors") + "'")["acc1"] == 100);
  CHECK(run(again + (folder / "bcd") + "'").code == 1);  // no training images
  write_class(folder / "bcd" + "/train", "b", green, 4);
  write_class(folder / "bcd" + "/train", "c", blue, 4);
  write_class(folder / "bcd" + "/train", "d", yellow, 4);
  CHECK(run(again + (folder / "bcd") + "'").err.find("head: new, for 3 classes") !=
        std::string::npos);

  // Renamed folders, of a run that stopped half-way.
  const std::string half = folder / "half";
  REQUIRE(run(train + data + "--epochs 2 --stop-after 1 --out '" + half + "'").code == 0);
  const auto rename = [&](const char* from, const char* to) {
    for (const char* set : {"/train/", "/val/"}) fs::rename(abc + set + from, abc + set + to);
  };
  const std::vector<u8> before = read_file(half + "/last.safetensors");
  rename("a", "y");
  const Result resumed = run("train --resume '" + half + "'");
  CHECK(resumed.code == 1);
  CHECK(resumed.err.find("the classes of the data have changed since the run began: \"a\" is "
                         "missing, \"y\" is new") != std::string::npos);
  rename("y", "a");
  write_class(abc + "/train", "d", yellow, 4);
  write_class(abc + "/val", "d", yellow, 4);
  CHECK(run("train --resume '" + half + "'").err.find("\"d\" is new") != std::string::npos);
  CHECK(read_file(half + "/last.safetensors") == before);
  fs::remove_all(abc + "/train/d"), fs::remove_all(abc + "/val/d");
  CHECK(run("train --resume '" + half + "'").code == 0);
}

TEST_CASE("tool: eval brings images to what the weights say, whatever set they are in", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run", best = out + "/best.safetensors";
  write_file(folder / "small.json", small);
  const Result trained = run("train --config '" + (folder / "small.json") +
                             "' --images 400 --test-images 50 --size 32 --batch 16 --epochs 4 --lr "
                             "1e-2 --threads 1 --out '" +
                             out + "'");
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  // Test images of another split as files, of eight classes: numbers and names stand in other
  // orders.
  i64 images = 0;
  for (i64 k = 0; k < 60; ++k) {
    const Scene scene = draw_shapes({.height = 32, .width = 32, .seed = 5, .split = Split::val}, k);
    if (scene.label < 2) continue;
    const std::string of_class =
        folder / "set" + "/val/" + figure_names()[static_cast<std::size_t>(scene.label)];
    fs::create_directories(of_class);
    write_png(of_class + str("/", k, ".png"), scene.image);
    ++images;
  }
  const std::string on_folder =
      "--weights '" + best + "' --data folder --data-dir '" + (folder / "set") + "'";
  const i64 right = named_right(best, folder / "set");
  CHECK((right > 0 && right < images));
  const json j = evaluated(on_folder);
  CHECK(j["images"] == images);
  CHECK(j["acc1"].get<double>() ==
        Approx(100.0 * static_cast<double>(right) / static_cast<double>(images)));
  CHECK(run("eval " + on_folder).err.empty());
  CHECK(run("eval --size 48 " + on_folder)
            .err.find("--size 48 instead of the 32 pixels that the weights say") !=
        std::string::npos);

  // CIFAR-10's test file alone, with these names.
  std::string names, records;
  for (const std::string& name : figure_names()) names += name + "\n";
  for (char label = 0; label < 10; ++label)
    records += label + std::string(3072, static_cast<char>(20 * label));
  fs::create_directories(folder / "cifar");
  write_file(folder / "cifar/batches.meta.txt", std::string_view(names));
  write_file(folder / "cifar/test_batch.bin", std::string_view(records));
  CHECK(evaluated("--weights '" + best + "' --data cifar10 --data-dir '" + (folder / "cifar") +
                  "'")["images"] == 10);
  CHECK(evaluated("--weights '" + best + "' --test-images 7")["images"] == 7);

  // Weights that say nothing: it is said what is taken for them.
  write_safetensors(folder / "silent.safetensors", read_safetensors(best).tensors);
  const Result silent = run("eval --config '" + out + "/config.json' --weights '" +
                            (folder / "silent.safetensors") + "' --data shapes --test-images 5");
  CHECK(silent.code == 0);
  CHECK(silent.err.find("does not say how it takes images; as suits shapes: 48 pixels") !=
        std::string::npos);
  CHECK(silent.err.find("does not name its classes") != std::string::npos);
}

TEST_CASE("tool: a resumed segmentor and detector keep their classes", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string set = folder / "set";
  json coco{{"images", json::array()}, {"annotations", json::array()}};
  for (const char* part : {"train", "val"}) {
    fs::create_directories(set + "/img_dir/" + part),
        fs::create_directories(set + "/ann_dir/" + part);
    fs::create_directories(set + "/images/" + part), fs::create_directories(set + "/annotations");
    for (i64 k = 0; k < 2; ++k) {
      const Scene scene = draw_shapes({.height = 64, .width = 64, .seed = 3}, k);
      const std::string name = str("/", k, ".png");
      write_png(set + "/img_dir/" + part + name, scene.image),
          write_png(set + "/images/" + part + name, scene.image);
      Tensor labels = Tensor::zeros({64, 64, 1}, DType::uint8);
      for (i64 i = 0; i < labels.numel(); ++i)
        labels.data<u8>()[i] = scene.labels.data<u8>()[i] > 0 ? 1 : 0;
      write_png(set + "/ann_dir/" + part + name, labels);
    }
  }
  for (i64 k = 0; k < 2; ++k) {
    coco["images"].push_back(
        {{"id", k + 1}, {"file_name", str(k, ".png")}, {"height", 64}, {"width", 64}});
    coco["annotations"].push_back({{"id", k + 1},
                                   {"image_id", k + 1},
                                   {"category_id", 4},
                                   {"bbox", {8, 8, 40, 40}},
                                   {"area", 1600},
                                   {"iscrowd", 0}});
  }
  const auto write_categories = [&](std::vector<std::pair<i64, std::string>> categories) {
    coco["categories"] = json::array();
    for (const auto& [id, name] : categories)
      coco["categories"].push_back({{"id", id}, {"name", name}});
    for (const char* part : {"train", "val"})
      write_file(set + "/annotations/instances_" + part + ".json", coco.dump());
  };
  struct Task {
    std::string arguments;
    // 0: as at first; 1: other names; 2: another order; 3: other ids
    std::function<void(int)> write;
    int ways;
  };
  const Task segment{"segment --data folder",
                     [&](int way) {
                       write_file(set + "/classes.txt",
                                  std::string_view(way == 1   ? "ground\nthing\n"
                                                   : way == 2 ? "figure\nground\n"
                                                              : "ground\nfigure\n"));
                     },
                     2};
  const Task detect{"detect --data coco --boxes-only --longer 64 --shorter 64",
                    [&](int way) {
                      if (way == 1)
                        write_categories({{4, "cat"}, {7, "bird"}});
                      else if (way == 2)
                        write_categories({{4, "dog"}, {7, "cat"}});
                      else if (way == 3)
                        write_categories({{4, "cat"}, {8, "dog"}});
                      else
                        write_categories({{4, "cat"}, {7, "dog"}});
                    },
                    3};
  for (const Task& task : {segment, detect}) {
    INFO(task.arguments);
    const std::string out = folder / "run";
    // or it looks like ADE20K
    if (task.ways == 2) fs::rename(set + "/annotations", set + "/other");
    fs::remove_all(out);
    task.write(0);
    const Result first = run("train --task " + task.arguments + " --data-dir '" + set +
                             "' --epochs 2 --batch 2 --stop-after 1 --out '" + out + "'");
    INFO(first.err);
    REQUIRE(first.code == 0);
    const char* const message[] = {"", " is missing, ", "they are in another order",
                                   "have other ids than when the run began"};
    for (int way = 1; way <= task.ways; ++way) {
      task.write(way);
      const Result r = run("train --resume '" + out + "'");
      INFO(r.err);
      CHECK(r.code == 1);
      CHECK(r.err.find(message[way]) != std::string::npos);
    }
    task.write(0);
    CHECK(run("train --resume '" + out + "'").code == 0);
    if (task.ways == 2) fs::rename(set + "/other", set + "/annotations");
  }
}

TEST_CASE(
    "tool: which numbers label files have for the classes does not matter to a segmentor, their "
    "names do",
    "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  // The same set twice: with its classes as 0 and 1, and as ADE20K has them, from 1, where 0 is
  // nothing.
  for (const bool train : {true, false})
    for (i64 k = 0; k < 2; ++k) {
      const Scene scene = draw_shapes({.height = 64, .width = 64, .seed = 3}, k);
      for (const bool ade : {false, true}) {
        const std::string part =
            ade ? (train ? "/training" : "/validation") : (train ? "/train" : "/val");
        const std::string images = folder / (ade ? "ade/images" : "plain/img_dir") + part;
        const std::string maps = folder / (ade ? "ade/annotations" : "plain/ann_dir") + part;
        fs::create_directories(images), fs::create_directories(maps);
        Tensor labels = Tensor::zeros({64, 64, 1}, DType::uint8);
        for (i64 i = 0; i < labels.numel(); ++i)
          labels.data<u8>()[i] =
              static_cast<u8>((scene.labels.data<u8>()[i] > 0 ? 1 : 0) + (ade ? 1 : 0));
        write_png(images + str("/", k, ".png"), scene.image),
            write_png(maps + str("/", k, ".png"), labels);
      }
    }
  for (const char* set : {"plain", "ade"})
    write_file(folder / set + "/classes.txt", std::string_view("ground\nfigure\n"));
  const std::string begin = "train --task segment --data folder --data-dir '" + (folder / "plain") +
                            "' --epochs 2 --batch 2 --threads 1 --out '";
  REQUIRE(run(begin + (folder / "whole") + "'").code == 0);
  REQUIRE(run(begin + (folder / "run") + "' --stop-after 1").code == 0);
  const std::string resume =
      "train --threads 1 --resume '" + (folder / "run") + "' --data-dir '" + (folder / "ade") + "'";
  write_file(folder / "ade/classes.txt", std::string_view("figure\nground\n"));
  const Result swapped = run(resume);
  CHECK(swapped.code == 1);
  CHECK(swapped.err.find("they are in another order") != std::string::npos);
  write_file(folder / "ade/classes.txt", std::string_view("ground\nfigure\n"));
  REQUIRE(run(resume).code == 0);
  const TensorMap a = read_safetensors(folder / "whole/last.safetensors").tensors,
                  b = read_safetensors(folder / "run/last.safetensors").tensors;
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    CHECK((a[i].first == b[i].first && io_test::same_elements(a[i].second, b[i].second)));
}

TEST_CASE("tool: bench takes images of the size that the weights say", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  write_file(folder / "small.json", small);
  for (const std::string task : {"classify", "segment", "detect"}) {
    INFO(task);
    const std::string config =
        task == "classify" ? " --config '" + (folder / "small.json") + "'" : "";
    const Result trained =
        run("train --task " + task + config +
            " --images 4 --test-images 2 --size 64 --epochs 1 --batch 4 --threads 1 --out '" +
            (folder / task) + "'");
    INFO(trained.err);
    REQUIRE(trained.code == 0);
    const auto size = [&](const std::string& more) {
      const Result r =
          run("bench --task " + task + " --weights '" + (folder / task) +
              "/last.safetensors' --batch 1 --repeat 1 --warmup 0 --threads 1 --json" + more);
      INFO(r.err);
      REQUIRE(r.code == 0);
      const json j = json::parse(r.out);
      return std::pair{j["size"].get<int>(), j.value("width", j["size"].get<int>())};
    };
    CHECK(size("") == std::pair{64, 64});
    CHECK(size(" --size 32") == std::pair{32, 32});
  }
}

TEST_CASE("tool: an image that cannot be read does not cost the results of the others", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  write_file(folder / "small.json", small);
  const std::string odd = "b\xff\x1b[31m.png";  // no UTF-8, and red on a terminal
  for (const std::string& name : {std::string("a.png"), odd, std::string("c.png")})
    write_png(folder / name, draw_shapes({.height = 40, .width = 40}, 1).image);
  write_file(folder / "bad.png", std::string_view("\x89PNG no more"));
  const std::string images = " '" + (folder / "a.png") + "' '" + (folder / "bad.png") + "' '" +
                             (folder / odd) + "' '" + (folder / "none.png") + "' '" +
                             (folder / "c.png") + "'";
  for (const std::string task : {"classify", "segment", "detect"}) {
    INFO(task);
    const std::string out = folder / task;
    const std::string config =
        task == "classify" ? " --config '" + (folder / "small.json") + "'" : "";
    const Result trained =
        run("train --task " + task + config +
            " --images 4 --test-images 2 --size 64 --epochs 1 --batch 4 --threads 1 --out '" + out +
            "'");
    INFO(trained.err);
    REQUIRE(trained.code == 0);
    const std::string predict = "predict --task " + task + " --weights '" + out + "/" +
                                (fs::exists(out + "/best.safetensors") ? "best" : "last") +
                                ".safetensors'" +
                                (task == "classify" ? "" : " --out '" + (folder / "p") + "'");
    const Result r = run(predict + " --json" + images);
    INFO(r.err);
    CHECK(r.code == 1);
    const json j = json::parse(r.out);
    REQUIRE(j.size() == 5);
    for (std::size_t k = 0; k < 5; ++k) CHECK(j[k].contains("error") == (k == 1 || k == 3));
    CHECK(j[1]["image"].get<std::string>().ends_with("bad.png"));
    CHECK(j[2]["image"].get<std::string>().ends_with("b\\xff\\x1b[31m.png"));
    CHECK(r.err.find("bad.png") != std::string::npos);
    CHECK(r.err.find("2 of 5 images could not be read") != std::string::npos);
    CHECK(std::count(r.err.begin(), r.err.end(), '\n') == 3);
    const Result text = run(predict + images);
    CHECK(text.code == 1);
    CHECK(text.out.find("c.png") != std::string::npos);
    CHECK((text.out + text.err).find('\x1b') == std::string::npos);
    CHECK(run(predict + " '" + (folder / odd) + "'").code == 0);
    if (task != "classify")
      CHECK(json::parse(text_of(folder / "p/images.json"))["images"].size() == 1);
  }
}
