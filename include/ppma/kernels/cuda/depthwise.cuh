#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution on the GPU, channels last.
//
// Which kernel does the work: bf16 has kernels of its own (depthwise_stream.cuh,
// depthwise_stream_back.cuh), also for images too few to fill the GPU that way (depthwise_tile.cuh,
// and for fewer depthwise_few.cuh);
// other types and channels walk (depthwise_walk.cuh, depthwise_back.cuh).

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/depthwise_back.cuh"
#include "ppma/kernels/cuda/depthwise_few.cuh"
#include "ppma/kernels/cuda/depthwise_stream_back.cuh"
#include "ppma/kernels/cuda/depthwise_stream_both.cuh"
#include "ppma/kernels/cuda/depthwise_tile.cuh"
#include "ppma/kernels/cuda/depthwise_walk.cuh"
#include "ppma/kernels/cuda/later_sums.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class A>
__global__ void depthwise_pack_kernel(i64 c, i64 k, const A* w, bool turned, A* packed) {
  for (i64 at = cuda::first(); at < c * k * k; at += cuda::stride()) {
    const i64 t = at / c, i = at % c;
    packed[at] = w[i * k * k + (turned ? k * k - 1 - t : t)];
  }
}

// Calls f(V, K, P constants) with the walk for a shape; returns false where there is none.
template <class T, class F>
bool with_walk(const DepthwiseShape& s, F&& f) {
  constexpr int pair = std::is_same_v<T, double> ? 1 : 2;
  const auto k_of = [&](auto v) {
    if (s.k == 3)
      return f(v, std::integral_constant<int, 3>{}, std::integral_constant<int, 4>{}), true;
    if (s.k == 5)
      return f(v, std::integral_constant<int, 5>{}, std::integral_constant<int, 4>{}), true;
    if (s.k == 7)
      return f(v, std::integral_constant<int, 7>{}, std::integral_constant<int, 4>{}), true;
    return false;
  };
  if (s.h * s.w * s.c >= (i64{1} << 31)) return false;
  if (s.k == 11)
    return f(std::integral_constant<int, 1>{}, std::integral_constant<int, 11>{},
             std::integral_constant<int, 2>{}),
           true;
  if (s.c % pair == 0) return k_of(std::integral_constant<int, pair>{});
  return k_of(std::integral_constant<int, 1>{});
}

}  // namespace detail

template <class A>
void depthwise_pack(Cuda, i64 c, i64 k, const A* w, bool turned, A* packed) {
  detail::depthwise_pack_kernel<<<cuda::blocks(c * k * k, 256), 256, 0, cuda::stream()>>>(
      c, k, w, turned, packed);
  cuda::launched("depthwise_conv2d");
}

namespace detail {
/// Results up to which depthwise_few takes over: about where its threads fill the GPU.
inline constexpr i64 few_results = i64{1} << 20;
template <class F, class S>
void run_depthwise_few(const DepthwiseShape& s, const bf16* x, const float* w, bool turned,
                       const float* bias, const bf16* add, const bf16* slope_at, bf16* y) {
  const i64 strips = s.batch * s.h * ((s.w + 1) / 2);
  const dim3 grid(static_cast<unsigned>(s.c / 64), static_cast<unsigned>((strips + 7) / 8));
  const auto run = [&](auto kernel) {
    cuda::launch("depthwise_conv2d", kernel, grid, dim3(32, 8), 0, strips, s.h, s.w, s.c, x, w,
                 turned, bias, add, slope_at, y);
  };
  if (s.k == 3)
    run(depthwise_few<3, F, S>);
  else if constexpr (!F::acts && !S::acts)
    run(depthwise_few<5, F, S>);
}
/// f(constant k) for the k of a shape that streams.
template <class F>
void with_streamed_k(const DepthwiseShape& s, F&& f) {
  if (s.k == 3)
    f(std::integral_constant<int, 3>{});
  else if (s.k == 5)
    f(std::integral_constant<int, 5>{});
  else
    f(std::integral_constant<int, 7>{});
}
/// Runs tiles where they were faster on an H200, of eight images of a network; false: elsewhere.
inline bool run_depthwise_tiles(const DepthwiseShape& s, const bf16* x, const float* w,
                                const float* bias, const bf16* add, bf16* y) {
  const i64 results = s.batch * s.h * s.w * s.c, side = std::min(s.h, s.w);
  if (s.c % 64 != 0 || s.h % 14 != 0 || s.w % 14 != 0 || results <= few_results / 4) return false;
  if (results <= few_results) {
    if (s.k == 3 && side == 14) return run_depthwise_tile<3, 14, 14>(s, x, w, bias, add, y), true;
    if (s.k == 3 && s.h % 4 == 0) return run_depthwise_tile<3, 4, 14>(s, x, w, bias, add, y), true;
    if (s.k == 5 && side > 14) return run_depthwise_tile<5, 7, 7>(s, x, w, bias, add, y), true;
  } else if (results <= 2 * few_results && s.k == 5 && side >= 56) {
    return run_depthwise_tile<5, 7, 14>(s, x, w, bias, add, y), true;
  }
  return false;
}
inline bool is_few(const DepthwiseShape& s) {
  return s.k <= 5 && s.c % 64 == 0 && s.batch * s.h * s.w * s.c <= few_results;
}
}  // namespace detail

