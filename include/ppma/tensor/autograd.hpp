#pragma once
#include "ppma/core/names_begin.hpp"
// Reverse-mode automatic differentiation with a tape by creation order.
//
// An op computes its output and calls
//
//   return record(out, "mul", {a, b}, [a, b](const Tensor& dy) { return Grads{mul(dy, b), mul(dy,
//   a)}; });
//
// Every recorded operation gets the next number. A result is always newer than what it was made
// from, so visiting the reachable operations from the newest to the oldest is a topological order:
// backward is a sort and a loop.
// Nothing here recurses, neither backward nor the release of a long chain.
//
// The closure returns one gradient per input, in order; an undefined Tensor means "none". A
// gradient may have the output's broadcast shape: the engine sums it back to the input's. Capture
// only what the formula needs, and only through detach() what is the op's own output (else it would
// own itself).
//
// Two ways to need less memory. An input that backward reads is captured as Saved(x): where x is
// cheap to compute again (made_again), that is what backward does. And a closure that can add to a
// gradient instead of writing one asks for gradient_so_far().

#include <functional>
#include <memory>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

using Grads = std::vector<Tensor>;
using Backward = std::function<Grads(const Tensor& dy)>;

struct Node;  // one recorded operation

/// How a result is computed again, for operations that need it in backward, and the copy while they
/// have use for it.
struct Again {
  std::function<Tensor()> make;
  Tensor made;
};

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

struct Node {
  u64 number;
  const char* op;
  std::vector<std::shared_ptr<GradInfo>> inputs;  // null where the input needs no gradient
  Shape shape;                                    // of the output
  Backward backward;                              // empty after it ran
};

namespace detail {

PPMA_API bool& recording();

// Who hears of leaves in a backward() of this thread.
PPMA_API const std::function<void(const GradInfo*)>*& leaf_watch();

// total += g, in place where nobody else sees total's elements.
PPMA_API void accumulate(Tensor& total, const Tensor& g, const char* op);

}  // namespace detail

/// While one is alive, operations of this thread are not recorded (evaluation, optimisers, backward
/// itself).
class NoGrad {
 public:
  NoGrad() : before_(detail::recording()) { detail::recording() = false; }
  ~NoGrad() { detail::recording() = before_; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// While one is alive, a backward() of this thread calls `done` for each leaf when nothing more
/// will be added to its gradient. Leaves that a checkpoint computes again are not told of; where
/// there is one, none is.
class LeafWatch {
 public:
  explicit LeafWatch(std::function<void(const GradInfo* leaf)> done)
      : done_(std::move(done)), before_(detail::leaf_watch()) {
    detail::leaf_watch() = &done_;
  }
  ~LeafWatch() { detail::leaf_watch() = before_; }
  LeafWatch(const LeafWatch&) = delete;
  LeafWatch& operator=(const LeafWatch&) = delete;

 private:
  std::function<void(const GradInfo*)> done_;
  const std::function<void(const GradInfo*)>* before_;
};

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
                       Backward backward);

/// Marks `y`, an operation's result just recorded, as one that is not worth its memory: make() must
/// give its elements again, to the last bit, and must not own y. What make reads must not change
/// between forward and backward. Returns y.
PPMA_API Tensor made_again(Tensor y, std::function<Tensor()> make);
#else
// The same without gradients: closures are dropped when the program is compiled, and with them the
// backward kernels.
constexpr bool needs_grad(std::initializer_list<Tensor>) { return false; }
constexpr bool is_recorded(const std::vector<Tensor>&) { return false; }
template <class F>
Tensor record(Tensor out, const char*, const std::vector<Tensor>&, F&&) {
  return out;
}
template <class F>
Tensor made_again(Tensor y, F&&) {
  return y;
}
#endif

/// What a closure keeps of an input that backward reads: the tensor, or how to make it again.
class Saved {
 public:
  Saved() = default;
  PPMA_API explicit Saved(const Tensor& x);
  /// Whether the elements lie there all the time.
  bool kept() const { return again_ == nullptr; }
  PPMA_API Tensor get() const;

