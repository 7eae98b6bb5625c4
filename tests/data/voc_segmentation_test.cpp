// PASCAL VOC's label maps: reference/voc by Pillow (make_voc.py), and what is refused.

#include "ppma/data/voc_segmentation.hpp"

#include <filesystem>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/stb.hpp"

namespace voc_segmentation_test {

using namespace ppma;
using io_test::Contains;
using io_test::error_of;
using io_test::Folder;
namespace fs = std::filesystem;

namespace {

// A copy of the tree, to be spoilt.
struct Copy {
  Folder folder{};
  std::string root = folder / "VOC";

  Copy() { fs::copy(io_test::reference("voc"), root, fs::copy_options::recursive); }
  void put(const std::string& file, std::string_view text) const {
    write_file(root + "/" + file, text);
  }
};

}  // namespace

#if PPMA_STB

TEST_CASE("voc: a palette's indices are the classes, 255 does not count", "[data]") {
  const std::string root = io_test::reference("voc");
  const TensorMap expected = read_safetensors(root + "/expected.safetensors").tensors;
  const SegmentationSet train = voc_segmentation(root, Split::train),
                        val = voc_segmentation(root, Split::val);
  REQUIRE((train.size == 2 && val.size == 1 && train.classes() == 21));
  CHECK((train.class_names[0] == "background" && train.class_names[15] == "person" &&
         train.class_names[20] == "tvmonitor"));
  i64 nothing = 0;
  for (const auto& [set, i, name] :
       {std::tuple{&train, 0, "a"}, {&train, 1, "b"}, {&val, 0, "c"}}) {
    INFO(name);
    const SegmentationSample s = set->get(i);
    CHECK(io_test::same_elements(s.labels, *find(expected, name)));
    CHECK(s.image.shape() == Shape{32, 44, 3});
    for (const int label : s.labels.to_vector<int>()) nothing += label == 255;
  }
  CHECK(nothing > 200);
}

TEST_CASE("voc: label maps and lists that are not as they must be", "[data]") {
  const auto says = [](const Copy& c, Split split = Split::train) {
    return error_of([&] {
      const SegmentationSet set = voc_segmentation(c.root, split);
      for (i64 i = 0; i < set.size; ++i) set.get(i);
    });
  };
  {
    const Copy c;
    c.put("classes.txt", "cell\ndot\n");  // "background" is put before them
    CHECK(voc_segmentation(c.root, Split::train).class_names ==
          std::vector<std::string>{"background", "cell", "dot"});
    CHECK_THAT(says(c), Contains("SegmentationClass/a.png: label 3 at row 0, column 6; with 3 "
                                 "classes it must be 0 to 2, or 255"));
    c.put("classes.txt", "_background_\ncell\n");
    CHECK(voc_segmentation(c.root, Split::train).classes() == 2);
    c.put("classes.txt", "cell\ncell\n");
    CHECK_THAT(says(c), Contains("classes.txt: names a class twice"));
    c.put("classes.txt", "background\n");
    CHECK_THAT(says(c), Contains("must name 1 to 254 classes beside the background"));
  }
  {
    const Copy c;
    const std::string list = "ImageSets/Segmentation/train.txt";
    c.put(list, "a\nd\n../voc/b\n");
    CHECK_THAT(says(c),
               Contains("train.txt: line 2: there is no image ") && Contains("/JPEGImages/d.jpg"));
    std::vector<std::string> broken;
    CHECK(voc_segmentation(c.root, Split::train, &broken).size == 1);
    CHECK((broken.size() == 2 && broken[1].find("line 3: there is no image") < 1000));
    c.put(list, "a\n\na\n");
    CHECK_THAT(says(c), Contains("train.txt: line 3: a is there twice"));
    c.put(list, "\n");
    CHECK_THAT(says(c), Contains("train.txt: names no images"));
    fs::rename(c.root + "/ImageSets/Segmentation/val.txt",
               c.root + "/ImageSets/Segmentation/test.txt");  // as VOC2007 has it
    CHECK(voc_segmentation(c.root, Split::val).size == 1);
    fs::remove(c.root + "/" + list);
    CHECK_THAT(says(c), Contains("train.txt: cannot be read"));
  }
  {
    const Copy c;
    write_png(c.root + "/SegmentationClass/b.png", Tensor::zeros({32, 44, 3}, DType::uint8));
    CHECK_THAT(says(c), Contains("b.png: a label map has one channel; this PNG has colours"));
    write_png(c.root + "/SegmentationClass/b.png", Tensor::zeros({44, 32, 1}, DType::uint8));
    CHECK_THAT(says(c), Contains("b.png: 32 x 44 pixels, its image 44 x 32 as stored"));
    fs::remove(c.root + "/SegmentationClass/b.png");
    CHECK_THAT(says(c),
               Contains("line 2: there is no label map ") && Contains("/SegmentationClass/b.png"));
    fs::remove_all(c.root + "/SegmentationClass");
    CHECK_THAT(says(c), Contains("has no folder SegmentationClass; give the folder that has"));
  }
}

#endif

}  // namespace voc_segmentation_test
