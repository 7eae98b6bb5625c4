// Images against Pillow's reading and resizing of the same files (tests/reference/make_images.py),
// and damaged ones.

#include "ppma/io/image.hpp"

#include <map>
#include <set>

#include "../fuzz/targets.hpp"
#include "help.hpp"
#include "ppma/io/exif.hpp"
#include "ppma/io/pickle.hpp"
#include "ppma/io/png.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/stb.hpp"
#include "ppma/tensor/tensor.hpp"

using namespace io_test;

namespace {

std::string picture(const std::string& name) { return reference("images/" + name); }

int largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  int most = 0;
  for (i64 i = 0; i < a.numel(); ++i)
    most = std::max(most, std::abs(a.data<u8>()[i] - b.data<u8>()[i]));
  return most;
}

const TensorMap& expected() {
  static const TensorMap tensors = read_safetensors(picture("expected.safetensors")).tensors;
  return tensors;
}

}  // namespace

TEST_CASE("resize_antialiased is Pillow's, resize_bilinear and resize_nearest are PyTorch's",
          "[io]") {
  const Tensor& image = *find(expected(), "rgb.ppm");
  int compared = 0;
  for (const auto& [name, result] : expected()) {
    const i64 h = result.dim(0), w = result.dim(1);
    INFO(name);
    if (name.starts_with("bilinear "))
      REQUIRE(largest_difference(resize_antialiased(image, h, w), result) == 0);
    if (name.starts_with("bicubic "))
      REQUIRE(largest_difference(resize_antialiased(image, h, w, Filter::bicubic), result) == 0);
    // The reference's products are rounded before they are summed: one level where exact arithmetic
    // meets a half.
    if (name.starts_with("plain "))
      REQUIRE(largest_difference(resize_bilinear(image, h, w), result) <= 1);
    if (name.starts_with("nearest "))
      REQUIRE(largest_difference(resize_nearest(image, h, w), result) == 0);
    compared += name.find(' ') != std::string::npos;
  }
  REQUIRE(compared == 24);
}

TEST_CASE("resize: a constant stays constant, channels stay apart, sizes are checked", "[io]") {
  const Tensor flat = Tensor::full({7, 5, 2}, 201, DType::uint8);
  for (const Tensor& y : {resize_antialiased(flat, 13, 3, Filter::bicubic),
                          resize_bilinear(flat, 1, 9), resize_nearest(flat, 2, 2)})
    REQUIRE(y.to_vector<int>() == std::vector<int>(static_cast<std::size_t>(y.numel()), 201));
  // Two pixels, 0 and 100, to four: at 1/4, 1/4 and 3/4 of the way between their centres, clamped
  // outside.
  REQUIRE(resize_bilinear(Tensor::from<u8>({0, 100}, {1, 2, 1}), 1, 4).to_vector<int>() ==
          std::vector<int>{0, 25, 75, 100});
  CHECK_THAT(error_of([&] { resize_bilinear(flat, 0, 5); }),
             Contains("resize_bilinear: cannot resize to 0 x 5"));
  CHECK_THAT(error_of([&] { resize_antialiased(flat, 5, 100000); }), Contains("cannot resize"));
  CHECK_THAT(error_of([&] {
               resize_nearest(Tensor::zeros({2, 2, 3}), 1, 1);
             }),
             Contains("needs a uint8 image (H,W,C), got (2, 2, 3) f32"));
}

