#pragma once
#include "ppma/core/names_begin.hpp"
// Dense products on the CPU: by micro-kernels of ours where these are measured to be faster than
// Eigen (kernels/cpu/gemm_eigen.hpp), which computes the others. benchmarks/README.md has the
// measurement; PPMA_GEMM=own or eigen in the environment takes either for all.
//
// How ours are fast (the scheme of Goto and van de Geijn, "Anatomy of high-performance matrix
// multiplication", 2008):
// a micro-kernel holds a tile of C, rows x 2 vectors, in registers and walks along k. B is packed
// into panels two vectors wide, so that the walk reads one line after the other; A is read where it
// is, whichever way it lies (its elements are only broadcast). A panel of B of 256 steps stays in
// L1, the rows of A that meet it in L2.
//
// The order of additions of one element of C depends on k alone, never on the tiles or the threads.

#include <algorithm>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/core/config.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/amx.hpp"
#include "ppma/kernels/cpu/gemm_eigen.hpp"
#include "ppma/kernels/cpu/simd.hpp"
#include "ppma/kernels/cpu/strips.hpp"
#include "ppma/kernels/cpu/transpose.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// The register tile: 32 vector registers hold 12 x 2 accumulators, 16 hold 6 x 2, each with room
// for B and A.
inline constexpr int tile_rows = PPMA_SIMD_BYTES == 64 ? 12 : 6;
template <class T>
inline constexpr i64 panel_width = 2 * lanes<T>;
inline constexpr i64 k_block = 256;

// acc[i][v] += sum over p < k of A(i,p) * B(p,v): A(i,p) = a[i*row + p*step], B(p,:) = b[p*ldb
// ...].
template <class T, std::size_t rows, std::size_t vectors>
PPMA_INLINE void multiply_tile(i64 k, const T* a, i64 row, i64 step, const T* b, i64 ldb,
                               Vec<T> (&acc)[rows][vectors]) {
  for (i64 p = 0; p < k; ++p) {
    Vec<T> bv[vectors];
    PPMA_UNROLL
    for (std::size_t v = 0; v < vectors; ++v) bv[v] = load(b + static_cast<i64>(v) * lanes<T>);
    PPMA_UNROLL
    for (std::size_t i = 0; i < rows; ++i) {
      const T x = a[static_cast<i64>(i) * row];
      PPMA_UNROLL
      for (std::size_t v = 0; v < vectors; ++v) acc[i][v] += x * bv[v];
    }
    a += step;
    b += ldb;
  }
}

// What is added to a tile's sums when it is stored: `to` (rows ldc apart: C itself, or another
// matrix), and `bias`, the same for every row; either may be null.
template <class T>
struct Addends {
  const T *to, *bias;
};

// A tile of C: rows x `cols`, which are at most `vectors` vectors. Rows of B are ldb apart and
// readable to whole vectors.
template <class T, std::size_t rows, std::size_t vectors>
void tile(i64 k, const T* a, i64 row, i64 step, const T* b, i64 ldb, T* c, i64 ldc, i64 cols,
          Addends<T> add) {
  constexpr i64 w = lanes<T>;
  Vec<T> acc[rows][vectors] = {};
  multiply_tile<T, rows, vectors>(k, a, row, step, b, ldb, acc);
  if (cols == static_cast<i64>(vectors) * w) {
    PPMA_UNROLL
    for (std::size_t i = 0; i < rows; ++i) {
      PPMA_UNROLL
      for (std::size_t v = 0; v < vectors; ++v) {
        const i64 at = static_cast<i64>(i) * ldc + static_cast<i64>(v) * w;
        Vec<T> sum = acc[i][v];
        if (add.bias) sum += load(add.bias + static_cast<i64>(v) * w);
        if (add.to) sum += load(add.to + at);
        store(c + at, sum);
      }
    }
    return;
  }
  PPMA_UNROLL
  for (std::size_t i = 0; i < rows; ++i) {
    T line[vectors * PPMA_SIMD_BYTES / sizeof(T)];
    PPMA_UNROLL
    for (std::size_t v = 0; v < vectors; ++v) store(line + static_cast<i64>(v) * w, acc[i][v]);
    const i64 at = static_cast<i64>(i) * ldc;
    for (i64 j = 0; j < cols; ++j) {
      T sum = line[j];
      if (add.bias) sum += add.bias[j];
      if (add.to) sum += add.to[at + j];
      c[at + j] = sum;
    }
  }
}

