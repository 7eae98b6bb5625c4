#pragma once
#include "ppma/core/names_begin.hpp"
// Zip archives with stored (uncompressed) entries, zip64 included: what torch.save writes. Format:
// PKWARE's APPNOTE.
//
// The reader goes by the central directory at the end, as it must: the sizes in front of the data
// are zero when the writer streamed (data descriptors). It checks what zip bombs and damaged files
// have wrong: entries that overlap, sizes that leave the file, compressed entries, a name twice,
// checksums.

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ppma/io/element.hpp"
#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

/// The checksum of zip and PNG.
PPMA_API u32 crc32(Bytes data);

/// An archive's entries by name; the contents point into the archive's bytes.
using ZipEntries = std::map<std::string, Bytes, std::less<>>;

namespace detail {

class ZipReader {
 public:
  ZipReader(Bytes file, const std::string& name) : file_(file), name_(name) { read_directory(); }

  /// The entries' names, also of those that entries() refuses.
  PPMA_API std::vector<std::string> names() const;

  PPMA_API ZipEntries entries() const;

 private:
  template <class T>
  T get(u64 at) const {
    return load<T>(file_.data() + at);
  }
  std::string text(u64 at, u64 size) const {
    return std::string(reinterpret_cast<const char*>(file_.data()) + at, size);
  }

  // What the directory says of an entry, unchecked.
  struct Listed {
    std::string entry;
    std::uint16_t flags, method;
    u32 sum, stored, size, header;
    u64 extra, extra_size;
  };

  PPMA_API void read_directory();

  PPMA_API void find_directory();

  // Numbers that do not fit 32 bits are written as 0xffffffff and follow, in this order, in the
  // extra field 1.
  PPMA_API void widen(u64 at, u64 extra_size, std::initializer_list<u64*> numbers,
                      const std::string& where) const;

  Bytes file_;
  const std::string& name_;
  u64 count_ = 0, directory_ = 0, directory_end_ = 0;
  std::vector<Listed> listed_;
};

}  // namespace detail

/// The entries of an archive in memory; `name` is what errors call it. Every entry's checksum is
/// verified.
PPMA_API ZipEntries parse_zip(Bytes file, const std::string& name);

/// Writes stored entries, each beginning at a multiple of 64 bytes as PyTorch's do (so that they
/// can be mapped).
class ZipWriter {
 public:
  /// Opens a file. Error: it cannot be written.
  explicit ZipWriter(const std::string& path) : path_(path), file_(path) {}

  /// Appends an entry, not compressed.
  PPMA_API void add(const std::string& name, Bytes contents);
  void add(const std::string& name, std::string_view text) {
    add(name, Bytes(reinterpret_cast<const u8*>(text.data()), text.size()));
  }

  /// Writes the directory and puts the archive in place.
  PPMA_API void commit();

 private:
  static void number(std::string& to, u32 value, int bytes) {
    for (int i = 0; i < bytes; ++i) to += static_cast<char>((value >> (8 * i)) & 255);
  }

  std::string path_;
  FileWriter file_;
  std::string directory_;
  u32 count_ = 0;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <array>

#include "ppma/io/known_files.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Tables of the CRC-32 of zip (reflected polynomial 0xedb88320) for eight bytes at a time.
inline const std::array<std::array<u32, 256>, 8>& crc_tables() {
  static const auto tables = [] {
    std::array<std::array<u32, 256>, 8> t{};
    for (u32 i = 0; i < 256; ++i) {
      u32 c = i;
      for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0xedb88320u : 0u);
      t[0][i] = c;
    }
    for (u32 i = 0; i < 256; ++i)
      for (std::size_t k = 1; k < 8; ++k) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 255];
    return t;
  }();
  return tables;
}

}  // namespace detail

u32 crc32(Bytes data) {
  const auto& t = detail::crc_tables();
  u32 c = 0xffffffffu;
  const u8* p = data.data();
  std::size_t n = data.size();
  for (; n >= 8; n -= 8, p += 8) {
    const u32 a = c ^ detail::load<u32>(p), b = detail::load<u32>(p + 4);
    c = t[7][a & 255] ^ t[6][(a >> 8) & 255] ^ t[5][(a >> 16) & 255] ^ t[4][a >> 24] ^
        t[3][b & 255] ^ t[2][(b >> 8) & 255] ^ t[1][(b >> 16) & 255] ^ t[0][b >> 24];
  }
  for (; n > 0; --n, ++p) c = (c >> 8) ^ t[0][(c ^ *p) & 255];
  return ~c;
}