TEST_CASE("PPM and PGM are read without a library", "[io]") {
  REQUIRE(same_elements(read_image(picture("rgb.ppm")), *find(expected(), "rgb.ppm")));
  REQUIRE(same_elements(read_image(picture("grey.pgm")), *find(expected(), "grey.pgm")));
  REQUIRE(decode_image(Crafted("P5 # grey\n2 # wide\n1\n100\n").number<u8>(0).number<u8>(50), "x")
              .to_vector<int>() == std::vector<int>{0, 0, 0, 128, 128, 128});
  REQUIRE(decode_image(Crafted("P6 1 1 65535\n\xff\xff\x80").number<u8>(0).add("\x01\x01"), "x")
              .to_vector<int>() == std::vector<int>{255, 128, 1});
  const auto refused = [](const char* text) {
    return error_of([&] { decode_image(Crafted(text), "x.ppm"); });
  };
  CHECK_THAT(refused("P6 2 2 255\nshort"), Contains("cut short: 5 of 12 bytes"));
  CHECK_THAT(refused("P6 0 2 255\n"), Contains("damaged PPM header"));
  CHECK_THAT(refused("P6 2 2 70000\nxxxx"), Contains("damaged PPM header"));
  CHECK_THAT(refused("P6 2"), Contains("damaged PPM header"));
  CHECK_THAT(refused("P6 -2 2 255\nxxxx"), Contains("damaged PPM header"));
  CHECK_THAT(refused("P6 99999999999999999999 2 255\nxxxx"),
             Contains("damaged PPM header") || Contains("is not read"));
  CHECK_THAT(refused("P6 30000 30000 255\nxxxx"), Contains("30000 x 30000 pixels, more than"));
  CHECK_THAT(refused("P6 3000 3000 255\nxxxx"), Contains("cannot come from 21 bytes"));
  CHECK_THAT(refused("hello"), Contains("x.ppm: not a PNG, JPEG, BMP, PPM, PGM or PBM image"));
  CHECK_THAT(refused(""), Contains("x.ppm: an empty file, not an image"));
  CHECK_THAT(refused("P2 2 1 255 7"),
             Contains("x.ppm: cut short: sample 1 of 2 is no number from 0 to 255"));
  CHECK_THAT(refused("P2 2 1 255 7 300 "), Contains("sample 1 of 2 is no number from 0 to 255"));
  CHECK(decode_image(Crafted("P2 2 1 256 7 256 "), "x").to_vector<int>() ==
        std::vector<int>{7, 7, 7, 255, 255, 255});
  CHECK(decode_image(Crafted("P5 2 1 65535\n\x80\x80").number<u8>(0).number<u8>(0), "x")
            .to_vector<int>() == std::vector<int>{128, 128, 128, 0, 0, 0});
  CHECK(decode_image(Crafted("P2 1 2 65535 0 0 "), "x").to_vector<int>() == std::vector<int>(6, 0));
  CHECK_THAT(
      refused("P2 2 1 65535 0 11 "),
      Contains("x.ppm: all of a grey PGM of 16 bits would be black, as its levels are so low"));
  CHECK(decode_image(Crafted("P3 1 1 256 256 128 0 "), "x").to_vector<int>() ==
        std::vector<int>{255, 128, 0});
  CHECK_THAT(refused("P4 9 2\n123"), Contains("cut short: 3 of 4 bytes"));
  CHECK_THAT(error_of([] { read_image("/nowhere/a.png"); }),
             Contains("/nowhere/a.png: cannot be read (No such file"));
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
  REQUIRE(read == 14);
}

TEST_CASE("images of two hundred kinds are what Pillow sees in them, or are refused by name",
          "[io]") {
  // reference/make_image_kinds.py: depths, palettes, orientations, subsampling, colour spaces,
  // headers.
  const TensorMap kinds = read_safetensors(picture("kinds.safetensors")).tensors;
  // Read by Pillow, not by us; and the other way round.
  const std::map<std::string, std::string> refused{
      {"arithmetic.jpg", "a JPEG with arithmetic coding is not read"},
      {"broken IDAT.png", "the checksum of the piece \"IDAT\" at byte 33 is wrong"},
      {"without an end.png", "cut short: a PNG without its end"},
      {"x.avif", "an AVIF image; convert it to PNG or JPEG"},
      {"x.gif", "a GIF image; convert"},
      {"x.ico", "an icon (ICO); convert"},
      {"x.jpeg2000", "a JPEG 2000 image; convert"},
      {"x.tga", "a TGA image or a cursor; convert"},
      {"x.tiff", "a TIFF image; convert"},
      {"x.webp", "a WebP image; convert"}};
  const std::set<std::string> cut_off{"grey 16.png", "interlaced grey 16.png",  // by Pillow, at 255
                                      "grey 16 colour key.png", "eXIf grey 16.png", "p5 16.pgm"};
  const std::set<std::string> more{"exif after others.jpg", "fields 32 swapped.bmp",
                                   "top-down fields 32 swapped.bmp", "own all 2x2.jpg"};
  int same = 0, named = 0, seen = 0, grey16 = 0;
  for (const auto& entry : kinds) {
    const std::string& name = entry.first;
    const Tensor& file = entry.second;
    if (name.ends_with(" pixels")) continue;
    INFO(name);
    const Bytes bytes(file.data<u8>(), static_cast<std::size_t>(file.numel()));
    const Tensor* pixels = find(kinds, name + " pixels");
    const auto why = refused.find(name);
    if (why != refused.end() || (pixels == nullptr && more.count(name) == 0)) {
      const std::string message = error_of([&] { decode_image(bytes, name); });
      CHECK_THAT(message, Contains(name + ": "));
      if (why != refused.end()) CHECK_THAT(message, Contains(why->second));
      ++named;
      continue;
    }
    const Tensor image = decode_image(bytes, name);
    if (cut_off.count(name) != 0) {
      CHECK(image.shape() == pixels->shape());
      ++grey16;
    } else if (pixels == nullptr) {
      ++seen;
    } else {
      // halves round up here
      CHECK(largest_difference(image, *pixels) <= (name == "p6 100.ppm" ? 1 : 0));
      ++same;
    }
  }
  CHECK(same == 255);
  CHECK(named == 20);
  CHECK(seen == 4);
  CHECK(grey16 == 5);
}

