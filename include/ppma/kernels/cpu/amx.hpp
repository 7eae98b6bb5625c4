#pragma once
#include "ppma/core/names_begin.hpp"
// Products of f32 activations, rounded to bf16, with weights in bf16 (kernels/cpu/strips.hpp) by
// AMX: the tile registers of Intel's server processors since 2023, which multiply 16 x 32 by 32 x
// 16 elements in 16 cycles and add in f32. That is 1,024 FLOPs a cycle, 16 times AVX-512's in f32,
// so what counts here is the way to and from the tiles: a block of rows of A is rounded once for
// all columns and stays in L2; a strip of B is read once for the block.
//
// LoopTiles says what a tile's product is.

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/strips.hpp"

// The instructions are written by name, so that the compiler need not know them; the assembler
// must.
#if PPMA_SIMD_BYTES == 64 && defined(__x86_64__) && defined(__linux__) && !defined(__CUDACC__)
#define PPMA_AMX 1
#else
#define PPMA_AMX 0
#endif

namespace ppma::inline PPMA_ABI::kernels {

/// Whether this processor has AMX for bf16, the system lets this process use it, and the
/// instruction set that runs includes it (avx512). PPMA_AMX=0 in the environment turns it off.
PPMA_API bool multiplies_bf16();

}  // namespace ppma::inline PPMA_ABI::kernels

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// Rows and columns of C that are computed at once: two tiles each way.
inline constexpr i64 tile_side = 32;

// C (32,32) = A (32,k) B (k,32), k = 32 chunks: rows of A lda apart, strips of B `strip` apart.
struct LoopTiles {
  /// n elements rounded to bf16.
  static void round(i64 n, const float* x, bf16* y) {
    for (i64 i = 0; i < n; ++i) y[i] = bf16(x[i]);
  }
  void multiply(i64 chunks, const bf16* a, i64 lda, const bf16* b, i64 strip, float* c) const {
    for (i64 i = 0; i < tile_side; ++i)
      for (i64 j = 0; j < tile_side; ++j) {
        const bf16* const column = b + j / strip_columns * strip + j % strip_columns * 2;
        float sum = 0;
        for (i64 p = 0; p < 32 * chunks; ++p)
          sum += static_cast<float>(a[i * lda + p]) *
                 static_cast<float>(column[p / 2 * 2 * strip_columns + p % 2]);
        c[i * tile_side + j] = sum;
      }
  }
};

