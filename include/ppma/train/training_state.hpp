#pragma once
#include "ppma/core/names_begin.hpp"
// What the training loops of detection and segmentation share: a network's tensors, AdamW over
// those that are trained, where the run is, and all of it in one file. How such a file is read, the
// classifier's loop (trainer.hpp) shares too.

#include <map>
#include <string>
#include <vector>

#include "ppma/core/float_bits.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/nn/module.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/train/finite.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// An entry that every training checkpoint has in its metadata: "epoch", "seed".
PPMA_API const std::string& position_of(const Safetensors& file, const std::string& path,
                                        const char* key);

/// A number as text from which it can be read again, bit for bit.
PPMA_API std::string number_text(double x);

/// The same of one that is a whole number from 0.
PPMA_API u64 whole_of(const Safetensors& file, const std::string& path, const char* key);

}  // namespace detail

template <class Model>
class TrainingState {
 public:
  i64 epoch = 0, iteration = 0;  // that come next

  /// Names with `norm` are not decayed; frozen parameters are left out.
  TrainingState(Model& model, double weight_decay, const AdamWOptions& adamw, u64 seed)
      : model_(model),
        seed_(seed),
        tensors_(as_tensors(state_dict(model))),
        optimizer_(trained(model, weight_decay), adamw) {}

  const TensorMap& tensors() const { return tensors_; }

  /// One step of the optimiser, gradients scaled to a norm of `clip` at most (0: as they are).
  /// Error: a norm that is not finite.
  void step(double rate, double clip) {
    const double norm = clip > 0 ? gradient_norm(optimizer_.parameters()) : 0;
    check(is_finite(norm), "training: the gradient's norm is ", norm, " in epoch ", epoch,
          ", iteration ", iteration, "; lower the learning rate or clip the gradients");
    optimizer_.step(rate, clip_factor(norm, clip));
    optimizer_.zero_grad();
    ++iteration;
  }

  /// Error: weights that are not finite, when an epoch of training has ended.
  void require_finite_weights() const {
    require_finite(tensors_, str("training: after epoch ", epoch, ", ", iteration, " iterations"));
  }

  /// All that resume() needs, written aside and renamed. Error: a tensor that is not finite;
  /// then the file stays as it was.
  void save(const std::string& path, std::map<std::string, std::string> metadata) const {
    TensorMap all;
    for (const auto& entry : tensors_) all.emplace_back("model." + entry.first, entry.second);
    for (const auto& entry : optimizer_.state())
      all.emplace_back("optimizer." + entry.first, entry.second);
    metadata["epoch"] = std::to_string(epoch), metadata["iteration"] = std::to_string(iteration);
    metadata["seed"] = std::to_string(seed_);
    require_finite(all, path + ": not written");
    write_safetensors(path, all, metadata);
  }
  /// Continues where save() was called; returns the metadata. Errors: another network, another
  /// seed.
  std::map<std::string, std::string> resume(const std::string& path) {
    Safetensors file = read_safetensors(path);
    const auto number = [&](const char* key) { return detail::whole_of(file, path, key); };
    const std::string& seed = detail::position_of(file, path, "seed");
    check(seed == std::to_string(seed_), path, ": was trained with seed ", seed, ", not ", seed_);
    require_finite(file.tensors, path);
    TensorMap weights, moments;
    for (const auto& [name, tensor] : file.tensors) {
      if (name.starts_with("model.")) weights.emplace_back(name.substr(6), tensor);
      if (name.starts_with("optimizer.")) moments.emplace_back(name.substr(10), tensor);
    }
    load_state_dict(model_, weights);
    optimizer_.load_state(moments);
    epoch = static_cast<i64>(number("epoch")), iteration = static_cast<i64>(number("iteration"));
    return std::move(file.metadata);
  }

 private:
  static std::vector<Parameter> trained(Model& model, double decay) {
    TensorMap named;
    for (const Field& f : named_parameters(model))
      if (f.tensor.requires_grad()) named.emplace_back(f.name, f.tensor);
    return parameters_with_rules(named, norm_rules(decay));
  }

  Model& model_;
  u64 seed_;
  TensorMap tensors_;
  AdamW optimizer_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <charconv>

namespace ppma::inline PPMA_ABI {

namespace detail {

const std::string& position_of(const Safetensors& file, const std::string& path, const char* key) {
  const auto it = file.metadata.find(key);
  check(it != file.metadata.end(), path, ": has no ", key, "; it is not a training checkpoint");
  return it->second;
}

std::string number_text(double x) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
}

u64 whole_of(const Safetensors& file, const std::string& path, const char* key) {
  const std::string& text = position_of(file, path, key);
  u64 n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  check(error == std::errc() && end == text.data() + text.size() && n >> 63 == 0, path, ": its ",
        key, " is not a whole number but \"", text,
        "\"; it is not a training checkpoint, or damaged");
  return n;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
