#pragma once
#include "ppma/core/names_begin.hpp"
// JPEG: stb_image decodes the coefficients of a baseline or progressive file; what makes pixels of
// them stands here, as libjpeg-turbo does it bit for bit: the inverse cosine transform, the
// stretching of subsampled colours, the colour spaces. stb_image's own differs from what Pillow,
// OpenCV and PyTorch read by up to 39 levels, where a row of half-width colours ends.
//
// Files of four inks are taken as Adobe writes them, inverted, with its marker or without, as
// Pillow takes them.

#include <string>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI::detail {

struct JpegHeader {
  i64 height = 0, width = 0;
  std::vector<u8> ids;  // of the components
  bool jfif = false;
  int adobe = -1;       // the colour transform that Adobe's marker names
  int orientation = 0;  // 1 to 8; 0: not said
};

/// Walks a JPEG's segments to its end, or without `whole` to where its pixels begin. Errors: what
/// is cut off, as stb_image fills it with grey; tables that stb_image up to 2.27 would write past
/// their end; kinds that are not read, by name.
PPMA_API JpegHeader jpeg_header(Bytes file, const std::string& name, bool whole = true);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <array>
#include <string_view>

#include "ppma/io/exif.hpp"
#include "ppma/io/image_size.hpp"
#include "ppma/io/known_files.hpp"
#include "ppma/io/stb.hpp"

namespace ppma::inline PPMA_ABI::detail {

JpegHeader jpeg_header(Bytes file, const std::string& name, bool whole) {
  JpegHeader h;
  int xmp = 0;
  bool coded = false;
  const auto need = [&](bool there) {
    check(there, name, ": cut short: a JPEG without its end", copy_again);
  };
  for (std::size_t at = 2;;) {
    while (at < file.size() && file[at] != 0xff) ++at;  // padding between segments
    while (at < file.size() && file[at] == 0xff) ++at;
    need(at < file.size());
    const u8 marker = file[at++];
    if (marker == 0xd9) break;
    need(file.size() - at >= 2);
    const std::size_t length = file[at] * 256u + file[at + 1];
    need(length >= 2 && length <= file.size() - at);
    Bytes segment = file.subspan(at + 2, length - 2);
    at += length;
    const auto begins = [&](std::string_view text) {
      return segment.size() >= text.size() &&
             std::equal(text.begin(), text.end(), segment.begin(),
                        [](char a, u8 b) { return static_cast<u8>(a) == b; });
    };
    using namespace std::string_view_literals;
    constexpr std::string_view exif = "Exif\0\0"sv, adobe_xmp = "http://ns.adobe.com/xap/1.0/\0"sv;
    if (!coded && marker == 0xe0 && begins("JFIF\0"sv)) h.jfif = true;
    if (!coded && marker == 0xee && begins("Adobe") && segment.size() >= 12) h.adobe = segment[11];
    if (!coded && marker == 0xe1 && begins(exif) && h.orientation == 0)
      h.orientation = exif_orientation(segment.subspan(exif.size()));
    if (!coded && marker == 0xe1 && begins(adobe_xmp))
      xmp = xmp_orientation({reinterpret_cast<const char*>(segment.data()), segment.size()});
    if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc &&
        h.ids.empty()) {
      check(marker <= 0xc2, name, ": ",
            marker >= 0xc9   ? "a JPEG with arithmetic coding"
            : marker == 0xc3 ? "a lossless JPEG"
                             : "a hierarchical JPEG",
            " is not read; save it as an ordinary JPEG or PNG");
      check(segment.size() >= 6 && segment.size() >= 6 + 3u * segment[5], name,
            ": damaged JPEG: its header", copy_again);
      check(segment[0] == 8, name, ": a JPEG of ", int{segment[0]},
            " bits a sample is not read; save it with 8 bits, or as PNG");
      h.height = segment[1] * 256 + segment[2], h.width = segment[3] * 256 + segment[4];
      const std::size_t n = segment[5];
      check(n == 1 || n == 3 || n == 4, name, ": a JPEG of ", n,
            " components is not read; save it with 1, 3 or 4, or as PNG");
      for (std::size_t k = 0; k < n; ++k) h.ids.push_back(segment[6 + 3 * k]);
    }
    while (marker == 0xc4 &&
           !segment.empty()) {  // Huffman tables: 1 byte, 16 counts, that many symbols
      std::size_t codes = 0;
      for (std::size_t i = 1; i < 17 && i < segment.size(); ++i) codes += segment[i];
      check(codes <= 256 && segment.size() >= 17 + codes, name,
            ": damaged JPEG: its Huffman tables", copy_again);
      segment = segment.subspan(17 + codes);
    }
    while (marker == 0xdb &&
           !segment.empty()) {  // quantisation tables: 1 byte, 64 numbers of 8 or 16 bits
      const std::size_t size = segment[0] < 16 ? 65 : 129;
      check(segment.size() >= size, name, ": damaged JPEG: its quantisation tables", copy_again);
      segment = segment.subspan(size);
    }
    if (marker == 0xda && !whole) {
      coded = true;
      break;
    }
    while (marker == 0xda &&
           at < file.size()) {  // coded data: ends at a marker; ff 00 and restarts are part of it
      coded = true;
      if (file[at] != 0xff) {
        ++at;
        continue;
      }
      std::size_t next = at;
      while (next < file.size() && file[next] == 0xff) ++next;
      need(next < file.size());
      if (file[next] != 0 && (file[next] < 0xd0 || file[next] > 0xd7)) break;
      at = next + 1;
    }
  }
  check(!h.ids.empty() && coded, name, ": damaged JPEG: no pixels in it", copy_again);
  if (h.orientation == 0) h.orientation = xmp;
  return h;
}

