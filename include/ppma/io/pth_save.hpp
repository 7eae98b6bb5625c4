#pragma once
#include "ppma/core/names_begin.hpp"
// Writing checkpoints that PyTorch reads (io/pth.hpp says what is in one).

#include <map>
#include <string>

#include "ppma/io/element.hpp"

namespace ppma::inline PPMA_ABI {

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
#include <string_view>
#include <utility>

#include "ppma/io/utf8.hpp"
#include "ppma/io/zip.hpp"

namespace ppma::inline PPMA_ABI {

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
