#pragma once
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
#include <utility>
#include <vector>

#include "ppma/io/pickle.hpp"
#include "ppma/io/zip.hpp"

namespace ppma::inline PPMA_ABI {

/// An open checkpoint: the pickled value, and the tensors in it.
class PthFile {
 public:
  /// Takes a whole file; `name` is what errors call it. Checks the archive and reads the pickle,
  /// but no tensor.
  PthFile(std::vector<u8> file, std::string name) : file_(std::move(file)), name_(std::move(name)) {
    refuse_legacy();
    entries_ = parse_zip(file_, name_);
    constexpr std::string_view pickle = "/data.pkl";
    for (const auto& entry : entries_)
      if (entry.first.ends_with(pickle) && entry.first.find('/') == entry.first.size() - pickle.size()) {
        check(folder_.empty(), name_, ": two pickles, ", folder_, "data.pkl and ", entry.first);
        folder_ = entry.first.substr(0, entry.first.size() - pickle.size() + 1);
      }
    check(!folder_.empty(), name_, ": a zip archive without data.pkl, so not written by torch.save");
    check(!entries_.contains(folder_ + "constants.pkl"), name_,
          ": a TorchScript program, not a checkpoint; save the module's state_dict() with "
          "torch.save");
    if (const auto order = entries_.find(folder_ + "byteorder"); order != entries_.end())
      check(std::string(order->second.begin(), order->second.end()) == "little", name_,
            ": written on a big-endian machine, which is not read");
    const Bytes pickled = entries_.find(folder_ + "data.pkl")->second;
    root_ = parse_pickle({pickled.begin(), pickled.end()}, name_);
  }

  PthFile(PthFile&&) = default;
  PthFile& operator=(PthFile&&) = default;

  const std::string& name() const { return name_; }
  const PickleValue& root() const { return root_; }

  /// True if the value is one of the calls that rebuild a dense tensor.
  bool is_tensor(const PickleValue& value) const { return call_of(value).args.defined(); }

  /// Bytes that tensor(value) will have in memory.
  i64 tensor_bytes(const PickleValue& value) const {
    const View v = view_of(value);
    return v.shape.numel() * size_of(kept_as(v.element));
  }

  /// The tensor that a value stands for, row-major whatever its strides in the file were.
  /// Throws Error if it is none, reaches outside of its storage, or is of a dtype that is not read.
  Tensor tensor(const PickleValue& value) const {
    const View v = view_of(value);
    const i64 bytes = v.shape.numel() * size_of(kept_as(v.element));
    check(bytes <= most_bytes(), name_, ": a tensor of shape ", v.shape, " repeats a small storage to ", bytes,
          " bytes; save .clone() of it");
    if (is_contiguous(v)) return read_elements(v.element, v.begin, v.shape);
    return read_elements(v.element, v.begin, v.shape, v.strides);
  }

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

  void refuse_legacy() const {
    static constexpr u8 magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    const bool legacy =
        file_.size() >= 14 && file_[0] == 0x80 && std::equal(magic, magic + sizeof magic, file_.begin() + 2);
    check(!legacy, name_,
          ": written in PyTorch's format of before 1.6, which is not read; convert it with python "
          "-c \"",
          "import torch; torch.save(torch.load('OLD.pth', map_location='cpu', weights_only=False), "
          "'NEW.pth')\"",
          " (only if you trust the file: this executes what is in it)");
    check(file_.size() < 4 || load_magic() == 0x04034b50, name_, ": not a checkpoint of torch.save (no zip archive)");
  }
  u32 load_magic() const { return detail::load<u32>(file_.data()); }

  // Through the wrappers, to the call that rebuilds the tensor itself.
  static Call call_of(PickleValue value) {
    if (!value.is(PickleKind::object)) return {};
    Call call{value.class_name(), value.args()};
    for (int wrappers = 0; wrappers < 8; ++wrappers) {
      const auto arg = [&](std::size_t i) { return i < call.args.size() ? call.args.item(i) : PickleValue(); };
      if (!call.args.is(PickleKind::tuple)) return {};
      if (call.function == "torch._utils._rebuild_tensor_v2" || call.function == "torch._utils._rebuild_tensor" ||
          call.function == "torch._utils._rebuild_tensor_v3")
        return call;
      if (call.function == "torch._utils._rebuild_parameter" ||
          call.function == "torch._utils._rebuild_parameter_with_state") {
        const PickleValue data = arg(0);
        if (!data.is(PickleKind::object)) return {};
        call = {data.class_name(), data.args()};
      } else if (call.function == "torch._tensor._rebuild_from_type_v2") {  // (function, class, args, state)
        const PickleValue function = arg(0), args = arg(2);
        if (!function.is(PickleKind::global)) return {};
        call = {function.class_name(), args};
      } else {
        return {};
      }
    }
    return {};
  }

