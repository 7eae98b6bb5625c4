// Pools, scans, softmax and loss on the GPU at sizes that the op table does not reach: lines of
// warps, odd channels, overlapping windows, many rows, labels that do not count.

#if PPMA_TEST_GPU

#include "cuda_compare.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/pool.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/ops/softmax.hpp"

using namespace cuda_test;

namespace {
Tensor random(const Shape& s, u64 seed, double low = -1, double high = 1) {
  Rng rng(seed);
  return Tensor::rand(s, rng, low, high, DType::f64);
}
}  // namespace

TEST_CASE("pools on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Shape& s : {Shape{2, 9, 7, 5}, Shape{1, 14, 14, 64}, Shape{3, 1, 1, 8},
                         Shape{1, 3, 11, 1}, Shape{4, 33, 20, 24}}) {
    INFO(s.str());
    const Tensor x = random(s, 1);
    for (const Pool& p :
         {Pool{3, 2, 1}, Pool{3, 1, 1}, Pool{2, 1, 1}, Pool{1, 2, 0}, Pool{1, 3, 0}}) {
      INFO(p.kernel << " " << p.stride << " " << p.padding);
      compare("avg_pool2d", [p](In in) { return avg_pool2d(in[0], p); }, {x});
      compare("max_pool2d", [p](In in) { return max_pool2d(in[0], p); }, {x});
    }
    for (const auto& [h, w] : {std::pair<i64, i64>{1, 1}, {4, 3}, {13, 17}}) {
      const i64 rows = h, cols = w;
      compare("adaptive_avg_pool2d", [=](In in) { return adaptive_avg_pool2d(in[0], rows, cols); },
              {x});
    }
  }
}

TEST_CASE("scans on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Shape& s :
       {Shape{3, 5, 4}, Shape{2, 70, 3}, Shape{1, 257, 1}, Shape{4, 33, 40}, Shape{1, 1, 1}}) {
    INFO(s.str());
    for (const bool reverse : {false, true})
      for (const int axis : {0, 1, 2})
        compare("cumsum", [=](In in) { return cumsum(in[0], axis, reverse); }, {random(s, 2)});
    for (const ScanDirection way :
         {ScanDirection::forward, ScanDirection::backward, ScanDirection::symmetric}) {
      INFO("direction " << static_cast<int>(way));
      const auto scan = [way](In in) { return decay_scan(in[0], in[1], 1, way); };
      const Tolerance most{1e-12, 4e-6, 1e-2};
      compare("a decay an element", scan, {random(s, 3), random(s, 4, -0.5, 0)}, {1}, most);
      compare("a decay a vector", scan, {random(s, 3), random({s[0], s[1], 1}, 4, -0.5, 0)}, {1},
              most);
      compare("long vectors", scan,
              {random({s[0], s[1], s[2], 75}, 3), random({s[0], s[1], s[2], 1}, 4, -0.5, 0)}, {1},
              most);
      compare("shared", scan, {random(s, 3), random({1, s[1], 1}, 4, -0.5, 0)}, {1}, most);
    }
  }
}

TEST_CASE("softmax and cross entropy on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Shape& s :
       {Shape{70001, 3}, Shape{5, 1000}, Shape{1, 1}, Shape{9, 33}, Shape{2, 4097}}) {
    INFO(s.str());
    const Tensor x = random(s, 5, -9, 9);
    for (const int axis : {0, 1}) {
      compare("softmax", [=](In in) { return softmax(in[0], axis); }, {x}, {}, {1e-12, 4e-6, 1e-2});
      compare("log_softmax", [=](In in) { return log_softmax(in[0], axis); }, {x}, {},
              {1e-12, 4e-6, 1e-2});
    }
    Tensor label = Tensor::empty({s[0]}, DType::int64);
    for (i64 r = 0; r < s[0]; ++r) label.data<i64>()[r] = r % 3 == 1 ? 255 : r * 7 % s[1];
    for (const bool all : {false, true})
      for (const double smoothing : {0.0, 0.1}) {
        compare("labels",
                [=](In in) {
                  return cross_entropy(in[0], in[1], {smoothing, 255, all});
                },
                {x, label}, {}, {1e-12, 4e-6, 1e-2});
        compare("soft targets", [=](In in) { return cross_entropy(in[0], in[1], {smoothing}); },
                {x, random(s, 6, 0, 1)}, {}, {1e-12, 4e-6, 1e-2});
      }
  }
  for (const Shape& s :
       {Shape{4099, 64}, Shape{4096, 96}, Shape{4097, 784}}) {  // a few lanes a line
    INFO(s.str());
    compare("softmax", [](In in) { return softmax(in[0], 1); }, {random(s, 5, -9, 9)}, {},
            {1e-12, 4e-6, 1e-2});
  }
  // A line of minus infinity only is NaN, and so is its gradient, as on the CPU; others keep their
  // own. Of a block, of a warp, of a few lanes, by columns.
  for (const auto& [rows, n] :
       {std::pair<i64, i64>{3, 1}, {5, 37}, {2, 1000}, {5000, 37}, {5000, 40}})
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (const int axis : {0, 1})
        for (const bool logarithm : {false, true}) {
          INFO(rows << " lines of " << n << ", axis " << axis << ", " << to_string(dtype)
                    << (logarithm ? ", log" : ""));
          Tensor x = random({rows, n}, 8);
          for (i64 e = 0; e < x.numel(); ++e)
            if (e / n % 2 == 0 || e % n % 3 == 1) x.data<double>()[e] = negative_infinity<double>();
          if (axis == 0) x = transpose(x, 0, 1).clone();
          x = cast(x, dtype);
          const auto f = [=](In in) {
            return logarithm ? log_softmax(in[0], axis) : softmax(in[0], axis);
          };
          const auto here = outcome(f, {cast(x, DType::f64)}),
                     there = outcome(f, {x.to(Device::cuda)});
          for (const std::size_t k : {std::size_t{0}, std::size_t{1}}) {
            const auto want = here[k].to_vector<double>(),
                       got = there[k].to(Device::cpu).to_vector<double>();
            i64 different = 0, undefined = 0;
            for (std::size_t e = 0; e < want.size(); ++e) {
              const double off = std::fabs(got[e] - want[e]),
                           most = (dtype == DType::bf16 ? 2e-2 : 1e-5) *
                                  std::max(1.0, std::fabs(want[e]));
              undefined += is_nan(want[e]);
              different += is_nan(want[e])   ? !is_nan(got[e])
                           : is_inf(want[e]) ? got[e] != want[e]
                                             : !(off <= most);
            }
            CHECK(different == 0);
            CHECK(undefined == (rows + 1) / 2 * n);
          }
        }
  // Labels on the GPU are not looked at: outside of [0, K) they count as ignored.
  Tensor label = Tensor::from<i64>({0, 7, -3, 2}, {4}).to(Device::cuda);
  const Tensor x = random({4, 3}, 7).to(Device::cuda);
  const Tensor kept = Tensor::from<i64>({0, -100, -100, 2}, {4}).to(Device::cuda);
  CHECK(cross_entropy(x, label).item() == cross_entropy(x, kept).item());
}

#endif
