// Small damage, very often: files of every kind with bytes changed, moved, cut and put in, from a
// fixed seed. A reader returns or throws ppma::Error (fuzz/targets.hpp); run under the sanitizers
// this finds what it reads out of place.

#include "../fuzz/targets.hpp"
#include "help.hpp"
#include "ppma/io/pickle.hpp"
#include "ppma/io/png.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/stb.hpp"
#include "sanitized.hpp"

using namespace io_test;

namespace {

std::vector<u8> damaged(std::vector<u8> file, Rng& rng) {
  const auto below = [&](std::size_t n) {
    return static_cast<std::size_t>(rng.uniform(0, static_cast<double>(n)));
  };
  static constexpr u64 interesting[] = {
      0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0xffffffff, ~u64{0}, ~u64{0} >> 1};
  for (std::size_t changes = 1 + below(4); changes > 0 && file.size() > 16; --changes) {
    const std::size_t at = below(file.size()),
                      length = 1 + below(std::min<std::size_t>(file.size() - at, 16));
    const auto place = file.begin() + static_cast<std::ptrdiff_t>(at);
    switch (below(6)) {
      case 0:
        *place = static_cast<u8>(below(256));
        break;
      case 1:
        *place = static_cast<u8>(*place ^ (1u << below(8)));
        break;
      case 2:
        std::memcpy(&*place, &interesting[below(std::size(interesting))],
                    std::min<std::size_t>(length, 8));
        break;
      case 3:
        file.erase(place, place + static_cast<std::ptrdiff_t>(length));
        break;
      case 4: {
        const std::vector<u8> piece(place, place + static_cast<std::ptrdiff_t>(length));
        file.insert(file.begin() + static_cast<std::ptrdiff_t>(below(file.size())), piece.begin(),
                    piece.end());
        break;
      }
      default:
        if (below(10) == 0) file.resize(at);
    }
  }
  return file;
}

// How many of `rounds` damaged copies the reader still accepts.
template <class Reader>
int accepted(const std::vector<u8>& file, Reader reader, int rounds, u64 seed) {
  Rng rng(seed);
  REQUIRE(reader(file));
  int count = 0;
  for (int i = 0; i < rounds; ++i) count += reader(damaged(file, rng));
  return count;
}

// The central part of a checkpoint, on its own.
std::vector<u8> pickle_of(const std::string& path) {
  const std::vector<u8> file = read_file(path);
  for (const auto& [name, contents] : parse_zip(file, path))
    if (name.ends_with("data.pkl")) return {contents.begin(), contents.end()};
  return {};
}

}  // namespace

TEST_CASE("mutation: damaged files are accepted or refused, nothing else", "[io]") {
  const Folder folder;
  Rng rng(5);
  write_safetensors(folder / "s",
                    {{"weight", Tensor::randn({3, 4}, rng)}, {"steps", Tensor::from<i64>({7}, {})}},
                    {{"config", "{}"}});
  int refused = 0, total = 0;
  const auto run = [&](const std::vector<u8>& file, bool (*reader)(Bytes), int rounds) {
    const auto read = [reader](const std::vector<u8>& bytes) { return reader(bytes); };
    const int tried = brief() ? rounds / 3 : rounds;
    refused += tried - accepted(file, read, tried, static_cast<u64>(++total));
  };
  run(read_file(folder / "s"), fuzz::safetensors, 3000);
  for (const char* name :
       {"torch113_p2", "torch215_p2", "torch215_p4", "torch215_p5", "torch215_ddp"}) {
    run(pickle_of(reference("pth/" + std::string(name) + ".pth")), fuzz::pickle, 1500);
    run(read_file(reference("pth/" + std::string(name) + ".pth")), fuzz::pth, 1500);
  }
  run(read_file(reference("images/rgb.ppm")), fuzz::image, 300);
  run({0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6}, fuzz::idx, 3000);
  const std::string list = "label,path,split\r\nant,a.png,train\r\n\"b\"\"\nb\",\"b,b\",val\r\n";
  run({list.begin(), list.end()}, fuzz::image_list, 3000);
  const std::string voc =
      "<?xml version='1.0'?><annotation><size><width>9</width><height>8</height></size>\n"
      "<object><name>a&amp;b</name><bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>9</xmax>"
      "<ymax>8</ymax></bndbox><difficult>1</difficult></object></annotation>\n";
  run({voc.begin(), voc.end()}, fuzz::voc, 3000);
  const std::string yolo = "0 0.5 0.5 0.25 1\n12 0.1 0.2 0.9 0.1 1e-1 1\n";
  run({yolo.begin(), yolo.end()}, fuzz::yolo, 3000);
  for (const std::string yaml : {"nc: 2 # two\nnames: ['a''b', \"c\\u00e9\"]\n",
                                 "names:\n  0: cat # one\n  1: dog\nval: x\n"})
    run({yaml.begin(), yaml.end()}, fuzz::yolo_names, 3000);
  for (const char* name : {"ustar", "gnu", "pax", "tar_v7", "tar_posix"})
    run(read_file(reference("tar/" + std::string(name) + ".tar")), fuzz::tar, 500);
#if PPMA_STB
  // Labels, packed by Python's gzip.
  run({0x1f, 0x8b, 8,    0,    0,    0, 0, 0,    2,    3,    0x63, 0x60, 0xe0, 0x60, 0x64,
       0x60, 0x60, 0x60, 0x62, 0x66, 4, 0, 0x4c, 0xcf, 0xb6, 0xc9, 10,   0,    0,    0},
      fuzz::idx, 3000);
  for (const char* name : {"rgb.png", "palette.png", "rgb.jpg", "progressive.jpg", "subsampled.jpg",
                           "rgb.bmp", "grey.bmp"})
    run(read_file(reference("images/" + std::string(name))), fuzz::image, 300);
  write_png(folder / "labels.png", Tensor::from<u8>({0, 1, 2, 200, 255, 7}, {2, 3, 1}));
  const TensorMap kinds = read_safetensors(reference("images/kinds.safetensors")).tensors;
  for (const char* name :
       {"rle8 absolute.bmp", "rle4.bmp", "565.bmp", "os2 4.bmp", "header 124 alpha.bmp",
        "exif 6.jpg", "ycck subsampled.jpg", "own 411.jpg", "interlaced palette 4.png",
        "raw profile.png", "grey alpha 16.png", "p3.ppm", "p4.pbm"}) {
    const Tensor& file = *find(kinds, name);
    run({file.data<u8>(), file.data<u8>() + file.numel()}, fuzz::image, 300);
  }
  run(read_file(folder / "labels.png"), fuzz::label_map, 600);
  run(read_file(reference("images/palette.png")), fuzz::label_map, 600);
#endif
  REQUIRE(total >= 12);
  REQUIRE(refused >
          (brief()
               ? 1500
               : 5000));  // most damage is seen; a changed weight or pixel is a weight or a pixel
}
