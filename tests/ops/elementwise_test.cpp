// Elementwise kernels where the op table does not reach: every tail length, every way to broadcast,
// the whole range of arguments, special values.

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"

using namespace ppma;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_finite = std::numeric_limits<double>::quiet_NaN();

// Largest error of f in units of the spacing of floats at the largest of |result| and `floor`,
// against libm in float64.
template <class T>
double worst_ulp(const std::function<Tensor(const Tensor&)>& f,
                 const std::function<double(double)>& exact, double low, double high,
                 double floor = 0) {
  const i64 n = 200001;
  Tensor x = Tensor::empty({n}, dtype_of<T>);
  for (i64 i = 0; i < n; ++i)
    x.data<T>()[i] =
        static_cast<T>(low + (high - low) * static_cast<double>(i) / static_cast<double>(n - 1));
  const Tensor y = f(x);
  double worst = 0;
  for (i64 i = 0; i < n; ++i) {
    const double e = exact(static_cast<double>(x.data<T>()[i])),
                 size = std::max(std::fabs(e), floor);
    const double ulp = std::ldexp(
        1.0, std::ilogb(std::max(size, static_cast<double>(std::numeric_limits<T>::min()))) -
                 (std::numeric_limits<T>::digits - 1));
    worst = std::max(worst, std::fabs(static_cast<double>(y.data<T>()[i]) - e) / ulp);
  }
  return worst;
}

}  // namespace

TEST_CASE("activations are accurate to a few units in the last place over their range") {
  const auto sigmoid_exact = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto softplus_exact = [](double x) { return x > 20 ? x : std::log1p(std::exp(x)); };
  const auto normal_exact = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  CHECK(worst_ulp<float>(
            ppma::exp, [](double x) { return std::exp(x); }, -87, 88) <= 3);
  CHECK(worst_ulp<float>(sigmoid, sigmoid_exact, -80, 80) <= 4);
  CHECK(worst_ulp<float>(
            ppma::tanh, [](double x) { return std::tanh(x); }, -12, 12) <= 4);
  CHECK(worst_ulp<float>(softplus, softplus_exact, -80, 80) <= 4);
  // 1 + erf cancels in the left tail, as in PyTorch: gelu(x) / x is right to a few units of 1, not
  // of itself.
  CHECK(worst_ulp<float>([](const Tensor& x) { return div(gelu(x), x); }, normal_exact, -8, 8.1,
                         1) <= 4);
  CHECK(worst_ulp<float>(
            silu, [&](double x) { return x * sigmoid_exact(x); }, -60, 60) <= 4);

  CHECK(worst_ulp<double>(
            ppma::exp, [](double x) { return std::exp(x); }, -700, 700) <= 4);
  CHECK(worst_ulp<double>(sigmoid, sigmoid_exact, -300, 300) <= 6);
  CHECK(worst_ulp<double>(
            ppma::tanh, [](double x) { return std::tanh(x); }, -12, 12) <= 2);
  CHECK(worst_ulp<double>(softplus, softplus_exact, -300, 300) <= 8);
  CHECK(worst_ulp<double>([](const Tensor& x) { return div(gelu(x), x); }, normal_exact, -8, 8.1,
                          1) <= 4);
}

