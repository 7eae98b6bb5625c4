#pragma once
#include "ppma/core/names_begin.hpp"
// Gradients of the log decays on the GPU, a tile of tokens at a time. Threads are used twice: first
// as neighbouring tokens of one head, so that y and dy are read in whole lines, and each slope dz
// is made once; the slopes go to shared memory, where the same threads find them as packs of
// neighbouring channels of a token, so that x and dx move in whole lines as well. The next tile's y
// and dy are on their way meanwhile, and its x as soon as the registers are free.
//
// Floor: x, y and dy read once, dx written. 56 x 56 tokens of 4 heads of 16 bf16 channels, batch
// 128, at 4.3 TB/s: 30 us.

#include "ppma/kernels/cuda/decay.cuh"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/norm.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// sigmoid(t) from s = softplus(t): 1 - e^-s, a series where s is small; within 5e-6 of it, for
/// results that are rounded to bf16.
__device__ __forceinline__ float sigmoid_fast(float s) {
  const float small = s * (1 - s * 0.5f * (1 - s * (1.f / 3) * (1 - s * 0.25f)));
  return s < 0.0625f ? small : 1 - exp2_fast(-1.44269504f * s);
}
/// dz = -A sigmoid(z) u = -A (1 - e^-softplus) u, from log = ln decay = -A softplus(z) and 1 / A.
template <class T>
__device__ __forceinline__ acc_t<T> ordinary_slope(acc_t<T> a, acc_t<T> inverse, acc_t<T> log,
                                                   acc_t<T> u) {
  if constexpr (std::is_same_v<T, bf16>)
    return -a * sigmoid_fast(-log * inverse) * u;
  else
    return a * ::expm1(log * inverse) * u;
}

