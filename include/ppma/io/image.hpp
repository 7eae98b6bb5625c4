#pragma once
#include "ppma/core/names_begin.hpp"
// Images: uint8 tensors (H,W,3), red green blue. PNG and JPEG through stb_image (io/png.hpp,
// io/jpeg.hpp), BMP, PPM, PGM and PBM by hand (io/bmp.hpp, io/pnm.hpp). What a file is, its first
// bytes say, not its name.
//
// Pixels are those of Pillow's ImageOps.exif_transpose(Image.open(path)).convert("RGB"): grey
// becomes three equal channels, alpha is dropped, 16 bits lose the lower eight, a palette is looked
// up, a photograph is turned as its EXIF data say. A file must be whole: what is cut off or has a
// wrong checksum is an error, not grey. One thing is not Pillow's: grey of 16 bits without alpha it
// cuts off at 255, which makes nearly all of it white; here it loses the lower eight bits as all
// others do, and is an error where they are all that it has.

#include <array>
#include <string>

#include "ppma/io/file.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// How an image is read.
struct ImageReading {
  bool orient = true;  // turned as its EXIF data say; false: the pixels as they are stored
};

/// Decodes an image in memory; `name` is what errors call it. Errors: not an image that is read,
/// and what it is instead; a damaged one.
PPMA_API Tensor decode_image(Bytes file, const std::string& name, ImageReading reading = {});

/// Reads a PNG, JPEG, BMP, PPM, PGM or PBM file: uint8 (H,W,3).
PPMA_API Tensor read_image(const std::string& path, ImageReading reading = {});

/// Height and width of the image that read_image would give, mostly without reading all of the
/// file. Errors: what the file says before its pixels is damaged, or not read.
PPMA_API std::array<i64, 2> read_image_size(const std::string& path, ImageReading reading = {});

/// uint8 (H,W,C) with C = 1 (grey), 3 (RGB) or 4 (RGBA) as the bytes of a PNG file; `name` is what
/// errors call it.
PPMA_API std::vector<u8> encode_png(const Tensor& image, const std::string& name);

/// Writes uint8 (H,W,C) with C = 1 (grey), 3 (RGB) or 4 (RGBA) as PNG, whole or not at all.
PPMA_API void write_png(const std::string& path, const Tensor& image);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <string_view>

#include "ppma/io/bmp.hpp"
#include "ppma/io/exif.hpp"
#include "ppma/io/image_size.hpp"
#include "ppma/io/jpeg.hpp"
#include "ppma/io/known_files.hpp"
#include "ppma/io/png.hpp"
#include "ppma/io/pnm.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/io/stb.hpp"
#include "ppma/io/zip.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline constexpr const char* is_video = "a video, of which frames are read, as a folder of images";

/// What a file is that is not read as an image, or nullptr.
inline const char* other_format(Bytes file) {
  struct Known {
    std::size_t at;
    std::string_view magic;
    const char* name;
  };
  using namespace std::string_view_literals;
  static constexpr Known all[] = {{8, "WEBP", "a WebP image"},
                                  {0, "GIF8", "a GIF image"},
                                  {0, "II*\0"sv, "a TIFF image"},
                                  {0, "MM\0*"sv, "a TIFF image"},
                                  {0, "II+\0"sv, "a BigTIFF image"},
                                  {0, "MM\0+"sv, "a BigTIFF image"},
                                  {4, "ftypavi", "an AVIF image"},
                                  {4, "ftyphei", "a HEIC image"},
                                  {4, "ftyphev", "a HEIC image"},
                                  {4, "ftypmif1", "a HEIF image"},
                                  {4, "ftypiso", is_video},
                                  {4, "ftypmp4", is_video},
                                  {4, "ftypM4V", is_video},
                                  {4, "ftypqt", is_video},
                                  {8, "AVI ", is_video},
                                  {0, "\x1a\x45\xdf\xa3", is_video},
                                  {4, "jP  ", "a JPEG 2000 image"},
                                  {0, "\xff\x4f\xff\x51", "a JPEG 2000 image"},
                                  {4, "JXL ", "a JPEG XL image"},
                                  {0, "\xff\x0a", "a JPEG XL image"},
                                  {0, "\0\0\1\0"sv, "an icon (ICO)"},
                                  {0, "\0\0\2\0"sv, "a TGA image or a cursor"},
                                  {0, "\0\0\x0a\0"sv, "a TGA image"},
                                  {0, "8BPS", "a Photoshop image"},
                                  {0, "#?RADIANCE", "a Radiance HDR image"},
                                  {0, "v/1\1"sv, "an OpenEXR image"},
                                  {0, "qoif", "a QOI image"},
                                  {0, "P7", "a PAM image"},
                                  {0, "PF", "a PFM image"},
                                  {0, "Pf", "a PFM image"},
                                  {0, "DDS ", "a DDS image"},
                                  {0, "%PDF", "a PDF document"},
                                  {0, "<svg", "an SVG drawing"},
                                  {0, "<?xml", "an XML file"}};
  for (const Known& k : all)
    if (file.size() >= k.at + k.magic.size() &&
        std::memcmp(file.data() + k.at, k.magic.data(), k.magic.size()) == 0)
      return k.name;
  return nullptr;
}

}  // namespace detail

