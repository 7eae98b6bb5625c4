#pragma once
#include "ppma/core/names_begin.hpp"
// Checkpoints of PyTorch: a zip archive with one pickle, NAME/data.pkl, and the raw elements of
// each storage, NAME/data/0, 1, ... Written by torch.save from PyTorch 1.6 on, read here without
// executing anything (io/pickle.hpp).
//
// A tensor is the call torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...), and is
// understood as such, also inside _rebuild_parameter, _rebuild_parameter_with_state and
// _rebuild_from_type_v2, and as _rebuild_tensor (old) or _rebuild_tensor_v3 (newest). Everything
// else in the file stays an opaque value. Tensors become real only when they are asked for: a
// training checkpoint holds the weights four times, and usually one is wanted.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ppma/io/pickle_value.hpp"
#include "ppma/io/utf8.hpp"
#include "ppma/io/zip.hpp"

namespace ppma::inline PPMA_ABI {

/// An open checkpoint: the pickled value, and the tensors in it.
class PthFile {
 public:
  /// Takes a whole file; `name` is what errors call it. Checks the archive and reads the pickle,
  /// but no tensor.
  PPMA_API PthFile(std::vector<u8> file, std::string name);

  PthFile(PthFile&&) = default;
  PthFile& operator=(PthFile&&) = default;

  /// The file's name.
  const std::string& name() const { return name_; }
  /// What was saved: mostly a dict.
  const PickleValue& root() const { return root_; }

  /// What save_pth was given to keep beside the tensors: names and texts.
  PPMA_API std::map<std::string, std::string> metadata() const;

  /// The contents of NAME/`entry`, or "".
  PPMA_API std::string entry(const std::string& entry) const;

  /// True if the value is one of the calls that rebuild a dense tensor.
  bool is_tensor(const PickleValue& value) const { return call_of(value).args.defined(); }

  /// Bytes that tensor(value) will have in memory.
  PPMA_API i64 tensor_bytes(const PickleValue& value, std::string_view called = "") const;

  /// Why a value that PyTorch would make a tensor (or an array) of is not read, and what to do; ""
  /// for all others.
  PPMA_API std::string unread_reason(const PickleValue& value) const;

  /// The tensor that a value stands for, row-major whatever its strides in the file were; `called`
  /// is its name, for errors. Throws Error if it is none, reaches outside of its storage, or is of
  /// a dtype that is not read.
  PPMA_API Tensor tensor(const PickleValue& value, std::string_view called = "") const;

  /// Tensors larger than this, in all, can only come from a few bytes repeated many times (strides
  /// of 0, one storage in many tensors): reading int8 as int64 takes eight times the file.
  i64 most_bytes() const { return 16 * static_cast<i64>(file_.size()) + (i64{1} << 20); }

 private:
  struct Call {
    std::string function;
    PickleValue args;  // undefined: the value rebuilds no tensor
  };
  struct View {
    Element element = Element::f32;
    const u8* begin = nullptr;  // of its first element
    Shape shape;
    i64 strides[Shape::max_rank] = {};
  };

  static std::string a_tensor(std::string_view called) {
    return called.empty() ? "a tensor" : str("tensor \"", printable(called), "\"");
  }

  // Through the wrappers, to the call that rebuilds the tensor itself.
  PPMA_API static Call call_of(const PickleValue& value);

  PPMA_API View view_of(const PickleValue& value, std::string_view called) const;

  PPMA_API static bool is_contiguous(const View& v);

  struct TypeNames {
    const char *storage, *dtype;
    Element element;
  };
  static constexpr TypeNames types_[] = {{"torch.FloatStorage", "torch.float32", Element::f32},
                                         {"torch.DoubleStorage", "torch.float64", Element::f64},
                                         {"torch.HalfStorage", "torch.float16", Element::f16},
                                         {"torch.BFloat16Storage", "torch.bfloat16", Element::bf16},
                                         {"torch.LongStorage", "torch.int64", Element::int64},
                                         {"torch.IntStorage", "torch.int32", Element::int32},
                                         {"torch.ShortStorage", "torch.int16", Element::int16},
                                         {"torch.CharStorage", "torch.int8", Element::int8},
                                         {"torch.ByteStorage", "torch.uint8", Element::uint8},
                                         {"torch.BoolStorage", "torch.bool", Element::boolean},
                                         {"", "torch.uint16", Element::uint16},
                                         {"", "torch.uint32", Element::uint32},
                                         {"", "torch.uint64", Element::uint64}};

