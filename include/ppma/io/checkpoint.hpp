#pragma once
#include "ppma/core/names_begin.hpp"
// Weights by file: the formats are told apart by content when reading and by ending when writing.
//
// What a training checkpoint calls its weights differs: `model` in the rolling file and in the
// released ones, `models` in best and backup files, `model_ema` for the averaged ones, `state_dict`
// in OpenMMLab's; in our own, model.*, ema.*, optimizer.* stand side by side; or the file is the
// state dict itself. Names may have prefixes of wrappers: `module.` from data-parallel training,
// `_orig_mod.` from torch.compile, one around the other; and `backbone.` in segmentors and
// detectors.
//
// Nothing is left out in silence: what is no tensor is listed with its reason, and a tensor that
// cannot be read is an error.

#include <map>
#include <string>
#include <vector>

#include "ppma/io/pth.hpp"

namespace ppma::inline PPMA_ABI {

struct WeightOptions {
  /// The entry of a .pth that holds the weights, such as "model_ema", or the part of our own
  /// checkpoints (model, ema). Empty: the first of model, models, state_dict, model_ema, else the
  /// file's own dict; of our own checkpoints ema, else model.
  std::string entry;
  /// Removed from the front of every name that has them, as often and in whatever order they come.
  /// `module.` and `_orig_mod.` are wrappers: they are removed from within names too
  /// (backbone.module.norm). {"module.", "_orig_mod."} keeps `backbone.`, for whole segmentors and
  /// detectors.
  std::vector<std::string> strip = {"module.", "_orig_mod.", "backbone."};
};

/// Something in a file that was not taken, and why.
struct LeftOut {
  std::string name, reason;
};

/// The weights of a file, by name in the file's order, and what else there is.
struct WeightsOfFile {
  TensorMap tensors;
  std::map<std::string, std::string> metadata;  // as save_weights was given it
  std::vector<LeftOut> left_out;  // among the weights, but no tensors: _extra_state, numbers
  std::vector<LeftOut> beside;    // beside the weights: optimizer, epoch, other copies
};

/// "3 entries, optimizer (a dict of 2), epoch (a int), ...": at most `most` of them by name.
PPMA_API std::string listed(const std::vector<LeftOut>& all, std::size_t most = 12);

/// A name without the prefixes that WeightOptions::strip speaks of.
PPMA_API std::string bare_name(std::string name, const std::vector<std::string>& strip);

namespace detail {

PPMA_API WeightsOfFile weights_of_pth(const PthFile& file, const WeightOptions& options);

PPMA_API TensorMap load_pth_weights(const PthFile& file, const WeightOptions& options);

}  // namespace detail

/// The weights in a .pth, .pt or .safetensors file, without the prefixes, and all else that the
/// file holds by name. float16 becomes f32, other element types as in io/element.hpp. Errors: a
/// tensor that is not read; two of one name.
PPMA_API WeightsOfFile weights_of_file(const std::string& path, const WeightOptions& options = {});

/// The tensors of weights_of_file.
PPMA_API TensorMap load_weights(const std::string& path, const WeightOptions& options = {});

/// Writes .safetensors, or .pth / .pt as a bare state dict. Metadata goes into both: into a .pth as
/// an entry of the archive that PyTorch leaves alone. With `under` a .pth holds {under: state
/// dict}, as published ones hold "model". Errors: another ending, `under` in a .safetensors.
PPMA_API void save_weights(const std::string& path, const TensorMap& tensors,
                           const std::map<std::string, std::string>& metadata = {},
                           const std::string& under = "");

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <string_view>

#include "ppma/io/pth_save.hpp"
#include "ppma/io/safetensors.hpp"

namespace ppma::inline PPMA_ABI {

std::string listed(const std::vector<LeftOut>& all, std::size_t most) {
  std::string s = str(all.size(), all.size() == 1 ? " entry: " : " entries: ");
  for (std::size_t i = 0; i < all.size() && i < most; ++i)
    s += str(i > 0 ? ", " : "", printable(all[i].name), " (", all[i].reason, ")");
  return s + (all.size() > most ? ", ..." : "");
}

std::string bare_name(std::string name, const std::vector<std::string>& strip) {
  for (bool again = true; again;) {
    again = false;
    for (const std::string& prefix : strip)
      if (!prefix.empty() && name.size() > prefix.size() && name.starts_with(prefix)) {
        name.erase(0, prefix.size());
        again = true;
      }
  }
  for (const std::string& wrapper : strip)
    if (wrapper == "module." || wrapper == "_orig_mod.")
      for (std::size_t at = name.find("." + wrapper); at != std::string::npos;
           at = name.find("." + wrapper, at))
        name.erase(at + 1, wrapper.size());
  return name;
}

namespace detail {

inline std::string keys_of(const PickleValue& dict) {
  std::string keys;
  for (std::size_t i = 0; i < dict.size() && i < 20; ++i)
    if (dict.key(i).is(PickleKind::text))
      keys += (keys.empty() ? "" : ", ") + printable(dict.key(i).text());
  return keys + (dict.size() > 20 ? ", ..." : "");
}

inline std::string name_of(const PickleValue& key) {
  return key.is(PickleKind::text)      ? std::string(key.text())
         : key.is(PickleKind::integer) ? str(key.integer())
                                       : key.describe();
}

// The dict with the weights in a checkpoint.
inline PickleValue weights_of(const PthFile& file, const WeightOptions& options) {
  const PickleValue& root = file.root();
  check(root.is(PickleKind::dict), file.name(), ": holds ", root.describe(),
        root.is(PickleKind::object) ? ", not weights; save its state_dict() instead of the module"
                                    : ", not a dict of weights; save a state_dict()");
  PickleValue found;
  if (!options.entry.empty()) {
    found = root.find(options.entry);
    check(found.defined(), file.name(), ": no entry \"", printable(options.entry),
          "\"; there are: ", keys_of(root));
  } else {
    for (const char* entry : {"model", "models", "state_dict", "model_ema"})
      if (!found.defined() && root.find(entry).is(PickleKind::dict)) found = root.find(entry);
    if (!found.defined()) found = root;
    for (const char* entry :
         {"model", "models", "state_dict", "model_ema"})  // torch.save({"model": model})
      if (const PickleValue v = root.find(entry); v.is(PickleKind::object) && !file.is_tensor(v))
        check(!found.same(root), file.name(), ": its \"", entry, "\" is ", v.describe(),
              ", not weights; save its state_dict() instead of the module");
  }
  check(found.is(PickleKind::dict), file.name(), ": its weights are ", found.describe(),
        ", not a dict; save the state_dict() instead of the module");
  return found;
}

// Why this value, or one within its tuples and lists, is a tensor that is not read; "" if none is.
inline std::string unread_within(const PthFile& file, const PickleValue& value) {
  if (std::string reason = file.unread_reason(value); !reason.empty()) return reason;
  if (!value.is(PickleKind::tuple) && !value.is(PickleKind::list)) return "";
  for (std::size_t i = 0; i < value.size() && i < 16; ++i) {
    if (file.is_tensor(value.item(i)))
      return str("in a ", value.kind(), "; save it under a name of its own");
    if (std::string reason = file.unread_reason(value.item(i)); !reason.empty()) return reason;
  }
  return "";
}

// Whether a dict has tensors in it, so that it could be the weights.
inline bool has_tensors(const PthFile& file, const PickleValue& value) {
  if (!value.is(PickleKind::dict)) return false;
  for (std::size_t i = 0; i < value.size(); ++i)
    if (file.is_tensor(value.value(i))) return true;
  return false;
}

WeightsOfFile weights_of_pth(const PthFile& file, const WeightOptions& options) {
  const PickleValue weights = weights_of(file, options);
  const bool is_root = options.entry.empty() && weights.same(file.root());
  WeightsOfFile result;
  result.metadata = file.metadata();
  std::vector<LeftOut> unread;
  std::vector<std::size_t> chosen;
  std::map<std::string_view, std::size_t> last;  // of two equal keys Python keeps the last value
  for (std::size_t i = 0; i < weights.size(); ++i)
    if (weights.key(i).is(PickleKind::text)) last[weights.key(i).text()] = i;
  i64 bytes = 0;
  std::string others;  // dicts that could be the weights
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const PickleValue key = weights.key(i);
    if (key.is(PickleKind::text) && last[key.text()] != i) continue;
    const PickleValue value = weights.value(i);
    const std::string name = name_of(key);
    if (!file.is_tensor(value)) {
      if (const std::string reason = unread_within(file, value); !reason.empty())
        unread.push_back({name, reason});
      else
        (is_root && !value.is(PickleKind::object) ? result.beside : result.left_out)
            .push_back({name, value.describe()});
      if (has_tensors(file, value)) others += str(others.empty() ? "" : ", ", printable(name));
      continue;
    }
    check(key.is(PickleKind::text), file.name(), ": a tensor under ", key.describe(),
          " instead of a name; save a state_dict()");
    const i64 more = file.tensor_bytes(value, name);
    check(more <= file.most_bytes() - bytes, file.name(),
          ": its tensors share their storages too often: more than ", file.most_bytes(),
          " bytes in a file of ", file.most_bytes() / 16, "; save .clone() of each");
    bytes += more;
    chosen.push_back(i);
  }
  check(unread.empty(), file.name(), ": ", unread.size(), " of its ", chosen.size() + unread.size(),
        " tensors cannot be read, ", listed(unread));
  check(!chosen.empty() || weights.size() == 0, file.name(), ": no tensors in ", weights.describe(),
        "; name the entry that holds them", others.empty() ? "" : " (" + others + ")",
        ", or save a module's state_dict()");
  for (const std::size_t i : chosen) {
    const std::string name(weights.key(i).text());
    result.tensors.emplace_back(name, file.tensor(weights.value(i), name));
  }
  if (!is_root)
    for (std::size_t i = 0; i < file.root().size(); ++i)
      if (!file.root().value(i).same(weights))
        result.beside.push_back({name_of(file.root().key(i)), file.root().value(i).describe()});
  return result;
}

TensorMap load_pth_weights(const PthFile& file, const WeightOptions& options) {
  return weights_of_pth(file, options).tensors;
}

// Of a training checkpoint the part `entry`, else the average where there is one.
inline WeightsOfFile weights_of_safetensors(Safetensors file, const std::string& name,
                                            const WeightOptions& options) {
  WeightsOfFile result;
  result.metadata = std::move(file.metadata);
  std::map<std::string, int> parts;  // model, ema, optimizer: how many tensors of each
  for (const auto& t : file.tensors) ++parts[t.first.substr(0, t.first.find('.'))];
  std::string part = options.entry;
  if (part.empty() && parts.contains("optimizer")) part = parts.contains("ema") ? "ema" : "model";
  if (part.empty()) {
    result.tensors = std::move(file.tensors);
    return result;
  }
  for (auto& [tensor_name, tensor] : file.tensors)
    if (tensor_name.starts_with(part + "."))
      result.tensors.emplace_back(tensor_name.substr(part.size() + 1), tensor);
  std::string there;
  for (const auto& p : parts) {
    if (there.size() < 200) there += (there.empty() ? "" : ", ") + printable(p.first);
    if (p.first != part)
      result.beside.push_back({p.first, str(p.second, p.second == 1 ? " tensor" : " tensors")});
  }
  check(!result.tensors.empty(), name, ": has no part \"", printable(part),
        "\"; there are: ", there);
  return result;
}

}  // namespace detail

WeightsOfFile weights_of_file(const std::string& path, const WeightOptions& options) {
  std::vector<u8> file = read_file(path);
  // safetensors: a header length and a brace. By its name too, so that a damaged one is called
  // that.
  const bool zip = file.size() > 1 && file[0] == 'P' && file[1] == 'K';
  const bool is_safetensors =
      !zip && ((file.size() > 8 && file[8] == '{' && detail::load<u64>(file.data()) < 1u << 30) ||
               path.ends_with(".safetensors"));
  WeightsOfFile result =
      is_safetensors ? detail::weights_of_safetensors(parse_safetensors(file, path), path, options)
                     : detail::weights_of_pth(PthFile(std::move(file), path), options);
  std::map<std::string_view, int> names;
  for (auto& entry : result.tensors) entry.first = bare_name(std::move(entry.first), options.strip);
  for (const auto& entry : result.tensors)
    check(names.emplace(entry.first, 0).second, path, ": two tensors have the name \"",
          printable(entry.first),
          "\" (after removing prefixes); choose one with `entry`, or save them under different "
          "names");
  return result;
}

TensorMap load_weights(const std::string& path, const WeightOptions& options) {
  return weights_of_file(path, options).tensors;
}

void save_weights(const std::string& path, const TensorMap& tensors,
                  const std::map<std::string, std::string>& metadata, const std::string& under) {
  if (path.ends_with(".safetensors")) {
    check(under.empty(), path, ": a .safetensors has no dicts within it, and so no \"",
          printable(under), "\"; write a .pth");
    return write_safetensors(path, tensors, metadata);
  }
  check(path.ends_with(".pth") || path.ends_with(".pt"), path,
        ": its ending should be .safetensors, .pth or .pt; choose one of these");
  save_pth(path, tensors, under, metadata);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
