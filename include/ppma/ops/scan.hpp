#pragma once
#include "ppma/core/names_begin.hpp"
// Scans along one axis: cumulative sums, and the decaying sums that apply a 1-D structured mask in O(n).
//
//   f_0 = x_0           f_t = x_t + d_t f_{t-1}           forward
//   g_{n-1} = x_{n-1}   g_t = x_t + d_{t+1} g_{t+1}       backward
//   y_t = f_t + g_t - x_t                             symmetric: y = M x, M_ij = product of d over min(i,j) < t <=
//   max(i,j)
//
// d_t = e^(log_decay_t) belongs to the edge between t-1 and t, so d_0 is never used. Gradient with upstream r:
// p_t = r_t + d_{t+1} p_{t+1},  q_t = r_t + d_t q_{t-1}:  dx = p (forward), q (backward), p + q - r (symmetric);
// dd_t = p_t f_{t-1} (forward) + q_{t-1} g_t (backward).
// Source: M is the 1-semiseparable matrix of Dao and Gu, "Transformers are SSMs", 2024, made symmetric.

#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

enum class ScanDirection { forward, backward, symmetric };

namespace kernels {

struct ExpOf {
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V x) const {
    return exp_of(x);
  }
};

// The axes around the scan: x is (outer, n, decays, width), d is (outer, n, decays): one decay serves `width` elements.
struct ScanShape {
  i64 outer, n, decays, width;
};

namespace detail {

// y = x + d * s for one step; y may be s.
template <class T>
void scan_step(i64 decays, i64 width, const T* d, const T* s, const T* x, T* y) {
  if (width == 1) {
    i64 i = 0;
    for (; i + lanes<T> <= decays; i += lanes<T>) store<T>(y + i, load(x + i) + load(d + i) * load(s + i));
    for (; i < decays; ++i) y[i] = x[i] + d[i] * s[i];
    return;
  }
  for (i64 j = 0; j < decays; ++j) {
    const T decay = d[j];
    map_row<true, true>(width, x + j * width, s + j * width, y + j * width,
                        [decay](Vec<T> a, Vec<T> b) { return a + decay * b; });
  }
}

// out_j += d_j * sum over width of a * b.
template <class T>
void scan_dot(i64 decays, i64 width, const T* d, const T* a, const T* b, T* out) {
  for (i64 j = 0; j < decays; ++j) {
    T sum = 0;
    i64 i = 0;
    if (width >= lanes<T>) {
      Vec<T> v{};
      for (; i + lanes<T> <= width; i += lanes<T>) v += load(a + j * width + i) * load(b + j * width + i);
      sum = lane_sum<T>(v);
    }
    for (; i < width; ++i) sum += a[j * width + i] * b[j * width + i];
    out[j] += d[j] * sum;
  }
}

// Calls f(x offset, d offset, decays) for each independent line; lines of many decays are cut into strips.
template <class F>
void for_lines(const ScanShape& s, F f) {
  const i64 strip = std::max<i64>(1, 256 / s.width), strips = (s.decays + strip - 1) / strip;
  parallel_for(s.outer * strips, std::max<i64>(1, 8192 / (s.n * std::min(strip, s.decays) * s.width)),
               [=](i64 begin, i64 end) {
                 for (i64 unit = begin; unit < end; ++unit) {
                   const i64 first = unit % strips * strip, at = unit / strips * s.n * s.decays + first;
                   f(at * s.width, at, std::min(strip, s.decays - first));
                 }
               });
}

}  // namespace detail

/// y = scan of x with decays d (not their logarithms). y must not be x.
template <class T>
void decay_scan(Cpu, const ScanShape& s, ScanDirection direction, const T* all_x, const T* all_d, T* all_y) {
  const i64 row = s.decays * s.width;  // from one step to the next
  detail::for_lines(s, [=](i64 at_x, i64 at_d, i64 decays) {
    const T *x = all_x + at_x, *d = all_d + at_d;
    T* y = all_y + at_x;
    const i64 count = decays * s.width;
    if (direction != ScanDirection::backward) {
      std::copy_n(x, count, y);
      for (i64 t = 1; t < s.n; ++t)
        detail::scan_step(decays, s.width, d + t * s.decays, y + (t - 1) * row, x + t * row, y + t * row);
    }
    if (direction == ScanDirection::backward) {
      std::copy_n(x + (s.n - 1) * row, count, y + (s.n - 1) * row);
      for (i64 t = s.n - 1; t-- > 0;)
        detail::scan_step(decays, s.width, d + (t + 1) * s.decays, y + (t + 1) * row, x + t * row, y + t * row);
    }
    if (direction == ScanDirection::symmetric) {
      const Workspace<T> state(count);  // g_{t+1}
      T* g = state.data();
      std::copy_n(x + (s.n - 1) * row, count, g);
      for (i64 t = s.n - 1; t-- > 0;) {
        // y_t += g_t - x_t = d_{t+1} g_{t+1}
        detail::scan_step(decays, s.width, d + (t + 1) * s.decays, g, y + t * row, y + t * row);
        detail::scan_step(decays, s.width, d + (t + 1) * s.decays, g, x + t * row, g);
      }
    }
  });
}

