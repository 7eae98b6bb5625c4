#pragma once
#include "ppma/core/names_begin.hpp"
// The selective scan on the GPU; formulas: ops/selective_scan.hpp. States of E S numbers a token
// stay in registers.
//
// A block owns some channels of one image and walks over its tokens tile by tile; a tile is a row
// of a grid, or a part of a sequence. Within a tile a thread has `piece` tokens of one channel and
// some of its states. It scans them from 0, leaves what came out and by how much they decay, and
// takes what the pieces before it make of these:
//
//   end of piece k   run_k = P_k run_k-1 + F_k     F: scanned from 0, P: product of its decays
//
// Then it scans once more from run_k-1, with the decays it has. The row above is in registers too:
// a thread's columns are the same in each row.
//
// Lanes of a warp are channels (side by side, as they lie in memory), groups of states, and pieces.
// For backward a sequence keeps the states before each tile, and a grid the states of its tokens.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int selective_piece = 8;         // tokens of a thread and tile
inline constexpr int selective_warps = 16;        // of a block, at most
inline constexpr i64 selective_fills = 132 * 32;  // warps that keep a GPU's memory busy

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
           s.batch * blocks * warps < selective_fills)
      warps *= 2;
  const i64 tile = s.height > 1 ? s.width : warps * of_warp;
  return {static_cast<int>(warps), static_cast<int>(warps) * Lanes::pieces, tile,
          (tokens + tile - 1) / tile, blocks};
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

/// kept: null, or for backward.
template <class T, class Lanes, bool grid>
__global__ void __launch_bounds__(32 * selective_warps, 1)
    selective_scan_tiles(SelectiveShape s, SelectiveArgs<T> x, SelectivePlan plan, T* y,
                         acc_t<T>* kept) {
  using A = acc_t<T>;
  constexpr int S = Lanes::states, L = selective_piece;
  extern __shared__ __align__(16) unsigned char memory[];
  const SelectivePlace<T, Lanes> me(s, x, plan);
  const int of_all = plan.pieces * Lanes::numbers;
  T* const out = y + me.of_channels;
  A carry[S] = {}, above[grid ? L : 1][S] = {}, u[L], dt[L];
  const auto load = [&](const SelectivePiece& piece) {
#pragma unroll
    for (int l = 0; l < L; ++l) {
      dt[l] = me.step_of(x, piece.token[l], l < piece.n);
      u[l] = me.channel_of(x.u, piece.token[l], l < piece.n);
    }
  };
  constexpr bool early = S == 1;  // there are registers for the next tile
  if (early) load(SelectivePiece(s, plan, 0, me.piece));
  for (i64 tile = 0; tile < plan.tiles; ++tile) {
    const SelectivePiece piece(s, plan, tile, me.piece);
    A input[L], decay[L][S], end[S] = {}, product[S];
#pragma unroll
    for (int k = 0; k < S; ++k) product[k] = A(1);
    if (!early) load(piece);
#pragma unroll
    for (int l = 0; l < L; ++l) {
      input[l] = dt[l] * u[l];
#pragma unroll
      for (int k = 0; k < S; ++k) decay[l][k] = selective_exp2(dt[l] * me.a[k]);
    }
    if (early && tile + 1 < plan.tiles) load(SelectivePiece(s, plan, tile + 1, me.piece));
    if (!grid && kept != nullptr && me.piece == 0)
      store_pack<S>(kept + ((blockIdx.x * plan.tiles + tile) * Lanes::lines + me.line) * S, carry);
    A g[S] = {};
    if (plan.pieces > 1) {
#pragma unroll
      for (int l = 0; l < L; ++l) {
        A b[S];
        me.states_of(x.b, piece.token[l], b);
#pragma unroll
        for (int k = 0; k < S; ++k) {
          end[k] = decay[l][k] * end[k] + input[l] * b[k];
          product[k] *= decay[l][k];
        }
      }
      // two sets in turn: one barrier a tile is enough
      A* const room = reinterpret_cast<A*>(memory) + tile % 2 * 2 * of_all;
      const SelectiveShared<A, Lanes> ends{room, me.line}, products{room + of_all, me.line};
      ends.put(me.piece, end), products.put(me.piece, product);
      __syncthreads();
      if (grid) {
#pragma unroll
        for (int k = 0; k < S; ++k) carry[k] = 0;
      }
      selective_run<A, Lanes>(ends, products, plan.pieces, me.piece, 1, carry, g);
    } else if (!grid) {
#pragma unroll
      for (int k = 0; k < S; ++k) g[k] = carry[k];
    }
#pragma unroll
    for (int l = 0; l < L; ++l) {
      const bool here = l < piece.n;
      A b[S], c[S], sum = me.d * me.channel_of(x.u, piece.token[l], here);
      if (x.add != nullptr && me.group == 0) sum += me.channel_of(x.add, piece.token[l], here);
      me.states_of(x.b, piece.token[l], b);
      me.states_of(x.c, piece.token[l], c);
#pragma unroll
      for (int k = 0; k < S; ++k) {
        g[k] = decay[l][k] * g[k] + input[l] * b[k];
        if (grid) above[grid ? l : 0][k] = decay[l][k] * above[grid ? l : 0][k] + g[k];
        sum += c[k] * (grid ? above[grid ? l : 0][k] : g[k]);
      }
      if (grid && kept != nullptr && here)
        store_pack<S>(
            kept +
                ((blockIdx.x * plan.tiles + tile) * plan.tile + me.piece * L + l) * Lanes::numbers +
                me.line * S,
            above[grid ? l : 0]);
#pragma unroll
      for (int step = Lanes::channels; step < Lanes::lines; step *= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
      if (here && me.there && me.group == 0) out[piece.token[l] * me.channels] = T(sum);
    }
    if (!grid && plan.pieces == 1) {
#pragma unroll
      for (int k = 0; k < S; ++k) carry[k] = g[k];
    }
  }
}

/// f(lanes) with those for a shape. Where the image's channels are too few to fill the GPU, more
/// lanes are pieces.
template <class T, class F>
auto with_selective_lanes(const SelectiveShape& s, F f) {
  if (s.states > 8) return f(SelectiveLanes<4, 4, 8>{});
  if (s.states > 4) return f(SelectiveLanes<4, 2, 8>{});
  if (s.states > 1) return f(SelectiveLanes<4, 1, 8>{});
  if constexpr (sizeof(T) <= 4)
    if (s.height == 1 && s.batch * s.channels >= 132 * 32) return f(SelectiveLanes<1, 1, 32>{});
  return f(SelectiveLanes<1, 1, 8>{});
}

}  // namespace detail

