// Hard barriers on the GPU: masks and attentions under random mixtures of log decays from -0 to
// -infinity, against the CPU's in float64 on the same, rounded inputs
// (tests/polyline/barrier_test.cpp holds those against the definition).

#if PPMA_TEST_GPU

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "cuda_compare.hpp"
#include "polyline/help.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/types.hpp"

using namespace ppma;

namespace barrier_cuda_test {

namespace {

struct Size {
  i64 batch, heads, height, width, d;
};

// Of a large batch five samples are different, so that the CPU computes five.
Size few(Size s) {
  s.batch = std::min(s.batch, i64{5});
  return s;
}

// q, k, v, log alpha, log beta; `open` of the edges are ordinary. Edges that do not exist are NaN.
std::vector<Tensor> inputs(const Size& s, double open) {
  const double walls[] = {-0.0,
                          -1e-30,
                          -5,
                          -20,
                          -87,
                          -104,
                          -200,
                          -1e3,
                          -1e4,
                          -1e6,
                          -1e9,
                          -1e30,
                          -std::numeric_limits<double>::infinity()};
  const Shape tokens{s.batch, s.height, s.width, s.heads * s.d},
      grid{s.batch, s.heads, s.height, s.width};
  std::vector<Tensor> in{polyline_test::random(tokens, 1),
                         polyline_test::random(tokens, 2, 1 / std::sqrt(static_cast<double>(s.d))),
                         polyline_test::random(tokens, 3)};
  Rng rng(4);
  for (const bool rows : {true, false}) {
    const Tensor what = Tensor::rand(grid, rng, 0, 1, DType::f64),
                 which = Tensor::rand(grid, rng, 0, 1, DType::f64);
    Tensor t = Tensor::empty(grid, DType::f64);
    for (i64 e = 0; e < t.numel(); ++e) {
      const double w = which.data<double>()[e];
      t.data<double>()[e] =
          what.data<double>()[e] < open ? -w : walls[static_cast<std::size_t>(w * 13)];
      if (rows ? e % s.width == 0 : e % (s.height * s.width) < s.width)
        t.data<double>()[e] = std::nan("");
    }
    in.push_back(cast(cast(t, DType::f32), DType::f64));
  }
  return in;
}

const cuda_test::Tolerance tolerance{1e-7, 1e-5, 2e-2};

// Walls that scores want to pass. Tokens have one of two labels, in blocks; every edge between two
// labels is -infinity, and so is every path between them closed. The score across a wall is
// `across` more than an ordinary one, so that what leaks takes all the weight. (Where large scores
// are on both sides of a softmax, one key takes all the weight without any fault: p (dP - sum p dP)
// cancels to nothing, and of the gradients is left what y's rounding makes of that sum. In bf16
// with scores of 600 that alone is 0.6 to 47 % of them, computed in double. So the open paths stay
// ordinary here, and the tolerance what it is.)
std::vector<Tensor> walled_inputs(const Size& s, double across) {
  std::vector<Tensor> in = inputs(s, 0.8);
  Rng rng(5);
  const Tensor what = Tensor::rand(in[3].shape(), rng, 0, 1, DType::f64);
  const i64 grid = s.height * s.width;
  const auto label = [&](i64 plane, i64 i, i64 j) {
    return what.data<double>()[plane * grid + i / 3 * 3 * s.width + j / 4 * 4] < 0.5;
  };
  for (i64 plane = 0; plane < s.batch * s.heads; ++plane)
    for (i64 i = 0; i < s.height; ++i)
      for (i64 j = 0; j < s.width; ++j) {
        const i64 at = plane * grid + i * s.width + j;
        const bool here = label(plane, i, j);
        double &alpha = in[3].data<double>()[at], &beta = in[4].data<double>()[at];
        // Open ones: what no limit closes and no ordinary score passes.
        alpha = std::max(alpha, -200.0), beta = std::max(beta, -200.0);
        if (j > 0 && label(plane, i, j - 1) != here)
          alpha = -std::numeric_limits<double>::infinity();
        if (i > 0 && label(plane, i - 1, j) != here)
          beta = -std::numeric_limits<double>::infinity();
        // Two channels that meet where labels differ.
        const i64 token = plane / s.heads * grid + i * s.width + j;
        const i64 channel = (token * s.heads + plane % s.heads) * s.d;
        double* const q = in[0].data<double>() + channel;
        double* const k = in[1].data<double>() + channel;
        q[here] = across, q[!here] = 0;
        k[here] = 0, k[!here] = 1;
      }
  return in;
}

// Scores up to about `most` everywhere: of integers, and with decays in quarters, so that every
// dtype sums scores and masks without rounding. What is closed is so by -infinity; the paths that
// are not sum to less than every limit.
std::vector<Tensor> strong_inputs(const Size& s, double open, double most) {
  std::vector<Tensor> in = inputs(s, open);
  for (const std::size_t t : {std::size_t{0}, std::size_t{1}})
    for (i64 e = 0; e < in[t].numel(); ++e) {
      double& x = in[t].data<double>()[e];
      x = std::round(x * (t == 0 ? 8 : 8 * std::sqrt(static_cast<double>(s.d))));
    }
  // Largest of the products of a query and a key: some 4 standard deviations, 8 * 8 * sqrt(d) each.
  const double scale =
      std::exp2(std::round(std::log2(most / (256 * std::sqrt(static_cast<double>(s.d))))));
  for (i64 e = 0; e < in[0].numel(); ++e) in[0].data<double>()[e] *= scale;
  for (const std::size_t t : {std::size_t{3}, std::size_t{4}})
    for (i64 e = 0; e < in[t].numel(); ++e) {
      double& x = in[t].data<double>()[e];
      if (x <= -1e9)
        x = -std::numeric_limits<double>::infinity();
      else if (!std::isnan(x))
        x = x < -8 ? -8 : std::round(4 * x) / 4;
    }
  return in;
}

// The values alone: their gradients have no digits left (see walled_inputs).
void compare_values(const std::string& name, const std::function<Tensor(cuda_test::In)>& f,
                    cuda_test::In inputs, i64 batch, double most) {
  const NoGrad not_recorded;
  const i64 few = inputs[0].dim(0);
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    if (batch > few && dtype != DType::bf16) continue;  // no other way for many maps
    // bf16's kernels work in powers of two: a score and what is taken from it are rounded, above
    // and below the fraction, each to 2^-24 of itself. Of 2e6 nothing is left.
    if (dtype == DType::bf16 && most > 1e6) continue;
    INFO(name << ", " << to_string(dtype));
    std::vector<Tensor> here, there;
    for (std::size_t t = 0; t < inputs.size(); ++t) {
      const Tensor rounded = cast(inputs[t], t < 3 ? dtype : accumulator_dtype(dtype));
      there.push_back(cuda_test::repeated(rounded, batch).to(Device::cuda));
      here.push_back(cast(rounded, DType::f64));
    }
    const Tensor got = f(there).to(Device::cpu);
    CHECK(cuda_test::repeats(got, few));
    CHECK(distance(narrow(got, 0, 0, few), f(here)) <=
          (dtype == DType::bf16 ? tolerance.bf16 + std::exp2(-22) * most : tolerance.f32));
  }
}

const Size whole_sizes[] = {{1, 2, 7, 7, 32},   {2, 2, 14, 14, 32}, {1, 1, 16, 9, 48},
                            {1, 2, 28, 28, 32}, {1, 1, 6, 80, 16},  {1, 1, 5, 13, 7},
                            {1, 1, 66, 65, 8}};
// The last three: maps that stay on chip, if there are heads enough for all multiprocessors.
const Size criss_cross_sizes[] = {{1, 2, 7, 7, 32},    {1, 2, 14, 14, 32}, {1, 1, 5, 13, 7},
                                  {1, 2, 20, 30, 16},  {1, 1, 3, 100, 16}, {33, 4, 28, 28, 32},
                                  {33, 4, 30, 26, 32}, {33, 4, 56, 56, 16}};

}  // namespace

