#pragma once
#include "ppma/core/names_begin.hpp"
// checkpoint(f, x, context): f(x, context) of which only x is kept. Backward computes the rest
// again (Chen et al., "Training deep nets with sublinear memory cost", 2016): time for memory, and
// the same gradients to the last bit.
//
// What is drawn in the first pass (drop path, dropout) is kept, and given again in the second. f
// may use parameters:
// they are leaves, and receive their gradients in the second pass. It must not change buffers
// (batch statistics), which would be changed twice.

#include <memory>

#include "ppma/nn/module.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Backward runs unrecorded; the second pass is recorded.
class RecordAgain {
 public:
  RecordAgain() : before_(recording()) { recording() = true; }
  ~RecordAgain() { recording() = before_; }
  RecordAgain(const RecordAgain&) = delete;
  RecordAgain& operator=(const RecordAgain&) = delete;

 private:
  bool before_;
};

}  // namespace detail

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
    y = f(x.detach(), first).detach();
  }
  context.rng = first.rng;
  return record(y, "checkpoint", {x},
                [f = std::move(f), kept = x.detach(), again, draws](const Tensor& dy) mutable {
                  const detail::RecordAgain on;
                  Tensor in = kept.detach();
                  in.requires_grad(true);
                  draws->replay();
                  again.draws = draws.get();
                  f(in, again).backward(dy);
                  return Grads{in.grad()};
                });
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
