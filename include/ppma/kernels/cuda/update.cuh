#pragma once
#include "ppma/core/names_begin.hpp"
// Optimiser updates on the GPU: one launch for dozens of tensors. A table of pointers travels as
// the kernel's argument;
// what changes from step to step (rate, factor of the gradients, counts of steps) is read from the
// GPU's memory, so that a captured step can be replayed with new values. Sums are added in a fixed
// order.

#include <type_traits>
#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/core/cuda.cuh"
#include "ppma/core/device.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/kernels/args.hpp"

namespace ppma::inline PPMA_ABI::kernels {

inline constexpr int table_room = 60;     // tensors; arguments of a kernel are at most 4 KiB
inline constexpr i64 table_piece = 8192;  // elements a block

/// N arrays of each of `count` tensors, cut into pieces: tensor i owns the blocks first[i] ..
/// first[i + 1].
template <class T, int N>
struct TensorTable {
  T* array[N][table_room];
  i64 size[table_room];
  double decay[table_room], rate_factor[table_room];
  int index[table_room];  // of the tensor among all
  int first[table_room + 1];
  int count;
};

struct TableEntry {
  std::size_t index;
  double decay, rate_factor;
};

/// Fills tables with the entries whose arrays(index, table, slot) holds, and calls launch(table,
/// blocks) for each.
template <class T, int N, class Arrays, class Launch>
void for_tables(const std::vector<TableEntry>& entries, const std::vector<i64>& sizes,
                Arrays arrays, Launch launch) {
  TensorTable<T, N> table{};
  const auto flush = [&] {
    if (table.count > 0 && table.first[table.count] > 0)
      launch(table, static_cast<unsigned>(table.first[table.count]));
    table.count = 0;
  };
  for (const TableEntry& e : entries) {
    const int slot = table.count;
    if (!arrays(e.index, table, slot)) continue;
    table.size[slot] = sizes[e.index];
    table.decay[slot] = e.decay, table.rate_factor[slot] = e.rate_factor;
    table.index[slot] = static_cast<int>(e.index);
    table.first[slot + 1] =
        table.first[slot] + static_cast<int>((sizes[e.index] + table_piece - 1) / table_piece);
    if (++table.count == table_room) flush();
  }
  flush();
}

namespace detail {

// Which tensor a block works on, and its elements begin .. end of it.
template <class T, int N>
__device__ __forceinline__ int piece_of(const TensorTable<T, N>& t, i64& begin, i64& end) {
  const int block = static_cast<int>(blockIdx.x);
  int low = 0, high = t.count;  // first[low] <= block < first[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (t.first[middle] <= block)
      low = middle;
    else
      high = middle;
  }
  begin = (block - t.first[low]) * table_piece;
  end = ::min(t.size[low], begin + table_piece);
  return low;
}

template <class Settings>
__global__ void set_step(Settings* to, Settings settings) {
  *to = settings;
}

// Whether gradients of this norm (or null) are not to be used.
__device__ __forceinline__ bool is_no_step(const double* norm) { return norm && !is_finite(*norm); }

// The factor of the gradients: what the step says, times what clips a norm (or null) of that
// multiple to `limit`, or to nothing where that is 0.
__device__ __forceinline__ double factor_of(const StepSettings& s, const double* norm,
                                            double limit) {
  return norm && limit > 0
             ? s.gradient_factor * ::fmin(1.0, limit / (s.gradient_factor * *norm + 1e-6))
             : s.gradient_factor;
}

// Counts a step of each tensor and finds its four numbers: what weights keep, the rate, the
// correction of squares, the factor of gradients.
template <class T>
__global__ void adamw_factors(TensorTable<T, 4> t, const StepSettings* settings, i64* steps,
                              const double* norm, double limit, double beta1, double beta2,
                              T* factors) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= t.count || is_no_step(norm)) return;
  const double rate = settings->rate * t.rate_factor[i],
               step = static_cast<double>(++steps[t.index[i]]);
  T* const f = factors + 4 * i;
  f[0] = static_cast<T>(1 - rate * t.decay[i]);
  f[1] = static_cast<T>(rate / (1 - ::pow(beta1, step)));
  f[2] = static_cast<T>(1 / ::sqrt(1 - ::pow(beta2, step)));
  f[3] = static_cast<T>(factor_of(*settings, norm, limit));
}

