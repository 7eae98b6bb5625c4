#pragma once
#include "ppma/core/names_begin.hpp"
// What is not read where a checkpoint of PyTorch is expected, told by what it is, and what to do.

#include <string>
#include <vector>

#include "ppma/core/error.hpp"
#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Error: the file is no zip archive; what else it is.
PPMA_API void refuse_other_files(Bytes file, const std::string& name);

/// Error: a zip archive that is something else, by its entries' names: to be asked before any entry
/// is looked at, as theirs may be compressed.
PPMA_API void refuse_other_archives(const std::vector<std::string>& names, const std::string& name);

/// Why a value that this function of PyTorch or NumPy makes is not read, and what to do; null for
/// functions that nothing is known against.
PPMA_API const char* unread_function(const std::string& made_by);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <string_view>

#include "ppma/io/element.hpp"
#include "ppma/io/known_files.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

void refuse_other_files(Bytes file, const std::string& name) {
  check(!file.empty(), name, ": an empty file, not a zip archive of torch.save (0 bytes)",
        copy_again);
  static constexpr u8 magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
  const bool legacy = file.size() >= 14 && file[0] == 0x80 &&
                      std::equal(magic, magic + sizeof magic, file.begin() + 2);
  check(!legacy, name,
        ": written in PyTorch's format of before 1.6, which is not read; convert it with python "
        "-c \"",
        "import torch; torch.save(torch.load('OLD.pth', map_location='cpu', weights_only=False), "
        "'NEW.pth')\"",
        " (only if you trust the file: this executes what is in it)");
  if (file.size() >= 4 && load<u32>(file.data()) == 0x04034b50) return;
  const std::string what = known_file(file);
  check(what.empty(), name, ": not a checkpoint of torch.save, but ", what);
  fail(name, ": not a checkpoint of torch.save (", file.size(), " bytes, no zip archive)",
       copy_again);
}

void refuse_other_archives(const std::vector<std::string>& names, const std::string& name) {
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
  check(!package, name,
        ": a package of torch.package, not a checkpoint; load it in Python and save the module's "
        "state_dict() with torch.save");
  check(!exported, name,
        ": a program of torch.export, not a checkpoint; save torch.export.load('IN').state_dict "
        "with torch.save");
  check(!constants && (!code || pickle), name,
        ": a TorchScript program, not a checkpoint; save the module's state_dict() with "
        "torch.save: torch.save(torch.jit.load('IN', map_location='cpu').state_dict(), 'OUT.pth')");
  check(pickle || !arrays, name,
        ": arrays of NumPy (.npz), not a checkpoint of torch.save; write them with "
        "safetensors.numpy.save_file(dict(numpy.load('IN')), 'OUT.safetensors')");
  check(pickle || !keras, name,
        ": a Keras network, not a checkpoint of torch.save; write its arrays with "
        "safetensors.numpy.save_file");
  check(pickle || weights.empty(), name, ": a zip archive around \"", printable(weights),
        "\", not a checkpoint of torch.save; unpack it and give that file");
}

const char* unread_function(const std::string& made_by) {
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
  for (const Unread& u : unread)  // piece by piece: modules have moved
    if (made_by.find(u.piece) != std::string::npos) return u.reason;
  return nullptr;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
