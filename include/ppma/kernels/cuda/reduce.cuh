#pragma once
#include "ppma/core/names_begin.hpp"
// Sums and extremes over axes on the GPU. A sum is a tree of fixed shape: the same bits every time.

#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cpu/map.hpp"
#include "ppma/kernels/cuda/column_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

struct Plus {
  template <class V>
  PPMA_HD V operator()(V a, V b) const {
    return a + b;
  }
};

// y (outer, pieces, inner) = sums of x (outer, n, inner) over pieces of `length` of the middle
// axis.
template <class From, class To>
__global__ void __launch_bounds__(256)
    sum_pieces(i64 total, i64 n, i64 inner, i64 pieces, i64 length, const From* x, To* y) {
  for (i64 i = cuda::first(); i < total; i += cuda::stride()) {
    const i64 c = i % inner, piece = i / inner % pieces, o = i / inner / pieces;
    const i64 end = ::min(n, (piece + 1) * length);
    acc_t<From> sum = 0;
    for (i64 k = piece * length; k < end; ++k) sum += acc_t<From>(x[(o * n + k) * inner + c]);
    y[i] = To(sum);
  }
}

// y (rows) = sums of x (rows, n), one block a row.
template <class From, class To>
__global__ void __launch_bounds__(256) sum_lines(i64 rows, i64 n, const From* x, To* y) {
  using A = acc_t<From>;
  __shared__ A shared[256];
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    A sum = 0;
    for (i64 k = threadIdx.x; k < n; k += blockDim.x) sum += A(x[r * n + k]);
    __syncthreads();
    shared[threadIdx.x] = sum;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    if (threadIdx.x == 0) y[r] = To(shared[0]);
  }
}

// y (outer, inner) = sum of x (outer, n, inner) over the middle axis, in one or two passes.
template <class From, class To>
void sum_middle(i64 outer, i64 n, i64 inner, const From* x, To* y) {
  using A = acc_t<From>;
  const i64 out = outer * inner;
  if (inner == 1 && n >= 64) {
    constexpr i64 line = 16384;
    if (n > 2 * line && outer < 512) {  // long lines, few of them: cut
      i64 pieces = (n + line - 1) / line;
      while (n % pieces != 0 && pieces < n) ++pieces;
      if (pieces < n / 64) {
        const Workspace<A> partial(outer * pieces, Device::cuda);
        sum_lines<<<static_cast<unsigned>(std::min<i64>(outer * pieces, 65535)), 256, 0,
                    cuda::stream()>>>(outer * pieces, n / pieces, x, partial.data());
        cuda::launched("sum");
        sum_middle(outer, pieces, i64{1}, static_cast<const A*>(partial.data()), y);
        return;
      }
    }
    sum_lines<<<static_cast<unsigned>(std::min<i64>(outer, 65535)), 256, 0, cuda::stream()>>>(
        outer, n, x, y);
    cuda::launched("sum");
    return;
  }
  i64 pieces = std::min<i64>((n + 31) / 32, (65536 + out - 1) / out);
  const i64 length = (n + pieces - 1) / pieces;
  pieces = (n + length - 1) / length;
  if (pieces == 1) {
    sum_pieces<<<cuda::blocks(out, 256), 256, 0, cuda::stream()>>>(out, n, inner, i64{1}, n, x, y);
    cuda::launched("sum");
    return;
  }
  const Workspace<A> partial(out * pieces, Device::cuda);
  sum_pieces<<<cuda::blocks(out * pieces, 256), 256, 0, cuda::stream()>>>(
      out * pieces, n, inner, pieces, length, x, partial.data());
  cuda::launched("sum");
  sum_middle(outer, pieces, inner, static_cast<const A*>(partial.data()), y);
}

