#pragma once
#include "ppma/core/names_begin.hpp"
// The first half of the network's feed-forward layer on few images, bf16, nothing recorded:
// z = conv(h) + b + h with h = GELU(LN(x) w1^T + b1), conv the depthwise 3 x 3 convolution.
//
// A block has a tile of an image and a slice of the hidden channels: it normalises the tile's
// tokens and those that its results see beside it, multiplies, and has h in shared memory alone.
// Tokens at a tile's edge are computed by its neighbour too; in return there is one launch instead
// of two or three, and no trip to memory between the product and the convolution. All blocks run at
// once, one a multiprocessor.
//
// Weights are parameters: a block fetches them before the kernel ahead is done (cuda::launch()).
//
// Floor: x read by each of its slices, from L2, and z written. 8 images of 14 x 14 x 256: 7 MB
// read, 2.4 written, 0.7 GFLOP with the edges, which leaves a launch and two trips to memory.

#include <algorithm>

#include "ppma/kernels/cuda/convolve_tile.cuh"
#include "ppma/kernels/cuda/copy_async.cuh"
#include "ppma/kernels/cuda/normed_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels {

/// What hidden_map reads and writes. C channels, a power of two; 3 C hidden ones.
struct HiddenMap {
  int h, w;       // of a map
  const bf16* x;  // (B, h, w, C)
  const float *gamma, *beta;
  float eps;
  const bf16 *w1, *b1;    // (3 C, C), (3 C)
  const float *taps, *b;  // (3 C, 3, 3), (3 C)
  bf16* z;                // (B, h, w, 3 C)
};

namespace detail::feed_forward {

/// Tiles of TH x TW results, which see at most 16 MT tokens: as many warps, each with its 16 tokens
/// in registers; NT hidden channels, of which a warp has the sums of NC at a time.
template <int C_, int TH_, int TW_, int MT_, int NT_, int NC_>
struct Plan {
  static constexpr int C = C_, TH = TH_, TW = TW_, MT = MT_, NT = NT_, NC = NC_, threads = 32 * MT,
                       hidden = 3 * C, pitch = C + 32, pitch_h = NT + 8;
  static constexpr int bytes = (NT * pitch + 16 * MT * pitch_h) * 2 + (2 * C + NT * 10) * 4;
  static_assert(hidden % NT == 0 && NT % NC == 0);