TEST_CASE("of grey of 16 bits the upper eight are seen", "[io]") {
  // reference/make_image_kinds.py, which has PNG writers of its own: levels of 16 bits from those
  // of "grey 8.png", of which Pillow says what they are.
  const TensorMap kinds = read_safetensors(picture("kinds.safetensors")).tensors;
  const auto seen = [&](const std::string& name) {
    const Tensor& file = *find(kinds, name);
    return decode_image(Bytes(file.data<u8>(), static_cast<std::size_t>(file.numel())), name);
  };
  const Tensor& grey = *find(kinds, "grey 8.png pixels");
  Tensor upper = grey.clone();
  for (i64 i = 0; i < upper.numel(); ++i)
    upper.data<u8>()[i] = static_cast<u8>((grey.data<u8>()[i] * 257 + 77) % 65536 >> 8);
  CHECK(same_elements(seen("grey 16.png"), upper));
  CHECK(same_elements(seen("interlaced grey 16.png"), upper));
  CHECK(same_elements(seen("grey 16 colour key.png"), grey));
  CHECK(same_elements(seen("eXIf grey 16.png"), turned(grey, 8)));
  CHECK(same_elements(seen("p5 16.pgm"), grey));
  // Pillow's own writer, reference/make_images.py: 256 g + 200.
  const Tensor wide = read_image(picture("grey16.png")), &rgb = *find(expected(), "rgb.png");
  REQUIRE(wide.shape() == rgb.shape());
  for (i64 i = 0; i < wide.numel(); ++i)
    REQUIRE(wide.data<u8>()[i] == rgb.data<u8>()[i / 3 * 3 + 1]);
}

TEST_CASE("grey of 16 bits that would be all black is refused", "[io]") {
  // Two pixels, 0 and 200; 0 and 0: files of Python's struct and zlib.
  const std::vector<u8> dark{137, 80,  78,  71,  13, 10, 26, 10, 0,  0,   0,   13,  73,  72,
                             68,  82,  0,   0,   0,  2,  0,  0,  0,  1,   16,  0,   0,   0,
                             0,   129, 217, 252, 21, 0,  0,  0,  13, 73,  68,  65,  84,  120,
                             218, 99,  96,  96,  96, 56, 1,  0,  0,  205, 0,   201, 171, 205,
                             174, 95,  0,   0,   0,  0,  73, 69, 78, 68,  174, 66,  96,  130},
      black{137, 80,  78,  71,  13,  10, 26, 10,  0,   0,  0,  13, 73,  72,  68,  82, 0,
            0,   0,   2,   0,   0,   0,  1,  16,  0,   0,  0,  0,  129, 217, 252, 21, 0,
            0,   0,   11,  73,  68,  65, 84, 120, 218, 99, 96, 0,  2,   0,   0,   5,  0,
            1,   233, 250, 220, 216, 0,  0,  0,   0,   73, 69, 78, 68,  174, 66,  96, 130};
  CHECK_THAT(error_of([&] { decode_image(dark, "x.png"); }),
             Contains("x.png: all of a grey PNG of 16 bits would be black, as its levels are so "
                      "low; if it is an image, save it with levels up to the highest"));
  CHECK(decode_image(black, "x.png").to_vector<int>() == std::vector<int>(6, 0));
}

