// gzip, IDX files, and MNIST's form of a set. The packed files were written by Python's gzip.

#include "ppma/io/idx.hpp"

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/idx_folder.hpp"
#include "ppma/io/gzip.hpp"
#include "ppma/io/stb.hpp"
#include "thrown.hpp"

using namespace ppma;
using io_test::Folder;

namespace idx_test {

namespace {

std::vector<u8> from_hex(const std::string& text) {
  std::vector<u8> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<u8>(std::stoi(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

// Two images of 2 x 3 levels 0 to 11, named; labels 3 and 1; a text, with every field that a header
// may have; nothing.
const char* const packed_images =
    "1f8b08080000000002ff7431306b2d696d616765732d696478332d7562797465006360e06066606060826266064626"
    "66"
    "165636760e4e2e6e00781e23841c000000";
const char* const packed_labels = "1f8b08000000000002036360e06064606060626604004ccfb6c90a000000";
const char* const packed_text =
    "1f8b081e000000000003050065787472616e616d65006120636f6d6d656e7400bcd02bc94855282ccd4cce56482aca"
    "2f"
    "cf5348cbaf502819151b151b15038b01004cab193920030000";
const char* const packed_nothing = "1f8b080000000000020303000000000000000000";

std::vector<u8> idx(const std::vector<u8>& shape, const std::vector<u8>& elements) {
  std::vector<u8> file{0, 0, 8, static_cast<u8>(shape.size())};
  for (const u8 n : shape) file.insert(file.end(), {0, 0, 0, n});
  file.insert(file.end(), elements.begin(), elements.end());
  return file;
}

std::vector<u8> counting(u8 n) {
  std::vector<u8> all;
  for (u8 i = 0; i < n; ++i) all.push_back(i);
  return all;
}

void put(const std::string& path, const std::vector<u8>& bytes) { write_file(path, Bytes(bytes)); }

std::vector<int> first_channel(const Tensor& image) {
  std::vector<int> levels;
  for (i64 i = 0; i < image.numel(); i += 3) {
    const u8* p = image.data<u8>() + i;
    CHECK((p[0] == p[1] && p[1] == p[2]));
    levels.push_back(p[0]);
  }
  return levels;
}

}  // namespace

TEST_CASE("gzip: files of another program, and each of them damaged") {
  if (PPMA_STB == 0) PPMA_SKIP("no stb_image, which unpacks gzip");
  std::string fox;
  for (int i = 0; i < 40; ++i) fox += "the quick brown fox ";
  const std::vector<u8> text = from_hex(packed_text);
  CHECK(text_of(gunzip(text, "f")) == fox);
  CHECK(gunzip(from_hex(packed_nothing), "f").empty());
  CHECK(gunzip(from_hex(packed_labels), "f") == idx({2}, {3, 1}));
  // Whatever is cut off or changed is seen, or was of no consequence.
  for (std::size_t n = 0; n < text.size(); ++n)
    CHECK(says([&] { gunzip(Bytes(text).first(n), "f"); }, "f: "));
  for (std::size_t at = 0; at < text.size(); ++at)
    for (const u8 bit : {u8{1}, u8{16}, u8{128}}) {
      std::vector<u8> damaged = text;
      damaged[at] = static_cast<u8>(damaged[at] ^ bit);
      std::string got = fox;
      try {
        got = text_of(gunzip(damaged, "f"));
      } catch (const Error&) {
        continue;
      }
      CHECK(got == fox);
    }
  std::vector<u8> twice = text;
  const std::vector<u8> other = from_hex(packed_labels);
  twice.insert(twice.end(), other.begin(), other.end());
  CHECK(says([&] { gunzip(twice, "f"); }, "or several in one file"));
  std::vector<u8> bomb = text;
  bomb[bomb.size() - 2] = 0x7f;  // its size, 2 GiB
  CHECK(says([&] { gunzip(bomb, "f"); }, "bytes cannot come from"));
  CHECK(says([&] { gunzip(idx({2}, {3, 1}), "f"); }, "f: not a gzip file"));
}

TEST_CASE("IDX: header and size are checked") {
  const std::vector<u8> good = idx({2, 2, 3}, counting(12));
  const IdxArray array = parse_idx(good, "f");
  CHECK(array.shape == std::vector<i64>{2, 2, 3});
  CHECK(array.begin == 16);
  for (std::size_t n = 0; n < good.size(); ++n)
    CHECK(says([&] { parse_idx(Bytes(good).first(n), "f"); }, "f: "));
  CHECK(says([&] { parse_idx(Bytes(good).first(15), "f"); }, "cut short within its header of 16"));
  CHECK(says([&] { parse_idx(Bytes(good).first(27), "f"); },
             "its header says 2 x 2 x 3, but 11 bytes follow: cut short"));
  std::vector<u8> other = good;
  other.push_back(0);
  CHECK(says([&] { parse_idx(other, "f"); }, "but 13 bytes follow: there is more"));
  other = good, other[2] = 12;
  CHECK(says([&] { parse_idx(other, "f"); }, "an IDX file of 32-bit numbers"));
  other = good, other[0] = 'P';
  CHECK(says([&] { parse_idx(other, "f"); }, "not an IDX file: it begins with 80 0 8 3"));
  other = good, other[3] = 0;
  CHECK(says([&] { parse_idx(other, "f"); }, "not an IDX file"));
  std::vector<u8> vast{0, 0, 8, 3};  // 2^96 elements, which are 0 in 64 bits
  for (int axis = 0; axis < 3; ++axis) vast.insert(vast.end(), {0x80, 0, 0, 0});
  CHECK(says([&] { parse_idx(vast, "f"); }, "but 0 bytes follow: cut short"));
}

TEST_CASE("a set in MNIST's form, packed or not") {
  const Folder f;
  CHECK(says([&] { idx_folder(f / ""); }, "has no train-images-idx3-ubyte"));
  CHECK(!has_idx(f / "", Split::train));
  put(f / "train-images.idx3-ubyte", idx({3, 2, 3}, counting(18)));
  CHECK(says([&] { idx_folder(f / ""); }, "has no labels beside "));
  put(f / "train-labels-idx1-ubyte", idx({3}, {0, 5, 1}));
  CHECK(says([&] { idx_folder(f / "", Split::test); }, "has no t10k-images-idx3-ubyte"));
  const Dataset train = idx_folder(f / "");
  CHECK(has_idx(f / "", Split::train));
  CHECK(!has_idx(f / "", Split::test));
  REQUIRE(train.size == 3);
  CHECK(train.class_names == std::vector<std::string>{"0", "1", "2", "3", "4", "5"});
  CHECK(train.get(1).label == 5);
  CHECK(train.get(1).image.shape() == Shape({2, 3, 3}));
  CHECK(first_channel(train.get(1).image) == std::vector<int>{6, 7, 8, 9, 10, 11});
#if PPMA_STB
  put(f / "t10k-images-idx3-ubyte.gz", from_hex(packed_images));
  put(f / "t10k-labels-idx1-ubyte.gz", from_hex(packed_labels));
  const Dataset test = idx_folder(f / "", Split::test);
  REQUIRE(test.size == 2);
  CHECK(test.class_names == train.class_names);  // the test set has no 5
  CHECK(test.get(0).label == 3);
  CHECK(first_channel(test.get(1).image) == std::vector<int>{6, 7, 8, 9, 10, 11});
#endif
  write_file(f / "classes.txt", std::string_view("shirt\ntrouser\n"));
  CHECK(says([&] { idx_folder(f / ""); },
             "train-labels-idx1-ubyte: image 1 has label 5, which is none of the 2 classes"));
  std::filesystem::remove(f / "classes.txt");
  put(f / "train-labels-idx1-ubyte", idx({2}, {0, 5}));
  CHECK(says([&] { idx_folder(f / ""); }, "2 labels for 3 images in "));
  put(f / "train-labels-idx1-ubyte", idx({3, 1}, {0, 5, 1}));
  CHECK(says([&] { idx_folder(f / ""); }, "has 2 axes; labels have 1"));
  put(f / "train-labels-idx1-ubyte", idx({0}, {}));
  put(f / "train-images.idx3-ubyte", idx({0, 2, 3}, {}));
  CHECK(says([&] { idx_folder(f / ""); }, "holds no images"));
}

TEST_CASE("EMNIST: its mapping names classes, its images stand upright") {
  const Folder f;
  // As in its letters: labels begin with 1; each image is stored column by column.
  put(f / "emnist-letters-test-images-idx3-ubyte", idx({1, 2, 3}, counting(6)));
  put(f / "emnist-letters-test-labels-idx1-ubyte", idx({1}, {2}));
  write_file(f / "emnist-letters-mapping.txt", std::string_view("1 65 97\n2 66 98\r\n"));
  const Dataset d = idx_folder(f / "", Split::test);
  CHECK(d.class_names == std::vector<std::string>{"A/a", "B/b"});
  CHECK(d.get(0).label == 1);
  CHECK(d.get(0).image.shape() == Shape({3, 2, 3}));
  CHECK(first_channel(d.get(0).image) == std::vector<int>{0, 3, 1, 4, 2, 5});
  const auto refused = [&](const char* mapping, const std::string& piece) {
    write_file(f / "emnist-letters-mapping.txt", std::string_view(mapping));
    CHECK(says([&] { idx_folder(f / "", Split::test); }, piece));
  };
  refused("\n1 65\n1 66\n", "mapping.txt: line 3: label 1 stands there twice");
  refused("1 65 x\n", "line 1: \"1 65 x\" is not a label and characters' codes");
  refused("1\n", "line 1: \"1\" is not a label");
  refused("300 65\n", "line 1");
  refused("1 10\n", "10 is no character's code");
  refused("", "names no classes");
  refused("1 65\n", "image 0 has label 2, which is none of the 1 classes");
  put(f / "emnist-digits-train-images-idx3-ubyte.gz", {});
  CHECK(has_idx(f / "", Split::train));
  CHECK(says([&] { idx_folder(f / "", Split::test); },
             "holds several sets, emnist-digits-* and emnist-letters-*"));
}

}  // namespace idx_test
