#pragma once
#include "ppma/core/names_begin.hpp"
// Reverse-mode automatic differentiation with a tape by creation order.
//
// Every recorded operation (tensor/tape.hpp) gets the next number. A result is always newer than
// what it was made from, so visiting the reachable operations from the newest to the oldest is a
// topological order: backward is a sort and a loop. Nothing here recurses, neither backward nor the
// release of a long chain.
//
// Two ways to need less memory. An input that backward reads is captured as Saved(x)
// (tensor/saved.hpp): where x is cheap to compute again, that is what backward does. And a closure
// that can add to a gradient instead of writing one asks for gradient_so_far().

#include <functional>

#include "ppma/tensor/saved.hpp"
#include "ppma/tensor/tape.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Who hears of leaves while backward() still computes.
struct LeafListener {
  /// Nothing more will be added to this leaf's gradient, whose elements need not be there: on the
  /// GPU the last stages of many sums are one launch. True: they are wanted now, with those of all
  /// leaves before.
  std::function<bool(const GradInfo* leaf)> done;
  /// Called then, when they are there.
  std::function<void()> there;
};

/// of.backward(upstream), which may be undefined for a scalar, and `listener` hears of each leaf as
/// soon as its gradient is complete; may be null. Where an operation has hidden leaves (a
/// checkpoint), it hears of none: nobody knows beforehand what that operation will add to.
PPMA_API void backward(const Tensor& of, const Tensor& upstream, const LeafListener* listener);

/// In a closure: what other operations have given as the gradient of input `i`, handed over to be
/// added to in place and returned; undefined where there is nothing or where others see its
/// elements.
PPMA_API Tensor gradient_so_far(std::size_t i);

namespace detail {

// The first n elements of t become `factor` times themselves.
PPMA_API void multiply(Tensor& t, i64 n, double factor);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TENSOR)

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "ppma/kernels/cpu/later_sums.hpp"
#include "ppma/kernels/cpu/reduce.hpp"
#include "ppma/kernels/cpu/times.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

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

void multiply(Tensor& t, i64 n, double factor) {
  visit(t.device(), t.dtype(), "multiply", [&](auto on, auto zero) {
    using T = decltype(zero);
    T* const x = t.data<T>();
    kernels::map(on, n, static_cast<const T*>(x), x, kernels::Times{factor});
  });
}