TEST_CASE("an orientation is applied or left out", "[io]") {
  const TensorMap kinds = read_safetensors(picture("kinds.safetensors")).tensors;
  for (const char* name : {"exif 6.jpg", "eXIf 6.png", "xmp.jpg", "raw profile.png"}) {
    INFO(name);
    const Tensor& file = *find(kinds, name);
    const Bytes bytes(file.data<u8>(), static_cast<std::size_t>(file.numel()));
    CHECK(decode_image(bytes, name).shape() == Shape({17, 12, 3}));
    const Tensor stored = decode_image(bytes, name, {.orient = false});
    CHECK(stored.shape() == Shape({12, 17, 3}));
    CHECK(same_elements(turned(stored, 6), decode_image(bytes, name)));
  }
  const Tensor two = Tensor::from<u8>({1, 2, 3, 4, 5, 6}, {2, 3, 1});  // 1 2 3 above 4 5 6
  const std::vector<std::vector<int>> expected{
      {1, 2, 3, 4, 5, 6}, {3, 2, 1, 6, 5, 4}, {6, 5, 4, 3, 2, 1}, {4, 5, 6, 1, 2, 3},
      {1, 4, 2, 5, 3, 6}, {4, 1, 5, 2, 6, 3}, {6, 3, 5, 2, 4, 1}, {3, 6, 2, 5, 1, 4}};
  for (int o = 1; o <= 8; ++o) {
    INFO(o);
    CHECK(turned(two, o).shape() == (o < 5 ? Shape({2, 3, 1}) : Shape({3, 2, 1})));
    CHECK(turned(two, o).to_vector<int>() == expected[static_cast<std::size_t>(o - 1)]);
  }
}

TEST_CASE("what is no image says what it is instead", "[io]") {
  const auto refused = [](std::string_view text) {
    return error_of([&] { decode_image(Crafted().add(text), "x"); });
  };
  using namespace std::string_view_literals;
  CHECK_THAT(refused("RIFF\1\0\0\0WEBPVP8 "sv),
             Contains("x: a WebP image; convert it to PNG or JPEG"));
  CHECK_THAT(refused("\0\0\0\x18"
                     "ftypheic\0\0\0\0"sv),
             Contains("x: a HEIC image"));
  for (const std::string_view video : {"\0\0\0\x20"
                                       "ftypisom\0\0\2\0"sv,
                                       "\x1a\x45\xdf\xa3\xa3\x42\x86"sv, "RIFF\1\0\0\0AVI LIST"sv})
    CHECK_THAT(refused(video), Contains("x: a video, of which frames are read, as a folder of"));
  CHECK_THAT(refused("MM\0*\0\0\0\x08"sv), Contains("x: a TIFF image"));
  CHECK_THAT(refused("version https://git-lfs.github.com/spec/v1\n"), Contains("git lfs pull"));
  CHECK_THAT(refused("BM"), Contains("x: cut short: a BMP without its header"));
  CHECK_THAT(refused("P7\nWIDTH 2"), Contains("x: a PAM image"));
}

TEST_CASE("drawings and photographs of each kind come back from a PNG", "[io]") {
  Rng rng(1);
  for (const i64 channels : {1, 3, 4})
    for (const i64 width : {1, 2, 700})  // of a drawing most pixels are alike, of noise hardly any
      for (const double noise : {0.01, 0.9}) {
        const i64 height = 90;
        std::vector<u8> pixels, shown;
        for (i64 k = 0; k < height * width; ++k) {
          const bool other = rng.uniform() < noise;
          std::array<u8, 4> p{200, 100, 7, 255};
          for (u8& v : p)
            if (other) v = static_cast<u8>(rng.below(256));
          pixels.insert(pixels.end(), p.begin(), p.begin() + channels);
          for (std::size_t c = 0; c < 3; ++c) shown.push_back(channels == 1 ? p[0] : p[c]);
        }
        const std::vector<u8> png =
            encode_png(Tensor::from(pixels, {height, width, channels}), "x");
        INFO(channels << " channels, width " << width << ", " << noise << " of it noise");
        CHECK(png[25] == (channels == 1 ? 0 : channels == 3 ? 2 : 6));  // alpha is kept
        CHECK(decode_image(png, "x").to_vector<u8>() == shown);
        if (noise < 0.1 && width > 2) CHECK(png.size() < pixels.size() / 8);
      }
}

