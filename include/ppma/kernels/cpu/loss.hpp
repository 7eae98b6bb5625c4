#pragma once
#include "ppma/core/names_begin.hpp"
// Cross entropy with label smoothing, row by row.

#include <cmath>

#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/softmax.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// loss[r], log_sum[r] = m + ln sum e^(x - m) of rows x (rows, k) with labels.
template <class T>
void label_loss(Cpu on, i64 rows, i64 k, const T* x, const i64* label, T smoothing, i64 ignore,
                T* log_sum, T* loss) {
  for_rows(on, rows, k, [=](i64 r) {
    loss[r] = log_sum[r] = 0;
    if (label[r] == ignore) return;
    const T* row = x + r * k;
    const T m = row_max(k, row), s = std::log(row_exp(k, row, m, static_cast<T*>(nullptr)));
    log_sum[r] = m + s;
    loss[r] = s - (1 - smoothing) * (row[label[r]] - m);
    if (smoothing != 0) loss[r] -= smoothing * (sum_contiguous(row, k) / static_cast<T>(k) - m);
  });
}

/// dx = factor * (softmax(x) - t).
template <class T>
void label_loss_backward(Cpu on, i64 rows, i64 k, const T* x, const i64* label, T smoothing,
                         i64 ignore, const T* log_sum, T factor, T* dx) {
  const T even = smoothing / static_cast<T>(k);
  for_rows(on, rows, k, [=](i64 r) {
    T* row = dx + r * k;
    if (label[r] == ignore) {
      std::fill_n(row, k, T(0));
      return;
    }
    const T shift = log_sum[r];
    row_map(k, x + r * k, row,
            [=](Vec<T> v) { return factor * (exp_of<Vec<T>>(v - shift) - even); });
    row[label[r]] -= factor * (1 - smoothing);
  });
}

/// The same with targets t (rows, k).
template <class T>
void target_loss(Cpu on, i64 rows, i64 k, const T* x, const T* t, T smoothing, T* log_sum,
                 T* loss) {
  for_rows(on, rows, k, [=](i64 r) {
    const T *row = x + r * k, *target = t + r * k;
    const T m = row_max(k, row), s = std::log(row_exp(k, row, m, static_cast<T*>(nullptr)));
    log_sum[r] = m + s;
    // sum t (s - (x - m)), and the same with t = 1 / k.
    const T total = sum_contiguous(target, k);
    loss[r] = (1 - smoothing) * (total * log_sum[r] - row_dot(k, target, row));
    if (smoothing != 0)
      loss[r] += smoothing * (log_sum[r] - sum_contiguous(row, k) / static_cast<T>(k));
  });
}

template <class T>
void target_loss_backward(Cpu on, i64 rows, i64 k, const T* x, const T* t, T smoothing,
                          const T* log_sum, T factor, T* dx, T* dt) {
  const T even = smoothing / static_cast<T>(k);
  for_rows(on, rows, k, [=](i64 r) {
    const T shift = log_sum[r], total = (1 - smoothing) * sum_contiguous(t + r * k, k) + smoothing;
    if (dx != nullptr)
      row_map(k, x + r * k, t + r * k, dx + r * k, [=](Vec<T> v, Vec<T> p) {
        return factor * (total * exp_of<Vec<T>>(v - shift) - ((1 - smoothing) * p + even));
      });
    if (dt != nullptr)
      row_map(k, x + r * k, dt + r * k,
              [=](Vec<T> v) { return factor * (1 - smoothing) * (shift - v); });
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