#if PPMA_STB

/// Eight numbers' inverse cosine transform (C. Loeffler, A. Ligtenberg, G. Moschytz: Practical fast
/// 1-D DCT algorithms with 11 multiplications, 1989), in fixed point of 13 bits; the eight lanes
/// are eight of them beside each other. `shift` bits are rounded off.
inline void inverse_cosine(std::array<std::array<int, 8>, 8>& x, int shift) {
  for (std::size_t l = 0; l < 8; ++l) {
    const int s = (x[2][l] + x[6][l]) * 4433, s2 = s - x[6][l] * 15137, s3 = s + x[2][l] * 6270;
    const int s0 = (x[0][l] + x[4][l]) * 8192, s1 = (x[0][l] - x[4][l]) * 8192;
    const int even[4] = {s0 + s3, s1 + s2, s1 - s2, s0 - s3};
    const int a = x[7][l], b = x[5][l], c = x[3][l], d = x[1][l];
    const int all = (a + b + c + d) * 9633;
    const int ac = all - (a + c) * 16069, bd = all - (b + d) * 3196;
    const int ad = -(a + d) * 7373, bc = -(b + c) * 20995;
    const int odd[4] = {d * 12299 + ad + bd, c * 25172 + bc + ac, b * 16819 + bc + bd,
                        a * 2446 + ad + ac};
    for (std::size_t i = 0; i < 4; ++i) {
      x[i][l] = (even[i] + odd[i] + (1 << (shift - 1))) >> shift;
      x[7 - i][l] = (even[i] - odd[i] + (1 << (shift - 1))) >> shift;
    }
  }
}

/// A block of coefficients as 8 x 8 samples. Between the passes numbers keep 16 bits, so that those
/// of a damaged file do not overflow.
inline void jpeg_block(u8* out, int stride, short* coefficients) {
  std::array<std::array<int, 8>, 8> x, y;
  for (std::size_t i = 0; i < 64; ++i) x[i / 8][i % 8] = coefficients[i];
  inverse_cosine(x, 11);
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 8; ++j) y[j][i] = std::clamp(x[i][j], -32768, 32767);
  inverse_cosine(y, 18);
  for (std::size_t i = 0; i < 8; ++i, out += stride)
    for (std::size_t j = 0; j < 8; ++j) out[j] = static_cast<u8>(std::clamp(y[j][i] + 128, 0, 255));
}

/// A component as it is stored: one sample for `across` x `down` pixels.
struct JpegPlane {
  const u8* data = nullptr;
  i64 stride = 0, height = 0, width = 0, across = 1, down = 1;

  const u8* row(i64 y) const { return data + std::clamp(y, i64{0}, height - 1) * stride; }

  /// Row y of the image: across * width samples. Twice as many are interpolated, three parts of the
  /// nearer and one of the farther sample; others are repeated.
  void stretch(i64 y, u8* to) const {
    const u8* near = row(y / down);
    if (across > 2 || down > 2 || (across == 2 && width <= 2) || (across == 1 && down == 1)) {
      for (i64 x = 0; x < width; ++x, to += across) std::fill_n(to, across, near[x]);
      return;
    }
    const u8* far = down == 1 ? near : row(y / 2 + (y % 2 == 0 ? -1 : 1));
    if (across == 1) {
      const int half = y % 2 == 0 ? 1 : 2;
      for (i64 x = 0; x < width; ++x) to[x] = static_cast<u8>((3 * near[x] + far[x] + half) >> 2);
      return;
    }
    // Along the row; with `down` 2 the samples are four times too large, of rounding 8 and 7.
    const int bits = down == 1 ? 2 : 4, left = down == 1 ? 1 : 8, right = down == 1 ? 2 : 7;
    const auto sample = [&](i64 x) { return down == 1 ? int{near[x]} : 3 * near[x] + far[x]; };
    int before = sample(0), here = before;
    for (i64 x = 0; x < width; ++x) {
      const int after = x + 1 < width ? sample(x + 1) : here;
      to[2 * x] = static_cast<u8>((3 * here + before + left) >> bits);
      to[2 * x + 1] = static_cast<u8>((3 * here + after + right) >> bits);
      before = here, here = after;
    }
  }
};