TEST_CASE("write_png and back", "[io]") {
  const Folder folder;
  const Tensor& image = *find(expected(), "rgb.png");
  write_png(folder / "a.png", image);
  REQUIRE(same_elements(read_image(folder / "a.png"), image));
  write_png(folder / "grey.png", Tensor::from<u8>({0, 128, 255}, {1, 3, 1}));
  REQUIRE(read_image(folder / "grey.png").to_vector<int>() ==
          std::vector<int>{0, 0, 0, 128, 128, 128, 255, 255, 255});
  CHECK_THAT(error_of([&] {
               write_png(folder / "b.png", Tensor::zeros({2, 2, 3}));
             }),
             Contains("a PNG needs uint8"));
  CHECK_THAT(error_of([&] {
               write_png(folder / "b.png", Tensor::zeros({2, 2}, DType::uint8));
             }),
             Contains("got (2, 2)"));
  CHECK_THAT(error_of([&] { write_png(folder / "no/b.png", image); }), Contains("No such file"));
  REQUIRE(folder.files() == 2);
}

TEST_CASE("a PNG may begin its pixels with an empty piece", "[io]") {
  std::vector<u8> png = read_file(picture("rgb.png"));
  const u8 name[] = {'I', 'D', 'A', 'T'},
           empty[] = {0, 0, 0, 0, 'I', 'D', 'A', 'T', 0x35, 0xaf, 0x06, 0x1e};
  // its length stands before its name
  const auto first = std::search(png.begin(), png.end(), name, name + 4) - 4;
  png.insert(first, empty, empty + 12);
  REQUIRE(same_elements(decode_image(png, "x.png"), *find(expected(), "rgb.png")));
}

TEST_CASE("images that are cut short or claim too much are refused", "[io]") {
  for (const char* name :
       {"rgb.png", "palette.png", "rgb.jpg", "progressive.jpg", "rgb.bmp", "grey.bmp"}) {
    const std::vector<u8> whole = read_file(picture(name));
    for (std::size_t size = 0; size < whole.size(); size += 7) {
      INFO(name << " cut to " << size);
      const std::string message =
          error_of([&] { decode_image(Bytes(whole).first(size), "cut.png"); });
      REQUIRE_THAT(message, Contains("cut.png: "));
    }
  }
  // Huffman tables of more than 256 codes, which stb_image up to 2.27 would write past their end.
  std::vector<u8> jpeg = read_file(picture("rgb.jpg"));
  const u8 tables[] = {0xff, 0xc4};
  const auto counts = std::search(jpeg.begin(), jpeg.end(), tables, tables + 2) + 5;
  const std::vector<u8> many(16, 17);
  std::copy(many.begin(), many.end(), counts);
  CHECK_THAT(error_of([&] { decode_image(jpeg, "x"); }),
             Contains("x: damaged JPEG: its Huffman tables"));
  // A PNG header that claims 2^31 - 1 x 2^31 - 1 pixels, and one that claims just too many for its
  // size.
  std::vector<u8> png = read_file(picture("rgb.png"));
  for (const int at : {16, 17, 18, 19, 20, 21, 22, 23})
    png[static_cast<std::size_t>(at)] = at % 4 == 0 ? 0x7f : 0xff;
  CHECK_THAT(error_of([&] { decode_image(png, "x"); }),
             Contains("x: damaged PNG: the checksum of the piece \"IHDR\" at byte 8"));
  CHECK_THAT(error_of([&] { decode_image(fuzz::with_checksums(png), "x"); }),
             Contains("2147483647 x 2147483647 pixels, more than"));
  for (const int at : {16, 17, 20, 21}) png[static_cast<std::size_t>(at)] = 0;
  for (const int at : {18, 19, 22, 23}) png[static_cast<std::size_t>(at)] = 0x20;
  CHECK_THAT(error_of([&] { decode_image(fuzz::with_checksums(png), "x"); }),
             Contains("8224 x 8224 pixels cannot come from"));
}

TEST_CASE("a changed byte in a PNG is seen", "[io]") {
  const std::vector<u8> whole = read_file(picture("rgb.png"));
  // its end has nothing in it to be checked
  for (std::size_t at = 8; at + 12 < whole.size(); ++at) {
    std::vector<u8> png = whole;
    png[at] ^= 1;
    INFO(at);
    CHECK_THAT(error_of([&] { decode_image(png, "x.png"); }), Contains("x.png: "));
  }
}

#else

TEST_CASE("without stb_image, PNG says what is missing", "[io]") {
  CHECK_THAT(error_of([] { read_image(picture("rgb.png")); }),
             Contains("compiled without stb_image"));
  CHECK_THAT(error_of([] {
               write_png("/tmp/never.png", Tensor::zeros({1, 1, 3}, DType::uint8));
             }),
             Contains("compiled without"));
}

#endif
