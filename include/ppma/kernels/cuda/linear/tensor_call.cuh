#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores: the launches of a call (the idea is in tensor.cuh).

#include <algorithm>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/linear/chunks.cuh"
#include "ppma/kernels/cuda/linear/results.cuh"
#include "ppma/kernels/cuda/linear/tensor.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

/// A chunk reads the states of all others of its line: a longer one is left to scans.
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
  void make_chunks(const ChunkJobs& jobs, int count) const {
    if (count == 0) return;
    int most = 0;
    for (const bool turned : {false, true})
      if (const int n = chunks(turned); n > 1) most = std::max(most, g.lines(turned).blocks() * n);
    const dim3 grid(static_cast<unsigned>(most * (D * D / chunk_entries<D>)), planes(),
                    static_cast<unsigned>(count));
    constexpr int bytes = static_cast<int>(sizeof(ChunkRoom<D>));
    if (bytes > 48 * 1024) detail::allow_shared(chunk_states<D>, bytes, "linear_attention");
    cuda::launch("linear_attention", chunk_states<D>, grid, chunk_warps<D> * 32, bytes, g, jobs,
                 chunk(), static_cast<const float*>(sums.data()));
  }
  template <bool gradients>
  void run(const Passes& passes, int count) const {
    if (in_chunks())
      run_as<gradients, true>(passes, count);
    else
      run_as<gradients, false>(passes, count);
  }
  template <bool gradients, bool chunked>
  void run_as(const Passes& passes, int count) const {
    const auto blocks = [&](bool turned) {
      const Lines s = g.lines(turned);
      return (s.count + mix_warps - 1) / mix_warps * chunks(turned) * parts;
    };
    const dim3 grid(static_cast<unsigned>(std::max(blocks(false), blocks(true))), planes(),
                    static_cast<unsigned>(count));
    constexpr int of_queries = static_cast<int>(mix_warps * sizeof(OtherQueries<D>));
    constexpr int bytes =
        3 * static_cast<int>(sizeof(Stage<D>)) + (gradients && chunked ? of_queries : 0);
    if (bytes > 48 * 1024)
      detail::allow_shared(mix<D, gradients, chunked>, bytes, "linear_attention");
    cuda::launch("linear_attention", mix<D, gradients, chunked>, grid, mix_threads, bytes, g,
                 passes, static_cast<const float*>(sums.data()));
  }
  // Places of a chunk, and chunks of a line.
  bool in_chunks() const { return longest() > 16 * query_tiles<D, false>; }
  int chunk() const { return 16 * (in_chunks() ? query_tiles<D, true> : query_tiles<D, false>); }
  int chunks(bool turned) const { return (g.lines(turned).length + chunk() - 1) / chunk(); }
  void add(const Sums<bf16>& all, int count) const {
    const dim3 grid(cuda::blocks(size() / 4, 256, 8 * cuda::device().multiProcessorCount),
                    static_cast<unsigned>(count));
    cuda::launch("linear_attention", add_layers<bf16>, grid, 256, 0, size(), all);
  }
  // Numbers of a pass's states; none where one block has all lines.
  i64 states(bool turned) const {
    return g.lines(turned).blocks() > 1 ? g.states(turned) * D * D : 0;
  }
  // Numbers of its chunks' states; none where a line is one chunk.
  i64 chunk_numbers(bool turned) const {
    const int n = chunks(turned);
    return n > 1 ? g.planes * g.lines(turned).count * n * 2 * D * D : 0;
  }
  i64 room(bool turned) const { return states(turned) + chunk_numbers(turned); }
};

