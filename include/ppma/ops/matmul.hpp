#pragma once
#include "ppma/core/names_begin.hpp"
// Matrix products of the last two axes: c = op(a) op(b), axes in front are a batch and broadcast.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// c (..., m, n) = op(a) op(b) with op(a) (..., m, k), op(b) (..., k, n); `ta`: a is stored (...,
/// k, m), `tb`: b is stored (..., n, k). The leading axes broadcast. Differentiable in a and b.
/// Beside bf16 a, a single matrix b may be f32.
/// Errors: fewer than two axes, inner sizes or dtypes that differ, leading axes that do not
/// broadcast.
PPMA_API Tensor matmul(const Tensor& a, const Tensor& b, bool ta = false, bool tb = false);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_PRODUCTS)

#include <vector>

#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/weights.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// The batch axes in front of the last two.
inline Shape batch_of(const Shape& s) {
  Shape batch;
  for (int a = 0; a < s.rank() - 2; ++a) batch.push_back(s[a]);
  return batch;
}

// Distance in elements between neighbours on each axis of `batch` for an operand with batch axes
// `own` and `matrix` elements a matrix; 0 where the operand is broadcast.
inline std::vector<i64> batch_strides(const Shape& batch, const Shape& own, i64 matrix) {
  std::vector<i64> stride(static_cast<std::size_t>(batch.rank()), 0);
  i64 step = matrix;
  for (int a = 1; a <= own.rank(); ++a) {
    if (own[-a] != 1) stride[static_cast<std::size_t>(batch.rank() - a)] = step;
    step *= own[-a];
  }
  return stride;
}

}  // namespace detail

Tensor matmul(const Tensor& a, const Tensor& b, bool ta, bool tb) {
  check(a.defined() && b.defined(), "matmul: an operand is undefined");
  check(a.rank() >= 2 && b.rank() >= 2, "matmul: a ", a.shape(), " and b ", b.shape(),
        " need at least two axes each");
  const bool flat = b.rank() == 2 && !ta;  // one matrix b for all of a: one tall product
  check(a.dtype() == b.dtype() || (flat && b.dtype() == accumulator_dtype(a.dtype())),
        "matmul: a is ", a.dtype(), ", b is ", b.dtype(), "; convert one of them");
  check(a.device() == b.device(), "matmul: a is on ", a.device(), ", b on ", b.device());
  const i64 m = a.dim(ta ? -1 : -2), k = a.dim(ta ? -2 : -1), n = b.dim(tb ? -2 : -1);
  check(b.dim(tb ? -1 : -2) == k, "matmul: a ", a.shape(), ta ? " (transposed)" : "", " and b ",
        b.shape(), tb ? " (transposed)" : "", " have inner sizes ", k, " and ", b.dim(tb ? -1 : -2),
        "; they must be equal");
  const Shape batch = broadcast(detail::batch_of(a.shape()), detail::batch_of(b.shape()), "matmul");
  Shape shape = batch;
  shape.push_back(m), shape.push_back(n);
  Tensor c = Tensor::empty(shape, a.dtype(), a.device());
  const Tensor factor = detail::converted_weights(b, a.dtype());

  if (c.numel() > 0)
    visit(a.device(), a.dtype(), "matmul", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::Gemm<T> g;
      g.m = flat ? m * batch.numel() : m, g.n = n, g.k = k;
      g.a = a.data<T>(), g.lda = ta ? m : k, g.ta = ta;
      g.b = factor.data<T>(), g.ldb = tb ? k : n, g.tb = tb;
      g.c = c.data<T>(), g.ldc = n;
      if (flat || batch.numel() == 1) return kernels::gemm(on, g);
      const auto sa = detail::batch_strides(batch, detail::batch_of(a.shape()), m * k);
      const auto sb = detail::batch_strides(batch, detail::batch_of(b.shape()), k * n);
      // The innermost batch axes that step evenly through both operands are one batch of products.
      int axis = batch.rank() - 1;
      while (axis > 0 && batch[axis] == 1) --axis;  // of no stride
      std::size_t x = static_cast<std::size_t>(axis);
      g.batch = batch[axis], g.stride_a = sa[x], g.stride_b = sb[x], g.stride_c = m * n;
      while (axis > 0 && (batch[axis - 1] == 1 ||
                          (sa[x - 1] == g.stride_a * g.batch && sb[x - 1] == g.stride_b * g.batch)))
        g.batch *= batch[--axis], --x;
      const kernels::Gemm<T> first = g;
      for (i64 i = 0; i < batch.product(0, axis); ++i) {
        g = first;
        i64 rest = i;
        for (int q = axis - 1; q >= 0; --q) {
          const i64 at = rest % batch[q];
          rest /= batch[q];
          g.a += at * sa[static_cast<std::size_t>(q)], g.b += at * sb[static_cast<std::size_t>(q)];
        }
        g.c += i * g.batch * m * n;
        kernels::gemm(on, g);
      }
    });

  const bool need_a = a.requires_grad(), need_b = b.requires_grad();
  return record(
      c, "matmul", {a, b},
      [a = a.detach(), b = factor, ta, tb, flat, n, k, need_a, need_b,
       b_dtype = b.dtype()](const Tensor& dc) {
        Tensor da, db;  // of broadcast shape where the batch was: the tape sums them back
        // c = op(a) op(b):  d op(a) = dc op(b)^T,  d op(b) = op(a)^T dc
        if (need_a) da = ta ? matmul(b, dc, tb, true) : matmul(dc, b, false, !tb);
        if (need_b && flat) {
          const i64 count = a.shape().product(0, a.rank() - 1);
          visit(dc.device(), dc.dtype(), "matmul", [&](auto on, auto t) {
            using T = decltype(t);
            const T *const rows = a.data<T>(), *const drows = dc.data<T>();
            db = tb ? detail::weight_gradient(on, count, n, k, drows, rows, {n, k}, b_dtype)
                    : detail::weight_gradient(on, count, k, n, rows, drows, {k, n}, b_dtype);
          });
        } else if (need_b) {
          db = tb ? matmul(dc, a, true, ta) : matmul(a, dc, !ta, false);
        }
        return Grads{da, db};
      });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
