#pragma once
#include "ppma/core/names_begin.hpp"
// safetensors: eight bytes of header length, a JSON header, raw elements.
// https://github.com/huggingface/safetensors
//
//   {"__metadata__": {"any": "text"}, "head.weight": {"dtype": "F32", "shape": [10, 80],
//   "data_offsets": [0, 3200]}}
//
// The reader believes nothing: every name once, every field of its type, the tensors' bytes must
// fill the data without gap or overlap, and a shape must have exactly the bytes it claims. Nothing
// is allocated before that is known.

#include <map>
#include <string>

#include "ppma/io/element.hpp"
#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

struct Safetensors {
  TensorMap tensors;  // in the order of the header
  std::map<std::string, std::string> metadata;
};

/// Reads a file that is in memory; `name` is what errors call it.
PPMA_API Safetensors parse_safetensors(Bytes file, const std::string& name);

/// Reads tensors and metadata; elements that the library does not have are converted
/// (io/element.hpp).
PPMA_API Safetensors read_safetensors(const std::string& path);

/// Writes f32, f64, bf16, int64 and uint8 tensors under their names, whole or not at all.
PPMA_API void write_safetensors(const std::string& path, const TensorMap& tensors,
                                const std::map<std::string, std::string>& metadata = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <vector>

#include "ppma/io/known_files.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

struct SafetensorsEntry {
  std::string name, dtype;
  std::vector<i64> shape, offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Events of the JSON parser (which is not recursive) to entries. Three levels deep and no further:
// 1 the header, 2 one tensor or the metadata, 3 a list of numbers.
class SafetensorsHeader {
 public:
  explicit SafetensorsHeader(const std::string& name) : name_(name) {}
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;

  bool start_object(std::size_t) {
    require(depth_ <= 1, "unexpected object in ", where());
    if (depth_++ == 1 && !in_metadata_) entries.push_back({key_, {}, {}, {}});
    return true;
  }
  bool end_object() {
    if (--depth_ == 1 && !in_metadata_) {
      const SafetensorsEntry& e = entries.back();
      require(e.has_dtype && e.has_shape && e.has_offsets, "tensor \"", printable(e.name),
              "\" lacks dtype, shape or data_offsets");
    }
    return true;
  }
  bool key(std::string& k) {
    if (depth_ == 1) {
      require(names_.insert(k).second, "the name \"", printable(k), "\" occurs twice");
      in_metadata_ = k == "__metadata__";
      key_ = k;
    } else if (!in_metadata_) {
      SafetensorsEntry& e = entries.back();
      bool* seen = k == "dtype"          ? &e.has_dtype
                   : k == "shape"        ? &e.has_shape
                   : k == "data_offsets" ? &e.has_offsets
                                         : nullptr;
      require(seen != nullptr, "tensor \"", printable(e.name), "\" has an unknown field \"",
              printable(k), "\"");
      require(!*seen, "tensor \"", printable(e.name), "\" has the field \"", printable(k),
              "\" twice");
      *seen = true;
    } else {
      require(!metadata.contains(k), "metadata has the key \"", printable(k), "\" twice");
    }
    field_ = k;
    return true;
  }
  bool start_array(std::size_t) {
    require(depth_ == 2 && !in_metadata_ && field_ != "dtype", "unexpected list in ", where());
    ++depth_;
    return true;
  }
  bool end_array() { return --depth_, true; }
  bool string(std::string& s) {
    require(depth_ == 2 && (in_metadata_ || field_ == "dtype"), "unexpected text in ", where());
    if (in_metadata_)
      metadata[field_] = s;
    else
      entries.back().dtype = s;
    return true;
  }
  bool number_unsigned(u64 n) {
    require(depth_ == 3, "unexpected number in ", where());
    require(n <= static_cast<u64>(std::numeric_limits<i64>::max()), "the number ", n, " in ",
            where(), " is too large");
    std::vector<i64>& list = field_ == "shape" ? entries.back().shape : entries.back().offsets;
    require(list.size() < Shape::max_rank, "more than ", Shape::max_rank, " numbers in ", where());
    list.push_back(static_cast<i64>(n));
    return true;
  }
  bool number_integer(i64) { return refuse("a negative number"); }
  bool number_float(double, const std::string&) { return refuse("a number that is not whole"); }
  bool null() { return refuse("null"); }
  bool boolean(bool) { return refuse("a truth value"); }
  bool binary(std::vector<u8>&) { return refuse("binary data"); }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::json::exception&) {
    fail(name_, ": header: not JSON in valid UTF-8 near byte ", byte, copy_again);
  }

 private:
  template <class... Parts>
  void require(bool ok, const Parts&... what) const {
    check(ok, name_, ": header: ", what..., "; write the file again with safetensors");
  }
  bool refuse(const char* what) {
    return require(false, "unexpected ", what, " in ", where()), false;
  }
  std::string where() const {
    return depth_ == 0 ? "the outermost place" : str("\"", printable(key_), "\"");
  }

  const std::string& name_;
  std::set<std::string> names_;
  std::string key_, field_;
  int depth_ = 0;
  bool in_metadata_ = false;
};

inline Element safetensors_element(const std::string& dtype, const std::string& where) {
  static constexpr std::pair<const char*, Element> known[] = {
      {"F32", Element::f32},     {"F64", Element::f64},    {"F16", Element::f16},
      {"BF16", Element::bf16},   {"I64", Element::int64},  {"I32", Element::int32},
      {"I16", Element::int16},   {"I8", Element::int8},    {"U64", Element::uint64},
      {"U32", Element::uint32},  {"U16", Element::uint16}, {"U8", Element::uint8},
      {"BOOL", Element::boolean}};
  for (const auto& k : known)
    if (dtype == k.first) return k.second;
  fail(where, " has dtype \"", printable(dtype),
       "\", which is not read (F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL are); convert "
       "it, "
       "with .float() in PyTorch");
}

}  // namespace detail

