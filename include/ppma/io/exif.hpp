#pragma once
#include "ppma/core/names_begin.hpp"
// How a photograph is to be turned: the orientation in EXIF data (a small TIFF file), or in XMP,
// and the turning, as Pillow's ImageOps.exif_transpose does it. Data that makes no sense says
// nothing.

#include <string_view>

#include "ppma/io/file.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The orientation that EXIF data without its "Exif\0\0" tells: 1 to 8 as the standard numbers
/// them, 0 if it tells none, 9 if what it tells is no orientation.
PPMA_API int exif_orientation(Bytes tiff);

/// The orientation in XMP, a text, which is asked where EXIF tells none: 1 to 8, or 0.
PPMA_API int xmp_orientation(std::string_view text);

/// The image (H,W,C), uint8, as it is to be seen; orientations 5 to 8 exchange height and width.
PPMA_API Tensor turned(const Tensor& image, int orientation);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

int exif_orientation(Bytes tiff) {
  if (tiff.size() < 8 || tiff[0] != tiff[1] || (tiff[0] != 'I' && tiff[0] != 'M')) return 0;
  const bool little = tiff[0] == 'I';
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < bytes; ++i) n = n << 8 | tiff[at + (little ? bytes - 1 - i : i)];
    return n;
  };
  const auto fits = [&](std::size_t at, std::size_t bytes) {
    return at <= tiff.size() && bytes <= tiff.size() - at;
  };
  const std::size_t list = number(4, 4);
  if (!fits(list, 2)) return 0;
  std::size_t found = 0;
  for (std::size_t i = 0, entries = number(list, 2); i < entries; ++i) {
    const std::size_t at = list + 2 + 12 * i;  // tag, type, count, value
    if (!fits(at, 12)) break;
    const std::size_t type = number(at + 2, 2), count = number(at + 4, 4);
    if (number(at, 2) != 0x112) continue;
    found = 9;
    if (count == 1 && (type == 3 || type == 8)) found = number(at + 8, 2);  // 16 bits
    if (count == 1 && (type == 4 || type == 9)) found = number(at + 8, 4);  // 32 bits
    if (found < 1 || found > 8) found = 9;
  }
  return static_cast<int>(found);
}

int xmp_orientation(std::string_view text) {
  const std::string_view name = "tiff:Orientation";
  for (std::size_t at = text.find(name); at != text.npos; at = text.find(name, at + 1)) {
    std::string_view rest = text.substr(at + name.size());
    if (rest.starts_with("=\""))
      rest.remove_prefix(2);
    else if (rest.starts_with(">"))
      rest.remove_prefix(1);
    else
      continue;
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9')
      return rest[0] >= '1' && rest[0] <= '8' ? rest[0] - '0' : 0;
  }
  return 0;
}

Tensor turned(const Tensor& image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const i64 H = image.dim(0), W = image.dim(1), C = image.dim(2);
  const bool across = orientation >= 5;
  Tensor out = Tensor::empty({across ? W : H, across ? H : W, C}, DType::uint8);
  const bool from_right = orientation == 2 || orientation == 3 || orientation >= 7;
  const bool from_below =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const u8* from = image.data<u8>();
  u8* to = out.data<u8>();
  for (i64 y = 0; y < out.dim(0); ++y)
    for (i64 x = 0; x < out.dim(1); ++x, to += C) {
      const i64 row = across ? x : y, column = across ? y : x;
      const i64 i = from_below ? H - 1 - row : row, j = from_right ? W - 1 - column : column;
      std::copy_n(from + (i * W + j) * C, C, to);
    }
  return out;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
