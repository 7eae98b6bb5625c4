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
using io_test::put;
namespace fs = std::filesystem;
using json = nlohmann::json;

namespace dense_data_test {

namespace {

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

TEST_CASE("tool: PASCAL VOC's label maps are looked at and trained on, beside its boxes",
          "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string voc = folder / "VOC", out = folder / "run";
  fs::copy(io_test::reference("voc"), voc, fs::copy_options::recursive);
  const std::string of_maps = "train --task segment --data voc --data-dir " + voc,
                    is_maps = "images with a class for every pixel, in PASCAL VOC's layout; ppma ";
  const Result looked = run("data '" + voc + "' --out '" + folder / "sheet.png" + "'");
  CHECK(looked.code == 0);
  has(looked.out, voc + ": " + is_maps + of_maps + "\n");
  has(looked.out, "train: 2 images, all of 44 x 32 pixels\n");
  has(looked.out, "  person               2");
  has(looked.out, "nothing is broken\n");
  CHECK(fs::exists(folder / "sheet.png"));

  const Result trained = run(of_maps +
                             " --head semantic_fpn --longer 64 --shorter 64 --crop 64 --epochs 1 "
                             "--batch 2 --threads 1 --out '" +
                             out + "'");
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  has(trained.out, "VOC: 2 training and 1 test images");
  has(trained.out, "21 classes");
  has(run("train --data voc --data-dir " + voc).err, "--data voc is for --task segment and detect");
  has(run("lr-find --data voc --data-dir " + voc).err, "--data voc is to segment and detect");

  // Boxes of the same images: the set is both.
  for (const char* name : {"a", "b", "c"})
    put(voc + "/Annotations/" + name + ".xml",
        "<annotation><object><name>person</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>40</xmax>"
        "<ymax>20</ymax></bndbox></object></annotation>");
  put(voc + "/ImageSets/Main/train.txt", "a\nb\n"), put(voc + "/ImageSets/Main/val.txt", "c\n");
  put(voc + "/classes.txt", "person\n");
  const Result both = run("data '" + voc + "'");
  CHECK(both.code == 1);
  has(both.out,
      ": images with objects, in PASCAL VOC's layout; ppma train --task detect --data voc");
  has(both.out, "\n\n" + voc + ": " + is_maps);
  has(both.out, "SegmentationClass/a.png: label 2 at row 0, column 4; with 2 classes");
  fs::remove(voc + "/classes.txt");
  const Result json_of_both = run("data --json '" + voc + "'");
  const json all = json::parse(json_of_both.out);
  CHECK((all["parts"].size() == 2 && all["parts"][0]["classes"].size() == 1));
  REQUIRE(all["also"].size() == 1);
  CHECK((all["also"][0]["parts"].size() == 2 && !all["also"][0].contains("path")));
  CHECK(all["also"][0]["parts"][0]["classes"][15]["images"] == 2);
  CHECK(json_of_both.code == 0);

  put(voc + "/ImageSets/Segmentation/train.txt", "a\nz\n");
  has(run("data '" + voc + "'").out, "train.txt: line 2: there is no image");
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
      has(run("train --data camvid --data-dir " + root + " --out '" + root + "/none'").err,
          "--data camvid is for --task segment");
  }
  has(run("train --task segment --data ade20k --data-dir " + folder / "camvid" + " --out '" +
          folder / "none" + "'")
          .err,
      "has no folders images/training and annotations/training");
}

}  // namespace dense_data_test
