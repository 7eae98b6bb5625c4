#pragma once
#include "ppma/core/names_begin.hpp"
// recomputed(f, inputs): f(inputs) whose intermediate results are not kept. Backward computes them
// again (gradient checkpointing; Chen et al., "Training deep nets with sublinear memory cost",
// 2016): time for memory, and the same gradients to the last bit. A module's checkpoint, whose
// second pass is given the first one's random draws, is in nn/checkpoint.hpp.

#include <functional>
#include <vector>

#include "ppma/tensor/tape.hpp"

namespace ppma::inline PPMA_ABI {

/// One tensor of several.
using TensorFunction = std::function<Tensor(const std::vector<Tensor>& inputs)>;

/// f must depend on nothing that needs a gradient but its inputs, and must give the same result
/// twice.
PPMA_API Tensor recomputed(const TensorFunction& f, const std::vector<Tensor>& inputs);

/// Puts y on the tape, which somebody has computed unrecorded, as the result of f(inputs): f runs
/// in backward alone. With Leaves::hidden it may use leaves beside its inputs (parameters), and
/// they receive their gradients too. Returns y.
PPMA_API Tensor record_recomputed(const Tensor& y, const char* op,
                                  const std::vector<Tensor>& inputs, const TensorFunction& f,
                                  Leaves leaves);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TENSOR)

#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// f(inputs) once more, recorded, and what its inputs receive.
inline Grads differentiate_again(const TensorFunction& f, const std::vector<Tensor>& inputs,
                                 const std::vector<bool>& needed, const Tensor& dy) {
  const Recording on(true);  // backward itself runs under NoGrad
  std::vector<Tensor> in;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    in.push_back(inputs[i].detach());
    if (needed[i]) in.back().requires_grad(true);
  }
  f(in).backward(dy);
  Grads grads;
  for (const Tensor& t : in) grads.push_back(t.grad());
  return grads;
}

inline std::vector<Tensor> detached(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> all;
  for (const Tensor& t : tensors) all.push_back(t.detach());
  return all;
}

}  // namespace detail

Tensor record_recomputed(const Tensor& y, const char* op, const std::vector<Tensor>& inputs,
                         const TensorFunction& f, Leaves leaves) {
  std::vector<bool> needed;
  for (const Tensor& t : inputs) needed.push_back(t.requires_grad());
  return record(
      y.detach(), op, inputs,
      [f, kept = detail::detached(inputs), needed](const Tensor& dy) {
        return detail::differentiate_again(f, kept, needed, dy);
      },
      leaves);
}

Tensor recomputed(const TensorFunction& f, const std::vector<Tensor>& inputs) {
  if (!is_recorded(inputs)) return f(inputs);
  Tensor y;
  {
    const NoGrad not_recorded;
    y = f(detail::detached(inputs));
  }
  return record_recomputed(y, "recomputed", inputs, f, Leaves::of_inputs);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