// total += g, in place where nobody else sees total's elements.
inline void accumulate(Tensor& total, const Tensor& g, const char* op) {
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

// One backward().
class Sweep {
 public:
  Sweep(const Tensor& of, const LeafListener* listener) : listener_(listener) {
    find_operations(of.info().get());
    count_uses();
  }

  // Adds g to what `to` has so far.
  void give(GradInfo* to, const Tensor& g, const char* op) {
    if (to->made_by) return accumulate(gradients_[to], g, op);
    // A leaf keeps its gradient: it must own it, since optimisers and clipping change it in place.
    if (!to->grad.defined())
      to->grad = g.sole_owner() ? g.detach() : g.clone();
    else
      accumulate(read(to->grad), read(g), op);
  }

  void run() {
    for (GradInfo* result : order_) {
      if (result->again) result->again->made = Tensor();  // who reads it is newer and has run
      const auto pending = gradients_.find(result);
      if (pending != gradients_.end()) {  // else no gradient flows here
        const Tensor dy = std::move(pending->second);
        gradients_.erase(pending);
        differentiate(*result, dy);
      }
      count_off(*result->made_by);
    }
    later_.run();
  }

  // The gradient of input i of the operation whose closure runs, if it can be handed over.
  static Tensor taken(std::size_t i) {
    Sweep* const sweep = running();
    GradInfo* const input = sweep != nullptr ? sweep->node_->inputs[i].get() : nullptr;
    if (input == nullptr) return Tensor();
    Tensor* sum = &input->grad;
    if (input->made_by) {
      const auto at = running()->gradients_.find(input);
      if (at == running()->gradients_.end()) return Tensor();
      sum = &at->second;
    }
    Tensor gradient;
    if (sum->defined() && sum->sole_owner()) std::swap(gradient, *sum);
    return gradient.defined() ? sweep->read(gradient) : gradient;
  }

 private:
  // The results that `last` was made from, newest first.
  void find_operations(GradInfo* last) {
    std::vector<GradInfo*> to_visit{last};
    std::unordered_map<const GradInfo*, bool> seen{{last, true}};
    while (!to_visit.empty()) {
      GradInfo* const info = to_visit.back();
      to_visit.pop_back();
      if (!info->made_by) continue;
      order_.push_back(info);
      for (const auto& input : info->made_by->inputs)
        if (input && seen.emplace(input.get(), true).second) {
          to_visit.push_back(input.get());
          keep_.push_back(input);
        }
    }
    std::sort(order_.begin(), order_.end(), [](const GradInfo* a, const GradInfo* b) {
      return a->made_by->number > b->made_by->number;
    });
  }

  void count_uses() {
    told_ = listener_ != nullptr &&
            std::all_of(order_.begin(), order_.end(), [](const GradInfo* result) {
              return result->made_by->leaves == Leaves::of_inputs;
            });
    if (!told_) return;
    for (const GradInfo* result : order_)
      for (const auto& input : result->made_by->inputs)
        if (input && !input->made_by) ++uses_[input.get()];
  }

  void count_off(const Node& node) {
    if (!told_) return;
    bool wanted = false;
    for (const auto& input : node.inputs)
      if (input && !input->made_by && --uses_[input.get()] == 0)
        wanted = listener_->done(input.get()) || wanted;
    if (!wanted) return;
    later_.run();
    listener_->there();
  }

  // t, whose elements are there.
  template <class T>
  T& read(T& t) {
    if (later_.waits(std::as_const(t).raw())) later_.run();
    return t;
  }

  // How many of an operation's gradients a leaf takes over as they are, though they are not there.
  std::size_t unread(const Node& node, const Grads& grads) const {
    std::size_t n = 0;
    for (std::size_t i = 0; i < grads.size(); ++i) {
      const GradInfo* const leaf = node.inputs[i].get();
      const Tensor& g = grads[i];
      n += leaf && !leaf->made_by && !leaf->grad.defined() && g.defined() && g.sole_owner() &&
           g.shape() == leaf->shape && later_.waits(g.raw());
    }
    return n;
  }

  void differentiate(GradInfo& result, const Tensor& dy) {
    Node& node = *result.made_by;
    check(static_cast<bool>(node.backward), "backward: ", node.op,
          " was already differentiated and its saved tensors are freed; compute the forward pass "
          "again");
    const std::size_t before = later_.waiting();
    Grads grads = run_closure(result, dy);
    check(grads.size() == node.inputs.size(), "backward of ", node.op, ": ", grads.size(),
          " gradients for ", node.inputs.size(), " inputs");
    if (later_.full() || later_.waiting() - before != unread(node, grads)) later_.run();
    for (std::size_t i = 0; i < grads.size(); ++i) {
      GradInfo* const input = node.inputs[i].get();
      if (input == nullptr || !grads[i].defined()) continue;
      Tensor g = std::move(grads[i]);
      check(g.dtype() == input->dtype, "backward of ", node.op, ": a gradient of dtype ", g.dtype(),
            " for input ", i, " of dtype ", input->dtype);
      g = sum_to(g, input->shape, node.op);
      give(input, g, node.op);
    }
  }

  Grads run_closure(GradInfo& result, const Tensor& dy) {
    struct Running {  // a closure may have a sweep of its own
      Sweep* before;
      kernels::LaterSums* collecting;
      explicit Running(Sweep* now)
          : before(std::exchange(running(), now)),
            collecting(std::exchange(kernels::LaterSums::in_use(), &now->later_)) {}
      ~Running() { running() = before, kernels::LaterSums::in_use() = collecting; }
      Running(const Running&) = delete;
      Running& operator=(const Running&) = delete;
    };
    node_ = result.made_by.get();
    // The closure dies after its one use, and the activations that it holds with it.
    const Backward closure = std::exchange(result.made_by->backward, nullptr);
    if (result.again) result.again->make = nullptr;
    const Running now(this);
    return closure(dy);
  }

  static Sweep*& running() {
    thread_local Sweep* sweep = nullptr;
    return sweep;
  }

  const LeafListener* listener_;  // null: nobody
  bool told_ = false;             // whether it hears of leaves
  std::vector<GradInfo*> order_;
  // results die when their operation's closure does: not before its turn
  std::vector<std::shared_ptr<GradInfo>> keep_;
  std::unordered_map<const GradInfo*, Tensor>
      gradients_;                                  // of results, their operation's turn to come
  std::unordered_map<const GradInfo*, i64> uses_;  // operations that have yet to add to a leaf
  const Node* node_ = nullptr;                     // whose closure runs
  kernels::LaterSums later_;                       // of leaves' gradients
};

}  // namespace detail

Tensor gradient_so_far(std::size_t i) { return detail::Sweep::taken(i); }

void Tensor::backward() const { backward(Tensor()); }

void Tensor::backward(const Tensor& upstream) const { ppma::backward(*this, upstream, nullptr); }

#if PPMA_GRADIENTS
void backward(const Tensor& of, const Tensor& upstream, const LeafListener* listener) {
  check(of.requires_grad(),
        "backward: nothing that made this tensor requires a gradient (a leaf needs "
        "requires_grad(true); "
        "nothing is recorded under NoGrad)");
  check(upstream.defined() || of.numel() == 1, "backward: a tensor of shape ", of.shape(),
        " needs an upstream gradient of the same shape; only a scalar has the implied gradient 1");
  check(!upstream.defined() || (upstream.shape() == of.shape() && upstream.dtype() == of.dtype()),
        "backward: the upstream gradient is ", upstream.shape(), " ", upstream.dtype(),
        ", the tensor ", of.shape(), " ", of.dtype());
  const NoGrad not_recorded;
  detail::Sweep sweep(of, listener);
  // A copy of one's own: whether gradients are added in place must not depend on who else holds
  // this one.
  sweep.give(
      of.info().get(),
      upstream.defined() ? upstream.clone() : Tensor::ones(of.shape(), of.dtype(), of.device()),
      "backward");
  sweep.run();
}
#else
void backward(const Tensor&, const Tensor&, const LeafListener*) {
  fail("backward: nothing is recorded, this program was compiled with PPMA_GRADIENTS=0");
}
#endif

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
