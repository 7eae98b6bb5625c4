// ppma data: what sets are, which images they hold, and what in them is broken.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/image.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;
using io_test::picture;
using io_test::put;
namespace fs = std::filesystem;
using json = nlohmann::json;

namespace data_command_test {

namespace {

// The object that --json prints of a set.
json looked(const std::string& path, int code = 0) {
  const Result r = run("data --json '" + path + "'");
  INFO(r.err);
  REQUIRE(r.code == code);
  return json::parse(r.out);
}

}  // namespace

TEST_CASE("tool: data counts a folder of classes and names what is broken in it", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const std::string set = folder / "set";
  for (i64 k = 0; k < 3; ++k) put(set + str("/train/cat/", k, ".PGM"), picture(20 + 10 * k, 40));
  put(set + "/train/dog/a.pgm", picture(90, 40)), put(set + "/train/dog/b.txt", "no image");
  put(set + "/train/.git/c.pgm", "hidden"), put(set + "/train/cat/.d.pgm", "hidden");
  for (const char* name : {"cat", "dog"}) put(set + "/val/" + name + "/a.pgm", picture(20, 10));
  const Result well = run("data '" + set + "'");
  CHECK(well.code == 0);
  CHECK(well.err.empty());
  has(well.out, "set: a folder for each class; ppma train --data folder --data-dir " + set + "\n");
  has(well.out, "train: 4 images, width 20 to 90 (median 40), height 40 pixels\n");
  has(well.out, "  cat            3\n");
  has(well.out, "  left out: 1 file that is not .jpg");
  has(well.out, "val: 2 images, all of 20 x 10 pixels\n");
  has(well.out, "nothing is broken\n");

  // Training says so too, in letters that a terminal may show.
  put(folder / "odd/train/a/x.pgm", picture(8, 8)), put(folder / "odd/val/a/x.pgm", picture(8, 8));
  put(folder / "odd/train/a/\x1b[2J\xe9.txt", "no image");
  has(run("train --size 16384 --batch 65536 --data folder --data-dir '" + (folder / "odd") + "'")
          .err,
      "such as a/\\x1b[2J\\xe9.txt)\n");

  put(set + "/train/dog/cut.jpg", "\xff\xd8\xff\xe0 not much of a picture");
  fs::create_directories(set + "/train/emu");
  const Result broken = run("data '" + set + "'");
  CHECK(broken.code == 1);
  has(broken.out, "/train/emu: a class without images");
  has(broken.out, "/train/dog/cut.jpg: cut short");
  has(broken.out, "train and val have different classes; in val \"emu\" is missing");
  has(broken.err, "ppma: data: 3 things are broken");
  const json j = looked(set, 1);
  CHECK(j["command"] == "ppma train --data folder --data-dir " + set);
  CHECK(j["parts"][0]["images"] == 5);
  CHECK(j["parts"][0]["classes"][1] == json{{"name", "dog"}, {"images", 1}});
  CHECK(j["parts"][0]["width"] == json{{"least", 20}, {"median", 40}, {"most", 90}});
  CHECK(j["parts"][0]["broken"].size() == 2);

  fs::remove_all(set + "/val");
  has(run("data '" + set + "'").out, "broken: " + set + "/val: is not a folder");
  const json alone = looked(set + "/train", 1);  // test images: eval reads them
  CHECK(alone["command"] == "ppma eval --data folder --data-dir " + set + "/train");
  put(folder / "it's/caf\xe9/a.pgm", picture(2, 2));
  const Result odd = run("data \"" + (folder / "it's") + "\"");
  CHECK(odd.code == 1);
  has(odd.out, " --data-dir '" + (folder / "it'\\''s") + "'\n");
  has(odd.out, "broken: the class \"caf\\xe9\" is not named in UTF-8");
  put(folder / "other/a.pgm", picture(2, 2));
  has(run("data '" + (folder / "other") + "'").err, "other: holds no set that is known");
}

TEST_CASE("tool: data knows CIFAR's files by one of them, and damage to them", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  put(folder / "c/batches.meta.txt", "ant\nbee\n");
  std::string records;
  for (const char label : std::string("\0\1\1", 3)) records += label + std::string(3072, 'x');
  put(folder / "c/data_batch_1.bin", records), put(folder / "c/test_batch.bin", records);
  const json j = looked(folder / "c/test_batch.bin");
  CHECK(j["is"] == "CIFAR-10 in its binary version");
  REQUIRE(j["parts"].size() == 2);
  CHECK(j["parts"][0]["classes"][1]["images"] == 2);
  put(folder / "c/test_batch.bin", records.substr(0, 3073));
  has(run("data '" + (folder / "c") + "'").out, "broken: test: no image has the class \"bee\"");
  put(folder / "c/test_batch.bin", records.substr(1));
  has(run("data '" + (folder / "c") + "'").out, "are not a whole number of records");
}

TEST_CASE("tool: data counts pixels and objects, and draws samples", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string dense = folder / "dense", coco = folder / "coco";
  Tensor labels = Tensor::zeros({30, 40, 1}, DType::uint8);
  labels.data<u8>()[0] = 1, labels.data<u8>()[1] = 255;
  for (const char* part : {"train", "val"}) {
    put(dense + "/img_dir/" + part + "/a.pgm", picture(40, 30));
    fs::create_directories(dense + "/ann_dir/" + part);
    write_png(dense + "/ann_dir/" + part + "/a.png", labels);
    put(coco + "/images/" + part + "/a.pgm", picture(1000, 600));
    put(coco + "/annotations/instances_" + part + ".json",
        R"({"images": [{"id": 7, "file_name": "a.pgm", "width": 1000, "height": 600}],
            "categories": [{"id": 3, "name": "cell"}, {"id": 4, "name": "dot"}],
            "annotations": [
              {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20, 300, 200], "iscrowd": 0,
               "area": 60000, "segmentation": [[10, 20, 310, 20, 310, 220]]},
              {"id": 2, "image_id": 7, "category_id": 4, "bbox": [500, 20, 30, 20], "iscrowd": 0,
               "area": 600, "segmentation": [[500, 20, 530, 20, 530, 40]]}]})");
  }
  put(dense + "/classes.txt", "ground\nfigure\n");
  const json d = looked(dense);
  CHECK(d["command"] == "ppma train --task segment --data folder --data-dir " + dense);
  CHECK(d["parts"][0]["classes"][0]["pixels"] == 1198);
  CHECK(d["parts"][0]["classes"][1]["pixels"] == 1);
  const json c = looked(coco + "/annotations/instances_val.json");
  CHECK(c["parts"][1]["classes"][0] == json{{"name", "cell"}, {"images", 1}, {"objects", 1}});
  CHECK(c["command"].get<std::string>().find("--boxes-only") == std::string::npos);
  for (const std::string& set : {dense, coco}) {
    const std::string sheet = folder / "sheet.png";
    REQUIRE(run("data '" + set + "' --out '" + sheet + "'").code == 0);
    const Tensor image = read_image(sheet);
    CHECK((image.dim(0) > 320 && image.dim(1) > 320));
    bool coloured = false;  // the image is grey: what is in it is drawn
    for (i64 k = 0; k < image.numel(); k += 3)
      coloured = coloured || image.data<u8>()[k] > image.data<u8>()[k + 1] + 40;
    CHECK(coloured);
  }
  fs::remove(coco + "/images/val/a.pgm");
  labels.data<u8>()[2] = 9;
  write_png(dense + "/ann_dir/val/a.png", labels);
  has(run("data '" + coco + "'").out, "/images/val/a.pgm: cannot be read");
  has(run("data '" + dense + "'").out, "label 9 at row 0, column 2");
}

