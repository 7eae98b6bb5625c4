// Fused criss-cross attention on the GPU against the CPU's in float64: values and all gradients,
// every order, with and without mask, odd grids and head widths, strong decay, and the same bits in
// every run. bf16 is compared with float64 on the rounded inputs.

#if PPMA_TEST_GPU

#include <algorithm>

#include "catch.hpp"
#include "cuda_compare.hpp"
#include "polyline/help.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/types.hpp"

using namespace ppma;

namespace criss_cross_cuda_test {

namespace {

// Output, then the gradients of q, k, v and the log decays (if there are any), on the host in their
// own dtypes; of a batch of so many, the samples of `host` again and again.
std::vector<Tensor> run(const std::vector<Tensor>& host, i64 batch, i64 heads, Order order,
                        DType dtype, Device device) {
  std::vector<Tensor> in;
  for (std::size_t t = 0; t < host.size(); ++t) {
    in.push_back(cuda_test::repeated(
        cast(host[t], t < 3 ? dtype : accumulator_dtype(dtype)).to(device), batch));
    in.back().requires_grad(true);
  }
  const bool masked = in.size() == 5;
  const Tensor y = criss_cross_attention(in[0], in[1], in[2], heads,
                                         masked ? join_decays(in[3], in[4]) : Tensor(), order);
  y.backward(
      cuda_test::repeated(cast(cuda_test::arriving(host[0].shape()), dtype).to(device), batch));
  std::vector<Tensor> out{y.detach().to(Device::cpu)};
  for (const Tensor& t : in) out.push_back(t.grad().to(Device::cpu));
  return out;
}

struct Size {
  i64 batch, heads, height, width, d;
};

void compare(const Size& s, double weakest_decay, double score_deviation,
             const std::vector<DType>& dtypes = {DType::f64, DType::f32, DType::bf16}) {
  // Of a large batch five samples are different, so that the CPU computes five.
  const i64 few = std::min(s.batch, i64{5});
  const Shape tokens{few, s.height, s.width, s.heads * s.d}, grid{few, s.heads, s.height, s.width};
  std::vector<Tensor> in{polyline_test::random(tokens, 1, score_deviation),
                         polyline_test::random(tokens, 2, 1 / std::sqrt(static_cast<double>(s.d))),
                         polyline_test::random(tokens, 3),
                         polyline_test::random_log_decay(grid, 4, weakest_decay),
                         polyline_test::random_log_decay(grid, 5, weakest_decay)};
  for (const bool masked : {true, false}) {
    if (!masked) in.resize(3);
    for (const Order order : {Order::rows_first, Order::columns_first, Order::both})
      for (const DType dtype : dtypes) {
        if (!masked && dtype != DType::bf16 && order != Order::both) continue;
        std::vector<Tensor> rounded;
        for (std::size_t t = 0; t < in.size(); ++t)
          rounded.push_back(
              cast(cast(in[t], t < 3 ? dtype : accumulator_dtype(dtype)), DType::f64));
        const auto want = run(rounded, few, s.heads, order, DType::f64, Device::cpu);
        const auto got = run(rounded, s.batch, s.heads, order, dtype, Device::cuda),
                   again = run(rounded, s.batch, s.heads, order, dtype, Device::cuda);
        INFO("B " << s.batch << " G " << s.heads << " H " << s.height << " W " << s.width << " d "
                  << s.d << ", order " << to_string(order)
                  << (masked ? ", masked, " : ", no mask, ") << to_string(dtype));
        const double tolerance = dtype == DType::f64 ? 1e-11 : dtype == DType::f32 ? 2e-5 : 1e-2;
        REQUIRE(got.size() == want.size());
        for (std::size_t t = 0; t < got.size(); ++t) {
          INFO("result " << t << " (y, dq, dk, dv, dlog_alpha, dlog_beta)");
          CHECK(cuda_test::same_bits(got[t], again[t]));
          CHECK(cuda_test::repeats(got[t], few));
          CHECK(largest_difference(cast(narrow(got[t], 0, 0, few), DType::f64), want[t]) <=
                tolerance);
        }
      }
  }
}

}  // namespace

TEST_CASE("criss-cross attention on the GPU equals the CPU's, any grid and head width",
          "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  compare({2, 3, 7, 7, 32}, 0.2, 1);
  compare({1, 2, 56, 56, 16}, 0.2, 1);
  compare({1, 4, 28, 28, 32}, 0.2, 1);
  compare({1, 5, 5, 13, 7}, 0.2, 1);
  compare({1, 2, 70, 3, 64}, 0.2, 1);
  compare({2, 1, 1, 40, 32}, 0.2, 1);
  compare({1, 3, 130, 2, 16}, 0.2, 1);
  compare({1, 1, 16, 33, 48}, 0.2, 1);
  compare({1, 1, 3, 5, 80}, 0.2, 1);  // too wide for the tensor cores
  // Several threads a query: not in packs, the last of them without a channel, all full.
  compare({1, 2, 6, 5, 45}, 0.2, 1);
  compare({1, 3, 5, 4, 97}, 0.2, 1);
  compare({2, 1, 7, 19, 128}, 0.2, 1);
}

// Enough maps of the sizes that stay on chip: full and ragged lines, both head widths.
TEST_CASE("criss-cross attention on the GPU of many maps", "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const std::vector<DType> narrow{DType::bf16};  // the others know no other way for many
  compare({30, 2, 56, 56, 16}, 0.2, 1, narrow);
  compare({60, 1, 49, 54, 16}, 0.2, 1, narrow);
  compare({140, 1, 28, 28, 32}, 0.2, 1, narrow);
  compare({20, 3, 25, 32, 32}, 0.2, 1, narrow);
  compare({70, 1, 31, 26, 16}, 0.2, 1, narrow);
  compare({60, 1, 28, 30, 32}, 1e-13, 1, narrow);
  compare({60, 1, 28, 28, 32}, 0.2, 30, narrow);  // scores far above the queries' own
  compare({60, 1, 50, 56, 16}, 1e-5, 30, narrow);
  // of 28 x 28, more than an H200 has multiprocessors: blocks have several in turn
  compare({80, 2, 28, 28, 32}, 0.2, 1, narrow);
  compare({56, 3, 26, 29, 32}, 1e-5, 30, narrow);
  compare({48, 3, 32, 25, 32}, 1e-13, 1, narrow);  // odd rows after even columns of another head
}

// Enough lines for a block of four heads each, with which backward takes a warp a head: full and
// ragged lines, and heads that do not fill the last block.
TEST_CASE("criss-cross attention on the GPU of many lines of four heads", "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const std::vector<DType> narrow{DType::bf16};
  compare({30, 4, 56, 56, 16}, 0.2, 1, narrow);
  compare({60, 5, 28, 27, 32}, 0.2, 1, narrow);
  compare({100, 4, 9, 40, 16}, 0.2, 1, narrow);  // columns of less than 16 tokens
  compare({40, 3, 31, 26, 16}, 0.2, 1, narrow);
  compare({40, 7, 33, 50, 16}, 1e-13, 1, narrow);
  compare({30, 4, 50, 56, 16}, 1e-5, 30, narrow);
  compare({40, 4, 28, 26, 32}, 1e-20, 1, narrow);  // closed paths
  // fewer lines
  compare({8, 4, 56, 56, 16}, 0.2, 1, narrow);
  compare({8, 4, 28, 28, 32}, 0.2, 1, narrow);
  compare({4, 5, 31, 27, 32}, 0.2, 1, narrow);
}

TEST_CASE("criss-cross attention on the GPU under strong decay and large scores",
          "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  compare({1, 2, 9, 60, 32}, 1e-13, 1);
  compare({1, 1, 12, 66, 16}, 0.01, 6);
}

TEST_CASE("criss-cross attention on the GPU: one token, whose decays have no edge",
          "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(1);
  const Tensor q = Tensor::randn({2, 1, 1, 32}, rng, 1, DType::f32);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = cast(q, dtype).to(Device::cuda),
                 la = Tensor::full({2, 2, 1, 1}, -0.5, DType::f32).to(Device::cuda);
    const Tensor y = criss_cross_attention(x, x, x, 2, join_decays(la, la)).to(Device::cpu);
    CHECK(largest_difference(cast(y, DType::f64), cast(x.to(Device::cpu), DType::f64)) < 1e-6);
  }
}

}  // namespace criss_cross_cuda_test

#endif
