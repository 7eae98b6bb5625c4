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
// From it follow the state dict ("fc1.weight", ...) and loading with a report
// (nn/state_dict.hpp), dtype moves, counts. The order of fields() is the order of the published
// state dicts. An undefined tensor (an absent bias) is no field.
//
// Training or evaluation is not a state of the layers but an argument of forward, the Context
// (nn/context.hpp): nobody forgets eval().

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

/// What is learnt, and what is kept beside it.
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

/// The parameters of a module and its parts, with their paths.
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

/// Forgets the gradients of all parameters.
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

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
