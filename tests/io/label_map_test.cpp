// Label maps: indices, not colours.

#include "ppma/io/label_map.hpp"

#include "../fuzz/targets.hpp"
#include "catch.hpp"
#include "help.hpp"
#include "ppma/io/pickle.hpp"
#include "ppma/io/png.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/stb.hpp"
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
  std::vector<u8> png = read_file(folder / "l.png"),
                  palette{0, 0, 0, 6, 'P', 'L', 'T', 'E', 9, 9, 9, 8, 8, 8, 0, 0, 0, 0};
  png[25] = 3;
  CHECK(says([&] { decode_label_map(png, "p.png"); },
             "p.png: damaged PNG: the checksum of the piece \"IHDR\""));
  CHECK(says([&] { decode_label_map(fuzz::with_checksums(png), "p.png"); },
             "p.png: damaged PNG: no palette"));
  png.insert(png.begin() + 33, palette.begin(), palette.end());
  CHECK(decode_label_map(fuzz::with_checksums(png), "p.png").to_vector<u8>() == labels);
  png.resize(36);
  CHECK(says([&] { decode_label_map(fuzz::with_checksums(png), "p.png"); },
             "p.png: cut short: a PNG without its end"));
  png = read_file(folder / "l.png");
  png[30] ^= 1;
  CHECK(says([&] { decode_label_map(png, "p.png"); },
             "p.png: damaged PNG: the checksum of the piece \"IHDR\" at byte 8 is wrong"));
  write_png(folder / "rgb.png", Tensor::zeros({2, 2, 3}, DType::uint8));
  CHECK(says([&] { read_label_map(folder / "rgb.png"); },
             "rgb.png: a label map has one channel; this PNG has colours"));
  CHECK(says([&] { read_label_map(io_test::reference("images/rgb.jpg")); },
             "rgb.jpg: a label map must be a PNG"));
  CHECK(says([] { decode_label_map({}, "none"); }, "none: a label map must be a PNG"));
}

TEST_CASE("label maps of every depth give the numbers that are stored", "[io]") {
  // reference/make_image_kinds.py: picture's green g as labels, g >> (8 - bits), or of 16 bits g *
  // 257 + 77.
  const TensorMap kinds = read_safetensors(io_test::reference("images/kinds.safetensors")).tensors;
  const auto labels_of = [&](const std::string& name) {
    const Tensor& file = *find(kinds, name);
    return decode_label_map(Bytes(file.data<u8>(), static_cast<std::size_t>(file.numel())), name);
  };
  const std::vector<i64> green = labels_of("grey 8.png").to_vector<i64>();
  for (const std::string layout : {"", "interlaced "})
    for (const int bits : {1, 2, 4, 8, 16})
      for (const std::string kind : {"grey ", "palette "}) {
        if (bits == 16 && kind == "palette ") continue;
        const std::string name = layout + kind + std::to_string(bits) + ".png";
        INFO(name);
        std::vector<i64> expected = green;
        for (i64& v : expected) v = bits == 16 ? (v * 257 + 77) % 65536 : v >> (8 - bits);
        const Tensor labels = labels_of(name);
        CHECK(labels.dtype() == (bits == 16 ? DType::int64 : DType::uint8));
        CHECK(labels.to_vector<i64>() == expected);
      }
  CHECK(labels_of("palette short.png").to_vector<i64>() == [&] {
    std::vector<i64> expected = green;  // an index beyond the palette is a number as any other
    for (i64& v : expected) v >>= 4;
    return expected;
  }());
  CHECK(labels_of("eXIf grey 16.png").shape() == Shape({12, 17}));  // as stored
  CHECK(says([&] { labels_of("grey alpha 8.png"); },
             "a label map has one channel; this PNG has alpha"));
  CHECK(says([&] { labels_of("broken IDAT.png"); },
             "the checksum of the piece \"IDAT\" at byte 33 is wrong"));
}
#endif
