#pragma once
#include "ppma/core/names_begin.hpp"
// 3 x 3 convolutions of bf16 images on the tensor cores, of few channels: the weights stay in
// registers.
//
// A group of warps walks down the rows of two columns of 8 output pixels, each warp for 16 T output
// channels. The rows that they see come into a ring in shared memory, three rows ahead. What a row
// gives to the three (with stride 2, one or two) output rows that see it is added to their sums, so
// that each pixel is read three times, once for each column of taps.
//
// Floor: one product m16n8k16 in about 6.4 cycles of a multiprocessor's quarter on an H200. Read
// straight from L1 the pixels were not there in time: its hits wait behind its misses.

#include "ppma/kernels/cuda/conv_columns.cuh"
#include "ppma/kernels/cuda/fast_gelu.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns {

// Where the pixels of 8 columns' taps lie: those of even and of odd places in the row apart, if the
// stride is 2, so that neighbouring output pixels see neighbouring entries of a ring's row. Of more
// than 32 channels those of every other entry are exchanged with the next 32, for the banks' sake.
// Each of the `parts` of a pixel's channels has CI of them and lies by itself.
template <int CI, int S, int parts>
struct Ring {
  static constexpr int rows = 4, pixels = 7 * S + 3, entry = CI <= 32 ? 64 : 128,  // bytes
      column = pixels * entry, part = 2 * column, row = parts * part, packs = parts * CI / 8,
                       all = 2 * pixels * packs;
  static __device__ __forceinline__ constexpr int place(int pixel) {
    return S == 1 ? pixel : pixel % 2 * 9 + pixel / 2;
  }
  static __device__ __forceinline__ constexpr int at(int place, int pack) {
    return place * entry + (entry == 64 ? pack : pack ^ place % 2 * 4) * 16;
  }
};

// A group's threads wait for each other.
template <int warps>
__device__ __forceinline__ void meet(int group) {
  if constexpr (warps == 1)
    __syncwarp();
  else
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(warps * 32) : "memory");
}

// The walk of a group of `warps` down the rows of its columns.
template <int CI, int S, int T, int warps, int parts>
struct Walk {
  using R = Ring<CI, S, parts>;
  // A column of taps kx is read in units of 32 channels, or at once.
  static constexpr int U = CI % 32 == 0 ? CI / 32 : 1, part = words<CI> / U, threads = warps * 32,
                       turns = (R::all + threads - 1) / threads;
  LeftFactors<CI, T> weight;
  unsigned pixels[3][2][part];
  unsigned char* ring;
  const bf16* from[turns];  // what this thread brings of the row fetched next
  int into[turns];          // where to; the complement, where there is nothing
  int even, odd;            // this lane's pixel and channels in an entry of an even, an odd place
  int group, left, row, fetched;  // rows to fetch, and the slots of the next to use and to fetch