TEST_CASE("barriers on the GPU: whole attention", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Size& s : whole_sizes)
    for (const double open : {0.5, 0.9})
      for (const Paths paths : {Paths::v2h, Paths::both}) {
        INFO(s.height << " x " << s.width << ", " << open << " open");
        cuda_test::compare(
            "whole_attention " + to_string(paths),
            [&](const auto& x) {
              return whole_attention(x[0], x[1], x[2], s.heads, join_decays(x[3], x[4]), paths);
            },
            inputs(s, open), {3, 4}, tolerance);
      }
}

TEST_CASE("barriers on the GPU: criss-cross attention", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Size& s : criss_cross_sizes)
    for (const double open : {0.5, 0.9})
      for (const Order order : {Order::rows_first, Order::columns_first, Order::both}) {
        if (s.batch > 1 && (open < 0.9) != (order == Order::both)) continue;
        INFO(s.height << " x " << s.width << ", " << open << " open");
        cuda_test::compare(
            "criss_cross_attention " + to_string(order),
            [&](const auto& x) {
              return criss_cross_attention(x[0], x[1], x[2], s.heads, join_decays(x[3], x[4]),
                                           order);
            },
            inputs(few(s), open), {3, 4}, tolerance, s.batch);
      }
}

TEST_CASE("barriers on the GPU: no score passes a closed edge", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  // Beyond the sum that closes a path in bf16, beyond that of f32, beyond all.
  for (const double across : {0x1p14, 0x1p21, 0x1p100}) {
    const auto check = [&](const std::string& name, const Size& s,
                           const std::function<Tensor(cuda_test::In)>& f) {
      INFO(s.height << " x " << s.width << ", scores of " << across);
      cuda_test::compare(name, f, walled_inputs(few(s), across), {3, 4}, tolerance, s.batch);
    };
    for (const Size& s : whole_sizes)
      check("whole_attention", s, [&](const auto& x) {
        return whole_attention(x[0], x[1], x[2], s.heads, join_decays(x[3], x[4]));
      });
    for (const Size& s : criss_cross_sizes) {
      if (s.batch > 1 && across != 0x1p14) continue;  // large: the CPU takes seconds
      check("criss_cross_attention", s, [&](const auto& x) {
        return criss_cross_attention(x[0], x[1], x[2], s.heads, join_decays(x[3], x[4]),
                                     Order::both);
      });
    }
  }
}

