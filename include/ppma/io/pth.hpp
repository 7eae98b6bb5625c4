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

  const std::string& name() const { return name_; }
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

  PPMA_API void refuse_others() const;

  // Zip archives that are something else, by their entries' names: before any entry is looked at,
  // as theirs may be compressed.
  PPMA_API void refuse_other_archives(const std::vector<std::string>& names) const;

  // Through the wrappers, to the call that rebuilds the tensor itself.
  PPMA_API static Call call_of(PickleValue value);

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

/// Writes tensors as torch.save would write an OrderedDict of them; torch.load(path,
/// weights_only=True) reads it. With `under`, the file holds {under: OrderedDict} instead ("model"
/// is what the published checkpoints have).
///
/// `metadata` goes into the entry extra/metadata.json, which PyTorch leaves alone and PthFile
/// reads.
PPMA_API void save_pth(const std::string& path, const TensorMap& tensors,
                       const std::string& under = "",
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <nlohmann/json.hpp>

#include "ppma/io/known_files.hpp"
#include "ppma/io/pickle.hpp"

namespace ppma::inline PPMA_ABI {

PthFile::PthFile(std::vector<u8> file, std::string name)
    : file_(std::move(file)), name_(std::move(name)) {
  refuse_others();
  const detail::ZipReader zip(file_, name_);
  refuse_other_archives(zip.names());
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
  struct Unread {
    std::string_view piece;
    const char* reason;
  };
  static constexpr Unread unread[] = {
      {"._rebuild_qtensor", "quantised; save .dequantize() of it"},
      {"._rebuild_sparse", "sparse; save .to_dense() of it"},
      {"._rebuild_nested", "nested; save .to_padded_tensor(0) of it"},
      {"._rebuild_meta_tensor",
       "on the device \"meta\", without elements; save the network itself"},
      {"._rebuild_device_tensor", "on another device; save .cpu() of it"},
      {"._rebuild_wrapper_subclass",
       "of a class of its own, without elements; save a plain tensor"},
      {"torch.distributed",
       "a part of one that is spread over processes; save .full_tensor() of it"},
      {"._shard.", "a part of one that is spread over processes; save it whole"},
      {"multiarray._reconstruct", "an array of NumPy; save torch.from_numpy() of it"},
      {"numeric._frombuffer", "an array of NumPy; save torch.from_numpy() of it"}};
  std::string made_by = value.class_name();
  PickleValue args = value.args();
  for (int wrappers = 0; wrappers < 8; ++wrappers) {
    for (const Unread& u : unread)  // piece by piece: modules have moved
      if (made_by.find(u.piece) != std::string::npos) return u.reason;
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

void PthFile::refuse_others() const {
  check(!file_.empty(), name_, ": an empty file, not a zip archive of torch.save (0 bytes)",
        detail::copy_again);
  static constexpr u8 magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
  const bool legacy = file_.size() >= 14 && file_[0] == 0x80 &&
                      std::equal(magic, magic + sizeof magic, file_.begin() + 2);
  check(!legacy, name_,
        ": written in PyTorch's format of before 1.6, which is not read; convert it with python "
        "-c \"",
        "import torch; torch.save(torch.load('OLD.pth', map_location='cpu', weights_only=False), "
        "'NEW.pth')\"",
        " (only if you trust the file: this executes what is in it)");
  if (file_.size() >= 4 && detail::load<u32>(file_.data()) == 0x04034b50) return;
  const std::string what = detail::known_file(file_);
  check(what.empty(), name_, ": not a checkpoint of torch.save, but ", what);
  fail(name_, ": not a checkpoint of torch.save (", file_.size(), " bytes, no zip archive)",
       detail::copy_again);
}

void PthFile::refuse_other_archives(const std::vector<std::string>& names) const {
  std::string weights;
  bool pickle = false, constants = false, code = false, arrays = false, keras = false,
       package = false, exported = false;
  for (const std::string& n : names) {
    const auto in_folder = [&](std::string_view file) {  // NAME/file
      return n.ends_with(file) && n.size() > file.size() &&
             n.find('/') == n.size() - file.size() - 1;
    };
    pickle = pickle || in_folder("data.pkl");
    constants = constants || in_folder("constants.pkl") || in_folder("model.json");
    code = code || n.find("/code/") != n.npos || n.starts_with("code/");
    arrays = arrays || n.ends_with(".npy");
    keras = keras || n.ends_with(".weights.h5");
    package = package || n.find(".data/extern_modules") != n.npos;
    exported = exported || in_folder("archive_format") ||
               in_folder("serialized_exported_program.json") ||
               n == "serialized_exported_program.json";
    for (const char* ending : {".pth", ".pt", ".safetensors", ".bin", ".ckpt"})
      if (weights.empty() && n.ends_with(ending)) weights = n;
  }
  check(!package, name_,
        ": a package of torch.package, not a checkpoint; load it in Python and save the module's "
        "state_dict() with torch.save");
  check(!exported, name_,
        ": a program of torch.export, not a checkpoint; save torch.export.load('IN').state_dict "
        "with torch.save");
  check(!constants && (!code || pickle), name_,
        ": a TorchScript program, not a checkpoint; save the module's state_dict() with "
        "torch.save: torch.save(torch.jit.load('IN', map_location='cpu').state_dict(), 'OUT.pth')");
  check(pickle || !arrays, name_,
        ": arrays of NumPy (.npz), not a checkpoint of torch.save; write them with "
        "safetensors.numpy.save_file(dict(numpy.load('IN')), 'OUT.safetensors')");
  check(pickle || !keras, name_,
        ": a Keras network, not a checkpoint of torch.save; write its arrays with "
        "safetensors.numpy.save_file");
  check(pickle || weights.empty(), name_, ": a zip archive around \"", printable(weights),
        "\", not a checkpoint of torch.save; unpack it and give that file");
}

PthFile::Call PthFile::call_of(PickleValue value) {
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

namespace detail {

// The pickle of an OrderedDict of tensors, optionally under a key of an outer dict, in protocol 2.
class PthPickle {
 public:
  std::string of(const TensorMap& tensors, const std::string& under) {
    out_ = "\x80\x02";
    if (!under.empty()) {
      out_ += "}(";
      text(under);
    }
    out_ += "ccollections\nOrderedDict\n)R(";
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      text(tensors[i].first);
      tensor(tensors[i].second, std::to_string(i));
    }
    out_ += under.empty() ? "u." : "uu.";
    return std::move(out_);
  }

 private:
  void tensor(const Tensor& t, const std::string& key) {
    static constexpr const char* storages[] = {"Float", "Double", "BFloat16", "Long",
                                               "Byte"};  // in the order of DType
    out_ += "ctorch._utils\n_rebuild_tensor_v2\n((";
    text("storage");
    out_ += str("ctorch\n", storages[static_cast<int>(t.dtype())], "Storage\n");
    text(key);
    text("cpu");
    integer(t.numel());
    out_ += "tQ";
    integer(0);
    out_ += '(';
    for (const i64 n : t.shape()) integer(n);
    out_ += "t(";
    for (int a = 0; a < t.rank(); ++a) {
      i64 stride = 1;
      for (int b = a + 1; b < t.rank(); ++b) stride *= t.dim(b) > 0 ? t.dim(b) : 1;
      integer(stride);
    }
    out_ +=
        "t\x89"
        "ccollections\nOrderedDict\n)RtR";  // requires_grad, no hooks
  }
  void text(const std::string& s) {
    out_ += 'X';
    little_endian(s.size(), 4);
    out_ += s;
  }
  void integer(i64 n) {
    const bool small = n < (i64{1} << 31);
    out_ += small ? "J" : "\x8a\x08";
    little_endian(static_cast<u64>(n), small ? 4 : 8);
  }
  void little_endian(u64 value, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 255);
  }
  std::string out_;
};

}  // namespace detail

void save_pth(const std::string& path, const TensorMap& tensors, const std::string& under,
              const std::map<std::string, std::string>& metadata) {
  std::map<std::string_view, int> names;
  for (const auto& [name, t] : tensors) {
    check(t.defined(), path, ": tensor \"", printable(name),
          "\" is undefined and cannot be written; leave it out");
    check(names.emplace(name, 0).second, path, ": two tensors have the name \"", printable(name),
          "\"; rename one");
    check(is_utf8(std::string_view(name)), path, ": a tensor's name, \"", printable(name),
          "\", is not valid UTF-8; rename it");
  }
  for (const auto& [key, value] : metadata)
    check(is_utf8(std::string_view(key)) && is_utf8(std::string_view(value)), path, ": metadata \"",
          printable(key), "\" is not valid UTF-8; leave it out");
  ZipWriter zip(path);
  zip.add("archive/data.pkl", detail::PthPickle().of(tensors, under));
  zip.add("archive/byteorder", "little");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor t = tensors[i].second.to(Device::cpu);
    zip.add("archive/data/" + std::to_string(i),
            Bytes(static_cast<const u8*>(t.raw()), static_cast<std::size_t>(t.bytes())));
  }
  if (!metadata.empty()) zip.add("archive/extra/metadata.json", nlohmann::json(metadata).dump());
  zip.add("archive/version", "3\n");
  zip.commit();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
