#pragma once
#include "ppma/core/names_begin.hpp"
// recomputed(f, inputs): f(inputs) whose intermediate results are not kept. Backward computes them
// again (gradient checkpointing; Chen et al., "Training deep nets with sublinear memory cost",
// 2016): time for memory.

#include <functional>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// f must depend on nothing that needs a gradient but its inputs, and must give the same result
/// twice.
PPMA_API Tensor recomputed(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                           const std::vector<Tensor>& inputs);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor recomputed(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                  const std::vector<Tensor>& inputs) {
  Tensor y;
  std::vector<Tensor> kept;
  std::vector<bool> needs;
  for (const Tensor& t : inputs) kept.push_back(t.detach()), needs.push_back(t.requires_grad());
  {
    const NoGrad not_recorded;
    y = f(kept);
  }
  return record(y.detach(), "recomputed", inputs, [f, kept, needs](const Tensor& dy) {
    struct Recording {  // backward itself runs under NoGrad
      bool before = detail::recording();
      Recording() { detail::recording() = true; }
      ~Recording() { detail::recording() = before; }
    };
    std::vector<Tensor> in;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      in.push_back(kept[i].detach());
      if (needs[i]) in.back().requires_grad(true);
    }
    {
      const Recording on;
      f(in).backward(dy);
    }
    Grads grads;
    for (const Tensor& t : in) grads.push_back(t.grad());
    return grads;
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