// The tile with `count` <= rows rows.
template <class T, int rows, std::size_t vectors>
void tile_of(i64 count, i64 k, const T* a, i64 row, i64 step, const T* b, i64 ldb, T* c, i64 ldc,
             i64 cols, Addends<T> add) {
  if constexpr (rows > 0) {
    if (count == rows)
      tile<T, static_cast<std::size_t>(rows), vectors>(k, a, row, step, b, ldb, c, ldc, cols, add);
    else
      tile_of<T, rows - 1, vectors>(count, k, a, row, step, b, ldb, c, ldc, cols, add);
  }
}

// Packs rows p0..p0+k of op(B), columns j0..j0+cols (<= one panel), zero-padded to a full panel.
template <class T>
void pack_panel(const T* b, i64 ldb, bool tb, i64 p0, i64 k, i64 j0, i64 cols, T* panel) {
  constexpr i64 w = panel_width<T>;
  if (!tb) {
    const T* from = b + p0 * ldb + j0;
    for (i64 p = 0; p < k; ++p, from += ldb, panel += w) {
      if (cols == w) {
        store(panel, load(from));
        store(panel + w / 2, load(from + w / 2));
      } else {
        for (i64 j = 0; j < w; ++j) panel[j] = j < cols ? from[j] : T(0);
      }
    }
    return;
  }
  pack_rows(b + j0 * ldb + p0, ldb, cols, k, panel, [](i64 p) { return p; });
}

// Rows m0..m1, columns n0..n1 of one product. `packed`: all of B, k-block after k-block, panel
// after panel; or null, then this packs what it needs into `scratch` (k_block * columns). Weights
// in bf16 are made f32 panel by panel, for up to 16 tiles each time, in `scratch` (k_block *
// panel).
template <class T>
void gemm_part(const Gemm<T>& g, i64 m0, i64 m1, i64 n0, i64 n1, const T* packed, T* scratch) {
  constexpr i64 w = panel_width<T>;
  constexpr i64 block_tiles = 16;
  // Tiles of nearly equal height: a last tile of one or two rows would wait for its own additions.
  const i64 tiles = (m1 - m0 + tile_rows - 1) / tile_rows;
  const auto first_row = [=](i64 t) { return m0 + (m1 - m0) * t / tiles; };
  const i64 row = g.ta ? 1 : g.lda, step = g.ta ? g.lda : 1;
  const i64 n_padded = (g.n + w - 1) / w * w;
  for (i64 p0 = 0; p0 < g.k; p0 += k_block) {
    const i64 k = std::min(k_block, g.k - p0);
    const T* panels = nullptr;
    if (packed) {
      panels = packed + p0 * n_padded + n0 * k;
    } else if (!g.strips) {
      for (i64 j = n0; j < n1; j += w)
        pack_panel(g.b, g.ldb, g.tb, p0, k, j, std::min(w, n1 - j), scratch + (j - n0) * k);
      panels = scratch;
    }
    // from the second block of k on the sums are in C
    const T* const to = g.accumulate || p0 > 0 ? g.c : g.add;
    const T* const bias = p0 > 0 ? nullptr : g.bias;
    for (i64 t0 = 0; t0 < tiles; t0 += block_tiles)
      for (i64 j = n0; j < n1; j += w) {
        const T* panel = g.strips ? scratch : panels + (j - n0) * k;
        if constexpr (std::is_same_v<T, float>)
          if (g.strips) unpack_panel(g.strips, g.k, p0, k, j, scratch);
        const i64 cols = std::min(w, n1 - j);
        for (i64 t = t0; t < std::min(t0 + block_tiles, tiles); ++t) {
          const i64 i = first_row(t);
          tile_of<T, tile_rows, 2>(first_row(t + 1) - i, k, g.a + i * row + p0 * step, row, step,
                                   panel, w, g.c + i * g.ldc + j, g.ldc, cols,
                                   {to ? to + i * g.ldc + j : nullptr, bias ? bias + j : nullptr});
        }
      }
  }
}

