// Dense products: ours, Eigen's and plain loops agree; what their results must not depend on.

#include "ppma/kernels/cpu/gemm.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "ppma/core/random.hpp"
#include "sanitized.hpp"
#include "thread_counts.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

template <class T>
using Product = void (*)(const kernels::Gemm<T>&);

// Ours and, where it was compiled, Eigen's.
template <class T>
std::vector<std::pair<std::string, Product<T>>> all_products() {
  std::vector<std::pair<std::string, Product<T>>> all{{"own", kernels::detail::gemm_own<T>}};
  if (kernels::products() != kernels::Products::own) {
    const Product<T> by_eigen = kernels::gemm_eigen;
    all.emplace_back("eigen", by_eigen);
  }
  return all;
}

// Matrices of a batch, `gap` elements between rows and between matrices, which are NaN: who reads
// them shows it.
template <class T>
struct Matrices {
  i64 rows, cols, leading, stride;
  std::vector<T> values;

  Matrices(i64 batch, i64 rows_, i64 cols_, i64 gap, Rng& rng)
      : rows(rows_), cols(cols_), leading(cols_ + gap), stride(rows_ * leading + gap) {
    values.assign(static_cast<std::size_t>(batch * stride + gap), std::nan(""));
    for (i64 b = 0; b < batch; ++b)
      for (i64 r = 0; r < rows; ++r)
        for (i64 j = 0; j < cols; ++j)
          values[static_cast<std::size_t>(b * stride + r * leading + j)] =
              static_cast<T>(rng.normal());
  }
  T at(i64 b, i64 r, i64 j) const {
    return values[static_cast<std::size_t>(b * stride + r * leading + j)];
  }
};

struct Case {
  i64 m, n, k, batch = 1, gap = 0;
  bool ta = false, tb = false, accumulate = false, bias = false;
};

template <class T>
struct Problem {
  Case what;
  Matrices<T> a, b, c;
  std::vector<T> bias;

  Problem(const Case& x, Rng& rng)
      : what(x),
        a(x.batch, x.ta ? x.k : x.m, x.ta ? x.m : x.k, x.gap, rng),
        b(x.batch, x.tb ? x.n : x.k, x.tb ? x.k : x.n, x.gap, rng),
        c(x.batch, x.m, x.n, x.gap, rng) {
    for (i64 j = 0; j < x.n; ++j) bias.push_back(static_cast<T>(rng.normal()));
  }
  // The product with its result in `to`, which has c's layout.
  kernels::Gemm<T> into(std::vector<T>& to) const {
    kernels::Gemm<T> g;
    g.m = what.m, g.n = what.n, g.k = what.k, g.batch = what.batch;
    g.a = a.values.data(), g.lda = a.leading, g.ta = what.ta, g.stride_a = a.stride;
    g.b = b.values.data(), g.ldb = b.leading, g.tb = what.tb, g.stride_b = b.stride;
    g.c = to.data(), g.ldc = c.leading, g.stride_c = c.stride;
    g.accumulate = what.accumulate, g.bias = what.bias ? bias.data() : nullptr;
    return g;
  }
};

// |got - exact| against the bound of a sum of k + 1 products in any order, (k + 1) units of the sum
// of the terms' magnitudes; everything around C as it was.
template <class T>
void check_against_loops(const Problem<T>& p, const std::vector<T>& got) {
  const Case& x = p.what;
  const long double unit = std::numeric_limits<T>::epsilon() / 2.0L;
  std::vector<T> untouched = p.c.values;
  double worst = 0;
  for (i64 s = 0; s < x.batch; ++s)
    for (i64 i = 0; i < x.m; ++i)
      for (i64 j = 0; j < x.n; ++j) {
        const long double first = x.accumulate ? p.c.at(s, i, j)
                                  : x.bias     ? p.bias[static_cast<std::size_t>(j)]
                                               : T(0);
        long double sum = first, magnitude = std::fabs(first);
        for (i64 q = 0; q < x.k; ++q) {
          const long double term =
              static_cast<long double>(x.ta ? p.a.at(s, q, i) : p.a.at(s, i, q)) *
              static_cast<long double>(x.tb ? p.b.at(s, j, q) : p.b.at(s, q, j));
          sum += term, magnitude += std::fabs(term);
        }
        const std::size_t place = static_cast<std::size_t>(s * p.c.stride + i * p.c.leading + j);
        const long double error = std::fabs(static_cast<long double>(got[place]) - sum),
                          bound = static_cast<long double>(x.k + 1) * unit * magnitude;
        if (!(error <= bound)) worst = std::max(worst, static_cast<double>(error / (bound + unit)));
        untouched[place] = got[place];
      }
  CHECK(worst == 0);  // otherwise: how many times the bound
  CHECK(std::memcmp(untouched.data(), got.data(), got.size() * sizeof(T)) == 0);
}

