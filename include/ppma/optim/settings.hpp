#pragma once
#include "ppma/core/names_begin.hpp"
// What changes from step to step, where the update reads it: on the CPU in plain numbers, on the
// GPU in its memory, written by a kernel in the order of the stream. A captured step reads what was
// set before each of its replays.

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// What to multiply gradients of this norm by, so that it becomes at most `limit` (PyTorch's
/// clip_grad_norm_); 1 when limit is 0, for no clipping. Pass it to the optimiser's step.
PPMA_API double clip_factor(double norm, double limit);

namespace detail {

class StepSettings {
 public:
  double rate = 0, gradient_factor = 1;

  explicit StepSettings(Device device) {
    if (device == Device::cuda) there_ = Tensor::zeros({2}, DType::f64, device);
  }
  PPMA_API void set(double new_rate, double new_factor);
  /// The gradients' factor with clipping, on the CPU.
  PPMA_API double factor(const Tensor& norm, double limit) const;
  const kernels::StepSettings* on_gpu() const {
    return static_cast<const kernels::StepSettings*>(there_.raw());
  }

 private:
  Tensor there_;  // (rate, gradient_factor) on the GPU
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPTIM)

#include <algorithm>
#include <vector>

#include "ppma/optim/parameters.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cuda/update.cuh"
#endif

namespace ppma::inline PPMA_ABI {

double clip_factor(double norm, double limit) {
  check(limit >= 0, "clip: the limit is ", limit, "; use a positive one, or 0 for none");
  return limit == 0 ? 1.0 : std::min(1.0, limit / (norm + 1e-6));
}

namespace detail {

void StepSettings::set(double new_rate, double new_factor) {
  rate = new_rate, gradient_factor = new_factor;
#if PPMA_CUDA
  if (!there_.defined()) return;
  kernels::detail::set_step<<<1, 1, 0, cuda::stream()>>>(
      static_cast<kernels::StepSettings*>(there_.raw()),
      kernels::StepSettings{rate, gradient_factor});
  cuda::launched("optimizer");
#endif
}

double StepSettings::factor(const Tensor& norm, double limit) const {
  return norm.defined() ? gradient_factor * clip_factor(gradient_factor * norm.item(), limit)
                        : gradient_factor;
}

#if PPMA_CUDA
inline std::vector<kernels::TableEntry> table_entries(const std::vector<Parameter>& parameters) {
  std::vector<kernels::TableEntry> entries;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    entries.push_back({i, parameters[i].weight_decay, parameters[i].rate_factor});
  return entries;
}

// Puts a tensor's arrays into a slot; false where there is no gradient, no element, or another
// dtype than T.
template <class T, class Table, class... Arrays>
bool put_arrays(Table& table, int slot, const Tensor& gradient, const Arrays&... arrays) {
  if (!gradient.defined() || gradient.numel() == 0 || gradient.dtype() != dtype_of<T>) return false;
  int k = 0;
  ((table.array[k++][slot] = Tensor(arrays).template data<T>()), ...);
  return true;
}
#endif

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