/// dx, and of each block the sums for the parameters: partial (blocks, rows width + 2 heads) is dw,
/// db, dA_log. 256 threads; `images` divides by d.tokens. Sums are made in the same order at each
/// run.
template <class T, int V, int H, int rows>
__global__ void __launch_bounds__(256, 2)
    log_decay_back_tiles(DecayPlace d, DivideBy images, const T* x, const acc_t<T>* w,
                         const acc_t<T>* a_log, const acc_t<T>* y, const acc_t<T>* dy, T* dx,
                         acc_t<T>* partial) {
  using A = acc_t<T>;
  constexpr int at_once = decay_results / rows, mine = decay_results / H;
  // Slopes (rows, heads, pitch) of a tile: at most 8 256 / H, and the gaps.
  constexpr int slopes = (2048 + 512) / H, room = 256 * (V + 1);
  __shared__ A shared[2 * slopes > room ? 2 * slopes : room];
  const int at = static_cast<int>(threadIdx.x), pack = at % d.packs, slot = at / d.packs,
            head = pack / H, j = pack % H, tile = d.slots * at_once;
  // What a warp reads at once, 32 / packs tokens (or one) of its heads, is in different banks.
  const int pitch = tile + (d.packs < 32 ? 32 / d.packs : 1);
  // The same thread as one of a head's: its results are tokens i, i + share, ... of alpha, then of
  // beta.
  const int share = d.slots * H, i_of_head = at % share, own = at / share;
  const bool works = at < d.packs * d.slots;
  A weight[rows][V], dw[rows][V] = {}, db = 0, da = 0;
#pragma unroll
  for (int r = 0; r < rows; ++r) load_pack<V>(w + r * d.width + j * V, weight[r]);
  const A a = ::exp(a_log[works ? own : 0]), inverse = A(1) / a;
  const bool ordinary = ordinary_decay(a);

  RawElements<T, V> raw[at_once];
  A log[mine], u[mine];
  const auto row_of = [&](int k) { return rows == 2 && i_of_head + share * k >= tile ? 1 : 0; };
  const auto fetch_logs = [&](int first) {
#pragma unroll
    for (int k = 0; k < mine; ++k) {
      const int r = row_of(k), token = first + i_of_head + share * k - r * tile;
      log[k] = u[k] = 0;
      if (!works || token >= d.all) continue;
      const int image = images(token) * d.tokens;  // its first token
      const int line = (r * d.all + image) * d.heads + own * d.tokens + token - image;
      log[k] = y[line], u[k] = dy[line];
    }
  };
  int first = static_cast<int>(blockIdx.x) * tile;
  const int step = static_cast<int>(gridDim.x) * tile;
  fetch_logs(first);
  load_tokens(raw, d, x, works, first + slot, pack);
  for (int turn = 0; first < d.all; first += step, turn ^= 1) {
    A* const dz = shared + turn * slopes;  // the other is still read
    if (works)
#pragma unroll
      for (int k = 0; k < mine; ++k) {
        const int r = row_of(k), local = i_of_head + share * k - r * tile;
        const A z =
            ordinary ? ordinary_slope<T>(a, inverse, log[k], u[k]) : extreme_slope(a, log[k], u[k]);
        db += z, da += decay_term(log[k], u[k]);
        dz[(r * d.heads + own) * pitch + local] = z;
      }
    const bool more = d.all - first > step;
    if (more) fetch_logs(first + step);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < at_once; ++e) {
      const int local = e * d.slots + slot, token = first + local;
      if (!works || token >= d.all) continue;
      A v[V], g[V] = {};
      load_pack<V>(reinterpret_cast<const T*>(&raw[e]), v);
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        const A z = dz[(r * d.heads + head) * pitch + local];
#pragma unroll
        for (int i = 0; i < V; ++i) g[i] += z * weight[r][i], dw[r][i] += z * v[i];
      }
      store_pack<V>(dx + (token * d.packs + pack) * V, g);
    }
    if (more) load_tokens(raw, d, x, works, first + step + slot, pack);
  }

  // Over the threads that hold the same channel of a head: 32 / H lanes a channel.
  A* const sums = partial + blockIdx.x * static_cast<i64>(rows * d.width + 2 * d.heads);
  constexpr int lanes_each = 32 / H;
  const int holders = d.slots * d.heads, c = at / lanes_each, lane = at % lanes_each;
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < V; ++i) shared[at * (V + 1) + i] = dw[r][i];
    __syncthreads();
    if (c >= H * V) continue;  // whole warps
    A sum = 0;
    for (int h = lane; h < holders; h += lanes_each)
      sum += shared[(h * H + c / V) * (V + 1) + c % V];
    sum = sum_lanes(sum, lanes_each);
    if (lane == 0) sums[r * d.width + c] = sum;
  }
  __syncthreads();
  shared[2 * at] = db, shared[2 * at + 1] = da;
  __syncthreads();
  for (int g = at / 32; g < d.heads; g += 8) {
    A sum_b = 0, sum_a = 0;
    for (int i = at % 32; i < share; i += 32)
      sum_b += shared[2 * (g * share + i)], sum_a += shared[2 * (g * share + i) + 1];
    sum_b = sum_lanes(sum_b, 32), sum_a = sum_lanes(sum_a, 32);
    if (at % 32 == 0) sums[rows * d.width + g] = sum_b, sums[rows * d.width + d.heads + g] = sum_a;
  }
}