#if PPMA_AMX
// The tile registers of the calling thread, for as long as it lives: 0 to 3 are C, 4 and 5 A, 6 and
// 7 B.
class AmxTiles {
 public:
  AmxTiles() {
    struct alignas(64) {
      u8 palette = 1, start = 0, unused[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      u8 rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
  ~AmxTiles() { asm volatile("tilerelease"); }

  // In hardware too: processors with AMX have AVX512-BF16.
  static void round(i64 n, const float* x, bf16* y) {
    constexpr i64 w = lanes<float>;
    typedef std::int16_t Half __attribute__((vector_size(2 * w)));
    i64 i = 0;
    for (; i + w <= n; i += w) {
      Half rounded;
      asm("vcvtneps2bf16 %1, %0" : "=v"(rounded) : "v"(load(x + i)));
      std::memcpy(static_cast<void*>(y + i), &rounded, sizeof rounded);
    }
    LoopTiles::round(n - i, x + i, y + i);
  }

  void multiply(i64 chunks, const bf16* a, i64 lda, const bf16* b, i64 strip, float* c) const {
    const i64 row = lda * 2, line = 64;  // bytes
    asm volatile(
        "tilezero %%tmm0\n\t"
        "tilezero %%tmm1\n\t"
        "tilezero %%tmm2\n\t"
        "tilezero %%tmm3"
        :
        :
        : "memory");
    for (i64 i = 0; i < chunks; ++i, a += 32, b += 32 * strip_columns)
      asm volatile(
          "tileloadd (%0,%4,1), %%tmm4\n\t"
          "tileloadd (%2,%5,1), %%tmm6\n\t"
          "tileloadd (%3,%5,1), %%tmm7\n\t"
          "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\t"
          "tileloadd (%1,%4,1), %%tmm5\n\t"
          "tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
          "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\t"
          "tdpbf16ps %%tmm7, %%tmm5, %%tmm3"
          :
          : "r"(a), "r"(a + 16 * lda), "r"(b), "r"(b + strip), "r"(row), "r"(line)
          : "memory");
    const i64 across = tile_side * 4;
    asm volatile(
        "tilestored %%tmm0, (%0,%4,1)\n\t"
        "tilestored %%tmm1, (%1,%4,1)\n\t"
        "tilestored %%tmm2, (%2,%4,1)\n\t"
        "tilestored %%tmm3, (%3,%4,1)"
        :
        : "r"(c), "r"(c + 16), "r"(c + 16 * tile_side), "r"(c + 16 * tile_side + 16), "r"(across)
        : "memory");
  }
};
#else
using AmxTiles = LoopTiles;
#endif

// Rows of A in a block: as many as take a quarter of L2, in bf16.
constexpr i64 rows_of_block(i64 k) {
  return std::clamp<i64>((i64{1} << 18) / k / tile_side * tile_side, tile_side, 8 * tile_side);
}

}  // namespace detail

namespace detail {

// Rows 0..rows of a tile's sums with bias and `add` to C, `cols` wide; bias and add may be null.
template <bool whole>
void store_sums(i64 rows, i64 cols, const float* sums, const float* bias, const float* add,
                float* c, i64 ldc) {
  constexpr i64 w = lanes<float>;
  for (i64 r = 0; r < rows; ++r, sums += tile_side, c += ldc) {
    if constexpr (whole) {
      PPMA_UNROLL
      for (i64 v = 0; v < tile_side; v += w) {
        Vec<float> sum = load(sums + v);
        if (bias) sum += load(bias + v);
        if (add) sum += load(add + v);
        store(c + v, sum);
      }
    } else {
      for (i64 v = 0; v < cols; ++v)
        c[v] = sums[v] + (bias ? bias[v] : 0.0f) + (add ? add[v] : 0.0f);
    }
    if (add) add += ldc;
  }
}

}  // namespace detail

/// C (m,n) = A B + bias + add: B (k,n) in strips; bias (n) and add (m,n) or null; rows of C and
/// `add` ldc apart. fill(i, to) writes row i of A, k elements.
template <class Tiles, class F>
void multiply_strips(i64 m, i64 n, i64 k, const bf16* strips, const float* bias, const float* add,
                     float* c, i64 ldc, const F& fill) {
  using detail::tile_side;
  const i64 chunks = (k + 31) / 32, lda = 32 * chunks, strip = strip_size(k);
  const i64 height = std::min(detail::rows_of_block(lda), (m + 31) / 32 * 32);
  const i64 blocks = (m + height - 1) / height, panels = (n + tile_side - 1) / tile_side;
  // Columns are shared by threads only where rows are too few: each rounds its block of A then.
  const i64 splits = std::min(panels, std::max<i64>(1, threads() / blocks)),
            units = blocks * splits;
  const i64 grain = std::max<i64>(1, (i64{1} << 23) * units / std::max<i64>(1, m * n * k));
  parallel_for(units, grain, [&](i64 begin, i64 end) {
    const Workspace<bf16> block(height * lda);
    alignas(64) float sums[tile_side * tile_side];
    const Tiles tiles;
    i64 filled = -1;
    for (i64 unit = begin; unit < end; ++unit) {
      const i64 i0 = unit / splits * height, rows = std::min(height, m - i0), part = unit % splits;
      if (i0 != filled) {
        for (i64 i = 0; i < (rows + 31) / 32 * 32; ++i) {
          bf16* const row = block.data() + i * lda;
          const i64 there = i < rows ? k : 0;
          if (there > 0) fill(i0 + i, row);
          std::memset(static_cast<void*>(row + there), 0,
                      static_cast<std::size_t>(lda - there) * sizeof(bf16));
        }
        filled = i0;
      }
      for (i64 q = panels * part / splits; q < panels * (part + 1) / splits; ++q) {
        const i64 j = q * tile_side, cols = std::min(tile_side, n - j);
        for (i64 i = 0; i < rows; i += tile_side) {
          tiles.multiply(chunks, block.data() + i * lda, lda, strips + 2 * q * strip, strip, sums);
          const i64 at = (i0 + i) * ldc + j, there = std::min(tile_side, rows - i);
          const auto store_all = [&](auto whole) {
            detail::store_sums<whole()>(there, cols, sums, bias ? bias + j : nullptr,
                                        add ? add + at : nullptr, c + at, ldc);
          };
          if (cols == tile_side)
            store_all(std::true_type{});
          else
            store_all(std::false_type{});
        }
      }
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_KERNELS)

#if PPMA_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#endif

namespace ppma::inline PPMA_ABI::kernels {

bool multiplies_bf16() {
#if PPMA_AMX
  static const bool here = [] {
    const char* const asked = std::getenv("PPMA_AMX");
    if (asked && std::strcmp(asked, "0") == 0) return false;
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & (1u << 22)) != 0 &&
                       (d & (1u << 24)) != 0;  // AMX-BF16, AMX-TILE
    const bool has = tiles && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 &&
                     (a & (1u << 5)) != 0;  // AVX512-BF16
    // The registers are large, and Linux wants to be asked: ARCH_REQ_XCOMP_PERM, tile data.
    return has && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  }();
  return here;
#else
  return false;
#endif
}

}  // namespace ppma::inline PPMA_ABI::kernels

#endif  // definitions

#include "ppma/core/names_end.hpp"
