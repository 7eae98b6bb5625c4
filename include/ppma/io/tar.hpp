#pragma once
#include "ppma/core/names_begin.hpp"
// Tar archives that are not unpacked: where in them each file lies. Old, ustar, GNU (long names,
// sizes in binary) and pax (path, size) headers. An archive must be whole: what is cut off, or has
// a header with a wrong checksum, is an error.

#include <string>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

/// A file in an archive.
struct TarEntry {
  std::string name;                  // without "./" before it
  std::size_t begin = 0, bytes = 0;  // its contents in the archive
};

/// The files of an archive in its order; only headers are read. Folders are passed over. Errors,
/// with the byte: a damaged or cut archive; one that is packed; links, sparse files and devices, by
/// name.
PPMA_API std::vector<TarEntry> read_tar(const std::string& path);

/// The same of an archive in memory; `name` is what errors call it.
PPMA_API std::vector<TarEntry> parse_tar(Bytes archive, const std::string& name);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <memory>
#include <string_view>
#include <tuple>

#include "ppma/core/error.hpp"
#include "ppma/io/known_files.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class TarReader {
 public:
  /// `take(at, bytes, to)` copies bytes of the archive, which has `size`.
  template <class Take>
  static std::vector<TarEntry> read(std::size_t size, const std::string& name, Take take) {
    TarReader r(size, name);
    std::vector<TarEntry> files;
    for (std::size_t at = 0;;) {
      check(size - at >= 512, name, ": cut short: a tar archive without its end", copy_again);
      u8 h[512];
      take(at, sizeof h, h);
      if (std::all_of(h, h + 512, [](u8 c) { return c == 0; })) return files;
      r.at_ = at;
      at = r.contents(h);
      if (const u8 type = h[156]; type == 'L' || type == 'x') {
        r.need(r.bytes_ <= 1 << 20, "a name of ", r.bytes_, " bytes");
        std::string text(r.bytes_, '\0');
        take(at, text.size(), reinterpret_cast<u8*>(text.data()));
        type == 'L' ? r.take_long_name(text) : r.take_pax(text);
      } else if (type != 'g' && type != 'K') {
        if (r.is_file(h, type)) files.push_back({r.name_of(h), at, r.bytes_});
        r.long_name_.clear(), r.pax_size_ = none;
      }
      at += (r.bytes_ + 511) / 512 * 512;
      check(at <= size, name, ": cut short: a tar archive without its end", copy_again);
    }
  }

 private:
  static constexpr u64 none = ~u64{0};

  TarReader(std::size_t size, const std::string& archive) : size_(size), archive_(archive) {}

  template <class... Parts>
  void need(bool well, const Parts&... parts) const {
    if (!well) fail(archive_, ": byte ", at_, ": ", parts...);
  }
  /// A field of the header: octal digits with blanks and zeros around, or GNU's binary numbers.
  u64 number(const u8* field, std::size_t length, const char* what) const {
    u64 n = 0;
    if (field[0] == 0x80) {
      for (std::size_t i = 1; i < length; ++i) {
        need(n < u64{1} << 52, what, " that is too large");
        n = n << 8 | field[i];
      }
      return n;
    }
    std::size_t i = 0;
    while (i < length && field[i] == ' ') ++i;
    for (; i < length && field[i] >= '0' && field[i] <= '7'; ++i)
      n = n * 8 + static_cast<u64>(field[i] - '0');
    while (i < length && (field[i] == ' ' || field[i] == 0)) ++i;
    need(i == length, what, " that is no number; damaged, or no tar archive", copy_again);
    return n;
  }
  static std::string text(const u8* field, std::size_t most) {
    return {field, std::find(field, field + most, u8{0})};
  }
  /// Checks a header and takes the size; where its contents begin.
  std::size_t contents(const u8* h) {
    u64 sum = 8 * ' ';
    for (std::size_t i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? 0 : h[i];
    need(number(h + 148, 8, "a checksum") == sum,
         "a header with a wrong checksum; damaged, or no tar archive", copy_again);
    const bool own = h[156] == 'L' || h[156] == 'K' || h[156] == 'x' || h[156] == 'g';
    const bool folder = h[156] == '5';
    const u64 said = folder                      ? 0
                     : pax_size_ != none && !own ? pax_size_
                                                 : number(h + 124, 12, "a size");
    need(said <= size_ - at_ - 512, "cut short: a file of ", said, " bytes in an archive of ",
         size_, copy_again);
    bytes_ = static_cast<std::size_t>(said);
    return at_ + 512;
  }
  std::string name_of(const u8* h) const {
    std::string name = long_name_.empty() ? text(h, 100) : long_name_;
    // GNU's own kind has times where ustar has the beginning of the path.
    if (long_name_.empty() && std::equal(h + 257, h + 263, "ustar") && h[345] != 0)
      name = text(h + 345, 155) + "/" + name;
    while (name.starts_with("./")) name.erase(0, 2);
    return name;
  }
  bool is_file(const u8* h, u8 type) const {
    const std::string name = name_of(h);
    need(!name.empty() || type == '5', "a file without a name");
    if (type == '5' || (type == 0 && name.ends_with('/'))) return false;
    const char* const other = type == '1' || type == '2' ? "a link"
                              : type == 'S'              ? "a sparse file"
                                                         : "no plain file";
    need(type == 0 || type == '0' || type == '7', printable(name), " is ", other,
         "; archive files themselves (GNU tar: --dereference --hard-dereference)");
    return true;
  }
  void take_long_name(const std::string& name) {
    long_name_ = name.substr(0, name.find('\0'));
    need(!long_name_.empty(), "a long name that is empty");
  }
  /// Records "LENGTH KEY=VALUE\n", the length with all of them.
  void take_pax(std::string_view all) {
    while (!all.empty()) {
      std::size_t length = 0, digits = 0;
      for (; digits < std::min<std::size_t>(all.size(), 8) && all[digits] >= '0' &&
             all[digits] <= '9';
           ++digits)
        length = length * 10 + static_cast<std::size_t>(all[digits] - '0');
      const bool well = digits > 0 && length > digits + 2 && length <= all.size() &&
                        all[digits] == ' ' && all[length - 1] == '\n';
      need(well, "a damaged pax header", copy_again);
      const std::string_view record = all.substr(digits + 1, length - digits - 2);
      all.remove_prefix(length);
      const std::size_t equal = record.find('=');
      need(equal != std::string_view::npos, "a damaged pax header", copy_again);
      const std::string_view key = record.substr(0, equal), value = record.substr(equal + 1);
      need(!key.starts_with("GNU.sparse"), "a sparse file; archive it whole");
      if (key == "path") {
        need(!value.empty() && value.find('\0') == std::string_view::npos,
             "a pax path that is none");
        long_name_ = value;
      } else if (key == "size") {
        need(!value.empty() && value.size() <= 15 &&
                 value.find_first_not_of("0123456789") == std::string_view::npos,
             "a pax size that is no number");
        pax_size_ = 0;
        for (const char c : value) pax_size_ = pax_size_ * 10 + static_cast<u64>(c - '0');
      }
    }
  }

  std::size_t size_ = 0;
  const std::string& archive_;
  std::size_t at_ = 0, bytes_ = 0;  // of the header that is read
  std::string long_name_{};         // of the next file, or ""
  u64 pax_size_ = none;
};