Tensor decode_image(Bytes file, const std::string& name, ImageReading reading) {
  const auto begins = [&](std::string_view magic) {
    return file.size() >= magic.size() && std::memcmp(file.data(), magic.data(), magic.size()) == 0;
  };
  check(!file.empty(), name, ": an empty file, not an image", detail::copy_again);
  check(!begins("version https://git-lfs"), name,
        ": not an image, but Git LFS's word for it; fetch it with git lfs pull");
  check(file.size() < (std::size_t{1} << 31), name, ": an image of ", file.size(),
        " bytes is not read; make it smaller");
  if (file.size() > 2 && file[0] == 'P' && file[1] >= '1' && file[1] <= '6')
    return detail::decode_pnm(file, name);
  if (begins("BM")) return detail::decode_bmp(file, name);
  const bool jpeg = begins("\xff\xd8"), png = detail::is_png(file);
  if (!jpeg && !png) {
    const char* other = detail::other_format(file);
    check(other == nullptr, name, ": ", other != nullptr ? other : "",
          "; convert it to PNG or JPEG");
    fail(name, ": not a PNG, JPEG, BMP, PPM, PGM or PBM image; convert it to PNG or JPEG");
  }
#if PPMA_STB
  if (jpeg) {
    const detail::JpegHeader h = detail::jpeg_header(file, name);
    const Tensor image = detail::decode_jpeg(file, h, name);
    return reading.orient ? turned(image, h.orientation) : image;
  }
  const detail::PngHeader h = detail::png_header(file, name);
  const Tensor image = detail::decode_png(file, h, name);
  detail::check_upper_bytes(file, h, image, name);
  return reading.orient ? turned(image, h.orientation) : image;
#else
  static_cast<void>(reading);  // only JPEG and PNG can say that they are to be turned
  fail(name,
       ": this program was compiled without stb_image, so only BMP, PPM, PGM and PBM images are "
       "read; install it (Debian: libstb-dev) and compile again");
#endif
}

Tensor read_image(const std::string& path, ImageReading reading) {
  return decode_image(read_file(path), path, reading);
}

std::array<i64, 2> read_image_size(const std::string& path, ImageReading reading) {
  constexpr std::size_t most = 1 << 16;  // a JPEG's frame header may lie behind a preview
  const std::size_t size = size_of_file(path);
  std::vector<u8> file = read_part(path, 0, std::min(size, most));
  const auto size_of = [&](const auto& header) -> std::array<i64, 2> {
    const bool sideways = reading.orient && header.orientation >= 5 && header.orientation <= 8;
    detail::check_image_size(header.height, header.width, size, path);
    if (sideways) return {header.width, header.height};
    return {header.height, header.width};
  };
  const bool jpeg = file.size() > 2 && file[0] == 0xff && file[1] == 0xd8;
  if (jpeg && size > most) try {
      return size_of(detail::jpeg_header(file, path, false));
    } catch (const Error&) {  // of the part alone, or of the file
    }
  if (size > most) file = read_file(path);
  if (jpeg) return size_of(detail::jpeg_header(file, path, false));
  if (detail::is_png(file)) return size_of(detail::png_header(file, path));
  const Tensor image = decode_image(file, path, reading);
  return {image.dim(0), image.dim(1)};
}

