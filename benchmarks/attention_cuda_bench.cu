// Times whole and criss-cross attention on the GPU, forward and forward + backward, by graph
// replay: medians of 20.
//   nvcc -std=c++20 -O3 -arch=native -Xcompiler -fopenmp -Iinclude
//   benchmarks/attention_cuda_bench.cu -lcublasLt -o build/attention_cuda_bench
// Prints one JSON line a case. Beside PyTorch: benchmarks/compare_gpu.py --rows attention.

#include <cstdio>
#include <cstring>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/sequence.hpp"
#include "ppma/tensor/tape.hpp"
#include "replay_time.hpp"

using namespace ppma;

namespace {

void run(const char* kind, i64 batch, i64 side, i64 heads, i64 d, bool masked, DType dtype) {
  Rng rng(1);
  const auto on_gpu = [&](const Tensor& t, DType as) {
    Tensor out = cast(t, as).to(Device::cuda);
    out.requires_grad(true);
    return out;
  };
  const Shape tokens{batch, side, side, heads * d}, grid{2, batch, heads, side, side};
  const Tensor q = on_gpu(Tensor::randn(tokens, rng), dtype),
               k = on_gpu(Tensor::randn(tokens, rng, 1 / std::sqrt(static_cast<double>(d))), dtype);
  const Tensor v = on_gpu(Tensor::randn(tokens, rng), dtype),
               dy = cast(Tensor::randn(tokens, rng), dtype).to(Device::cuda);
  const DType wide = accumulator_dtype(dtype);
  const Tensor decays = masked ? on_gpu(neg(abs(Tensor::randn(grid, rng, 0.1))), wide) : Tensor();
  const auto attention = [&] {
    if (std::strcmp(kind, "whole_cross_scan") == 0)
      return sequence_attention(q, k, v, heads, decays, cross_scan_orders(side, side));
    if (std::strcmp(kind, "whole_hilbert") == 0)
      return sequence_attention(q, k, v, heads, decays, hilbert_orders(side, side));
    if (std::strcmp(kind, "criss_cross_hilbert") == 0)
      return sequence_criss_cross(q, k, v, heads, decays, hilbert_orders(side, side));
    if (std::strcmp(kind, "whole") == 0)
      return whole_attention(q, k, v, heads, decays, masked ? Paths::both : Paths::none);
    return criss_cross_attention(q, k, v, heads, decays, Order::both);
  };
  Tensor y;
  const double forward = median_ms([&] {
    const NoGrad not_recorded;
    y = attention();
  });
  y = Tensor();
  reset_peak_memory(Device::cuda);
  const i64 before = memory_stats(Device::cuda).peak_bytes;
  const double both = median_ms([&] {
    attention().backward(dy);
    for (const Tensor& t : {q, k, v, decays})
      if (t.defined()) Tensor(t).zero_grad();
  });
  std::printf(
      "{\"kind\": \"%s\", \"batch\": %lld, \"tokens\": %lld, \"heads\": %lld, \"head_width\": "
      "%lld, \"masked\": %s, \"dtype\": \"%s\", \"forward_ms\": %.4f, "
      "\"forward_backward_ms\": %.4f, \"extra_MiB\": %.1f}\n",
      kind, static_cast<long long>(batch), static_cast<long long>(side * side),
      static_cast<long long>(heads), static_cast<long long>(d), masked ? "true" : "false",
      to_string(dtype).c_str(), forward, both,
      static_cast<double>(memory_stats(Device::cuda).peak_bytes - before) / (1 << 20));
  std::fflush(stdout);
}

}  // namespace

int main() {
  if (!cuda::available()) return std::printf("no GPU\n"), 1;
  for (const bool masked : {true, false}) {
    run("whole", 4, 64, 8, 32, masked, DType::bf16);
    run("whole", 32, 28, 8, 32, masked, DType::bf16);
    run("whole", 128, 14, 8, 32, masked, DType::bf16);
    run("whole", 128, 7, 16, 32, masked, DType::bf16);
    run("whole", 4, 64, 4, 64, masked, DType::bf16);
    run("criss_cross", 128, 56, 4, 16, masked, DType::bf16);
    run("criss_cross", 128, 28, 4, 32, masked, DType::bf16);
  }
  for (const char* kind : {"whole_cross_scan", "whole_hilbert"}) {
    run(kind, 32, 28, 8, 32, true, DType::bf16);
    run(kind, 128, 14, 8, 32, true, DType::bf16);
    run(kind, 128, 7, 16, 32, true, DType::bf16);
  }
  run("criss_cross_hilbert", 128, 56, 4, 16, true, DType::bf16);
  run("criss_cross_hilbert", 128, 28, 4, 32, true, DType::bf16);
  run("whole", 128, 14, 8, 32, true, DType::f32);
}