// Packs panels begin..end of op(B) for all of k, as gemm_part reads them: `to` is the whole.
template <class T>
void pack_panels(const Gemm<T>& g, i64 begin, i64 end, T* to) {
  constexpr i64 w = panel_width<T>;
  const i64 n_padded = (g.n + w - 1) / w * w;
  for (i64 p0 = 0; p0 < g.k; p0 += k_block) {
    const i64 k = std::min(k_block, g.k - p0);
    for (i64 j = begin * w; j < end * w; j += w)
      pack_panel(g.b, g.ldb, g.tb, p0, k, j, std::min(w, g.n - j), to + p0 * n_padded + j * k);
  }
}

// One product, on all threads.
template <class T>
void gemm_one(const Gemm<T>& g) {
  constexpr i64 w = panel_width<T>;
  const i64 panels = (g.n + w - 1) / w, row_tiles = (g.m + tile_rows - 1) / tile_rows;
  const i64 flops = 2 * g.m * g.n * g.k;
  const auto grain = [flops](i64 parts) {
    return std::max<i64>(1, (i64{1} << 21) / std::max<i64>(1, flops / parts));
  };
  const bool by_rows = row_tiles >= 4 * threads() || panels < threads();
  const i64 one_panel = g.strips ? k_block * w : 1;
  const auto rows_with = [&](const T* packed) {
    parallel_for(row_tiles, grain(row_tiles), [&](i64 begin, i64 end) {
      const Workspace<T> scratch(one_panel);
      gemm_part(g, begin * tile_rows, std::min(end * tile_rows, g.m), 0, g.n, packed,
                scratch.data());
    });
  };
  if (g.packed || g.strips) {
    if (by_rows) return rows_with(g.packed);
    parallel_for(panels, grain(panels), [&](i64 begin, i64 end) {
      const Workspace<T> scratch(one_panel);
      gemm_part(g, 0, g.m, begin * w, std::min(end * w, g.n), g.packed, scratch.data());
    });
    return;
  }
  // B is packed once for all when it is small beside the work on it (weights, many tokens); else
  // each thread packs its own columns block by block (few tokens; a weight gradient, where k is the
  // number of tokens).
  if (g.k * panels * w <= (i64{1} << 20) && by_rows) {
    const Workspace<T> packed(g.k * panels * w);
    parallel_for(panels, std::max<i64>(1, 65536 / (g.k * w)),
                 [&](i64 begin, i64 end) { pack_panels(g, begin, end, packed.data()); });
    rows_with(packed.data());
    return;
  }
  if (panels >= threads() || panels * 2 > row_tiles) {
    // At most 16 panels at a time: k_block x 16 panels stay in L2.
    const i64 group = std::clamp<i64>((panels + threads() - 1) / threads(), 1, 16),
              groups = (panels + group - 1) / group;
    parallel_for(groups, grain(groups), [&](i64 begin, i64 end) {
      const Workspace<T> scratch(k_block * group * w);
      for (i64 t = begin; t < end; ++t)
        gemm_part(g, 0, g.m, t * group * w, std::min((t + 1) * group * w, g.n),
                  static_cast<const T*>(nullptr), scratch.data());
    });
  } else {
    parallel_for(row_tiles, grain(row_tiles), [&](i64 begin, i64 end) {
      const Workspace<T> scratch(k_block * panels * w);
      gemm_part(g, begin * tile_rows, std::min(end * tile_rows, g.m), 0, g.n,
                static_cast<const T*>(nullptr), scratch.data());
    });
  }
}

}  // namespace detail

/// C(m,n) (+)= A(m,k) B(k,n) for matrices that lie in cache, on the calling thread, without
/// packing: the products inside an attention head. A(i,p) = a[i*row + p*step]. Rows of B must be
/// readable up to a whole number of vectors.
template <class T>
void multiply_small(i64 m, i64 n, i64 k, const T* a, i64 row, i64 step, const T* b, i64 ldb, T* c,
                    i64 ldc, bool accumulate) {
  constexpr i64 w = lanes<T>;
  for (i64 j = 0; j < n; j += 2 * w) {
    const i64 cols = std::min(2 * w, n - j);
    for (i64 i = 0; i < m; i += detail::tile_rows) {
      const i64 rows = std::min<i64>(detail::tile_rows, m - i);
      T* const to = c + i * ldc + j;
      if (cols > w)
        detail::tile_of<T, detail::tile_rows, 2>(rows, k, a + i * row, row, step, b + j, ldb, to,
                                                 ldc, cols, {accumulate ? to : nullptr, nullptr});
      else
        detail::tile_of<T, detail::tile_rows, 1>(rows, k, a + i * row, row, step, b + j, ldb, to,
                                                 ldc, cols, {accumulate ? to : nullptr, nullptr});
    }
  }
}

