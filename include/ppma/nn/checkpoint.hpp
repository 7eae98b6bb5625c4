#pragma once
#include "ppma/core/names_begin.hpp"
// checkpoint(f, x, context): f(x, context) of which only x is kept; backward computes the rest
// again (tensor/recompute.hpp).
//
// What is drawn in the first pass (drop path, dropout) is kept, and given again in the second. f
// may use parameters: they are leaves, and receive their gradients in the second pass. It must not
// change buffers (batch statistics), which would be changed twice.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ppma/nn/context.hpp"
#include "ppma/nn/draws.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/recompute.hpp"

namespace ppma::inline PPMA_ABI {

/// f(x, context) -> Tensor, a function that is kept until backward: it should own (handles of) what
/// it uses. Where x needs no gradient, f is simply called.
template <class F>
Tensor checkpoint(F f, const Tensor& x, Context& context) {
  if (!needs_grad({x})) return f(x, context);
  check(context.draws == nullptr, "checkpoint: one within another; the outer one alone is enough");
  const auto draws = std::make_shared<Draws>();
  Context first = context, again;  // of the second pass watchers do not hear
  first.draws = draws.get();
  again.training = context.training, again.rng = context.rng;
  // layers may ask whether there is one
  if (context.observe) again.observe = [](const std::string&, const Tensor&) {};
  Tensor y;
  {
    const NoGrad not_recorded;
    y = f(x.detach(), first);
  }
  context.rng = first.rng;
  const auto second = [f = std::move(f), again, draws](const std::vector<Tensor>& in) {
    Context replayed = again;
    replayed.draws = draws.get();
    draws->replay();
    return f(in[0], replayed);
  };
  return record_recomputed(y, "checkpoint", {x}, second, Leaves::hidden);
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
