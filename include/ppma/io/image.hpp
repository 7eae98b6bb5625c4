#pragma once
// Images: uint8 tensors (H,W,3), red green blue. PNG, JPEG and BMP through stb_image, PPM and PGM
// by hand.
//
// Grey becomes three equal channels, alpha is dropped, 16 bits lose the lower eight, a palette is
// looked up. The orientation in a photograph's EXIF data is not applied. A file must be whole: what
// is cut off is an error, not grey.

#include <string>
#include <vector>

#include "ppma/io/element.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/io/stb.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void check_image_size(i64 height, i64 width, std::size_t file, const std::string& name) {
  constexpr i64 most = i64{1} << 27;
  check(height > 0 && width > 0 && height <= most && width <= most && height * width <= most, name, ": an image of ",
        height, " x ", width, " pixels, more than ", most, ", is not read");
  // The tightest packing is PNG's with one bit a pixel: deflate makes at most 1032 bytes of one.
  check(height * width <= 8 * 1032 * static_cast<i64>(file), name, ": ", height, " x ", width,
        " pixels cannot come from ", file, " bytes");
}

// P5 (grey) and P6 (RGB): "P6 # comment\n640 480\n255\n" and the samples, of two bytes above 255,
// big-endian.
inline Tensor decode_pnm(Bytes file, const std::string& name) {
  std::size_t at = 2;
  const auto number = [&]() -> i64 {
    for (; at < file.size(); ++at) {
      if (file[at] == '#')
        while (at < file.size() && file[at] != '\n') ++at;
      else if (file[at] != ' ' && (file[at] < '\t' || file[at] > '\r')) break;
    }
    i64 n = -1;
    for (; at < file.size() && file[at] >= '0' && file[at] <= '9' && n < (1 << 27); ++at)
      n = (n < 0 ? 0 : n) * 10 + (file[at] - '0');
    return n;
  };
  const i64 channels = file[1] == '6' ? 3 : 1, width = number(), height = number(), most = number();
  check(width > 0 && height > 0 && most > 0 && most < 65536 && at < file.size(), name, ": damaged PPM header");
  check_image_size(height, width, file.size(), name);
  ++at;  // one space
  const i64 bytes = most > 255 ? 2 : 1, samples = height * width * channels;
  check(samples * bytes <= static_cast<i64>(file.size() - at), name, ": cut short: ", file.size() - at, " of ",
        samples * bytes, " bytes of pixels");
  Tensor image = Tensor::empty({height, width, 3}, DType::uint8);
  u8* to = image.data<u8>();
  for (i64 i = 0; i < samples; ++i) {
    const u8* from = file.data() + at + static_cast<std::size_t>(i * bytes);
    const i64 sample = bytes == 2 ? from[0] * 256 + from[1] : from[0];
    const u8 level = static_cast<u8>(std::min((sample * 255 + most / 2) / most, i64{255}));
    for (i64 copies = channels == 3 ? 1 : 3; copies > 0; --copies) *to++ = level;
  }
  return image;
}

// What is wrong with a JPEG, or nullptr: stb_image fills with grey what is cut off, and up to 2.27
// it writes Huffman tables of more than 256 codes past their end. Walks the same segments as
// stb_image would, to the end marker.
inline const char* jpeg_fault(Bytes file) {
  const char* const cut = "cut short: a JPEG without its end";
  std::size_t at = 2;
  for (;;) {
    while (at < file.size() && file[at] != 0xff) ++at;  // padding between segments
    while (at < file.size() && file[at] == 0xff) ++at;
    if (at == file.size()) return cut;
    const u8 marker = file[at++];
    if (marker == 0xd9) return nullptr;
    if (file.size() - at < 2) return cut;
    const std::size_t length = file[at] * 256u + file[at + 1];
    if (length < 2 || length > file.size() - at) return cut;
    Bytes segment = file.subspan(at + 2, length - 2);
    at += length;
    while (marker == 0xc4 && !segment.empty()) {  // Huffman tables: 1 byte, 16 counts, that many symbols
      std::size_t codes = 0;
      for (std::size_t i = 1; i < 17 && i < segment.size(); ++i) codes += segment[i];
      if (codes > 256 || segment.size() < 17 + codes) return "damaged JPEG: its Huffman tables";
      segment = segment.subspan(17 + codes);
    }
    while (marker == 0xdb && !segment.empty()) {  // quantisation tables: 1 byte, 64 numbers of 8 or 16 bits
      const std::size_t size = segment[0] < 16 ? 65 : 129;
      if (segment.size() < size) return "damaged JPEG: its quantisation tables";
      segment = segment.subspan(size);
    }
    while (marker == 0xda && at < file.size()) {  // coded data: ends at a marker; ff 00 and restarts are part of it
      if (file[at] != 0xff) {
        ++at;
        continue;
      }
      std::size_t next = at;
      while (next < file.size() && file[next] == 0xff) ++next;
      if (next == file.size()) return cut;
      if (file[next] != 0 && (file[next] < 0xd0 || file[next] > 0xd7)) break;
      at = next + 1;
    }
  }
}