  __device__ __forceinline__ Walk(unsigned char* memory, int group_, int part_of)
      : ring(memory), group(group_) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, q = lane % 4;
    even = R::at(g, q) + part_of * R::part, odd = R::at(g + 1, q) - R::entry + part_of * R::part;
  }
  // Begins a task with `rows` rows of input from row y on.
  __device__ __forceinline__ void begin(const Map& m, int task, const bf16* x, int y, int rows) {
    meet<warps>(group);
    const int thread = static_cast<int>(threadIdx.x) % threads;
#pragma unroll
    for (int k = 0; k < turns; ++k) {
      const int chunk = thread + k * threads, i = chunk / (R::pixels * R::packs),
                pixel = chunk / R::packs % R::pixels, pack = chunk % R::packs,
                index = task / m.pieces * 2 + i, column = ::min(index, m.columns - 1),
                px = column % m.across * 8 * S - 1 + pixel;
      const bool there = index < m.columns && px >= 0 && px < m.w;
      from[k] = x +
                ((static_cast<i64>(column / m.across) * m.h + y) * m.w + (there ? px : 0)) *
                    (CI * parts) +
                pack * 8;
      into[k] = pack / (CI / 8) * R::part + i * R::column + R::at(R::place(pixel), pack % (CI / 8));
      if (!there) into[k] = ~into[k];
    }
    left = rows, row = fetched = 0;
#pragma unroll
    for (int k = 0; k < R::rows - 1; ++k) fetch(m);
  }
  __device__ __forceinline__ void fetch(const Map& m) {
    if (left > 0) {
#pragma unroll
      for (int k = 0; k < turns; ++k)
        if (turns * threads == R::all ||
            static_cast<int>(threadIdx.x) % threads + k * threads < R::all) {
          const bool there = into[k] >= 0;
          unsigned char* const to = ring + fetched * R::row + (there ? into[k] : ~into[k]);
          copy_async(reinterpret_cast<bf16*>(to), from[k], there);
          from[k] += m.w * (CI * parts);
        }
    }
    copies_issued();
    --left, fetched = (fetched + 1) % R::rows;
  }
  template <int unit>
  __device__ __forceinline__ void read() {
    constexpr int kx = unit / U, tap = R::place(kx), u = unit % U;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const unsigned char* const at = ring + row * R::row + i * R::column + tap * R::entry;
      unsigned(&to)[part] = pixels[unit % 3][i];
      const uint4 v = *reinterpret_cast<const uint4*>(at + ((tap + u) % 2 == 0 ? even : odd));
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
      if constexpr (part > 4) {  // the last 16 channels: in the other half of an entry
        const int q = static_cast<int>(threadIdx.x) % 4;
        const uint2 w = *reinterpret_cast<const uint2*>(at + (tap % 2 == 0 ? odd : even) - q * 8);
        to[4] = w.x, to[5] = w.y;
      }
    }
  }
  template <int unit>
  __device__ __forceinline__ void use(int ky, Sums<T>& acc) const {
    constexpr int kx = unit / U, first = unit % U * part / 2;
#pragma unroll
    for (int s = 0; s < part / 2; ++s)
#pragma unroll
      for (int t = 0; t < T; ++t)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          multiply(acc[t][i], weight[ky * 3 + kx][t][first + s], pixels[unit % 3][i][2 * s],
                   pixels[unit % 3][i][2 * s + 1]);
  }
  // Adds a row to the sums of the rows that see it as their tap 0, 1 and 2.
  template <bool first, bool second, bool third>
  __device__ __forceinline__ void step(const Map& m, Sums<T>& acc0, Sums<T>& acc1, Sums<T>& acc2) {
    copies_done<R::rows - 2>();
    meet<warps>(group);
    fetch(m);
    read<0>(), read<1>(), read<2>();
    each<3 * U>([&](auto index) {
      constexpr int unit = decltype(index)::value;
      if constexpr (first) use<unit>(0, acc0);
      if constexpr (second) use<unit>(1, acc1);
      if constexpr (third) use<unit>(2, acc2);
      if constexpr (unit + 3 < 3 * U) read<unit + 3>();
    });
    row = (row + 1) % R::rows;
  }
};

// Where a lane's results go: pixels 2 q and 2 q + 1 of both columns, 2 T channels each.
struct Places {
  bf16* to[2];
  bool there[2][2];

  __device__ __forceinline__ Places(const Map& m, int task, bf16* out, int row, int channel) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int index = task / m.pieces * 2 + i, column = ::min(index, m.columns - 1),
                px = column % m.across * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
      to[i] =
          out + ((static_cast<i64>(column / m.across) * m.oh + row) * m.ow + px) * m.n + channel;
#pragma unroll
      for (int e = 0; e < 2; ++e) there[i][e] = index < m.columns && px + e < m.ow;
    }
  }
  // F(sums + shift) to their places, and a row on.
  template <class F, int T>
  __device__ __forceinline__ void put(const Map& m, const Sums<T>& acc,
                                      const float (&shift)[2 * T]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if (!there[i][e]) continue;
        float v[2 * T];
#pragma unroll
        for (int c = 0; c < 2 * T; ++c) v[c] = F::value(acc[c / 2][i][c % 2 * 2 + e] + shift[c]);
        store_pack<2 * T>(to[i] + e * m.n, v);
      }
      to[i] += m.ow * m.n;
    }
  }
};

