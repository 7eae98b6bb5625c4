// Attention with the masks of sequences on the GPU against the CPU's in float64 on the same, rounded
// inputs: values and gradients, any grid, head and order, walls, and memory O(N).

#if PPMA_TEST_GPU

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "cuda_compare.hpp"
#include "polyline/help.hpp"
#include "ppma/core/memory.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/sequence.hpp"

using namespace ppma;

namespace sequence_cuda_test {

namespace {

using cuda_test::compare;
using polyline_test::random;

struct Size {
  i64 batch, heads, height, width, d;
};

enum class Curves { cross_scan, hilbert, shuffled };

// Orders without any rule, so that no line is visited as it lies.
SequenceOrders shuffled(i64 tokens) {
  SequenceOrders orders;
  Rng rng(7);
  for (std::vector<i64>* order : {&orders.alpha, &orders.beta}) {
    order->resize(static_cast<std::size_t>(tokens));
    std::iota(order->begin(), order->end(), i64{0});
    for (i64 i = tokens - 1; i > 0; --i)
      std::swap((*order)[static_cast<std::size_t>(i)],
                (*order)[static_cast<std::size_t>(rng.bits() % static_cast<u32>(i + 1))]);
  }
  return orders;
}
SequenceOrders orders_of(Curves curves, const Size& s) {
  return curves == Curves::cross_scan ? cross_scan_orders(s.height, s.width)
         : curves == Curves::hilbert  ? hilbert_orders(s.height, s.width)
                                      : shuffled(s.height * s.width);
}

// q, k, v, log alpha, log beta: ordinary decays, some of them 1, whose edges have gradients too; of
// those that no order reads, NaN.
std::vector<Tensor> inputs(const Size& s, const SequenceOrders& orders) {
  const Shape tokens{s.batch, s.height, s.width, s.heads * s.d},
      grid{s.batch, s.heads, s.height, s.width};
  std::vector<Tensor> in{random(tokens, 1),
                         random(tokens, 2, 1 / std::sqrt(static_cast<double>(s.d))),
                         random(tokens, 3), polyline_test::random_log_decay(grid, 4),
                         polyline_test::random_log_decay(grid, 5)};
  const i64 n = s.height * s.width;
  for (const std::size_t t : {3u, 4u})
    for (i64 e = 0; e < in[t].numel(); ++e) {
      if (e % 5 == 2) in[t].data<double>()[e] = 0;
      if (e % n == (t == 3 ? orders.alpha : orders.beta)[0]) in[t].data<double>()[e] = std::nan("");
    }
  return in;
}

Tensor attend(bool whole, cuda_test::In x, i64 heads, const SequenceOrders& orders) {
  const Tensor decays = join_decays(x[3], x[4]);
  return whole ? sequence_attention(x[0], x[1], x[2], heads, decays, orders)
               : sequence_criss_cross(x[0], x[1], x[2], heads, decays, orders);
}

void check(bool whole, const Size& s, Curves curves) {
  const SequenceOrders orders = orders_of(curves, s);
  INFO(s.batch << " x " << s.heads << " heads of " << s.d << ", " << s.height << " x " << s.width
               << ", curves " << static_cast<int>(curves));
  compare(whole ? "sequence_attention" : "sequence_criss_cross",
          [&](cuda_test::In x) { return attend(whole, x, s.heads, orders); }, inputs(s, orders),
          {3, 4}, {1e-11, 2e-5, 2e-2});
}

}  // namespace

TEST_CASE("sequences on the GPU: whole attention", "[cuda][sequence]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Curves curves : {Curves::cross_scan, Curves::hilbert, Curves::shuffled}) {
    check(true, {2, 2, 7, 7, 32}, curves);  // less than a tile
    check(true, {1, 3, 7, 9, 32}, curves);
    check(true, {2, 2, 8, 8, 32}, curves);  // one tile
    check(true, {2, 8, 14, 14, 32}, curves);
    check(true, {1, 1, 5, 13, 24}, curves);  // one token more
    check(true, {1, 2, 28, 28, 32}, curves);
    check(true, {1, 2, 12, 11, 64}, curves);
    check(true, {1, 1, 1, 40, 16}, curves);
    check(true, {1, 2, 33, 3, 48}, curves);
    check(true, {1, 1, 1, 1, 8}, curves);
    check(true, {1, 1, 66, 7, 8}, curves);
    check(true, {2, 1, 5, 13, 7}, curves);   // bf16 in float
    check(true, {1, 1, 6, 8, 128}, curves);  // likewise
  }
}

