#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA by scans on the GPU: the algorithm of kernels/cpu/linear/scan.hpp with a warp for each
// block of 8 x 32 entries (a, c) of the states T: lane = column c, the 8 rows a in registers, the
// states of a grid row in memory. What blocks add to one result goes to a layer of its own, and the
// layers are added in order. Time and memory O(N).

#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cpu/scan.hpp"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_scan_gpu {

inline constexpr int group = 8;  // rows a of a block
inline constexpr i64 slots = group * 32;

// What a warp works on. Decays of its head (H+1, W+1) are 0 where they belong to no edge.
template <class A>
struct Block {
  int height, width, d, a, c;  // first row a; this lane's column c
  i64 stride, at;              // from token to token, and where the head begins
  const A *alpha, *beta;
  A* room;  // of this lane, entries 32 apart

  __device__ const A* alphas(int i) const { return alpha + i * (width + 1); }
  __device__ const A* betas(int i, bool down) const {
    return beta + (down ? i : i + 1) * (width + 1);
  }
  __device__ i64 token(int i, int l) const { return at + static_cast<i64>(i * width + l) * stride; }
  // The states of the grid row's token l, array number `which`.
  __device__ void read(int which, int l, A (&s)[group]) const {
    const A* const p = room + (static_cast<i64>(which) * width + l) * slots;
#pragma unroll
    for (int k = 0; k < group; ++k) s[k] = p[k * 32];
  }
  __device__ void write(int which, int l, const A (&s)[group]) const {
    A* const p = room + (static_cast<i64>(which) * width + l) * slots;
#pragma unroll
    for (int k = 0; k < group; ++k) p[k * 32] = s[k];
  }
  __device__ void clear(int which) const {
    for (int l = 0; l < width; ++l) {
      const A zero[group] = {};
      write(which, l, zero);
    }
  }
  // The block's rows a of a token's vector, the same for all lanes; 0 beyond the head.
  template <class T>
  __device__ void rows(const T* x, i64 token, A (&s)[group]) const {
    if (d % group == 0) {
      constexpr int V = pack_width<T> < group ? pack_width<T> : group;
#pragma unroll
      for (int k = 0; k < group; k += V)
        load_pack<V>(x + token + a + k, reinterpret_cast<A(&)[V]>(s[k]));
    } else {
#pragma unroll
      for (int k = 0; k < group; ++k) s[k] = a + k < d ? A(x[token + a + k]) : A(0);
    }
  }
  template <class T>
  __device__ A column(const T* x, i64 token) const {
    return c < d ? A(x[token + c]) : A(0);
  }
};

// y = x + f s, in place where y is one of them.
template <class A>
__device__ __forceinline__ void plus(const A (&x)[group], A f, const A (&s)[group], A (&y)[group]) {
#pragma unroll
  for (int k = 0; k < group; ++k) y[k] = x[k] + f * s[k];
}
template <class A>
__device__ __forceinline__ void scaled(A f, const A (&s)[group], A (&y)[group]) {
#pragma unroll
  for (int k = 0; k < group; ++k) y[k] = f * s[k];
}
template <class A>
__device__ __forceinline__ A dot(const A (&x)[group], const A (&y)[group]) {
  A sum = 0;
#pragma unroll
  for (int k = 0; k < group; ++k) sum += x[k] * y[k];
  return sum;
}

template <class A, class F>
__device__ __forceinline__ void sweeps(const Block<A>& x, F row) {
  for (int r = 0; r < x.height; ++r) row(r, true);
  for (int r = x.height - 1; r >= 0; --r) row(r, false);
}

