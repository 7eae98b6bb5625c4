#pragma once
#include "ppma/core/names_begin.hpp"
// Label maps: PNG files whose pixels are class numbers. A palette's colours are for the eye: the
// number is the index.

#include <string>

#include "ppma/io/file.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The labels (H,W) of a PNG with one channel of up to 16 bits, or a palette: uint8, or int64 where
/// one is above 255. They are as stored, never turned. Errors: another format, colour, alpha, a
/// damaged file; each names `name`.
PPMA_API Tensor decode_label_map(Bytes file, const std::string& name);

/// The label map in a file.
PPMA_API Tensor read_label_map(const std::string& path);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>

#include "ppma/io/image.hpp"
#include "ppma/io/png.hpp"

namespace ppma::inline PPMA_ABI {

Tensor decode_label_map(Bytes file, const std::string& name) {
  check(detail::is_png(file), name, ": a label map must be a PNG");
  const detail::PngHeader h = detail::png_header(file, name);
  check(h.colour == 0 || h.colour == 3, name, ": a label map has one channel; this PNG has ",
        h.colour == 4 ? "alpha" : "colours",
        "; save the class numbers as grey or as palette indices");
#if PPMA_STB
  if (h.bits == 16) {
    Tensor wide = detail::decode_png_16(file, h, name);
    const i64* p = wide.data<i64>();
    if (std::any_of(p, p + wide.numel(), [](i64 v) { return v > 255; })) return wide;
    Tensor narrow = Tensor::empty(wide.shape(), DType::uint8);
    std::transform(p, p + wide.numel(), narrow.data<u8>(),
                   [](i64 v) { return static_cast<u8>(v); });
    return narrow;
  }
  const Tensor image = detail::decode_png(file, h, name, true);  // (H,W,3)
  // White is 255 in any depth.
  const u8 step = static_cast<u8>(h.colour == 0 && h.bits < 8 ? 255 / ((1 << h.bits) - 1) : 1);
  Tensor labels = Tensor::empty({image.dim(0), image.dim(1)}, DType::uint8);
  const u8* from = image.data<u8>();
  u8* to = labels.data<u8>();
  for (i64 i = 0; i < labels.numel(); ++i) to[i] = static_cast<u8>(from[3 * i] / step);
  return labels;
#else
  fail(name,
       ": this program was compiled without stb_image, which reads PNG files; install it (Debian: "
       "libstb-dev) and compile again");
#endif
}

Tensor read_label_map(const std::string& path) { return decode_label_map(read_file(path), path); }

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
