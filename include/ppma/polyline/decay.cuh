#pragma once
// The decays on the GPU: one thread a token and head, the weights in shared memory. Floor: x read once, the logs
// written; backward reads x, y and dy once and writes dx.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/column_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T, int V>
__global__ void __launch_bounds__(256) log_decay_forward(DecayShape s, const T* x, const acc_t<T>* w, const acc_t<T>* b, const acc_t<T>* a_log,
                                                         acc_t<T>* y) {
  using A = acc_t<T>;
  extern __shared__ unsigned char room[];
  A* const weight = reinterpret_cast<A*>(room);  // (rows, d)
  for (int i = threadIdx.x; i < s.rows * s.width; i += blockDim.x) weight[i] = w[i];
  __syncthreads();
  const i64 all = s.batch * s.tokens * s.heads;
  for (i64 e = cuda::first(); e < all; e += cuda::stride()) {
    // Neighbouring threads are heads of one token: x is read in order.
    const i64 g = e % s.heads, token = e / s.heads;
    const T* const from = x + token * s.channels() + g * s.width;
    A z0 = b[g], z1 = b[g];
    for (i64 c = 0; c < s.width; c += V) {
      A v[V];
      load_pack<V>(from + c, v);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        z0 += weight[c + i] * v[i];
        if (s.rows == 2) z1 += weight[s.width + c + i] * v[i];
      }
    }
    const A a = ::exp(a_log[g]);
    const i64 image = token / s.tokens, at = (image * s.heads + g) * s.tokens + token % s.tokens;
    y[at] = -a * softplus_of(z0);
    if (s.rows == 2) y[s.batch * s.heads * s.tokens + at] = -a * softplus_of(z1);
  }
}

// One warp a head and piece of tokens: lane = channel of the head (in turns of 32), so that dw needs no exchange.
// partial (pieces, heads, rows * d + 2): dw, db, dA_log of a head.
template <class T>
__global__ void __launch_bounds__(128) log_decay_backward_pieces(DecayShape s, i64 pieces, i64 length, const T* x, const acc_t<T>* w, const acc_t<T>* a_log,
                                                                 const acc_t<T>* y, const acc_t<T>* dy, T* dx, acc_t<T>* partial) {
  using A = acc_t<T>;
  const int lane = threadIdx.x % 32;
  const i64 unit = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (unit >= pieces * s.heads) return;
  const i64 g = unit % s.heads, piece = unit / s.heads, all = s.batch * s.tokens;
  const i64 begin = piece * length, end = ::min(all, begin + length), plane = s.batch * s.heads * s.tokens;
  const A a = ::exp(a_log[g]);
  A* const sum = partial + unit * (s.rows * s.width + 2);
  A db = 0, da = 0;
  for (i64 c = lane; c < s.width || c - lane < s.width; c += 32) {
    const bool here = c < s.width;
    const A w0 = here ? w[c] : A(0), w1 = here && s.rows == 2 ? w[s.width + c] : A(0);
    A dw0 = 0, dw1 = 0;
    for (i64 first = begin; first < end; first += 32) {
      // Lane t works out dz of token first + t; then all lanes need each of them.
      const i64 mine = first + lane;
      A dz0 = 0, dz1 = 0;
      if (mine < end) {
        const i64 at = (mine / s.tokens * s.heads + g) * s.tokens + mine % s.tokens;
        // ln decay = -A softplus(z):  dz = -A sigmoid(z) u, and sigmoid(z) = 1 - e^-softplus
        dz0 = a * ::expm1(y[at] / a) * dy[at];
        if (s.rows == 2) dz1 = a * ::expm1(y[plane + at] / a) * dy[plane + at];
        if (c == lane) {
          db += dz0 + dz1;
          da += dy[at] * y[at] + (s.rows == 2 ? dy[plane + at] * y[plane + at] : A(0));
        }
      }
      const int count = static_cast<int>(::min(static_cast<i64>(32), end - first));
      for (int t = 0; t < count; ++t) {
        const A u0 = __shfl_sync(0xffffffffu, dz0, t), u1 = __shfl_sync(0xffffffffu, dz1, t);
        if (!here) continue;
        const i64 at = (first + t) * s.channels() + g * s.width + c;
        const A v = A(x[at]);
        dw0 += u0 * v;
        dw1 += u1 * v;
        dx[at] = T(u0 * w0 + u1 * w1);
      }
    }
    if (here) {
      sum[c] = dw0;
      if (s.rows == 2) sum[s.width + c] = dw1;
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    db += __shfl_xor_sync(0xffffffffu, db, step);
    da += __shfl_xor_sync(0xffffffffu, da, step);
  }
  if (lane == 0) sum[s.rows * s.width] = db, sum[s.rows * s.width + 1] = da;
}

// Sums over pieces are (heads, rows d + 2); dw is also summed over the heads, in order.
template <class A>
__global__ void log_decay_parameters(i64 heads, i64 weights, const A* total, A* dw, A* db, A* da) {
  for (i64 i = cuda::first(); i < weights; i += cuda::stride()) {
    A sum = 0;
    for (i64 g = 0; g < heads; ++g) sum += total[g * (weights + 2) + i];
    dw[i] = sum;
  }
  for (i64 g = cuda::first(); g < heads; g += cuda::stride()) db[g] = total[g * (weights + 2) + weights], da[g] = total[g * (weights + 2) + weights + 1];
}

}  // namespace detail

