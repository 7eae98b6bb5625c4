#pragma once
#include "ppma/core/names_begin.hpp"
// What layers draw on the host, kept to be given again: to a captured step that is replayed
// (HostInputs), to a part of a pass that backward computes again (Draws).

#include <functional>
#include <vector>

#include "ppma/core/random.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// What a step draws on the host and sends to the device (drop path factors): kept, so that a
/// captured step can be replayed with new draws in the same place.
class HostInputs {
 public:
  /// Draws a tensor on the CPU.
  using Make = std::function<Tensor(Rng&)>;

  /// What `make` draws, on `device`: the first pass over a step remembers it, later ones return the
  /// same tensors.
  PPMA_API Tensor get(const Make& make, Rng& rng, Device device);
  /// New draws into the same tensors, from the first on.
  void refill(Rng rng) {
    refill(rng, [](Tensor& to, const Tensor& drawn) { to.copy_from(drawn); });
  }
  /// The same with put(tensor, draw on the CPU), which may send them later and together.
  template <class Put>
  void refill(Rng rng, Put&& put) {
    for (Input& in : inputs_) put(in.tensor, in.make(rng));
    next_ = 0;
  }

 private:
  struct Input {
    Tensor tensor;
    Make make;
  };
  std::vector<Input> inputs_;
  std::size_t next_ = 0;
};

/// What a part of a pass has drawn, to be given again when that part is computed again
/// (nn/checkpoint.hpp).
class Draws {
 public:
  /// What `draw` draws; when replaying, what it drew then.
  template <class Draw>
  Tensor get(Draw&& draw) {
    if (next_ < tensors_.size()) return tensors_[next_++];
    check(!replaying_, "checkpoint: the second pass draws more than the first did");
    tensors_.push_back(draw());
    ++next_;
    return tensors_.back();
  }
  /// From here on the draws come again, from the first.
  void replay() { next_ = 0, replaying_ = true; }

 private:
  std::vector<Tensor> tensors_;
  std::size_t next_ = 0;
  bool replaying_ = false;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NN)

namespace ppma::inline PPMA_ABI {

Tensor HostInputs::get(const Make& make, Rng& rng, Device device) {
  if (next_ < inputs_.size()) return inputs_[next_++].tensor;
  inputs_.push_back({make(rng).to(device), make});
  ++next_;
  return inputs_.back().tensor;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
