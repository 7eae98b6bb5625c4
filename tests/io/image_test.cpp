// Images against Pillow's reading and resizing of the same files (tests/reference/make_images.py),
// and damaged ones.

#include "ppma/io/image.hpp"

#include "help.hpp"
#include "ppma/io/safetensors.hpp"

using namespace io_test;

namespace {

std::string picture(const std::string& name) { return reference("images/" + name); }

int largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  int most = 0;
  for (i64 i = 0; i < a.numel(); ++i) most = std::max(most, std::abs(a.data<u8>()[i] - b.data<u8>()[i]));
  return most;
}

const TensorMap& expected() {
  static const TensorMap tensors = read_safetensors(picture("expected.safetensors")).tensors;
  return tensors;
}

}  // namespace

TEST_CASE("resize_antialiased is Pillow's, resize_bilinear and resize_nearest are PyTorch's", "[io]") {
  const Tensor& image = *find(expected(), "rgb.ppm");
  int compared = 0;
  for (const auto& [name, result] : expected()) {
    const i64 h = result.dim(0), w = result.dim(1);
    INFO(name);
    if (name.starts_with("bilinear ")) REQUIRE(largest_difference(resize_antialiased(image, h, w), result) == 0);
    if (name.starts_with("bicubic "))
      REQUIRE(largest_difference(resize_antialiased(image, h, w, Filter::bicubic), result) == 0);
    // The reference's products are rounded before they are summed: one level where exact arithmetic
    // meets a half.
    if (name.starts_with("plain ")) REQUIRE(largest_difference(resize_bilinear(image, h, w), result) <= 1);
    if (name.starts_with("nearest ")) REQUIRE(largest_difference(resize_nearest(image, h, w), result) == 0);
    compared += name.find(' ') != std::string::npos;
  }
  REQUIRE(compared == 24);
}

TEST_CASE("resize: a constant stays constant, channels stay apart, sizes are checked", "[io]") {
  const Tensor flat = Tensor::full({7, 5, 2}, 201, DType::uint8);
  for (const Tensor& y :
       {resize_antialiased(flat, 13, 3, Filter::bicubic), resize_bilinear(flat, 1, 9), resize_nearest(flat, 2, 2)})
    REQUIRE(y.to_vector<int>() == std::vector<int>(static_cast<std::size_t>(y.numel()), 201));
  // Two pixels, 0 and 100, to four: at 1/4, 1/4 and 3/4 of the way between their centres, clamped
  // outside.
  REQUIRE(resize_bilinear(Tensor::from<u8>({0, 100}, {1, 2, 1}), 1, 4).to_vector<int>() ==
          std::vector<int>{0, 25, 75, 100});
  CHECK_THAT(error_of([&] { resize_bilinear(flat, 0, 5); }), Contains("resize_bilinear: cannot resize to 0 x 5"));
  CHECK_THAT(error_of([&] { resize_antialiased(flat, 5, 100000); }), Contains("cannot resize"));
  CHECK_THAT(error_of([&] {
               resize_nearest(Tensor::zeros({2, 2, 3}), 1, 1);
             }),
             Contains("needs a uint8 image (H,W,C), got (2, 2, 3) f32"));
}

TEST_CASE("PPM and PGM are read without a library", "[io]") {
  REQUIRE(same_elements(read_image(picture("rgb.ppm")), *find(expected(), "rgb.ppm")));
  REQUIRE(same_elements(read_image(picture("grey.pgm")), *find(expected(), "grey.pgm")));
  REQUIRE(decode_image(Crafted("P5 # grey\n2 # wide\n1\n100\n").number<u8>(0).number<u8>(50), "x").to_vector<int>() ==
          std::vector<int>{0, 0, 0, 128, 128, 128});
  REQUIRE(decode_image(Crafted("P6 1 1 65535\n\xff\xff\x80").number<u8>(0).add("\x01\x01"), "x").to_vector<int>() ==
          std::vector<int>{255, 128, 1});
  const auto refused = [](const char* text) { return error_of([&] { decode_image(Crafted(text), "x.ppm"); }); };
  CHECK_THAT(refused("P6 2 2 255\nshort"), Contains("cut short: 5 of 12 bytes"));
  CHECK_THAT(refused("P6 0 2 255\n"), Contains("damaged PPM header"));
  CHECK_THAT(refused("P6 2 2 70000\nxxxx"), Contains("damaged PPM header"));
  CHECK_THAT(refused("P6 2"), Contains("damaged PPM header"));
  CHECK_THAT(refused("P6 -2 2 255\nxxxx"), Contains("damaged PPM header"));
  CHECK_THAT(refused("P6 99999999999999999999 2 255\nxxxx"), Contains("damaged PPM header") || Contains("is not read"));
  CHECK_THAT(refused("P6 30000 30000 255\nxxxx"), Contains("30000 x 30000 pixels, more than"));
  CHECK_THAT(refused("P6 3000 3000 255\nxxxx"), Contains("cannot come from 21 bytes"));
  CHECK_THAT(refused("hello"), Contains("x.ppm: not a PNG, JPEG, BMP, PPM or PGM image"));
  CHECK_THAT(refused(""), Contains("not a PNG"));
  CHECK_THAT(error_of([] { read_image("/nowhere/a.png"); }), Contains("/nowhere/a.png: cannot be read (No such file"));
}