Safetensors parse_safetensors(Bytes file, const std::string& name) {
  constexpr u64 max_header = 100'000'000;  // that of the format's reference implementation
  check(!file.empty(), name, ": an empty file, not a safetensors file (0 bytes)",
        detail::copy_again);
  const auto sane = [&] {
    return file.size() >= 8 && detail::load<u64>(file.data()) <= file.size() - 8 &&
           file.size() > 8 && file[8] == '{';
  };
  if (!sane())
    if (const std::string what = detail::known_file(file); !what.empty() && file.size() >= 8)
      fail(name, ": ", what);
  check(file.size() >= 8, name, ": not a safetensors file (", file.size(), " bytes)",
        detail::copy_again);
  const u64 header_size = detail::load<u64>(file.data());
  check(header_size <= max_header && header_size <= file.size() - 8, name,
        ": not a safetensors file, or cut short: the header would have ", header_size,
        " bytes, the file has ", file.size(), detail::copy_again);
  const Bytes header = file.subspan(8, header_size), data = file.subspan(8 + header_size);
  check(!header.empty() && header[0] == '{', name,
        ": not a safetensors file: the header does not begin with {", detail::copy_again);

  detail::SafetensorsHeader h(name);
  const std::string_view text = text_of(header);  // characters: libc++ has no traits of bytes
  nlohmann::json::sax_parse(text.begin(), text.end(), &h);

  i64 claimed = 0;  // bytes of data that the header speaks of
  for (const auto& e : h.entries)
    if (e.offsets.size() == 2) claimed = std::max(claimed, e.offsets[1]);
  const i64 size = static_cast<i64>(data.size());
  std::vector<Element> elements;
  std::vector<std::pair<i64, i64>> ranges;
  std::vector<Shape> shapes;
  for (const auto& e : h.entries) {
    const std::string where = str(name, ": tensor \"", printable(e.name), "\"");
    elements.push_back(detail::safetensors_element(e.dtype, where));
    const bool ordered = e.offsets.size() == 2 && e.offsets[0] <= e.offsets[1];
    check(ordered && e.offsets[1] <= size, where, ": data_offsets must be two positions in the ",
          size, " bytes of data, in order; ",
          ordered ? str("the file is cut short, its tensors have ", claimed, " bytes",
                        detail::copy_again)
                  : "write the file again with safetensors");
    shapes.push_back(shape_of(e.shape, where));
    i64 bytes = 0;
    check(!__builtin_mul_overflow(shapes.back().numel(), size_of(elements.back()), &bytes) &&
              bytes == e.offsets[1] - e.offsets[0],
          where, ": shape ", shapes.back(), " of ", e.dtype, " does not have ",
          e.offsets[1] - e.offsets[0], " bytes", "; write the file again with safetensors");
    ranges.emplace_back(e.offsets[0], e.offsets[1]);
  }
  std::sort(ranges.begin(), ranges.end());
  i64 end = 0;
  for (const auto& range : ranges) {
    check(range.first == end, name, ": the tensors' data ",
          range.first < end ? "overlap" : "have a gap", " at byte ", range.first,
          "; write the file again with safetensors");
    end = range.second;
  }
  check(end == size, name, ": ", size - end, " bytes after the last tensor", detail::copy_again);

  Safetensors result;
  for (std::size_t i = 0; i < h.entries.size(); ++i)
    result.tensors.emplace_back(
        h.entries[i].name,
        read_elements(elements[i], data.data() + h.entries[i].offsets[0], shapes[i],
                      str(name, ": tensor \"", printable(h.entries[i].name), "\"")));
  result.metadata = std::move(h.metadata);
  return result;
}