TEST_CASE("barriers on the GPU: values under large scores", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const double most : {600.0, 2e4, 2e6})
    for (const double open : {0.5, 0.9}) {
      const auto check = [&](const std::string& name, const Size& s,
                             const std::function<Tensor(cuda_test::In)>& f) {
        INFO(s.height << " x " << s.width << ", " << open << " open, scores up to " << most);
        compare_values(name, f, strong_inputs(few(s), open, most), s.batch, most);
      };
      for (const Size& s : whole_sizes)
        check("whole_attention", s, [&](const auto& x) {
          return whole_attention(x[0], x[1], x[2], s.heads, join_decays(x[3], x[4]));
        });
      for (const Size& s : criss_cross_sizes) {
        if (s.batch > 1 && (open < 0.9 || most > 600)) continue;
        check("criss_cross_attention", s, [&](const auto& x) {
          return criss_cross_attention(x[0], x[1], x[2], s.heads, join_decays(x[3], x[4]),
                                       Order::both);
        });
      }
    }
}

// What docs/limits.md says of closed edges that are finite: a limit closes, less does not.
TEST_CASE("barriers on the GPU: what finite edges close", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  // Two tokens in a row; the other's score exceeds the own by 2^11, or 2^21.
  for (const i64 side : {2, 17, 33})
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const double limit = dtype == DType::bf16 ? 1024 : 1e6;
      const DType wide = accumulator_dtype(dtype);
      for (const double edge : {-limit * 0.99, -limit * 1.01}) {
        INFO(to_string(dtype) << ", an edge of " << edge << ", " << side << " columns");
        const Shape tokens{1, 1, side, 8}, grid{1, 1, 1, side};
        Tensor q = Tensor::full(tokens, 1, DType::f64), k = Tensor::full(tokens, 0, DType::f64),
               v = Tensor::full(tokens, 0, DType::f64), la = Tensor::full(grid, 0, DType::f64);
        // The last key is behind the edge: seen, it takes all the weight, and its value is 1.
        for (i64 c = 0; c < 8; ++c) {
          k.data<double>()[(side - 1) * 8 + c] = std::exp2(dtype == DType::bf16 ? 8 : 18);
          v.data<double>()[(side - 1) * 8 + c] = 1;
        }
        la.data<double>()[side - 1] = edge;
        const auto on_gpu = [](const Tensor& t, DType as) { return cast(t, as).to(Device::cuda); };
        const double seen = edge > -limit ? 1 : 0;
        for (const bool whole : {true, false}) {
          const Tensor a = on_gpu(la, wide), b = on_gpu(Tensor::full(grid, 0, DType::f64), wide);
          const Tensor y = whole ? whole_attention(on_gpu(q, dtype), on_gpu(k, dtype),
                                                   on_gpu(v, dtype), 1, join_decays(a, b))
                                 : criss_cross_attention(on_gpu(q, dtype), on_gpu(k, dtype),
                                                         on_gpu(v, dtype), 1, join_decays(a, b));
          CHECK(y.to(Device::cpu).to_vector<double>()[0] == seen);
        }
      }
    }
}

TEST_CASE("barriers on the GPU: masks and linear attention", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Size& s :
       {Size{1, 2, 5, 7, 4}, Size{2, 1, 9, 40, 16}, Size{1, 2, 35, 19, 24}, Size{1, 1, 7, 140, 32}})
    for (const double open : {0.5, 0.9}) {
      INFO(s.height << " x " << s.width << ", " << open << " open");
      const auto in = inputs(s, open);
      for (const LinearForm form : {LinearForm::quadratic, LinearForm::scan, LinearForm::chunked})
        cuda_test::compare(
            "linear_attention " + to_string(form),
            [&](const auto& x) {
              return linear_attention(x[0], x[1], x[2], s.heads, join_decays(x[3], x[4]),
                                      Paths::both, form);
            },
            in, {3, 4}, tolerance);
      cuda_test::compare(
          "polyline_mask", [](const auto& x) { return polyline_mask(join_decays(x[0], x[1])); },
          {in[3], in[4]}, {0, 1}, tolerance);
      const std::vector<i64> order = [&] {
        std::vector<i64> o;
        for (i64 u = s.height * s.width; u > 0; --u) o.push_back(u - 1);
        return o;
      }();
      Tensor sequence = reshape(in[3], {s.batch * s.heads, s.height * s.width}).clone();
      for (i64 e = 0; e < sequence.numel(); ++e)
        if (std::isnan(sequence.data<double>()[e])) sequence.data<double>()[e] = -3;
      for (const bool turned : {false, true})
        cuda_test::compare(
            "sequence_log_mask",
            [&](const auto& x) {
              return exp(sequence_log_mask(x[0], turned ? order : std::vector<i64>{}));
            },
            {sequence}, {0}, tolerance);
    }
}

}  // namespace barrier_cuda_test

#endif
