#pragma once
#include "ppma/core/names_begin.hpp"
// Elementwise kernels: y = f(x), y = f(a, b), for an f of one or two scalars; bf16 is computed in
// float.
// Floor: each operand read once, the result written once. Packs of 16 bytes where nothing is
// broadcast.

#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T, class F>
__global__ void __launch_bounds__(256) map_unary(i64 n, const T* x, T* y, F f) {
  constexpr int V = pack_width<T>;
  const i64 packs = n / V;
  for (i64 i = cuda::first(); i < packs; i += cuda::stride()) {
    acc_t<T> v[V];
    load_pack<V>(x + i * V, v);
#pragma unroll
    for (int k = 0; k < V; ++k) v[k] = f(v[k]);
    store_pack<V>(y + i * V, v);
  }
  for (i64 i = packs * V + cuda::first(); i < n; i += cuda::stride()) y[i] = T(f(acc_t<T>(x[i])));
}

template <class T, class F>
__global__ void __launch_bounds__(256) map_binary(i64 n, const T* a, const T* b, T* y, F f) {
  constexpr int V = pack_width<T>;
  const i64 packs = n / V;
  for (i64 i = cuda::first(); i < packs; i += cuda::stride()) {
    acc_t<T> va[V], vb[V];
    load_pack<V>(a + i * V, va);
    load_pack<V>(b + i * V, vb);
#pragma unroll
    for (int k = 0; k < V; ++k) va[k] = f(va[k], vb[k]);
    store_pack<V>(y + i * V, va);
  }
  for (i64 i = packs * V + cuda::first(); i < n; i += cuda::stride())
    y[i] = T(f(acc_t<T>(a[i]), acc_t<T>(b[i])));
}

// The walk of map.hpp: which element of a and of b belongs to element i of y.
template <class T, class F>
__global__ void __launch_bounds__(256)
    map_broadcast(i64 n, Walk w, const T* a, const T* b, T* y, F f) {
  for (i64 i = cuda::first(); i < n; i += cuda::stride()) {
    i64 rest = i, at_a = 0, at_b = 0;
#pragma unroll
    for (int k = Shape::max_rank - 1; k >= 0; --k) {
      if (k >= w.rank) continue;
      const i64 next = rest / w.size[k], step = rest - next * w.size[k];
      at_a += step * w.a[k];
      at_b += step * w.b[k];
      rest = next;
    }
    y[i] = T(f(acc_t<T>(a[at_a]), acc_t<T>(b[at_b])));
  }
}

// The same, V neighbours of the innermost axis at a time: there each operand has neighbours or one
// value.
template <class T, class F>
__global__ void __launch_bounds__(256)
    map_broadcast_packs(u32 packs, Walk w, const T* a, const T* b, T* y, F f) {
  constexpr int V = pack_width<T>;
  const int inner = w.rank - 1;
  const bool many_a = w.a[inner] != 0, many_b = w.b[inner] != 0;
  const auto load = [](bool many, const T* p, acc_t<T>(&v)[V]) {
    if (many) return load_pack<V>(p, v);
    const acc_t<T> one = acc_t<T>(*p);
#pragma unroll
    for (int k = 0; k < V; ++k) v[k] = one;
  };
  for (u32 i = static_cast<u32>(cuda::first()); i < packs; i += static_cast<u32>(cuda::stride())) {
    u32 rest = i;
    i64 at_a = 0, at_b = 0;
#pragma unroll
    for (int k = Shape::max_rank - 1; k >= 0; --k) {
      if (k >= w.rank) continue;
      const u32 size = static_cast<u32>(k == inner ? w.size[k] / V : w.size[k]), next = rest / size,
                step = (rest - next * size) * (k == inner ? V : 1);
      at_a += step * w.a[k];
      at_b += step * w.b[k];
      rest = next;
    }
    acc_t<T> va[V], vb[V];
    load(many_a, a + at_a, va), load(many_b, b + at_b, vb);
#pragma unroll
    for (int k = 0; k < V; ++k) va[k] = f(va[k], vb[k]);
    store_pack<V>(y + static_cast<i64>(i) * V, va);
  }
}

inline bool packable(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

// Whether neighbours of the innermost axis, `width` at a time, are so in memory (steps 0 and 1 of
// that axis, and multiples of `width` of the others).
inline bool packs_of(const i64* step, int rank, i64 width) {
  if (step[rank - 1] == 0) return true;
  for (int k = 0; k < rank - 1; ++k)
    if (step[k] % width != 0) return false;
  return step[rank - 1] == 1;
}

}  // namespace detail

template <class T, class F>
void map(Cuda, i64 n, const T* x, T* y, F f) {
  if (n == 0) return;
  detail::map_unary<<<cuda::blocks(n / pack_width<T> + 1, 256), 256, 0, cuda::stream()>>>(n, x, y,
                                                                                          f);
  cuda::launched("map");
}

template <class T, class F>
void map(Cuda, const Shape& out, const Shape& shape_a, const T* a, const Shape& shape_b, const T* b,
         T* y, F f) {
  const i64 n = out.numel();
  if (n == 0) return;
  const detail::Walk w = detail::walk(out, shape_a, shape_b);
  const bool flat = w.rank == 0 || (w.rank == 1 && w.a[0] == 1 && w.b[0] == 1);
  constexpr i64 V = pack_width<T>;
  const i64 packs = n / V;
  if (!flat && w.size[w.rank - 1] % V == 0 && packs < (i64{1} << 31) - (i64{1} << 26) &&
      detail::packs_of(w.a, w.rank, V) && detail::packs_of(w.b, w.rank, V) && detail::packable(a) &&
      detail::packable(b) && detail::packable(y))
    detail::map_broadcast_packs<<<cuda::blocks(packs, 256), 256, 0, cuda::stream()>>>(
        static_cast<u32>(packs), w, a, b, y, f);
  else if (flat)
    detail::map_binary<<<cuda::blocks(n / pack_width<T> + 1, 256), 256, 0, cuda::stream()>>>(
        n, a, b, y, f);
  else
    detail::map_broadcast<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(n, w, a, b, y, f);
  cuda::launched("map");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
