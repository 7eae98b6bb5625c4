#pragma once
#include "ppma/core/names_begin.hpp"
// Backward of the selective scan on the GPU. Tiles are walked from the last one back:
//
//   p_t = C_t dy_t + (decay p) of the token below        of h
//   q_t = p_t      + (decay q) of the token to the right of g, the input
//
// A tile's states are scanned again from what forward kept before it; then q, the other way round,
// as g was. Gradients of B and C are sums over channels: lanes add those of a block, and each block
// writes a part of its own, to be added up in order.

#include "ppma/kernels/cuda/selective_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// Sums of V values over C neighbouring lanes; the lane of channel c has that of value c / (C / V).
template <int V, int C, class T>
__device__ __forceinline__ T selective_sums(T (&v)[V], int channel) {
  int step = C / 2;
#pragma unroll
  for (int half = V / 2; half >= 1; half /= 2, step /= 2) {
    const bool upper = (channel & step) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const T sent = upper ? v[i] : v[i + half], own = upper ? v[i + half] : v[i];
      v[i] = own + __shfl_xor_sync(0xffffffffu, sent, step);
    }
  }
#pragma unroll
  for (; step >= 1; step /= 2) v[0] += __shfl_xor_sync(0xffffffffu, v[0], step);
  return v[0];
}

template <class T, class Lanes, bool grid>
__global__ void __launch_bounds__(32 * selective_warps, 1)
    selective_scan_tiles_back(SelectiveShape s, SelectiveArgs<T> x, SelectivePlan plan,
                              const acc_t<T>* kept, const T* dy, SelectiveGradients<T> d) {
  using A = acc_t<T>;
  constexpr int S = Lanes::states, L = selective_piece, C = Lanes::channels;
  constexpr int together = 4 / S;  // tokens whose sums over channels are taken at once
  extern __shared__ __align__(16) unsigned char memory[];
  const SelectivePlace<T, Lanes> me(s, x, plan);
  const int of_all = plan.pieces * Lanes::numbers, of_block = static_cast<int>(me.line % C);
  const i64 tokens = s.height * s.width;
  T *const du = d.du + me.of_channels, *const ddt = d.ddt + me.of_channels;
  const i64 part = (me.block * s.batch + me.image) * tokens * s.states;
  A da[S] = {}, dd[1] = {}, behind[S] = {}, below[grid ? L : 1][S] = {};
  for (i64 tile = plan.tiles - 1; tile >= 0; --tile) {
    const SelectivePiece piece(s, plan, tile, me.piece);
    const auto kept_at = [&](i64 row, int l) {
      return kept +
             ((blockIdx.x * plan.tiles + row) * plan.tile + me.piece * L + l) * Lanes::numbers +
             me.line * S;
    };
    A u[L], dt[L], up[L], decay[L][S], left[L][S], product[S], run[S] = {}, g[S] = {};
#pragma unroll
    for (int k = 0; k < S; ++k) product[k] = A(1);
#pragma unroll
    for (int l = 0; l < L; ++l) {
      const bool here = l < piece.n;
      dt[l] = me.step_of(x, piece.token[l], here);
      u[l] = me.channel_of(x.u, piece.token[l], here);
      up[l] = me.channel_of(dy, piece.token[l], here);
#pragma unroll
      for (int k = 0; k < S; ++k) decay[l][k] = selective_exp2(dt[l] * me.a[k]);
    }
    if constexpr (!grid)
      load_pack<S>(kept + ((blockIdx.x * plan.tiles + tile) * Lanes::lines + me.line) * S, run);
    A* const room = reinterpret_cast<A*>(memory) + tile % 2 * 3 * of_all;
    const SelectiveShared<A, Lanes> ends{room, me.line}, products{room + of_all, me.line},
        ends_back{room + 2 * of_all, me.line};
    // g before each token: what a piece makes from 0, and then from what comes to it
    const auto scan = [&](bool last) {
#pragma unroll
      for (int l = 0; l < L; ++l) {
        A b[S];
        me.states_of(x.b, piece.token[l], b);
#pragma unroll
        for (int k = 0; k < S; ++k) {
          if (last) left[l][k] = g[k];
          g[k] = decay[l][k] * g[k] + dt[l] * u[l] * b[k];
          if (!last) product[k] *= decay[l][k];
        }
      }
    };
    if (plan.pieces > 1) {
      scan(false);
      ends.put(me.piece, g), products.put(me.piece, product);
      __syncthreads();
      selective_run<A, Lanes>(ends, products, plan.pieces, me.piece, 1, run, g);
    } else {
#pragma unroll
      for (int k = 0; k < S; ++k) g[k] = run[k];
    }
    scan(true);
    // q behind each piece
    A right[S] = {};
    if (plan.pieces > 1) {
#pragma unroll
      for (int l = L - 1; l >= 0; --l) {
        A c[S];
        me.states_of(x.c, piece.token[l], c);
#pragma unroll
        for (int k = 0; k < S; ++k) {
          const A p = up[l] * c[k] + (grid ? below[grid ? l : 0][k] : A(0));
          right[k] = decay[l][k] * (p + right[k]);
        }
      }
      ends_back.put(me.piece, right);
      __syncthreads();
      if (grid) {
#pragma unroll
        for (int k = 0; k < S; ++k) behind[k] = 0;
      }
      selective_run<A, Lanes>(ends_back, products, plan.pieces, me.piece, -1, behind, right);
    } else if (!grid) {
#pragma unroll
      for (int k = 0; k < S; ++k) right[k] = behind[k];
    }
    A sums[2 * S * together];  // of db, dc of a token's states, tokens together
#pragma unroll
    for (int l = L - 1; l >= 0; --l) {
      const bool here = l < piece.n;
      A b[S], c[S], above[S] = {}, of_u = me.d * up[l], of_dt = 0;
      dd[0] += up[l] * u[l];
      me.states_of(x.b, piece.token[l], b);
      me.states_of(x.c, piece.token[l], c);
      if (grid && tile > 0 && here) load_pack<S>(kept_at(tile - 1, l), above);
#pragma unroll
      for (int k = 0; k < S; ++k) {
        const A input = dt[l] * u[l];
        const A p = up[l] * c[k] + (grid ? below[grid ? l : 0][k] : A(0)), q = p + right[k];
        const A before = decay[l][k] * left[l][k], from_above = decay[l][k] * above[k];
        const A of_decay = q * before + p * from_above;  // of dt a
        da[k] += of_decay * dt[l];
        of_dt += of_decay * (me.a[k] * A(0.6931471805599453)) + q * u[l] * b[k];
        of_u += q * dt[l] * b[k];
        sums[l % together * 2 * S + k] = q * input;
        sums[l % together * 2 * S + S + k] = up[l] * (before + from_above + input * b[k]);
        right[k] = decay[l][k] * q;
        if (grid) below[grid ? l : 0][k] = decay[l][k] * p;
      }
#pragma unroll
      for (int step = C; step < Lanes::lines; step *= 2) {
        of_u += __shfl_xor_sync(0xffffffffu, of_u, step);
        of_dt += __shfl_xor_sync(0xffffffffu, of_dt, step);
      }
      if (here && me.there && me.group == 0) {
        const int at = piece.token[l] * me.channels;
        if (x.softplus) of_dt *= selective_slope(dt[l], T());
        du[at] = T(d.add ? A(du[at]) + of_u : of_u), ddt[at] = T(of_dt);
      }
      if (l % together == 0) {
        const A sum = selective_sums<2 * S * together, C>(sums, of_block);
        const int value = of_block / (C / (2 * S * together)), which = value / (2 * S);
        int token = piece.token[l];
#pragma unroll
        for (int j = 1; j < together; ++j)
          if (which == j) token = piece.token[l + j];
        const int k = value % S;
        if (of_block % (C / (2 * S * together)) == 0 && l + which < piece.n)
          (value / S % 2 == 0 ? d.db : d.dc)[part + token * me.states + me.group * S + k] = sum;
      }
    }
    if (!grid && plan.pieces == 1) {
#pragma unroll
      for (int k = 0; k < S; ++k) behind[k] = right[k];
    }
  }
  // da and dd of all pieces, in order
  using One = SelectiveLanes<1, Lanes::groups, C>;
  const SelectiveShared<A, Lanes> parts{reinterpret_cast<A*>(memory), me.line};
  const SelectiveShared<A, One> more_parts{parts.room + of_all, me.line};
  __syncthreads();
  parts.put(me.piece, da), more_parts.put(me.piece, dd);
  __syncthreads();
  if (me.piece != 0 || !me.there) return;
  for (int j = 1; j < plan.pieces; ++j) {
    A more[S], one[1];
    parts.get(j, more), more_parts.get(j, one);
    dd[0] += one[0];
#pragma unroll
    for (int k = 0; k < S; ++k) da[k] += more[k];
  }
  if (me.group == 0) d.dd[me.image * s.channels + me.channel] = dd[0];
#pragma unroll
  for (int k = 0; k < S; ++k)
    d.da[(me.image * s.channels + me.channel) * s.states + me.group * S + k] = da[k];
}

}  // namespace detail