// y (of this block's layer) += ((q k^T) * L) v
template <class T, class A = acc_t<T>>
__device__ void forward_v2h(const Block<A>& x, const T* q, const T* k, const T* v, A* y) {
  x.clear(0);
  sweeps(x, [&](int i, bool down) {
    if (!down && i == x.height - 1) x.clear(0);
    const A *const alpha = x.alphas(i), *const beta = x.betas(i, down);
    A s[group], in[group], right[group] = {}, left[group] = {};
    for (int l = 0; l < x.width; ++l) {
      const i64 t = x.token(i, l);
      x.read(0, l, in);
      scaled(beta[l], in, in);
      if (down) {
        x.rows(k, t, s);
        plus(in, x.column(v, t), s, in);
      }
      plus(in, alpha[l], right, right);
      x.write(0, l, in);
      x.rows(q, t, s);
      if (x.c < x.d) y[t + x.c] += dot(s, right);
    }
    for (int l = x.width - 1; l >= 0; --l) {
      const i64 t = x.token(i, l);
      A from_right[group];
      scaled(alpha[l + 1], left, from_right);
      x.read(0, l, in);
      plus(in, A(1), from_right, left);
      if (!down) {
        x.rows(k, t, s);
        plus(in, x.column(v, t), s, in);
        x.write(0, l, in);
      }
      x.rows(q, t, s);
      if (x.c < x.d) y[t + x.c] += dot(s, from_right);
    }
  });
}

// y += ((q k^T) * L^T) v
template <class T, class A = acc_t<T>>
__device__ void forward_h2v(const Block<A>& x, const T* q, const T* k, const T* v, A* y) {
  x.clear(0);
  sweeps(x, [&](int i, bool down) {
    if (!down && i == x.height - 1) x.clear(0);
    const A *const alpha = x.alphas(i), *const beta = x.betas(i, down);
    A s[group], own[group], right[group] = {}, left[group] = {};
    const auto outer = [&](i64 t) { x.rows(k, t, s), scaled(x.column(v, t), s, own); };
    for (int l = 0; l < x.width; ++l) {
      outer(x.token(i, l));
      plus(own, alpha[l], right, right);
      x.write(1, l, right);
    }
    for (int l = x.width - 1; l >= 0; --l) {
      const i64 t = x.token(i, l);
      A from_right[group], now[group], old[group];
      scaled(alpha[l + 1], left, from_right);
      outer(t);
      plus(own, A(1), from_right, left);
      x.read(1, l, now);
      plus(now, A(1), from_right, now);
      x.read(0, l, old);
      plus(now, beta[l], old, now);
      x.write(0, l, now);
      x.rows(q, t, s);
      if (x.c < x.d) y[t + x.c] += down ? dot(s, now) : beta[l] * dot(s, old);
    }
  });
}

// da, dc (n of this head and layer) += the gradients of the horizontal decays, and of the running
// sums of the vertical ones; see decay_gradients_v2h of kernels/cpu/linear/scan.hpp, whose names
// these are.
template <class T, class A = acc_t<T>>
__device__ void decay_gradients_v2h(const Block<A>& x, const T* q, const T* k, const T* v,
                                    const T* dy, A* da, A* dc) {
  constexpr int states = 0, others = 1, before = 2, fs = 3, ss = 4;
  x.clear(states), x.clear(others);
  const bool leads = threadIdx.x % 32 == 0;
  sweeps(x, [&](int i, bool down) {
    if (!down && i == x.height - 1) x.clear(states), x.clear(others);
    const A *const alpha = x.alphas(i), *const beta = x.betas(i, down);
    const A sign = down ? A(1) : A(-1);
    A own[group], r[group], old[group], now[group], f[group] = {}, s[group] = {}, g[group] = {},
                                                    p[group] = {};
    const auto outers = [&](i64 t) {
      x.rows(k, t, own), scaled(x.column(v, t), own, own);
      x.rows(q, t, r), scaled(x.column(dy, t), r, r);
    };
    for (int l = 0; l < x.width; ++l) {
      outers(x.token(i, l));
      x.read(states, l, old);
      scaled(beta[l], old, old);
      plus(old, A(1), own, now);
      if (down)
        plus(now, alpha[l], f, f);
      else
        plus(old, alpha[l], f, f);
      plus(r, alpha[l], s, s);
      x.write(states, l, now), x.write(before, l, old), x.write(fs, l, f), x.write(ss, l, s);
    }
    for (int l = x.width - 1; l >= 0; --l) {
      outers(x.token(i, l));
      A from_right[group], far[group], one[group], two[group];
      x.read(before, l, old);
      scaled(alpha[l + 1], p, from_right);
      if (down)
        x.read(states, l, now), plus(now, alpha[l + 1], g, g);
      else
        plus(old, alpha[l + 1], g, g);
      plus(r, A(1), from_right, p);
      A along = 0;
      if (l > 0)
        x.read(fs, l - 1, one), x.read(ss, l - 1, two),
            along = alpha[l] * (dot(p, one) + dot(g, two));
      x.read(ss, l, one);
      plus(one, A(1), from_right, one);  // dX
      x.read(others, l, far);
      scaled(beta[l], far, far);
      A down_column = sign * (dot(one, old) + dot(own, far));
      plus(far, A(1), one, far);
      x.write(others, l, far);
      along = kernels::detail::sum_lanes(along, 32),
      down_column = kernels::detail::sum_lanes(down_column, 32);
      if (leads) da[i * x.width + l] += along, dc[i * x.width + l] += down_column;
    }
  });
}