// Any sizes: a thread a token and head for dx, a block a sum for the parameters.
template <class T>
__device__ __forceinline__ acc_t<T> decay_slope(const DecayShape& s, i64 r, i64 token, i64 g,
                                                const acc_t<T>* a_log, const acc_t<T>* y,
                                                const acc_t<T>* dy) {
  const i64 at = ((r * s.batch + token / s.tokens) * s.heads + g) * s.tokens + token % s.tokens;
  const acc_t<T> a = ::exp(a_log[g]);
  return ordinary_decay(a) ? a * ::expm1(y[at] / a) * dy[at] : extreme_slope(a, y[at], dy[at]);
}
template <class T>
__global__ void __launch_bounds__(256)
    log_decay_dx_any(DecayShape s, const acc_t<T>* w, const acc_t<T>* a_log, const acc_t<T>* y,
                     const acc_t<T>* dy, T* dx) {
  for (i64 e = cuda::first(); e < s.batch * s.tokens * s.heads; e += cuda::stride()) {
    const i64 g = e % s.heads, token = e / s.heads;
    const acc_t<T> z0 = decay_slope<T>(s, 0, token, g, a_log, y, dy),
                   z1 = s.rows == 2 ? decay_slope<T>(s, 1, token, g, a_log, y, dy) : acc_t<T>(0);
    for (i64 c = 0; c < s.width; ++c)
      dx[e * s.width + c] = T(z0 * w[c] + (s.rows == 2 ? z1 * w[s.width + c] : acc_t<T>(0)));
  }
}
// Block n < rows width: dw[n]; then db, then dA_log, one head a block.
template <class T>
__global__ void __launch_bounds__(256)
    log_decay_sums_any(DecayShape s, const T* x, const acc_t<T>* a_log, const acc_t<T>* y,
                       const acc_t<T>* dy, ColumnPlaces<acc_t<T>> to) {
  using A = acc_t<T>;
  __shared__ A shared[256];
  const i64 n = blockIdx.x, weights = s.rows * s.width, all = s.batch * s.tokens;
  A sum = 0;
  for (i64 token = threadIdx.y; token < all; token += 256) {
    if (n < weights) {
      for (i64 g = 0; g < s.heads; ++g)
        sum += decay_slope<T>(s, n / s.width, token, g, a_log, y, dy) *
               static_cast<A>(x[(token * s.heads + g) * s.width + n % s.width]);
      continue;
    }
    const i64 g = (n - weights) % s.heads;
    for (i64 r = 0; r < s.rows; ++r) {
      const i64 at = ((r * s.batch + token / s.tokens) * s.heads + g) * s.tokens + token % s.tokens;
      sum += n < weights + s.heads ? decay_slope<T>(s, r, token, g, a_log, y, dy)
                                   : decay_term(y[at], dy[at]);
    }
  }
  sum = sum_block_rows<A, 256>(sum, shared);
  if (threadIdx.y == 0) to.put(n, sum);
}

}  // namespace detail

template <class T>
void log_decay_backward(Cuda, const DecayShape& s, const T* x, const acc_t<T>* w,
                        const acc_t<T>* a_log, const acc_t<T>* y, const acc_t<T>* dy, T* dx,
                        acc_t<T>* dw, acc_t<T>* db, acc_t<T>* da_log) {
  using A = acc_t<T>;
  if (s.batch * s.tokens == 0) return;
  const i64 sums = s.rows * s.width + 2 * s.heads;
  const detail::ColumnPlaces<A> to(dw, s.rows * s.width, db, s.heads, da_log);
  const bool done = detail::with_decay_constants<T>(s, [&](auto v, auto h, auto r) {
    constexpr int V = decltype(v)::value, H = decltype(h)::value, rows = decltype(r)::value;
    const detail::DecayPlace d(s, V);
    // as many as run at once: each ends with sums over its threads
    const unsigned pieces = std::min(d.blocks(rows), 2u * 132u);
    auto partial = std::make_unique<const Workspace<A>>(pieces * sums, Device::cuda);
    detail::log_decay_back_tiles<T, V, H, rows><<<pieces, 256, 0, cuda::stream()>>>(
        d, detail::DivideBy(s.tokens), x, w, a_log, y, dy, dx, partial->data());
    cuda::launched("log_decay");
    detail::finish_columns_later(std::move(partial), pieces, sums, to, "log_decay");
  });
  if (done) return;
  detail::
      log_decay_dx_any<<<cuda::blocks(s.batch * s.tokens * s.heads, 256), 256, 0, cuda::stream()>>>(
          s, w, a_log, y, dy, dx);
  detail::log_decay_sums_any<<<static_cast<unsigned>(sums), dim3(1, 256), 0, cuda::stream()>>>(
      s, x, a_log, y, dy, to);
  cuda::launched("log_decay");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