// stb_image fills with black what a BMP lacks.
inline bool bmp_is_whole(Bytes file, i64 height, i64 width) {
  if (file.size() < 30) return false;
  const bool os2 = load<u32>(file.data() + 14) == 12;
  const i64 bits = load<std::uint16_t>(file.data() + (os2 ? 24 : 28)), row = (width * bits + 31) / 32 * 4;
  return load<u32>(file.data() + 10) + row * height <= static_cast<i64>(file.size());
}

}  // namespace detail

/// Decodes an image in memory; `name` is what errors call it.
inline Tensor decode_image(Bytes file, const std::string& name) {
  const auto begins = [&](std::string_view magic) {
    return file.size() > magic.size() &&
           std::equal(magic.begin(), magic.end(), file.begin(), [](char a, u8 b) { return static_cast<u8>(a) == b; });
  };
  if (begins("P5") || begins("P6")) return detail::decode_pnm(file, name);
  const bool jpeg = begins("\xff\xd8"), bmp = begins("BM");
  check(jpeg || bmp || begins("\x89PNG\r\n\x1a\n"), name, ": not a PNG, JPEG, BMP, PPM or PGM image");
  check(file.size() < (std::size_t{1} << 31), name, ": an image of ", file.size(), " bytes is not read");
#if PPMA_STB
  const char* const fault = jpeg ? detail::jpeg_fault(file) : nullptr;
  check(fault == nullptr, name, ": ", fault != nullptr ? fault : "");
  const int size = static_cast<int>(file.size());
  int width = 0, height = 0, channels = 0;
  // Its own tables take some hundred kilobytes; pixels up to eight bytes, twice, rows padded to
  // whole blocks.
  const detail::StbMemory headers(std::size_t{1} << 20);
  check(stb::stbi_info_from_memory(file.data(), size, &width, &height, &channels) != 0, name,
        ": damaged image (its header)");
  detail::check_image_size(height, width, file.size(), name);
  check(!bmp || detail::bmp_is_whole(file, height, width), name, ": cut short: a BMP without all of its pixels");
  const detail::StbMemory memory((std::size_t{4} << 20) + 4 * file.size() +
                                 64 * static_cast<std::size_t>(height) * static_cast<std::size_t>(width));
  const u8* pixels = stb::stbi_load_from_memory(file.data(), size, &width, &height, &channels, 3);
  check(pixels != nullptr, name, ": damaged image (", stb::stbi_failure_reason(), ")");
  Tensor image = Tensor::empty({height, width, 3}, DType::uint8);
  std::copy_n(pixels, image.numel(), image.data<u8>());
  return image;
#else
  fail(name,
       ": this program was compiled without stb_image (Debian: libstb-dev), so only PPM and PGM "
       "images are read");
#endif
}

/// Reads a PNG, JPEG, BMP, PPM or PGM file: uint8 (H,W,3).
inline Tensor read_image(const std::string& path) { return decode_image(read_file(path), path); }

/// Writes uint8 (H,W,C) with C = 1 (grey), 3 (RGB) or 4 (RGBA) as PNG, whole or not at all.
inline void write_png(const std::string& path, const Tensor& image) {
  check(image.defined() && image.rank() == 3 && image.dtype() == DType::uint8 && image.numel() > 0 &&
            (image.dim(2) == 1 || image.dim(2) == 3 || image.dim(2) == 4),
        path, ": write_png needs uint8 (H,W,1), (H,W,3) or (H,W,4), got ",
        image.defined() ? image.shape().str() : std::string("nothing"), " ", image.dtype());
  check(image.numel() < (i64{1} << 30), path, ": an image of ", image.shape(), " is too large for write_png");
#if PPMA_STB
  const detail::StbMemory memory((std::size_t{4} << 20) + 16 * static_cast<std::size_t>(image.numel()));
  const int height = static_cast<int>(image.dim(0)), width = static_cast<int>(image.dim(1)),
            channels = static_cast<int>(image.dim(2));
  int size = 0;
  const u8* png = stb::stbi_write_png_to_mem(image.data<u8>(), width * channels, width, height, channels, &size);
  check(png != nullptr, path, ": the image could not be encoded");
  write_file(path, Bytes(png, static_cast<std::size_t>(size)));
#else
  fail(path,
       ": this program was compiled without stb_image_write (Debian: libstb-dev), which writes PNG "
       "files");
#endif
}

}  // namespace ppma::inline PPMA_ABI