namespace detail {

std::vector<std::string> ZipReader::names() const {
  std::vector<std::string> all;
  for (const Listed& l : listed_) all.push_back(l.entry);
  return all;
}

ZipEntries ZipReader::entries() const {
  std::vector<std::pair<u64, u64>> ranges;  // of header and contents, to find overlaps
  ZipEntries result;
  for (const Listed& l : listed_) {
    const std::string where = str(name_, ": entry \"", printable(l.entry), "\"");
    check((l.flags & 0x2041) == 0, where,
          " is encrypted, which is not read; unpack the archive with its password and pack it "
          "again without (zip -0)");
    check((l.flags & 0x20) == 0, where,
          " is a patch of another file (flag 0x20), which is not read", copy_again);
    check(l.method == 0, where, " is compressed (method ", l.method,
          "), which is not read; unpack the archive and pack it again without compression (zip "
          "-0)");
    u64 size = l.size, stored = l.stored, header = l.header;
    widen(l.extra, l.extra_size, {&size, &stored, &header}, where);
    check(size == stored, where, " has two different sizes, ", size, " and ", stored, copy_again);
    check(header < directory_ && directory_ - header >= 30 && get<u32>(header) == 0x04034b50, where,
          " has no header at byte ", header, copy_again);
    const u64 begin =
        header + 30 + get<std::uint16_t>(header + 26) + get<std::uint16_t>(header + 28);
    check(begin <= directory_ && size <= directory_ - begin, where, " of ", size, " bytes at byte ",
          header, " leaves the file", copy_again);
    check(text(header + 30, get<std::uint16_t>(header + 26)) == l.entry, where,
          " has another name in its header", copy_again);
    ranges.emplace_back(header, begin + size);
    check(result.emplace(l.entry, file_.subspan(begin, size)).second, where,
          " occurs twice; unpack the archive and pack it again");
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i)
    check(ranges[i - 1].second <= ranges[i].first, name_, ": damaged zip: entries overlap at byte ",
          ranges[i].first, copy_again);
  // PyTorch writes 0 where it was told not to compute checksums. Only now: no byte is read for
  // two entries.
  for (const Listed& l : listed_)
    check(l.sum == 0 || crc32(result.find(l.entry)->second) == l.sum, name_, ": entry \"",
          printable(l.entry), "\" is damaged (its checksum differs)", copy_again);
  return result;
}

void ZipReader::read_directory() {
  find_directory();
  u64 at = directory_;
  for (u64 i = 0; i < count_; ++i) {
    check(at + 46 <= directory_end_ && get<u32>(at) == 0x02014b50, name_,
          ": damaged zip: directory entry ", i, " is missing", copy_again);
    const int disk = get<std::uint16_t>(at + 34);
    check(disk == 0 || disk == 1, name_, ": directory entry ", i,
          ": a zip archive in several parts is not read; join its parts (zip -s 0 IN --out OUT)");
    const u64 name_size = get<std::uint16_t>(at + 28), extra_size = get<std::uint16_t>(at + 30);
    const u64 next = at + 46 + name_size + extra_size + get<std::uint16_t>(at + 32);
    check(next <= directory_end_, name_, ": damaged zip: directory entry ", i, " is cut short",
          copy_again);
    const std::string entry = text(at + 46, name_size);
    check(is_utf8(entry), name_, ": damaged zip: the name of entry ", i, ", \"", printable(entry),
          "\", is not valid UTF-8", copy_again);
    listed_.push_back({entry, get<std::uint16_t>(at + 8), get<std::uint16_t>(at + 10),
                       get<u32>(at + 16), get<u32>(at + 20), get<u32>(at + 24), get<u32>(at + 42),
                       at + 46 + name_size, extra_size});
    at = next;
  }
  check(at == directory_end_, name_, ": damaged zip: the directory has more entries than it says",
        copy_again);
}

void ZipReader::find_directory() {
  constexpr u64 tail = 22;
  check(!file_.empty(), name_, ": an empty file, not a zip archive; copy or download it again");
  check(file_.size() >= tail, name_, ": not a zip archive (", file_.size(), " bytes)", copy_again);
  u64 end = file_.size() - tail;
  // A comment may follow, and more: as PyTorch's reader does, the last mark is taken.
  const u64 first = end > 0xffff ? end - 0xffff : 0;
  while (end > first && get<u32>(end) != 0x06054b50) --end;
  check(get<u32>(end) == 0x06054b50, name_,
        ": not a zip archive, or cut short (no directory at its end)", copy_again);
  count_ = get<std::uint16_t>(end + 10);
  u64 size = get<u32>(end + 12);
  directory_ = get<u32>(end + 16);
  bool one_disk = get<u32>(end + 4) == 0 && get<std::uint16_t>(end + 8) == count_;
  if (end >= 20 && get<u32>(end - 20) == 0x07064b50) {  // zip64: the numbers again, wider
    const u64 wide = get<u64>(end - 12);
    check(wide <= end - 20 && end - 20 - wide >= 56 && get<u32>(wide) == 0x06064b50, name_,
          ": damaged zip: no zip64 end of directory at byte ", wide, copy_again);
    count_ = get<u64>(wide + 32);
    size = get<u64>(wide + 40);
    directory_ = get<u64>(wide + 48);
    one_disk = get<u64>(wide + 16) == 0 && get<u64>(wide + 24) == count_;
    end = wide;
  }
  check(one_disk, name_,
        ": a zip archive in several parts is not read; join its parts (zip -s 0 IN --out OUT)");
  check(directory_ <= end && size <= end - directory_, name_, ": damaged zip: its directory of ",
        size, " bytes at byte ", directory_, " leaves the file", copy_again);
  directory_end_ = directory_ + size;
}

void ZipReader::widen(u64 at, u64 extra_size, std::initializer_list<u64*> numbers,
                      const std::string& where) const {
  const u64 end = at + extra_size;
  u64 field = 0, field_end = 0;
  while (end - at >= 4) {
    const u64 size = get<std::uint16_t>(at + 2);
    check(size <= end - at - 4, where, " has a damaged extra field", copy_again);
    if (get<std::uint16_t>(at) == 1) {
      field = at + 4;
      field_end = field + size;
    }
    at += 4 + size;
  }
  for (u64* n : numbers)
    if (*n == 0xffffffffu) {
      check(field_end - field >= 8, where, " lacks a zip64 size", copy_again);
      *n = get<u64>(field);
      field += 8;
    }
}

}  // namespace detail

