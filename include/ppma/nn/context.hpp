#pragma once
#include "ppma/core/names_begin.hpp"
// Context: what a module's forward is told beside its input. Training or evaluation is an argument,
// not a state of the layers.

#include <functional>
#include <string>

#include "ppma/core/random.hpp"
#include "ppma/nn/draws.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

struct Communicator;  // parallel/communicator.hpp

/// What a forward pass is for: training (batch statistics, drop path, drawn from rng) or
/// evaluation; and who watches.
struct Context {
  bool training = false;
  Rng rng{};
  /// Called with a module's path, "layers.0.blocks.1.retention", and its output, as the pass goes
  /// by; may be empty.
  std::function<void(const std::string& path, const Tensor& output)> observe{};

  HostInputs* host_inputs = nullptr;  // of a step that is captured and replayed
  // keep only the inputs of the backbone's blocks; backward computes them again
  bool checkpoint_blocks = false;
  Draws* draws = nullptr;  // of a part that will be, or is being, computed again
  // processes that have equal parts of the batch: batch norm is over all of them
  const Communicator* among = nullptr;

  /// make(rng) on a device: every number that a layer draws on the host passes here.
  /// Of a batch in several processes each has its own part of what one process would draw for the
  /// whole.
  PPMA_API Tensor drawn(Device device, const HostInputs::Make& make_one);

  /// What drop path of probability p multiplies a branch's samples with, (B), for tokens
  /// x (B, ...); undefined where nothing is dropped: p is 0, or in evaluation.
  PPMA_API Tensor drop_path(const Tensor& x, double p);

  /// Shows the output of the module whose Scope is innermost; returns it.
  PPMA_API Tensor seen(Tensor output) const;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NN)

#include "ppma/ops/dropout.hpp"
#include "ppma/parallel/communicator.hpp"

namespace ppma::inline PPMA_ABI {

Tensor Context::drawn(Device device, const HostInputs::Make& make_one) {
  const HostInputs::Make make =
      among == nullptr ? make_one : [make_one, rank = among->rank, size = among->size](Rng& r) {
        Tensor mine;
        for (i64 i = 0; i < size; ++i) {
          const Tensor part = make_one(r);
          if (i == rank) mine = part;
        }
        return mine;
      };
  const auto draw = [&] {
    return host_inputs ? host_inputs->get(make, rng, device) : make(rng).to(device);
  };
  return draws ? draws->get(draw) : draw();
}

Tensor Context::drop_path(const Tensor& x, double p) {
  if (!training || p == 0) return Tensor();
  return drawn(x.device(), [batch = x.dim(0), p, dtype = accumulator_dtype(x.dtype())](Rng& r) {
    return drop_path_factors(batch, p, r, dtype);
  });
}

Tensor Context::seen(Tensor output) const {
  if (observe) observe(Scope::path(), output);
  return output;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
