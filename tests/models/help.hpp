#pragma once
// What the tests of the networks share: reference files, weights by formula, distances.

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "catch.hpp"
#include "distance.hpp"
#include "io/help.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/nn/state_dict.hpp"
#include "thrown.hpp"

namespace models_test {

using namespace ppma;

using io_test::reference;

inline nlohmann::json read_json(const std::string& name) {
  const std::vector<u8> file = read_file(reference(name));
  return nlohmann::json::parse(file.begin(), file.end());
}

/// A tensor of a file; the test ends if it is not there.
inline Tensor get(const TensorMap& tensors, const std::string& name) {
  const Tensor* t = find(tensors, name);
  INFO(name);
  REQUIRE(t != nullptr);
  return *t;
}

inline Tensor as(const Tensor& t, DType dtype, Device device = Device::cpu) {
  Tensor copy = Tensor::empty(t.shape(), dtype, device);
  copy.copy_from(t.detach());
  return copy;
}

inline double norm(const Tensor& t) {
  double sum = 0;
  for (const double x : t.to_vector<double>()) sum += x * x;
  return std::sqrt(sum);
}

inline bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}
inline std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

// ---- weights by the formula of tests/reference/README.md ----

inline double unit(u32 hash, i64 position) {  // position from 1
  u32 z = static_cast<u32>(static_cast<u64>(position) * 2654435761u) + hash;
  z ^= z >> 16;
  z *= 2246822519u;
  z ^= z >> 13;
  return static_cast<double>(z) / 4294967296.0;
}
inline u32 fnv1a(const std::string& text) {
  u32 h = 2166136261u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
  return h;
}

/// offset + from_u u + from_v v factor of every element, u in [0,1), v = 2u - 1, rounded to f32.
struct Formula {
  double offset = 0, from_u = 0, from_v = 0, factor = 1;
};
inline Tensor by_formula(const std::string& name, const Shape& shape, const Formula& f) {
  Tensor t = Tensor::empty(shape);
  const u32 hash = fnv1a(name);
  float* const p = t.data<float>();
  for (i64 k = 0; k < t.numel(); ++k) {
    const double u = unit(hash, k + 1), v = 2 * u - 1;
    p[k] = static_cast<float>(f.offset + f.from_u * u + f.from_v * v * f.factor);
  }
  return t;
}
inline Tensor formula_image(const std::string& name, const Shape& shape) {
  return by_formula(name, shape, {0, 0, 1.5});
}
inline Formula formula_of(const std::string& name, const Shape& shape) {
  const std::string leaf = last_part(name);
  if (leaf == "running_mean") return {0, 0, 0.1};
  if (leaf == "running_var") return {1, 0.5, 0};
  if (leaf == "dt_bias") return {-1.5, 0, 1};
  if (leaf == "A_log") return {0.05, 0, 0.05};
  if (leaf == "gamma_1" || leaf == "gamma_2") return {0.5, 0, 0.25};
  if (shape.rank() >= 2)
    return {0, 0, 0.35, std::sqrt(3 / static_cast<double>(shape.numel() / shape[0]))};
  return leaf == "weight" ? Formula{1, 0, 0.1} : Formula{0, 0, 0.1};
}
template <class M>
void fill_by_formula(M& model) {
  for (Field& f : state_dict(model))
    if (last_part(f.name) != "angle" && last_part(f.name) != "num_batches_tracked")
      f.tensor.copy_from(
          by_formula(f.name, f.tensor.shape(), formula_of(f.name, f.tensor.shape())));
}

// ---- weights of golden_forward.json (algorithm 4.4) ----

inline double golden(u64 tensor, u64 element) {
  u64 z = (tensor << 32) + element + 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  z ^= z >> 31;
  return 2 * (static_cast<double>(z >> 11) * 0x1p-53) - 1;
}
template <class F>
void fill_golden(Tensor t, u64 index, F f) {
  visit_any(t.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_floating_point_v<T>)
      for (i64 e = 0; e < t.numel(); ++e)
        t.data<T>()[e] = static_cast<T>(f(golden(index, static_cast<u64>(e))));
  });
}
template <class M>
void fill_golden(M& model) {
  u64 index = 0;
  for (Field& f : state_dict(model)) {
    const std::string leaf = last_part(f.name);
    const Shape& s = f.tensor.shape();
    double offset = 0, factor = 0;
    const bool depthwise = s.rank() == 4 && s[1] == 1 && leaf == "weight";
    if (leaf == "running_mean")
      factor = 0.05;
    else if (leaf == "running_var")
      offset = 1, factor = 0.3;
    else if (leaf == "A_log")
      offset = 0.05, factor = 0.05;
    else if (leaf == "dt_bias")
      offset = -3, factor = 1;
    else if (leaf == "gamma_1" || leaf == "gamma_2")
      offset = 0.5, factor = 0.1;
    else if (leaf == "bias")
      factor = 0.05;
    else if (s.rank() == 1)
      offset = 1, factor = 0.1;
    else if (s.rank() >= 2) {
      const bool outer = f.name.rfind("patch_embed", 0) == 0 || f.name.rfind("proj", 0) == 0 ||
                         f.name.rfind("head", 0) == 0 ||
                         f.name.find("downsample") != std::string::npos;
      factor = std::sqrt(3 / static_cast<double>(s.numel() / s[0])) * (depthwise ? 0.2
                                                                       : outer   ? 1.0
                                                                                 : 0.5);
    }
    if (leaf != "num_batches_tracked" && leaf != "angle" && leaf != "decay")
      fill_golden(f.tensor, index, [=](double r) { return offset + factor * r; });
    ++index;
  }
}

}  // namespace models_test