TEST_CASE("tool: a set in MNIST's form is looked at, trained on and tested on", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string set = folder / "set", out = folder / "run";
  for (const auto& [part, n] : {std::pair{"train", 64}, {"t10k", 16}}) {
    const std::string count{'\0', '\0', '\0', static_cast<char>(n)}, side("\0\0\0\x1c", 4);
    std::string images = std::string("\0\0\x08\3", 4) + count + side + side,
                labels = std::string("\0\0\x08\1", 4) + count;
    for (int i = 0; i < n; ++i) {
      labels += static_cast<char>(i % 2);
      images += std::string(784, i % 2 == 0 ? '\0' : '\xff');  // dark and light
    }
    put(set + "/" + part + "-images-idx3-ubyte", images);
    put(set + "/" + part + "-labels-idx1-ubyte", labels);
  }
  write_file(set + "/classes.txt", std::string_view("dark\nlight\n"));
  const json j = looked(set + "/train-labels-idx1-ubyte");
  CHECK(j["command"] == "ppma train --data idx --data-dir " + set);
  CHECK(j["parts"][0]["classes"][1] == json{{"name", "light"}, {"images", 32}});
  write_file(folder / "small.json",
             std::string_view(R"({"embed_dims": [8, 8, 8, 8], "num_heads": [1, 1, 1, 1],
                                  "depths": [1, 1, 1, 1], "projection": 16})"));
  const Result r =
      run("train --data idx --data-dir '" + set + "' --config '" + (folder / "small.json") +
          "' --batch 16 --epochs 2 --lr 1e-2 --threads 1 --out '" + out + "'");
  INFO(r.err);
  REQUIRE(r.code == 0);
  has(r.out, "64 training and 16 test images of 32 pixels, 2 classes");
  const Result e = run("eval --json --weights '" + out + "/best.safetensors'");
  INFO(e.err);
  REQUIRE(e.code == 0);
  CHECK(json::parse(e.out)["images"] == 16);
  has(run("train --data idx --no-exif --data-dir '" + set + "'").err, "--no-exif is for --data");
  put(set + "/t10k-labels-idx1-ubyte", "nothing of the kind");
  has(run("data '" + set + "'").out, "broken: " + set + "/t10k-labels-idx1-ubyte: not an IDX file");
}

