#pragma once
#include "ppma/core/names_begin.hpp"
// What an optimiser needs to know of a network: its parameters by name, and which settings each one
// gets.
//
// Settings follow from rules. The first rule that fits a parameter decides:
//
//   {{"*.bias", 8, 0.0}, {"*", 1, 0.0}, {"head.*", 8, 0.05, 10}, {"*", 8, 0.05}}
//
// no decay for biases and for tensors of one dimension, ten times the learning rate for the head's
// other tensors.

#include <string>
#include <string_view>
#include <vector>

#include "ppma/io/element.hpp"
#include "ppma/nn/module.hpp"

namespace ppma::inline PPMA_ABI {

struct ParameterRule {
  std::string pattern = "*";       // of names; * stands for any text, ? for one character
  int max_rank = Shape::max_rank;  // only tensors of at most so many dimensions
  double weight_decay = 0;
  double rate_factor = 1;  // multiplies the learning rate
};

struct Parameter {
  std::string name;
  Tensor tensor;
  double weight_decay = 0;
  double rate_factor = 1;
};

/// The tensors of parameters, in their order.
inline std::vector<Tensor> tensors_of(const std::vector<Parameter>& parameters) {
  std::vector<Tensor> tensors;
  for (const Parameter& p : parameters) tensors.push_back(p.tensor);
  return tensors;
}

/// True if the whole of `text` fits `pattern`, in which * stands for any text and ? for one
/// character.
PPMA_API bool matches(std::string_view pattern, std::string_view text);

/// The published recipe: no decay on tensors of one dimension (norms, biases, dt_bias, A_log), on
/// names that end in ".bias", and on the decays "A_logs" of VMamba and its descendants; layer
/// scales have four dimensions and are decayed.
PPMA_API std::vector<ParameterRule> no_decay_rules(double weight_decay);

/// The dense recipes': names with `norm` in them are not decayed, all others are, biases and the
/// decays' parameters too.
PPMA_API std::vector<ParameterRule> norm_rules(double weight_decay);

/// Parameters with the settings of the first rule that fits each. Errors: a parameter that no rule
/// fits; a tensor that is not marked with requires_grad or not of a computable dtype; two of one
/// name.
PPMA_API std::vector<Parameter> parameters_with_rules(const TensorMap& named,
                                                      const std::vector<ParameterRule>& rules);

/// The same for all parameters of a module.
template <class M>
std::vector<Parameter> parameters_of(M& module, const std::vector<ParameterRule>& rules) {
  TensorMap named;
  for (const Field& f : named_parameters(module)) named.emplace_back(f.name, f.tensor);
  return parameters_with_rules(named, rules);
}

namespace detail {

// What all optimisers share: the parameters, and one running array per parameter and kind (momentum
// ...).
PPMA_API std::vector<i64> sizes_of(const std::vector<Parameter>& parameters);

PPMA_API std::vector<Tensor> zeros_like(const std::vector<Parameter>& parameters);

// Gradients as they are now; undefined where backward has not reached the parameter.
PPMA_API std::vector<Tensor> gradients_of(const std::vector<Parameter>& parameters);

// Copies the saved tensor `kind + "." + name` into `into`.
PPMA_API void restore(const TensorMap& saved, const char* kind, const std::string& name,
                      Tensor& into);

// The device of all parameters: an update is one launch for many of them.
PPMA_API Device device_of(const std::vector<Parameter>& parameters);

PPMA_API void clear_gradients(std::vector<Parameter>& parameters);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include <algorithm>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/pieces.hpp"

namespace ppma::inline PPMA_ABI {

bool matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {  // let the last star take one character more
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<ParameterRule> no_decay_rules(double weight_decay) {
  return {{"*.bias", Shape::max_rank, 0.0},
          {"*.A_logs", Shape::max_rank, 0.0},
          {"*", 1, 0.0},
          {"*", Shape::max_rank, weight_decay}};
}

std::vector<ParameterRule> norm_rules(double weight_decay) {
  return {{"*norm*", Shape::max_rank, 0.0}, {"*", Shape::max_rank, weight_decay}};
}

std::vector<Parameter> parameters_with_rules(const TensorMap& named,
                                             const std::vector<ParameterRule>& rules) {
  std::vector<Parameter> out;
  std::vector<std::string_view> names;
  for (const auto& entry : named) {
    const std::string& name = entry.first;
    const Tensor& t = entry.second;
    check(t.defined(), "optimizer: parameter ", name, " is undefined");
    check(t.dtype() == DType::f32 || t.dtype() == DType::f64, "optimizer: parameter ", name, " is ",
          t.dtype(), "; master weights must be f32 or f64");
    check(t.writable(), "optimizer: parameter ", name,
          " wraps const elements, which a step could not change; give the network a clone()");
    check(t.requires_grad(), "optimizer: parameter ", name,
          " does not require a gradient; call requires_grad(true)");
    const auto rule = std::find_if(rules.begin(), rules.end(), [&](const ParameterRule& r) {
      return t.rank() <= r.max_rank && matches(r.pattern, name);
    });
    check(rule != rules.end(), "optimizer: no rule fits parameter ", name, " of shape ", t.shape(),
          "; end the list with a rule for \"*\"");
    out.push_back({name, t, rule->weight_decay, rule->rate_factor});
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  check(twice == names.end(), "optimizer: two parameters have the name ",
        twice == names.end() ? "" : *twice);
  return out;
}

namespace detail {

std::vector<i64> sizes_of(const std::vector<Parameter>& parameters) {
  std::vector<i64> sizes;
  for (const Parameter& p : parameters) sizes.push_back(p.tensor.numel());
  return sizes;
}

std::vector<Tensor> zeros_like(const std::vector<Parameter>& parameters) {
  std::vector<Tensor> zeros;
  for (const Parameter& p : parameters)
    zeros.push_back(Tensor::zeros(p.tensor.shape(), p.tensor.dtype(), p.tensor.device()));
  return zeros;
}

std::vector<Tensor> gradients_of(const std::vector<Parameter>& parameters) {
  std::vector<Tensor> gradients;
  for (const Parameter& p : parameters) {
    check(p.tensor.writable(), "optimizer: parameter ", p.name, " wraps const elements");
    gradients.push_back(p.tensor.grad());
    check(!gradients.back().defined() || gradients.back().dtype() == p.tensor.dtype(),
          "optimizer: the gradient of ", p.name, " is ",
          gradients.back().defined() ? gradients.back().dtype() : p.tensor.dtype(),
          ", the parameter ", p.tensor.dtype());
  }
  return gradients;
}

void restore(const TensorMap& saved, const char* kind, const std::string& name, Tensor& into) {
  const std::string key = str(kind, ".", name);
  const Tensor* t = find(saved, key);
  check(t != nullptr, "optimizer: the saved state has no ", key,
        "; it belongs to another network or optimizer");
  check(t->shape() == into.shape(), "optimizer: saved ", key, " has shape ", t->shape(),
        ", the parameter ", into.shape());
  into.copy_from(*t);
}

Device device_of(const std::vector<Parameter>& parameters) {
  const Device device = parameters.empty() ? Device::cpu : parameters[0].tensor.device();
  for (const Parameter& p : parameters)
    check(p.tensor.device() == device, "optimizer: parameter ", p.name, " is on the ",
          p.tensor.device(), ", ", parameters[0].name, " on the ", device,
          "; move the whole network with to() before making the optimizer");
  return device;
}

void clear_gradients(std::vector<Parameter>& parameters) {
  for (Parameter& p : parameters) p.tensor.zero_grad();
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