/// dlog (outer, n, decays) = gradient of the logarithms of the decays, from x and the upstream gradient r.
template <class T>
void decay_scan_log_gradient(Cpu, const ScanShape& s, ScanDirection direction, const T* all_x, const T* all_d,
                             const T* all_r, T* all_dlog) {
  const i64 row = s.decays * s.width;
  std::fill_n(all_dlog, s.outer * s.n * s.decays, T(0));
  detail::for_lines(s, [=](i64 at_x, i64 at_d, i64 decays) {
    const T *x = all_x + at_x, *d = all_d + at_d, *r = all_r + at_x;
    T* dlog = all_dlog + at_d;
    const i64 count = decays * s.width;
    const Workspace<T> line(s.n * count), one(count);
    T *h = line.data(), *state = one.data();
    if (direction != ScanDirection::backward) {
      // f_t = x_t + d_t f_{t-1}:  d ln d_t = d_t p_t f_{t-1}
      std::copy_n(x, count, h);
      for (i64 t = 1; t < s.n; ++t)
        detail::scan_step(decays, s.width, d + t * s.decays, h + (t - 1) * count, x + t * row, h + t * count);
      std::copy_n(r + (s.n - 1) * row, count, state);
      for (i64 t = s.n - 1; t > 0; --t) {
        detail::scan_dot(decays, s.width, d + t * s.decays, state, h + (t - 1) * count, dlog + t * s.decays);
        detail::scan_step(decays, s.width, d + t * s.decays, state, r + (t - 1) * row, state);
      }
    }
    if (direction != ScanDirection::forward) {
      // g_t = x_t + d_{t+1} g_{t+1}:  d ln d_t = d_t q_{t-1} g_t
      std::copy_n(x + (s.n - 1) * row, count, h + (s.n - 1) * count);
      for (i64 t = s.n - 1; t-- > 0;)
        detail::scan_step(decays, s.width, d + (t + 1) * s.decays, h + (t + 1) * count, x + t * row, h + t * count);
      std::copy_n(r, count, state);
      for (i64 t = 1; t < s.n; ++t) {
        detail::scan_dot(decays, s.width, d + t * s.decays, state, h + t * count, dlog + t * s.decays);
        detail::scan_step(decays, s.width, d + t * s.decays, state, r + t * row, state);
      }
    }
  });
}

/// y_t = x_0 + ... + x_t along the middle axis of (outer, n, inner), or x_t + ... + x_{n-1} if reverse.
template <class T>
void cumsum(Cpu, i64 outer, i64 n, i64 inner, bool reverse, const T* x, T* y) {
  parallel_for(outer, std::max<i64>(1, 8192 / (n * inner)), [=](i64 begin, i64 end) {
    for (i64 o = begin; o < end; ++o) {
      const i64 step = reverse ? -inner : inner, first = o * n * inner + (reverse ? (n - 1) * inner : 0);
      std::copy_n(x + first, inner, y + first);
      T running = y[first];  // for a line of single elements
      for (i64 t = 1; t < n; ++t) {
        const i64 at = first + t * step;
        if (inner == 1) y[at] = running += x[at];
        else
          detail::map_row<true, true>(inner, x + at, y + at - step, y + at, [](Vec<T> a, Vec<T> b) { return a + b; });
      }
    }
  });
}

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/ops/scan.cuh"
#endif