  View view_of(const PickleValue& value) const {
    const Call call = call_of(value);
    check(call.args.defined(), name_, ": ", value.describe(), " is not a tensor that is read");
    const bool v3 = call.function == "torch._utils._rebuild_tensor_v3";
    check(call.args.size() >= (v3 ? 7u : 4u), name_, ": ", call.function, " with ", call.args.size(), " arguments");
    const auto arg = [&](std::size_t i) { return call.args.item(i); };

    // ("storage", torch.FloatStorage, key, location, number of elements)
    check(arg(0).is(PickleKind::persistent), name_, ": a tensor without a storage (", arg(0).describe(), ")");
    const PickleValue id = arg(0).args();
    check(id.is(PickleKind::tuple) && id.size() >= 5 && id.item(0).is(PickleKind::text) &&
              id.item(0).text() == "storage" && id.item(2).is(PickleKind::text),
          name_, ": a tensor's storage is described in an unknown way");
    const std::string key(id.item(2).text());
    const auto entry = entries_.find(folder_ + "data/" + key);
    check(entry != entries_.end(), name_, ": a tensor's storage data/", key, " is not in the file");

    View v;
    v.element = v3 ? element_of_dtype(arg(6).class_name()) : element_of_storage(id.item(1).class_name());
    const i64 size = size_of(v.element), unit = v3 ? 1 : size;  // an untyped storage counts bytes
    const i64 counted = id.item(4).integer(), stored = static_cast<i64>(entry->second.size());
    check(counted >= 0 && counted <= stored / unit, name_, ": storage data/", key, " should have ", counted,
          " elements, but has ", stored, " bytes");
    const i64 elements = counted * unit / size;

    const i64 offset = arg(1).integer();
    const PickleValue sizes = arg(2), strides = arg(3);
    check(sizes.is(PickleKind::tuple) && strides.is(PickleKind::tuple) && sizes.size() == strides.size() &&
              sizes.size() <= Shape::max_rank,
          name_, ": a tensor in data/", key, " needs sizes and strides, at most ", Shape::max_rank, " of each");
    std::vector<i64> dims;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      dims.push_back(sizes.item(i).integer());
      v.strides[i] = strides.item(i).integer();
    }
    v.shape = Shape(dims);

    // The last element must be inside of the storage; all others then are, as no step is negative.
    bool inside = offset >= 0 && offset <= elements;
    i64 last = offset;
    for (std::size_t i = 0; i < dims.size() && v.shape.numel() > 0; ++i) {
      i64 reach = 0;
      inside = inside && v.strides[i] >= 0 && !__builtin_mul_overflow(v.strides[i], dims[i] - 1, &reach) &&
               !__builtin_add_overflow(last, reach, &last);
    }
    check(inside && (v.shape.numel() == 0 || last < elements), name_, ": a tensor of shape ", v.shape, " at element ",
          offset, " reaches outside of its storage data/", key, " of ", elements, " elements");
    i64 bytes = 0;
    check(!__builtin_mul_overflow(v.shape.numel(), i64{8}, &bytes), name_, ": a tensor of shape ", v.shape,
          " is too large");
    v.begin = entry->second.data() + offset * size;
    return v;
  }

  static bool is_contiguous(const View& v) {
    i64 step = 1;
    for (int a = v.shape.rank() - 1; a >= 0; --a) {
      if (v.shape[a] != 1 && v.strides[a] != step) return false;
      step *= v.shape[a];
    }
    return true;
  }

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

  Element element_of_storage(const std::string& type) const {
    for (const auto& t : types_)
      if (type == t.storage) return t.element;
    fail(name_, ": a tensor of ", type, ", which is not read; convert it with .float() before saving");
  }
  Element element_of_dtype(const std::string& type) const {
    for (const auto& t : types_)
      if (type == t.dtype) return t.element;
    fail(name_, ": a tensor of ", type, ", which is not read; convert it with .float() before saving");
  }

  std::vector<u8> file_;
  std::string name_, folder_;  // "archive/"
  ZipEntries entries_;         // pointing into file_
  PickleValue root_;
};

/// Opens a checkpoint written by torch.save.
inline PthFile read_pth(const std::string& path) { return PthFile(read_file(path), path); }

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
    static constexpr const char* storages[] = {"Float", "Double", "BFloat16", "Long", "Byte"};  // in the order of DType
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

/// Writes tensors as torch.save would write an OrderedDict of them; torch.load(path,
/// weights_only=True) reads it. With `under`, the file holds {under: OrderedDict} instead ("model"
/// is what the published checkpoints have).
inline void save_pth(const std::string& path, const TensorMap& tensors, const std::string& under = "") {
  std::map<std::string_view, int> names;
  for (const auto& [name, t] : tensors) {
    check(t.defined(), path, ": tensor \"", name, "\" is undefined and cannot be written");
    check(names.emplace(name, 0).second, path, ": two tensors have the name \"", name, "\"");
    check(is_utf8(std::string_view(name)), path, ": a tensor's name is not valid UTF-8");
  }
  ZipWriter zip(path);
  zip.add("archive/data.pkl", detail::PthPickle().of(tensors, under));
  zip.add("archive/byteorder", "little");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor t = tensors[i].second.to(Device::cpu);
    zip.add("archive/data/" + std::to_string(i),
            Bytes(static_cast<const u8*>(t.raw()), static_cast<std::size_t>(t.bytes())));
  }
  zip.add("archive/version", "3\n");
  zip.commit();
}

}  // namespace ppma::inline PPMA_ABI
