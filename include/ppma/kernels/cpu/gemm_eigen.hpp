#pragma once
#include "ppma/core/names_begin.hpp"
// Dense products by Eigen: the definition of every product, what instruction sets without a
// micro-kernel of ours use, and with EIGEN_USE_BLAS the way to a BLAS of the user's choice. The one
// header of the library's own that includes Eigen.
//
// What is called is the routine behind Eigen's operator *, as Eigen's own BLAS calls it: the
// operator would take other routines for vectors and small matrices, and threads of its own. Eigen
// works column by column, so C^T = op(B)^T op(A)^T is computed. Threads are ours: each takes whole
// register tiles.
//
// The order of additions of one element of C depends on k and on its column, never on its row, the
// number of rows or the threads. Eigen adds in another order in the last rows where these do not
// fill a register tile; so they are completed to one. (A BLAS makes no such promise.)

#include "ppma/core/config.hpp"
#include "ppma/kernels/gemm.hpp"

namespace ppma::inline PPMA_ABI::kernels {

/// Who computes products on the CPU.
enum class Products { measured, own, eigen };  // measured: whoever is faster for the type

/// What PPMA_GEMM in the environment asks for: "own", "eigen", or nothing. `own` where the program
/// was compiled without Eigen (PPMA_EIGEN 0). Errors: another word, "eigen" without Eigen.
PPMA_API Products products();

/// g.batch products, neither of m, n, k and batch 0. Only where products() is not `own`.
PPMA_API void gemm_eigen(const Gemm<float>& g);
PPMA_API void gemm_eigen(const Gemm<double>& g);

}  // namespace ppma::inline PPMA_ABI::kernels

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_KERNELS)

#include <cstdlib>
#include <string_view>
#include <type_traits>

#include "ppma/core/error.hpp"

#if PPMA_EIGEN

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/core/parallel.hpp"

#if !PPMA_HEADER_ONLY
// The compiled library has an Eigen of its own: a program that links it may include Eigen compiled
// for other instructions, with functions of the same names.
#define Eigen ppma_eigen
#define EIGEN_NO_DEBUG  // no assertion ends the program
#endif
#if __has_include(<Eigen/Core>)
#include <Eigen/Core>
#else
#include <eigen3/Eigen/Core>
#endif

namespace ppma::inline PPMA_ABI::kernels::detail {

// Rows and columns of C in a register tile.
template <class T>
inline constexpr i64 eigen_rows = Eigen::internal::gebp_traits<T, T>::nr;
template <class T>
inline constexpr i64 eigen_columns = Eigen::internal::gebp_traits<T, T>::mr;

// How a product of at most m x n x k is cut to fit the caches, and the memory for packed factors,
// which Eigen would ask the system for each time.
template <class T>
class EigenBlocks : public Eigen::internal::level3_blocking<T, T> {
 public:
  EigenBlocks(i64 m, i64 n, i64 k) : EigenBlocks(sizes(m, n, k)) {}