Safetensors read_safetensors(const std::string& path) {
  return parse_safetensors(read_file(path), path);
}

void write_safetensors(const std::string& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata) {
  // Data with wide elements first, so that every tensor is aligned; the header keeps the caller's
  // order.
  std::vector<std::size_t> order(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
    const auto& [name, t] = tensors[i];
    check(t.defined(), path, ": tensor \"", printable(name),
          "\" is undefined and cannot be written; leave it out");
    check(name != "__metadata__", path, ": no tensor can have the name __metadata__; rename it");
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return size_of(tensors[a].second.dtype()) > size_of(tensors[b].second.dtype());
  });
  std::vector<i64> begin(tensors.size());
  i64 end = 0;
  for (const std::size_t i : order) {
    begin[i] = end;
    end += tensors[i].second.bytes();
  }

  std::set<std::string> names;
  std::string header = "{";
  const auto quoted = [&](const std::string& text) {
    check(is_utf8(std::string_view(text)), path, ": a name or a metadata text, \"", printable(text),
          "\", is not valid UTF-8; rename it");
    std::string q = "\"";
    for (const char c : text) {
      constexpr const char* hex = "0123456789abcdef";
      if (c == '"' || c == '\\') q += '\\';
      if (static_cast<u8>(c) >= 0x20)
        q += c;
      else
        ((q += "\\u00") += hex[c >> 4]) += hex[c & 15];
    }
    return q + '"';
  };
  const auto member = [&](const std::string& key) {
    if (header.back() != '{') header += ',';
    header += quoted(key) + ':';
  };
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      member(key);
      header += quoted(value);
    }
    header += '}';
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, t] = tensors[i];
    check(names.insert(name).second, path, ": two tensors have the name \"", printable(name),
          "\"; rename one");
    static constexpr const char* dtypes[] = {"F32", "F64", "BF16", "I64",
                                             "U8"};  // in the order of DType
    member(name);
    header += str("{\"dtype\":\"", dtypes[static_cast<int>(t.dtype())], "\",\"shape\":[");
    for (int a = 0; a < t.rank(); ++a) header += str(a > 0 ? "," : "", t.dim(a));
    header += str("],\"data_offsets\":[", begin[i], ",", begin[i] + t.bytes(), "]}");
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');

  FileWriter file(path);
  const u64 header_size = header.size();
  file.write(&header_size, sizeof header_size);
  file.write(header);
  for (const std::size_t i : order) {
    const Tensor here = tensors[i].second.to(Device::cpu);
    file.write(here.raw(), static_cast<std::size_t>(here.bytes()));
  }
  file.commit();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
