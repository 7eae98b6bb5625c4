// PPMLA in its three forms, and the decays that feed every mask. One head of d = 32, square grids
// from N = 256 to 65536: extra_bytes/token of `scan` must not grow, and ns/token only with the
// memory it streams from.
//
// Work of the scan for L + L^T: four sweeps (two masks, down and up), each six multiply-adds on the
// d x d state of a token: 24 d^2 N. Bytes: q, k, v and y pass once in each sweep for each block of
// the state (8 x 16 numbers with AVX-512), 8 KB a token, from L2 for N = 1024, from L3 for N =
// 65536 (32 MB), where this is the bound. Quadratic:
// 2 N^2 d, several N x N arrays.
//
//   build/release/benchmarks/linear_attention_bench --benchmark_repetitions=5
//   --benchmark_report_aggregates_only=true

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "ppma/core/parallel.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/linear.hpp"

using namespace ppma;

namespace {

constexpr i64 d = 32;

struct Input {
  Tensor q, k, v, decays;
  explicit Input(i64 side) {
    Rng rng(7);
    const Shape tokens{1, side, side, d};
    q = Tensor::randn(tokens, rng), k = Tensor::randn(tokens, rng), v = Tensor::randn(tokens, rng);
    decays = Tensor::rand({2, 1, 1, side, side}, rng, -0.2, 0);
  }
  Tensor attend(LinearForm form) const {
    return linear_attention(q, k, v, 1, decays, Paths::both, form);
  }
};

void must_agree(const Tensor& got, const Tensor& want, const char* what) {
  double difference = 0, norm = 0;
  for (i64 i = 0; i < got.numel(); ++i) {
    const double g = static_cast<double>(got.data<float>()[i]),
                 w = static_cast<double>(want.data<float>()[i]);
    difference += (g - w) * (g - w), norm += w * w;
  }
  if (std::sqrt(difference / norm) < 1e-5) return;
  std::fprintf(stderr, "%s differs by %g\n", what, std::sqrt(difference / norm));
  std::exit(1);
}

// Arguments: side of the grid.
void linear(benchmark::State& state, LinearForm form, bool backward) {
  set_threads(1);
  Input x(state.range(0));
  if (state.range(0) <= 32)
    must_agree(x.attend(form), x.attend(LinearForm::quadratic), to_string(form).c_str());
  if (backward)
    for (Tensor* t : {&x.q, &x.k, &x.v, &x.decays}) t->requires_grad(true);
  trim_memory();
  reset_peak_memory();
  const i64 before = memory_stats().live_bytes;
  for (auto _ : state) {
    const Tensor y = x.attend(form);
    if (backward) y.backward(x.v.detach());
    benchmark::DoNotOptimize(y.raw());
  }
  const double n = static_cast<double>(state.range(0) * state.range(0));
  state.counters["ns/token"] = benchmark::Counter(
      n * 1e-9, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["extra_bytes/token"] = static_cast<double>(memory_stats().peak_bytes - before) / n;
}

// Arguments: side, heads, head width; batch 8.
void decays(benchmark::State& state, bool composed) {
  set_threads(1);
  Rng rng(1);
  const i64 side = state.range(0), heads = state.range(1), width = state.range(2);
  Tensor x = Tensor::randn({8, side, side, heads * width}, rng),
         w = Tensor::randn({2, width}, rng, 0.02), b = Tensor::full({heads}, -3),
         a = Tensor::zeros({heads});
  must_agree(log_decay(x, w, b, a), log_decay_composed(x, w, b, a), "log_decay");
  for (Tensor* t : {&x, &w, &b, &a}) t->requires_grad(true);
  const Tensor dy = Tensor::ones({2, 8, heads, side, side});
  for (auto _ : state) {
    (composed ? log_decay_composed(x, w, b, a) : log_decay(x, w, b, a)).backward(dy);
  }
  state.counters["GB/s"] = benchmark::Counter(3e-9 * static_cast<double>(x.bytes()),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

const auto ms = benchmark::kMillisecond;

}  // namespace

BENCHMARK_CAPTURE(linear, scan_forward, LinearForm::scan, false)
    ->RangeMultiplier(2)
    ->Range(16, 256)
    ->Unit(ms);
BENCHMARK_CAPTURE(linear, scan_both, LinearForm::scan, true)
    ->RangeMultiplier(2)
    ->Range(16, 256)
    ->Unit(ms);
BENCHMARK_CAPTURE(linear, chunked_forward, LinearForm::chunked, false)
    ->RangeMultiplier(2)
    ->Range(16, 128)
    ->Unit(ms);
BENCHMARK_CAPTURE(linear, quadratic_forward, LinearForm::quadratic, false)
    ->RangeMultiplier(2)
    ->Range(16, 64)
    ->Unit(ms);
BENCHMARK_CAPTURE(linear, quadratic_both, LinearForm::quadratic, true)
    ->RangeMultiplier(2)
    ->Range(16, 64)
    ->Unit(ms);
BENCHMARK_CAPTURE(decays, fused, false)->Args({56, 4, 16})->Args({14, 8, 32})->Unit(ms);
BENCHMARK_CAPTURE(decays, composed, true)->Args({56, 4, 16})->Args({14, 8, 32})->Unit(ms);

BENCHMARK_MAIN();
