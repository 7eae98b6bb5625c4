#pragma once
#include "ppma/core/names_begin.hpp"
// Weights in the other format.

#include <string>

#include "ppma/commands/network.hpp"

namespace ppma::inline PPMA_ABI {

/// What is copied where.
struct ConvertOptions {
  std::string in, out;  // paths: .safetensors, .pth or .pt
  std::string entry{};  // of a .pth, such as model_ema; or part of a checkpoint: model, ema
  std::string under{};  // key of a dict that a .pth then holds the weights under; "": none
};

/// Copies weights into the format that the ending of `out` names. Names lose the wrappers' prefixes
/// alone: what stays is the network's own. Whatever is not copied is noted. Returns what was read.
/// Errors: as weights_of_file() and save_weights().
PPMA_API WeightsOfFile convert_weights(const ConvertOptions& o, Observer& observer = nobody());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

WeightsOfFile convert_weights(const ConvertOptions& o, Observer& observer) {
  WeightsOfFile file = read_weights(o.in, o.entry, observer, {"module.", "_orig_mod."});
  save_weights(o.out, file.tensors, file.metadata, o.under);
  if (!file.beside.empty())
    detail::note(observer, o.in, ": not copied, beside the weights: ", listed(file.beside));
  if (file.metadata.empty() || is_safetensors(o.out)) return file;
  std::string names;
  for (const auto& m : file.metadata) names += (names.empty() ? "" : ", ") + printable(m.first);
  detail::note(observer, o.out, ": ", names,
               " kept in its entry extra/metadata.json, which ppma reads and PyTorch does not");
  return file;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