// What the kernels of a pass share.
template <class A>
struct Pass {
  AttentionShape x;
  int row_blocks, column_blocks;  // of a head
  const A *alpha, *beta;          // (B G, H+1, W+1)
  A* room;                        // `arrays` rows of states a warp
  int arrays;

  PPMA_HD int blocks() const { return row_blocks * column_blocks; }
  PPMA_HD i64 warps() const { return x.batch * x.heads * blocks(); }
  // Of the warp: its block, the number of its head, and of the block within the head.
  __device__ Block<A> block(i64 warp, i64& head, int& number) const {
    head = warp / blocks(), number = static_cast<int>(warp % blocks());
    const int lane = static_cast<int>(threadIdx.x % 32);
    const i64 edges = (x.height + 1) * (x.width + 1);
    return {static_cast<int>(x.height),
            static_cast<int>(x.width),
            static_cast<int>(x.head_width),
            number / column_blocks * group,
            number % column_blocks * 32 + lane,
            x.channels(),
            head / x.heads * x.tokens() * x.channels() + head % x.heads * x.head_width,
            alpha + head * edges,
            beta + head * edges,
            room + warp * arrays * x.width * slots + lane};
  }
};

template <class A>
__global__ void __launch_bounds__(256)
    edge_decays(i64 total, int height, int width, const A* log_alpha, const A* log_beta, A* alpha,
                A* beta) {
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const int j = static_cast<int>(e % (width + 1)),
              i = static_cast<int>(e / (width + 1) % (height + 1));
    const i64 from = (e / (width + 1) / (height + 1) * height + i) * width + j;
    const bool inside = i < height && j < width;
    alpha[e] = inside && j > 0 ? ::exp(log_alpha[from]) : A(0);
    beta[e] = inside && i > 0 ? ::exp(log_beta[from]) : A(0);
  }
}

// layers (row_blocks, B,H,W,C), zeros before.
template <class T>
__global__ void __launch_bounds__(32) attend(Pass<acc_t<T>> pass, bool v2h, bool h2v, const T* q,
                                             const T* k, const T* v, acc_t<T>* layers) {
  i64 head;
  int number;
  const auto x = pass.block(blockIdx.x, head, number);
  acc_t<T>* const y =
      layers + number / pass.column_blocks * pass.x.batch * pass.x.tokens() * pass.x.channels();
  if (v2h) forward_v2h(x, q, k, v, y);
  if (h2v) forward_h2v(x, q, k, v, y);
}

// layers (blocks, 2, B G, n), zeros before.
template <class T>
__global__ void __launch_bounds__(32)
    decay_gradients(Pass<acc_t<T>> pass, bool v2h, bool h2v, const T* q, const T* k, const T* v,
                    const T* dy, acc_t<T>* layers) {
  i64 head;
  int number;
  const auto x = pass.block(blockIdx.x, head, number);
  const i64 all = pass.x.batch * pass.x.heads * pass.x.tokens();
  acc_t<T>* const da = layers + 2 * number * all + head * pass.x.tokens();
  if (v2h) decay_gradients_v2h(x, q, k, v, dy, da, da + all);
  if (h2v) decay_gradients_v2h(x, k, q, dy, v, da, da + all);
}

}  // namespace ppma::inline PPMA_ABI::kernels::linear_scan_gpu

#include "ppma/core/names_end.hpp"
