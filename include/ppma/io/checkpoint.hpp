#pragma once
// Weights by file: the formats are told apart by content when reading and by ending when writing.
//
// What a training checkpoint calls its weights differs: `model` in the rolling file and in the
// released ones, `models` in best and backup files, `model_ema` for the averaged ones, `state_dict`
// in OpenMMLab's; or the file is the state dict itself. Names may have a prefix: `module.` from
// data-parallel training, `backbone.` from segmentors and detectors.

#include <map>
#include <string>
#include <vector>

#include "ppma/io/pth.hpp"
#include "ppma/io/safetensors.hpp"

namespace ppma::inline PPMA_ABI {

struct WeightOptions {
  /// The entry of a .pth that holds the weights, such as "model_ema". Empty: the first of model,
  /// models, state_dict, model_ema, else the file's own dict.
  std::string entry;
  /// Removed from the front of every name that has it, in this order. {"module."} keeps
  /// `backbone.`, for whole segmentors and detectors.
  std::vector<std::string> strip = {"module.", "backbone."};
};

namespace detail {

// The dict with the weights in a checkpoint.
inline PickleValue weights_of(const PthFile& file, const WeightOptions& options) {
  const PickleValue& root = file.root();
  check(root.is(PickleKind::dict), file.name(), ": holds ", root.describe(),
        root.is(PickleKind::object) ? ", not weights; save its state_dict() instead of the module"
                                    : ", not a dict of weights");
  PickleValue found;
  if (!options.entry.empty()) {
    found = root.find(options.entry);
    if (!found.defined()) {
      std::string keys;
      for (std::size_t i = 0; i < root.size() && keys.size() < 300; ++i)
        if (root.key(i).is(PickleKind::text)) keys += (keys.empty() ? "" : ", ") + std::string(root.key(i).text());
      fail(file.name(), ": no entry \"", options.entry, "\"; there are: ", keys);
    }
  } else {
    for (const char* entry : {"model", "models", "state_dict", "model_ema"})
      if (!found.defined() && root.find(entry).is(PickleKind::dict)) found = root.find(entry);
    if (!found.defined()) found = root;
  }
  check(found.is(PickleKind::dict), file.name(), ": its weights are ", found.describe(),
        ", not a dict; save the state_dict() instead of the module");
  return found;
}

inline TensorMap load_pth_weights(const PthFile& file, const WeightOptions& options) {
  const PickleValue weights = weights_of(file, options);
  std::vector<std::size_t> chosen;
  i64 bytes = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!file.is_tensor(weights.value(i))) continue;  // _extra_state, version numbers and the like
    check(weights.key(i).is(PickleKind::text), file.name(), ": a tensor under ", weights.key(i).describe(),
          " instead of a name");
    const i64 more = file.tensor_bytes(weights.value(i));
    check(more <= file.most_bytes() - bytes, file.name(), ": its tensors share their storages too often: more than ",
          file.most_bytes(), " bytes in a file of ", file.most_bytes() / 16);
    bytes += more;
    chosen.push_back(i);
  }
  check(!chosen.empty() || weights.size() == 0, file.name(), ": no tensors in ", weights.describe(),
        "; name the entry that holds them, or save a module's state_dict()");
  TensorMap tensors;
  for (const std::size_t i : chosen)
    tensors.emplace_back(std::string(weights.key(i).text()), file.tensor(weights.value(i)));
  return tensors;
}

}  // namespace detail

/// The weights in a .pth, .pt or .safetensors file, by name, in the file's order, without the
/// prefixes. float16 becomes f32, other element types as in io/element.hpp; entries that are no
/// tensors are skipped.
inline TensorMap load_weights(const std::string& path, const WeightOptions& options = {}) {
  std::vector<u8> file = read_file(path);
  // safetensors: a header length and a brace. By its name too, so that a damaged one is called
  // that.
  const bool zip = file.size() > 1 && file[0] == 'P' && file[1] == 'K';
  const bool is_safetensors = !zip && ((file.size() > 8 && file[8] == '{') || path.ends_with(".safetensors"));
  TensorMap tensors = is_safetensors ? parse_safetensors(file, path).tensors
                                     : detail::load_pth_weights(PthFile(std::move(file), path), options);
  std::map<std::string_view, int> names;
  for (auto& [name, tensor] : tensors)
    for (const std::string& prefix : options.strip)
      if (name.starts_with(prefix)) name.erase(0, prefix.size());
  for (const auto& entry : tensors)
    check(names.emplace(entry.first, 0).second, path, ": two tensors have the name \"", entry.first,
          "\" (after removing prefixes)");
  return tensors;
}

/// Writes .safetensors, or .pth / .pt as a bare state dict; metadata goes into .safetensors only.
inline void save_weights(const std::string& path, const TensorMap& tensors,
                         const std::map<std::string, std::string>& metadata = {}) {
  if (path.ends_with(".safetensors")) return write_safetensors(path, tensors, metadata);
  check(path.ends_with(".pth") || path.ends_with(".pt"), path, ": its ending should be .safetensors, .pth or .pt");
  save_pth(path, tensors);
}

}  // namespace ppma::inline PPMA_ABI
