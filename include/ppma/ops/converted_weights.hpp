#pragma once
#include "ppma/core/names_begin.hpp"
// All weights of a training step in the narrower dtype of its activations, converted at once: a
// hundred layers would convert a hundred small tensors, which on a GPU costs launches, not work.

#include <map>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// While one lives, products of this thread find these weights in `dtype` here, where each would
/// convert its own. Nothing may change them meanwhile. The latest one counts.
class ConvertedWeights {
 public:
  /// Those of `weights` that a product beside activations of `dtype` converts: in its accumulator's
  /// dtype, if that is another. On the CPU none, where products convert as they go.
  PPMA_API ConvertedWeights(const std::vector<Tensor>& weights, DType dtype);
  PPMA_API ~ConvertedWeights();
  ConvertedWeights(const ConvertedWeights&) = delete;
  ConvertedWeights& operator=(const ConvertedWeights&) = delete;

  /// w in `dtype`; undefined: it is not among them.
  PPMA_API static Tensor find(const Tensor& w, DType dtype);

 private:
  std::map<const void*, Tensor> converted_;  // by where the weights' elements are
  ConvertedWeights* before_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_PRODUCTS)

#if PPMA_CUDA
#include "ppma/kernels/cuda/convert_many.cuh"
#endif

namespace ppma::inline PPMA_ABI {

namespace detail {
inline ConvertedWeights*& converted_weights_in_use() {
  thread_local ConvertedWeights* latest = nullptr;
  return latest;
}
}  // namespace detail

ConvertedWeights::ConvertedWeights([[maybe_unused]] const std::vector<Tensor>& weights,
                                   [[maybe_unused]] DType dtype)
    : before_(detail::converted_weights_in_use()) {
#if PPMA_CUDA
  if (dtype == DType::bf16) {
    kernels::ConvertMany many;
    std::vector<const Tensor*> taken;
    for (const Tensor& w : weights)
      if (w.defined() && w.device() == Device::cuda && w.dtype() == DType::f32 && w.numel() > 0)
        taken.push_back(&w), many.add(w.numel(), w.data<float>());
    Tensor all = Tensor::empty({many.room()}, dtype, Device::cuda);
    many.run(all.data<bf16>());
    for (std::size_t i = 0; i < taken.size(); ++i)
      converted_.emplace(taken[i]->raw(), all.part(many.place(i), taken[i]->shape()));
  }
#endif
  detail::converted_weights_in_use() = this;
}

ConvertedWeights::~ConvertedWeights() { detail::converted_weights_in_use() = before_; }

Tensor ConvertedWeights::find(const Tensor& w, DType dtype) {
  const ConvertedWeights* const in_use = detail::converted_weights_in_use();
  if (in_use == nullptr || in_use->converted_.empty()) return {};
  const auto at = in_use->converted_.find(w.raw());
  return at != in_use->converted_.end() && at->second.dtype() == dtype &&
                 at->second.shape() == w.shape()
             ? at->second
             : Tensor();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
