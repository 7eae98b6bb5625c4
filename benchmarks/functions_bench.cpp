// Functions of one number: those of kernels/cpu/functions.hpp and of libm beside Eigen's arrays, on 4096
// elements in cache. A table in Markdown: nanoseconds an element (processor time of one thread,
// medians of rounds that alternate) and the largest error in units of the last place against long
// double.
//
// Compiled once for each instruction set (functions_bench_sse2, _avx2, _avx512, _native).

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <limits>
#include <vector>

#if __has_include(<Eigen/Core>)
#include <Eigen/Core>
#include <unsupported/Eigen/SpecialFunctions>
#else
#include <eigen3/Eigen/Core>
#include <eigen3/unsupported/Eigen/SpecialFunctions>
#endif

#include "ppma/core/random.hpp"
#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/map.hpp"

using namespace ppma;

namespace {

constexpr i64 count = 4096;

template <class T>
double ulps(T got, long double exact) {
  int exponent;
  std::frexp(exact, &exponent);
  const long double unit = std::ldexp(1.0L, exponent - std::numeric_limits<T>::digits);
  return static_cast<double>(std::fabs(static_cast<long double>(got) - exact) / unit);
}

template <class F>
double nanoseconds(F&& f) {
  constexpr int times = 100;
  const std::clock_t begin = std::clock();
  for (int i = 0; i < times; ++i) {
    f();
    asm volatile("" ::: "memory");  // each time anew
  }
  return 1e9 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC / times / count;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// `own` is a function of a register, `eigen` of an array; arguments are spread over [low, high).
template <class T, class Own, class Eigens, class Exact>
void race(const char* name, double low, double high, Own own, Eigens eigen, Exact exact) {
  using Array = Eigen::Array<T, Eigen::Dynamic, 1>;
  Rng rng(1);
  Array x(count), y(count), z(count);
  const auto ours = [&] {
    for (i64 i = 0; i < count; i += lanes<T>) store<T>(y.data() + i, own(load(x.data() + i)));
  };
  const auto theirs = [&] { z = eigen(x); };
  double error = 0, error_eigen = 0;
  std::vector<double> time, time_eigen;
  for (int round = 0; round < 200; ++round) {
    for (i64 i = 0; i < count; ++i) x[i] = static_cast<T>(rng.uniform(low, high));
    if (round < 15) time.push_back(nanoseconds(ours)), time_eigen.push_back(nanoseconds(theirs));
    ours(), theirs();
    for (i64 i = 0; i < count; ++i) {
      const long double right = exact(static_cast<long double>(x[i]));
      error = std::max(error, ulps<T>(y[i], right));
      error_eigen = std::max(error_eigen, ulps<T>(z[i], right));
    }
  }
  std::printf("| %s, %s | %.2f | %.2f | %.2f | %.2f |\n", name, sizeof(T) == 4 ? "f32" : "f64",
              median(time), median(time_eigen), error, error_eigen);
}

template <class T>
void races() {
  const auto each = [](auto g) { return [g](auto x) { return each_lane(x, g); }; };
  race<T>(
      "exp", -20, 20, [](auto x) { return exp_of(x); }, [](const auto& x) { return x.exp(); },
      [](long double x) { return std::exp(x); });
  race<T>(
      "log", 1e-3, 1e3, [](auto x) { return log_of(x); }, [](const auto& x) { return x.log(); },
      [](long double x) { return std::log(x); });
  race<T>(
      "log by libm", 1e-3, 1e3, each([](auto x) { return std::log(x); }),
      [](const auto& x) { return x.log(); }, [](long double x) { return std::log(x); });
  race<T>(
      "tanh", -6, 6, [](auto x) { return tanh_of(x); }, [](const auto& x) { return x.tanh(); },
      [](long double x) { return std::tanh(x); });
  race<T>(
      "erf", -5, 5, [](auto x) { return erf_of(x); }, [](const auto& x) { return x.erf(); },
      [](long double x) { return std::erf(x); });
  race<T>(
      "sqrt", 0.1, 1e3, each([](auto x) { return std::sqrt(x); }),
      [](const auto& x) { return x.sqrt(); }, [](long double x) { return std::sqrt(x); });
  race<T>(
      "sigmoid", -20, 20, [](auto x) { return sigmoid_of(x); },
      [](const auto& x) { return 1 / (1 + (-x).exp()); },
      [](long double x) { return 1 / (1 + std::exp(-x)); });
  race<T>(
      "x^1.5", 0.01, 10, each([](auto x) { return std::pow(x, decltype(x)(1.5)); }),
      [](const auto& x) { return x.pow(T(1.5)); }, [](long double x) { return std::pow(x, 1.5L); });
}

}  // namespace

int main() {
  std::printf("| %d-byte registers | ours | Eigen | error: ours | Eigen |\n", PPMA_SIMD_BYTES);
  std::printf("| --- | --- | --- | --- | --- |\n");
  races<float>();
  races<double>();
}
