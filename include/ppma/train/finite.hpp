#pragma once
#include "ppma/core/names_begin.hpp"
// No NaN and no infinity goes into a checkpoint: weights that diverged would be kept as the last
// and best ones, and the run could never go on. Told by their bits, which -ffast-math leaves alone.

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "ppma/optim/parameters.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Whether a 16, 32 or 64 bit floating-point number has the exponent of infinity and NaN.
template <class Bits>
bool all_finite(const void* data, i64 n, Bits exponent) {
  const u8* const bytes = static_cast<const u8*>(data);
  Bits found = 0;
  for (i64 i = 0; i < n; ++i) {
    Bits b;
    std::memcpy(&b, bytes + static_cast<std::size_t>(i) * sizeof b, sizeof b);
    found = static_cast<Bits>(found | static_cast<Bits>((b & exponent) == exponent));
  }
  return found == 0;
}

}  // namespace detail

/// Whether no element is NaN or infinite. Whole numbers are finite.
PPMA_API bool all_finite(const Tensor& t);

/// Error unless all are finite: what `where` says, and the first tensor that is not.
template <class Tensors>
void require_finite(const Tensors& tensors, const std::string& where) {
  for (const auto& [name, tensor] : tensors)
    check(all_finite(tensor), where, ": ", name,
          " holds values that are NaN or infinite: the training has diverged; lower the learning"
          " rate, warm up longer or clip the gradients. What was saved before stays as it is");
}

namespace detail {

/// The first of what a batch goes through that is not finite, in words. `pass` computes its loss
/// once more and calls what it is given for each module's output; the network's tensors `state` are
/// then brought back to what they were.
PPMA_API std::string first_not_finite(
    TensorMap& state, const Tensor& images,
    const std::function<void(std::function<void(const std::string&, const Tensor&)>)>& pass);
/// The first parameter with such a gradient, in words; empty: there is none.
PPMA_API std::string gradient_not_finite(const std::vector<Parameter>& parameters);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include "ppma/core/float_bits.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

bool all_finite(const Tensor& t) {
  if (t.dtype() == DType::int64 || t.dtype() == DType::uint8) return true;
  if (t.device() == Device::cuda) {  // 0 times what is not finite is NaN: one number leaves the GPU
    const NoGrad not_recorded;
    return is_finite(sum(scale(t, 0)).item());
  }
  const Tensor here = t.to(Device::cpu);
  if (t.dtype() == DType::f32) return detail::all_finite<u32>(here.raw(), t.numel(), 0x7f800000u);
  if (t.dtype() == DType::bf16)
    return detail::all_finite<std::uint16_t>(here.raw(), t.numel(), std::uint16_t{0x7f80});
  return detail::all_finite<u64>(here.raw(), t.numel(), u64{0x7ff0000000000000});
}

namespace detail {

std::string first_not_finite(
    TensorMap& state, const Tensor& images,
    const std::function<void(std::function<void(const std::string&, const Tensor&)>)>& pass) {
  const NoGrad no_gradients;
  std::vector<Tensor> kept;
  for (const auto& named : state) kept.push_back(named.second.clone());
  std::string first, last;
  pass([&](const std::string& path, const Tensor& output) {
    last = path.empty() ? "the network's output" : "the output of " + path;
    if (first.empty() && !all_finite(output)) first = last;
  });
  for (std::size_t i = 0; i < kept.size(); ++i) state[i].second.copy_from(kept[i]);
  if (!all_finite(images)) return "what the batch holds of images";  // all processes made the pass
  return first.empty() && !last.empty() ? "something behind " + last : first;
}

std::string gradient_not_finite(const std::vector<Parameter>& parameters) {
  for (const Parameter& p : parameters)
    if (p.tensor.grad().defined() && !all_finite(p.tensor.grad())) return "that of " + p.name;
  return "";
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