  PPMA_API static Element element_of(const std::string& type, bool dtype, const std::string& where);

  std::vector<u8> file_;
  std::string name_, folder_;  // "archive/"
  ZipEntries entries_;         // pointing into file_
  PickleValue root_;
};

/// Opens a checkpoint written by torch.save.
PPMA_API PthFile read_pth(const std::string& path);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <nlohmann/json.hpp>

#include "ppma/io/pickle.hpp"
#include "ppma/io/pth_refused.hpp"

namespace ppma::inline PPMA_ABI {

PthFile::PthFile(std::vector<u8> file, std::string name)
    : file_(std::move(file)), name_(std::move(name)) {
  detail::refuse_other_files(file_, name_);
  const detail::ZipReader zip(file_, name_);
  detail::refuse_other_archives(zip.names(), name_);
  entries_ = zip.entries();
  constexpr std::string_view pickle = "/data.pkl";
  for (const auto& entry : entries_)
    if (entry.first.ends_with(pickle) &&
        entry.first.find('/') == entry.first.size() - pickle.size()) {
      check(folder_.empty(), name_, ": two pickles, ", printable(folder_), "data.pkl and ",
            printable(entry.first), "; unpack the archive and keep one of its folders");
      folder_ = entry.first.substr(0, entry.first.size() - pickle.size() + 1);
    }
  check(!folder_.empty(), name_,
        ": a zip archive without data.pkl, so not written by torch.save; if there are weights in "
        "it, unpack it");
  if (const std::string order = entry("byteorder"); !order.empty())
    check(order == "little", name_, ": written on a big-endian machine (byteorder ",
          printable(order),
          "), which is not read; load and save it with PyTorch on a little-endian one");
  if (const std::string version = entry("version"); !version.empty()) {
    i64 n = 0;
    for (std::size_t i = 0;
         i < version.size() && version[i] >= '0' && version[i] <= '9' && n < 1000; ++i)
      n = 10 * n + (version[i] - '0');
    check(n >= 1 && n <= 10, name_, ": version ", printable(version, 12),
          " of PyTorch's format, of which 1 to 10 are read; load and save it with a PyTorch that "
          "reads it");
  }
  const Bytes pickled = entries_.find(folder_ + "data.pkl")->second;
  root_ = parse_pickle({pickled.begin(), pickled.end()}, name_);
}

std::map<std::string, std::string> PthFile::metadata() const {
  std::map<std::string, std::string> found;
  const std::string text = entry("extra/metadata.json");
  if (text.empty()) return found;
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  check(json.is_object(), name_, ": extra/metadata.json is not a JSON object", detail::copy_again);
  for (const auto& [key, value] : json.items()) {
    check(value.is_string(), name_, ": extra/metadata.json: \"", printable(key), "\" is not a text",
          detail::copy_again);
    found[key] = value.get<std::string>();
  }
  return found;
}

std::string PthFile::entry(const std::string& entry) const {
  const auto found = entries_.find(folder_ + entry);
  return found == entries_.end() ? "" : std::string(detail::as_text(found->second));
}

i64 PthFile::tensor_bytes(const PickleValue& value, std::string_view called) const {
  const View v = view_of(value, called);
  return v.shape.numel() * size_of(kept_as(v.element));
}

std::string PthFile::unread_reason(const PickleValue& value) const {
  if (!value.is(PickleKind::object)) return "";
  std::string made_by = value.class_name();
  PickleValue args = value.args();
  for (int wrappers = 0; wrappers < 8; ++wrappers) {
    if (const char* reason = detail::unread_function(made_by)) return reason;
    const bool typed = made_by == "torch._tensor._rebuild_from_type_v2";
    if (!typed && made_by.find("._rebuild_parameter") == std::string::npos) break;
    if (!args.is(PickleKind::tuple) || args.size() < (typed ? 3u : 1u)) break;
    const PickleValue inner = args.item(0);
    if (!inner.is(typed ? PickleKind::global : PickleKind::object)) break;
    made_by = inner.class_name();
    args = typed ? args.item(2) : inner.args();
  }
  if (is_tensor(value) || !args.is(PickleKind::tuple)) return "";
  for (std::size_t i = 0; i < args.size(); ++i)
    if (args.item(i).is(PickleKind::persistent) || is_tensor(args.item(i)))
      return str("made by ", printable(made_by), ", which is not known; save a plain tensor");
  return "";
}

Tensor PthFile::tensor(const PickleValue& value, std::string_view called) const {
  const View v = view_of(value, called);
  const i64 bytes = v.shape.numel() * size_of(kept_as(v.element));
  check(bytes <= most_bytes(), name_, ": ", a_tensor(called), " of shape ", v.shape,
        " repeats a small storage to ", bytes, " bytes; save .clone() of it");
  const std::string where = str(name_, ": ", a_tensor(called));
  if (is_contiguous(v)) return read_elements(v.element, v.begin, v.shape, where);
  return read_elements(v.element, v.begin, v.shape, v.strides, where);
}

PthFile::Call PthFile::call_of(const PickleValue& value) {
  if (!value.is(PickleKind::object)) return {};
  Call call{value.class_name(), value.args()};
  for (int wrappers = 0; wrappers < 8; ++wrappers) {
    const auto arg = [&](std::size_t i) {
      return i < call.args.size() ? call.args.item(i) : PickleValue();
    };
    if (!call.args.is(PickleKind::tuple)) return {};
    if (call.function == "torch._utils._rebuild_tensor_v2" ||
        call.function == "torch._utils._rebuild_tensor" ||
        call.function == "torch._utils._rebuild_tensor_v3")
      return call;
    if (call.function == "torch._utils._rebuild_parameter" ||
        call.function == "torch._utils._rebuild_parameter_with_state") {
      const PickleValue data = arg(0);
      if (!data.is(PickleKind::object)) return {};
      call = {data.class_name(), data.args()};
    } else if (call.function ==
               "torch._tensor._rebuild_from_type_v2") {  // (function, class, args, state)
      const PickleValue function = arg(0), args = arg(2);
      if (!function.is(PickleKind::global)) return {};
      call = {function.class_name(), args};
    } else {
      return {};
    }
  }
  return {};
}

PthFile::View PthFile::view_of(const PickleValue& value, std::string_view called) const {
  const std::string where = str(name_, ": ", a_tensor(called));
  const Call call = call_of(value);
  if (const std::string reason = unread_reason(value); !reason.empty())
    fail(name_, ": ", value.describe(), " is not a tensor that is read: it is ", reason);
  check(call.args.defined(), name_, ": ", value.describe(),
        " is not a tensor that is read; save a plain tensor");
  const bool v2 = call.function == "torch._utils._rebuild_tensor_v2",
             v3 = call.function == "torch._utils._rebuild_tensor_v3";
  const std::size_t fewest = v3 ? 7 : v2 ? 6 : 4, most = v3 ? 8 : v2 ? 7 : 4;
  check(call.args.size() >= fewest && call.args.size() <= most, where, ": ", call.function,
        " with ", call.args.size(), " arguments, not ", fewest, detail::copy_again);
  const auto arg = [&](std::size_t i) { return call.args.item(i); };
  const auto whole = [&](const PickleValue& v, const char* what) {
    check(v.is(PickleKind::integer), where, ": its ", what, " is ", v.describe(),
          ", not a whole number", detail::copy_again);
    return v.integer();
  };

  // The last argument of newer files: whether the elements are to be negated or conjugated.
  if (call.args.size() == most && most > 4)
    for (const char* turned : {"neg", "conj"})
      if (const PickleValue on = arg(most - 1).find(turned); on.is(PickleKind::boolean))
        check(!on.boolean(), where, " is a view with the sign turned (", turned,
              "), which is not read; save .resolve_neg().resolve_conj() of it");

  // ("storage", torch.FloatStorage, key, location, number of elements)
  check(arg(0).is(PickleKind::persistent), where, " without a storage (", arg(0).describe(), ")",
        detail::copy_again);
  const PickleValue id = arg(0).args();
  check(id.is(PickleKind::tuple) && id.size() == 5 && id.item(0).is(PickleKind::text) &&
            id.item(0).text() == "storage" && id.item(1).is(PickleKind::global) &&
            id.item(2).is(PickleKind::text),
        where, ": its storage is described in an unknown way", detail::copy_again);
  const std::string key(id.item(2).text());
  const auto entry = entries_.find(folder_ + "data/" + key);
  check(entry != entries_.end(), where, ": its storage data/", printable(key),
        " is not in the file", detail::copy_again);

  View v;
  if (v3)
    check(arg(6).is(PickleKind::global), where, ": its dtype is ", arg(6).describe(),
          detail::copy_again);
  v.element = element_of(v3 ? arg(6).class_name() : id.item(1).class_name(), v3, where);
  const i64 size = size_of(v.element), unit = v3 ? 1 : size;  // an untyped storage counts bytes
  const i64 counted = whole(id.item(4), "number of elements"),
            stored = static_cast<i64>(entry->second.size());
  check(counted >= 0 && counted <= stored / unit, where, ": storage data/", printable(key),
        " should have ", counted, " elements, but has ", stored, " bytes", detail::copy_again);
  const i64 elements = counted * unit / size;

  const i64 offset = whole(arg(1), "offset");
  const PickleValue sizes = arg(2), strides = arg(3);
  check(sizes.is(PickleKind::tuple) && strides.is(PickleKind::tuple) &&
            sizes.size() == strides.size() && sizes.size() <= Shape::max_rank,
        where, " in data/", printable(key), " needs sizes and strides, at most ", Shape::max_rank,
        " of each; reshape it before saving");
  std::vector<i64> dims;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    dims.push_back(whole(sizes.item(i), "size"));
    v.strides[i] = whole(strides.item(i), "stride");
  }
  v.shape = shape_of(dims, where);

