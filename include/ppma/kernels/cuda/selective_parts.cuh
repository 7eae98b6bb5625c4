#pragma once
#include "ppma/core/names_begin.hpp"
// What the kernels of the selective scan and of its gradient share (selective_scan.cuh has the
// idea): how a scan is cut, a thread's place in it, and what pieces leave for each other.

#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int selective_piece = 8;   // tokens of a thread and tile
inline constexpr int selective_warps = 16;  // of a block, at most
/// Warps that keep the GPU's memory busy.
inline i64 selective_fills() { return 32 * cuda::device().multiProcessorCount; }

/// What the lanes of a warp are.
template <int states_, int groups_, int channels_>
struct SelectiveLanes {
  static constexpr int states = states_;           // of a thread
  static constexpr int groups = groups_;           // of states
  static constexpr int channels = channels_;       // of a block
  static constexpr int lines = groups * channels;  // threads that share a token
  static constexpr int pieces = 32 / lines;        // of a warp
  static constexpr int numbers = states * lines;   // of a state of all channels of a block
};

/// How a scan is cut.
struct SelectivePlan {
  int warps, pieces;  // of a block
  i64 tile, tiles;    // tokens of one, and how many
  i64 blocks;         // of channels
};

template <class Lanes>
SelectivePlan selective_plan(const SelectiveShape& s) {
  const i64 tokens = s.height * s.width,
            blocks = (s.channels + Lanes::channels - 1) / Lanes::channels;
  constexpr i64 of_warp = Lanes::pieces * selective_piece;
  i64 warps = 1;
  if (s.height > 1)
    warps = (s.width + of_warp - 1) / of_warp;
  else
    while (warps < selective_warps && warps * of_warp < tokens &&
           s.batch * blocks * warps < selective_fills())
      warps *= 2;
  const i64 tile = s.height > 1 ? s.width : warps * of_warp;
  return {static_cast<int>(warps), static_cast<int>(warps) * Lanes::pieces, tile,
          (tokens + tile - 1) / tile, blocks};
}

/// f(lanes) with those for a shape. Where the image's channels are too few to fill the GPU, more
/// lanes are pieces.
template <class T, class F>
auto with_selective_lanes(const SelectiveShape& s, F f) {
  if (s.states > 8) return f(SelectiveLanes<4, 4, 8>{});
  if (s.states > 4) return f(SelectiveLanes<4, 2, 8>{});
  if (s.states > 1) return f(SelectiveLanes<4, 1, 8>{});
  if constexpr (sizeof(T) <= 4)
    if (s.height == 1 && s.batch * s.channels >= selective_fills())
      return f(SelectiveLanes<1, 1, 32>{});
  return f(SelectiveLanes<1, 1, 8>{});
}

/// 2^x.
__device__ __forceinline__ float selective_exp2(float x) { return exp2_fast(x); }
__device__ __forceinline__ double selective_exp2(double x) { return ::exp2(x); }

/// ln(1 + e^x), and the slope of it where its value is y: 1 - e^-y.
__device__ __forceinline__ float selective_softplus(float x, bf16) {
  const float e = __expf(-fabsf(x)), near = e * fmaf(e, fmaf(e, 0.33333333f, -0.5f), 1.0f);
  return fmaxf(x, 0.0f) + (e < 0.02f ? near : __logf(1.0f + e));
}
template <class A>
__device__ __forceinline__ A selective_softplus(A x, A) {
  return softplus_of(x);
}
__device__ __forceinline__ float selective_slope(float y, bf16) { return 1.0f - __expf(-y); }
template <class A>
__device__ __forceinline__ A selective_slope(A y, A) {
  return -::expm1(-y);
}

/// V numbers that nobody writes meanwhile, so that loads need not wait for stores.
template <int V, class T>
__device__ __forceinline__ void selective_load(const T* p, acc_t<T> (&v)[V]) {
  constexpr int bytes = V * static_cast<int>(sizeof(T)), piece = bytes < 16 ? bytes : 16;
  using Raw = typename RawPack<piece>::type;
  alignas(16) T copy[V];
#pragma unroll
  for (int i = 0; i < bytes / piece; ++i)
    reinterpret_cast<Raw*>(copy)[i] = __ldg(reinterpret_cast<const Raw*>(p) + i);
  load_pack<V>(copy, v);
}

/// A thread's place: its channel, its states, its piece of each tile.
template <class T, class Lanes>
struct SelectivePlace {
  static constexpr int S = Lanes::states;
  using A = acc_t<T>;
  int line, group, piece, channels, states;
  bool there;  // has a channel; else reads the last one's
  i64 image, block, channel;
  i64 of_channels, of_states;  // of its image, channel and first state
  A a[S];                      // times log2 e
  A d;                         // of the first group of states, else 0

