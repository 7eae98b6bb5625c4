#pragma once
#include "ppma/core/names_begin.hpp"
// Inputs that backward reads and that are not worth their memory: a closure captures Saved(x), and
// where x was marked by made_again(), backward computes it again instead of finding it kept.

#include <functional>
#include <memory>

#include "ppma/tensor/tape.hpp"

namespace ppma::inline PPMA_ABI {

/// How a result is computed again, for operations that need it in backward, and the copy while they
/// have use for it.
struct Again {
  std::function<Tensor()> make;
  Tensor made;
};

#if PPMA_GRADIENTS
/// Marks `y`, an operation's result just recorded, as one that is not worth its memory: make() must
/// give its elements again, to the last bit, and must not own y. What make reads must not change
/// between forward and backward. Returns y.
PPMA_API Tensor made_again(Tensor y, std::function<Tensor()> make);
#else
template <class F>
Tensor made_again(Tensor y, F&&) {
  return y;
}
#endif

/// Whether y is large enough to be made again: on a GPU a map of at most 16 MB is kept, made again
/// it saves nothing worth its pass.
inline bool worth_making_again(const Tensor& y) {
  return y.device() == Device::cpu || y.bytes() > (i64{16} << 20);
}

/// What a closure keeps of an input that backward reads: the tensor, or how to make it again.
class Saved {
 public:
  Saved() = default;
  /// Keeps x, or how to make it again where that is known.
  PPMA_API explicit Saved(const Tensor& x);
  /// Whether the elements lie there all the time.
  bool kept() const { return again_ == nullptr; }
  /// The elements, made again if need be.
  PPMA_API Tensor get() const;

 private:
  Tensor kept_;
  std::shared_ptr<Again> again_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TENSOR)

namespace ppma::inline PPMA_ABI {

#if PPMA_GRADIENTS

Tensor made_again(Tensor y, std::function<Tensor()> make) {
  if (y.info() != nullptr)
    y.info()->again = std::make_shared<Again>(Again{std::move(make), Tensor()});
  return y;
}

#endif

Saved::Saved(const Tensor& x) {
  if (x.info() != nullptr) again_ = x.info()->again;
  if (again_ == nullptr) kept_ = x.detach();
}

Tensor Saved::get() const {
  if (again_ == nullptr) return kept_;
  if (!again_->made.defined()) {
    check(static_cast<bool>(again_->make),
          "backward: what made a saved tensor was already differentiated; compute the forward pass "
          "again");
    again_->made = again_->make();
  }
  return again_->made;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