TEST_CASE("tool: a list of images is looked at, trained on and tested on", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string list = folder / "set/list.csv", out = folder / "run";
  std::string text = "path,label,split\n";
  for (int i = 0; i < 40; ++i) {
    const std::string name = str("im, ", i, ".pgm");
    put(folder / "set/" + name, picture(40, 36));
    text += "\"" + name + "\"," + (i % 2 == 0 ? "even" : "odd") +
            (i < 32   ? ",train\n"
             : i < 36 ? ",val\n"
                      : ",test\n");
  }
  put(list, text);
  const Result well = run("data '" + list + "'");
  CHECK(well.code == 0);
  has(well.out, "list.csv: a list of images (CSV); ppma train --data csv --data-dir " + list);
  has(well.out, "train: 32 images, all of 40 x 36 pixels\n");
  has(well.out, "test: 4 images");
  write_file(folder / "small.json",
             std::string_view(R"({"embed_dims": [8, 8, 8, 8], "num_heads": [1, 1, 1, 1],
                                  "depths": [1, 1, 1, 1], "projection": 16})"));
  const Result r =
      run("train --data csv --data-dir '" + list + "' --size 32 --config '" +
          (folder / "small.json") + "' --batch 16 --epochs 1 --threads 1 --out '" + out + "'");
  INFO(r.err);
  REQUIRE(r.code == 0);
  has(r.out, "list.csv: 32 training and 4 test images of 32 pixels, 2 classes");
  const std::string best = "eval --json --weights '" + out + "/best.safetensors' ";
  CHECK(json::parse(run(best).out)["images"] == 4);
  // All of a list without parts.
  put(folder / "set/plain.csv", "label,path\nodd,\"im, 1.pgm\"\neven,\"im, 0.pgm\"\n");
  CHECK(json::parse(run(best + "--data-dir '" + (folder / "set/plain.csv") + "'").out)["images"] ==
        2);
  CHECK(looked(folder / "set/plain.csv")["command"] ==
        "ppma eval --data csv --data-dir " + (folder / "set/plain.csv"));

  const auto refused = [&](const std::string& arguments, const std::string& piece) {
    const Result bad = run(arguments + " --out '" + (folder / "none") + "'");
    CHECK(bad.code == 1);
    has(bad.err, piece);
    CHECK(!fs::exists(folder / "none"));
  };
  refused("train --data csv --data-dir '" + (folder / "set/plain.csv") + "'",
          "plain.csv: has no column split");
  refused("train --data csv --data-dir '" + (folder / "set") + "'", "set is a folder; --data csv");
  refused("train --data folder --data-dir '" + list + "'", "list.csv is a file; --data folder");
  refused("train --task segment --data folder --data-dir '" + list + "'", "list.csv: has neither");
  refused("train --task segment --data csv --data-dir '" + list + "'", "--data is shapes, or");
  put(list, "path,label,split\n\"im, 0.pgm\",even,train\n");
  refused("train --data csv --data-dir '" + list + "'", "no image has the split val or test");
  has(run("data '" + list + "'").out, "broken: " + list + ": no image has the split val or test");
  put(list, "path,label,split\ngone.pgm,a,train\nlist.csv,b,val\nim,b,val\n");
  refused("train --data csv --data-dir '" + list + "'",
          "list.csv: line 2: " + (folder / "set/gone.pgm is not there"));
  const json broken = looked(list, 1);              // all of them, not the first
  CHECK(broken["parts"][0]["broken"].size() == 3);  // and no image of either class is read
  CHECK(broken["parts"][1]["broken"].size() == 2);
  put(list, "path,label\nx,\n");
  const Result none = run("data --json '" + list + "' --out '" + (folder / "none.png") + "'");
  CHECK(json::parse(none.out)["command"] == "");
  has(none.err, "there is no image to show");
  CHECK(!fs::exists(folder / "none.png"));
  has(run("data '" + list + "'").out, "broken: " + list + ": line 2: the label is empty");
}