// out (images, oh, ow, n) = F(x (images, h, w, parts CI) * w (n, 9, parts CI) + bias); `groups` of
// `warps` a block. Of several parts each has a warp of its own, and the first adds what the others
// have.
template <int CI, int S, int T, int warps, int groups, int blocks, int parts, class F>
__global__ void __launch_bounds__(warps* groups * 32, blocks)
    convolve(Map m, const bf16* x, const bf16* w, const bf16* bias, bf16* out) {
  static_assert(parts == 1 || S == 2);  // then rows lie between two that are put
  using R = Ring<CI, S, parts>;
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
            group = warp / warps, part = warp % parts,
            slice = static_cast<int>(blockIdx.y) * (warps / parts) + warp % warps / parts;
  Walk<CI, S, T, warps, parts> walk(memory + group * (R::rows * R::row), group, part);
  load_weights<CI, T>(walk.weight, w + part * CI, parts * CI, slice);
  const int channel = (slice * 8 + lane / 4) * 2 * T;
  float shift[2 * T];
#pragma unroll
  for (int i = 0; i < 2 * T; ++i) shift[i] = bias ? static_cast<float>(bias[channel + i]) : 0;
  cuda::wait();
  float* const others = reinterpret_cast<float*>(memory + groups * (R::rows * R::row)) +
                        warp / parts * (parts - 1) * T * 256 + lane;

  for (int task = static_cast<int>(blockIdx.x) * groups + group; task < m.tasks;
       task += static_cast<int>(gridDim.x) * groups) {
    const int r0 = task % m.pieces * m.rows, r1 = ::min(m.oh, r0 + m.rows),
              y0 = ::max(r0 * S - 1, 0), y1 = ::min((r1 - 1) * S + 2, m.h);  // rows of x
    walk.begin(m, task, x, y0, y1 - y0);
    Places places(m, task, out, r0, channel);
    const auto put = [&](Sums<T>& acc) {
      if constexpr (parts > 1) {
#pragma unroll
        for (int i = 0; i < T * 8; ++i)
          if (part > 0) others[((part - 1) * T * 8 + i) * 32] = acc[i / 8][i / 4 % 2][i % 4];
        meet<warps>(group);
        if (part > 0) return;
#pragma unroll
        for (int i = 0; i < (parts - 1) * T * 8; ++i)
          acc[i / 8 % T][i / 4 % 2][i % 4] += others[i * 32];
      }
      places.template put<F>(m, acc, shift);
    };
    Sums<T> upper, middle, lower;
    clear(upper), clear(middle), clear(lower);
    if constexpr (S == 1) {
      if (r0 > 0) walk.template step<true, false, false>(m, middle, middle, middle);
      for (int r = r0; r < r1; ++r) {
        walk.template step<true, true, true>(m, lower, middle, upper);
        if (r > r0) put(upper);
        copy(upper, middle), copy(middle, lower), clear(lower);
      }
      if (r1 < m.h) walk.template step<false, false, true>(m, upper, upper, upper);
      put(upper);
    } else {
      if (r0 > 0) walk.template step<true, false, false>(m, upper, upper, upper);
      for (int r = r0; r < r1; ++r) {
        walk.template step<false, true, false>(m, upper, upper, upper);
        if (2 * r + 1 < m.h) walk.template step<true, false, true>(m, lower, lower, upper);
        put(upper);
        copy(upper, lower), clear(lower);
      }
    }
  }
}

/// How the work on `parts` times CI channels is shared out: T times 16 output channels a warp,
/// `warps` in a group, `groups` in a block and `blocks` on a multiprocessor.
template <int CI_, int S_, int T_, int warps_, int groups_, int blocks_, int parts_ = 1>
struct Plan {
  using R = Ring<CI_, S_, parts_>;
  static constexpr int CI = CI_, S = S_, T = T_, warps = warps_, groups = groups_, blocks = blocks_,
                       parts = parts_, channels = 16 * T * warps / parts,
                       threads = warps * groups * 32,
                       bytes = groups * (R::rows * R::row + warps / parts * (parts - 1) * T * 1024);
  static bool takes(const ConvMap& m) {
    return m.ci == CI * parts && m.stride == S && m.co % channels == 0 && m.co <= 8 * channels;
  }
};

/// Calls f with the plan for a map. False: there is none.
template <class F>
bool with_plan(const ConvMap& m, F&& f) {
  const auto tried = [&](auto plan) { return plan.takes(m) && (f(plan), true); };
  return fits(m) && (tried(Plan<32, 1, 2, 1, 4, 2>{}) || tried(Plan<32, 2, 2, 2, 2, 2>{}) ||
                     tried(Plan<48, 2, 1, 6, 1, 2>{}) || tried(Plan<64, 1, 1, 4, 1, 2>{}) ||
                     tried(Plan<64, 2, 1, 4, 1, 2>{}) || tried(Plan<48, 2, 1, 12, 1, 1, 2>{}) ||
                     tried(Plan<64, 2, 1, 8, 1, 1, 2>{}));
}

/// The convolution, with GELU behind it or not. False: none of these kernels takes it.
inline bool run(const ConvMap& m, const bf16* x, const ConvWeights<bf16>& weights, const bf16* bias,
                bf16* out, bool gelu) {
  return with_plan(m, [&](auto p) {
    using P = decltype(p);
    const unsigned down = static_cast<unsigned>(m.co / P::channels),
                   across = std::max(1U, grid(P::blocks) / down);
    const Map map = map_of(m.batch, m.h, m.w, m.co, P::S, i64{across} * P::groups);
    const ByTaps w(m.co, m.ci, weights);
    const auto kernel =
        gelu ? convolve<P::CI, P::S, P::T, P::warps, P::groups, P::blocks, P::parts, FastGelu>
             : convolve<P::CI, P::S, P::T, P::warps, P::groups, P::blocks, P::parts, AsItIs>;
    cuda::launch("conv2d", kernel, dim3(across, down), P::threads, P::bytes, map, x, w.data(), bias,
                 out);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns

#include "ppma/core/names_end.hpp"