template <class T>
void check_shapes() {
  Rng rng(1);
  const std::vector<Case> shapes{{1, 1, 1},        {1, 7, 5},     {5, 1, 7},       {7, 5, 1},
                                 {2, 3, 4},        {4, 8, 16},    {13, 17, 19},    {48, 48, 48},
                                 {49, 96, 33},     {50, 64, 300}, {6, 130, 700},   {131, 10, 515},
                                 {256, 3, 9},      {3, 260, 64},  {1, 100, 512},   {100, 1, 512},
                                 {65, 33, 1030},   {5, 6, 7, 3},  {49, 49, 16, 4}, {16, 40, 24, 9},
                                 {96, 80, 300, 2}, {1, 9, 4, 5},  {9, 1, 4, 5}};
  for (const auto& [name, product] : all_products<T>()) {
    int first = 0;
    for (Case x : shapes) {
      // The long ones in five ways: each transposition, gap and end, and between them all 24.
      const bool is_long = x.m * x.n * x.k * x.batch > (brief() ? 5000 : 100000);
      if (is_long) first = (first + 1) % 5;
      for (int how = is_long ? first : 0; how < 24; how += is_long ? 5 : 1) {
        x.ta = how % 2 == 1, x.tb = how / 2 % 2 == 1, x.gap = how / 4 % 2 == 1 ? 5 : 0;
        x.accumulate = how / 8 == 1, x.bias = how / 8 == 2;
        const Problem<T> p(x, rng);
        std::vector<T> result = p.c.values;
        product(p.into(result));
        INFO(name << " m " << x.m << " n " << x.n << " k " << x.k << " batch " << x.batch << " gap "
                  << x.gap << (x.ta ? " A^T" : "") << (x.tb ? " B^T" : "")
                  << (x.accumulate ? " accumulate" : "") << (x.bias ? " bias" : ""));
        check_against_loops(p, result);
      }
    }
  }
}

// Row i of a product of many rows is, to the last bit, the product of that row alone, for any
// number of threads.
template <class T>
void check_same_bits() {
  Rng rng(2);
  const int before = threads();
  const std::vector<int> counts = thread_counts({2, 3, 7});
  for (const auto& [name, product] : all_products<T>())
    for (const auto& [n, k] : std::vector<std::pair<i64, i64>>{
             {1, 3}, {1, 600}, {5, 4}, {8, 33}, {31, 64}, {100, 700}, {192, 64}, {33, 1030}})
      for (const bool transposed : {false, true})
        for (const i64 m : {3, 47, 196}) {
          if (brief() && m * n * k > 1000000) continue;  // more of the same blocks
          INFO(name << " m " << m << " n " << n << " k " << k << (transposed ? " transposed" : ""));
          set_threads(1);
          const Problem<T> p({m, n, k, 1, 0, transposed, !transposed}, rng);
          std::vector<T> one = p.c.values, several = one, alone = one;
          product(p.into(one));
          for (i64 i = 0; i < m; ++i) {
            kernels::Gemm<T> row = p.into(alone);
            row.m = 1, row.a += transposed ? i : i * row.lda, row.c += i * row.ldc;
            product(row);
          }
          CHECK((one == alone));
          for (const int t : counts) {
            set_threads(t);
            product(p.into(several));
            CHECK((one == several));
          }
          // a batch, which is split in other ways, of all rows but m % 3
          several = one;
          std::fill_n(several.begin(), m / 3 * 3 * n, T(-1));
          kernels::Gemm<T> thirds = p.into(several);
          thirds.batch = 3, thirds.m = m / 3, thirds.stride_b = 0;
          thirds.stride_a = thirds.m * (transposed ? 1 : thirds.lda);
          thirds.stride_c = thirds.m * thirds.ldc;
          product(thirds);
          CHECK((one == several));
        }
  set_threads(before);
}

}  // namespace

TEST_CASE("products: ours, Eigen's and plain loops agree, f32") { check_shapes<float>(); }
TEST_CASE("products: ours, Eigen's and plain loops agree, f64") { check_shapes<double>(); }

TEST_CASE("products: a row's bits do not depend on the other rows or the threads") {
#if defined(EIGEN_USE_BLAS)
  PPMA_SKIP("a BLAS chooses the order of additions by the sizes");
#else
  check_same_bits<float>();
  check_same_bits<double>();
#endif
}

TEST_CASE("products: Eigen's are compiled") {
  if (PPMA_EIGEN == 0) PPMA_SKIP("compiled without Eigen (PPMA_EIGEN)");
  if (std::getenv("PPMA_GEMM") != nullptr) PPMA_SKIP("PPMA_GEMM asks for one of them");
  CHECK(all_products<float>().size() == 2);
}

TEST_CASE("products: empty sizes") {
  Rng rng(3);
  for (const bool accumulate : {false, true})
    for (const bool bias : {false, true}) {
      const Problem<float> p({4, 5, 0, 2, 3, false, true, accumulate, bias && !accumulate}, rng);
      std::vector<float> result = p.c.values;
      kernels::gemm(Cpu{}, p.into(result));
      check_against_loops(p, result);
    }
  for (const Case& x : {Case{0, 5, 3}, Case{5, 0, 3}, Case{5, 5, 3, 0}, Case{0, 0, 0, 0}}) {
    std::vector<float> result{7};
    kernels::Gemm<float> g;
    g.m = x.m, g.n = x.n, g.k = x.k, g.batch = x.batch, g.c = result.data(), g.ldc = x.n;
    kernels::gemm(Cpu{}, g);
    CHECK(result[0] == 7);
  }
}
