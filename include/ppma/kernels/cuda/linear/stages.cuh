#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores: what a block of warps reads, place by place, on its way along
// 16 lines (the idea of the whole is in tensor.cuh). Places come in stages, of which three wait in
// shared memory: one is read while two are fetched. What a thread fetches of a stage is in the next
// one P places further, so addresses are found once.

#include "ppma/kernels/cuda/linear/states.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

/// One pass: queries p, whose result goes to y; tokens x, w of the states; `row` is what D takes.
struct Pass {
  const bf16 *p, *x, *w, *row;
  const bf16* states;
  const bf16* chunks;   // states of chunks of lines; null where a line is one chunk
  const bf16* queries;  // states of p, row at chunks' borders: those of the other kind of lines
  float* y;             // layer (B,H,W,C)
  float* dsums;         // layers (parts, 2, planes, tokens), of every `layer_step`
  float* passing;       // layers (parts, ..) of every `passing_step`: (planes, lines, chunks)
  bool turned;
  bool exchanged;  // states and chunks are those of w, x
};
struct Passes {
  Pass pass[4];
  i64 layer_step, passing_step;
};

inline constexpr int mix_warps = 8, mix_threads = 32 * mix_warps;
/// Places of a stage.
template <int D>
inline constexpr int stage_places = D <= 32 ? 4 : 2;

/// Of each place: two states' rows of a part, x and w of the lines, and their sums.
template <int D>
struct alignas(16) Stage {
  static constexpr int R = part_of<D>, P = stage_places<D>;
  bf16 states[P][2][R * D];  // pieces of 8 x 8
  bf16 x[P][block_lines * tile_stride<D>], w[P][block_lines * tile_stride<R>];
  float sums[P][block_lines];
};

/// 4 bytes to shared memory, in the background; zeros where not `there`.
__device__ __forceinline__ void copy_async_word(float* to, const float* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(detail::shared_address(to)),
               "l"(from), "r"(there ? 4 : 0));
}

/// A block's lines, of which each thread fetches the same of each stage, up to place `end`.
template <int D>
struct Fetch {
  using To = Stage<D>;
  static constexpr int R = To::R, P = To::P;
  const bf16 *states, *x, *w;
  const float* across;  // sums along the crossings
  int end, step, channel_step, state_at;
  int x_at, w_at, sum_at;  // of place 0; -1: zeros

  __device__ __forceinline__ Fetch(const Grid& g, const Lines& s, const Pass& pass, i64 plane,
                                   int block, int part, int end_, const float* sums)
      : states(pass.states == nullptr
                   ? nullptr
                   : pass.states + (plane * s.blocks() + block) * s.length * (2 * D * D)),
        x(pass.x + g.first_of(plane)),
        w(pass.w + g.first_of(plane)),
        across(sums + (pass.turned ? 0 : g.all()) + plane * g.tokens()),
        end(end_),
        step(s.step),
        channel_step(s.step * g.channels()) {
    const int thread = static_cast<int>(threadIdx.x), first_line = block * block_lines;
    const int piece = thread / 8 % (R * D / 64), row = part * (R / 8) + piece / (D / 8),
              column = piece % (D / 8);
    state_at =
        (pass.exchanged ? column * (D / 8) + row : row * (D / 8) + column) * 64 + thread % 8 * 8;
    const auto token_at = [&](int line, int channel) {
      return first_line + line < s.count && channel < g.d
                 ? (first_line + line) * s.line_step * g.channels() + channel
                 : -1;
    };
    x_at = token_at(thread / (D / 8) % block_lines, thread % (D / 8) * 8);
    w_at = token_at(thread / (R / 8) % block_lines, part * R + thread % (R / 8) * 8);
    sum_at = first_line + thread % block_lines < s.count
                 ? (first_line + thread % block_lines) * s.line_step
                 : -1;
  }

  /// Begins to copy the places from `first` on, where there are any.
  __device__ __forceinline__ void operator()(To& to, int first) const {
    const int thread = static_cast<int>(threadIdx.x);
    if (states != nullptr) {
      constexpr int pieces = R * D / 8, each = 2 * P * pieces / mix_threads;
#pragma unroll
      for (int i = 0; i < each; ++i) {
        const int n = thread / pieces + i * (mix_threads / pieces), state = first * 2 + n;
        if (state < 2 * end)
          detail::copy_async_once(&to.states[0][0][(thread + i * mix_threads) * 8],
                                  states + state * (D * D) + state_at);
      }
    }
    fetch_tiles<D>(to.x, x, x_at, first);
    fetch_tiles<R>(to.w, w, w_at, first);
    const int n = thread / block_lines;
    if (n < P && first + n < end)
      copy_async_word(&to.sums[n][thread % block_lines],
                      across + (sum_at < 0 ? 0 : sum_at + (first + n) * step), sum_at >= 0);
    detail::copies_issued();
  }

 private:
  template <int C>
  __device__ __forceinline__ void fetch_tiles(bf16 (&to)[P][block_lines * tile_stride<C>],
                                              const bf16* from, int at, int first) const {
    constexpr int pieces = block_lines * C / 8;  // of a tile
    static_assert(P * pieces <= mix_threads);
    const int thread = static_cast<int>(threadIdx.x), n = thread / pieces;
    if (n < P && first + n < end)
      detail::copy_async(
          &to[n][thread / (C / 8) % block_lines * tile_stride<C> + thread % (C / 8) * 8],
          from + (at < 0 ? 0 : at + (first + n) * channel_step), at >= 0);
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::linear_tensor

#include "ppma/core/names_end.hpp"
