#pragma once
// What a reader must do with any bytes at all: return, or throw ppma::Error; and take no more
// memory for tensors than a small multiple of what it was given. Used by the fuzzers beside this
// file and by io/mutation_test.cpp.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ppma/data/image_list.hpp"
#include "ppma/data/voc.hpp"
#include "ppma/data/yolo.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/io/csv.hpp"
#include "ppma/io/gzip.hpp"
#include "ppma/io/idx.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/label_map.hpp"
#include "ppma/io/pickle.hpp"
#include "ppma/io/png.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/tar.hpp"

namespace fuzz {

using namespace ppma;

/// Runs a reader; stops the program if the tensors it made took more than `most_bytes`. True if the
/// file was accepted.
template <class F>
bool survives(F&& reader, i64 most_bytes) {
  reset_peak_memory();
  const i64 before = memory_stats().live_bytes;
  bool accepted = true;
  try {
    reader();
  } catch (const Error&) {
    accepted = false;
  }
  const i64 taken = memory_stats().peak_bytes - before;
  if (taken > most_bytes) {
    std::fprintf(stderr, "a file made its reader take %lld bytes\n", static_cast<long long>(taken));
    std::abort();
  }
  return accepted;
}

inline bool safetensors(Bytes file) {
  return survives([&] { parse_safetensors(file, "fuzzed"); },
                  16 * static_cast<i64>(file.size()) + 4096);
}

/// Looks at values reachable from one, at most ten thousand of them: pickles may have cycles.
inline void look_at(const PickleValue& root) {
  std::vector<PickleValue> todo{root};
  for (int n = 0; n < 10000 && !todo.empty(); ++n) {
    const PickleValue v = todo.back();
    todo.pop_back();
    if (v.describe().empty()) std::abort();
    switch (v.kind()) {
      case PickleKind::boolean:
        v.boolean();
        break;
      case PickleKind::integer:
        v.integer();
        break;
      case PickleKind::real:
        v.real();
        break;
      case PickleKind::text:
        v.text();
        break;
      case PickleKind::bytes:
      case PickleKind::large_integer:
        v.bytes();
        break;
      case PickleKind::list:
      case PickleKind::tuple:
      case PickleKind::set:
        for (std::size_t i = 0; i < v.size() && todo.size() < 10000; ++i) todo.push_back(v.item(i));
        break;
      case PickleKind::dict:
        v.find("model");
        for (std::size_t i = 0; i < v.size() && todo.size() < 10000; ++i) {
          todo.push_back(v.key(i));
          todo.push_back(v.value(i));
        }
        break;
      case PickleKind::object:
        for (const PickleValue& part : {v.args(), v.state(), v.list_items(), v.dict_items()})
          todo.push_back(part);
        break;
      case PickleKind::persistent:
        todo.push_back(v.args());
        break;
      default:
        break;
    }
  }
}

inline bool pickle(Bytes input) {
  return survives([&] { look_at(parse_pickle({input.begin(), input.end()}, "fuzzed")); }, 0);
}

/// Sets the checksums in a zip's directory to 0, "not computed", so that changed bytes get past
/// them.
inline std::vector<u8> without_checksums(Bytes file) {
  std::vector<u8> copy(file.begin(), file.end());
  for (std::size_t i = 0; i + 20 <= copy.size(); ++i)
    if (copy[i] == 'P' && copy[i + 1] == 'K' && copy[i + 2] == 1 && copy[i + 3] == 2)
      std::fill_n(copy.begin() + static_cast<std::ptrdiff_t>(i) + 16, 4, u8{0});
  return copy;
}

inline bool pth(Bytes file) {
  const i64 most = 20 * static_cast<i64>(file.size()) + (i64{2} << 20);
  return survives(
      [&] {
        const PthFile opened(without_checksums(file), "fuzzed");
        look_at(opened.root());
        detail::load_pth_weights(opened, {});
      },
      most);
}

/// A PNG whose pieces have the right checksums, so that changed bytes get past them.
inline std::vector<u8> with_checksums(Bytes file) {
  std::vector<u8> copy(file.begin(), file.end());
  for (std::size_t at = 8; detail::is_png(file) && copy.size() - at >= 12;) {
    const std::size_t length = detail::big_endian(copy.data() + at);
    if (length > copy.size() - at - 12) break;
    const u32 sum = crc32(Bytes(copy).subspan(at + 4, length + 4));
    at += length + 12;
    for (std::size_t i = 0; i < 4; ++i) copy[at - 4 + i] = static_cast<u8>(sum >> (24 - 8 * i));
  }
  return copy;
}

inline bool image(Bytes file) {
  // Three bytes a pixel, twice where it is turned, and no more pixels than the format's best
  // compression allows.
  const std::vector<u8> summed = with_checksums(file);
  return survives([&] { decode_image(summed, "fuzzed"); },
                  2 * 3 * 9000 * static_cast<i64>(file.size()) + 4096);
}

inline bool label_map(Bytes raw) {
  const std::vector<u8> file = with_checksums(raw);
  // The image, or eight bytes a pixel, a copy of the file with another palette, and a byte a pixel.
  return survives([&] { decode_label_map(file, "fuzzed"); },
                  9 * 9000 * (static_cast<i64>(file.size()) + 780) + 4096);
}

/// An IDX file, packed by gzip or not. Its elements fill it.
inline bool idx(Bytes raw) {
  return survives(
      [&] {
        std::vector<u8> file(raw.begin(), raw.end());
        if (is_gzip(file)) file = gunzip(file, "fuzzed");
        const IdxArray array = parse_idx(file, "fuzzed");
        i64 elements = 1;
        for (const i64 n : array.shape) elements *= n;
        if (array.begin + static_cast<std::size_t>(elements) != file.size()) std::abort();
      },
      0);
}

/// A list of images; what was read of it, written again with every field in quotes, is the same.
inline bool image_list(Bytes csv) {
  survives(
      [&] {
        std::string again;
        const std::vector<CsvRecord> records = parse_csv(csv, "fuzzed");
        for (const CsvRecord& r : records) {
          for (std::size_t i = 0; i < r.fields.size(); ++i) {
            again += i == 0 ? "\"" : ",\"";
            for (const char c : r.fields[i]) again += c == '"' ? "\"\"" : std::string(1, c);
            again += '"';
          }
          again += "\r\n";
        }
        const std::vector<CsvRecord> second =
            parse_csv({reinterpret_cast<const u8*>(again.data()), again.size()}, "written");
        if (second.size() != records.size()) std::abort();
        for (std::size_t i = 0; i < records.size(); ++i)
          if (second[i].fields != records[i].fields) std::abort();
      },
      0);
  return survives([&] { parse_image_list(csv, "fuzzed"); }, 0);
}

/// An annotation of PASCAL VOC; its boxes have a size.
inline bool voc(Bytes xml) {
  return survives(
      [&] {
        for (const VocObject& o : parse_voc(xml, "fuzzed").objects)
          if (o.name.empty() || !(o.box[2] >= 0 && o.box[3] >= 0)) std::abort();
      },
      0);
}

/// A file of YOLO's labels; what is accepted lies within the image, up to half a box.
inline bool yolo(Bytes labels) {
  return survives(
      [&] {
        for (const YoloObject& o : parse_yolo(labels, "fuzzed"))
          for (const double v : o.box)
            if (o.label < 0 || !(v >= -0.5 && v <= 1)) std::abort();
      },
      0);
}

/// The names of a data.yaml.
inline bool yolo_names(Bytes yaml) {
  return survives(
      [&] {
        if (parse_yolo_names(yaml, "fuzzed").empty()) std::abort();
      },
      0);
}

/// A tar archive whose headers have the right checksums, so that changed bytes get past them.
inline std::vector<u8> with_tar_checksums(Bytes archive) {
  std::vector<u8> copy(archive.begin(), archive.end());
  for (std::size_t at = 0; at + 512 <= copy.size(); at += 512) {
    const auto sum_field = copy.begin() + static_cast<std::ptrdiff_t>(at) + 148;
    if (!std::all_of(sum_field, sum_field + 6, [](u8 c) { return c >= '0' && c <= '7'; })) continue;
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? u8{' '} : copy[at + i];
    for (std::size_t i = 0; i < 6; ++i)
      copy[at + 153 - i] = static_cast<u8>('0' + ((sum >> (3 * i)) & 7));
    copy[at + 154] = 0, copy[at + 155] = ' ';
  }
  return copy;
}

/// A tar archive; its files lie within it, one behind the other.
inline bool tar(Bytes raw) {
  const std::vector<u8> archive = with_tar_checksums(raw);
  return survives(
      [&] {
        std::size_t last = 0;
        for (const TarEntry& e : parse_tar(archive, "fuzzed")) {
          if (e.name.empty() || e.begin < last + 512 || e.bytes > archive.size() - e.begin)
            std::abort();
          last = e.begin + e.bytes;
        }
      },
      0);
}

}  // namespace fuzz
