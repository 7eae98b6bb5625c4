#pragma once
#include "ppma/core/names_begin.hpp"
// PNG around stb_image: its pieces' checksums, which stb_image leaves out, what they say of the
// image, and a palette of 256 colours whatever the file's, as stb_image would look up an index
// beyond it in memory that nobody set.

#include <string>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI::detail {

constexpr u8 png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

PPMA_API bool is_png(Bytes file);

PPMA_API u32 big_endian(const u8* p);

struct PngHeader {
  i64 height = 0, width = 0;
  int bits = 0, colour = 0;            // colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA
  std::size_t palette = 0, after = 0;  // where the palette begins, with its length, and ends
  int orientation = 0;                 // 1 to 8; 0: not said
};

/// What a PNG's pieces say. Errors: a piece that is cut off; a wrong checksum where the piece or
/// what follows it has pixels; kinds that are not read, by name.
PPMA_API PngHeader png_header(Bytes file, const std::string& name);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <string_view>
#include <vector>

#include "ppma/io/exif.hpp"
#include "ppma/io/image_size.hpp"
#include "ppma/io/known_files.hpp"
#include "ppma/io/stb.hpp"
#include "ppma/io/zip.hpp"

namespace ppma::inline PPMA_ABI::detail {

bool is_png(Bytes file) {
  return file.size() >= 8 && std::equal(png_magic, png_magic + 8, file.begin());
}

u32 big_endian(const u8* p) {
  return u32{p[0]} << 24 | u32{p[1]} << 16 | u32{p[2]} << 8 | u32{p[3]};
}

/// ImageMagick's way to keep EXIF data as text: "\nexif\n  LENGTH\n" and hexadecimal digits.
inline int text_profile_orientation(std::string_view text) {
  for (int line = 0; line < 3; ++line)
    text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  std::vector<u8> bytes;
  int high = -1;
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) continue;
    if (high >= 0) bytes.push_back(static_cast<u8>(high * 16 + digit));
    high = high < 0 ? digit : -1;
  }
  const bool named = bytes.size() >= 6 && std::memcmp(bytes.data(), "Exif\0\0", 6) == 0;
  return exif_orientation(Bytes(bytes).subspan(named ? 6 : 0));
}

PngHeader png_header(Bytes file, const std::string& name) {
  PngHeader h;
  int xmp = 0, profile = 0;
  bool pixels = false;
  for (std::size_t at = 8;;) {
    check(file.size() - at >= 12, name, ": cut short: a PNG without its end", copy_again);
    const std::size_t length = big_endian(file.data() + at);
    check(length <= file.size() - at - 12, name, ": cut short: a PNG without its end", copy_again);
    const Bytes named = file.subspan(at + 4, length + 4), data = named.subspan(4);
    const std::string type(named.begin(), named.begin() + 4);
    check(type != "CgBI", name,
          ": an iPhone's own kind of PNG is not read; save it as an ordinary PNG");
    check(at > 8 || (type == "IHDR" && length == 13), name,
          ": damaged PNG: it does not begin with its header", copy_again);
    const bool whole = crc32(named) == big_endian(data.data() + length),
               needed = !pixels || type == "IDAT";
    if (!whole && needed) {
      std::string shown;
      for (const char c : type) shown += c >= ' ' && c <= '~' ? c : '?';
      fail(name, ": damaged PNG: the checksum of the piece \"", shown, "\" at byte ", at,
           " is wrong", copy_again);
    }
    const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
    if (at == 8) {
      h.width = big_endian(data.data()), h.height = big_endian(data.data() + 4);
      h.bits = data[8], h.colour = data[9];
    } else if (type == "PLTE") {
      h.palette = at, h.after = at + length + 12;
    } else if (type == "IDAT") {
      pixels = true;
    } else if (type == "eXIf" && whole) {
      const bool prefixed = text.starts_with(std::string_view("Exif\0\0", 6));
      h.orientation = exif_orientation(data.subspan(prefixed ? 6 : 0));
    } else if (type == "iTXt" && whole &&
               text.starts_with(std::string_view("XML:com.adobe.xmp\0\0", 19))) {
      xmp = xmp_orientation(text);
    } else if (const std::string_view key("Raw profile type exif\0", 22);
               whole && text.starts_with(key)) {
      if (type == "tEXt") profile = text_profile_orientation(text.substr(key.size()));
#if PPMA_STB
      if (type == "zTXt" && text.size() > key.size() + 1) {
        const StbMemory memory(std::size_t{1} << 20);
        int size = 0;
        const char* plain = stb::stbi_zlib_decode_malloc_guesssize(
            text.data() + key.size() + 1, static_cast<int>(text.size() - key.size() - 1), 4096,
            &size);
        if (plain != nullptr && size > 0)
          profile = text_profile_orientation({plain, static_cast<std::size_t>(size)});
      }
#endif
    }
    if (type == "IEND") break;
    at += length + 12;
  }
  check(pixels, name, ": damaged PNG: no pixels in it", copy_again);
  check(h.colour != 3 || h.palette > 0, name, ": damaged PNG: no palette", copy_again);
  for (const int other : {profile, xmp})
    if (h.orientation == 0) h.orientation = other;
  return h;
}

