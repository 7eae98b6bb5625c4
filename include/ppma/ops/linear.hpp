#pragma once
#include "ppma/core/names_begin.hpp"
// The affine map of the last axis: y = x w^T + b.

#include "ppma/tensor/tape.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// y (..., out) = x (..., in) w^T + b for w (out, in) and b (out) or undefined. Differentiable in
/// all three.
/// Beside bf16 x, w may be f32 and b is f32. With `add` (..., out): y = add + x w^T + b, where
/// nothing is recorded in the product's own pass. Errors: widths, shapes, dtypes or devices that do
/// not fit.
PPMA_API Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b = Tensor(),
                       const Tensor& add = Tensor());

/// Weights laid out as the kernel of their product reads them, for inference: products that are
/// given plain ones pack them each time.
struct PackedWeights {
  Shape shape;               // of the plain ones
  Tensor elements;           // in an order that only the kernel knows; undefined: not packed
  bool transformed = false;  // of a convolution: by Winograd (kernels/cpu/winograd.hpp)

  /// Whether weights were packed.
  bool defined() const { return elements.defined(); }
};

/// w (out, in) packed; undefined where products take weights as they are: f32 on a GPU, and where
/// Eigen computes them. A bf16 w is packed for f32 x: the product reads half the bytes; it rounds x
/// to bf16 where the processor multiplies that (AMX), and else makes w f32 as it goes. On a GPU a
/// bf16 w stays as it is, and beside bf16 x it is read while what is ahead of the product runs.
PPMA_API PackedWeights pack_linear(const Tensor& w);

/// The same map with packed weights; not differentiable.
PPMA_API Tensor linear(const Tensor& x, const PackedWeights& w, const Tensor& b = Tensor(),
                       const Tensor& add = Tensor());

#if PPMA_CUDA
namespace detail {
/// The closure of linear(x, w, b), for kernels that compute it with other things; `factor`: w in
/// x's dtype.
PPMA_API Backward linear_backward(const Tensor& x, const Tensor& w, const Tensor& b,
                                  const Tensor& factor);
}  // namespace detail
#endif

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_PRODUCTS)

#include <type_traits>

#include "ppma/kernels/cpu/column_sums.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#if PPMA_CUDA
#include "ppma/kernels/cuda/weight_gradient.cuh"
#endif
#include "ppma/ops/residual.hpp"
#include "ppma/ops/weights.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// y = x w^T + b + add with w of shape (out, in); with_factor(product) tells where its elements are.
template <class F>
Tensor linear_values(const Tensor& x, const Shape& w, const Tensor& b, const Tensor& add,
                     F&& with_factor) {
  check(w.rank() == 2, "linear: w must be (out, in), got ", w);
  check(x.rank() >= 1 && x.dim(-1) == w[1], "linear: x ", x.shape(), " must end in the ", w[1],
        " inputs of w ", w);
  check(!b.defined() || b.shape() == Shape{w[0]}, "linear: b must be (", w[0], "), got ",
        b.shape());
  Shape shape = x.shape();
  shape.set(-1, w[0]);
  check(!add.defined() ||
            (add.shape() == shape && add.dtype() == x.dtype() && add.device() == x.device()),
        "linear: add is ",
        add.defined() ? str(add.shape(), " ", add.dtype(), " on ", add.device()) : "",
        ", the result ", shape, " ", x.dtype(), " on ", x.device());
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());  // (..., out)
  const Tensor shift = converted_weights(b, x.dtype());
  visit(x.device(), x.dtype(), "linear", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::Gemm<T> g;
    g.m = w[1] > 0 ? x.numel() / w[1] : x.shape().product(0, x.rank() - 1);
    g.n = w[0], g.k = w[1];
    g.a = x.data<T>(), g.lda = g.k;
    g.c = y.data<T>(), g.ldc = g.n;
    g.bias = data_or_null<T>(shift), g.add = data_or_null<T>(add);
    with_factor(g);
    kernels::gemm(on, g);
  });
  return y;
}

