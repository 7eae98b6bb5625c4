#pragma once
#include "ppma/core/names_begin.hpp"
// What every image reader asks of a size before it takes memory.

#include <string>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI::detail {

/// Errors: no pixels, more than 2^27, more than a file of this size can hold.
inline void check_image_size(i64 height, i64 width, std::size_t file, const std::string& name) {
  constexpr i64 most = i64{1} << 27;
  check(height > 0 && width > 0, name, ": damaged image: it says that it has ", width, " x ",
        height, " pixels");
  check(height <= most && width <= most && height * width <= most, name, ": an image of ", height,
        " x ", width, " pixels, more than ", most, ", is not read; make it smaller");
  // The tightest packing is PNG's with one bit a pixel: deflate makes at most 1032 bytes of one.
  check(height * width <= 8 * 1032 * static_cast<i64>(file), name, ": damaged image: ", height,
        " x ", width, " pixels cannot come from ", file, " bytes");
}

}  // namespace ppma::inline PPMA_ABI::detail

#include "ppma/core/names_end.hpp"