ZipEntries parse_zip(Bytes file, const std::string& name) {
  return detail::ZipReader(file, name).entries();
}

void ZipWriter::add(const std::string& name, Bytes contents) {
  const u64 header = file_.written(), unaligned = header + 30 + name.size() + 4;
  check(unaligned + contents.size() + directory_.size() < 0xffff0000u && ++count_ < 0xffff, path_,
        ": too large for this writer (4 GiB, 65534 entries); write .safetensors instead");
  const u32 size = static_cast<u32>(contents.size()), sum = crc32(contents);
  const u32 padding = static_cast<u32>((64 - unaligned % 64) % 64);
  std::string both;             // what both headers have
  number(both, 20, 2);          // version that can read it: 2.0
  number(both, 0x0800, 2);      // flags: the name is UTF-8
  number(both, 0, 2);           // method: stored
  number(both, 0x00210000, 4);  // 1980-01-01
  number(both, sum, 4);
  number(both, size, 4);
  number(both, size, 4);
  number(both, static_cast<u32>(name.size()), 2);
  std::string local = "PK\3\4" + both;
  number(local, 4 + padding, 2);
  local += name + "FB";
  number(local, padding, 2);
  local.append(padding, 'Z');
  file_.write(local);
  file_.write(contents);
  directory_ += "PK\1\2";
  number(directory_, 20, 2);
  directory_ += both;
  directory_.append(2 + 2 + 2 + 2 + 4, '\0');  // no extra field, comment, disk, attributes
  number(directory_, static_cast<u32>(header), 4);
  directory_ += name;
}

void ZipWriter::commit() {
  const u32 begin = static_cast<u32>(file_.written());
  std::string end = "PK\5\6";
  number(end, 0, 4);
  number(end, count_, 2);
  number(end, count_, 2);
  number(end, static_cast<u32>(directory_.size()), 4);
  number(end, begin, 4);
  number(end, 0, 2);
  file_.write(directory_);
  file_.write(end);
  file_.commit();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
