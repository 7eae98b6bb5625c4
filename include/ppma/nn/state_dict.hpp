#pragma once
#include "ppma/core/names_begin.hpp"
// The state dict of a module: its tensors by name, and loading them from a file's with a report.

#include <string>
#include <utility>
#include <vector>

#include "ppma/nn/module.hpp"

namespace ppma::inline PPMA_ABI {

/// All parameters and buffers by name, in order; the tensors share the module's elements.
template <class M>
std::vector<Field> state_dict(M& module) {
  std::vector<Field> fields;
  for_each_field(module, [&](const std::string& name, Tensor& t, Kind kind) {
    fields.push_back({name, t, kind});
  });
  return fields;
}

/// What happened to each tensor when a state dict was loaded.
struct LoadReport {
  std::vector<std::string> missing;     // in the module, not in the file
  std::vector<std::string> unexpected;  // in the file, not in the module
  std::vector<std::string> misshaped;   // in both, "name: file (10, 64), module (1000, 64)"
  std::vector<std::string> not_finite;  // in the file, with inf or NaN in it, "name (3 of 64)"
  std::vector<std::string> passed_by;   // on one side only, which PyTorch does not insist on either
  i64 loaded = 0;

  /// Whether every tensor found its place, and every place a tensor.
  bool complete() const {
    return missing.empty() && unexpected.empty() && misshaped.empty() && not_finite.empty();
  }
  /// In a sentence.
  PPMA_API std::string text() const;
};

namespace detail {

// Buffers that may be missing from a file or stand there in vain. Batch norm counted no steps
// before PyTorch 0.4.1, and PyTorch fills the counter in itself. The others are tables that follow
// from the configuration: newer programs make them anew and no longer save them.
PPMA_API bool is_optional_buffer(const std::string& name);

// How many elements are inf or NaN; by their bits, which fast-math leaves alone.
PPMA_API i64 count_not_finite(const Tensor& t);

}  // namespace detail

struct LoadOptions {
  // anything missing, unexpected, mis-shaped or not finite is an Error: nothing is loaded
  bool strict = true;
  // names that start with one of these are left alone on both sides: {"head."}
  std::vector<std::string> ignore;
};

namespace detail {

PPMA_API LoadReport load_into(const std::vector<Field>& fields,
                              const std::vector<std::pair<std::string, Tensor>>& tensors,
                              const LoadOptions& options);

}  // namespace detail

/// Copies tensors by name into a module (any floating dtype into any other; a linear layer's
/// weights also from those of a convolution 1 x 1). As strict as PyTorch, which does not insist on
/// every buffer either: report.passed_by names those.
template <class M>
LoadReport load_state_dict(M& module, const std::vector<std::pair<std::string, Tensor>>& tensors,
                           const LoadOptions& options = {}) {
  return detail::load_into(state_dict(module), tensors, options);
}

/// load_state_dict's argument from another module's state_dict().
PPMA_API std::vector<std::pair<std::string, Tensor>> as_tensors(const std::vector<Field>& fields);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NN)

#include <algorithm>
#include <deque>
#include <string_view>
#include <unordered_map>

#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

std::string LoadReport::text() const {
  std::string s = str(loaded, " tensors loaded");
  const auto list = [&s](const char* what, const std::vector<std::string>& names) {
    if (names.empty()) return;
    s += str("; ", names.size(), " ", what, ":");
    for (std::size_t i = 0; i < names.size() && i < 12; ++i)
      s += " " + printable(names[i], 200) + (i + 1 < names.size() ? "," : "");
    if (names.size() > 12) s += " ...";
  };
  list("missing in the file", missing);
  list("not in the module", unexpected);
  list("of another shape", misshaped);
  list("with values that are not finite", not_finite);
  list("on one side only, which are not needed", passed_by);
  return s;
}

namespace detail {

bool is_optional_buffer(const std::string& name) {
  const std::string_view last = std::string_view(name).substr(name.rfind('.') + 1);
  for (const char* known : {"num_batches_tracked", "angle", "relative_position_index",
                            "relative_coords_table", "position_ids", "attn_mask"})
    if (last == known) return true;
  return false;
}

i64 count_not_finite(const Tensor& t) {
  if (!is_floating(t.dtype()) || t.device() != Device::cpu) return 0;
  i64 n = 0;
  const auto count = [&](auto bits, auto exponent) {
    using Bits = decltype(bits);
    const Bits* p = static_cast<const Bits*>(t.raw());
    for (i64 i = 0; i < t.numel(); ++i) n += (p[i] & exponent) == exponent;
  };
  if (t.dtype() == DType::f64)
    count(u64{}, u64{0x7ff0000000000000});
  else if (t.dtype() == DType::bf16)
    count(std::uint16_t{}, std::uint16_t{0x7f80});
  else
    count(u32{}, u32{0x7f800000});
  return n;
}

LoadReport load_into(const std::vector<Field>& fields,
                     const std::vector<std::pair<std::string, Tensor>>& tensors,
                     const LoadOptions& options) {
  const auto ignored = [&](const std::string& name) {
    return std::any_of(
        options.ignore.begin(), options.ignore.end(),
        [&](const std::string& prefix) { return name.compare(0, prefix.size(), prefix) == 0; });
  };
  std::unordered_map<std::string, const Tensor*> given;
  for (const auto& entry : tensors)
    if (!ignored(entry.first)) given[entry.first] = &entry.second;
  LoadReport report;
  std::vector<std::pair<Tensor, const Tensor*>> copies;
  std::deque<Tensor> reshaped;
  for (const auto& [name, t, kind] : fields) {
    if (ignored(name)) continue;
    const auto it = given.find(name);
    if (it == given.end()) {
      (is_optional_buffer(name) ? report.passed_by : report.missing).push_back(name);
      continue;
    }
    // a scalar, as PyTorch before 0.4 wrote it
    const bool one = t.rank() == 0 && it->second->shape() == Shape{1};
    if (one)
      it->second = &reshaped.emplace_back(Tensor::scalar(it->second->item(), it->second->dtype()));
    if (t.rank() == 2 && it->second->shape() == Shape{t.dim(0), t.dim(1), 1, 1})
      it->second = &reshaped.emplace_back(it->second->viewed_as(t.shape()));
    if (it->second->shape() != t.shape())
      report.misshaped.push_back(str(name, ": file ", it->second->shape(), ", module ", t.shape()));
    else
      copies.emplace_back(t, it->second);
    if (const i64 n = count_not_finite(*it->second); n > 0)
      report.not_finite.push_back(str(name, " (", n, " of ", it->second->numel(), ")"));
    given.erase(it);
  }
  for (const auto& entry : tensors)  // in the file's order
    if (given.count(entry.first) != 0)
      (is_optional_buffer(entry.first) ? report.passed_by : report.unexpected)
          .push_back(entry.first);
  report.loaded = static_cast<i64>(copies.size());
  check(!options.strict || report.complete(),
        "load_state_dict: the tensors do not fit the module, nothing was loaded (", report.text(),
        "). Load with strict = false to take what fits, or ignore a changed head by its prefix",
        report.not_finite.empty() ? ""
                                  : "; weights that are not finite come from a training that "
                                    "diverged: take an earlier file");
  for (auto& copy : copies) copy.first.copy_from(*copy.second);
  return report;
}

}  // namespace detail

std::vector<std::pair<std::string, Tensor>> as_tensors(const std::vector<Field>& fields) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const Field& f : fields) tensors.emplace_back(f.name, f.tensor.detach());
  return tensors;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
