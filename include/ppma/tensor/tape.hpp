#pragma once
#include "ppma/core/names_begin.hpp"
// The tape: which operation made a tensor, and how it is differentiated.
//
// An op computes its output and calls
//
//   return record(out, "mul", {a, b}, [a, b](const Tensor& dy) {
//     return Grads{mul(dy, b), mul(dy, a)};
//   });
//
// The closure returns one gradient per input, in order; an undefined Tensor means "none". A
// gradient may have the output's broadcast shape: the engine sums it back to the input's. Capture
// only what the formula needs, an input as Saved(x) (tensor/saved.hpp), and only through detach()
// what is the op's own output (else it would own itself).

#include <functional>
#include <memory>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Gradients of an operation's inputs, in their order; undefined: none.
using Grads = std::vector<Tensor>;
/// From the gradient of the result.
using Backward = std::function<Grads(const Tensor& dy)>;

struct Node;   // one recorded operation
struct Again;  // how a result is computed again (tensor/saved.hpp)

/// What autograd knows about a tensor: a leaf has a gradient, a result has the operation that made
/// it.
struct GradInfo {
  Tensor grad;
  std::shared_ptr<Node> made_by;
  std::shared_ptr<Again> again;  // null: the elements themselves are kept
  Shape shape;
  DType dtype = DType::f32;

  PPMA_API ~GradInfo();
};

/// Which leaves the closure of an operation gives gradients to: through its inputs alone, or to
/// others as well, by a backward() of its own (tensor/recompute.hpp).
enum class Leaves { of_inputs, hidden };

struct Node {
  u64 number;  // of creation: what an operation was made from has a smaller one
  const char* op;
  std::vector<std::shared_ptr<GradInfo>> inputs;  // null where the input needs no gradient
  Shape shape;                                    // of the output
  Backward backward;                              // empty after it ran
  Leaves leaves;
};

namespace detail {

PPMA_API bool& recording();

// While one is alive, operations of this thread are recorded, or are not.
class Recording {
 public:
  explicit Recording(bool on) : before_(recording()) { recording() = on; }
  ~Recording() { recording() = before_; }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  bool before_;
};

}  // namespace detail

/// While one is alive, operations of this thread are not recorded (evaluation, optimisers, backward
/// itself).
class NoGrad : detail::Recording {
 public:
  NoGrad() : Recording(false) {}
};

/// Whether this thread records operations (NoGrad).
PPMA_API bool grad_enabled();

#if PPMA_GRADIENTS
/// True if an operation on `inputs` would be recorded: ask before saving something only backward
/// needs.
PPMA_API bool needs_grad(std::initializer_list<Tensor> inputs);

/// Whether an operation on these inputs goes on the tape.
PPMA_API bool is_recorded(const std::vector<Tensor>& inputs);

/// Puts the operation that made `out` on the tape, if any input needs a gradient; returns `out`.
/// The only way in.
PPMA_API Tensor record(Tensor out, const char* op, const std::vector<Tensor>& inputs,
                       Backward backward, Leaves leaves = Leaves::of_inputs);
#else
// The same without gradients: closures are dropped when the program is compiled, and with them the
// backward kernels.
constexpr bool needs_grad(std::initializer_list<Tensor>) { return false; }
constexpr bool is_recorded(const std::vector<Tensor>&) { return false; }
template <class F>
Tensor record(Tensor out, const char*, const std::vector<Tensor>&, F&&,
              Leaves = Leaves::of_inputs) {
  return out;
}
#endif

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TENSOR)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

bool& detail::recording() {
  thread_local bool on = true;
  return on;
}

bool grad_enabled() { return PPMA_GRADIENTS && detail::recording(); }

#if PPMA_GRADIENTS

bool needs_grad(std::initializer_list<Tensor> inputs) {
  return grad_enabled() && std::any_of(inputs.begin(), inputs.end(),
                                       [](const Tensor& t) { return t.requires_grad(); });
}

bool is_recorded(const std::vector<Tensor>& inputs) {
  return grad_enabled() && std::any_of(inputs.begin(), inputs.end(),
                                       [](const Tensor& t) { return t.requires_grad(); });
}

Tensor record(Tensor out, const char* op, const std::vector<Tensor>& inputs, Backward backward,
              Leaves leaves) {
  if (!is_recorded(inputs)) return out;
  thread_local u64 made = 0;
  auto node = std::make_shared<Node>();
  node->number = ++made;
  node->op = op;
  for (const Tensor& t : inputs) node->inputs.push_back(t.info());
  node->shape = out.shape();
  node->backward = std::move(backward);
  node->leaves = leaves;
  auto info = std::make_shared<GradInfo>();
  info->shape = out.shape();
  info->dtype = out.dtype();
  info->made_by = std::move(node);
  out.set_info(std::move(info));
  return out;
}

#endif

// A chain of operations is owned link by link; destroying it naively would recurse once per link.
// Each dying GradInfo hands its operation to a list instead, and the first one in empties the list.
GradInfo::~GradInfo() {
  if (!made_by) return;
  thread_local std::vector<std::shared_ptr<Node>>* list = nullptr;
  if (list != nullptr) {
    list->push_back(std::move(made_by));
    return;
  }
  std::vector<std::shared_ptr<Node>> dying;
  list = &dying;
  dying.push_back(std::move(made_by));
  while (!dying.empty()) {
    const std::shared_ptr<Node> node = std::move(dying.back());
    dying.pop_back();
  }  // node dies here: its closure and inputs may push more
  list = nullptr;
}

Tensor& Tensor::requires_grad(bool on) {
  check(defined(), "requires_grad: the tensor is undefined");
  check(PPMA_GRADIENTS || !on, "requires_grad: this program was compiled with PPMA_GRADIENTS=0");
  check(!on || dtype_ == DType::f32 || dtype_ == DType::f64 || dtype_ == DType::bf16,
        "requires_grad: ", dtype_, " tensors have no gradient; only floating ones do");
  check(info_ == nullptr || info_->made_by == nullptr,
        "requires_grad: only a leaf can be marked, this tensor is a result; detach() it first");
  if (!on) {
    info_ = nullptr;
  } else if (info_ == nullptr) {
    info_ = std::make_shared<GradInfo>();
    info_->shape = shape_;
    info_->dtype = dtype_;
  }
  return *this;
}

Tensor Tensor::grad() const { return info_ ? info_->grad : Tensor(); }

void Tensor::set_grad(const Tensor& gradient) {
  if (info_ == nullptr && !gradient.defined()) return;
  check(info_ != nullptr, "set_grad: the tensor of shape ", shape_, " does not require a gradient");
  check(!gradient.defined() || gradient.shape() == shape_, "set_grad: a gradient of shape ",
        gradient.shape(), " for a tensor of shape ", shape_);
  info_->grad = gradient.detach();
}

void Tensor::zero_grad() { set_grad(Tensor()); }

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
