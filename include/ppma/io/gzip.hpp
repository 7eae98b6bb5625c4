#pragma once
#include "ppma/core/names_begin.hpp"
// Files compressed by gzip (RFC 1952), as MNIST's are handed out: one member, its data inflated by
// stb_image, its checksum and size verified.

#include <string>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

/// Whether the bytes begin as a gzip file does.
PPMA_API bool is_gzip(Bytes file);

/// The bytes that a gzip file holds; `name` is what errors call it. Errors: no gzip file, cut
/// short, damaged, several members in one file, 2 GiB or more; compiled without stb_image.
PPMA_API std::vector<u8> gunzip(Bytes file, const std::string& name);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include "ppma/core/error.hpp"
#include "ppma/io/element.hpp"
#include "ppma/io/known_files.hpp"
#include "ppma/io/stb.hpp"
#include "ppma/io/zip.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Where a member's deflated data begin.
inline std::size_t gzip_header(Bytes file, const std::string& name) {
  check(is_gzip(file), name, ": not a gzip file", copy_again);
  constexpr std::size_t fixed = 10, trailer = 8;
  const auto whole = [&](bool there) { check(there, name, ": cut short: gzip", copy_again); };
  whole(file.size() >= fixed + trailer);
  const u8 flags = file[3];
  check(file[2] == 8 && (flags & 0xe0) == 0, name, ": gzip of a kind that is not known (method ",
        int{file[2]}, ", flags ", int{flags}, ")", copy_again);
  const std::size_t end = file.size() - trailer;
  std::size_t at = fixed;
  if ((flags & 4) != 0) {  // an extra field
    whole(end - at >= 2);
    const std::size_t size = load<std::uint16_t>(file.data() + at);
    whole(end - at - 2 >= size);
    at += 2 + size;
  }
  for (const u8 text : {u8{8}, u8{16}}) {  // a name, a comment, each to its zero
    if ((flags & text) == 0) continue;
    while (at < end && file[at] != 0) ++at;
    whole(at < end);
    ++at;
  }
  if ((flags & 2) != 0) whole(end - at >= 2), at += 2;  // the header's checksum
  return at;
}

}  // namespace detail

bool is_gzip(Bytes file) { return file.size() >= 2 && file[0] == 0x1f && file[1] == 0x8b; }

std::vector<u8> gunzip(Bytes file, const std::string& name) {
  const std::size_t begin = detail::gzip_header(file, name), end = file.size() - 8;
  const u32 sum = detail::load<u32>(file.data() + end),
            size = detail::load<u32>(file.data() + end + 4);
  constexpr std::size_t most = std::size_t{1} << 31;
  check(size < most && file.size() < most, name, ": ", size,
        " bytes are not unpacked here; unpack the file (gunzip)");
  // Deflate makes at most 1032 bytes of one.
  check(size <= 1032 * (end - begin), name, ": damaged gzip: ", size, " bytes cannot come from ",
        end - begin, "; or several in one file, then unpack it (gunzip)");
#if PPMA_STB
  std::vector<u8> bytes(size);
  char none = 0;
  // With the trailer: stb_image looks two bytes ahead.
  const int made = stb::stbi_zlib_decode_noheader_buffer(
      size > 0 ? reinterpret_cast<char*>(bytes.data()) : &none, static_cast<int>(size),
      reinterpret_cast<const char*>(file.data() + begin), static_cast<int>(file.size() - begin));
  check(made == static_cast<int>(size) && crc32(bytes) == sum, name,
        ": damaged gzip (its checksum or size differs), or several in one file; copy or download "
        "the file again, or unpack it (gunzip)");
  return bytes;
#else
  static_cast<void>(sum);
  fail(name,
       ": this program was compiled without stb_image, which unpacks gzip; unpack the file "
       "(gunzip)");
#endif
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
