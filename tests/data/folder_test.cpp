// CIFAR's binary files and folders of images, from files that the tests write, and the real
// CIFAR-10 where it is there.

#include <filesystem>

#include "catch.hpp"
#include "ppma/data/cifar.hpp"
#include "ppma/data/image_batches.hpp"
#include "ppma/data/image_folder.hpp"
#include "thrown.hpp"

using namespace ppma;
namespace fs = std::filesystem;

namespace folder_test {

namespace {

// A folder that goes with the test case.
struct Folder {
  std::string path;
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "ppma_data_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path); }
  void file(const std::string& name, const std::vector<u8>& bytes) const {
    fs::create_directories(fs::path(path + "/" + name).parent_path());
    write_file(path + "/" + name, Bytes(bytes));
  }
  void file(const std::string& name, const std::string& text) const {
    file(name, std::vector<u8>(text.begin(), text.end()));
  }
};

// Records whose labels are given; pixel p of plane c is label + 10 c + p % 100.
std::vector<u8> records(const std::vector<std::vector<u8>>& labels) {
  std::vector<u8> bytes;
  for (const auto& l : labels) {
    bytes.insert(bytes.end(), l.begin(), l.end());
    for (int c = 0; c < 3; ++c)
      for (int p = 0; p < 1024; ++p) bytes.push_back(static_cast<u8>(l.back() + 10 * c + p % 100));
  }
  return bytes;
}

}  // namespace

TEST_CASE("CIFAR-10 files") {
  const Folder f;
  f.file("batches.meta.txt", std::string("airplane\nautomobile\r\nbird\n\n"));
  f.file("data_batch_1.bin", records({{0}, {2}}));
  f.file("data_batch_2.bin", records({{1}}));
  f.file("test_batch.bin", records({{2}, {1}, {0}, {1}}));
  const Dataset train = cifar(f.path), test = cifar(f.path, Split::test);
  CHECK(train.name == "cifar10");
  CHECK(train.class_names == std::vector<std::string>{"airplane", "automobile", "bird"});
  CHECK(train.size == 3);
  CHECK(test.size == 4);
  const Sample s = train.get(1);
  CHECK(s.label == 2);
  REQUIRE(s.image.shape() == Shape({32, 32, 3}));
  const u8* p = s.image.data<u8>() + (1 * 32 + 5) * 3;  // pixel 37
  CHECK(int{p[0]} == 39);
  CHECK(int{p[1]} == 49);
  CHECK(int{p[2]} == 59);
  CHECK(train.get(2).label == 1);

  f.file("data_batch_3.bin", records({{3}}));
  CHECK(says([&] { cifar(f.path); },
             "data_batch_3.bin: record 0 has label 3, but 3 classes are named"));
  std::vector<u8> cut = records({{1}, {1}});
  cut.pop_back();
  f.file("data_batch_3.bin", cut);
  CHECK(says([&] { cifar(f.path); },
             "data_batch_3.bin: 6145 bytes are not a whole number of records of 3073"));
  CHECK(says([&] { cifar(f.path + "/nowhere"); },
             "has no data_batch_1.bin (CIFAR-10) and no train.bin (CIFAR-100)"));
}

TEST_CASE("CIFAR-100 files: the fine label is the second") {
  const Folder f;
  f.file("fine_label_names.txt", std::string("apple\nbear\nbed"));
  f.file("train.bin", records({{19, 1}, {4, 2}}));
  f.file("test.bin", records({{4, 0}}));
  const Dataset train = cifar(f.path);
  CHECK(train.name == "cifar100");
  CHECK(train.size == 2);
  CHECK(train.get(0).label == 1);
  CHECK(train.get(1).label == 2);
  CHECK(int{train.get(1).image.data<u8>()[2]} == 22);
  CHECK(cifar(f.path, Split::test).get(0).label == 0);
  f.file("train.bin", records({{1}}));
  CHECK(says([&] { cifar(f.path); }, "not a whole number of records of 3074"));
}

TEST_CASE("the real CIFAR-10") {
  const std::string folder = std::string(PPMA_TEST_SOURCE_DIR) + "/../shared/data/cifar10";
  if (!fs::exists(folder)) PPMA_SKIP("no CIFAR-10 in " + folder);
  const Dataset train = cifar(folder), test = cifar(folder, Split::test);
  CHECK(train.size == 10000);
  CHECK(test.size == 4000);
  CHECK(train.class_names[8] == "ship");
  std::vector<i64> count(10);
  double blue[10] = {};
  for (i64 i = 0; i < test.size; ++i) {
    const Sample s = test.get(i);
    ++count[static_cast<std::size_t>(s.label)];
    for (i64 p = 0; p < 32; ++p)  // the top row: blue minus red
      blue[s.label] += s.image.data<u8>()[3 * p + 2] - s.image.data<u8>()[3 * p];
  }
  CHECK(count == std::vector<i64>(10, 400));
  CHECK(blue[0] / 12800 > 5);  // sky above aeroplanes,
  CHECK(blue[4] < blue[0]);    // not above deer: planes and channels are where they belong
}

TEST_CASE("a folder of images: classes are the sorted folders") {
  const Folder f;
  const auto picture = [](int level) {
    return str("P6\n2 1\n255\n", std::string(6, static_cast<char>(level)));
  };
  f.file("zebra/b.ppm", picture(1));
  f.file("zebra/a.PPM", picture(2));
  f.file("ant/deeper/x.ppm", picture(3));
  f.file("ant/notes.txt", std::string("no image"));
  f.file("ant/.hidden.ppm", std::string("no image"));
  f.file(".git/y.ppm", picture(9));
  f.file("readme.txt", std::string("no class"));
  const Dataset d = image_folder(f.path);
  CHECK(d.class_names == std::vector<std::string>{"ant", "zebra"});
  REQUIRE(d.size == 3);
  CHECK(d.get(0).label == 0);
  CHECK(int{d.get(0).image.data<u8>()[0]} == 3);
  CHECK(d.get(1).label == 1);
  CHECK(int{d.get(1).image.data<u8>()[0]} == 2);
  CHECK(d.get(2).name == f.path + "/zebra/b.ppm");

  f.file("zebra/c.jpg", std::string("\xff\xd8\xff\xe0 not much of a picture"));
  BatchStream<Batch> loader(image_batches(image_folder(f.path), {.batch = 4}));
  loader.start(0);
  Batch batch;
  CHECK(says([&] { loader.next(batch); }, "zebra/c.jpg: cut short"));
  fs::create_directories(f.path + "/empty");
  CHECK(says([&] { image_folder(f.path); }, "/empty: has no images"));
  CHECK(says([&] { image_folder(f.path + "/empty"); },
             "has no folders; one for each class is needed"));
  CHECK(says([&] { image_folder(f.path + "/readme.txt"); }, "is not a folder"));
}

TEST_CASE("a folder of images: links, hidden files, and what is left out is said") {
  const Folder f;
  const auto picture = [](int level) {
    return str("P6\n2 1\n255\n", std::string(6, static_cast<char>(level)));
  };
  f.file("set/cat/a.ppm", picture(1));
  f.file("set/cat/b.WebP", std::string("RIFF    WEBPVP8 "));
  f.file("set/cat/c.tif", std::string("II*"));
  f.file("set/cat/below/d.webp", std::string("RIFF    WEBPVP8 "));
  f.file("set/cat/._a.ppm", std::string("AppleDouble"));
  f.file("set/cat/.DS_Store", std::string("x"));
  f.file("set/cat/.thumbnails/t.ppm", picture(8));
  f.file("set/stray.ppm", picture(9));
  f.file("elsewhere/dog/x.PGM", std::string("P5 1 1 255\n\x07"));
  f.file("elsewhere/more/y.ppm", picture(5));
  const std::string set = f.path + "/set";
  fs::create_directory_symlink(f.path + "/elsewhere/dog", set + "/dog");        // a class
  fs::create_directory_symlink(f.path + "/elsewhere/more", set + "/cat/more");  // a folder in one
  fs::create_symlink(f.path + "/elsewhere/more/y.ppm", set + "/cat/z.ppm");     // an image
  const Dataset d = image_folder(set);
  CHECK(d.class_names == std::vector<std::string>{"cat", "dog"});
  REQUIRE(d.size == 4);
  CHECK(d.get(1).name == set + "/cat/more/y.ppm");
  CHECK(int{d.get(1).image.data<u8>()[0]} == 5);
  CHECK(int{d.get(2).image.data<u8>()[0]} == 5);
  CHECK(int{d.get(3).image.data<u8>()[0]} == 7);
  CHECK(d.left_out ==
        "3 files that are not .jpg, .jpeg, .png, .bmp, .ppm or .pgm (1 .tif, 2 .webp; such as "
        "cat/b.WebP), 1 image beside the class folders");

  fs::create_symlink(f.path + "/nowhere.ppm", set + "/cat/gone.ppm");
  CHECK(says([&] { image_folder(set); }, "/cat/gone.ppm: a link to a file that is not there"));
  fs::remove(set + "/cat/gone.ppm");
  fs::create_symlink(f.path + "/nowhere", set + "/cow");
  CHECK(says([&] { image_folder(set); }, "/cow: a link to what is not there"));
  fs::remove(set + "/cow");
  fs::create_directory_symlink(set, set + "/cat/round");
  CHECK(says([&] { image_folder(set); }, "/cat/round: a link to a folder that it lies in"));
  fs::remove(set + "/cat/round");
  f.file("set/emu/e.webp", std::string("RIFF    WEBPVP8 "));
  CHECK(
      says([&] { image_folder(set); },
           "/emu: has no images (.jpg, .jpeg, .png, .bmp, .ppm or .pgm), but 1 file that is not"));
  f.file("set/emu/e.jpg", std::string("RIFF    WEBPVP8 "));  // the first bytes count, not the name
  CHECK(says([&] { image_folder(set).get(4); },
             "/emu/e.jpg: a WebP image; convert it to PNG or JPEG"));
}

TEST_CASE("a folder of images: all classes without images are named, names are bytes") {
  const Folder f;
  const std::string picture = "P5 1 1 255\n\x07", latin = "caf\xe9";  // not UTF-8
  f.file("b/x.pgm", picture);
  f.file("B/x.pgm", picture);
  f.file("\xc3\xa9/\xe9t\xe9.PGM", picture);
  f.file(latin + "/x.Pgm", picture);
  const Dataset d = image_folder(f.path);
  // sorted by bytes, as Python sorts by code points
  CHECK(d.class_names == std::vector<std::string>{"B", "b", latin, "\xc3\xa9"});
  REQUIRE(d.size == 4);
  for (i64 i = 0; i < 4; ++i) CHECK(d.get(i).label == i);
  CHECK(d.get(3).name == f.path + "/\xc3\xa9/\xe9t\xe9.PGM");

  fs::create_directories(f.path + "/a");
  f.file("c/notes.txt", std::string("no image"));
  f.file("d/.hidden.pgm", picture);
  CHECK(says([&] { image_folder(f.path); }, ": 3 classes have no images (.jpg, "));
  CHECK(says([&] { image_folder(f.path); }, "): a, c, d"));
  const ClassFolders all = list_classes(f.path);
  CHECK(all.names.size() == 7);
  CHECK(all.files.size() == 4);
  REQUIRE(all.empty.size() == 3);
  CHECK(all.empty[1].first == "c");
  CHECK(all.empty[1].second.starts_with("1 file that is not .jpg"));
}

}  // namespace folder_test
