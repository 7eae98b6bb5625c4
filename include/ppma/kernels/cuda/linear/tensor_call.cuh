#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores: the launches of a call (the idea is in tensor.cuh).

#include <algorithm>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/linear/tensor.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

/// y (n) = the sum of `count` layers of n, one or two; n divides by 8.
template <class T>
struct Sums {
  const float* layers[3];
  T* y[3];
  int count[3];
};
template <class T>
__global__ void __launch_bounds__(256) add_layers(i64 n, const __grid_constant__ Sums<T> sums) {
  cuda::wait();
  const float* const layers = sums.layers[blockIdx.y];
  T* const y = sums.y[blockIdx.y];
  const int count = sums.count[blockIdx.y];
  for (i64 e = cuda::first() * 4; e < n; e += cuda::stride() * 4) {
    float a[4], b[4] = {};
    load_pack<4>(layers + e, a);
    if (count > 1) load_pack<4>(layers + n + e, b);
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] += b[i];
    store_pack<4>(y + e, a);
  }
}

/// From gradients of sums, `layers` (.., 2, planes, tokens) of which rows have the first of_rows,
/// columns of_columns, to those of the log decays. A warp a line.
template <class A>
__global__ void __launch_bounds__(128)
    decays_back(Grid g, int of_rows, int of_columns, const A* layers, const A* log_alpha,
                const A* log_beta, A* dlog_alpha, A* dlog_beta) {
  cuda::wait();
  const i64 lines = g.planes * (g.height + g.width);
  for (i64 e = cuda::first() / 32; e < lines; e += cuda::stride() / 32) {
    const int r = static_cast<int>(e % (g.height + g.width));
    const bool turned = r >= g.height;
    const Lines s = g.lines(turned);
    const i64 plane = e / (g.height + g.width) * g.tokens();
    const float* const from = layers + (turned ? g.all() : 0) + plane;
    const float* const log = (turned ? log_beta : log_alpha) + plane;
    float* const to = (turned ? dlog_beta : dlog_alpha) + plane;
    const int line = turned ? r - g.height : r, lane = lane_index();
    float behind = 0;
    for (int back = lane; back < s.length + lane; back += 32) {
      const int place = s.length - 1 - back, at = s.token(line, ::max(place, 0));
      float sum = 0;
      if (place > 0)
        for (int i = 0; i < (turned ? of_columns : of_rows); ++i) sum += from[2 * i * g.all() + at];
#pragma unroll
      for (int far = 1; far < 32; far *= 2) {
        const float other = __shfl_up_sync(~0u, sum, far);
        if (lane >= far) sum += other;
      }
      sum += behind;
      behind = __shfl_sync(~0u, sum, 31);
      if (place >= 0) to[at] = place > 0 && !(log[at] <= -polyline_gpu::limit_bf16) ? sum : 0.f;
    }
  }
}

/// A line's work grows with the square of its length: a longer one's is left to scans.
inline constexpr i64 longest_line = 4096;
/// Whether heads of this shape fit.
inline bool suits(const AttentionShape& x) {
  return x.head_width % 8 == 0 && x.head_width <= 64 &&
         std::max(x.height, x.width) <= longest_line &&
         x.tokens() * x.channels() < (i64{1} << 31) && x.batch * x.heads < 65536;
}

/// One call: its decay sums, and launches.
template <int D>
struct Call {
  static constexpr int parts = D / part_of<D>;
  Grid g;
  Workspace<float> sums;

  explicit Call(const AttentionArgs<bf16>& in) : g(in.shape), sums(2 * g.all(), Device::cuda) {
    const i64 lines = g.planes * (g.height + g.width);
    cuda::launch("linear_attention", line_sums<float>, cuda::blocks(lines, 4), 128, 0, g,
                 in.log_alpha, in.log_beta, sums.data());
  }
  unsigned planes() const { return static_cast<unsigned>(g.planes); }
  int longest() const { return std::max(g.height, g.width); }
  // Floats of one layer of results.
  i64 size() const { return g.planes * g.tokens() * g.d; }

  void make_states(const StateJobs& jobs, int count) const {
    if (count == 0) return;
    const int warps = longest() * 2 * parts;
    const dim3 grid(static_cast<unsigned>((warps + state_warps - 1) / state_warps), planes(),
                    static_cast<unsigned>(count));
    cuda::launch("linear_attention", border_states<D>, grid, state_warps * 32, 0, g, jobs,
                 static_cast<const float*>(sums.data()));
  }
  template <bool gradients>
  void run(const Passes& passes, int count) const {
    const auto blocks = [&](bool turned) {
      const Lines s = g.lines(turned);
      return (s.count + mix_warps - 1) / mix_warps * query_blocks(turned) * parts;
    };
    const dim3 grid(static_cast<unsigned>(std::max(blocks(false), blocks(true))), planes(),
                    static_cast<unsigned>(count));
    constexpr int bytes = 3 * static_cast<int>(sizeof(Stage<D>));
    if (bytes > 48 * 1024) detail::allow_shared(mix<D, gradients>, bytes, "linear_attention");
    cuda::launch("linear_attention", mix<D, gradients>, grid, mix_threads, bytes, g, passes,
                 static_cast<const float*>(sums.data()));
  }
  int query_blocks(bool turned) const {
    return (g.lines(turned).length + query_block<D> - 1) / query_block<D>;
  }
  void add(const Sums<bf16>& all, int count) const {
    const dim3 grid(cuda::blocks(size() / 4, 256, 1056), static_cast<unsigned>(count));
    cuda::launch("linear_attention", add_layers<bf16>, grid, 256, 0, size(), all);
  }
  // Numbers of a pass's states; none where one block has all lines.
  i64 states(bool turned) const {
    return g.lines(turned).blocks() > 1 ? g.states(turned) * D * D : 0;
  }
};

