// The kernels that a network's time goes into, each beside the obvious loops for the same thing,
// which must agree before anything is timed.
//
// Counters: GFLOP/s (multiply-add = 2) and GB/s (inputs, weights and output once each, in f32). The
// floor of a case is the slower of FLOPs / peak and bytes / bandwidth; on a 2-core AVX-512 machine
// the register tile reaches 245 GFLOP/s a thread, and memory 25 GB/s from DRAM, 50 and more from
// L3. So convolutions and linear maps are to be read against 245 GFLOP/s a thread; depthwise 3x3
// (18 FLOPs for 8 bytes) and the norms against the bandwidth.
//
//   build/release/benchmarks/ops_bench --benchmark_repetitions=9
//   --benchmark_report_aggregates_only=true

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "ppma/core/parallel.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/norm.hpp"

using namespace ppma;

namespace {

void must_agree(const char* what, const Tensor& got, const Tensor& want) {
  double difference = 0, norm = 0;
  for (i64 i = 0; i < got.numel(); ++i) {
    const double w = static_cast<double>(want.data<float>()[i]),
                 e = static_cast<double>(got.data<float>()[i]) - w;
    difference += e * e, norm += w * w;
  }
  if (got.shape() == want.shape() && std::sqrt(difference / norm) < 1e-5) return;
  std::fprintf(stderr, "%s: the fast kernel differs from the loops by %g\n", what,
               std::sqrt(difference / norm));
  std::exit(1);
}

// ---- the obvious loops ----

Tensor naive_depthwise(const Tensor& x, const Tensor& w, const Tensor& b) {
  const i64 h = x.dim(1), width = x.dim(2), c = x.dim(3), k = w.dim(2);
  Tensor y = Tensor::empty(x.shape());
  const float *px = x.data<float>(), *pw = w.data<float>(), *pb = b.data<float>();
  float* py = y.data<float>();
  for (i64 n = 0; n < x.dim(0); ++n)
    for (i64 i = 0; i < h; ++i)
      for (i64 j = 0; j < width; ++j)
        for (i64 q = 0; q < c; ++q) {
          float s = pb[q] + px[((n * h + i) * width + j) * c + q];
          for (i64 ky = 0; ky < k; ++ky)
            for (i64 kx = 0; kx < k; ++kx) {
              const i64 yy = i + ky - k / 2, xx = j + kx - k / 2;
              if (yy < 0 || yy >= h || xx < 0 || xx >= width) continue;
              s += px[((n * h + yy) * width + xx) * c + q] * pw[(q * k + ky) * k + kx];
            }
          py[((n * h + i) * width + j) * c + q] = s;
        }
  return y;
}

Tensor naive_conv(const Tensor& x, const Tensor& w, const Tensor& b, i64 stride) {
  const i64 h = x.dim(1), width = x.dim(2), in = x.dim(3), out = w.dim(0);
  const i64 oh = (h - 1) / stride + 1, ow = (width - 1) / stride + 1;
  Tensor y = Tensor::empty({x.dim(0), oh, ow, out});
  const float *px = x.data<float>(), *pw = w.data<float>(), *pb = b.data<float>();
  float* py = y.data<float>();
  for (i64 n = 0; n < x.dim(0); ++n)
    for (i64 i = 0; i < oh; ++i)
      for (i64 j = 0; j < ow; ++j)
        for (i64 o = 0; o < out; ++o) {
          float s = pb[o];
          for (i64 ky = 0; ky < 3; ++ky)
            for (i64 kx = 0; kx < 3; ++kx) {
              const i64 yy = i * stride + ky - 1, xx = j * stride + kx - 1;
              if (yy < 0 || yy >= h || xx < 0 || xx >= width) continue;
              for (i64 q = 0; q < in; ++q)
                s +=
                    px[((n * h + yy) * width + xx) * in + q] * pw[((o * in + q) * 3 + ky) * 3 + kx];
            }
          py[((n * oh + i) * ow + j) * out + o] = s;
        }
  return y;
}

Tensor naive_linear(const Tensor& x, const Tensor& w, const Tensor& b) {
  const i64 rows = x.dim(0), in = x.dim(1), out = w.dim(0);
  Tensor y = Tensor::empty({rows, out});
  for (i64 r = 0; r < rows; ++r)
    for (i64 o = 0; o < out; ++o) {
      float s = b.data<float>()[o];
      for (i64 i = 0; i < in; ++i) s += x.data<float>()[r * in + i] * w.data<float>()[o * in + i];
      y.data<float>()[r * out + o] = s;
    }
  return y;
}

Tensor naive_layer_norm(const Tensor& x, const Tensor& w, const Tensor& b) {
  const i64 rows = x.dim(0), cols = x.dim(1);
  Tensor y = Tensor::empty(x.shape());
  for (i64 r = 0; r < rows; ++r) {
    const float* p = x.data<float>() + r * cols;
    float mean = 0, var = 0;
    for (i64 c = 0; c < cols; ++c) mean += p[c];
    mean /= static_cast<float>(cols);
    for (i64 c = 0; c < cols; ++c) var += (p[c] - mean) * (p[c] - mean);
    const float s = 1 / std::sqrt(var / static_cast<float>(cols) + 1e-6f);
    for (i64 c = 0; c < cols; ++c)
      y.data<float>()[r * cols + c] = (p[c] - mean) * s * w.data<float>()[c] + b.data<float>()[c];
  }
  return y;
}

// ---- cases ----

enum class How { naive, fast, train };

// Times `fast`, its forward and backward pass, or `naive`; flops and elements are the forward
// pass's.
template <class Fast, class Naive>
void race(benchmark::State& state, const char* name, How how, std::vector<Tensor> in, double flops,
          Fast&& fast, Naive&& naive) {
  Tensor y = fast(in);
  must_agree(name, y, naive(in));
  double elements = static_cast<double>(y.numel());
  for (Tensor& t : in) elements += static_cast<double>(t.numel());
  if (how == How::train)
    for (Tensor& t : in) t.requires_grad(true);
  const Tensor dy = Tensor::ones(y.shape());
  for (auto _ : state) {
    if (how == How::naive) {
      y = naive(in);
    } else {
      y = fast(in);
      if (how == How::train) {
        for (Tensor& t : in) t.zero_grad();
        y.backward(dy);
      }
    }
    benchmark::DoNotOptimize(y.raw());
  }
  const double passes = how == How::train ? 3 : 1;
  state.counters["GFLOP/s"] =
      benchmark::Counter(passes * flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] =
      benchmark::Counter(passes * elements * 4e-9, benchmark::Counter::kIsIterationInvariantRate);
}

// Arguments: threads, batch, side, channels, k.
void depthwise(benchmark::State& state, How how) {
  set_threads(static_cast<int>(state.range(0)));
  const i64 batch = state.range(1), side = state.range(2), c = state.range(3), k = state.range(4);
  Rng rng(1);
  race(
      state, "depthwise", how,
      {Tensor::randn({batch, side, side, c}, rng), Tensor::randn({c, 1, k, k}, rng),
       Tensor::randn({c}, rng)},
      2.0 * static_cast<double>(batch * side * side * c * k * k),
      [](const auto& t) { return depthwise_conv2d(t[0], t[1], t[2], t[0]); },
      [](const auto& t) { return naive_depthwise(t[0], t[1], t[2]); });
}

// Arguments: threads, batch, side, in, out, stride.
void conv(benchmark::State& state, How how) {
  set_threads(static_cast<int>(state.range(0)));
  const i64 batch = state.range(1), side = state.range(2), in = state.range(3),
            out = state.range(4), stride = state.range(5);
  const i64 cells = (side - 1) / stride + 1;
  Rng rng(1);
  race(
      state, "conv", how,
      {Tensor::randn({batch, side, side, in}, rng), Tensor::randn({out, in, 3, 3}, rng),
       Tensor::randn({out}, rng)},
      18.0 * static_cast<double>(batch * cells * cells * in * out),
      [stride](const auto& t) {
        return conv2d(t[0], t[1], t[2], {.stride = stride, .padding = 1});
      },
      [stride](const auto& t) { return naive_conv(t[0], t[1], t[2], stride); });
}

// Arguments: threads, rows, in, out.
void linear_map(benchmark::State& state, How how) {
  set_threads(static_cast<int>(state.range(0)));
  const i64 rows = state.range(1), in = state.range(2), out = state.range(3);
  Rng rng(1);
  race(
      state, "linear", how,
      {Tensor::randn({rows, in}, rng), Tensor::randn({out, in}, rng), Tensor::randn({out}, rng)},
      2.0 * static_cast<double>(rows * in * out),
      [](const auto& t) { return linear(t[0], t[1], t[2]); },
      [](const auto& t) { return naive_linear(t[0], t[1], t[2]); });
}

// Arguments: threads, rows, channels.
void layer_normalisation(benchmark::State& state, How how) {
  set_threads(static_cast<int>(state.range(0)));
  const i64 rows = state.range(1), c = state.range(2);
  Rng rng(1);
  race(
      state, "layer norm", how,
      {Tensor::randn({rows, c}, rng), Tensor::randn({c}, rng), Tensor::randn({c}, rng)},
      8.0 * static_cast<double>(rows * c),
      [](const auto& t) { return layer_norm(t[0], t[1], t[2], 1e-6); },
      [](const auto& t) { return naive_layer_norm(t[0], t[1], t[2]); });
}

// The shapes of the tiny network at 224 x 224: one image, and eight.
#define DEPTHWISE(t)             \
  ->Args({t, 1, 56, 64, 3})      \
      ->Args({t, 1, 56, 192, 3}) \
      ->Args({t, 1, 14, 256, 5}) \
      ->Args({t, 8, 56, 64, 3})
#define CONV(t)                      \
  ->Args({t, 1, 224, 3, 32, 2})      \
      ->Args({t, 1, 112, 32, 32, 1}) \
      ->Args({t, 1, 56, 64, 64, 1})  \
      ->Args({t, 1, 14, 256, 512, 2})
#define LINEAR(t)                \
  ->Args({t, 3136, 64, 192})     \
      ->Args({t, 196, 256, 768}) \
      ->Args({t, 49, 512, 1536}) \
      ->Args({t, 25088, 64, 192})
#define NORM(t) ->Args({t, 3136, 64})->Args({t, 196, 256})->Args({t, 25088, 64})
#define THREE_WAYS(function, label, shapes)          \
  BENCHMARK_CAPTURE(function, naive, How::naive)     \
      ->Name(label "/naive") shapes(1)               \
      ->UseRealTime()                                \
      ->Unit(benchmark::kMillisecond);               \
  BENCHMARK_CAPTURE(function, fast, How::fast)       \
      ->Name(label "/fast") shapes(1) shapes(2)      \
      ->UseRealTime()                                \
      ->Unit(benchmark::kMillisecond);               \
  BENCHMARK_CAPTURE(function, train, How::train)     \
      ->Name(label "/both_ways") shapes(1) shapes(2) \
      ->UseRealTime()                                \
      ->Unit(benchmark::kMillisecond)

THREE_WAYS(depthwise, "depthwise", DEPTHWISE);
THREE_WAYS(conv, "conv", CONV);
THREE_WAYS(linear_map, "linear", LINEAR);
THREE_WAYS(layer_normalisation, "layer_norm", NORM);

}  // namespace

BENCHMARK_MAIN();