/// How many states a kernel for these has: 1, 4, 8 or 16. Others are filled up with such as stay 0.
inline i64 selective_scan_states(Cuda, i64 states) {
  return states == 1 ? 1 : states <= 4 ? 4 : states <= 8 ? 8 : 16;
}

/// Whether there is a kernel for a shape; and of how many numbers what the scan keeps for backward
/// is.
template <class T>
bool selective_scan_fits(Cuda, const SelectiveShape& s) {
  const i64 tokens = s.height * s.width, most = (i64{1} << 31) - 1;
  return s.states <= 16 && tokens * std::max(s.channels, s.states) <= most &&
         detail::with_selective_lanes<T>(s, [&](auto lanes) {
           const auto plan = detail::selective_plan<decltype(lanes)>(s);
           return plan.warps <= detail::selective_warps && s.batch * plan.blocks <= most;
         });
}
template <class T>
i64 selective_scan_kept(Cuda, const SelectiveShape& s) {
  return detail::with_selective_lanes<T>(s, [&](auto lanes) {
    const auto plan = detail::selective_plan<decltype(lanes)>(s);
    return s.batch * plan.blocks * decltype(lanes)::numbers *
           (s.height > 1 ? s.height * s.width : plan.tiles);
  });
}

/// y (batch,tokens,channels); kept: null, or selective_scan_kept() numbers.
template <class T>
void selective_scan(Cuda, const SelectiveShape& s, const SelectiveArgs<T>& x, T* y,
                    acc_t<T>* kept) {
  detail::with_selective_lanes<T>(s, [&](auto lanes) {
    using Lanes = decltype(lanes);
    const auto plan = detail::selective_plan<Lanes>(s);
    const int bytes =
        plan.pieces > 1 ? 4 * plan.pieces * Lanes::numbers * static_cast<int>(sizeof(acc_t<T>)) : 0;
    const auto run = [&](auto kernel) {
      if (bytes > 48 * 1024) detail::allow_shared(kernel, bytes, "selective_scan");
      kernel<<<static_cast<unsigned>(s.batch * plan.blocks), static_cast<unsigned>(32 * plan.warps),
               static_cast<std::size_t>(bytes), cuda::stream()>>>(s, x, plan, y, kept);
    };
    if (s.height > 1)
      run(detail::selective_scan_tiles<T, Lanes, true>);
    else
      run(detail::selective_scan_tiles<T, Lanes, false>);
  });
  cuda::launched("selective_scan");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