/// The file with a palette of 256 colours: its own and then black; or, to read indices as levels,
/// "entry i has the colour i, i, i".
inline std::vector<u8> with_full_palette(Bytes file, const PngHeader& h, bool indices) {
  const auto from = [&](std::size_t at) { return file.begin() + static_cast<std::ptrdiff_t>(at); };
  std::vector<u8> out(from(0), from(h.palette));
  out.insert(out.end(), {0, 0, 3, 0, 'P', 'L', 'T', 'E'});
  if (indices)
    for (int i = 0; i < 256; ++i) out.insert(out.end(), 3, static_cast<u8>(i));
  else
    out.insert(out.end(), from(h.palette + 8), from(std::min(h.after - 4, h.palette + 8 + 768)));
  out.resize(h.palette + 8 + 768);
  out.insert(out.end(), 4, u8{0});  // the checksum, which stb_image does not look at
  out.insert(out.end(), from(h.after), file.end());
  return out;
}

#if PPMA_STB

/// uint8 (H,W,3) of a PNG, not turned; `indices`: a palette's indices instead of its colours.
inline Tensor decode_png(Bytes file, const PngHeader& h, const std::string& name,
                         bool indices = false) {
  check_image_size(h.height, h.width, file.size(), name);
  const std::vector<u8> padded =
      h.colour == 3 ? with_full_palette(file, h, indices) : std::vector<u8>{};
  if (h.colour == 3) file = padded;
  // Pixels up to eight bytes, twice, and the file's own once more.
  const StbMemory memory((std::size_t{4} << 20) + 4 * file.size() +
                         64 * static_cast<std::size_t>(h.height) *
                             static_cast<std::size_t>(h.width));
  int width = 0, height = 0, channels = 0;
  const u8* pixels = stb::stbi_load_from_memory(file.data(), static_cast<int>(file.size()), &width,
                                                &height, &channels, 3);
  check(pixels != nullptr && width == h.width && height == h.height, name, ": damaged PNG (",
        stb_reason(), ")", copy_again);
  Tensor image = Tensor::empty({h.height, h.width, 3}, DType::uint8);
  std::copy_n(pixels, image.numel(), image.data<u8>());
  return image;
}

/// int64 (H,W): the levels of a grey PNG of 16 bits.
inline Tensor decode_png_16(Bytes file, const PngHeader& h, const std::string& name) {
  check_image_size(h.height, h.width, file.size(), name);
  const StbMemory memory((std::size_t{4} << 20) + 4 * file.size() +
                         64 * static_cast<std::size_t>(h.height) *
                             static_cast<std::size_t>(h.width));
  int width = 0, height = 0, channels = 0;
  const auto* pixels = stb::stbi_load_16_from_memory(file.data(), static_cast<int>(file.size()),
                                                     &width, &height, &channels, 1);
  check(pixels != nullptr && width == h.width && height == h.height, name, ": damaged PNG (",
        stb_reason(), ")", copy_again);
  Tensor levels = Tensor::empty({h.height, h.width}, DType::int64);
  std::copy_n(pixels, levels.numel(), levels.data<i64>());
  return levels;
}

/// Error: grey of 16 bits whose upper bytes, as `image` has them, are all 0, and its lower are not.
inline void check_upper_bytes(Bytes file, const PngHeader& h, const Tensor& image,
                              const std::string& name) {
  const auto lit = [](const auto* p, i64 n) {
    return std::any_of(p, p + n, [](auto level) { return level > 0; });
  };
  if (h.colour != 0 || h.bits != 16 || lit(image.data<u8>(), image.numel())) return;
  const Tensor levels = decode_png_16(file, h, name);
  check_grey_levels(!lit(levels.data<i64>(), levels.numel()), name, "PNG");
}

#endif

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