/// Whether depthwise_gelu takes this shape and type.
template <class T>
bool fuses_gelu(Cuda, const DepthwiseShape& s) {
  return s.k == 3 && detail::streams<T>(s);
}
/// y = conv(h) + bias + h, h = GELU(u), for a shape that fuses_gelu takes.
inline void depthwise_gelu(Cuda, const DepthwiseShape& s, const bf16* u, const float* w,
                           const float* bias, bf16* y) {
  using detail::AsItIs, detail::FastGelu;
  if (detail::is_few(s))
    detail::run_depthwise_few<FastGelu, AsItIs>(s, u, w, false, bias, u, nullptr, y);
  else
    detail::run_depthwise_stream<3, FastGelu, AsItIs, false>(s, u, w, false, bias, u, nullptr, y);
}
/// du = GELU'(u) (turned conv(dy) + dy).
inline void depthwise_gelu_du(Cuda, const DepthwiseShape& s, const bf16* u, const float* w,
                              const bf16* dy, bf16* du) {
  using detail::AsItIs, detail::FastGelu;
  if (detail::is_few(s))
    detail::run_depthwise_few<AsItIs, FastGelu>(s, dy, w, true, nullptr, dy, u, du);
  else
    detail::run_depthwise_stream<3, AsItIs, FastGelu, false>(s, dy, w, true, nullptr, dy, u, du);
}
/// dw and db from dy and h.
inline void depthwise_gelu_dw(Cuda, const DepthwiseShape& s, const bf16* u, const bf16* dy,
                              float* dw, float* db) {
  detail::run_depthwise_stream_back<3, detail::FastGelu>(s, u, dy,
                                                         detail::tap_places<float>(s.c, 9, dw, db));
}

/// Whether depthwise_gradients takes this shape and type.
template <class T>
bool differentiates_depthwise(const DepthwiseShape& s) {
  return detail::streams<T>(s) && s.k == 3;
}
/// dx (+)= turned conv(dy), and dy where x itself was added (`same`); dw and db.
inline void depthwise_gradients(Cuda, const DepthwiseShape& s, const bf16* x, const bf16* dy,
                                const float* w, bool same, bool accumulate, bf16* dx, float* dw,
                                float* db) {
  detail::run_depthwise_stream_both<3, detail::AsItIs>(s, x, dy, w, same, accumulate ? dx : nullptr,
                                                       dx, detail::tap_places(s.c, 9, dw, db));
}
/// du = GELU'(u) (turned conv(dy) + dy), dw and db from dy and h; du_sums (C), or null: of du.
inline void depthwise_gelu_gradients(Cuda, const DepthwiseShape& s, const bf16* u, const bf16* dy,
                                     const float* w, bf16* du, float* dw, float* db,
                                     float* du_sums) {
  detail::run_depthwise_stream_both<3, detail::FastGelu>(
      s, u, dy, w, true, nullptr, du, detail::tap_places(s.c, 9, dw, db, du_sums));
}

