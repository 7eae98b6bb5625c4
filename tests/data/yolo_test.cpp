// Sets in YOLO's layout: labels, names in YAML, sizes of images without their pixels.

#include "ppma/data/yolo.hpp"

#include <filesystem>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/stb.hpp"
#include "thrown.hpp"

using namespace ppma;
using io_test::Folder;
using io_test::picture;
using io_test::put;
using io_test::reference;

namespace yolo_test {

namespace {

Bytes bytes(const std::string& text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}
std::vector<YoloObject> labels(const std::string& text) { return parse_yolo(bytes(text), "f.txt"); }
using Names = std::vector<std::string>;
Names names(const std::string& text) { return parse_yolo_names(bytes(text), "data.yaml"); }

}  // namespace

TEST_CASE("YOLO: boxes by their middle, and outlines") {
  const auto all = labels("2 0.5 0.5 0.25 1\r\n\n 0  .5 0 1 0\t1 0.75 5e-1 0.5\n1 0.995 1.005 0 0");
  REQUIRE(all.size() == 3);
  CHECK(all[0].label == 2);
  CHECK(all[0].box == std::array<double, 4>{0.375, 0, 0.25, 1});
  CHECK(all[0].outline.empty());
  CHECK(all[1].line == 3);
  CHECK(all[1].outline.size() == 8);
  CHECK(all[1].box == std::array<double, 4>{0.5, 0, 0.5, 0.75});
  CHECK(all[2].box == std::array<double, 4>{0.995, 1, 0, 0});  // rounded beyond the image
  CHECK(labels("").empty());

  CHECK(says([] { labels("0 1 1 1\n"); }, "f.txt: line 1: has 3 numbers behind the class"));
  CHECK(says([] { labels("0 1 1 1 1 1\n"); }, "has 5 numbers"));
  CHECK(says([] { labels("0 1 1 1 1 1 1 1\n"); }, "has 7 numbers"));
  CHECK(says([] { labels("0\n"); }, "has 0 numbers"));
  CHECK(says([] { labels("\n1.5 0 0 1 1\n"); }, "line 2: the class is 1.5; it must be"));
  CHECK(says([] { labels("-1 0 0 1 1\n"); }, "the class is -1"));
  CHECK(says([] { labels("cat 0 0 1 1\n"); }, "\"cat\" is not a number"));
  CHECK(says([] { labels("0 nan 0 1 1\n"); }, "\"nan\" is not a number"));
  CHECK(says([] { labels("0 0x1 0 1 1\n"); }, "\"0x1\" is not a number"));
  CHECK(
      says([] { labels("0 320 240 20 20\n"); }, "320 is outside of the image; numbers are parts"));
  CHECK(says([] { labels("0 -0.2 0 1 1\n"); }, "-0.2 is outside"));
  CHECK(says([] { labels("0 \xff 0 1 1\n"); }, "line 1: is not UTF-8"));
}

// What Python's yaml makes of them was looked up by hand in YAML 1.2's rules.
TEST_CASE("YOLO: names in the forms that YAML has for them") {
  CHECK(names("names: [cat, 'the ''dog''', \"a \\\"b\\\" \\u00e9\"] # three\nnc: 3\n") ==
        Names{"cat", "the 'dog'", "a \"b\" \xc3\xa9"});
  CHECK(
      names(
          "# a set\ntrain: images/train # here\nnc: 2\nnames:\n  0: traffic light\r\n  1: cat # x\n"
          "\n  # no more\nroboflow:\n  names: no\n") == Names{"traffic light", "cat"});
  CHECK(names("names:\n- a\n- 'b # c'\n-  C# d\nval: x") == Names{"a", "b # c", "C# d"});
  CHECK(names("names: {1: b, 0: a}") == Names{"a", "b"});
  CHECK(names("names: [\n  a,   # first\n  b,\n]\n") == Names{"a", "b"});
  CHECK(names("names:\n  1: b\n  0: a") == Names{"a", "b"});

  CHECK(says([] { names("nc: 2\n"); }, "data.yaml: has no names"));
  CHECK(says([] { names("nc: 2\nnames: [a]\n"); }, "nc is 2, names has 1"));
  CHECK(says([] { names("names: coco.names\n"); }, "line 1: names must be a list"));
  CHECK(says([] { names("names:\nnc: 0\n"); }, "names is empty"));
  CHECK(says([] { names("names: {0: a, 2: b}\n"); }, "names has no class 1"));
  CHECK(says([] { names("names: {0: a, 0: b}\n"); }, "the class 0 is named twice"));
  CHECK(says([] { names("names: {a: 0}\n"); }, "the key a of names is not a class's number"));
  CHECK(says([] { names("names: [a, b\n"); }, "a comma is missing"));
  CHECK(says([] { names("names: [a,, b]\n"); }, "a name that is empty"));
  CHECK(says([] { names("names: ['a\n', b]\n"); }, "does not end in its line"));
  CHECK(says([] { names("names: [*a]\n"); }, "in a form that is not read"));
  CHECK(says([] { names("names:\n- >\n  a\n"); }, "line 2: a name in a form that is not read"));
  CHECK(says([] { names("names:\n- \"a\" b\n"); }, "something stands behind a name"));
  CHECK(says([] { names("names: [\"\\ud800\"]\n"); }, "an escape that is no character"));
  CHECK(says([] { names("names: [a]\nnames: [b]\n"); }, "line 2: the key names is there twice"));
  CHECK(says([] { names("kpt_shape: [17, 3]\nnames: [a]\n"); }, "its labels have key points"));
}

TEST_CASE("YOLO: a set in its layouts") {
  const Folder f;
  const std::string root = f / "set";
  put(root + "/data.yaml", "names: [cat, dog]\n");
  put(root + "/images/train/deep/a.pgm", picture(80, 40));
  put(root + "/images/train/b.PGM", picture(40, 40));
  put(root + "/images/train/note.txt", "no image");
  put(root + "/labels/train/deep/a.txt", "1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.75 0.25 0.25 0.75\n");
  put(root + "/labels/train/classes.txt", "cat\ndog\n");
  put(root + "/labels/train/gone.txt", "");
  const DetectionFiles files = yolo_files(root, Split::train);
  CHECK(files.left_out.find("1 file that is not .jpg") == 0);
  CHECK(files.left_out.find("1 labels without an image (such as gone.txt)") != std::string::npos);
  CHECK(files.any_mask());
  REQUIRE(files.truth->annotations.size() == 2);
  CHECK(files.truth->annotations[0].area == 800);
  CHECK(files.truth->annotations[1].area == 400);  // the triangle's
  const DetectionSet boxes = detection_set(files, false), masks = detection_set(files, true),
                     all = detection_set(files, false, true);
  REQUIRE((boxes.size == 1 && masks.size == 1 && all.size == 2));
  const Box b = boxes.load(0).objects.boxes[0];
  CHECK((b.x1 == 20 && b.y1 == 10 && b.x2 == 60 && b.y2 == 30));
  const DetectionSample s = masks.load(0);
  CHECK(s.objects.classes == std::vector<i64>{0});
  i64 drawn = 0;
  for (i64 k = 0; k < 3200; ++k) drawn += s.objects.masks.data<u8>()[k];
  CHECK((drawn > 360 && drawn < 440));
  CHECK(int{s.objects.masks.data<u8>()[12 * 80 + 22]} == 1);
  CHECK(int{s.objects.masks.data<u8>()[29 * 80 + 59]} == 0);

  put(root + "/labels/train/b.txt", "2 0.5 0.5 0.5 0.5\n");
  CHECK(says([&] { yolo_files(root, Split::train); },
             "labels/train/b.txt: line 1: the class 2 has no name; there are 2"));
  std::vector<std::string> broken;
  CHECK(yolo_files(root, Split::train, &broken).truth->images.size() == 1);
  CHECK(broken.size() == 1);
  CHECK(says([&] { yolo_files(root, Split::val); }, "has neither images/val nor valid/images"));
  // As Roboflow writes it.
  put(root + "/valid/images/c.pgm", picture(40, 80));
  CHECK(says([&] { yolo_files(root, Split::val); }, "valid/labels: is not there; it holds"));
  put(root + "/valid/labels/c.txt", "0 0.5 0.5 1 1\n");
  CHECK(yolo_files(root, Split::val).truth->images[0].height == 80);
  std::filesystem::remove(root + "/data.yaml");
  CHECK(says([&] { yolo_files(root, Split::val); }, "has no data.yaml and no classes.txt"));
  put(root + "/classes.txt", "one\n");
  CHECK(yolo_files(root, Split::val).truth->categories[0].name == "one");
  put(root + "/valid/images/c.png", "another");
  CHECK(says([&] { yolo_files(root, Split::val); }, "c.pgm and c.png have one name"));
}

TEST_CASE("the size of an image without its pixels is that of the image") {
#if !PPMA_STB
  PPMA_SKIP("no stb_image");
#else
  const Folder f;
  const TensorMap kinds = read_safetensors(reference("images/kinds.safetensors")).tensors;
  int turned_ones = 0;
  for (const auto& [name, file] : kinds) {
    const std::string path = f / "image";
    write_file(path, Bytes(file.data<u8>(), static_cast<std::size_t>(file.numel())));
    for (const bool orient : {false, true}) {
      std::array<i64, 2> whole{};
      try {
        const Tensor image = read_image(path, {.orient = orient});
        whole = {image.dim(0), image.dim(1)};
      } catch (const Error&) {
        continue;
      }
      INFO(name);
      CHECK(read_image_size(path, {.orient = orient}) == whole);
      turned_ones += orient && whole[0] != read_image_size(path, {.orient = false})[0];
    }
  }
  CHECK(turned_ones > 0);
  // A frame header behind more than is read at first, and pixels that are cut off.
  std::vector<u8> jpeg = read_file(reference("images/rgb.jpg"));
  const std::array<i64, 2> size = read_image_size(reference("images/rgb.jpg"));
  std::vector<u8> comment{0xff, 0xfe, 0xff, 0xff};
  comment.resize(2 + 0xffff, 'x');
  jpeg.insert(jpeg.begin() + 2, comment.begin(), comment.end());
  jpeg.resize(jpeg.size() - 9);
  write_file(f / "late.jpg", Bytes(jpeg));
  CHECK(read_image_size(f / "late.jpg") == size);
  write_file(f / "cut.jpg", Bytes(jpeg).first(65600));
  CHECK(says([&] { read_image_size(f / "cut.jpg"); }, "cut.jpg: cut short"));
  write_file(f / "none.jpg", std::string_view("not much of a picture"));
  CHECK(says([&] { read_image_size(f / "none.jpg"); }, "none.jpg: not a PNG"));
#endif
}

}  // namespace yolo_test
