#pragma once
#include "ppma/core/names_begin.hpp"
// Pooling of channels-last maps. Legend: B batch, H W grid, C channels, h w output grid.
//
// Every pool is a row of windows per axis (begin, end, in input cells); forward of an average sums
// a window, backward lets each input cell gather from the windows that contain it, so no two
// threads write one cell.

#include "ppma/kernels/cpu/pool.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

struct Pool {
  i64 kernel = 2;
  i64 stride = 0;   // 0: the kernel's size
  i64 padding = 0;  // on every side; at most kernel / 2
};

namespace detail {

PPMA_API kernels::Windows windows(const char* op, i64 size, const Pool& p);

}  // namespace detail

/// x (B,H,W,C) -> (B,h,w,C), h = (H + 2 padding - kernel) / stride + 1 rounded down. Padding counts
/// as zeros in the mean.
PPMA_API Tensor avg_pool2d(const Tensor& x, const Pool& p = {});

/// x (B,H,W,C) -> (B,h,w,C) for any h, w: output r of h averages rows floor(r H / h) to ceil((r +
/// 1) H / h) - 1.
PPMA_API Tensor adaptive_avg_pool2d(const Tensor& x, i64 h, i64 w);

/// x (B,H,W,C) -> (B,C): mean over the grid.
PPMA_API Tensor global_avg_pool(const Tensor& x);

/// global_avg_pool(silu(x)); on a GPU, in bf16, one pass where nothing is recorded.
PPMA_API Tensor silu_avg_pool(const Tensor& x);

/// As avg_pool2d with the largest element; padding never wins; the gradient goes to the first of
/// equals.
PPMA_API Tensor max_pool2d(const Tensor& x, const Pool& p = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_IMAGES)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/elementwise.hpp"
#include "ppma/ops/reduce.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

kernels::Windows windows(const char* op, i64 size, const Pool& p) {
  const i64 stride = p.stride > 0 ? p.stride : p.kernel;
  check(p.kernel >= 1 && p.stride >= 0 && p.padding >= 0 && 2 * p.padding <= p.kernel, op,
        ": kernel ", p.kernel, ", stride ", p.stride, ", padding ", p.padding,
        "; the kernel must be at least 1, the padding at most half of it");
  check(size + 2 * p.padding >= p.kernel, op, ": a kernel of ", p.kernel, " does not fit into ",
        size, " cells");
  return {size, (size + 2 * p.padding - p.kernel) / stride + 1, p.kernel, stride, p.padding};
}

inline void check_map(const char* op, const Tensor& x) {
  check_defined(op, x);
  check(x.rank() == 4 && x.numel() > 0, op, ": x must be (B,H,W,C) with elements, got ", x.shape());
}

inline Tensor average_windows(const char* op, const Tensor& x, const kernels::Windows& rows,
                              const kernels::Windows& cols, i64 area) {
  const i64 batch = x.dim(0), channels = x.dim(3);
  Tensor y =
      Tensor::empty({batch, rows.outputs(), cols.outputs(), channels}, x.dtype(), x.device());
  visit(x.device(), x.dtype(), op, [&](auto on, auto t) {
    using T = decltype(t);
    kernels::avg_pool(on, batch, channels, rows, cols, area, x.data<T>(), y.data<T>());
  });
  return record(y, op, {x}, [=, shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), op, [&](auto on, auto t) {
      using T = decltype(t);
      kernels::avg_pool_backward(on, batch, channels, rows, cols, area, dy.data<T>(), dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace detail

Tensor avg_pool2d(const Tensor& x, const Pool& p) {
  detail::check_map("avg_pool2d", x);
  return detail::average_windows("avg_pool2d", x, detail::windows("avg_pool2d", x.dim(1), p),
                                 detail::windows("avg_pool2d", x.dim(2), p), p.kernel * p.kernel);
}

Tensor adaptive_avg_pool2d(const Tensor& x, i64 h, i64 w) {
  detail::check_map("adaptive_avg_pool2d", x);
  check(h >= 1 && w >= 1, "adaptive_avg_pool2d: the output grid is ", h, " x ", w,
        "; both must be at least 1");
  return detail::average_windows("adaptive_avg_pool2d", x, {x.dim(1), h, 0, 0, 0},
                                 {x.dim(2), w, 0, 0, 0}, 0);
}

Tensor global_avg_pool(const Tensor& x) {
  detail::check_map("global_avg_pool", x);
  return mean(x, {1, 2});
}

Tensor silu_avg_pool(const Tensor& x) {
  detail::check_map("silu_avg_pool", x);
#if PPMA_CUDA
  if (x.device() == Device::cuda && x.dtype() == DType::bf16 && x.dim(3) % 64 == 0 &&
      x.dim(0) <= 65535 && !needs_grad({x})) {
    Tensor y = Tensor::empty({x.dim(0), x.dim(3)}, x.dtype(), x.device());
    kernels::silu_means(Cuda{}, x.dim(0), x.dim(1) * x.dim(2), x.dim(3), x.data<bf16>(),
                        y.data<bf16>());
    return y;
  }
#endif
  return global_avg_pool(silu(x));
}

Tensor max_pool2d(const Tensor& x, const Pool& p) {
  detail::check_map("max_pool2d", x);
  const kernels::Windows rows = detail::windows("max_pool2d", x.dim(1), p),
                         cols = detail::windows("max_pool2d", x.dim(2), p);
  const i64 batch = x.dim(0), channels = x.dim(3);
  Tensor y =
      Tensor::empty({batch, rows.outputs(), cols.outputs(), channels}, x.dtype(), x.device());
  visit(x.device(), x.dtype(), "max_pool2d", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::max_pool(on, batch, channels, rows, cols, x.data<T>(), y.data<T>());
  });
  return record(y, "max_pool2d", {x}, [=, x = x.detach()](const Tensor& dy) {
    Tensor dx = Tensor::zeros(x.shape(), dy.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), "max_pool2d", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::max_pool_backward(on, batch, channels, rows, cols, x.data<T>(), dy.data<T>(),
                                 dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