 private:
  Tensor kept_;
  std::shared_ptr<Again> again_;
};

/// In a closure: what other operations have given as the gradient of input `i`, handed over to be
/// added to in place and returned; undefined where there is nothing or where others see its
/// elements.
PPMA_API Tensor gradient_so_far(std::size_t i);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TENSOR)

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

bool& recording() {
  thread_local bool on = true;
  return on;
}

const std::function<void(const GradInfo*)>*& leaf_watch() {
  thread_local const std::function<void(const GradInfo*)>* watch = nullptr;
  return watch;
}

// The operation whose closure runs, and where gradients of results are summed.
struct Running {
  const Node& node;
  std::unordered_map<const GradInfo*, Tensor>& sums;
  Running* before;

  Running(const Node& n, std::unordered_map<const GradInfo*, Tensor>& s)
      : node(n), sums(s), before(now()) {
    now() = this;
  }
  ~Running() { now() = before; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  static Running*& now() {
    thread_local Running* running = nullptr;
    return running;
  }
};

inline u64 next_number() {
  thread_local u64 n = 0;
  return ++n;
}

// Sums the axes of `g` that were broadcast from `shape`.
inline Tensor sum_to(const Tensor& g, const Shape& shape, const char* op) {
  if (g.shape() == shape) return g;
  check(broadcast(g.shape(), shape, op) == g.shape(), "backward of ", op, ": a gradient of shape ",
        g.shape(), " was returned for an input of shape ", shape);
  Tensor out = Tensor::empty(shape, g.dtype(), g.device());
  visit(g.device(), g.dtype(), op, [&](auto on, auto t) {
    using T = decltype(t);
    kernels::sum_to(on, g.shape(), g.data<T>(), shape, out.data<T>());
  });
  return out;
}

void accumulate(Tensor& total, const Tensor& g, const char* op) {
  if (!total.defined()) {
    total = g.detach();
    return;
  }
  if (!total.sole_owner()) total = total.clone();
  visit(g.device(), g.dtype(), op, [&](auto on, auto t) {
    using T = decltype(t);
    kernels::add_to(on, g.numel(), g.data<T>(), total.data<T>());
  });
}

}  // namespace detail

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

Tensor record(Tensor out, const char* op, const std::vector<Tensor>& inputs, Backward backward) {
  if (!is_recorded(inputs)) return out;
  auto node = std::make_shared<Node>();
  node->number = detail::next_number();
  node->op = op;
  for (const Tensor& t : inputs) node->inputs.push_back(t.info());
  node->shape = out.shape();
  node->backward = std::move(backward);
  auto info = std::make_shared<GradInfo>();
  info->shape = out.shape();
  info->dtype = out.dtype();
  info->made_by = std::move(node);
  out.set_info(std::move(info));
  return out;
}

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

Tensor gradient_so_far(std::size_t i) {
  detail::Running* const running = detail::Running::now();
  GradInfo* const input = running != nullptr ? running->node.inputs[i].get() : nullptr;
  if (input == nullptr) return Tensor();
  Tensor* sum = &input->grad;
  if (input->made_by) {
    const auto at = running->sums.find(input);
    if (at == running->sums.end()) return Tensor();
    sum = &at->second;
  }
  Tensor taken;
  if (sum->defined() && sum->sole_owner()) std::swap(taken, *sum);
  return taken;
}

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

void Tensor::backward() const { backward(Tensor()); }

