#pragma once
#include "ppma/core/names_begin.hpp"
// Batch norm: statistics of a column of x (rows, cols).
//
// Sums over rows are taken over row blocks whose size depends on the shape alone, then over the
// blocks in order: the result does not depend on the threads. Variances are sums of squared
// distances from a mean, never E[x^2] - E[x]^2.

#include <algorithm>
#include <cmath>

#include "ppma/core/buffer.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/columns.hpp"
#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {
// Rows a block: the block is read twice and should stay in L1.
inline i64 norm_block(i64 cols) { return std::clamp<i64>(8192 / cols, 8, 256); }

// Sum over r < n of term(r, V{}) for one V of columns: four running sums.
template <class V, class F>
PPMA_INLINE V sum_down(i64 n, F&& term) {
  V s0{}, s1{}, s2{}, s3{};
  i64 r = 0;
  for (; r + 4 <= n; r += 4) s0 += term(r), s1 += term(r + 1), s2 += term(r + 2), s3 += term(r + 3);
  for (; r < n; ++r) s0 += term(r);
  return (s0 + s1) + (s2 + s3);
}
}  // namespace detail

/// Mean and biased variance of each column. Each block has a mean and a sum of squared distances of
/// its own; blocks are joined as in Chan, Golub and LeVeque, "Algorithms for computing the sample
/// variance", 1983. All are measured from the first row, so that a mean much larger than the
/// deviation costs no digits.
template <class T>
void column_statistics(Cpu, i64 rows, i64 cols, const T* x, T* mean, T* var) {
  const i64 block = detail::norm_block(cols), blocks = (rows + block - 1) / block;
  const Workspace<T> partial(2 * blocks * cols);  // (blocks, 2, cols)
  T* const p = partial.data();
  parallel_for(blocks, std::max<i64>(1, 32768 / (block * cols)), [=](i64 begin, i64 end) {
    for (i64 k = begin; k < end; ++k) {
      const T* const xk = x + k * block * cols;
      const i64 n = std::min(block, rows - k * block);
      T* const out = p + 2 * k * cols;
      columns<T>(cols, [=](i64 c, auto lane) {
        using V = decltype(lane);
        const V first = get<V>(x + c);
        const V m =
            detail::sum_down<V>(n, [=](i64 r) { return V(get<V>(xk + r * cols + c) - first); }) /
            static_cast<T>(n);
        put(out + c, m);
        put(out + cols + c, detail::sum_down<V>(n, [=](i64 r) {
              const V d = get<V>(xk + r * cols + c) - first - m;
              return V(d * d);
            }));
      });
    }
  });
  parallel_for(cols, std::max<i64>(1, 16384 / blocks), [=](i64 begin, i64 end) {
    for (i64 c = begin; c < end; ++c) {
      double count = 0, m = 0, squares = 0;
      for (i64 k = 0; k < blocks; ++k) {
        const double n = static_cast<double>(std::min(block, rows - k * block));
        const double gap = static_cast<double>(p[2 * k * cols + c]) - m;
        squares +=
            static_cast<double>(p[(2 * k + 1) * cols + c]) + gap * gap * count * n / (count + n);
        m += gap * n / (count + n);
        count += n;
      }
      mean[c] = static_cast<T>(static_cast<double>(x[c]) + m);
      var[c] = static_cast<T>(squares / count);
    }
  });
}

/// What batch norm's passes apply to its result on their way: nothing, or a function with a slope,
/// f and df.
struct NoActivation {
  template <class V>
  PPMA_HD PPMA_INLINE V f(V z) const {
    return z;
  }
};
template <class F>
inline constexpr bool activates = !std::is_same_v<F, NoActivation>;