// Arrays: w, g, m, v. All that a thread reads at once it reads before it writes: the four might be
// one, for all that the compiler knows.
template <class T>
__global__ void __launch_bounds__(512)
    adamw_pieces(TensorTable<T, 4> t, const T* factors, const double* norm, double beta1,
                 double beta2, double eps) {
  if (is_no_step(norm)) return;
  constexpr int n = 8;
  static_assert(table_piece % (512 * n) == 0);
  i64 begin, end;
  const int i = piece_of(t, begin, end);
  const T keep = factors[4 * i], rate = factors[4 * i + 1], correction = factors[4 * i + 2],
          factor = factors[4 * i + 3];
  const T b1 = static_cast<T>(beta1), b2 = static_cast<T>(beta2), e = static_cast<T>(eps);
  T *const w = t.array[0][i], *const m = t.array[2][i], *const v = t.array[3][i];
  const T* const g = t.array[1][i];
  for (i64 first = begin + threadIdx.x; first < end; first += 512 * n) {
    T weight[n], gradient[n], mean[n], square[n];
#pragma unroll
    for (int j = 0; j < n; ++j)
      if (const i64 k = first + j * 512; k < end)
        weight[j] = w[k], gradient[j] = g[k], mean[j] = m[k], square[j] = v[k];
#pragma unroll
    for (int j = 0; j < n; ++j)
      if (const i64 k = first + j * 512; k < end) {
        const T d = gradient[j] * factor, new_mean = b1 * mean[j] + (T(1) - b1) * d,
                new_square = b2 * square[j] + (T(1) - b2) * d * d;
        m[k] = new_mean, v[k] = new_square;
        w[k] = weight[j] * keep - rate * new_mean / (::sqrt(new_square) * correction + e);
      }
  }
}

// Arrays: w, g, momentum.
template <class T>
__global__ void __launch_bounds__(256)
    sgd_pieces(TensorTable<T, 3> t, const StepSettings* settings, const double* norm, double limit,
               double momentum, bool nesterov) {
  if (is_no_step(norm)) return;
  i64 begin, end;
  const int i = piece_of(t, begin, end);
  const T rate = static_cast<T>(settings->rate * t.rate_factor[i]),
          factor = static_cast<T>(factor_of(*settings, norm, limit));
  const T decay = static_cast<T>(t.decay[i]), keep = static_cast<T>(momentum);
  T *const w = t.array[0][i], *const b = t.array[2][i];
  const T* const g = t.array[1][i];
#pragma unroll 4
  for (i64 k = begin + threadIdx.x; k < end; k += 256) {
    const T d = g[k] * factor + w[k] * decay, moved = b[k] * keep + d;
    b[k] = moved;
    w[k] -= rate * (nesterov ? d + moved * keep : moved);
  }
}

// Arrays: average, x.
template <class T>
__global__ void __launch_bounds__(256) average_pieces(TensorTable<T, 2> t, T keep, T take) {
  i64 begin, end;
  const int i = piece_of(t, begin, end);
  T* const e = t.array[0][i];
  const T* const x = t.array[1][i];
#pragma unroll 4
  for (i64 k = begin + threadIdx.x; k < end; k += 256) e[k] = keep * e[k] + take * x[k];
}

__device__ __forceinline__ double block_sum(double v) {  // for thread 0 of 256
  __shared__ double shared[256];
  shared[threadIdx.x] = v;
  for (unsigned half = 128; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  return shared[0];
}

// Arrays: g. partial: one a block.
template <class T>
__global__ void __launch_bounds__(256) square_pieces(TensorTable<T, 1> t, double* partial) {
  i64 begin, end;
  const T* const g = t.array[0][piece_of(t, begin, end)];
  T sum = 0;  // of at most 32 squares
#pragma unroll 4
  for (i64 k = begin + threadIdx.x; k < end; k += 256) sum += g[k] * g[k];
  const double total = block_sum(static_cast<double>(sum));
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

template <class A>
__global__ void __launch_bounds__(256) root_of_sum(i64 n, const A* partial, A* norm) {
  A sum = 0;
  for (i64 i = threadIdx.x; i < n; i += 256) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *norm = ::sqrt(sum);
}

}  // namespace detail

/// Calls f(float{}) and f(double{}): tables hold tensors of one dtype.
template <class F>
void for_dtypes(F f) {
  f(float{});
  f(double{});
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