#if PPMA_STB
namespace detail {

// Whether three of four pixels are as the one before, as in drawings (photographs: hardly any).
inline bool is_flat(const Tensor& image) {
  const u8* p = image.data<u8>();
  const i64 channels = image.dim(2), pixels = image.dim(0) * image.dim(1);
  i64 alike = 0;
  for (i64 k = 1; k < pixels; ++k) {
    const u8* q = p + k * channels;
    alike += std::equal(q, q + channels, q - channels);
  }
  return 4 * alike > 3 * pixels;
}

// A PNG whose lines are not filtered, which takes a third of the time that the choice among five
// filters takes; drawings become hardly larger, or smaller, and photographs a third larger.
// Nothing where there is no memory.
inline std::vector<u8> unfiltered_png(const Tensor& image) {
  const i64 height = image.dim(0), row = image.dim(1) * image.dim(2);
  std::vector<u8> lines;
  lines.reserve(static_cast<std::size_t>(height * (1 + row)));
  for (i64 i = 0; i < height; ++i) {
    lines.push_back(0);  // not filtered
    const u8* line = image.data<u8>() + i * row;
    lines.insert(lines.end(), line, line + row);
  }
  int size = 0;
  const int effort = 5;  // stb's least: drawings become a hundredth larger than by its usual 8
  const u8* packed =
      stb::stbi_zlib_compress(lines.data(), static_cast<int>(lines.size()), &size, effort);
  if (packed == nullptr) return {};

  std::vector<u8> png{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  const auto number = [&](u32 n) {
    for (const int shift : {24, 16, 8, 0}) png.push_back(static_cast<u8>(n >> shift));
  };
  const auto piece = [&](std::string_view type, auto&& contents) {
    const std::size_t begin = png.size();
    number(0), png.insert(png.end(), type.begin(), type.end());
    contents();
    const std::size_t length = png.size() - begin - 8;
    for (std::size_t k = 0; k < 4; ++k) png[begin + k] = static_cast<u8>(length >> (24 - 8 * k));
    number(crc32(Bytes(png).subspan(begin + 4)));
  };
  piece("IHDR", [&] {
    number(static_cast<u32>(image.dim(1))), number(static_cast<u32>(height));
    const u8 colour = image.dim(2) == 1 ? 0 : image.dim(2) == 3 ? 2 : 6;
    png.insert(png.end(), {8, colour, 0, 0, 0});
  });
  piece("IDAT", [&] { png.insert(png.end(), packed, packed + size); });
  piece("IEND", [] {});
  return png;
}

}  // namespace detail
#endif

std::vector<u8> encode_png(const Tensor& image, const std::string& name) {
  check(image.defined() && image.rank() == 3 && image.dtype() == DType::uint8 &&
            image.numel() > 0 && (image.dim(2) == 1 || image.dim(2) == 3 || image.dim(2) == 4),
        name, ": a PNG needs uint8 (H,W,1), (H,W,3) or (H,W,4); it got ",
        image.defined() ? image.shape().str() : std::string("nothing"), " ", image.dtype());
  check(image.numel() < (i64{1} << 30), name, ": an image of ", image.shape(),
        " is too large for a PNG; make it smaller");
#if PPMA_STB
  const char* no_memory = ": the image could not be encoded; end programs that take memory";
  const detail::StbMemory memory((std::size_t{4} << 20) +
                                 16 * static_cast<std::size_t>(image.numel()));
  const int height = static_cast<int>(image.dim(0)), width = static_cast<int>(image.dim(1)),
            channels = static_cast<int>(image.dim(2));
  if (detail::is_flat(image)) {
    std::vector<u8> png = detail::unfiltered_png(image);
    check(!png.empty(), name, no_memory);
    return png;
  }
  int size = 0;
  const u8* png = stb::stbi_write_png_to_mem(image.data<u8>(), width * channels, width, height,
                                             channels, &size);
  check(png != nullptr, name, no_memory);
  return {png, png + size};
#else
  fail(name,
       ": this program was compiled without stb_image_write, which writes PNG files; install it "
       "(Debian: libstb-dev) and compile again");
#endif
}

void write_png(const std::string& path, const Tensor& image) {
  write_file(path, encode_png(image, path));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
