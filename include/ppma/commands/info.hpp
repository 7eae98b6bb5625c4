#pragma once
#include "ppma/core/names_begin.hpp"
// What is in a weights file or a checkpoint.

#include <map>
#include <string>
#include <vector>

#include "ppma/io/checkpoint.hpp"

namespace ppma::inline PPMA_ABI {

/// Which file.
struct InfoOptions {
  std::string file{};   // path: .safetensors, .pth or .pt
  std::string entry{};  // of a .pth, such as model_ema; or part of a checkpoint: model, ema
};

/// A tensor that has values which are inf or NaN, and how many.
struct NotFinite {
  std::string name;
  i64 values = 0;
};

/// All of a file, or of its entry.
struct WeightsInfo {
  TensorMap tensors{};  // in the file's order
  std::map<std::string, std::string> metadata{};
  std::vector<LeftOut> left_out{};  // what is no tensor, and what lies beside the weights
  i64 elements = 0, bytes = 0;      // of all tensors
  std::vector<NotFinite> not_finite{};
};

/// Reads it. Without an entry a .safetensors is told as it is, with every part of a training
/// checkpoint. Errors: as read_safetensors() and weights_of_file().
PPMA_API WeightsInfo weights_info(const InfoOptions& o);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <utility>

#include "ppma/commands/network.hpp"
#include "ppma/core/error.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/nn/state_dict.hpp"

namespace ppma::inline PPMA_ABI {

WeightsInfo weights_info(const InfoOptions& o) {
  check(!o.file.empty(), "info: needs `file`");
  WeightsInfo info;
  if (is_safetensors(o.file) && o.entry.empty()) {
    Safetensors all = read_safetensors(o.file);
    info.tensors = std::move(all.tensors), info.metadata = std::move(all.metadata);
  } else {
    WeightsOfFile file = weights_of_file(o.file, {.entry = o.entry});
    info.tensors = std::move(file.tensors), info.metadata = std::move(file.metadata);
    info.left_out = std::move(file.left_out);
    info.left_out.insert(info.left_out.end(), file.beside.begin(), file.beside.end());
  }
  for (const auto& [name, t] : info.tensors) {
    info.elements += t.numel(), info.bytes += t.bytes();
    if (const i64 n = detail::count_not_finite(t); n > 0) info.not_finite.push_back({name, n});
  }
  return info;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