  __device__ __forceinline__ SelectivePlace(const SelectiveShape& s, const SelectiveArgs<T>& x,
                                            const SelectivePlan& plan) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    line = lane % Lanes::lines, group = line / Lanes::channels;
    piece = static_cast<int>(threadIdx.x / 32) * Lanes::pieces + lane / Lanes::lines;
    channels = static_cast<int>(s.channels), states = static_cast<int>(s.states);
    image = blockIdx.x / plan.blocks, block = blockIdx.x % plan.blocks;
    channel = block * Lanes::channels + line % Lanes::channels, there = channel < s.channels;
    channel = ::min(channel, s.channels - 1);
    const i64 tokens = s.height * s.width;
    of_channels = image * tokens * s.channels + channel;
    of_states = image * tokens * s.states + group * S;
    d = x.d != nullptr && group == 0 ? x.d[channel] : A(0);
#pragma unroll
    for (int k = 0; k < S; ++k)
      a[k] = x.a[channel * s.states + group * S + k] * A(1.4426950408889634);
  }
  /// Of u, dt or dy at a token; 0 where it is not `here`.
  __device__ __forceinline__ A channel_of(const T* p, int token, bool here) const {
    A v[1];
    selective_load<1>(p + of_channels + token * channels, v);
    return here && there ? v[0] : A(0);
  }
  /// A step size; 0 where the token is not `here`.
  __device__ __forceinline__ A step_of(const SelectiveArgs<T>& x, int token, bool here) const {
    const A dt = channel_of(x.dt, token, here);
    return x.softplus && here && there ? selective_softplus(dt, T()) : dt;
  }
  /// Of b or c.
  __device__ __forceinline__ void states_of(const T* p, int token, A (&v)[S]) const {
    selective_load<S>(p + of_states + token * states, v);
  }
};

/// Where the tokens of a piece lie, and how many it has; those behind its last one are it again.
struct SelectivePiece {
  int n, token[selective_piece];

  __device__ __forceinline__ SelectivePiece(const SelectiveShape& s, const SelectivePlan& plan,
                                            i64 tile, int piece) {
    const int first = static_cast<int>(tile * plan.tile) + piece * selective_piece,
              behind = static_cast<int>(::min((tile + 1) * plan.tile, s.height * s.width)),
              line = static_cast<int>(s.walk.line), step = static_cast<int>(s.walk.step),
              line_step = static_cast<int>(s.walk.line_step);
    n = ::max(::min(behind - first, selective_piece), 0);
    const int at = ::min(first, behind - 1);
    int outer = at < line ? 0 : at / line, inner = at - outer * line;
#pragma unroll
    for (int l = 0; l < selective_piece; ++l) {
      token[l] = static_cast<int>(s.walk.first) + outer * line_step + inner * step;
      if (l + 1 < n && ++inner == line) inner = 0, ++outer;
    }
  }
};

/// What pieces leave for each other in shared memory: a number each of (piece,line,state).
template <class A, class Lanes>
struct SelectiveShared {
  static constexpr int S = Lanes::states;
  A* room;
  int line;
  __device__ __forceinline__ void put(int piece, const A (&v)[S]) const {
    store_pack<S>(room + (piece * Lanes::lines + line) * S, v);
  }
  __device__ __forceinline__ void get(int piece, A (&v)[S]) const {
    load_pack<S>(room + (piece * Lanes::lines + line) * S, v);
  }
};

/// run = what comes out of all pieces (`step` 1: from the first on, -1: from the last), from what
/// runs in; `mine` what comes to this thread's.
template <class A, class Lanes>
__device__ __forceinline__ void selective_run(const SelectiveShared<A, Lanes>& ends,
                                              const SelectiveShared<A, Lanes>& products, int pieces,
                                              int piece, int step, A (&run)[Lanes::states],
                                              A (&mine)[Lanes::states]) {
#pragma unroll 4
  for (int j = 0, k = step > 0 ? 0 : pieces - 1; j < pieces; ++j, k += step) {
    A end[Lanes::states], product[Lanes::states];
    ends.get(k, end), products.get(k, product);
#pragma unroll
    for (int i = 0; i < Lanes::states; ++i) {
      if (k == piece) mine[i] = run[i];
      run[i] = product[i] * run[i] + end[i];
    }
  }
}

}  // namespace detail
}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
