// Sets of boxes, masks and label maps in the layouts of docs/data-sets.md, as a user meets them.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/image.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;
namespace fs = std::filesystem;
using json = nlohmann::json;

namespace dense_data_test {

namespace {

bool has(const std::string& text, const std::string& piece) {
  if (text.find(piece) != std::string::npos) return true;
  FAIL_CHECK("expected: " << piece << "\nin: " << text);
  return false;
}

void put(const std::string& path, const std::string& bytes) {
  fs::create_directories(fs::path(path).parent_path());
  write_file(path, std::string_view(bytes));
}

void put_image(const std::string& path, i64 number) {
  fs::create_directories(fs::path(path).parent_path());
  write_png(path, draw_shapes({.height = 64, .width = 64}, number).image);
}

}  // namespace

TEST_CASE("tool: PASCAL VOC's and YOLO's layouts are looked at and trained on", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string voc = folder / "voc", yolo = folder / "yolo", out = folder / "run";
  for (const auto& [part, count] : {std::pair{"train", 4}, {"val", 2}}) {
    std::string list;
    for (int i = 0; i < count; ++i) {
      const std::string name = str(part, i);
      list += name + "\n";
      put_image(voc + "/JPEGImages/" + name + ".png", i);
      put_image(yolo + "/images/" + part + "/" + name + ".png", i);
      put(voc + "/Annotations/" + name + ".xml",
          "<annotation><size><width>64</width><height>64</height></size>"
          "<object><name>dot</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>40</xmax>"
          "<ymax>50</ymax></bndbox></object></annotation>");
      put(yolo + "/labels/" + part + "/" + name + ".txt",
          "1 0.1 0.1 0.7 0.1 0.7 0.9\n0 0.2 0.2 0.9 0.2 0.5 0.9 0.2 0.8\n");
    }
    put(voc + "/ImageSets/Main/" + part + ".txt", list);
  }
  put(yolo + "/data.yaml", "names:\n  0: cell\n  1: dot\nnc: 2\n");
  const std::string of_voc = "train --task detect --data voc --data-dir " + voc,
                    of_yolo = "train --task detect --data yolo --data-dir " + yolo;
  const Result looked = run("data '" + voc + "'"), masks = run("data '" + yolo + "'");
  CHECK(looked.code == 0);
  has(looked.out, "in PASCAL VOC's layout; ppma train --task detect --data voc --boxes-only --");
  has(looked.out, "train: 4 images, all of 64 x 64 pixels\n");
  has(masks.out, "in YOLO's layout; ppma " + of_yolo + "\n");
  has(masks.out, "  cell           2          2\n");

  const std::string quick =
      " --longer 64 --shorter 64 --epochs 1 --batch 2 --threads 1 --out '" + out + "'";
  has(run(of_voc + quick).err, "--data voc has boxes and no masks");
  const Result boxes = run(of_voc + " --boxes-only" + quick);
  INFO(boxes.err);
  REQUIRE(boxes.code == 0);
  has(boxes.out, "voc: 4 training and 2 test images, 1 classes");
  const Result both = run(of_yolo + quick + " --overwrite");
  INFO(both.err);
  REQUIRE(both.code == 0);
  has(both.out, "masks  AP");

  // All that is broken, not the first.
  put(voc + "/Annotations/train1.xml", "<annotation>");
  fs::remove(voc + "/JPEGImages/train2.png");
  put(yolo + "/labels/train/train0.txt", "0 12 20 5 5\n");
  put(yolo + "/images/train/train1.png", "not much of a picture");
  const Result bad = run("data '" + voc + "'");
  CHECK(bad.code == 1);
  has(bad.out, "train: 2 images");
  has(bad.out, "train1.xml: line 1: the file ends within the element annotation");
  has(bad.out, "train.txt: line 3: there is no image");
  const Result worse = run("data '" + yolo + "'");
  has(worse.err, "2 things are broken");
  has(worse.out, "train0.txt: line 1: 12 is outside of the image");
  has(worse.out, "train1.png: not a PNG");
  has(run(of_voc + " --boxes-only" + quick + " --overwrite").err, "train1.xml: line 1");
}

TEST_CASE("tool: Cityscapes', ADE20K's and CamVid's layouts are looked at and trained on",
          "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  struct Kind {
    std::string name, train_image, train_labels, val_image, val_labels, read;
    u8 nothing, second;  // labels: what does not count, and the second class
  };
  for (const Kind& k :
       {Kind{"cityscapes", "leftImg8bit/train/ulm/a_leftImg8bit",
             "gtFine/train/ulm/a_gtFine_labelIds", "leftImg8bit/val/bonn/b_leftImg8bit",
             "gtFine/val/bonn/b_gtFine_labelIds", "  sidewalk               1", 3, 8},
        Kind{"ade20k", "images/training/a", "annotations/training/a", "images/validation/b",
             "annotations/validation/b", "  building                     1", 0, 2},
        Kind{"camvid", "train/a", "trainannot/a", "val/b", "valannot/b", "  building             1",
             11, 1}}) {
    const std::string root = folder / k.name;
    for (const auto& [image, labels] :
         {std::pair{k.train_image, k.train_labels}, {k.val_image, k.val_labels}}) {
      put_image(root + "/" + image + ".png", 1);
      Tensor map = Tensor::zeros({64, 64, 1}, DType::uint8);
      std::fill_n(map.data<u8>(), 2048, k.second),
          std::fill_n(map.data<u8>() + 2048, 2048, k.nothing);
      fs::create_directories(fs::path(root + "/" + labels).parent_path());
      write_png(root + "/" + labels + ".png", map);
    }
    const std::string command = "train --task segment --data " + k.name + " --data-dir " + root;
    const Result looked = run("data '" + root + "'");
    has(looked.out, ", as " + k.name + "; ppma " + command + "\n");
    has(looked.out, k.read);
    const Result r =
        run(command + " --head semantic_fpn --epochs 1 --batch 1 --crop 64 --threads 1 --out '" +
            root + "/run'");
    INFO(r.err);
    REQUIRE(r.code == 0);
    has(r.out, ": 1 training and 1 test images");
    if (k.name == "camvid")
      has(run("train --data camvid --data-dir " + root).err, "--data camvid is for --task segment");
  }
  has(run("train --task segment --data ade20k --data-dir " + folder / "camvid").err,
      "has no folders images/training and annotations/training");
}

}  // namespace dense_data_test
