// The selective scan on the GPU at sizes that the op table does not reach: sequences of thousands
// of tokens in every order, grids up to the width of its kernel and beyond, decays near 0 and 1.

#if PPMA_TEST_GPU

#include "cuda_compare.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/selective_scan.hpp"

using namespace cuda_test;

namespace selective_scan_cuda_test {

struct Sizes {
  i64 batch, height, width, channels, states;
};

void check(const Sizes& s, TokenOrder order, double least, double most,
           const Tolerance& tolerance = {1e-11, 1e-5, 2e-2}) {
  INFO(s.batch << " x " << s.height << " x " << s.width << ", " << s.channels << " channels, "
               << s.states << " states, order " << static_cast<int>(order) << ", dt " << least
               << " to " << most);
  Rng rng(7);
  const Shape tokens{s.batch, s.height, s.width, s.channels},
      states{s.batch, s.height, s.width, s.states};
  const auto between = [&](const Shape& shape, double low, double high) {
    return Tensor::rand(shape, rng, low, high, DType::f64);
  };
  compare(
      "selective_scan",
      [=](In in) { return selective_scan(in[0], in[1], in[2], in[3], in[4], order); },
      {between(tokens, -1, 1), between(tokens, least, most),
       between({s.channels, s.states}, -2, -0.2), between(states, -1, 1), between(states, -1, 1)},
      {2}, tolerance);
}

// Four scans of one u, each added to the one before, of steps before softplus.
void check_sum(const Sizes& s) {
  INFO(s.batch << " x " << s.height << " x " << s.width << ", " << s.channels << " channels");
  Rng rng(8);
  const Shape tokens{s.batch, s.height, s.width, s.channels},
      states{s.batch, s.height, s.width, s.states};
  const auto between = [&](const Shape& shape, double low, double high) {
    return Tensor::rand(shape, rng, low, high, DType::f64);
  };
  compare(
      "selective_scan",
      [=](In in) {
        Tensor y;
        for (const TokenOrder order : {TokenOrder::rows, TokenOrder::columns, TokenOrder::rows_back,
                                       TokenOrder::columns_back})
          y = selective_scan(in[0], in[1], in[2], in[3], in[4], order,
                             y.defined() ? Tensor() : in[5], y, StepSizes::softplus);
        return y;
      },
      {between(tokens, -1, 1), between(tokens, -6, 1), between({s.channels, s.states}, -2, -0.2),
       between(states, 0.1, 1), between(states, 0.1, 1), between({s.channels}, 0, 1)},
      {2, 5}, {1e-11, 1e-5, 2e-2});
}

}  // namespace selective_scan_cuda_test

TEST_CASE("selective scan on the GPU: every order, few and many states", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace selective_scan_cuda_test;
  for (const TokenOrder order : {TokenOrder::grid, TokenOrder::rows, TokenOrder::columns,
                                 TokenOrder::rows_back, TokenOrder::columns_back})
    for (const i64 states : {1, 2, 4, 5, 8, 11, 16, 17}) {
      check({2, 7, 7, 13, states}, order, 0, 1);
      check({1, 14, 14, 40, states}, order, 0, 1);
      check({1, 30, 56, 8, states}, order, 0, 0.3);
      check({1, 1, 1, 3, states}, order, 0, 1);
      check({3, 1, 45, 9, states}, order, 0, 1);
      check({1, 33, 1, 9, states}, order, 0, 1);
    }
}

TEST_CASE("selective scan on the GPU: long sequences, wide rows, full batches", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace selective_scan_cuda_test;
  check({1, 1, 4096, 16, 1}, TokenOrder::rows, 0, 0.5);
  check({1, 64, 64, 8, 16}, TokenOrder::columns, 0, 0.5);
  check({1, 2, 128, 8, 16}, TokenOrder::grid, 0, 1);
  check({1, 2, 129, 8, 16}, TokenOrder::grid, 0, 1);  // composed
  check({1, 2, 512, 8, 3}, TokenOrder::grid, 0, 1);
  check({133, 1, 9, 33, 1}, TokenOrder::rows, 0, 1);  // lanes are 32 channels
  check({40, 14, 14, 120, 1}, TokenOrder::columns_back, 0, 0.5);
  check({40, 7, 7, 64, 16}, TokenOrder::grid, 0, 0.5);
}

TEST_CASE("selective scan on the GPU: softplus of the steps, and sums of scans", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace selective_scan_cuda_test;
  for (const i64 states : {1, 3, 16}) {
    check_sum({2, 7, 9, 13, states});
    check_sum({40, 14, 14, 120, states});
  }
}

TEST_CASE("selective scan on the GPU: what is forgotten at once, and what nearly never", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace selective_scan_cuda_test;
  for (const i64 states : {1, 16}) {
    check({1, 1, 4096, 8, states}, TokenOrder::rows_back, 20, 200);
    // sums of thousands of terms, each decay rounded
    check({1, 1, 4096, 8, states}, TokenOrder::rows, 0, 1e-3, {1e-11, 2e-4, 5e-2});
    check({1, 28, 28, 8, states}, TokenOrder::grid, 20, 200);
    check({1, 28, 28, 8, states}, TokenOrder::grid, 0, 1e-3, {1e-11, 1e-4, 5e-2});
    check({1, 28, 28, 8, states}, TokenOrder::grid, 0, 0);
  }
}

#endif