 private:
  struct Sizes {
    Eigen::Index mc, nc, kc;
  };
  static Sizes sizes(i64 m, i64 n, i64 k) {
    Sizes s{n, m, k};
    Eigen::internal::computeProductBlockingSizes<T, T, 1>(s.kc, s.mc, s.nc, Eigen::Index{1});
    return s;
  }
  explicit EigenBlocks(Sizes s) : memory_a_(s.mc * s.kc), memory_b_(s.nc * s.kc) {
    this->m_mc = s.mc, this->m_nc = s.nc, this->m_kc = s.kc;
    this->m_blockA = memory_a_.data(), this->m_blockB = memory_b_.data();
  }
  Workspace<T> memory_a_, memory_b_;
};

// C (m,n) += op(A) op(B)
template <class T>
void add_product(const Gemm<T>& g, EigenBlocks<T>& blocks) {
  using Eigen::ColMajor, Eigen::RowMajor;
  const auto run = [&](auto order_b, auto order_a) {
    Eigen::internal::general_matrix_matrix_product<Eigen::Index, T, order_b(), false, T, order_a(),
                                                   false, ColMajor, 1>::run(g.n, g.m, g.k, g.b,
                                                                            g.ldb, g.a, g.lda, g.c,
                                                                            1, g.ldc, T(1), blocks,
                                                                            nullptr);
  };
  constexpr std::integral_constant<int, ColMajor> columns;
  constexpr std::integral_constant<int, RowMajor> rows;
  if (g.tb)
    g.ta ? run(rows, rows) : run(rows, columns);
  else
    g.ta ? run(columns, rows) : run(columns, columns);
}

// Rows m0..m1, columns n0..n1 of one product.
template <class T>
void eigen_part(Gemm<T> g, i64 m0, i64 m1, i64 n0, i64 n1, EigenBlocks<T>& blocks) {
  g.m = m1 - m0, g.n = n1 - n0;
  g.a += m0 * (g.ta ? 1 : g.lda), g.b += n0 * (g.tb ? g.ldb : 1), g.c += m0 * g.ldc + n0;
  if (g.add) g.add += m0 * g.ldc + n0;
  for (i64 i = 0; i < g.m && !g.accumulate; ++i) {
    if (g.bias)
      std::copy_n(g.bias + n0, g.n, g.c + i * g.ldc);
    else
      std::fill_n(g.c + i * g.ldc, g.n, T(0));
    for (i64 j = 0; g.add && j < g.n; ++j) g.c[i * g.ldc + j] += g.add[i * g.ldc + j];
  }
  const i64 rest = g.m % eigen_rows<T>;
  g.m -= rest;
  if (g.m > 0) add_product(g, blocks);
  if (rest == 0) return;
  // The last rows, completed with zeros.
  const Workspace<T> a(eigen_rows<T> * g.k), c(eigen_rows<T> * g.n);
  std::fill_n(a.data(), eigen_rows<T> * g.k, T(0));
  std::fill_n(c.data(), eigen_rows<T> * g.n, T(0));
  T* const last = g.c + g.m * g.ldc;
  for (i64 i = 0; i < rest; ++i) {
    for (i64 p = 0; p < g.k; ++p)
      a.data()[i * g.k + p] = g.ta ? g.a[p * g.lda + g.m + i] : g.a[(g.m + i) * g.lda + p];
    std::copy_n(last + i * g.ldc, g.n, c.data() + i * g.n);
  }
  Gemm<T> tile = g;
  tile.m = eigen_rows<T>;
  tile.a = a.data(), tile.lda = g.k, tile.ta = false;
  tile.c = c.data(), tile.ldc = g.n;
  add_product(tile, blocks);
  for (i64 i = 0; i < rest; ++i) std::copy_n(c.data() + i * g.n, g.n, last + i * g.ldc);
}

// One product, on all threads: each takes rows of C, or columns where it is wide.
template <class T>
void eigen_one(const Gemm<T>& g) {
  constexpr i64 height = eigen_rows<T>, width = eigen_columns<T>;
  const i64 down = (g.m + height - 1) / height, across = (g.n + width - 1) / width;
  const bool by_rows = down >= threads() && (g.m >= g.n || across < threads());
  const i64 parts = by_rows ? down : across;
  const i64 grain = (i64{1} << 21) / std::max<i64>(1, 2 * g.m * g.n * g.k / parts) + 1;
  parallel_for(parts, grain, [&](i64 begin, i64 end) {
    const i64 m0 = by_rows ? begin * height : 0, m1 = by_rows ? std::min(end * height, g.m) : g.m;
    const i64 n0 = by_rows ? 0 : begin * width, n1 = by_rows ? g.n : std::min(end * width, g.n);
    EigenBlocks<T> blocks(std::max(m1 - m0, height), n1 - n0, g.k);
    eigen_part(g, m0, m1, n0, n1, blocks);
  });
}

template <class T>
void eigen_all(const Gemm<T>& g) {
  const auto product = [&g](i64 i) {
    Gemm<T> one = g;
    one.a += i * g.stride_a, one.b += i * g.stride_b, one.c += i * g.stride_c;
    if (g.add) one.add += i * g.stride_c;
    return one;
  };
  const i64 flops = 2 * g.m * g.n * g.k;
  if (g.batch == 1 || (2 * threads() > g.batch && flops > (i64{1} << 22))) {
    for (i64 i = 0; i < g.batch; ++i) eigen_one(product(i));
    return;
  }
  parallel_for(g.batch, std::max<i64>(1, (i64{1} << 21) / flops), [&](i64 begin, i64 end) {
    EigenBlocks<T> blocks(std::max(g.m, eigen_rows<T>), g.n, g.k);
    for (i64 i = begin; i < end; ++i) eigen_part(product(i), 0, g.m, 0, g.n, blocks);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#if !PPMA_HEADER_ONLY
#undef Eigen
#endif

#endif  // PPMA_EIGEN

namespace ppma::inline PPMA_ABI::kernels {

Products products() {
  static const Products chosen = [] {
    const char* const word = std::getenv("PPMA_GEMM");
    const std::string_view asked = word == nullptr ? "" : word;
    check(asked == "" || asked == "own" || asked == "eigen", "PPMA_GEMM=", asked,
          " in the environment: products are computed by \"own\" kernels or by \"eigen\"");
    check(asked != "eigen" || PPMA_EIGEN,
          "PPMA_GEMM=eigen in the environment: this program was compiled without Eigen's products "
          "(PPMA_EIGEN)");
    if (asked == "own" || !PPMA_EIGEN) return Products::own;
#if defined(EIGEN_USE_BLAS)
    return Products::eigen;  // who links a BLAS means it
#else
    return asked == "eigen" ? Products::eigen : Products::measured;
#endif
  }();
  return chosen;
}

#if PPMA_EIGEN
void gemm_eigen(const Gemm<float>& g) { detail::eigen_all(g); }
void gemm_eigen(const Gemm<double>& g) { detail::eigen_all(g); }
#else
void gemm_eigen(const Gemm<float>&) { fail("gemm: compiled without Eigen"); }
void gemm_eigen(const Gemm<double>&) { fail("gemm: compiled without Eigen"); }
#endif

}  // namespace ppma::inline PPMA_ABI::kernels

#endif  // definitions

#include "ppma/core/names_end.hpp"