  static i64 blocks(i64 images, i64 h, i64 w) {
    return images * (h / TH) * (w / TW) * (hidden / NT);
  }
  /// Whether maps h x w are whole tiles.
  static bool fits(i64 h, i64 w) {
    const i64 lines = std::min<i64>(h, h / TH == 2 ? TH + 1 : TH + 2),
              columns = std::min<i64>(w, w / TW == 2 ? TW + 1 : TW + 2);
    return h % TH == 0 && w % TW == 0 && lines * columns <= 16 * MT;
  }
};

// Parameters of the hidden channels from n0 on: w1; gamma, beta, taps, b.
template <class P>
__device__ __forceinline__ void fetch(const HiddenMap& p, int n0, bf16* w, float* floats) {
  constexpr int packs = P::C / 8;
  for (int i = static_cast<int>(threadIdx.x); i < P::NT * packs; i += P::threads)
    copy_async(w + i / packs * P::pitch + i % packs * 8, p.w1 + n0 * P::C + i * 8, true);
  const auto copy = [&](float* to, const float* from, int n) {
    for (int i = static_cast<int>(threadIdx.x) * 4; i < n; i += P::threads * 4)
      copy_async(to + i, from + i, true);
  };
  copy(floats, p.gamma, P::C), copy(floats + P::C, p.beta, P::C);
  copy(floats + 2 * P::C, p.taps + n0 * 9, P::NT * 9);
  copy(floats + 2 * P::C + P::NT * 9, p.b + n0, P::NT);
}

// A warp's 16 tokens, of those that the tile sees.
template <class P>
__device__ __forceinline__ void load(NormedRows<P::C>& rows, const HiddenMap& p, const MapTile& t,
                                     int first) {
  const bf16* const image = p.x + static_cast<i64>(blockIdx.z) * p.h * p.w * P::C;
  const bf16* from[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int token = first + static_cast<int>(threadIdx.x) % 32 / 4 + r * 8, line = token / t.wide;
    from[r] = token < t.pixels() ? image + ((t.y + line) * p.w + t.x + token - line * t.wide) * P::C
                                 : nullptr;
  }
  rows.load(from);
}

// h of a warp's tokens, channels n0 .. n0 + NC of the slice, in shared memory.
template <class P>
__device__ __forceinline__ void hidden(const NormedRows<P::C>& rows, const bf16* w,
                                       const bf16* bias, int first, int n0, bf16* h) {
  constexpr int N = P::NC / 8, G = dealt<N>;
  const int lane = static_cast<int>(threadIdx.x) % 32, at = n0 + lane % 4 * 2 * G;
  float c[N][4] = {}, shift[N / G][2 * G];
#pragma unroll
  for (int i = 0; i < N / G; ++i) load_pack<2 * G>(bias + at + i * 8 * G, shift[i]);
  rows.template multiply_by<P::pitch>(w + n0 * P::pitch, c);
#pragma unroll
  for (int i = 0; i < N / G; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float v[2 * G];
#pragma unroll
      for (int e = 0; e < 2 * G; ++e)
        v[e] = FastGelu::value(c[i * G + e / 2][2 * r + e % 2] + shift[i][e]);
      store_pack<2 * G>(h + (first + lane / 4 + r * 8) * P::pitch_h + at + i * 8 * G, v);
    }
}

/// Grid: slices of NT hidden channels, tiles of an image, images.
template <class P>
__global__ void __launch_bounds__(P::threads, 1) hidden_map(HiddenMap p) {
  extern __shared__ __align__(16) unsigned char memory[];
  bf16 *const w = reinterpret_cast<bf16*>(memory), *const h = w + P::NT * P::pitch;
  float *const norm = reinterpret_cast<float*>(h + 16 * P::MT * P::pitch_h), *const taps =
                                                                                 norm + 2 * P::C;
  const int first = static_cast<int>(threadIdx.x) / 32 * 16,
            n0 = static_cast<int>(blockIdx.x) * P::NT, across = p.w / P::TW,
            tile = static_cast<int>(blockIdx.y);
  fetch<P>(p, n0, w, norm);
  copies_issued();
  const MapTile t(tile / across * P::TH, tile % across * P::TW, P::TH, P::TW, 1, p.h, p.w);
  cuda::wait();
  NormedRows<P::C> rows;
  load<P>(rows, p, t, first);
  copies_done<0>();
  __syncthreads();
  rows.normalise(norm, norm + P::C, p.eps);
#pragma unroll 1
  for (int n = 0; n < P::NT; n += P::NC) hidden<P>(rows, w, p.b1 + n0, first, n, h);
  __syncthreads();
  bf16* const out =
      p.z + ((static_cast<i64>(blockIdx.z) * p.h + t.y0) * p.w + t.x0) * P::hidden + n0;
  convolve_tile<3, P::TH, P::TW, P::NT, P::pitch_h, P::threads>(
      t, h, taps, taps + P::NT * 9, true, [&](int c, int line, int col, const float(&v)[2]) {
        store_pack<2>(out + (line * p.w + col) * P::hidden + c, v);
      });
}

/// Runs the kernel of a plan.
template <class P>
void run(const HiddenMap& p, i64 images) {
  allow_shared(hidden_map<P>, P::bytes, "feed_forward");
  cuda::launch("feed_forward", hidden_map<P>,
               dim3(P::hidden / P::NT, static_cast<unsigned>(p.h / P::TH * (p.w / P::TW)),
                    static_cast<unsigned>(images)),
               P::threads, P::bytes, p);
}

/// f(plan) with the tiles for c channels: the fastest of those tried on an H200 for eight images of
/// 224 x 224. False: there are none.
template <class F>
bool with_plan(i64 c, F&& f) {
  if (c == 64) return f(Plan<64, 7, 28, 17, 192, 64>{}), true;
  if (c == 128) return f(Plan<128, 7, 28, 16, 96, 48>{}), true;
  if (c == 256) return f(Plan<256, 7, 14, 7, 96, 96>{}), true;
  if (c == 512) return f(Plan<512, 7, 7, 4, 96, 32>{}), true;
  return false;
}

}  // namespace detail::feed_forward

/// Whether hidden_map takes images of h x w x c, and gains: its blocks are one wave that fills more
/// than three quarters of the multiprocessors. Of one image the kernels that it stands for use more
/// of them; of many the edges that are computed twice cost more than the launches.
inline bool maps_hidden(i64 images, i64 h, i64 w, i64 c) {
  bool gains = false;
  detail::feed_forward::with_plan(c, [&](auto plan) {
    using P = decltype(plan);
    const cudaDeviceProp& gpu = cuda::device();
    const i64 blocks = P::blocks(images, h, w);
    gains = P::fits(h, w) && blocks <= gpu.multiProcessorCount &&
            4 * blocks > 3 * gpu.multiProcessorCount &&
            P::bytes <= static_cast<i64>(gpu.sharedMemPerBlockOptin);
  });
  return gains;
}
/// The hidden map of images that maps_hidden takes.
inline void hidden_map(Cuda, const HiddenMap& p, i64 images, i64 c) {
  detail::feed_forward::with_plan(
      c, [&](auto plan) { detail::feed_forward::run<decltype(plan)>(p, images); });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
