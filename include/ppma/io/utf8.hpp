#pragma once
// Is this text UTF-8? Names from files go into error messages, maps and other files: they are
// checked once, on entry.

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

/// True for well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
inline bool is_utf8(Bytes text) {
  for (std::size_t i = 0; i < text.size();) {
    const u8 first = text[i++];
    if (first < 0x80) continue;
    const int following = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || text.size() - i < static_cast<std::size_t>(following)) return false;
    // The second byte's range closes the gaps: overlong forms, surrogates, beyond the last code
    // point.
    const u8 low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const u8 high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (text[i] < low || text[i] > high) return false;
    for (int k = 1; k < following; ++k)
      if ((text[i + static_cast<std::size_t>(k)] & 0xc0) != 0x80) return false;
    i += static_cast<std::size_t>(following);
  }
  return true;
}
inline bool is_utf8(std::string_view text) {
  return is_utf8(Bytes(reinterpret_cast<const u8*>(text.data()), text.size()));
}

}  // namespace ppma::inline PPMA_ABI
