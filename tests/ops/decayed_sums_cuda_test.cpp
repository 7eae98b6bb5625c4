// Decayed sums on the GPU at sizes that the op table does not reach: several chunks, the last one
// full or not, every width, decays near 0 and 1.

#if PPMA_TEST_GPU

#include "cuda_compare.hpp"
#include "ppma/ops/decayed_sums.hpp"

using namespace cuda_test;

namespace decayed_sums_cuda_test {

struct Sizes {
  i64 batch, tokens, heads, of_keys, d, p;
};

std::vector<Tensor> inputs(const Sizes& s, double least, double most) {
  Rng rng(9);
  const Shape keys{s.batch, s.tokens, s.of_keys, s.d};
  const double size = 1 / std::sqrt(static_cast<double>(s.d));
  return {Tensor::randn(keys, rng, size, DType::f64), Tensor::randn(keys, rng, 1, DType::f64),
          Tensor::randn({s.batch, s.tokens, s.heads, s.p}, rng, 1, DType::f64),
          Tensor::rand({s.batch, s.tokens, s.heads}, rng, -most, -least, DType::f64)};
}

void check(const Sizes& s, double least, double most,
           const Tolerance& tolerance = {1e-11, 1e-5, 2e-2}) {
  INFO(s.batch << " x " << s.tokens << " tokens, " << s.heads << " heads, " << s.of_keys
               << " of keys, widths " << s.d << " and " << s.p << ", decays " << least << " to "
               << most);
  compare(
      "decayed_sums", [](In in) { return decayed_sums(in[0], in[1], in[2], in[3]); },
      inputs(s, least, most), {3}, tolerance);
}

}  // namespace decayed_sums_cuda_test

TEST_CASE("decayed sums on the GPU: every width, whole and begun chunks", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace decayed_sums_cuda_test;
  for (const i64 tokens : {1, 9, 16, 36, 63, 64, 65, 128, 144, 200}) {
    check({2, tokens, 2, 1, 64, 32}, 0, 1);
    check({2, tokens, 3, 1, 64, 64}, 0, 1);
    check({2, tokens, 2, 2, 16, 16}, 0, 1);
    check({2, tokens, 2, 2, 32, 32}, 0, 1);
  }
  check({1, 130, 2, 2, 8, 24}, 0, 1);
  check({1, 130, 2, 1, 40, 56}, 0, 1);
  check({1, 130, 2, 1, 24, 40}, 0, 1);
  check({1, 70, 2, 2, 6, 5}, 0, 1);    // composed
  check({1, 70, 2, 1, 72, 16}, 0, 1);  // composed
}

TEST_CASE("decayed sums on the GPU: what is forgotten at once, and what never", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace decayed_sums_cuda_test;
  for (const Sizes& s : {Sizes{1, 777, 2, 1, 64, 64}, Sizes{1, 777, 2, 2, 16, 16}}) {
    // The decays' gradient is a difference of numbers some fifty times as large, which f32 takes of
    // sums of decays up to 384.
    check(s, 2, 6, {1e-11, 1e-3, 2e-2});
    check(s, 1e4, 1e5);
    check(s, 0, 1e-3);
    check(s, 0, 0);
  }
}

TEST_CASE("decayed sums on the GPU: the kernels give what is composed", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  using namespace decayed_sums_cuda_test;
  for (const Sizes& s : {Sizes{2, 3136, 4, 1, 64, 32}, Sizes{8, 784, 4, 1, 64, 64},
                         Sizes{2, 3136, 4, 4, 16, 16}, Sizes{8, 196, 8, 8, 32, 32}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO(to_string(dtype) << ", " << s.tokens << " tokens, widths " << s.d << " and " << s.p);
      std::vector<Tensor> in;
      for (const Tensor& t : inputs(s, 0, 0.5))
        in.push_back(cast(t, in.size() == 3 ? DType::f32 : dtype).to(Device::cuda));
      const auto one = outcome([](In x) { return decayed_sums(x[0], x[1], x[2], x[3]); }, in);
      const auto other =
          outcome([](In x) { return decayed_sums_composed(x[0], x[1], x[2], x[3]); }, in);
      for (std::size_t i = 0; i < one.size(); ++i) {
        INFO("result " << i);
        CHECK(distance(one[i].to(Device::cpu), other[i].to(Device::cpu)) <
              (dtype == DType::f32 ? 1e-5 : 2e-2));
      }
    }
}

#endif
