#pragma once
#include "ppma/core/names_begin.hpp"
// What every image reader asks before it takes memory: of a size, and of grey levels.

#include <string>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI::detail {

/// Errors: no pixels, more than 2^27, more than a file of this size can hold.
PPMA_API void check_image_size(i64 height, i64 width, std::size_t file, const std::string& name);

/// Error: grey of 16 bits that was something, and of which 8 bits keep nothing: class numbers, or
/// levels that nobody has brought to 65535.
PPMA_API void check_grey_levels(bool kept, const std::string& name, const char* format);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include "ppma/core/error.hpp"
#include "ppma/io/known_files.hpp"

namespace ppma::inline PPMA_ABI::detail {

void check_image_size(i64 height, i64 width, std::size_t file, const std::string& name) {
  constexpr i64 most = i64{1} << 27;
  check(height > 0 && width > 0, name, ": damaged image: it says that it has ", width, " x ",
        height, " pixels", copy_again);
  check(height <= most && width <= most && height * width <= most, name, ": an image of ", height,
        " x ", width, " pixels, more than ", most, ", is not read; make it smaller");
  // The tightest packing is PNG's with one bit a pixel: deflate makes at most 1032 bytes of one.
  check(height * width <= 8 * 1032 * static_cast<i64>(file), name, ": damaged image: ", height,
        " x ", width, " pixels cannot come from ", file, " bytes", copy_again);
}

void check_grey_levels(bool kept, const std::string& name, const char* format) {
  check(kept, name, ": all of a grey ", format,
        " of 16 bits would be black, as its levels are so low; if it is an image, save it with "
        "levels up to the highest, such as with ImageMagick's -auto-level");
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
