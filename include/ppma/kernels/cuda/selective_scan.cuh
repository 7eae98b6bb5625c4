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

#include "ppma/kernels/cuda/selective_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

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