#if !PPMA_GRADIENTS
void Tensor::backward(const Tensor&) const {
  fail("backward: nothing is recorded, this program was compiled with PPMA_GRADIENTS=0");
}
#else
void Tensor::backward(const Tensor& upstream) const {
  check(requires_grad(),
        "backward: nothing that made this tensor requires a gradient (a leaf needs "
        "requires_grad(true); "
        "nothing is recorded under NoGrad)");
  check(upstream.defined() || numel() == 1, "backward: a tensor of shape ", shape_,
        " needs an upstream gradient of the same shape; only a scalar has the implied gradient 1");
  check(!upstream.defined() || (upstream.shape() == shape_ && upstream.dtype() == dtype_),
        "backward: the upstream gradient is ", upstream.shape(), " ", upstream.dtype(),
        ", the tensor ", shape_, " ", dtype_);
  const NoGrad not_recorded;

  // The operations this tensor was made from, newest first.
  // of results whose operation has not run yet
  std::unordered_map<const GradInfo*, Tensor> gradient;
  std::vector<GradInfo*> order, to_visit{info_.get()};
  std::unordered_map<const GradInfo*, bool> seen{{info_.get(), true}};
  // results die when their operation's closure does: not before its turn
  std::vector<std::shared_ptr<GradInfo>> keep;
  while (!to_visit.empty()) {
    GradInfo* info = to_visit.back();
    to_visit.pop_back();
    if (!info->made_by) continue;
    order.push_back(info);
    for (const auto& input : info->made_by->inputs)
      if (input && seen.emplace(input.get(), true).second) {
        to_visit.push_back(input.get());
        keep.push_back(input);
      }
  }
  std::sort(order.begin(), order.end(), [](const GradInfo* a, const GradInfo* b) {
    return a->made_by->number > b->made_by->number;
  });

  // How many operations have yet to add to each leaf, if somebody wants to know.
  const auto* watch = detail::leaf_watch();
  std::unordered_map<const GradInfo*, i64> uses;
  for (const GradInfo* info : order) {
    if (watch != nullptr && std::string_view(info->made_by->op) == "checkpoint") watch = nullptr;
    if (watch == nullptr) break;
    for (const auto& input : info->made_by->inputs)
      if (input && !input->made_by) ++uses[input.get()];
  }
  const auto used = [&](const Node& node) {
    if (watch == nullptr) return;
    for (const auto& input : node.inputs)
      if (input && !input->made_by && --uses[input.get()] == 0) (*watch)(input.get());
  };

  const auto give = [&gradient](GradInfo* to, const Tensor& g, const char* op) {
    if (to->made_by) return detail::accumulate(gradient[to], g, op);
    // A leaf keeps its gradient: it must own it, since optimisers and clipping change it in place.
    if (!to->grad.defined())
      to->grad = g.sole_owner() ? g.detach() : g.clone();
    else
      detail::accumulate(to->grad, g, op);
  };
  // A copy of one's own: whether gradients are added in place must not depend on who else holds
  // this one.
  give(info_.get(), upstream.defined() ? upstream.clone() : Tensor::ones(shape_, dtype_, device()),
       "backward");

  for (GradInfo* info : order) {
    Node& node = *info->made_by;
    if (info->again) info->again->made = Tensor();  // who reads it is newer and has run
    auto pending = gradient.find(info);
    if (pending == gradient.end()) {  // no gradient flows here
      used(node);
      continue;
    }
    const Tensor dy = std::move(pending->second);
    gradient.erase(pending);
    check(static_cast<bool>(node.backward), "backward: ", node.op,
          " was already differentiated and its saved tensors are freed; compute the forward pass "
          "again");
    // The closure dies after its one use, and the activations that it holds with it.
    const Backward run = std::move(node.backward);
    node.backward = nullptr;
    if (info->again) info->again->make = nullptr;
    Grads grads = [&] {
      const detail::Running now(node, gradient);
      return run(dy);
    }();
    check(grads.size() == node.inputs.size(), "backward of ", node.op, ": ", grads.size(),
          " gradients for ", node.inputs.size(), " inputs");
    for (std::size_t i = 0; i < grads.size(); ++i) {
      GradInfo* input = node.inputs[i].get();
      if (input == nullptr || !grads[i].defined()) continue;
      Tensor g = std::move(grads[i]);
      check(g.dtype() == input->dtype, "backward of ", node.op, ": a gradient of dtype ", g.dtype(),
            " for input ", i, " of dtype ", input->dtype);
      g = detail::sum_to(g, input->shape, node.op);
      give(input, g, node.op);
    }
    used(node);
  }
}
#endif

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
