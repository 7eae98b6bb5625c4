// The fused attentions beside plain loops that follow the definition, and beside their own unmasked
// form.
//
// Work of whole attention forward: 4 N^2 d multiply-adds' worth of FLOPs a head (scores and
// values), one exponential a score; backward: 5 such products of 2 N^2 d. Bytes: q, k, v, y once,
// so it is bound by arithmetic from N = 49 on.
// Floor per head = FLOPs / peak; the counter GFLOP/s is to be read against the GEMM peak that
// gemm/1024 prints (measured on a 2-core AVX-512 machine: 225-250 GFLOP/s a thread, so at best
// that).
//
//   build/release/benchmarks/attention_bench --benchmark_repetitions=9
//   --benchmark_report_aggregates_only=true

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/polyline/fused.hpp"

using namespace ppma;

namespace {

struct Input {
  Tensor q, k, v, decays;  // decays (2,B,G,H,W)
  i64 heads;
  Input(i64 batch, i64 heads_, i64 side, i64 d) : heads(heads_) {
    Rng rng(7);
    const Shape tokens{batch, side, side, heads * d}, grid{2, batch, heads, side, side};
    q = Tensor::randn(tokens, rng);
    k = Tensor::randn(tokens, rng, 1 / std::sqrt(static_cast<double>(d)));
    v = Tensor::randn(tokens, rng);
    decays = Tensor::rand(grid, rng, -0.2, 0);
  }
};

// The definition in the obvious loops: builds every row of the mask, two softmaxes, no blocking.
Tensor naive_whole(const Input& x) {
  const i64 batch = x.q.dim(0), h = x.q.dim(1), w = x.q.dim(2), channels = x.q.dim(3),
            d = channels / x.heads, n = h * w;
  Tensor y = Tensor::zeros(x.q.shape());
  std::vector<float> a(static_cast<std::size_t>(n)), b(a), s(a), t(a);
  for (i64 head = 0; head < batch * x.heads; ++head) {
    const i64 base = head / x.heads * n * channels + head % x.heads * d;
    const float *la = x.decays.data<float>() + head * n, *lb = la + batch * x.heads * n;
    float *pa = a.data(), *pb = b.data(), *ps = s.data(), *pt = t.data();
    for (i64 u = 0; u < n; ++u) {
      pa[u] = u % w == 0 ? 0 : pa[u - 1] + la[u];
      pb[u] = u < w ? 0 : pb[u - w] + lb[u];
    }
    for (i64 u = 0; u < n; ++u) {
      float top_s = -1e30f, top_t = -1e30f, sum_s = 0, sum_t = 0;
      for (i64 m = 0; m < n; ++m) {
        float dot = 0;
        for (i64 c = 0; c < d; ++c)
          dot += x.q.data<float>()[base + u * channels + c] *
                 x.k.data<float>()[base + m * channels + c];
        const i64 i = u / w, j = u % w, k = m / w, l = m % w;
        ps[m] = dot - std::abs(pa[u] - pa[i * w + l]) - std::abs(pb[i * w + l] - pb[m]);
        pt[m] = dot - std::abs(pa[k * w + j] - pa[m]) - std::abs(pb[u] - pb[k * w + j]);
        top_s = std::max(top_s, ps[m]), top_t = std::max(top_t, pt[m]);
      }
      for (i64 m = 0; m < n; ++m)
        sum_s += ps[m] = std::exp(ps[m] - top_s), sum_t += pt[m] = std::exp(pt[m] - top_t);
      for (i64 m = 0; m < n; ++m)
        for (i64 c = 0; c < d; ++c)
          y.data<float>()[base + u * channels + c] +=
              0.5f * (ps[m] / sum_s + pt[m] / sum_t) * x.v.data<float>()[base + m * channels + c];
    }
  }
  return y;
}

void must_agree(const Tensor& got, const Tensor& want) {
  double difference = 0, norm = 0;
  for (i64 i = 0; i < got.numel(); ++i) {
    const double e =
        static_cast<double>(got.data<float>()[i]) - static_cast<double>(want.data<float>()[i]);
    difference += e * e, norm += static_cast<double>(want.data<float>()[i]) *
                                 static_cast<double>(want.data<float>()[i]);
  }
  if (std::sqrt(difference / norm) < 1e-5) return;
  std::fprintf(stderr, "the fused attention differs from the definition by %g\n",
               std::sqrt(difference / norm));
  std::exit(1);
}

void report(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

// Arguments: side, heads, head width, threads.
void whole(benchmark::State& state, Paths paths, bool backward) {
  const i64 side = state.range(0);
  set_threads(static_cast<int>(state.range(3)));
  Input x(1, state.range(1), side, state.range(2));
  if (side <= 28 && paths == Paths::both)
    must_agree(whole_attention(x.q, x.k, x.v, x.heads, x.decays), naive_whole(x));
  if (backward)
    for (Tensor* t : {&x.q, &x.k, &x.v, &x.decays}) t->requires_grad(true);
  reset_peak_memory();
  const i64 before = memory_stats().live_bytes;
  for (auto _ : state) {
    const Tensor y = whole_attention(x.q, x.k, x.v, x.heads, x.decays, paths);
    if (backward) y.backward(x.v.detach());
    benchmark::DoNotOptimize(y.raw());
  }
  state.counters["extra_MiB"] = static_cast<double>(memory_stats().peak_bytes - before) / 1048576;
  const double product = 2.0 * static_cast<double>(side * side * side * side * x.q.dim(3));
  report(state, product * (backward ? 7 : 2));
}

void naive(benchmark::State& state) {
  const Input x(1, state.range(1), state.range(0), state.range(2));
  for (auto _ : state) benchmark::DoNotOptimize(naive_whole(x).raw());
  const double n = static_cast<double>(state.range(0) * state.range(0));
  report(state, 4 * n * n * static_cast<double>(x.q.dim(3)));
}

void criss_cross(benchmark::State& state, bool masked, bool backward) {
  const i64 side = state.range(0);
  set_threads(static_cast<int>(state.range(3)));
  Input x(1, state.range(1), side, state.range(2));
  if (!masked) x.decays = Tensor();
  if (backward)
    for (Tensor* t : {&x.q, &x.k, &x.v, &x.decays})
      if (t->defined()) t->requires_grad(true);
  for (auto _ : state) {
    const Tensor y = criss_cross_attention(x.q, x.k, x.v, x.heads, x.decays);
    if (backward) y.backward(x.v.detach());
    benchmark::DoNotOptimize(y.raw());
  }
  // Six products forward (row and column scores, two mixings each way); backward the four score and
  // mixing products of either direction again and their gradients: sixteen.
  const double product = 2.0 * static_cast<double>(side * side * side * x.q.dim(3));
  report(state, product * (backward ? 22 : 6));
}

void gemm_peak(benchmark::State& state) {
  set_threads(static_cast<int>(state.range(0)));
  Rng rng(1);
  const i64 n = 1024;
  const Tensor a = Tensor::randn({n, n}, rng), b = Tensor::randn({n, n}, rng);
  Tensor c = Tensor::empty({n, n});
  for (auto _ : state) {
    kernels::Gemm<float> g;
    g.m = g.n = g.k = g.lda = g.ldb = g.ldc = n;
    g.a = a.data<float>(), g.b = b.data<float>(), g.c = c.data<float>();
    kernels::gemm(Cpu{}, g);
  }
  report(state, 2.0 * n * n * n);
}

#define SIDES(threads)             \
  ->Args({7, 16, 32, threads})     \
      ->Args({14, 8, 32, threads}) \
      ->Args({28, 8, 32, threads}) \
      ->Args({64, 8, 32, threads})
#define LINES(threads) \
  ->Args({56, 4, 16, threads})->Args({28, 4, 32, threads})->Args({14, 8, 32, threads})

BENCHMARK(gemm_peak)
    ->Name("gemm/1024")
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(naive)->Name("whole/naive")->Args({14, 8, 32, 1})->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(whole, forward / unmasked, Paths::none, false)
SIDES(1) SIDES(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(whole, forward / polyline, Paths::both, false)
SIDES(1) SIDES(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(whole, both_ways / unmasked, Paths::none, true)
SIDES(1) SIDES(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(whole, both_ways / polyline, Paths::both, true)
SIDES(1) SIDES(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(criss_cross, forward / unmasked, false, false)
LINES(1) LINES(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(criss_cross, forward / polyline, true, false)
LINES(1) LINES(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(criss_cross, both_ways / unmasked, false, true)
LINES(1) LINES(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(criss_cross, both_ways / polyline, true, true)
LINES(1) LINES(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
