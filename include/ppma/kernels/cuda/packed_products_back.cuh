#pragma once
#include "ppma/core/names_begin.hpp"
// The gradients of an attention's three products, as turned_products_back.cuh has them, of tokens x
// of any width C:
//
//   D (rows, 3C) = (dq' dk' dv),  W (3C, C) = wq above wk above wv      d' = d turned back, scaled
//   dx (+)= D W,  dw = D^T x, of which each layer has C rows,  db = sums of D
//
// One pass makes D, its sums and W; what would be three products each is one.
//
// Floor: six maps for D, five or six for dx, four for dw.

#include <algorithm>
#include <memory>
#include <utility>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/gemm.cuh"
#include "ppma/kernels/cuda/later_sums.cuh"
#include "ppma/kernels/cuda/turned_products_back.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// For sum_columns_of(): row r of D, the channels from c on, and of W, whose rows are dealt to the
// rows of D `every` apart.
struct PackProductsBack {
  TurnedProductsBack p;
  u32 every;
  bf16 *dy, *w;

  template <int V>
  __device__ void operator()(i64 r, i64 c, float (&sum)[3][V]) const {
    const i64 wide = 3 * p.c, from = r * p.c + c, to = r * wide + c;
    const u32 row = static_cast<u32>(r), token = row % static_cast<u32>(p.tokens);
    const i64 turn = static_cast<i64>(token) * p.d + static_cast<int>(c) % p.d;
    float d[3][V], cosine[V], sine[V];
#pragma unroll
    for (int m = 0; m < 3; ++m) load_pack<V>(p.dy[m] + from, d[m]);
    load_pack<V>(p.cosine + turn, cosine);
    load_pack<V>(p.sine + turn, sine);
#pragma unroll
    for (int m = 0; m < 3; ++m) {
      if (m < 2) {
        const float scale = m == 1 ? p.scale : 1.f;
#pragma unroll
        for (int i = 0; i < V; i += 2) {
          const float even = d[m][i], odd = d[m][i + 1];
          d[m][i] = even * (scale * cosine[i]) + odd * (-scale * sine[i]);
          d[m][i + 1] = odd * (scale * cosine[i + 1]) + even * (-scale * sine[i + 1]);
        }
      }
      store_pack<V>(dy + to + m * p.c, d[m]);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[m][i] += d[m][i];
    }
    if (row % every == 0)
      for (i64 i = row / every; i < wide; i += p.rows) {
        float of_w[V];
        load_pack<V>(p.w[i / p.c] + i % p.c * p.c + c, of_w);
        store_pack<V>(w + i * p.c + c, of_w);
      }
  }
};

}  // namespace detail

/// Whether packed_products_back takes so many rows of c channels in heads of d.
inline bool has_packed_products_back(i64 rows, i64 c, i64 d) {
  return c > 0 && c % 8 == 0 && d % 8 == 0 && rows < (i64{1} << 31);
}

/// dx, dw and db; the latter may wait.
inline void packed_products_back(Cuda on, const TurnedProductsBack& p) {
  const i64 c = p.c, wide = 3 * c;
  const Workspace<bf16> dy(p.rows * wide, Device::cuda), w(wide * c, Device::cuda);
  detail::sum_columns_of_later<float, 8, 3>(
      p.rows, c,
      detail::PackProductsBack{p, static_cast<u32>(std::max<i64>(1, p.rows / wide)), dy.data(),
                               w.data()},
      detail::ColumnPlaces<float>(p.db[0], c, p.db[1], c, p.db[2]), "linear");

  Gemm<bf16> x;
  x.m = p.rows, x.n = c, x.k = wide;
  x.a = dy.data(), x.lda = wide;
  x.b = w.data(), x.ldb = c;
  x.c = p.dx, x.ldc = c, x.accumulate = p.add;
  gemm(on, x);

  auto products = std::make_unique<const Workspace<float>>(wide * c, Device::cuda);
  Gemm<bf16, float> g;
  g.m = wide, g.n = c, g.k = p.rows;
  g.a = dy.data(), g.lda = wide, g.ta = true;
  g.b = p.x, g.ldb = c;
  g.c = products->data(), g.ldc = c;
  gemm(on, g);
  detail::finish_columns_later(  // each layer's to its place
      std::move(products), 1, wide * c,
      detail::ColumnPlaces<float>(p.dw[0], c * c, p.dw[1], c * c, p.dw[2]), "linear");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