namespace detail {

// With registers of 32 bytes ours are 1.15 times as fast as Eigen's (f64: 1.08), where the compiler
// tunes for the machine 1.5 times (1.35); with 16 bytes both are alike.
inline constexpr bool own_is_faster = PPMA_SIMD_BYTES >= 32;

// g.batch products, neither of m, n, k and batch 0.
template <class T>
void gemm_own(const Gemm<T>& g) {
  const auto product = [&g](i64 i) {
    Gemm<T> one = g;
    one.a += i * g.stride_a, one.b += i * g.stride_b, one.c += i * g.stride_c;
    if (g.add) one.add += i * g.stride_c;
    return one;
  };
  if (g.batch == 1) return gemm_one(g);
  const i64 flops = 2 * g.m * g.n * g.k;
  if (2 * threads() > g.batch && flops > (i64{1} << 22)) {
    for (i64 i = 0; i < g.batch; ++i) gemm_one(product(i));
    return;
  }
  constexpr i64 w = panel_width<T>;
  parallel_for(g.batch, std::max<i64>(1, (i64{1} << 21) / flops), [&](i64 begin, i64 end) {
    const Workspace<T> scratch(k_block * ((g.n + w - 1) / w * w));
    for (i64 i = begin; i < end; ++i)
      gemm_part(product(i), 0, g.m, 0, g.n, static_cast<const T*>(nullptr), scratch.data());
  });
}

}  // namespace detail

/// Whether products are computed by our kernels here, which pack.
inline bool packs_factors() {
  const Products by = products();
  return by == Products::own || (by == Products::measured && detail::own_is_faster);
}

/// Elements of op(B) (k,n) packed.
template <class T>
i64 packed_size(i64 k, i64 n) {
  constexpr i64 w = detail::panel_width<T>;
  return k * ((n + w - 1) / w * w);
}

/// Gemm::packed of the product g, of which n, k and B are looked at.
template <class T>
void pack_factor(Cpu, const Gemm<T>& g, T* to) {
  detail::pack_panels(g, 0, (g.n + detail::panel_width<T> - 1) / detail::panel_width<T>, to);
}

/// C (+)= op(A) op(B) + bias + add, `batch` times.
template <class T>
void gemm(Cpu, const Gemm<T>& g) {
  if (g.m == 0 || g.n == 0 || g.batch == 0) return;
  if (g.k == 0) {  // an empty sum
    for (i64 i = 0; i < g.batch; ++i)
      for (i64 r = 0; r < g.m; ++r)
        for (i64 j = 0; j < g.n; ++j) {
          T& c = g.c[i * g.stride_c + r * g.ldc + j];
          c = (g.accumulate ? c : T(0)) + (g.bias && !g.accumulate ? g.bias[j] : T(0)) +
              (g.add ? g.add[i * g.stride_c + r * g.ldc + j] : T(0));
        }
    return;
  }
  if constexpr (std::is_same_v<T, float>)
    if (g.strips && multiplies_bf16())
      return multiply_strips<detail::AmxTiles>(
          g.m, g.n, g.k, g.strips, g.bias, g.add, g.c, g.ldc,
          [&g](i64 i, bf16* row) { detail::AmxTiles::round(g.k, g.a + i * g.lda, row); });
  if (packs_factors() || g.strips)
    detail::gemm_own(g);
  else
    gemm_eigen(g);
}

/// Weights in the dtype of a product's other factor: y = x, n elements, rounded.
template <class From, class To>
void convert_weights(Cpu, i64 n, const From* x, To* y) {
  for (i64 i = 0; i < n; ++i) y[i] = static_cast<To>(x[i]);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/gemm.cuh"
#endif

#include "ppma/core/names_end.hpp"