namespace ppma::inline PPMA_ABI {

/// Sums of the elements up to and including each one along `axis`; from each one on if `reverse`.
inline Tensor cumsum(const Tensor& x, int axis, bool reverse = false) {
  detail::check_defined("cumsum", x);
  const int a = x.shape().axis(axis, "cumsum");
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.numel() == 0) return y;
  const i64 outer = x.shape().product(0, a), inner = x.shape().product(a + 1, x.rank());
  visit(x.device(), x.dtype(), "cumsum", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::cumsum(on, outer, x.dim(a), inner, reverse, x.data<T>(), y.data<T>());
  });
  return record(y, "cumsum", {x}, [a, reverse](const Tensor& dy) { return Grads{cumsum(dy, a, !reverse)}; });
}

/// The scan of x along `axis` with decays e^log_decay (see the top of this file). log_decay has x's rank and broadcasts
/// to x, with x's size along `axis`, and is f32 beside a bf16 x; decays of size 1 on the axes behind (a vector per step) cost no copy.
inline Tensor decay_scan(const Tensor& x, const Tensor& log_decay, int axis,
                         ScanDirection direction = ScanDirection::symmetric) {
  detail::check_defined("decay_scan", x);
  detail::check_defined("decay_scan", log_decay);
  check(log_decay.dtype() == accumulator_dtype(x.dtype()), "decay_scan: dtypes ", x.dtype(), " and ", log_decay.dtype(),
        " differ; convert one with cast (beside bf16 decays are f32)");
  check(x.device() == log_decay.device(), "decay_scan: one tensor is on the ", x.device(), ", the other on the ",
        log_decay.device());
  const int a = x.shape().axis(axis, "decay_scan"), rank = x.rank();
  check(log_decay.rank() == rank && broadcast(x.shape(), log_decay.shape(), "decay_scan") == x.shape() &&
            log_decay.dim(a) == x.dim(a),
        "decay_scan: log_decay is ", log_decay.shape(), ", x is ", x.shape(),
        "; log_decay must have x's rank, x's size ", "along axis ", axis, ", and x's size or 1 elsewhere");
  // (outer, n, decays, width): up to `split` the decays have x's sizes, behind it 1.
  int split = rank;
  while (split > a + 1 && log_decay.dim(split - 1) == 1) --split;
  for (int k = 0; k < split; ++k) {
    if (log_decay.dim(k) == x.dim(k)) continue;
    Shape shape = x.shape();
    for (int s = split; s < rank; ++s) shape.set(s, 1);
    return decay_scan(x, broadcast_to(log_decay, shape), a, direction);
  }
  const kernels::ScanShape s{x.shape().product(0, a), x.dim(a), x.shape().product(a + 1, split),
                             x.shape().product(split, rank)};
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.numel() == 0) return y;
  const auto run = [s, n = log_decay.numel()](ScanDirection way, const Tensor& in, const Tensor& log_d, Tensor& out) {
    visit(in.device(), in.dtype(), "decay_scan", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      const Workspace<A> d(n, on.device);
      kernels::map(on, n, log_d.data<A>(), d.data(), kernels::ExpOf{});
      kernels::decay_scan(on, s, way, in.data<T>(), d.data(), out.data<T>());
    });
  };
  run(direction, x, log_decay, y);
  const bool needs_x = x.requires_grad(), needs_decay = log_decay.requires_grad();
  const Tensor kept_x = needs_decay ? x.detach() : Tensor();
  return record(y, "decay_scan", {x, log_decay}, [=, log_d = log_decay.detach()](const Tensor& dy) {
    Tensor dx, dlog;
    if (needs_x) {  // the transposed mask: forward and backward change places
      dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
      run(direction == ScanDirection::forward    ? ScanDirection::backward
          : direction == ScanDirection::backward ? ScanDirection::forward
                                                 : ScanDirection::symmetric,
          dy, log_d, dx);
    }
    if (needs_decay) {
      dlog = Tensor::empty(log_d.shape(), log_d.dtype(), dy.device());
      visit(dy.device(), dy.dtype(), "decay_scan", [&](auto on, auto t) {
        using T = decltype(t);
        using A = acc_t<T>;
        const Workspace<A> d(log_d.numel(), on.device);
        kernels::map(on, log_d.numel(), log_d.data<A>(), d.data(), kernels::ExpOf{});
        kernels::decay_scan_log_gradient(on, s, direction, kept_x.data<T>(), d.data(), dy.data<T>(), dlog.data<A>());
      });
    }
    return Grads{dx, dlog};
  });
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