/// Y Cb Cr as red, green, blue (JFIF).
inline std::array<int, 3> ycc_to_rgb(int y, int cb, int cr) {
  cb -= 128, cr -= 128;
  return {std::clamp(y + ((91881 * cr + 32768) >> 16), 0, 255),
          std::clamp(y + ((-22554 * cb - 46802 * cr + 32768) >> 16), 0, 255),
          std::clamp(y + ((116130 * cb + 32768) >> 16), 0, 255)};
}

/// uint8 (H,W,3) of a JPEG, not turned.
inline Tensor decode_jpeg(Bytes file, const JpegHeader& h, const std::string& name) {
  check_image_size(h.height, h.width, file.size(), name);
  // Its tables take some hundred kilobytes; coefficients and samples up to 64 bytes a pixel, rows
  // padded to whole blocks.
  const StbMemory memory((std::size_t{4} << 20) + 4 * file.size() +
                         64 * static_cast<std::size_t>(h.height) *
                             static_cast<std::size_t>(h.width));
  stb::stbi__context context;
  stb::stbi__start_mem(&context, file.data(), static_cast<int>(file.size()));
  auto* j = static_cast<stb::stbi__jpeg*>(StbMemory::take(sizeof(stb::stbi__jpeg)));
  check(j != nullptr, name, ": no memory for a JPEG; end other programs");
  j->s = &context;
  stb::stbi__setup_jpeg(j);
  j->idct_block_kernel = jpeg_block;
  check(stb::stbi__decode_jpeg_image(j) != 0, name, ": damaged JPEG (", stb_reason(), ")",
        copy_again);
  const std::size_t n = h.ids.size();
  check(
      context.img_x == h.width && context.img_y == h.height && context.img_n == static_cast<int>(n),
      name, ": damaged JPEG: two headers", copy_again);
  std::array<JpegPlane, 4> planes;
  std::array<std::vector<u8>, 4> rows;
  for (std::size_t k = 0; k < n; ++k) {
    const auto& c = j->img_comp[k];
    planes[k] = {c.data, c.w2, c.y, c.x, j->img_h_max / c.h, j->img_v_max / c.v};
    check(planes[k].across * planes[k].width >= h.width &&
              planes[k].down * planes[k].height >= h.height,
          name, ": damaged JPEG: its subsampling", copy_again);
    rows[k].resize(static_cast<std::size_t>(planes[k].across * planes[k].width));
  }
  const bool named_rgb = h.ids == std::vector<u8>{'R', 'G', 'B'};
  const bool plain = n == 1 || (n == 3 && !h.jfif && (h.adobe >= 0 ? h.adobe == 0 : named_rgb)) ||
                     (n == 4 && h.adobe <= 0);
  Tensor image = Tensor::empty({h.height, h.width, 3}, DType::uint8);
  u8* to = image.data<u8>();
  for (i64 y = 0; y < h.height; ++y) {
    for (std::size_t k = 0; k < n; ++k) planes[k].stretch(y, rows[k].data());
    const std::size_t width = static_cast<std::size_t>(h.width);
    if (n == 3 && !plain) {
      const u8 *luma = rows[0].data(), *blue = rows[1].data(), *red = rows[2].data();
      for (std::size_t x = 0; x < width; ++x, to += 3) {
        const std::array<int, 3> rgb = ycc_to_rgb(luma[x], blue[x], red[x]);
        for (std::size_t c = 0; c < 3; ++c) to[c] = static_cast<u8>(rgb[c]);
      }
      continue;
    }
    for (std::size_t x = 0; x < width; ++x, to += 3) {
      std::array<int, 3> rgb{rows[0][x], rows[0][x], rows[0][x]};
      if (n > 1) rgb[1] = rows[1][x], rgb[2] = rows[2][x];
      if (!plain) rgb = ycc_to_rgb(rgb[0], rgb[1], rgb[2]);
      if (n == 4) {  // paper white less the ink; Adobe's four inks (YCCK) are inverted, as its CMYK
        const int black = rows[3][x];
        for (int& c : rgb) {
          const int ink = plain ? 255 - c : c, product = ink * black + 128;
          c = black - ((product + (product >> 8)) >> 8);
        }
      }
      for (std::size_t c = 0; c < 3; ++c) to[c] = static_cast<u8>(rgb[c]);
    }
  }
  return image;
}

#endif

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