template <int D>
void forward_of(Paths paths, const AttentionArgs<bf16>& in, bf16* y) {
  const Call<D> call(in);
  const Workspace<bf16> room(call.states(false) + call.states(true), Device::cuda);
  bf16* next = room.data();
  StateJobs jobs{};
  Passes passes{};
  int job = 0, pass = 0;
  const Workspace<float> layers(2 * call.size(), Device::cuda);
  for (const bool turned : {false, true}) {
    if (paths == (turned ? Paths::v2h : Paths::h2v)) continue;
    const i64 n = call.states(turned);
    if (n > 0) jobs.job[job++] = {in.k, in.v, next, turned};
    Pass& to = passes.pass[pass];
    to.p = in.q, to.x = in.k, to.w = in.v, to.states = n > 0 ? next : nullptr;
    to.y = layers.data() + pass * call.size(), to.turned = turned;
    ++pass, next += n;
  }
  call.make_states(jobs, job);
  call.template run<false>(passes, pass);
  call.add({{layers.data()}, {y}, {pass}}, 1);
}

template <int D>
void backward_of(Paths paths, const AttentionArgs<bf16>& in, const bf16* dy,
                 const AttentionGradients<bf16>& to) {
  const Call<D> call(in);
  const Grid& g = call.g;
  const bool both = paths == Paths::both;
  const i64 size = call.size();
  const Workspace<float> layers((both ? 6 : 3) * size, Device::cuda);
  const i64 layer_step = 2 * g.all();
  i64 most = 0;
  for (const bool turned : {false, true})
    most = std::max<i64>(most, call.query_blocks(turned) * call.parts);
  const Workspace<float> dsums((both ? 2 : 1) * most * layer_step, Device::cuda);
  const Workspace<bf16> room((both ? 2 : 1) * (call.states(false) + call.states(true)),
                             Device::cuda);
  bf16* next = room.data();
  StateJobs jobs{};
  Passes wide{.layer_step = layer_step}, narrow{};
  int job = 0, pass = 0, of_v = 0, of_rows[2] = {};
  float* const result[3] = {layers.data(), layers.data() + (both ? 2 : 1) * size,
                            layers.data() + (both ? 4 : 2) * size};
  const auto states = [&](const bf16* x, const bf16* w, bool turned) -> const bf16* {
    if (call.states(turned) == 0) return nullptr;
    jobs.job[job++] = {x, w, next, turned};
    next += call.states(turned);
    return jobs.job[job - 1].to;
  };
  const auto rows = [&](bool turned) {
    const i64 first = of_rows[turned];
    of_rows[turned] += call.query_blocks(turned) * call.parts;
    return dsums.data() + first * layer_step;
  };
  int n = 0;
  for (const bool turned : {false, true})  // of queries
    if (paths != (turned ? Paths::v2h : Paths::h2v))
      wide.pass[pass++] = {.p = dy,
                           .x = in.v,
                           .w = in.k,
                           .row = in.q,
                           .states = states(in.v, in.k, turned),
                           .y = result[0] + n++ * size,
                           .dsums = rows(turned),
                           .turned = turned};
  n = 0;
  for (const bool turned : {false, true})  // of keys: the other path's
    if (paths != (turned ? Paths::h2v : Paths::v2h)) {
      const bf16* const z = states(dy, in.q, turned);
      wide.pass[pass++] = {.p = in.v,
                           .x = dy,
                           .w = in.q,
                           .row = in.k,
                           .states = z,
                           .y = result[1] + n * size,
                           .dsums = rows(turned),
                           .turned = turned};
      narrow.pass[of_v++] = {.p = in.k,
                             .x = in.q,
                             .w = dy,
                             .states = z,
                             .y = result[2] + n++ * size,
                             .turned = turned,
                             .exchanged = true};
    }
  call.make_states(jobs, job);
  call.template run<true>(wide, pass);
  call.template run<false>(narrow, of_v);
  call.add({{result[0], result[1], result[2]}, {to.dq, to.dk, to.dv}, {n, n, n}}, 3);
  const i64 lines = g.planes * (g.height + g.width);
  cuda::launch("linear_attention", decays_back<float>, cuda::blocks(lines, 4), 128, 0, g,
               of_rows[0], of_rows[1], static_cast<const float*>(dsums.data()), in.log_alpha,
               in.log_beta, to.dlog_alpha, to.dlog_beta);
}

inline void forward(Paths paths, const AttentionArgs<bf16>& in, bf16* y) {
  detail::with_tile_width<16>(
      in.shape.head_width, [&](auto width) { forward_of<decltype(width)::value>(paths, in, y); });
}
inline void backward(Paths paths, const AttentionArgs<bf16>& in, const bf16* dy,
                     const AttentionGradients<bf16>& to) {
  detail::with_tile_width<16>(in.shape.head_width, [&](auto width) {
    backward_of<decltype(width)::value>(paths, in, dy, to);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::linear_tensor

#include "ppma/core/names_end.hpp"
