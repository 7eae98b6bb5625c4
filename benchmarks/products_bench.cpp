// Every dense product of PPMA-T on one image of 224 x 224, by our micro-kernels and by Eigen: a
// table in Markdown, GFLOP/s (multiply-add = 2), medians of rounds that alternate between the two,
// one thread (its processor time: other programs may run) and all (elapsed time). The results must
// agree before anything is timed.
//
// Attention's products inside a head and the convolutions have kernels of their own in the network
// (multiply_small, kernels/cpu/conv.hpp); here they are what they would be as calls of gemm.
//
// Compiled once for each instruction set (products_bench_sse2, _avx2, _avx512), and for this
// machine with -march=native, which also tunes the code for it (_native).
//
//   build/release/benchmarks/products_bench_avx2 [rounds [threads]]     default: 15, all

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "ppma/core/parallel.hpp"
#include "ppma/core/random.hpp"
#include "ppma/kernels/cpu/gemm.hpp"

using namespace ppma;

namespace {

struct Shape3 {
  std::string what;
  i64 m, n, k, batch;
  bool ta, tb;
};

std::vector<Shape3> shapes_of_the_network() {
  std::vector<Shape3> all;
  const i64 side[] = {56, 28, 14, 7}, width[] = {64, 128, 256, 512}, heads[] = {4, 4, 8, 16};
  i64 from = 3;
  for (const i64 s : {112, 112, 56, 56}) {  // the stem: 32, 32, 64, 64 channels
    const i64 to = s == 112 ? 32 : 64;
    all.push_back(
        {str("stem, 3x3 convolution, ", s, " x ", s), s * s, to, 9 * from, 1, false, true});
    from = to;
  }
  for (int i = 0; i < 4; ++i) {
    const i64 n = side[i] * side[i], c = width[i], h = heads[i], d = c / h;
    const std::string stage = str("stage ", i + 1, ", ");
    if (i > 0)
      all.push_back({stage + "3x3 convolution before it", n, c, 9 * width[i - 1], 1, false, true});
    all.push_back({stage + "q, k, v, out", n, c, c, 1, false, true});
    all.push_back({stage + "fc1", n, 3 * c, c, 1, false, true});
    all.push_back({stage + "fc2", n, c, 3 * c, 1, false, true});
    if (i < 2) {  // criss-cross: a product for each line of a head
      all.push_back({stage + "lines: q k^T", side[i], side[i], d, h * side[i], false, true});
      all.push_back({stage + "lines: weights v", side[i], d, side[i], h * side[i], false, false});
    } else {
      all.push_back({stage + "heads: q k^T", n, n, d, h, false, true});
      all.push_back({stage + "heads: weights v", n, d, n, h, false, false});
    }
    all.push_back({stage + "fc1, gradient of x", n, c, 3 * c, 1, false, false});
    all.push_back({stage + "fc1, gradient of w", 3 * c, c, n, 1, true, false});
  }
  all.push_back({"projection", 49, 1024, 512, 1, false, true});
  all.push_back({"classifier", 1, 1000, 1024, 1, false, true});
  return all;
}

template <class T>
using Product = void (*)(const kernels::Gemm<T>&);

template <class F>
double seconds(i64 times, F&& f) {
  const bool alone = threads() == 1;
  const auto begin = std::chrono::steady_clock::now();
  const std::clock_t begin_cpu = std::clock();
  for (i64 i = 0; i < times; ++i) f();
  const double cpu = static_cast<double>(std::clock() - begin_cpu) / CLOCKS_PER_SEC,
               elapsed =
                   std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return (alone ? cpu : elapsed) / static_cast<double>(times);
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// GFLOP/s of both, ours first.
template <class T>
std::pair<double, double> race(const Shape3& s, int rounds) {
  Rng rng(1);
  const auto draw = [&](i64 count) {
    std::vector<T> v(static_cast<std::size_t>(count));
    for (T& x : v) x = static_cast<T>(rng.uniform() - 0.5);
    return v;
  };
  const std::vector<T> a = draw(s.batch * s.m * s.k), b = draw(s.batch * s.k * s.n);
  std::vector<T> result[2];
  const Product<T> product[2] = {kernels::detail::gemm_own<T>, kernels::gemm_eigen};
  kernels::Gemm<T> g[2];
  const double flops = 2.0 * static_cast<double>(s.batch * s.m * s.n * s.k);
  for (int who = 0; who < 2; ++who) {
    result[who].resize(static_cast<std::size_t>(s.batch * s.m * s.n));
    g[who].m = s.m, g[who].n = s.n, g[who].k = s.k, g[who].batch = s.batch;
    g[who].a = a.data(), g[who].lda = s.ta ? s.m : s.k, g[who].ta = s.ta;
    g[who].b = b.data(), g[who].ldb = s.tb ? s.k : s.n, g[who].tb = s.tb;
    g[who].c = result[who].data(), g[who].ldc = s.n;
    g[who].stride_a = s.m * s.k, g[who].stride_b = s.k * s.n, g[who].stride_c = s.m * s.n;
    product[who](g[who]);
  }
  // Factors are at most 1/2: k + 1 roundings of at most k / 4 each bound what may differ.
  const double unit = sizeof(T) == 4 ? 0x1p-24 : 0x1p-53, k = static_cast<double>(s.k);
  for (std::size_t i = 0; i < result[0].size(); ++i)
    if (!(std::fabs(static_cast<double>(result[0][i] - result[1][i])) <= (k + 1) * unit * k / 4)) {
      std::fprintf(stderr, "%s: ours and Eigen's differ at element %zu\n", s.what.c_str(), i);
      std::exit(1);
    }
  std::vector<double> time[2];
  const i64 times = std::max<i64>(1, static_cast<i64>(2e8 / flops));
  for (int round = 0; round < rounds; ++round)
    for (int who = 0; who < 2; ++who)
      time[who].push_back(seconds(times, [&] { product[who](g[who]); }));
  return {flops * 1e-9 / median(time[0]), flops * 1e-9 / median(time[1])};
}

template <class T>
void table(const char* type, int all_threads, int rounds) {
  std::vector<int> counts{1};
  if (all_threads > 1) counts.push_back(all_threads);
  const std::vector<Shape3> shapes = shapes_of_the_network();
  // All with one thread first: OpenMP's others, once there, wait in loops that cost processor time.
  std::vector<std::vector<std::pair<double, double>>> rates;
  for (const int t : counts) {
    set_threads(t);
    rates.emplace_back();
    for (const Shape3& s : shapes) rates.back().push_back(race<T>(s, rounds));
  }
  std::printf("| %s, %d-byte registers | m x n x k | batch |", type, PPMA_SIMD_BYTES);
  for (const int t : counts) std::printf(" ours, %d | Eigen, %d | ratio |", t, t);
  std::printf("\n| --- | --- | --- |");
  for (std::size_t i = 0; i < counts.size(); ++i) std::printf(" --- | --- | --- |");
  std::vector<double> logarithms(counts.size());
  for (std::size_t r = 0; r < shapes.size(); ++r) {
    const Shape3& s = shapes[r];
    std::printf("\n| %s | %s%lld x %lld x %lld%s | %lld |", s.what.c_str(), s.ta ? "^T " : "",
                static_cast<long long>(s.m), static_cast<long long>(s.n),
                static_cast<long long>(s.k), s.tb ? " ^T" : "", static_cast<long long>(s.batch));
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const auto& [own, eigen] = rates[i][r];
      logarithms[i] += std::log(own / eigen) / static_cast<double>(shapes.size());
      std::printf(" %.1f | %.1f | %.2f |", own, eigen, own / eigen);
    }
  }
  std::printf("\n| geometric mean | | |");
  for (const double l : logarithms) std::printf(" | | %.2f |", std::exp(l));
  std::printf("\n\n");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  const int all = argc > 2 ? std::atoi(argv[2]) : threads();
  table<float>("f32", all, rounds);
  set_threads(1);
  table<double>("f64", all, rounds);
}
