#pragma once
// Label maps: PNG files whose pixels are class numbers. A palette's colours are for the eye: the number is the index.

#include "ppma/io/image.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline u32 big_endian(const u8* p) { return u32{p[0]} << 24 | u32{p[1]} << 16 | u32{p[2]} << 8 | u32{p[3]}; }

// The file with its palette replaced by "entry i has the colour i, i, i", so that an image decoder gives indices.
inline std::vector<u8> with_index_palette(Bytes png, const std::string& name) {
  for (std::size_t at = 8; png.size() - at >= 12;) {
    const std::size_t length = big_endian(png.data() + at);
    check(length <= png.size() - at - 12, name, ": cut short: a PNG without its end");
    const auto begin = png.begin() + static_cast<std::ptrdiff_t>(at), end = begin + static_cast<std::ptrdiff_t>(length + 12);
    if (std::equal(begin + 4, begin + 8, "PLTE", [](u8 a, char b) { return a == static_cast<u8>(b); })) {
      std::vector<u8> out(png.begin(), begin);
      out.insert(out.end(), {0, 0, 3, 0, 'P', 'L', 'T', 'E'});
      for (int i = 0; i < 256; ++i) out.insert(out.end(), 3, static_cast<u8>(i));
      out.insert(out.end(), 4, u8{0});  // the checksum, which stb_image does not look at
      out.insert(out.end(), end, png.end());
      return out;
    }
    at += length + 12;
  }
  fail(name, ": damaged PNG: no palette");
}

}  // namespace detail

/// uint8 (H,W) of a PNG with one 8-bit channel, or fewer bits, or a palette. Errors: another format, colour, alpha, 16
/// bits, a damaged file; each names `name`.
inline Tensor decode_label_map(Bytes file, const std::string& name) {
  constexpr u8 magic[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  check(file.size() >= 33 && std::equal(std::begin(magic), std::end(magic), file.begin()), name, ": a label map must be a PNG");
  const int bits = file[24], colour = file[25];
  check(colour == 0 || colour == 3, name, ": a label map has one channel; this PNG has ", colour == 4 ? "alpha" : "colours");
  check(bits <= 8, name, ": a label map of ", bits, " bits; 8 are read");
  const std::vector<u8> indexed = colour == 3 ? detail::with_index_palette(file, name) : std::vector<u8>{};
  const Tensor image = decode_image(colour == 3 ? Bytes(indexed) : file, name);  // (H,W,3)
  const u8 step = static_cast<u8>(colour == 0 && bits < 8 ? 255 / ((1 << bits) - 1) : 1);  // white is 255 in any depth
  Tensor labels = Tensor::empty({image.dim(0), image.dim(1)}, DType::uint8);
  const u8* from = image.data<u8>();
  u8* to = labels.data<u8>();
  for (i64 i = 0; i < labels.numel(); ++i) to[i] = static_cast<u8>(from[3 * i] / step);
  return labels;
}

/// The label map in a file.
inline Tensor read_label_map(const std::string& path) { return decode_label_map(read_file(path), path); }

}  // namespace ppma::inline PPMA_ABI
