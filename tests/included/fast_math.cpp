// What -ffast-math breaks first, against numbers of the standard library without it: included.sh
// compiles this file with such flags and fast_math_values.cpp without. Prints what is wrong, and
// exits with 1 then.

#include "included/fast_math.hpp"

#include <cstdio>
#include <string>
#include <vector>

#include "ppma/core/float_bits.hpp"
#include "ppma/core/limits.hpp"
#include "ppma/metrics/accuracy.hpp"
#include "ppma/metrics/mean_iou.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/nms.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/fused.hpp"

using namespace ppma;

namespace {

int wrong = 0;

void expect(bool right, const std::string& what) {
  if (!right) std::printf("wrong: %s\n", what.c_str()), ++wrong;
}

// NaN where NaN is expected, the same infinity, or within `tolerance` of |want|, or of a few of the
// smallest normal float: programs made with these flags take what is smaller for 0, also on the way
// to a result.
bool near_to(double got, double want, double tolerance) {
  if (is_nan(want) || is_nan(got)) return is_nan(want) && is_nan(got);
  if (is_inf(want) || is_inf(got)) return is_inf(want) && is_inf(got) && (got > 0) == (want > 0);
  const double size = want < 0 ? -want : want, off = got > want ? got - want : want - got;
  return off <= tolerance * size + 4.8e-38;
}

void compare(const std::string& what, const Tensor& got, const std::vector<double>& want,
             double tolerance) {
  const std::vector<double> g = got.to_vector<double>();
  expect(g.size() == want.size(), what + ": size");
  for (std::size_t i = 0; i < g.size() && i < want.size(); ++i)
    expect(near_to(g[i], want[i], tolerance), str(what, " at ", i, ": ", g[i], ", not ", want[i]));
}

template <class T>
void functions_of(const std::string& type) {
  // Relative: the quotients of -ffast-math are rounded twice, and GELU's 1 + erf cancels at the
  // left.
  const double ulp = sizeof(T) == 4 ? 0x1p-23 : 0x1p-52, few = 16 * ulp;
  std::vector<T> x;
  for (const double v : fast_math::arguments()) x.push_back(static_cast<T>(v));
  const std::vector<double> exact(x.begin(), x.end());
  const i64 n = static_cast<i64>(x.size());
  const Tensor t = Tensor::from(x, {n});
  compare(type + " exp", exp(t), fast_math::exp(exact), few);
  compare(type + " sigmoid", sigmoid(t), fast_math::sigmoid(exact), few);
  compare(type + " tanh", tanh(t), fast_math::tanh(exact), few);
  compare(type + " softplus", softplus(t), fast_math::softplus(exact), few);
  compare(type + " relu", relu(t), fast_math::relu(exact), 0);

  // NaN and infinities, of which the flags say that there are none.
  const T none = not_a_number<T>(), up = positive_infinity<T>(), down = negative_infinity<T>();
  const auto is = [&](const std::string& what, const Tensor& got, std::vector<double> want) {
    compare(type + " " + what, got, want, few);
  };
  const double nan = not_a_number<double>(), inf = positive_infinity<double>();
  const Tensor odd = Tensor::from<T>({none, up, down, 1}, {4});
  is("exp of NaN and infinities", exp(odd), {nan, inf, 0, 2.718281828459045});
  is("log of NaN and infinities", log(odd), {nan, inf, nan, 0});
  is("relu of a NaN", relu(odd), {nan, inf, 0, 1});
  is("clamp of a NaN", clamp(odd, 0, 1), {nan, 1, 0, 1});
  const Tensor one = Tensor::from<T>({1, 1, 1, none}, {4});
  is("maximum", maximum(odd, one), {nan, inf, 1, nan});
  is("minimum", minimum(odd, one), {nan, 1, negative_infinity<double>(), nan});
  for (const i64 count : {i64{4}, i64{5}, i64{40}, i64{67}}) {
    std::vector<T> line(static_cast<std::size_t>(count), T(-1));
    line[3] = T(2);
    const std::string length = " of " + std::to_string(count);
    is("max" + length, max(Tensor::from(line, {count}), 0).values, {2});
    line[2] = down;
    is("min" + length, min(Tensor::from(line, {count}), 0).values, {negative_infinity<double>()});
    line[1] = none;
    const Extreme most = max(Tensor::from(line, {count}), 0);
    is("max with a NaN" + length, most.values, {nan});
    expect(*most.indices.data<i64>() == 1, type + " argmax with a NaN" + length);

    // softmax: two keys, no key, a NaN.
    std::vector<T> row(static_cast<std::size_t>(count), down);
    const std::vector<double> without(row.size(), nan);
    is("softmax without a key" + length, softmax(Tensor::from(row, {count})), without);
    is("log softmax without a key" + length, log_softmax(Tensor::from(row, {count})), without);
    row[0] = row[3] = T(-700);
    std::vector<double> halves(row.size(), 0);
    halves[0] = halves[3] = 0.5;
    is("softmax of two keys" + length, softmax(Tensor::from(row, {count})), halves);
    const Tensor loss = cross_entropy(Tensor::from(row, {1, count}), Tensor::from<i64>({3}, {1}));
    is("cross entropy of two keys" + length, loss, {0.6931471805599453});
  }
}

void attention() {
  Rng rng(4);
  const i64 side = 5, tokens = side * side;
  for (const DType dtype : {DType::f32, DType::f64}) {
    const double tolerance = dtype == DType::f32 ? 2e-4 : 1e-10;
    const Shape shape{1, side, side, 8};
    const Tensor q = Tensor::randn(shape, rng, 1, dtype), k = Tensor::randn(shape, rng, 1, dtype);
    const Tensor v = Tensor::rand(shape, rng, 1, 2, dtype);
    const Tensor zero = Tensor::zeros({2, 1, 1, side, side}, dtype);
    const auto list = [](const Tensor& t) { return t.to_vector<double>(); };
    // With decays of 1 the mask is 1: plain attention, each order of the criss-cross alike.
    compare(to_string(dtype) + " whole attention", whole_attention(q, k, v, 1, zero),
            fast_math::attention(list(q), list(k), list(v), tokens, 8), tolerance);
    const Tensor crossed = criss_cross_attention(q, k, v, 1, zero);
    compare(to_string(dtype) + " criss-cross attention", crossed,
            fast_math::criss_cross(list(q), list(k), list(v), side, 8), tolerance);
  }
}

void measures() {
  MeanIou m(3);
  Tensor p = Tensor::zeros({2, 2}, DType::uint8), l = Tensor::zeros({2, 2}, DType::uint8);
  p.data<u8>()[0] = 1;
  m.add(p, l, "x");
  const SegmentationFigures r = m.result();
  expect(near_to(r.mean_iou, 0.375, 1e-12),
         "mean IoU with a class that is nowhere: " + std::to_string(r.mean_iou));
  expect(near_to(r.mean_accuracy, 0.75, 1e-12),
         "mean accuracy: " + std::to_string(r.mean_accuracy));
  expect(is_nan(r.iou[2]), "the IoU of a class that is nowhere");
  bool refused = false;
  try {
    nms({{0, 0, 1, 1}}, {not_a_number<float>()}, {0}, 0.5);
  } catch (const Error&) {
    refused = true;
  }
  expect(refused, "nms: a NaN score is refused");
  for (const double value : {not_a_number<double>(), positive_infinity<double>()}) {
    refused = false;
    try {
      detail::check_value("config", "x", value, Limits::positive());
    } catch (const Error&) {
      refused = true;
    }
    expect(refused, str("config: ", value, " is refused"));
  }
}

}  // namespace

int main() {
  functions_of<float>("f32");
  functions_of<double>("f64");
  attention();
  measures();
  return wrong == 0 ? 0 : 1;
}
