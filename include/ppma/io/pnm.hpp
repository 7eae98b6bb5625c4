#pragma once
#include "ppma/core/names_begin.hpp"
// PBM, PGM and PPM (https://netpbm.sourceforge.net/doc/ppm.html): a header of words, and samples,
// as text (P1, P2, P3) or as bytes (P4, P5, P6). "P6 # comment\n640 480\n255\n" and 921600 bytes.

#include <string>

#include "ppma/io/file.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI::detail {

/// uint8 (H,W,3) of a file that begins with P1 to P6. Samples of two bytes are big-endian; levels
/// are brought to 255; grey becomes three equal channels. Errors: a damaged file; grey of two bytes
/// that is all black in one and was not.
PPMA_API Tensor decode_pnm(Bytes file, const std::string& name);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>

#include "ppma/io/image_size.hpp"
#include "ppma/io/known_files.hpp"

namespace ppma::inline PPMA_ABI::detail {

Tensor decode_pnm(Bytes file, const std::string& name) {
  std::size_t at = 2;
  // The next number, or -1. In a bitmap that is text every digit is one.
  const auto number = [&](bool digit) -> i64 {
    for (; at < file.size(); ++at) {
      if (file[at] == '#')
        while (at < file.size() && file[at] != '\n') ++at;
      else if (file[at] != ' ' && (file[at] < '\t' || file[at] > '\r'))
        break;
    }
    i64 n = -1;
    while (at < file.size() && file[at] >= '0' && file[at] <= '9' && n < (1 << 27)) {
      n = (n < 0 ? 0 : n) * 10 + (file[at++] - '0');
      if (digit) break;
    }
    return n;
  };
  const int kind = file[1] - '0';
  const bool text = kind <= 3, bitmap = kind == 1 || kind == 4;
  const i64 channels = kind == 3 || kind == 6 ? 3 : 1;
  const i64 width = number(false), height = number(false), most = bitmap ? 1 : number(false);
  check(width > 0 && height > 0 && most > 0 && most < 65536 && at < file.size(), name,
        ": damaged PPM header; \"P", kind, " WIDTH HEIGHT", bitmap ? "" : " HIGHEST",
        "\" must stand there");
  check_image_size(height, width, file.size(), name);
  ++at;  // one space
  const i64 samples = height * width * channels, bytes = most > 255 ? 2 : 1;
  const i64 row_bytes = bitmap ? (width + 7) / 8 : width * channels * bytes;
  const i64 left = static_cast<i64>(file.size() - std::min(at, file.size()));
  check(text || row_bytes * height <= left, name, ": cut short: ", left, " of ", row_bytes * height,
        " bytes of pixels", copy_again);
  Tensor image = Tensor::empty({height, width, 3}, DType::uint8);
  u8* to = image.data<u8>();
  bool any = false, kept = false;  // of two bytes
  for (i64 i = 0; i < samples; ++i) {
    i64 sample = 0;
    if (text) {
      sample = number(bitmap);
      check(sample >= 0 && sample <= most, name, at < file.size() ? ": damaged" : ": cut short",
            ": sample ", i, " of ", samples, " is no number from 0 to ", most, copy_again);
    } else if (bitmap) {
      const i64 x = i % width;
      sample =
          file[at + static_cast<std::size_t>(i / width * row_bytes + x / 8)] >> (7 - x % 8) & 1;
    } else {
      const u8* from = file.data() + at + static_cast<std::size_t>(i * bytes);
      sample = bytes == 2 ? from[0] * 256 + from[1] : from[0];
    }
    if (bitmap) sample = 1 - sample;  // 1 is black
    const u8 level = static_cast<u8>(std::min((sample * 255 + most / 2) / most, i64{255}));
    any = any || sample > 0, kept = kept || level > 0;
    for (i64 copies = channels == 3 ? 1 : 3; copies > 0; --copies) *to++ = level;
  }
  check_grey_levels(channels == 3 || most <= 255 || kept || !any, name, "PGM");
  return image;
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