  // The last element must be inside of the storage; all others then are, as no step is negative.
  const bool none = v.shape.numel() == 0;
  bool inside = offset >= 0 && offset <= elements;
  i64 last = offset;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    i64 reach = 0;
    inside = inside && v.strides[i] >= 0;
    if (!none)
      inside = inside && !__builtin_mul_overflow(v.strides[i], dims[i] - 1, &reach) &&
               !__builtin_add_overflow(last, reach, &last);
  }
  check(inside && (none || last < elements), where, " of shape ", v.shape, " at element ", offset,
        " reaches outside of its storage data/", printable(key), " of ", elements, " elements",
        detail::copy_again);
  i64 bytes = 0;
  check(!__builtin_mul_overflow(v.shape.numel(), i64{8}, &bytes), where, " of shape ", v.shape,
        " is too large; save .clone() of it");
  v.begin = entry->second.data() + offset * size;
  return v;
}

bool PthFile::is_contiguous(const View& v) {
  i64 step = 1;
  for (int a = v.shape.rank() - 1; a >= 0; --a) {
    if (v.shape[a] != 1 && v.strides[a] != step) return false;
    step *= v.shape[a];
  }
  return true;
}

Element PthFile::element_of(const std::string& type, bool dtype, const std::string& where) {
  for (const auto& t : types_)
    if (type == (dtype ? t.dtype : t.storage)) return t.element;
  const bool complex = type.find("omplex") != std::string::npos,
             quantised = type.find("torch.Q") == 0;
  fail(where, " of ", printable(type), ", which is not read; ",
       complex     ? "save torch.view_as_real() of it"
       : quantised ? "save .dequantize() of it"
                   : "convert it with .float() before saving");
}

PthFile read_pth(const std::string& path) { return PthFile(read_file(path), path); }

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
