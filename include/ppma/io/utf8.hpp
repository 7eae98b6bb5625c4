#pragma once
#include "ppma/core/names_begin.hpp"
// Is this text UTF-8, and how is it shown? Names from files go into error messages, maps, other
// files and onto terminals: they are checked once, on entry, and printed through printable().

#include <string>
#include <string_view>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

/// True for well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
PPMA_API bool is_utf8(Bytes text);

/// Whether the bytes are well-formed UTF-8.
PPMA_API bool is_utf8(std::string_view text);

/// A text from elsewhere (a file's name, a tensor's, a class's, a piece of JSON) as a message or a
/// terminal may show it: control characters and bytes that are not UTF-8 become \x1b, \n, \t, \r;
/// after `most` characters it is cut, and the whole size is said: "layers.0.w... (312 bytes)".
PPMA_API std::string printable(std::string_view text, std::size_t most = 80);

/// A code point's bytes in UTF-8; "" for none (0, a surrogate, above U+10FFFF).
PPMA_API std::string utf8_of(u32 code);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

bool is_utf8(Bytes text) {
  for (std::size_t i = 0; i < text.size();) {
    const u8 first = text[i++];
    if (first < 0x80) continue;
    const int following = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || text.size() - i < static_cast<std::size_t>(following))
      return false;
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

bool is_utf8(std::string_view text) {
  return is_utf8(Bytes(reinterpret_cast<const u8*>(text.data()), text.size()));
}

namespace detail {

// Bytes of the character that `text` begins with; 0 if it is not valid UTF-8.
inline std::size_t utf8_length(std::string_view text) {
  for (std::size_t n = 1; n <= 4 && n <= text.size(); ++n)
    if (is_utf8(text.substr(0, n))) return n;
  return 0;
}

// Characters that move the cursor, change colours or turn the direction of writing: ASCII's and
// Unicode's control characters (C0, DEL, C1), line and paragraph separators, marks of direction.
inline bool steers_terminal(std::string_view character) {
  const auto byte = [&](std::size_t i) { return static_cast<u8>(character[i]); };
  if (character.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7f;
  if (character.size() == 2) return byte(0) == 0xc2 && byte(1) < 0xa0;
  if (character.size() != 3 || byte(0) != 0xe2) return character == "\xef\xbb\xbf";
  return (byte(1) == 0x80 &&
          ((byte(2) >= 0x8b && byte(2) <= 0x8f) || (byte(2) >= 0xa8 && byte(2) <= 0xae))) ||
         (byte(1) == 0x81 && byte(2) >= 0xa0 && byte(2) <= 0xaf);
}

}  // namespace detail

std::string utf8_of(u32 code) {
  const auto byte = [](u32 b) { return static_cast<char>(static_cast<u8>(b)); };
  const auto next = [&](u32 shift) { return byte(0x80 | ((code >> shift) & 0x3f)); };
  if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return "";
  if (code < 0x80) return {byte(code)};
  if (code < 0x800) return {byte(0xc0 | code >> 6), next(0)};
  if (code < 0x10000) return {byte(0xe0 | code >> 12), next(6), next(0)};
  return {byte(0xf0 | code >> 18), next(12), next(6), next(0)};
}

std::string printable(std::string_view text, std::size_t most) {
  constexpr const char* hex = "0123456789abcdef";
  std::string shown;
  std::size_t characters = 0;
  for (std::size_t i = 0; i < text.size(); ++characters) {
    if (characters == most) return shown + str("... (", text.size(), " bytes)");
    const std::size_t length = detail::utf8_length(text.substr(i));
    const std::string_view character = text.substr(i, length == 0 ? 1 : length);
    i += character.size();
    if (length > 0 && !detail::steers_terminal(character))
      shown += character;
    else if (character == "\n")
      shown += "\\n";
    else if (character == "\t")
      shown += "\\t";
    else if (character == "\r")
      shown += "\\r";
    else
      for (const char c : character) {
        const u8 b = static_cast<u8>(c);
        ((shown += "\\x") += hex[b >> 4]) += hex[b & 15];
      }
  }
  return shown;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