template <class T>
void depthwise(Cuda on, const DepthwiseShape& s, const T* x, const acc_t<T>* w, bool turned,
               const acc_t<T>* bias, const T* add, T* y) {
  using A = acc_t<T>;
  if constexpr (std::is_same_v<T, bf16>)
    if (detail::streams<T>(s)) {
      using detail::AsItIs;
      if (!turned && detail::run_depthwise_tiles(s, x, w, bias, add, y)) return;
      if (detail::is_few(s))
        return detail::run_depthwise_few<AsItIs, AsItIs>(s, x, w, turned, bias, add, nullptr, y);
      return detail::with_streamed_k(s, [&](auto k) {
        constexpr int K = decltype(k)::value;
        if (add && add != x)
          detail::run_depthwise_stream<K, AsItIs, AsItIs, true>(s, x, w, turned, bias, add, nullptr,
                                                                y);
        else
          detail::run_depthwise_stream<K, AsItIs, AsItIs, false>(s, x, w, turned, bias, add,
                                                                 nullptr, y);
      });
    }
  const Workspace<A> storage(s.c * s.k * s.k, Device::cuda);
  depthwise_pack(on, s.c, s.k, w, turned, storage.data());
  const A* const packed = storage.data();
  const bool walked = detail::with_walk<T>(s, [&](auto v, auto k, auto p) {
    constexpr int V = decltype(v)::value, K = decltype(k)::value, P = decltype(p)::value;
    const detail::DepthwiseCut d = detail::depthwise_cut(s, P, V, 200000, 7);
    const i64 units = s.batch * d.chunks * d.strips * (s.c / V);
    detail::depthwise_walk<T, V, K, P>
        <<<static_cast<unsigned>((units + 127) / 128), 128, 0, cuda::stream()>>>(
            units, d, x, packed, bias, add, y);
  });
  if (!walked)
    detail::depthwise_any<<<cuda::blocks(s.batch * s.h * s.w * s.c, 256), 256, 0, cuda::stream()>>>(
        s, x, packed, bias, add, y);
  cuda::launched("depthwise_conv2d");
}

template <class T>
void depthwise_dw(Cuda, const DepthwiseShape& s, const T* x, const T* dy, acc_t<T>* dw,
                  acc_t<T>* db) {
  using A = acc_t<T>;
  const i64 taps = s.k * s.k;
  const detail::ColumnPlaces<A> to = detail::tap_places(s.c, taps, dw, db);
  const auto finish = [&](std::unique_ptr<const Workspace<A>> partial, i64 parts) {
    detail::finish_columns_later(std::move(partial), parts, (taps + 1) * s.c, to,
                                 "depthwise_conv2d");
  };
  if constexpr (std::is_same_v<T, bf16>)
    if (detail::streams<T>(s))
      return detail::with_streamed_k(s, [&](auto k) {
        detail::run_depthwise_stream_back<decltype(k)::value, detail::AsItIs>(s, x, dy, to);
      });
  if (s.k == 11) {
    const i64 parts = std::clamp<i64>(s.batch * s.h / 32, 1, 64);
    auto partial = std::make_unique<const Workspace<A>>(parts * (taps + 1) * s.c, Device::cuda);
    detail::depthwise_back_rows<T, 11>
        <<<dim3(static_cast<unsigned>((s.c + 31) / 32), 11, static_cast<unsigned>(parts)),
           dim3(32, 8), 0, cuda::stream()>>>(s, x, dy, partial->data());
    cuda::launched("depthwise_conv2d");
    return finish(std::move(partial), parts);
  }
  const bool walked = detail::with_walk<T>(s, [&](auto v, auto k, auto p) {
    constexpr int V = decltype(v)::value, K = decltype(k)::value, P = decltype(p)::value;
    if constexpr (K <= 7) {
      const detail::DepthwiseCut d = detail::depthwise_cut(s, P, V, 100000, 14);
      const i64 units = s.batch * d.chunks * d.strips, packs = s.c / V;
      i64 across = 1;
      while (across < packs && across < 32) across *= 2;
      const i64 down = 256 / across, tiles = (packs + across - 1) / across;
      const i64 parts =
          std::clamp<i64>((units + down - 1) / down, 1,
                          std::max<i64>(1, 4 * cuda::device().multiProcessorCount / tiles));
      auto partial = std::make_unique<const Workspace<A>>(parts * (taps + 1) * s.c, Device::cuda);
      detail::depthwise_back<T, V, K, P>
          <<<dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(parts)),
             dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), 0, cuda::stream()>>>(
              units, d, x, dy, partial->data());
      cuda::launched("depthwise_conv2d");
      finish(std::move(partial), parts);
    }
  });
  if (walked) return;
  const i64 parts = std::clamp<i64>(s.batch * s.h * s.w / 256, 1, 64);
  auto partial = std::make_unique<const Workspace<A>>(parts * (taps + 1) * s.c, Device::cuda);
  const dim3 grid(static_cast<unsigned>((s.c + 31) / 32), static_cast<unsigned>(taps + 1),
                  static_cast<unsigned>(parts));
  detail::depthwise_back_any<<<grid, dim3(32, 8), 0, cuda::stream()>>>(s, x, dy, partial->data());
  cuda::launched("depthwise_conv2d");
  finish(std::move(partial), parts);
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
