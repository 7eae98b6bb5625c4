#pragma once
#include "ppma/core/names_begin.hpp"
// Colours that tell classes apart on photographs: hues a golden angle apart, light and strong.

#include "ppma/vis/colormap.hpp"

namespace ppma::inline PPMA_ABI {

/// The colour of class k, the same in every picture.
PPMA_API Color class_color(i64 k);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>

namespace ppma::inline PPMA_ABI {

Color class_color(i64 k) {
  constexpr Color first[] = {{0xff, 0x57, 0x4f}, {0x3d, 0x9b, 0xff}, {0x2f, 0xc4, 0x5c},
                             {0xff, 0xb0, 0x1f}, {0xb2, 0x6b, 0xff}, {0x17, 0xc3, 0xc9},
                             {0xff, 0x6f, 0xb5}, {0xa4, 0xcf, 0x2a}, {0xff, 0x83, 0x3c},
                             {0x7f, 0x8c, 0xff}};
  constexpr i64 n = static_cast<i64>(sizeof first / sizeof first[0]);
  if (k < n) return first[static_cast<std::size_t>(std::max(k, i64{0}))];
  const double hue = std::fmod(0.618033988749895 * static_cast<double>(k), 1.0) * 6,
               light = k % 2 == 0 ? 1.0 : 0.82;
  const auto part = [&](double turn) {
    const double at = std::fmod(hue + turn, 6.0), up = std::clamp(std::abs(at - 3) - 1, 0.0, 1.0);
    return static_cast<u8>(255 * light * (0.25 + 0.75 * up));
  };
  return {part(0), part(4), part(2)};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