TEST_CASE("sequences on the GPU: criss-cross attention", "[cuda][sequence]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Curves curves : {Curves::cross_scan, Curves::hilbert, Curves::shuffled}) {
    check(false, {2, 2, 7, 7, 32}, curves);
    check(false, {1, 3, 7, 9, 16}, curves);
    check(false, {2, 4, 14, 14, 32}, curves);
    check(false, {1, 4, 28, 28, 32}, curves);
    check(false, {1, 2, 30, 56, 16}, curves);  // lines of up to 32 and of up to 56
    check(false, {1, 1, 3, 100, 16}, curves);  // of more than 64
    check(false, {1, 2, 12, 11, 64}, curves);
    check(false, {1, 1, 1, 40, 16}, curves);
    check(false, {1, 1, 1, 1, 8}, curves);
    check(false, {2, 1, 5, 13, 7}, curves);
    check(false, {1, 1, 6, 8, 128}, curves);  // bf16 in float
  }
  check(false, {33, 4, 28, 28, 32}, Curves::hilbert);  // as polylines have a map on chip
}

TEST_CASE("sequences on the GPU: random mixtures of open and closed edges", "[cuda][sequence]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const double walls[] = {-0.0, -1e-30, -5,   -20,  -87,  -104,
                          -200, -1e3,   -1e4, -1e6, -1e9, -std::numeric_limits<double>::infinity()};
  for (const Size& s :
       {Size{1, 2, 7, 7, 32}, Size{2, 2, 14, 14, 32}, Size{1, 1, 9, 40, 16}, Size{1, 1, 5, 13, 7}})
    for (const double open : {0.5, 0.9})
      for (const Curves curves : {Curves::cross_scan, Curves::hilbert}) {
        const SequenceOrders orders = orders_of(curves, s);
        std::vector<Tensor> in = inputs(s, orders);
        Rng rng(9);
        for (const std::size_t t : {3u, 4u}) {
          const Tensor what = Tensor::rand(in[t].shape(), rng, 0, 1, DType::f64),
                       which = Tensor::rand(in[t].shape(), rng, 0, 12, DType::f64);
          for (i64 e = 0; e < in[t].numel(); ++e)
            if (what.data<double>()[e] >= open && !std::isnan(in[t].data<double>()[e]))
              in[t].data<double>()[e] = walls[static_cast<std::size_t>(which.data<double>()[e])];
          in[t] = cast(cast(in[t], DType::f32), DType::f64);
        }
        for (const bool whole : {true, false}) {
          INFO(s.height << " x " << s.width << ", " << open << " open, curves "
                        << static_cast<int>(curves) << (whole ? ", whole" : ", criss-cross"));
          compare("sequences with walls",
                  [&](cuda_test::In x) { return attend(whole, x, s.heads, orders); }, in, {3, 4},
                  {1e-7, 2e-5, 2e-2});
        }
      }
}

