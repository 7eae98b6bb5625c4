#pragma once
#include "ppma/core/names_begin.hpp"
// Modules: plain structs whose tensors have names.
//
// A module is any struct with public tensors, a forward, and one function that names each of its
// tensors once:
//
//   struct Linear {
//     Tensor weight;  // (out,in)
//     Tensor bias;    // (out)
//     template <class V> void fields(V& v) { v.parameter("weight", weight), v.parameter("bias",
//     bias); }
//   };
//   struct Mlp {
//     Linear fc1, fc2;
//     template <class V> void fields(V& v) { v.child("fc1", fc1), v.child("fc2", fc2); }
//   };
//
// From it follow the state dict ("fc1.weight", ...), loading with a report, dtype moves, counts.
// The order of fields() is the order of the published state dicts. An undefined tensor (an absent
// bias) is no field.
//
// Training or evaluation is not a state of the layers but an argument of forward, the Context:
// nobody forgets eval().

#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ppma/core/random.hpp"
#include "ppma/parallel/communicator.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

/// What a step draws on the host and sends to the device (drop path factors): kept, so that a
/// captured step can be replayed with new draws in the same place.
class HostInputs {
 public:
  using Make = std::function<Tensor(Rng&)>;

  /// What `make` draws, on `device`: the first pass over a step remembers it, later ones return the
  /// same tensors.
  PPMA_API Tensor get(const Make& make, Rng& rng, Device device);
  /// New draws into the same tensors, from the first on.
  void refill(Rng rng) {
    refill(rng, [](Tensor& to, const Tensor& drawn) { to.copy_from(drawn); });
  }
  /// The same with put(tensor, draw on the CPU), which may send them later and together.
  template <class Put>
  void refill(Rng rng, Put&& put) {
    for (Input& in : inputs_) put(in.tensor, in.make(rng));
    next_ = 0;
  }

 private:
  struct Input {
    Tensor tensor;
    Make make;
  };
  std::vector<Input> inputs_;
  std::size_t next_ = 0;
};

/// What a part of a pass has drawn, to be given again when that part is computed again
/// (nn/checkpoint.hpp).
class Draws {
 public:
  template <class Draw>
  Tensor get(Draw&& draw) {
    if (next_ < tensors_.size()) return tensors_[next_++];
    check(!replaying_, "checkpoint: the second pass draws more than the first did");
    tensors_.push_back(draw());
    ++next_;
    return tensors_.back();
  }
  void replay() { next_ = 0, replaying_ = true; }

 private:
  std::vector<Tensor> tensors_;
  std::size_t next_ = 0;
  bool replaying_ = false;
};

/// What a forward pass is for: training (batch statistics, drop path, drawn from rng) or
/// evaluation; and who watches.
struct Context {
  bool training = false;
  Rng rng{};
  /// Called with a module's path, "layers.0.blocks.1.retention", and its output, as the pass goes
  /// by; may be empty.
  std::function<void(const std::string& path, const Tensor& output)> observe{};

  HostInputs* host_inputs = nullptr;  // of a step that is captured and replayed
  // keep only the inputs of the backbone's blocks; backward computes them again
  bool checkpoint_blocks = false;
  Draws* draws = nullptr;  // of a part that will be, or is being, computed again
  // processes that have equal parts of the batch: batch norm is over all of them
  const Communicator* among = nullptr;

  /// make(rng) on a device: every number that a layer draws on the host passes here.
  /// Of a batch in several processes each has its own part of what one process would draw for the
  /// whole.
  PPMA_API Tensor drawn(Device device, const HostInputs::Make& make_one);

  /// Shows the output of the module whose Scope is innermost; returns it.
  PPMA_API Tensor seen(Tensor output) const;
};

enum class Kind { parameter, buffer };

/// A named tensor of a module; the handle shares the module's elements.
struct Field {
  std::string name;
  Tensor tensor;
  Kind kind;
};

namespace detail {

// Walks the fields of a module and of its children, with the path as a prefix; calls f(name,
// tensor, kind).
template <class F>
class FieldWalk {
 public:
  FieldWalk(std::string prefix, F& f) : prefix_(std::move(prefix)), f_(f) {}

  void parameter(const char* name, Tensor& t) { visit_tensor(name, t, Kind::parameter); }
  void buffer(const char* name, Tensor& t) { visit_tensor(name, t, Kind::buffer); }
  template <class M>
  void child(const char* name, M& module) {
    FieldWalk inner(prefix_ + name + ".", f_);
    module.fields(inner);
  }
  template <class M>
  void child(const char* name, std::optional<M>& module) {
    if (module) child(name, *module);
  }
  template <class M>
  void children(const char* name, std::vector<M>& modules) {
    for (std::size_t i = 0; i < modules.size(); ++i) child(str(name, ".", i).c_str(), modules[i]);
  }

 private:
  void visit_tensor(const char* name, Tensor& t, Kind kind) {
    if (t.defined()) f_(prefix_ + name, t, kind);
  }
  std::string prefix_;
  F& f_;
};

// Calls f(layer) for every L among the children of a module.
template <class L, class F>
class LayerWalk {
 public:
  explicit LayerWalk(F& f) : f_(f) {}

