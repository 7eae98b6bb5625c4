// Hard barriers on the GPU: masks and attentions under random mixtures of log decays from -0 to
// -infinity, against the CPU's in float64 on the same, rounded inputs
// (tests/polyline/barrier_test.cpp holds those against the definition).

#include "ppma/core/config.hpp"

#if PPMA_CUDA

#include <cmath>
#include <limits>

#include "cuda_compare.hpp"
#include "polyline/help.hpp"
#include "ppma/polyline/criss_cross_attention.hpp"
#include "ppma/polyline/linear_attention.hpp"
#include "ppma/polyline/whole_attention.hpp"

using namespace ppma;

namespace {

struct Size {
  i64 batch, heads, height, width, d;
};

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

}  // namespace

TEST_CASE("barriers on the GPU: whole attention", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Size& s :
       {Size{1, 2, 7, 7, 32}, Size{2, 2, 14, 14, 32}, Size{1, 1, 16, 9, 48}, Size{1, 2, 28, 28, 32},
        Size{1, 1, 6, 80, 16}, Size{1, 1, 5, 13, 7}, Size{1, 1, 66, 65, 8}})
    for (const double open : {0.5, 0.9})
      for (const Paths paths : {Paths::v2h, Paths::both}) {
        INFO(s.height << " x " << s.width << ", " << open << " open");
        cuda_test::compare(
            "whole_attention " + to_string(paths),
            [&](const auto& x) {
              return whole_attention(x[0], x[1], x[2], s.heads, x[3], x[4], paths);
            },
            inputs(s, open), {3, 4}, tolerance);
      }
}

TEST_CASE("barriers on the GPU: criss-cross attention", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  // The last three: maps that stay on chip, if there are heads enough for all multiprocessors.
  for (const Size& s : {Size{1, 2, 7, 7, 32}, Size{1, 2, 14, 14, 32}, Size{1, 1, 5, 13, 7},
                        Size{1, 2, 20, 30, 16}, Size{1, 1, 3, 100, 16}, Size{33, 4, 28, 28, 32},
                        Size{33, 4, 30, 26, 32}, Size{33, 4, 56, 56, 16}})
    for (const double open : {0.5, 0.9})
      for (const Order order : {Order::rows_first, Order::columns_first, Order::both}) {
        if (s.batch > 1 && (open < 0.9) != (order == Order::both)) continue;
        INFO(s.height << " x " << s.width << ", " << open << " open");
        cuda_test::compare(
            "criss_cross_attention " + to_string(order),
            [&](const auto& x) {
              return criss_cross_attention(x[0], x[1], x[2], s.heads, x[3], x[4], order);
            },
            inputs(s, open), {3, 4}, tolerance);
      }
}

TEST_CASE("barriers on the GPU: masks and linear attention", "[cuda][barrier]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Size& s : {Size{1, 2, 5, 7, 4}, Size{2, 1, 9, 40, 16}})
    for (const double open : {0.5, 0.9}) {
      INFO(s.height << " x " << s.width << ", " << open << " open");
      const auto in = inputs(s, open);
      for (const LinearForm form : {LinearForm::quadratic, LinearForm::scan, LinearForm::chunked})
        cuda_test::compare(
            "linear_attention " + to_string(form),
            [&](const auto& x) {
              return linear_attention(x[0], x[1], x[2], s.heads, x[3], x[4], Paths::both, form);
            },
            in, {3, 4}, tolerance);
      cuda_test::compare(
          "polyline_mask", [](const auto& x) { return polyline_mask(x[0], x[1]); }, {in[3], in[4]},
          {0, 1}, tolerance);
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

#endif
