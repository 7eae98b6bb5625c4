#pragma once
#include "ppma/core/names_begin.hpp"
// Rows that are chosen: which numbers of a row are the largest, and rows of a tensor by index.
//
//   y_bj = x_b,i_bj        dx_br = sum over the j with i_bj = r of dy_bj, in their order

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// int64 places (...,k) of the k largest of each row of x (...,n), largest first, of equal ones the
/// first; a NaN counts as the least. Not differentiable. Error: k outside of [1, n].
PPMA_API Tensor top_k(const Tensor& x, i64 k);

/// y (B,K,...) = rows index (B,K), int64, of x (B,R,...); differentiable in x. Error: an index
/// outside of [0, R); on the GPU, where nobody looks, such a row is 0.
PPMA_API Tensor gather_rows(const Tensor& x, const Tensor& index);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_LAYOUT)

#include "ppma/kernels/cpu/gather.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor top_k(const Tensor& x, i64 k) {
  check(x.defined() && x.rank() >= 1, "top_k: x must have an axis, got ",
        x.defined() ? x.shape() : Shape{});
  const i64 n = x.dim(-1);
  check(k >= 1 && k <= n, "top_k: ", k, " of rows of ", n, " numbers; take 1 to ", n);
  Shape shape = x.shape();
  shape.set(x.rank() - 1, k);
  Tensor index = Tensor::empty(shape, DType::int64, x.device());
  visit(x.device(), x.dtype(), "top_k", [&](auto on, auto t) {
    kernels::top_k(on, x.numel() / n, n, k, x.data<decltype(t)>(), index.data<i64>());
  });
  return index;
}

Tensor gather_rows(const Tensor& x, const Tensor& index) {
  check(x.defined() && index.defined(), "gather_rows: an argument is undefined");
  check(x.rank() >= 2 && index.rank() == 2 && index.dim(0) == x.dim(0),
        "gather_rows: x must be (B,R,...) and index (B,K), got ", x.shape(), " and ",
        index.shape());
  check(index.dtype() == DType::int64 && index.device() == x.device(),
        "gather_rows: index must be int64 on the ", x.device(), ", got ", index.dtype(), " on the ",
        index.device());
  const kernels::GatherShape s{x.dim(0), x.dim(1), index.dim(1), x.shape().product(2, x.rank())};
  if (x.device() == Device::cpu)
    for (i64 i = 0; i < index.numel(); ++i)
      check(index.data<i64>()[i] >= 0 && index.data<i64>()[i] < s.rows, "gather_rows: index ",
            index.data<i64>()[i], " of ", s.rows, " rows");
  Shape shape = x.shape();
  shape.set(1, s.taken);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  visit(x.device(), x.dtype(), "gather_rows", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::gather_rows(on, s, x.data<T>(), index.data<i64>(), y.data<T>());
  });
  return record(y, "gather_rows", {x}, [s, index, of = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(of, dy.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), "gather_rows", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::scatter_rows(on, s, dy.data<T>(), index.data<i64>(), dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