TEST_CASE("special values") {
  const Tensor x = Tensor::from<double>({not_finite, infinity, -infinity, 0.0, 1000, -1000}, {6});
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor t = cast(x, dtype);
    const auto values = [&](Tensor (*f)(const Tensor&)) { return f(t).to_vector<double>(); };
    for (const auto f :
         {ppma::exp, sigmoid, ppma::tanh, softplus, relu, gelu, silu, ppma::abs, square})
      CHECK(std::isnan(values(f)[0]));
    CHECK(values(ppma::exp)[1] == infinity);
    CHECK(values(ppma::exp)[2] == 0);
    CHECK(values(ppma::exp)[3] == 1);
    CHECK(values(ppma::exp)[4] == infinity);
    CHECK(values(ppma::exp)[5] == 0);
    CHECK(values(sigmoid)[1] == 1);
    CHECK(values(sigmoid)[2] == 0);
    CHECK(values(ppma::tanh)[1] == 1);
    CHECK(values(ppma::tanh)[2] == -1);
    CHECK(values(softplus)[1] == infinity);
    CHECK(values(softplus)[4] == 1000);
    CHECK(values(softplus)[5] == 0);
    CHECK(values(relu)[2] == 0);
    CHECK(values(gelu)[4] == 1000);
    CHECK(values(gelu)[5] == 0);
    CHECK(values(silu)[4] == 1000);
    // A NaN on either side stays.
    const Tensor one = Tensor::ones({}, dtype), not_a_number = Tensor::full({}, not_finite, dtype);
    CHECK(std::isnan(maximum(one, not_a_number).item()));
    CHECK(std::isnan(maximum(not_a_number, one).item()));
    CHECK(std::isnan(minimum(one, not_a_number).item()));
    CHECK(std::isnan(clamp(not_a_number, 0, 1).item()));
  }
}

TEST_CASE("every length of the tail gives what single elements give") {
  Rng rng(4);
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor all = Tensor::randn({70}, rng, 2, dtype),
                 other = Tensor::randn({70}, rng, 2, dtype);
    for (i64 n = 0; n <= 70; ++n) {
      const Tensor y = add(gelu(narrow(all, 0, 0, n)), narrow(other, 0, 0, n));
      REQUIRE(y.numel() == n);
      if (n == 0) continue;
      CHECK(y.to_vector<double>().back() ==
            add(gelu(narrow(all, 0, n - 1, 1)), narrow(other, 0, n - 1, 1)).item());
    }
  }
}

TEST_CASE("broadcasting of random shapes agrees with index arithmetic") {
  Rng rng(5);
  for (int trial = 0; trial < 300; ++trial) {
    const int rank = static_cast<int>(rng.below(6));
    Shape out, a, b;
    for (int k = 0; k < rank; ++k) {
      const i64 n = 1 + rng.below(5) * (k == rank - 1 ? 5 : 1);
      a.push_back(rng.flip(0.3) ? 1 : n);
      b.push_back(rng.flip(0.3) ? 1 : n);
      out.push_back(a[k] == 1 ? b[k] : a[k]);
    }
    // Leading axes of size 1 may be absent.
    int drop = 0;
    while (drop < rank && b[drop] == 1 && rng.flip()) ++drop;
    Shape short_b;
    for (int k = drop; k < rank; ++k) short_b.push_back(b[k]);
    const Tensor ta = Tensor::randn(a, rng, 1, DType::f64),
                 tb = Tensor::randn(short_b, rng, 1, DType::f64);
    const Tensor y = sub(ta, tb);
    INFO(a.str() << " and " << short_b.str());
    REQUIRE(y.shape() == out);
    bool same = true;
    for (i64 i = 0; i < out.numel(); ++i) {
      i64 rest = i, ia = 0, ib = 0, step_a = 1, step_b = 1;
      for (int k = rank - 1; k >= 0; --k) {
        const i64 at = rest % out[k];
        rest /= out[k];
        ia += a[k] == 1 ? 0 : at * step_a;
        ib += b[k] == 1 ? 0 : at * step_b;
        step_a *= a[k], step_b *= b[k];
      }
      same = same && y.data<double>()[i] == ta.data<double>()[ia] - tb.data<double>()[ib];
    }
    CHECK(same);
  }
}

TEST_CASE("an operation without gradients keeps nothing") {
  const Tensor x = Tensor::ones({1000});
  const i64 live = memory_stats().live_bytes;
  const Tensor y = gelu(exp(mul(x, x)));
  // y alone, in a block that may be a little larger
  CHECK(memory_stats().live_bytes < live + 2 * 4000);
  CHECK_FALSE(y.requires_grad());
}
