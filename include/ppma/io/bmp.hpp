#pragma once
#include "ppma/core/names_begin.hpp"
// BMP: 1, 4, 8, 16, 24 and 32 bits, with a palette, bit fields or run lengths, rows from below or
// from the top, headers of OS/2 and of Windows. By hand, as stb_image reads part of these kinds.
// https://learn.microsoft.com/windows/win32/gdi/bitmap-storage

#include <string>

#include "ppma/io/file.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI::detail {

/// uint8 (H,W,3) of a BMP; a fourth byte (alpha) is dropped.
PPMA_API Tensor decode_bmp(Bytes file, const std::string& name);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <array>
#include <bit>
#include <vector>

#include "ppma/io/element.hpp"
#include "ppma/io/image_size.hpp"
#include "ppma/io/known_files.hpp"

namespace ppma::inline PPMA_ABI::detail {

struct BmpHeader {
  i64 width = 0, height = 0;
  bool top_down = false;
  u32 bits = 0, compression = 0;  // 0 none, 1 runs of 8 bits, 2 of 4 bits, 3 bit fields
  std::size_t pixels = 0;         // where they begin
  std::size_t palette = 0, colours = 0, entry = 4;
  std::array<u32, 3> masks{};  // of red, green, blue
};

inline BmpHeader bmp_header(Bytes file, const std::string& name) {
  check(file.size() >= 30, name, ": cut short: a BMP without its header", copy_again);
  const u8* p = file.data();
  const std::size_t size = load<u32>(p + 14);
  check(size == 12 || size == 40 || size == 52 || size == 56 || size == 64 || size == 108 ||
            size == 124,
        name, ": a BMP with a header of ", size, " bytes is not read; save it as PNG");
  check(file.size() >= 14 + size, name, ": cut short: a BMP without its header", copy_again);
  BmpHeader h;
  h.pixels = load<u32>(p + 10), h.palette = 14 + size;
  if (size == 12) {
    h.width = load<std::uint16_t>(p + 18), h.height = load<std::uint16_t>(p + 20);
    h.bits = load<std::uint16_t>(p + 24), h.entry = 3;
  } else {
    h.width = load<std::int32_t>(p + 18), h.height = load<std::int32_t>(p + 22);
    h.bits = load<std::uint16_t>(p + 28), h.compression = load<u32>(p + 30);
    h.colours = load<u32>(p + 46);
  }
  h.top_down = h.height < 0;
  h.height = h.top_down ? -h.height : h.height;
  check_image_size(h.height, h.width, file.size(), name);
  check(h.bits == 1 || h.bits == 4 || h.bits == 8 || h.bits == 16 || h.bits == 24 || h.bits == 32,
        name, ": damaged BMP: ", h.bits, " bits a pixel", copy_again);
  check(h.compression == 0 || (h.compression == 1 && h.bits == 8) ||
            (h.compression == 2 && h.bits == 4) || (h.compression == 3 && h.bits >= 16),
        name, ": a BMP of ", h.bits, " bits with the compression ", h.compression,
        " is not read; save it as PNG");
  if (h.bits == 16)
    h.masks = {0x7c00, 0x3e0, 0x1f};
  else
    h.masks = {0xff0000, 0xff00, 0xff};
  if (h.compression == 3) {
    check(file.size() >= 66, name, ": cut short: a BMP without its bit fields", copy_again);
    const std::array<u32, 3> said{load<u32>(p + 54), load<u32>(p + 58), load<u32>(p + 62)};
    if (said != std::array<u32, 3>{}) h.masks = said;
    for (const u32 m : h.masks) {
      const u64 most = m == 0 ? 0 : m >> std::countr_zero(m);
      check(m != 0 && (most & (most + 1)) == 0 && u64{m} >> h.bits == 0, name,
            ": damaged BMP: a colour has the bits ", m, copy_again);
    }
  }
  if (h.bits <= 8) {
    if (h.colours == 0 || h.colours > 256) h.colours = std::size_t{1} << h.bits;
    if (h.pixels == h.palette) h.pixels += h.entry * h.colours;  // such files are about
    check(h.palette + h.entry * h.colours <= file.size(), name,
          ": cut short: a BMP without its palette", copy_again);
  }
  return h;
}

/// The palette indices of run lengths: (H,W), rows from below; what no run reaches is 0.
inline std::vector<u8> bmp_runs(Bytes file, const BmpHeader& h, const std::string& name) {
  std::vector<u8> indices(static_cast<std::size_t>(h.height * h.width));
  std::size_t at = h.pixels;
  i64 x = 0, y = 0;
  const auto byte = [&]() -> i64 {
    check(at < file.size(), name, ": cut short: a BMP without all of its pixels", copy_again);
    return file[at++];
  };
  const auto put = [&](i64 index) {
    if (x < h.width && y < h.height)
      indices[static_cast<std::size_t>(y * h.width + x)] = static_cast<u8>(index);
    ++x;
  };
  const bool half = h.compression == 2;  // two pixels in a byte
  while (y < h.height) {
    const i64 count = byte(), value = byte();
    if (count > 0) {
      for (i64 i = 0; i < count; ++i) put(!half ? value : i % 2 == 0 ? value >> 4 : value & 15);
    } else if (value == 0) {
      x = 0, ++y;
    } else if (value == 1) {
      break;
    } else if (value == 2) {
      x += byte(), y += byte();
    } else {
      const i64 bytes = half ? (value + 1) / 2 : value;
      i64 two = 0;
      for (i64 i = 0; i < value; ++i) {
        if (!half || i % 2 == 0) two = byte();
        put(!half ? two : i % 2 == 0 ? two >> 4 : two & 15);
      }
      if (bytes % 2 == 1) byte();
    }
  }
  return indices;
}

Tensor decode_bmp(Bytes file, const std::string& name) {
  const BmpHeader h = bmp_header(file, name);
  const bool runs = h.compression == 1 || h.compression == 2;
  const i64 stride = (h.width * h.bits + 31) / 32 * 4, last = (h.width * h.bits + 7) / 8;
  check(runs || static_cast<i64>(h.pixels) + stride * (h.height - 1) + last <=
                    static_cast<i64>(file.size()),
        name, ": cut short: a BMP without all of its pixels", copy_again);
  const std::vector<u8> indices = runs ? bmp_runs(file, h, name) : std::vector<u8>{};
  Tensor image = Tensor::empty({h.height, h.width, 3}, DType::uint8);
  for (i64 y = 0; y < h.height; ++y) {
    u8* to = image.data<u8>() + (h.top_down ? y : h.height - 1 - y) * h.width * 3;
    const u8* row = runs ? indices.data() + y * h.width : file.data() + h.pixels + y * stride;
    for (i64 x = 0; x < h.width; ++x, to += 3) {
      if (h.bits <= 8) {
        const i64 bits = runs ? 8 : h.bits, per_byte = 8 / bits;
        const std::size_t index = static_cast<std::size_t>(
            row[x / per_byte] >> (8 - bits - x % per_byte * bits) & ((1 << bits) - 1));
        const u8* colour = file.data() + h.palette + h.entry * index;
        for (int c = 0; c < 3; ++c) to[c] = index < h.colours ? colour[2 - c] : u8{0};
        continue;
      }
      u64 pixel = 0;
      for (i64 b = h.bits / 8; b-- > 0;) pixel = pixel << 8 | row[x * h.bits / 8 + b];
      for (std::size_t c = 0; c < 3; ++c) {
        const u64 mask = h.masks[c], low = static_cast<u64>(std::countr_zero(mask));
        to[c] = static_cast<u8>(((pixel & mask) >> low) * 255 / (mask >> low));
      }
    }
  }
  return image;
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