template <int D>
void forward_of(Paths paths, const AttentionArgs<bf16>& in, bf16* y) {
  const Call<D> call(in);
  const Workspace<bf16> room(call.room(false) + call.room(true), Device::cuda);
  bf16* next = room.data();
  StateJobs jobs{};
  ChunkJobs chunk_jobs{};
  Passes passes{};
  int job = 0, chunk_job = 0, pass = 0;
  const Workspace<float> layers(2 * call.size(), Device::cuda);
  for (const bool turned : {false, true}) {
    if (paths == (turned ? Paths::v2h : Paths::h2v)) continue;
    const i64 n = call.states(turned);
    if (n > 0) jobs.job[job++] = {in.k, in.v, next, turned};
    Pass& to = passes.pass[pass];
    to.p = in.q, to.x = in.k, to.w = in.v, to.states = n > 0 ? next : nullptr;
    to.y = layers.data() + pass * call.size(), to.turned = turned;
    ++pass, next += n;
    if (const i64 of_chunks = call.chunk_numbers(turned); of_chunks > 0) {
      chunk_jobs.job[chunk_job++] = {in.k, in.v, to.states, next, turned};
      to.chunks = next, next += of_chunks;
    }
  }
  call.make_states(jobs, job);
  call.make_chunks(chunk_jobs, chunk_job);
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
  const Workspace<float> dsums((both ? 2 : 1) * call.parts * layer_step, Device::cuda);
  const Workspace<bf16> room((both ? 2 : 1) * (call.room(false) + call.room(true)), Device::cuda);
  bf16* next = room.data();
  StateJobs jobs{};
  ChunkJobs chunk_jobs{};
  const i64 passing_step = g.planes * (g.height * call.chunks(false) + g.width * call.chunks(true));
  const Workspace<float> passing((both ? 2 : 1) * call.parts * passing_step, Device::cuda);
  Passes wide{.layer_step = layer_step, .passing_step = passing_step}, narrow{};
  int job = 0, chunk_job = 0, pass = 0, of_v = 0, of_rows[2] = {};
  const bf16* borders[2][2] = {};  // states of keys, and of queries, by `turned`
  float* const result[3] = {layers.data(), layers.data() + (both ? 2 : 1) * size,
                            layers.data() + (both ? 4 : 2) * size};
  const auto prepare = [&](Pass& to) {
    if (call.states(to.turned) > 0) {
      jobs.job[job++] = {to.x, to.w, next, to.turned};
      to.states = next, next += call.states(to.turned);
    }
    if (const i64 n = call.chunk_numbers(to.turned); n > 0) {
      chunk_jobs.job[chunk_job++] = {to.x, to.w, to.states, next, to.turned};
      to.chunks = next, next += n;
    }
  };
  const auto sums_of = [&](Pass& to) {
    int& layer = of_rows[to.turned];
    to.dsums = dsums.data() + layer * layer_step;
    to.passing = passing.data() + layer * passing_step +
                 (to.turned ? g.planes * g.height * call.chunks(false) : 0);
    layer += call.parts;
  };
  int n = 0;
  for (const bool turned : {false, true})  // of queries
    if (paths != (turned ? Paths::v2h : Paths::h2v)) {
      Pass& to_q = wide.pass[pass++];
      to_q = Pass{.p = dy,
                  .x = in.v,
                  .w = in.k,
                  .row = in.q,
                  .y = result[0] + n++ * size,
                  .turned = turned};
      prepare(to_q), sums_of(to_q), borders[0][turned] = to_q.states;
    }
  n = 0;
  for (const bool turned : {false, true})  // of keys: the other path's
    if (paths != (turned ? Paths::h2v : Paths::v2h)) {
      Pass &to_k = wide.pass[pass++], &to_v = narrow.pass[of_v++];
      to_k = Pass{
          .p = in.v, .x = dy, .w = in.q, .row = in.k, .y = result[1] + n * size, .turned = turned};
      prepare(to_k), sums_of(to_k), borders[1][turned] = to_k.states;
      to_v = Pass{.p = in.k,
                  .x = in.q,
                  .w = dy,
                  .states = to_k.states,
                  .chunks = to_k.chunks,
                  .y = result[2] + n++ * size,
                  .turned = turned,
                  .exchanged = true};
    }
  for (int i = 0; i < pass; ++i)
    wide.pass[i].queries = borders[i < n ? 1 : 0][!wide.pass[i].turned];
  call.make_states(jobs, job);
  call.make_chunks(chunk_jobs, chunk_job);
  call.template run<true>(wide, pass);
  call.template run<false>(narrow, of_v);
  call.add({{result[0], result[1], result[2]}, {to.dq, to.dk, to.dv}, {n, n, n}}, 3);
  const i64 lines = g.planes * (g.height + g.width);
  const DecaySums decays{
      dsums.data(), passing.data(), passing_step, {of_rows[0], of_rows[1]}, call.chunk()};
  cuda::launch("linear_attention", decays_back<float>, cuda::blocks(lines, 4), 128, 0, g, decays,
               in.log_alpha, in.log_beta, to.dlog_alpha, to.dlog_beta);
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