#if PPMA_STB

TEST_CASE("images of every kind are what Pillow sees in them", "[io]") {
  int read = 0;
  for (const auto& [name, result] : expected()) {
    if (name.find(' ') != std::string::npos) continue;
    INFO(name);
    const int allowed = name.ends_with(".jpg") ? 2 : 0;  // JPEG decoders round in their own ways
    REQUIRE(largest_difference(read_image(picture(name)), result) <= allowed);
    ++read;
  }
  REQUIRE(read == 15);
}

TEST_CASE("write_png and back", "[io]") {
  const Folder folder;
  const Tensor& image = *find(expected(), "rgb.png");
  write_png(folder / "a.png", image);
  REQUIRE(same_elements(read_image(folder / "a.png"), image));
  write_png(folder / "grey.png", Tensor::from<u8>({0, 128, 255}, {1, 3, 1}));
  REQUIRE(read_image(folder / "grey.png").to_vector<int>() == std::vector<int>{0, 0, 0, 128, 128, 128, 255, 255, 255});
  CHECK_THAT(error_of([&] {
               write_png(folder / "b.png", Tensor::zeros({2, 2, 3}));
             }),
             Contains("write_png needs uint8"));
  CHECK_THAT(error_of([&] {
               write_png(folder / "b.png", Tensor::zeros({2, 2}, DType::uint8));
             }),
             Contains("got (2, 2)"));
  CHECK_THAT(error_of([&] { write_png(folder / "no/b.png", image); }), Contains("No such file"));
  REQUIRE(folder.files() == 2);
}

TEST_CASE("a PNG may begin its pixels with an empty piece", "[io]") {
  std::vector<u8> png = read_file(picture("rgb.png"));
  const u8 name[] = {'I', 'D', 'A', 'T'}, empty[] = {0, 0, 0, 0, 'I', 'D', 'A', 'T', 0x35, 0xaf, 0x06, 0x1e};
  const auto first = std::search(png.begin(), png.end(), name, name + 4) - 4;  // its length stands before its name
  png.insert(first, empty, empty + 12);
  REQUIRE(same_elements(decode_image(png, "x.png"), *find(expected(), "rgb.png")));
}

TEST_CASE("images that are cut short or claim too much are refused", "[io]") {
  for (const char* name : {"rgb.png", "rgb.jpg", "progressive.jpg", "rgb.bmp", "grey.bmp"}) {
    const std::vector<u8> whole = read_file(picture(name));
    for (std::size_t size = 0; size < whole.size(); size += 7) {
      INFO(name << " cut to " << size);
      const std::string message = error_of([&] { decode_image(Bytes(whole).first(size), "cut.png"); });
      REQUIRE_THAT(message, Contains("cut.png: "));
    }
  }
  // Huffman tables of more than 256 codes, which stb_image up to 2.27 would write past their end.
  std::vector<u8> jpeg = read_file(picture("rgb.jpg"));
  const u8 tables[] = {0xff, 0xc4};
  const auto counts = std::search(jpeg.begin(), jpeg.end(), tables, tables + 2) + 5;
  const std::vector<u8> many(16, 17);
  std::copy(many.begin(), many.end(), counts);
  CHECK_THAT(error_of([&] { decode_image(jpeg, "x"); }), Contains("x: damaged JPEG: its Huffman tables"));
  // A PNG header that claims 2^31 - 1 x 2^31 - 1 pixels, and one that claims just too many for its
  // size.
  std::vector<u8> png = read_file(picture("rgb.png"));
  for (const int at : {16, 17, 18, 19, 20, 21, 22, 23}) png[static_cast<std::size_t>(at)] = at % 4 == 0 ? 0x7f : 0xff;
  CHECK_THAT(error_of([&] { decode_image(png, "x"); }), Contains("x: damaged image") || Contains("is not read"));
  for (const int at : {16, 17, 20, 21}) png[static_cast<std::size_t>(at)] = 0;
  for (const int at : {18, 19, 22, 23}) png[static_cast<std::size_t>(at)] = 0x20;
  CHECK_THAT(error_of([&] { decode_image(png, "x"); }), Contains("8224 x 8224 pixels cannot come from"));
}

#else

TEST_CASE("without stb_image, PNG says what is missing", "[io]") {
  CHECK_THAT(error_of([] { read_image(picture("rgb.png")); }), Contains("compiled without stb_image"));
  CHECK_THAT(error_of([] {
               write_png("/tmp/never.png", Tensor::zeros({1, 1, 3}, DType::uint8));
             }),
             Contains("compiled without"));
}

#endif