// What linear() records; w in x's dtype is `factor`.
inline auto linear_closure(const Tensor& x, const Tensor& w, const Tensor& b,
                           const Tensor& factor) {
  const i64 in = w.dim(1), out = w.dim(0),
            rows = in > 0 ? x.numel() / in : x.shape().product(0, x.rank() - 1);

  const bool need_x = x.requires_grad(), need_w = w.requires_grad(), need_b = b.requires_grad();
  const Saved saved_x = need_w ? Saved(x) : Saved();
  const Tensor saved_w = need_x ? factor : Tensor();
  return [saved_x, w = saved_w, x_shape = x.shape(), w_dtype = w.dtype(), rows, in, out, need_x,
          need_w, need_b](const Tensor& dy) {
    Tensor dx, dw, db;
    visit(dy.device(), dy.dtype(), "linear", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::Gemm<T> g;
      if (need_x) {               // y = x w^T:  dx = dy w
        dx = gradient_so_far(0);  // of several products of one x each adds its part
        g.accumulate = dx.defined();
        if (!dx.defined()) dx = Tensor::empty(x_shape, dy.dtype(), dy.device());
        g.m = rows, g.n = in, g.k = out;
        g.a = dy.data<T>(), g.lda = out;
        g.b = w.data<T>(), g.ldb = in;
        g.c = dx.data<T>(), g.ldc = in;
        kernels::gemm(on, g);
      }
      // y = x w^T:  dw = dy^T x
      if (need_w) {
        const Tensor kept = saved_x.get();
#if PPMA_CUDA
        if constexpr (std::is_same_v<T, bf16> && std::is_same_v<decltype(on), Cuda>)
          if (w_dtype == DType::f32 && need_b && kernels::has_weight_gradient(rows, out, in)) {
            dw = Tensor::empty({out, in}, DType::f32, dy.device());
            db = Tensor::empty({out}, DType::f32, dy.device());
            kernels::weight_gradient(on, rows, out, in, dy.data<T>(), kept.data<T>(),
                                     dw.data<float>(), db.data<float>());
            return;
          }
#endif
        dw = weight_gradient(on, rows, out, in, dy.data<T>(), kept.data<T>(), {out, in}, w_dtype);
      }
      if (need_b) {  // y = ... + b:  db = sum of dy over rows
        db = Tensor::empty({out}, accumulator_dtype(dy.dtype()), dy.device());
        kernels::column_sums(on, rows, out, dy.data<T>(), db.data<acc_t<T>>());
      }
    });
    return Grads{dx, dw, db};
  };
}

#if PPMA_CUDA
Backward linear_backward(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& factor) {
  return linear_closure(x, w, b, factor);
}
#endif

}  // namespace detail

PackedWeights pack_linear(const Tensor& w) {
  check(w.defined() && w.rank() == 2, "pack_linear: w must be (out, in)");
  PackedWeights packed{w.shape(), Tensor()};
  if (w.numel() == 0) return packed;
  if (w.device() != Device::cpu) {
    if (w.dtype() == DType::bf16) packed.elements = w.detach();
    return packed;
  }
  if (w.dtype() == DType::bf16) {
    const i64 n = w.dim(0), k = w.dim(1);
    packed.elements = Tensor::empty(Shape{kernels::strips_size(k, n)}, DType::bf16);
    const bf16* const from = w.data<bf16>();
    kernels::pack_strips(
        k, n, [=](i64 p, i64 j) { return from[j * k + p]; }, packed.elements.data<bf16>());
    return packed;
  }
  if (!kernels::packs_factors()) return packed;
  visit_cpu(w.device(), w.dtype(), "pack_linear", [&](auto, auto t) {
    using T = decltype(t);
    kernels::Gemm<T> g;
    g.n = w.dim(0), g.k = w.dim(1);
    g.b = w.data<T>(), g.ldb = g.k, g.tb = true;
    packed.elements = Tensor::empty(Shape{kernels::packed_size<T>(g.k, g.n)}, w.dtype());
    kernels::pack_factor(Cpu{}, g, packed.elements.data<T>());
  });
  return packed;
}

Tensor linear(const Tensor& x, const PackedWeights& w, const Tensor& b, const Tensor& add) {
  check(x.defined() && w.defined(), "linear: x or w is undefined");
  check(!needs_grad({x, b, add}), "linear: packed weights are for inference; use NoGrad");
  detail::check_packed("linear", x, w.elements, b);
  return detail::linear_values(x, w.shape, b, add, [&](auto& g) {
    using T = std::remove_cvref_t<decltype(*g.c)>;
    if (w.elements.device() != Device::cpu)
      g.b = w.elements.data<T>(), g.ldb = g.k, g.tb = g.lasting = true;
    else if (w.elements.dtype() == DType::bf16)
      g.strips = w.elements.data<bf16>();
    else
      g.packed = w.elements.data<T>();
  });
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& add) {
  if (add.defined() && needs_grad({x, w, b, add})) return residual(add, linear(x, w, b));
  check(x.defined() && w.defined(), "linear: x or w is undefined");
  detail::check_weights("linear", x, w, b);
  const Tensor factor = detail::converted_weights(w, x.dtype());
  const Tensor y = detail::linear_values(x, w.shape(), b, add, [&](auto& g) {
    using T = std::remove_cvref_t<decltype(*g.c)>;
    g.b = factor.data<T>(), g.ldb = g.k, g.tb = true;
  });
  return record(y, "linear", {x, w, b}, detail::linear_closure(x, w, b, factor));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