template <class T>
void log_decay(Cuda, const DecayShape& s, const T* x, const acc_t<T>* w, const acc_t<T>* b, const acc_t<T>* a_log, acc_t<T>* y) {
  const i64 all = s.batch * s.tokens * s.heads;
  const auto room = static_cast<std::size_t>(s.rows * s.width) * sizeof(acc_t<T>);
  check(room <= 48 * 1024, "log_decay: a head of ", s.width, " channels is too wide for the GPU");
  const auto run = [&](auto v) {
    detail::log_decay_forward<T, decltype(v)::value><<<cuda::blocks(all, 256), 256, room, cuda::stream()>>>(s, x, w, b, a_log, y);
  };
  if (s.width % pack_width<T> == 0) run(std::integral_constant<int, pack_width<T>>{});
  else run(std::integral_constant<int, 1>{});
  cuda::launched("log_decay");
}

template <class T>
void log_decay_backward(Cuda, const DecayShape& s, const T* x, const acc_t<T>* w, const acc_t<T>* a_log, const acc_t<T>* y, const acc_t<T>* dy, T* dx,
                        acc_t<T>* dw, acc_t<T>* db, acc_t<T>* da_log) {
  using A = acc_t<T>;
  const i64 all = s.batch * s.tokens;
  if (all == 0) return;
  const i64 length = std::max<i64>(32, (all + 2047) / 2048 + 31) / 32 * 32, pieces = (all + length - 1) / length;
  const i64 sums = s.rows * s.width + 2;
  const Workspace<A> partial(pieces * s.heads * sums, Device::cuda), total(s.heads * sums, Device::cuda);
  detail::log_decay_backward_pieces<<<static_cast<unsigned>((pieces * s.heads + 3) / 4), 128, 0, cuda::stream()>>>(s, pieces, length, x, w, a_log, y, dy,
                                                                                                                   dx, partial.data());
  cuda::launched("log_decay");
  detail::finish_columns(pieces, s.heads * sums, static_cast<const A*>(partial.data()), detail::PutSum<A>{total.data()}, "log_decay");
  detail::log_decay_parameters<<<1, 256, 0, cuda::stream()>>>(s.heads, sums - 2, static_cast<const A*>(total.data()), dw, db, da_log);
  cuda::launched("log_decay");
}

}  // namespace ppma::inline PPMA_ABI::kernels