TEST_CASE("tool: shards are looked at, trained on and tested on", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string set = folder / "set", out = folder / "run";
  const auto shard = [&](const std::string& name, int first, int last) {
    for (int i = first; i < last; ++i) {
      const std::string key = folder / "files/" + str("n", i % 2, ".x/", i);
      put(key + ".pgm", picture(40, 36));
      put(key + ".cls", str(i % 2)), put(key + ".txt", i % 2 == 0 ? "even" : "odd");
    }
    fs::create_directories(set);
    REQUIRE(std::system(("tar -C '" + (folder / "files") + "' -cf '" + set + "/" + name +
                         "' . && rm -r '" + (folder / "files") + "'")
                            .c_str()) == 0);
  };
  shard("train-00.tar", 0, 16), shard("train-01.tar", 16, 32), shard("val-00.tar", 0, 4);
  const std::string pattern = set + "/train-{00..01}.tar";
  const Result well = run("data '" + pattern + "'");
  CHECK(well.code == 0);
  has(well.out, "WebDataset has them; ppma train --data tar --data-dir '" + pattern + "'\n");
  has(well.out, "train: 32 images, all of 40 x 36 pixels\n");
  has(well.out, "  odd            2\n");
  CHECK(looked(set)["parts"].size() == 2);
  write_file(folder / "small.json",
             std::string_view(R"({"embed_dims": [8, 8, 8, 8], "num_heads": [1, 1, 1, 1],
                                  "depths": [1, 1, 1, 1], "projection": 16})"));
  const Result r =
      run("train --data tar --data-dir '" + pattern + "' --size 32 --config '" +
          (folder / "small.json") + "' --batch 16 --epochs 1 --threads 1 --out '" + out + "'");
  INFO(r.err);
  REQUIRE(r.code == 0);
  has(r.out, "train-00.tar and 1 more: 32 training and 4 test images of 32 pixels, 2 classes");
  const std::string best = "eval --json --weights '" + out + "/best.safetensors' ";
  CHECK(json::parse(run(best).out)["images"] == 4);
  fs::rename(set + "/val-00.tar", folder / "alone.tar");
  CHECK(json::parse(run(best + "--data-dir '" + (folder / "alone.tar") + "'").out)["images"] == 4);
  has(run("train --data tar --data-dir '" + pattern + "' --out '" + out + "2'").err,
      "there are no shards to test on; their names begin with val or test");
  put(set + "/val-00.tar", text_of(set + "/train-00.tar").substr(0, 5000));
  has(run("data '" + set + "'").out, "broken: " + set + "/val-00.tar: byte 4096: cut short");
  has(run("data '" + set + "/train-7.tar'").err, "does not exist");
  has(run("data '" + set + "/train-{7..8}.tar'").err, "train-7.tar: there is no such file");
}

TEST_CASE("tool: data of the real sets", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const std::string data = std::string(PPMA_TEST_SOURCE_DIR) + "/../shared/data";
  if (!fs::exists(data)) PPMA_SKIP("no sets in " + data);
  const json cifar = looked(data + "/cifar10"), camvid = looked(data + "/camvid"),
             bccd = looked(data + "/bccd");
  CHECK(cifar["parts"][1]["classes"][9] == json{{"name", "truck"}, {"images", 400}});
  CHECK(camvid["parts"][0]["images"] == 123);
  CHECK(camvid["parts"][1]["classes"][0]["name"] == "sky");
  CHECK(bccd["parts"][0]["classes"][0] ==
        json{{"name", "RBC"}, {"images", 197}, {"objects", 2381}});
  CHECK(bccd["command"].get<std::string>().find("--boxes-only") != std::string::npos);
}

}  // namespace data_command_test