/// In how many parts the gradients of b and c come.
template <class T>
i64 selective_scan_parts(Cuda, const SelectiveShape& s) {
  return detail::with_selective_lanes<T>(
      s, [&](auto lanes) { return detail::selective_plan<decltype(lanes)>(s).blocks; });
}

/// Its gradients, from dy of y's shape and what forward kept.
template <class T>
void selective_scan_backward(Cuda, const SelectiveShape& s, const SelectiveArgs<T>& x,
                             const acc_t<T>* kept, const T* dy, const SelectiveGradients<T>& d) {
  detail::with_selective_lanes<T>(s, [&](auto lanes) {
    using Lanes = decltype(lanes);
    const auto plan = detail::selective_plan<Lanes>(s);
    const int bytes = 6 * plan.pieces * Lanes::numbers * static_cast<int>(sizeof(acc_t<T>));
    const auto run = [&](auto kernel) {
      if (bytes > 48 * 1024) detail::allow_shared(kernel, bytes, "selective_scan");
      kernel<<<static_cast<unsigned>(s.batch * plan.blocks), static_cast<unsigned>(32 * plan.warps),
               static_cast<std::size_t>(bytes), cuda::stream()>>>(s, x, plan, kept, dy, d);
    };
    if (s.height > 1)
      run(detail::selective_scan_tiles_back<T, Lanes, true>);
    else
      run(detail::selective_scan_tiles_back<T, Lanes, false>);
  });
  cuda::launched("selective_scan");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