/// y = act((x - mean) * scale + shift), one value of each a column.
template <class T, class F = NoActivation>
void normalize_columns(Cpu, i64 rows, i64 cols, const T* x, const T* mean, const T* scale,
                       const T* shift, T* y, F act = {}) {
  parallel_for(rows, std::max<i64>(1, 32768 / cols), [=](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      const T* xr = x + r * cols;
      T* yr = y + r * cols;
      columns<T>(cols, [=](i64 c, auto lane) {
        using V = decltype(lane);
        const V z = (get<V>(xr + c) - get<V>(mean + c)) * get<V>(scale + c) + get<V>(shift + c);
        if constexpr (activates<F>)
          put(yr + c, detail::on_lanes<T>(detail::ValueOf<F>{act}, z));
        else
          put(yr + c, z);
      });
    }
  });
}

/// The two sums over rows that batch norm's backward is made of: sum dz and sum dz (x - mean),
/// where dz = dy, or with an activation dy act'((x - mean) * scale + shift), which is kept in dz
/// (may be dy).
template <class T, class F = NoActivation>
void column_gradient_sums(Cpu, i64 rows, i64 cols, const T* x, const T* mean, const T* dy,
                          T* sum_dz, T* sum_dzx, const T* scale = nullptr, const T* shift = nullptr,
                          T* dz = nullptr, F act = {}) {
  const i64 block = detail::norm_block(cols), blocks = (rows + block - 1) / block;
  const Workspace<T> partial(2 * blocks * cols);  // (2, blocks, cols)
  T* const p1 = partial.data();
  T* const p2 = p1 + blocks * cols;
  parallel_for(blocks, std::max<i64>(1, 32768 / (block * cols)), [=](i64 begin, i64 end) {
    for (i64 k = begin; k < end; ++k) {
      const T *const xk = x + k * block * cols, *const gk = dy + k * block * cols;
      const i64 n = std::min(block, rows - k * block);
      columns<T>(cols, [=](i64 c, auto lane) {
        using V = decltype(lane);
        const V m = get<V>(mean + c);
        V s1a{}, s1b{}, s2a{}, s2b{};
        i64 r = 0;
        const auto gradient = [=](i64 row) {
          const i64 at = row * cols + c;
          if constexpr (activates<F>) {
            const V z = (get<V>(xk + at) - m) * get<V>(scale + c) + get<V>(shift + c);
            const V d = get<V>(gk + at) * detail::on_lanes<T>(detail::SlopeOf<F>{act}, z);
            put(dz + k * block * cols + at, d);
            return d;
          } else {
            return get<V>(gk + at);
          }
        };
        for (; r + 2 <= n; r += 2) {
          const V ga = gradient(r), gb = gradient(r + 1);
          s1a += ga, s1b += gb;
          s2a += ga * (get<V>(xk + r * cols + c) - m),
              s2b += gb * (get<V>(xk + (r + 1) * cols + c) - m);
        }
        if (r < n) {
          const V g = gradient(r);
          s1a += g, s2a += g * (get<V>(xk + r * cols + c) - m);
        }
        put(p1 + k * cols + c, V(s1a + s1b));
        put(p2 + k * cols + c, V(s2a + s2b));
      });
    }
  });
  sum_rows(Cpu{}, blocks, cols, p1, sum_dz);
  sum_rows(Cpu{}, blocks, cols, p2, sum_dzx);
}

/// dx = a dy + b (x - mean) + c, one a, b, mean, c a column.
template <class T>
void batch_norm_dx(Cpu, i64 rows, i64 cols, const T* dy, const T* x, const T* mean, const T* a,
                   const T* b, const T* c, T* dx) {
  parallel_for(rows, std::max<i64>(1, 32768 / cols), [=](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      const T *gr = dy + r * cols, *xr = x + r * cols;
      T* out = dx + r * cols;
      columns<T>(cols, [=](i64 j, auto lane) {
        using V = decltype(lane);
        put(out + j, V(get<V>(a + j) * get<V>(gr + j) +
                       get<V>(b + j) * (get<V>(xr + j) - get<V>(mean + j)) + get<V>(c + j)));
      });
    }
  });
}

/// f(c) for each channel c < n.
template <class F>
void channels(Cpu, i64 n, F f) {
  for (i64 c = 0; c < n; ++c) f(c);
}