template <class From, class To>
void sum_axes(const std::vector<i64>& size, const std::vector<bool>& summed, i64 n, const From* x,
              To* y) {
  // The innermost summed axis first; kept axes outside of it are a batch.
  std::size_t last = size.size();
  while (last > 0 && !summed[last - 1]) --last;
  i64 inner = 1;
  for (std::size_t a = last; a < size.size(); ++a) inner *= size[a];
  const i64 count = size[last - 1], outer = n / (inner * count);
  bool more = false;
  for (std::size_t a = 0; a + 1 < last; ++a) more = more || summed[a];
  if (!more) return sum_middle(outer, count, inner, x, y);
  const Workspace<acc_t<From>> left(outer * inner, Device::cuda);
  sum_middle(outer, count, inner, x, left.data());
  std::vector<i64> rest(size);
  std::vector<bool> kinds(summed);
  rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(last - 1));
  kinds.erase(kinds.begin() + static_cast<std::ptrdiff_t>(last - 1));
  sum_axes(rest, kinds, outer * inner, static_cast<const acc_t<From>*>(left.data()), y);
}

template <class T>
__global__ void __launch_bounds__(256)
    extreme_lines(i64 lines, i64 n, i64 inner, acc_t<T> sign, const T* x, T* best, i64* index) {
  for (i64 i = cuda::first(); i < lines; i += cuda::stride()) {
    const T* p = x + i / inner * n * inner + i % inner;
    acc_t<T> most = acc_t<T>(p[0]);
    i64 at = 0;
    for (i64 k = 1; k < n; ++k) {
      const acc_t<T> v = acc_t<T>(p[k * inner]);
      if (sign * v > sign * most || (v != v && most == most)) most = v, at = k;
    }
    best[i] = T(most);
    index[i] = at;
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    scatter_lines(i64 lines, i64 n, i64 inner, const i64* index, const T* dy, T* dx) {
  for (i64 i = cuda::first(); i < lines; i += cuda::stride())
    dx[(i / inner * n + index[i]) * inner + i % inner] = dy[i];
}

}  // namespace detail

template <class T>
void add_to(Cuda, i64 n, const T* x, T* y) {
  if (n == 0) return;
  detail::map_binary<<<cuda::blocks(n / pack_width<T> + 1, 256), 256, 0, cuda::stream()>>>(
      n, y, x, y, detail::Plus{});
  cuda::launched("add");
}

template <class T>
void sum_rows(Cuda, i64 rows, i64 cols, const T* x, T* y) {
  detail::sum_middle(i64{1}, rows, cols, x, y);
}

template <class T>
void sum_to(Cuda, const Shape& from, const T* x, const Shape& to, T* y) {
  std::vector<i64> size;
  std::vector<bool> summed;
  bool any = false;
  for (int a = 0; a < from.rank(); ++a) {
    const int b = a - (from.rank() - to.rank());
    const i64 n = from[a];
    if (n == 1) continue;
    const bool s = b < 0 || to[b] == 1;
    any = any || s;
    if (!size.empty() && summed.back() == s)
      size.back() *= n;
    else
      size.push_back(n), summed.push_back(s);
  }
  if (from.numel() == 0)
    zero_bytes(y, Device::cuda, to.numel() * static_cast<i64>(sizeof(T)));
  else if (!any)
    copy_bytes(y, Device::cuda, x, Device::cuda, from.numel() * static_cast<i64>(sizeof(T)));
  else
    detail::sum_axes(size, summed, from.numel(), x, y);
}

template <class T>
void extreme(Cuda, i64 outer, i64 n, i64 inner, T sign, const T* x, T* best, i64* index) {
  if (outer * inner == 0) return;
  detail::extreme_lines<<<cuda::blocks(outer * inner, 256), 256, 0, cuda::stream()>>>(
      outer * inner, n, inner, acc_t<T>(sign), x, best, index);
  cuda::launched("extreme");
}

template <class T>
void scatter_extreme(Cuda, i64 outer, i64 n, i64 inner, const i64* index, const T* dy, T* dx) {
  if (outer * inner == 0) return;
  detail::scatter_lines<<<cuda::blocks(outer * inner, 256), 256, 0, cuda::stream()>>>(
      outer * inner, n, inner, index, dy, dx);
  cuda::launched("extreme");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