/// Error: the archive is packed.
inline void check_plain_tar(Bytes begin, const std::string& name) {
  using namespace std::string_view_literals;
  const std::string_view text = text_of(begin);
  for (const auto& [magic, by, with] : {std::tuple{"\x1f\x8b"sv, "gzip", "gunzip"},
                                        {"BZh"sv, "bzip2", "bunzip2"},
                                        {"\xfd"
                                         "7zXZ"sv,
                                         "xz", "unxz"},
                                        {"\x28\xb5\x2f\xfd"sv, "zstd", "unzstd"}})
    check(!text.starts_with(magic), name, ": packed by ", by,
          "; files are read where they lie in a plain archive: ", with);
}

}  // namespace detail

std::vector<TarEntry> parse_tar(Bytes archive, const std::string& name) {
  detail::check_plain_tar(archive, name);
  return detail::TarReader::read(archive.size(), name,
                                 [&](std::size_t at, std::size_t bytes, u8* to) {
                                   std::copy_n(archive.data() + at, bytes, to);
                                 });
}

std::vector<TarEntry> read_tar(const std::string& path) {
  const std::size_t size = size_of_file(path);
  detail::check_plain_tar(read_part(path, 0, std::min<std::size_t>(size, 8)), path);
  const PartReader file(path);
  return detail::TarReader::read(
      size, path, [&](std::size_t at, std::size_t bytes, u8* to) { file.read(at, bytes, to); });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
