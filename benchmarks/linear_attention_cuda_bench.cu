// Times linear attention under the polyline mask beside whole attention under it on the GPU,
// forward and forward + backward, by graph replay: medians of 20. In bf16, both paths.
//   nvcc -std=c++20 -O3 -arch=native -Xcompiler -fopenmp -Iinclude
//   benchmarks/linear_attention_cuda_bench.cu -lcublasLt -o build/linear_attention_cuda_bench
// Checks first that linear attention is its formula with the N x N mask. Prints one JSON line a
// case.

#include <cmath>
#include <cstdio>
#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/tensor/tape.hpp"
#include "replay_time.hpp"

using namespace ppma;

namespace {

struct Size {
  i64 batch, height, width, heads, d;
};

struct Input {
  Tensor q, k, v, decays, dy;

  Input(const Size& s, DType dtype) {
    Rng rng(1);
    const auto on_gpu = [](const Tensor& t, DType as) {
      return cast(t, as).to(Device::cuda).requires_grad(true);
    };
    const Shape tokens{s.batch, s.height, s.width, s.heads * s.d},
        grid{2, s.batch, s.heads, s.height, s.width};
    q = on_gpu(Tensor::randn(tokens, rng), dtype);
    k = on_gpu(Tensor::randn(tokens, rng, 1 / std::sqrt(static_cast<double>(s.d))), dtype);
    v = on_gpu(Tensor::randn(tokens, rng), dtype);
    decays = on_gpu(neg(abs(Tensor::randn(grid, rng, 0.1))), accumulator_dtype(dtype));
    dy = cast(Tensor::randn(tokens, rng), dtype).to(Device::cuda);
  }
  std::vector<Tensor> all() const { return {q, k, v, decays}; }
  // y and the gradients of all(), on the CPU.
  template <class F>
  std::vector<Tensor> results(const F& attention) const {
    const Tensor y = attention(*this);
    y.backward(dy);
    std::vector<Tensor> r{y.detach()};
    for (Tensor t : all()) r.push_back(t.grad().clone()), t.zero_grad();
    for (Tensor& t : r) t = cast(t.to(Device::cpu), DType::f64);
    return r;
  }
};

void must_agree(const Size& s) {
  const auto form = [&](LinearForm f) {
    return [&s, f](const Input& x) {
      return linear_attention(x.q, x.k, x.v, s.heads, x.decays, Paths::both, f);
    };
  };
  const Input x(s, DType::bf16);
  const auto got = x.results(form(LinearForm::scan)), want = x.results(form(LinearForm::quadratic));
  for (std::size_t t = 0; t < got.size(); ++t) {
    double difference = 0, norm = 0;
    for (i64 i = 0; i < got[t].numel(); ++i) {
      const double g = got[t].data<double>()[i], w = want[t].data<double>()[i];
      difference += (g - w) * (g - w), norm += w * w;
    }
    if (std::sqrt(difference / norm) < 1e-2) continue;
    std::fprintf(stderr, "result %zu differs by %g\n", t, std::sqrt(difference / norm));
    std::exit(1);
  }
}

void run(const Size& s) {
  const Input x(s, DType::bf16);
  for (const bool linear : {true, false}) {
    const auto attention = [&] {
      return linear ? linear_attention(x.q, x.k, x.v, s.heads, x.decays)
                    : whole_attention(x.q, x.k, x.v, s.heads, x.decays);
    };
    Tensor y;
    const double forward = median_ms([&] {
      const NoGrad not_recorded;
      y = attention();
    });
    y = Tensor();
    trim_memory(Device::cuda);
    reset_peak_memory(Device::cuda);
    const i64 before = memory_stats(Device::cuda).peak_bytes;
    const double both = median_ms([&] {
      attention().backward(x.dy);
      for (Tensor t : x.all()) t.zero_grad();
    });
    std::printf(
        "{\"kind\": \"%s\", \"batch\": %lld, \"height\": %lld, \"width\": %lld, \"tokens\": %lld, "
        "\"heads\": %lld, \"head_width\": %lld, \"forward_ms\": %.4f, \"forward_backward_ms\": "
        "%.4f, \"extra_MiB\": %.1f}\n",
        linear ? "linear" : "whole", static_cast<long long>(s.batch),
        static_cast<long long>(s.height), static_cast<long long>(s.width),
        static_cast<long long>(s.height * s.width), static_cast<long long>(s.heads),
        static_cast<long long>(s.d), forward, both,
        static_cast<double>(memory_stats(Device::cuda).peak_bytes - before) / (1 << 20));
    std::fflush(stdout);
  }
}

}  // namespace

int main() {
  if (!cuda::available()) return std::printf("no GPU\n"), 1;
  must_agree({2, 21, 34, 2, 32});
  for (const i64 batch : {1, 4})
    for (const auto& [height, width] : {std::pair<i64, i64>{32, 32},
                                        {45, 45},
                                        {64, 64},
                                        {64, 144},
                                        {96, 96},
                                        {64, 256},
                                        {128, 128}})
      run({batch, height, width, 8, 32});
}
