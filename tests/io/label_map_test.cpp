// Label maps: indices, not colours.

#include "ppma/io/label_map.hpp"

#include "catch.hpp"
#include "help.hpp"
#include "thrown.hpp"

using namespace ppma;

#if PPMA_STB
TEST_CASE("label maps", "[io]") {
  const io_test::Folder folder;
  const std::vector<u8> labels{0, 1, 2, 200, 255, 7};
  write_png(folder / "l.png", Tensor::from<u8>(labels, {2, 3, 1}));
  const Tensor grey = read_label_map(folder / "l.png");
  CHECK(grey.shape() == Shape{2, 3});
  CHECK(grey.to_vector<u8>() == labels);
  // The same pixels as indices into a palette of one hue, shorter than the largest index.
  std::vector<u8> png = read_file(folder / "l.png"), palette{0, 0, 0, 6, 'P', 'L', 'T', 'E', 9, 9, 9, 8, 8, 8, 0, 0, 0, 0};
  png[25] = 3;
  CHECK(says([&] { decode_label_map(png, "p.png"); }, "p.png: damaged PNG: no palette"));
  png.insert(png.begin() + 33, palette.begin(), palette.end());
  CHECK(decode_label_map(png, "p.png").to_vector<u8>() == labels);
  png.resize(36);
  CHECK(says([&] { decode_label_map(png, "p.png"); }, "p.png: damaged PNG"));
  png = read_file(folder / "l.png");
  png[24] = 16;
  CHECK(says([&] { decode_label_map(png, "p.png"); }, "p.png: a label map of 16 bits"));
  write_png(folder / "rgb.png", Tensor::zeros({2, 2, 3}, DType::uint8));
  CHECK(says([&] { read_label_map(folder / "rgb.png"); }, "rgb.png: a label map has one channel; this PNG has colours"));
  CHECK(says([&] { read_label_map(io_test::reference("images/rgb.jpg")); }, "rgb.jpg: a label map must be a PNG"));
  CHECK(says([] { decode_label_map({}, "none"); }, "none: a label map must be a PNG"));
}
#endif