/// From a channel's batch statistics, or in evaluation its running ones: rstd and the factor rstd
/// w; training moves the running ones, but not to what is not finite: a batch that overflows is
/// forgotten once its step is skipped.
template <class A>
struct BatchNormFactors {
  bool training;
  A rate, unbiased, eps;  // how far running statistics move; n / (n - 1)
  const A* w;
  // rstd: the biased variance on entry, if training
  A *running_mean, *running_var, *mean, *rstd, *scale;
  PPMA_HD void operator()(i64 c) const {
    if (training) {
      if (is_finite(mean[c]) && is_finite(rstd[c])) {
        running_mean[c] += rate * (mean[c] - running_mean[c]);
        running_var[c] += rate * (rstd[c] * unbiased - running_var[c]);
      }
    } else {
      mean[c] = running_mean[c];
      rstd[c] = running_var[c];
    }
    using std::sqrt;
    rstd[c] = A(1) / sqrt(rstd[c] + eps);
    scale[c] = rstd[c] * w[c];
  }
};

/// dw = rstd sum dy (x - mean), which dw holds on entry, and the factors of dx = a dy + k (x -
/// mean) + shift: in evaluation dx = rstd w dy; in training, with xhat = (x - mean) rstd, dx = rstd
/// w (dy - db / n - xhat dw / n).
template <class A>
struct BatchNormBack {
  bool training;
  A n;
  const A *w, *rstd, *db;
  A *dw, *a, *k, *shift;     // a, k, shift: null where dx is not wanted
  const A* total = nullptr;  // n, where other processes have a part of the batch
  PPMA_HD void operator()(i64 c) const {
    const A s = rstd[c];
    dw[c] *= s;
    if (a == nullptr) return;
    a[c] = s * w[c];
    const A count = total ? *total : n;
    k[c] = training ? -s * w[c] * s * dw[c] / count : A(0);
    shift[c] = training ? -s * w[c] * db[c] / count : A(0);
  }
};

/// What a process says of its part of a batch to the others: all (parts, 2 cols + 1), of each mean,
/// biased variance and the number of its rows. Its own mean and variance are there already, at
/// `begin`; the others' places become 0.
template <class A>
struct PutPart {
  i64 begin, end;
  A rows;
  A* all;
  PPMA_HD void operator()(i64 i) const {
    if (i < begin || i >= end)
      all[i] = A(0);
    else if (i == end - 1)
      all[i] = rows;
  }
};

/// BatchNormFactors of the parts' statistics together, joined in their order as in
/// column_statistics; the number of all rows goes to `total`.
template <class A>
struct JoinParts {
  i64 parts, cols;
  const A* all;
  A* total;
  BatchNormFactors<A> factors;
  PPMA_HD void operator()(i64 c) const {
    double count = 0, m = 0, squares = 0;
    for (i64 r = 0; r < parts; ++r) {
      const A* const part = all + r * (2 * cols + 1);
      const double n = static_cast<double>(part[2 * cols]), gap = static_cast<double>(part[c]) - m;
      squares += static_cast<double>(part[cols + c]) * n + gap * gap * count * n / (count + n);
      m += gap * n / (count + n);
      count += n;
    }
    BatchNormFactors<A> joined = factors;
    joined.mean[c] = static_cast<A>(m), joined.rstd[c] = static_cast<A>(squares / count);
    const A rows = static_cast<A>(count);
    joined.unbiased = rows / (rows - 1);
    joined(c);
    if (c == 0) *total = rows;
  }
};

/// db and dw of this process's rows, from sums that are to become those of all.
template <class A>
struct OwnSums {
  const A *rstd, *sum_dz, *sum_dzx;
  A *db, *dw;
  PPMA_HD void operator()(i64 c) const { db[c] = sum_dz[c], dw[c] = rstd[c] * sum_dzx[c]; }
};

struct CountUp {
  i64* count;
  PPMA_HD void operator()(i64 c) const { ++count[c]; }
};

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/batch_norm.cuh"
#endif

#include "ppma/core/names_end.hpp"
