#pragma once
#include "ppma/core/names_begin.hpp"
// Rotary embedding on the GPU: cos and sin come from the tables, a pack of channels a thread.

#include "ppma/kernels/cpu/convert.hpp"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T>
__global__ void __launch_bounds__(256)
    rotary_table_entries(i64 n, i64 d, const T* angle, T* cosine, T* sine) {
  for (i64 e = cuda::first(); e < n; e += cuda::stride()) {
    const i64 t = e / d, i = e % d;
    const double turn = static_cast<double>(static_cast<acc_t<T>>(t) * acc_t<T>(angle[i]));
    cosine[e] = converted<T>(::cos(turn));
    sine[e] = converted<T>(i % 2 == 0 ? -::sin(turn) : ::sin(turn));
  }
}

/// One of the tensors that a launch turns.
template <class T>
struct RotaryPart {
  const T* x;
  acc_t<T> scale, sine_scale;
  T* y;
};

template <class T, int V>
__global__ void __launch_bounds__(256)
    rotary_packs(u32 packs, u32 row_packs, u32 head_packs, u32 tokens, RotaryPart<T> first,
                 RotaryPart<T> second, const acc_t<T>* cosine, const acc_t<T>* sine) {
  using A = acc_t<T>;
  const RotaryPart<T> part = blockIdx.y == 0 ? first : second;
  const T* const x = part.x;
  T* const y = part.y;
  const A scale = part.scale, sine_scale = part.sine_scale;
  for (u32 i = static_cast<u32>(cuda::first()); i < packs; i += static_cast<u32>(cuda::stride())) {
    const u32 token = i / row_packs % tokens, at = token * head_packs + i % row_packs % head_packs;
    A v[V], c[V], s[V], out[V];
    load_pack<V>(x + static_cast<i64>(i) * V, v);
    load_pack<V>(cosine + static_cast<i64>(at) * V, c);
    load_pack<V>(sine + static_cast<i64>(at) * V, s);
#pragma unroll
    for (int k = 0; k < V; k += 2) {
      out[k] = v[k] * (scale * c[k]) + v[k + 1] * (sine_scale * s[k]);
      out[k + 1] = v[k + 1] * (scale * c[k + 1]) + v[k] * (sine_scale * s[k + 1]);
    }
    store_pack<V>(y + static_cast<i64>(i) * V, out);
  }
}

}  // namespace detail

template <class T>
void rotary_tables(Cuda, i64 tokens, i64 d, const T* angle, T* cosine, T* sine) {
  detail::rotary_table_entries<<<cuda::blocks(tokens * d, 256), 256, 0, cuda::stream()>>>(
      tokens * d, d, angle, cosine, sine);
  cuda::launched("rotary");
}

/// `parts` (1 or 2) tensors of one shape.
template <class T>
void rotary_parts(i64 batch, i64 tokens, i64 heads, i64 d, const acc_t<T>* cosine,
                  const acc_t<T>* sine, unsigned parts, const detail::RotaryPart<T>& first,
                  const detail::RotaryPart<T>& second) {
  const auto run = [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 packs = batch * tokens * heads * d / V;
    check(packs < (i64{1} << 32) - (i64{1} << 24), "rotary: ", packs * V,
          " elements are too many for one call; use a smaller batch");
    if (packs == 0) return;
    detail::rotary_packs<T, V><<<dim3(cuda::blocks(packs, 256), parts), 256, 0, cuda::stream()>>>(
        static_cast<u32>(packs), static_cast<u32>(heads * d / V), static_cast<u32>(d / V),
        static_cast<u32>(tokens), first, second, cosine, sine);
  };
  if (d % pack_width<T> == 0)
    run(std::integral_constant<int, pack_width<T>>{});
  else
    run(std::integral_constant<int, 2>{});
  cuda::launched("rotary");
}

template <class T>
void rotary(Cuda, i64 batch, i64 tokens, i64 heads, i64 d, const T* x, const acc_t<T>* cosine,
            const acc_t<T>* sine, acc_t<T> scale, bool back, T* y) {
  const detail::RotaryPart<T> part{x, scale, back ? -scale : scale, y};
  rotary_parts<T>(batch, tokens, heads, d, cosine, sine, 1, part, part);
}

/// Queries, and keys with a scale, in one launch.
template <class T>
void rotary_both(Cuda, i64 batch, i64 tokens, i64 heads, i64 d, const T* q, const T* k,
                 const acc_t<T>* cosine, const acc_t<T>* sine, acc_t<T> k_scale, T* turned_q,
                 T* turned_k) {
  rotary_parts<T>(batch, tokens, heads, d, cosine, sine, 2, {q, acc_t<T>(1), acc_t<T>(1), turned_q},
                  {k, k_scale, k_scale, turned_k});
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
