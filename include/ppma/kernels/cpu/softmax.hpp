#pragma once
#include "ppma/core/names_begin.hpp"
// Loops over rows of the last axis, and softmax and log_softmax made of them.

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/map.hpp"
#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Largest of n >= 1 elements.
template <class T>
T row_max(i64 n, const T* x) {
  if (n >= lanes<T>) {
    Vec<T> v = load(x + n - lanes<T>);
    for (i64 i = 0; i + lanes<T> <= n; i += lanes<T>) v = max_of(v, load(x + i));
    return lane_max<T>(v);
  }
  T m = x[0];
  for (i64 i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

namespace detail {

// The last vector of a row whose length is not a multiple of it, with 0 in the lanes that an
// earlier vector has.
template <class T>
PPMA_INLINE Vec<T> only_last(Vec<T> v, i64 count) {
  VecBits<T> lane;
  for (i64 l = 0; l < lanes<T>; ++l) lane[l] = static_cast<std::decay_t<decltype(lane[0])>>(l);
  using Int = std::decay_t<decltype(lane[0])>;
  return lane >= static_cast<Int>(lanes<T> - count) ? v : Vec<T>{};
}

}  // namespace detail

/// y_k = e^(x_k - m); returns their sum. y may be x, or null if only the sum is asked for.
template <class T>
T row_exp(i64 n, const T* x, T m, T* y) {
  Vec<T> sum{};
  if (n < lanes<T>) {
    // The lanes behind the end must add nothing: they go through memory, which cuts them off.
    T all[lanes<T>] = {};
    store_some<T>(all, exp_of<Vec<T>>(load_some(x, n) - m), n);
    if (y != nullptr) store_some<T>(y, load(all), n);
    return lane_sum<T>(load(all));
  }
  const i64 rest = n % lanes<T>, last = n - lanes<T>;
  const Vec<T> end = rest > 0 ? exp_of<Vec<T>>(load(x + last) - m) : sum;
  for (i64 i = 0; i + lanes<T> <= n; i += lanes<T>) {
    const Vec<T> e = exp_of<Vec<T>>(load(x + i) - m);
    if (y != nullptr) store<T>(y + i, e);
    sum += e;
  }
  if (rest > 0) {
    if (y != nullptr) store<T>(y + last, end);
    sum += detail::only_last<T>(end, rest);
  }
  return lane_sum<T>(sum);
}

/// sum_k a_k b_k.
template <class T>
T row_dot(i64 n, const T* a, const T* b) {
  if (n < lanes<T>) return lane_sum<T>(load_some(a, n) * load_some(b, n));
  Vec<T> sum{};
  i64 i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) sum += load(a + i) * load(b + i);
  if (i < n) sum += detail::only_last<T>(load(a + n - lanes<T>) * load(b + n - lanes<T>), n - i);
  return lane_sum<T>(sum);
}

/// y_k = f(x_k), one row. y may be x.
template <class T, class F>
PPMA_INLINE void row_map(i64 n, const T* x, T* y, F f) {
  detail::map_row<true, false>(n, x, x, y, [f](Vec<T> v, Vec<T>) { return f(v); });
}
/// y_k = f(a_k, b_k), one row.
template <class T, class F>
PPMA_INLINE void row_map(i64 n, const T* a, const T* b, T* y, F f) {
  detail::map_row<true, true>(n, a, b, y, f);
}

/// Calls f(row) for rows of n elements in parallel.
template <class F>
void for_rows(Cpu, i64 rows, i64 n, F f) {
  parallel_for(rows, std::max<i64>(1, 8192 / std::max<i64>(n, 1)), [=](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) f(r);
  });
}

template <class T>
void softmax(Cpu on, i64 rows, i64 n, const T* x, T* y) {
  for_rows(on, rows, n, [=](i64 r) {
    const T* row = x + r * n;
    const T scale = T(1) / row_exp(n, row, row_max(n, row), y + r * n);
    row_map(n, y + r * n, y + r * n, [scale](Vec<T> v) { return v * scale; });
  });
}

template <class T>
void log_softmax(Cpu on, i64 rows, i64 n, const T* x, T* y) {
  for_rows(on, rows, n, [=](i64 r) {
    const T* row = x + r * n;
    const T m = row_max(n, row),
            log_sum = m + std::log(row_exp(n, row, m, static_cast<T*>(nullptr)));
    row_map(n, row, y + r * n, [log_sum](Vec<T> v) { return v - log_sum; });
  });
}

/// dx may be dy.
template <class T>
void softmax_backward(Cpu on, i64 rows, i64 n, const T* y, const T* dy, T* dx) {
  for_rows(on, rows, n, [=](i64 r) {
    const T dot = row_dot(n, y + r * n, dy + r * n);
    row_map(n, y + r * n, dy + r * n, dx + r * n,
            [dot](Vec<T> p, Vec<T> g) { return p * (g - dot); });
  });
}

template <class T>
void log_softmax_backward(Cpu on, i64 rows, i64 n, const T* y, const T* dy, T* dx) {
  for_rows(on, rows, n, [=](i64 r) {
    const T sum = sum_contiguous(dy + r * n, n);
    row_map(n, y + r * n, dy + r * n, dx + r * n,
            [sum](Vec<T> l, Vec<T> g) { return g - exp_of(l) * sum; });
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/softmax.cuh"
#endif

#include "ppma/core/names_end.hpp"