// Tokens have one of two labels, in blocks; edges between two labels are -infinity in both orders,
// and scores across exceed all others, so that what leaks takes all the weight.
TEST_CASE("sequences on the GPU: no score passes a closed edge", "[cuda][sequence]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const double across : {0x1p14, 0x1p21, 0x1p100})
    for (const Curves curves : {Curves::cross_scan, Curves::hilbert}) {
      const Size s{1, 2, 9, 11, 32};
      const i64 n = s.height * s.width;
      const SequenceOrders orders = orders_of(curves, s);
      std::vector<Tensor> in = inputs(s, orders);
      const auto label = [&](i64 u) { return (u / s.width / 3 + u % s.width / 4) % 2 == 0; };
      for (i64 g = 0; g < s.heads; ++g)
        for (i64 t = 0; t < n; ++t) {
          for (const std::size_t r : {3u, 4u}) {
            const std::vector<i64>& order = r == 3 ? orders.alpha : orders.beta;
            const i64 u = order[static_cast<std::size_t>(t)];
            if (t > 0 && label(u) != label(order[static_cast<std::size_t>(t - 1)]))
              in[r].data<double>()[g * n + u] = -std::numeric_limits<double>::infinity();
          }
          double* const q = in[0].data<double>() + (t * s.heads + g) * s.d;
          double* const k = in[1].data<double>() + (t * s.heads + g) * s.d;
          q[label(t)] = across, q[!label(t)] = 0;
          k[label(t)] = 0, k[!label(t)] = 1;
        }
      for (const bool whole : {true, false}) {
        INFO("scores of " << across << ", curves " << static_cast<int>(curves)
                          << (whole ? ", whole" : ", criss-cross"));
        compare("sequences with walls",
                [&](cuda_test::In x) { return attend(whole, x, s.heads, orders); }, in, {3, 4},
                {1e-7, 2e-5, 2e-2});
      }
    }
}

// As polylines: what docs/limits.md says of closed edges that are finite.
TEST_CASE("sequences on the GPU: what finite edges close", "[cuda][sequence]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const i64 side : {2, 17, 70})
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const double limit = dtype == DType::bf16 ? 1024 : 1e6;
      for (const double edge : {-limit * 0.99, -limit * 1.01})
        for (const bool whole : {true, false}) {
          INFO(to_string(dtype) << ", an edge of " << edge << ", " << side << " columns, "
                                << (whole ? "whole" : "criss-cross"));
          const Shape tokens{1, 1, side, 8}, grid{1, 1, 1, side};
          Tensor k = Tensor::zeros(tokens, DType::f64), v = Tensor::zeros(tokens, DType::f64),
                 decay = Tensor::zeros(grid, DType::f64);
          // The last key is behind the edge: seen, it takes all the weight, and its value is 1.
          for (i64 c = 0; c < 8; ++c) {
            k.data<double>()[(side - 1) * 8 + c] = std::exp2(dtype == DType::bf16 ? 8 : 18);
            v.data<double>()[(side - 1) * 8 + c] = 1;
          }
          decay.data<double>()[side - 1] = edge;
          const auto on_gpu = [](const Tensor& t, DType as) {
            return cast(t, as).to(Device::cuda);
          };
          const Tensor d = on_gpu(decay, accumulator_dtype(dtype));
          const Tensor y = attend(whole,
                                  {on_gpu(Tensor::ones(tokens, DType::f64), dtype),
                                   on_gpu(k, dtype), on_gpu(v, dtype), d, d},
                                  1, cross_scan_orders(1, side));
          CHECK(y.to(Device::cpu).to_vector<double>()[0] == (edge > -limit ? 1 : 0));
        }
    }
}

TEST_CASE("sequences on the GPU: no N x N array, forward or backward", "[cuda][sequence]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const Size s{2, 4, 56, 56, 16};
  for (const bool whole : {true, false})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const SequenceOrders orders = orders_of(Curves::hilbert, s);
      std::vector<Tensor> in;
      for (const Tensor& t : inputs(s, orders)) {
        in.push_back(cast(t, in.size() < 3 ? dtype : DType::f32).to(Device::cuda));
        in.back().requires_grad(true);
      }
      reset_peak_memory(Device::cuda);
      const i64 before = memory_stats(Device::cuda).live_bytes;
      const Tensor y = attend(whole, in, s.heads, orders);
      y.backward(y.detach());
      const i64 tokens = s.batch * s.height * s.width,
                most = memory_stats(Device::cuda).peak_bytes - before;
      INFO((whole ? "whole, " : "criss-cross, ") << to_string(dtype) << ": " << most << " bytes");
      // 30 vectors of a token in float; N x N arrays of all heads are 6.5 times as much.
      CHECK(most <= 30 * tokens * s.heads * s.d * 4);
      CHECK(most > 0);
    }
}

}  // namespace sequence_cuda_test

#endif
