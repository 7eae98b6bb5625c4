#pragma once
#include "ppma/core/names_begin.hpp"
// The residual connection in one pass: y = x + keep[b] * gamma[c] * a, with layer scale (gamma) and drop path (keep).

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/columns.hpp"
#include "ppma/kernels/reduce.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace kernels {

/// y = x + keep * gamma * a for (batch, rows, cols); x, gamma (cols) and keep (batch) may be null: 0, ones, ones.
template <class T>
void residual(Cpu, i64 batch, i64 rows, i64 cols, const T* x, const T* a, const T* gamma, const T* keep, T* y) {
  parallel_for(batch * rows, std::max<i64>(1, 32768 / cols), [=](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      const T k = keep ? keep[r / rows] : T(1);
      const i64 at = r * cols;
      columns<T>(cols, [=](i64 c, auto lane) {
        using V = decltype(lane);
        const V scaled = get<V>(a + at + c) * (gamma ? V(k * get<V>(gamma + c)) : V(V{} + k));
        put(y + at + c, x ? V(get<V>(x + at + c) + scaled) : scaled);
      });
    }
  });
}

/// dgamma[c] = sum over rows of keep * a * dy, by blocks of 128 rows.
template <class T>
void residual_dgamma(Cpu, i64 batch, i64 rows, i64 cols, const T* a, const T* keep, const T* dy, T* dgamma) {
  constexpr i64 block = 128;
  const i64 all = batch * rows, blocks = (all + block - 1) / block;
  const Workspace<T> partial(blocks * cols);
  T* const p = partial.data();
  parallel_for(blocks, std::max<i64>(1, 32768 / (block * cols)), [=](i64 begin, i64 end) {
    for (i64 k = begin; k < end; ++k) {
      T* const sum = p + k * cols;
      std::fill_n(sum, cols, T(0));
      for (i64 r = k * block; r < std::min(all, (k + 1) * block); ++r) {
        const T factor = keep ? keep[r / rows] : T(1);
        columns<T>(cols, [=](i64 c, auto lane) {
          using V = decltype(lane);
          put(sum + c, V(get<V>(sum + c) + factor * get<V>(a + r * cols + c) * get<V>(dy + r * cols + c)));
        });
      }
    }
  });
  sum_rows(Cpu{}, blocks, cols, p, dgamma);
}

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/ops/residual.cuh"
#endif

namespace ppma::inline PPMA_ABI {

/// y (B,...,C) = x (B,...,C) + keep (B) * gamma (C) * a (B,...,C); gamma and keep may be undefined (ones); gamma may have
/// axes of size 1 in front. keep holds 0 or 1 / (1 - rate) for each sample and gets no gradient. Differentiable in x, a
/// and gamma. Errors: shapes or dtypes that do not fit.
inline Tensor residual(const Tensor& x, const Tensor& a, const Tensor& gamma = Tensor(), const Tensor& keep = Tensor()) {
  check(x.defined() && a.defined(), "residual: x or a is undefined");
  check(x.rank() >= 2 && a.shape() == x.shape(), "residual: x ", x.shape(), " and a ", a.shape(),
        " must have one shape (B,...,C)");
  check(!gamma.defined() || (gamma.rank() >= 1 && gamma.dim(-1) == x.dim(-1) && gamma.numel() == x.dim(-1)),
        "residual: gamma must be (", x.dim(-1), ") or (1,...,", x.dim(-1), "), got ", gamma.shape());
  check(!keep.defined() || keep.shape() == Shape{x.dim(0)}, "residual: keep must be (", x.dim(0), "), got ", keep.shape());
  const DType wide = accumulator_dtype(x.dtype());
  check(a.dtype() == x.dtype() && (!gamma.defined() || gamma.dtype() == wide) &&
            (!keep.defined() || keep.dtype() == wide),
        "residual: x is ", x.dtype(), ", a is ", a.dtype(), "; x, a, gamma and keep must have one dtype (gamma and keep f32 beside bf16)");
  const i64 batch = x.dim(0), cols = x.dim(-1), rows = x.shape().product(1, x.rank() - 1);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.numel() > 0)
    visit(x.device(), x.dtype(), "residual", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::residual(on, batch, rows, cols, x.data<T>(), a.data<T>(), gamma.defined() ? gamma.data<acc_t<T>>() : nullptr,
                        keep.defined() ? keep.data<acc_t<T>>() : nullptr, y.data<T>());
    });
  const bool need_a = a.requires_grad(), need_gamma = gamma.requires_grad();
  const Tensor saved_a = need_gamma ? a.detach() : Tensor();
  return record(y, "residual", {x, a, gamma}, [a = saved_a, gamma = gamma.detach(), keep = keep.detach(), batch, rows, cols, need_a, need_gamma](const Tensor& dy) {
    // y = x + keep gamma a:  dx = dy,  da = keep gamma dy,  dgamma = sum over rows of keep a dy
    Tensor da, dgamma;
    const bool plain = !gamma.defined() && !keep.defined();
    if (need_a) da = plain ? dy : Tensor::empty(dy.shape(), dy.dtype(), dy.device());
    if (need_gamma) dgamma = Tensor::empty(gamma.shape(), gamma.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), "residual", [&](auto on, auto t) {
      using T = decltype(t);
      const acc_t<T>* const k = keep.defined() ? keep.data<acc_t<T>>() : nullptr;
      if (need_a && !plain)
        kernels::residual(on, batch, rows, cols, static_cast<const T*>(nullptr), dy.data<T>(),
                          gamma.defined() ? gamma.data<acc_t<T>>() : nullptr, k, da.data<T>());
      if (need_gamma) kernels::residual_dgamma(on, batch, rows, cols, a.data<T>(), k, dy.data<T>(), dgamma.data<acc_t<T>>());
    });
    return Grads{dy, da, dgamma};
  });
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