  void parameter(const char*, Tensor&) {}
  void buffer(const char*, Tensor&) {}
  template <class M>
  void child(const char*, M& m) {
    if constexpr (std::is_same_v<M, L>)
      f_(m);
    else
      m.fields(*this);
  }
  template <class M>
  void child(const char* name, std::optional<M>& module) {
    if (module) child(name, *module);
  }
  template <class M>
  void children(const char* name, std::vector<M>& modules) {
    for (M& m : modules) child(name, m);
  }

 private:
  F& f_;
};

}  // namespace detail

/// Calls f(L&) for every layer of type L in a module.
template <class L, class M, class F>
void for_each_layer(M& of, F f) {
  detail::LayerWalk<L, F> walk(f);
  of.fields(walk);
}

/// Calls f(name, Tensor&, Kind) for every tensor of a module, in the order of its state dict.
template <class M, class F>
void for_each_field(M& module, F f) {
  detail::FieldWalk<F> walk("", f);
  module.fields(walk);
}

/// All parameters and buffers by name, in order; the tensors share the module's elements.
template <class M>
std::vector<Field> state_dict(M& module) {
  std::vector<Field> fields;
  for_each_field(module, [&](const std::string& name, Tensor& t, Kind kind) {
    fields.push_back({name, t, kind});
  });
  return fields;
}

template <class M>
std::vector<Field> named_parameters(M& module) {
  std::vector<Field> fields;
  for_each_field(module, [&](const std::string& name, Tensor& t, Kind kind) {
    if (kind == Kind::parameter) fields.push_back({name, t, kind});
  });
  return fields;
}

/// Number of elements of all parameters.
template <class M>
i64 parameter_count(M& module) {
  i64 n = 0;
  for (const Field& f : named_parameters(module)) n += f.tensor.numel();
  return n;
}

/// Marks all parameters of a module, or of a part of it, as trained or frozen.
template <class M>
void set_trainable(M& module, bool on) {
  for_each_field(module, [on](const std::string&, Tensor& t, Kind kind) {
    if (kind == Kind::parameter) t.requires_grad(on);
  });
}

/// Whether a module has a parameter that is trained.
template <class M>
bool is_trainable(const M& module) {
  bool any = false;
  // fields() hands out what may be changed; it is only looked at.
  for_each_field(const_cast<M&>(module), [&any](const std::string&, Tensor& t, Kind kind) {
    any = any || (kind == Kind::parameter && t.requires_grad());
  });
  return any;
}

template <class M>
void zero_grad(M& module) {
  for (Field& f : named_parameters(module)) f.tensor.zero_grad();
}

/// Converts all floating tensors of a module; gradients are dropped, integer buffers stay.
template <class M>
void to(M& module, DType dtype) {
  for_each_field(module, [&](const std::string&, Tensor& t, Kind) {
    if (!is_floating(t.dtype()) || t.dtype() == dtype) return;
    Tensor converted = Tensor::empty(t.shape(), dtype, t.device());
    converted.copy_from(t.detach());
    if (t.requires_grad()) converted.requires_grad(true);
    t = converted;
  });
}

/// Moves all tensors of a module to a device; gradients are dropped. Counters (int64) stay on the
/// CPU. Make optimisers afterwards: they hold the tensors.
template <class M>
void to(M& module, Device device) {
  for_each_field(module, [&](const std::string&, Tensor& t, Kind) {
    if (!is_floating(t.dtype()) || t.device() == device) return;
    Tensor moved = t.to(device);
    if (t.requires_grad()) moved.requires_grad(true);
    t = moved;
  });
}

/// What happened to each tensor when a state dict was loaded.
struct LoadReport {
  std::vector<std::string> missing;     // in the module, not in the file
  std::vector<std::string> unexpected;  // in the file, not in the module
  std::vector<std::string> misshaped;   // in both, "name: file (10, 64), module (1000, 64)"
  std::vector<std::string> not_finite;  // in the file, with inf or NaN in it, "name (3 of 64)"
  std::vector<std::string> passed_by;   // on one side only, which PyTorch does not insist on either
  i64 loaded = 0;

  bool complete() const {
    return missing.empty() && unexpected.empty() && misshaped.empty() && not_finite.empty();
  }
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

/// Copies tensors by name into a module (any floating dtype into any other). As strict as PyTorch,
/// which does not insist on every buffer either: report.passed_by names those.
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

Tensor HostInputs::get(const Make& make, Rng& rng, Device device) {
  if (next_ < inputs_.size()) return inputs_[next_++].tensor;
  inputs_.push_back({make(rng).to(device), make});
  ++next_;
  return inputs_.back().tensor;
}

Tensor Context::drawn(Device device, const HostInputs::Make& make_one) {
  const HostInputs::Make make =
      among == nullptr ? make_one : [make_one, rank = among->rank, size = among->size](Rng& r) {
        Tensor mine;
        for (i64 i = 0; i < size; ++i) {
          const Tensor part = make_one(r);
          if (i == rank) mine = part;
        }
        return mine;
      };
  const auto draw = [&] {
    return host_inputs ? host_inputs->get(make, rng, device) : make(rng).to(device);
  };
  return draws ? draws->get(draw) : draw();
}

Tensor Context::seen(Tensor output) const {
  if (observe) observe(Scope::path(), output);
  return output;
}

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
  std::deque<Tensor> scalars;
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
      it->second = &scalars.emplace_back(Tensor::scalar(it->second->item(), it->second->dtype()));
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
