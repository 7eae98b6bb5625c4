// Times the selective scan on the GPU beside what it must read and write, forward and forward +
// backward, by graph replay: medians of 20.
//   nvcc -std=c++20 -O3 -arch=native -Xcompiler -fopenmp -Iinclude benchmarks/scan_cuda_bench.cu
//   -lcublasLt -o build/scan_cuda_bench && build/scan_cuda_bench 4.8
// The argument: the GPU's memory bandwidth in TB/s (H200 4.8, H100 3.35), of which floors are made:
//   forward   u, dt, b, c and y once
//   backward  u, dt, b, c and dy, and the gradients of the first four
// or, where that is more, one exponential a token, channel and state in each. One JSON line a case.

#include <cstdio>
#include <cstdlib>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/selective_scan.hpp"
#include "ppma/tensor/autograd.hpp"
#include "replay_time.hpp"

using namespace ppma;

namespace {

void run(double terabytes, i64 batch, i64 side, i64 channels, i64 states, TokenOrder order,
         DType dtype) {
  Rng rng(1);
  const DType wide = accumulator_dtype(dtype);
  const auto on_gpu = [&](const Tensor& t, DType as) {
    Tensor out = cast(t, as).to(Device::cuda);
    out.requires_grad(true);
    return out;
  };
  const Shape tokens{batch, side, side, channels}, of_states{batch, side, side, states};
  const Tensor u = on_gpu(Tensor::randn(tokens, rng), dtype),
               dt = on_gpu(Tensor::rand(tokens, rng, 0.001, 0.1), dtype),
               a = on_gpu(Tensor::rand({channels, states}, rng, -2, -0.5), wide),
               b = on_gpu(Tensor::randn(of_states, rng), dtype),
               c = on_gpu(Tensor::randn(of_states, rng), dtype),
               dy = cast(Tensor::randn(tokens, rng), dtype).to(Device::cuda);
  Tensor y;
  const double forward = median_ms([&] {
    const NoGrad not_recorded;
    y = selective_scan(u, dt, a, b, c, order);
  });
  y = Tensor();
  reset_peak_memory(Device::cuda);
  const i64 before = memory_stats(Device::cuda).peak_bytes;
  const double both = median_ms([&] {
    selective_scan(u, dt, a, b, c, order).backward(dy);
    for (const Tensor& t : {u, dt, a, b, c}) Tensor(t).zero_grad();
  });
  const double of_channels = static_cast<double>(u.bytes()), small = static_cast<double>(b.bytes()),
               exponentials =
                   static_cast<double>(u.numel() * states) / cuda::exponentials_per_second() * 1e3;
  const auto floor = [&](double bytes) { return std::max(bytes / terabytes * 1e-9, exponentials); };
  const double least = floor(3 * of_channels + 2 * small),
               least_back = floor(5 * of_channels + 4 * small);
  std::printf(
      "{\"batch\": %lld, \"tokens\": %lld, \"channels\": %lld, \"states\": %lld, \"order\": %d, "
      "\"dtype\": \"%s\", \"forward_ms\": %.4f, \"floor_ms\": %.4f, \"forward_backward_ms\": %.4f, "
      "\"floor_both_ms\": %.4f, \"extra_MiB\": %.1f}\n",
      static_cast<long long>(batch), static_cast<long long>(side * side),
      static_cast<long long>(channels), static_cast<long long>(states), static_cast<int>(order),
      to_string(dtype).c_str(), forward, least, both, least + least_back,
      static_cast<double>(memory_stats(Device::cuda).peak_bytes - before) / (1 << 20));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (!cuda::available()) return std::printf("no GPU\n"), 1;
  const double terabytes = argc > 1 ? std::atof(argv[1]) : 4.8;
  if (!(terabytes > 0)) return std::printf("the bandwidth must be a number of TB/s\n"), 1;
  for (const i64 batch : {128, 1}) {
    // the four stages of a network of 224 x 224, one state a channel
    for (const TokenOrder order : {TokenOrder::rows, TokenOrder::columns_back}) {
      run(terabytes, batch, 56, 192, 1, order, DType::f32);
      run(terabytes, batch, 28, 384, 1, order, DType::f32);
      run(terabytes, batch, 14, 768, 1, order, DType::f32);
      run(terabytes, batch, 7, 1536, 1, order, DType::f32);
    }
    run(terabytes, batch, 28, 384, 1, TokenOrder::rows, DType::bf16);
    run(terabytes, batch, 28, 384, 16, TokenOrder::rows, DType::f32);
    run(terabytes, batch, 56, 128, 16, TokenOrder::grid, DType::f32);
    run(terabytes, batch, 28, 256, 16, TokenOrder::grid, DType::f32);
    run(terabytes, batch, 14, 512, 16, TokenOrder::grid, DType::f32);
    run(terabytes, batch, 14, 512, 1, TokenOrder::grid, DType::f32);
  }
}
