#pragma once
#include "ppma/core/names_begin.hpp"
// Which products few_rows.cuh takes, and in which tiles.

#include <algorithm>

#include "ppma/kernels/cpu/conv_map.hpp"
#include "ppma/kernels/cuda/few_rows.cuh"
#include "ppma/kernels/gemm.hpp"

namespace ppma::inline PPMA_ABI::kernels::detail::few_rows {

/// Multiplications up to which these tiles were faster on an H200 than what stands for many rows.
inline constexpr i64 most_work = i64{1} << 27;

/// The same of a convolution. What stands for many pixels (conv_tensor.cuh) has tiles of 128 x 128,
/// and leaves most of the GPU without work where these are less than a quarter of it.
inline i64 most_conv_work(i64 pixels, i64 n, i64 k) {
  return k <= 2048 && (pixels + 127) / 128 * ((n + 127) / 128) <= 32 ? i64{1} << 29 : most_work;
}

/// Calls f with the first tile of a list that fits a product into shared memory and makes at least
/// as many blocks of it as `least` says, in their order. False: none does.
template <class T, class... More, class F>
bool with_tile(const Product& p, Rows kind, const int* least, F&& f) {
  const int blocks = (p.rows + T::MT - 1) / T::MT * ((p.n + T::NT - 1) / T::NT);
  if (blocks >= *least && (T::NT <= p.n || sizeof...(More) == 0) &&
      T::bytes(p.k, kind) <= static_cast<i64>(cuda::device().sharedMemPerBlockOptin)) {
    f(T{});
    return true;
  }
  if constexpr (sizeof...(More) > 0)
    return with_tile<More...>(p, kind, least + 1, static_cast<F&&>(f));
  else
    return false;
}

/// Whether pointers are multiples of so many bytes; null is.
template <class... P>
bool aligned(std::size_t bytes, const P*... p) {
  return ((reinterpret_cast<std::uintptr_t>(p) % bytes == 0) && ...);
}

template <class T, Rows kind, int C, bool turns, class F, class After>
void run(const char* op, const Product& p, const After& after) {
  const auto kernel = multiply_rows<T, kind, C, turns, F, After>;
  const int bytes = static_cast<int>(T::bytes(p.k, kind)),
            alone = !std::is_same_v<After, NothingMore>;
  allow_shared(kernel, bytes, op);
  cuda::launch(op, kernel,
               dim3(static_cast<unsigned>((p.rows + T::MT - 1) / T::MT),
                    static_cast<unsigned>((p.n * p.parts + T::NT - 1) / T::NT + alone)),
               T::threads, static_cast<std::size_t>(bytes), p, after);
}

/// The product (in bf16), where it is one for these tiles. False: nothing was done. A template, so
/// that its kernels are compiled where there are products alone.
template <class T>
bool run(const Gemm<T>& g) {
  if (g.m * g.n * g.k > most_work || g.ta || !g.tb || g.accumulate || g.batch != 1 ||
      g.lda != g.k || g.ldb != g.k || g.k % 16 != 0 || g.n % 4 != 0 || g.ldc % 4 != 0 ||
      !aligned(16, g.a, g.b) || !aligned(8, g.c, g.add, g.bias))
    return false;
  Product p{};
  p.rows = static_cast<int>(g.m), p.k = static_cast<int>(g.k), p.n = static_cast<int>(g.n);
  p.x = g.a, p.part[0] = {g.b, g.bias, g.c}, p.parts = 1, p.pitch = static_cast<int>(g.ldc);
  p.add = g.add, p.lasting = g.lasting;
  const auto by = [&](auto tile) {
    run<decltype(tile), Rows::plain, 0, false, AsItIs>("linear", p, NothingMore{});
  };
  // Eight warps share a sum where each has two steps of it at least; of 256 to 511 some of them
  // share the columns.
  const int all = cuda::device().multiProcessorCount, least_long[] = {all, 48, 0},
            least_medium[] = {24, 48, 0}, least[] = {2 * all, 48, 48, 0};
  if (g.k >= 512)
    return with_tile<Tile<32, 32, 1, 1, 8>, Tile<16, 32, 1, 1, 8>, Tile<16, 16, 1, 1, 8>>(
        p, Rows::plain, least_long, by);
  if (g.k >= 256)
    return with_tile<Tile<32, 64, 1, 2, 4>, Tile<16, 32, 1, 1, 8>, Tile<16, 16, 1, 1, 8>>(
        p, Rows::plain, least_medium, by);
  return with_tile<Tile<64, 64, 4, 2, 1>, Tile<32, 64, 2, 2, 2>, Tile<16, 32, 1, 1, 8>,
                   Tile<16, 16, 1, 1, 8>>(p, Rows::plain, least, by);
}

/// The convolution with F behind it, where its weights are in the order of (n, taps, ci).
template <class F>
bool run(const ConvMap& m, const bf16* x, const ConvWeights<bf16>& w, const bf16* bias, bf16* out) {
  const i64 pixels = m.batch * m.oh * m.ow, k = m.th * m.tw * m.ci;
  if (pixels * m.co * k > most_conv_work(pixels, m.co, k) || m.groups != 1 || m.ci % 8 != 0 ||
      k % 16 != 0 || m.co % 4 != 0 || !w.by_taps(m.tw, m.ci) || w.n_step != k ||
      m.out_col != m.co || m.out_row != m.ow * m.co || m.out_batch != m.oh * m.out_row ||
      m.batch * m.h * m.w * m.ci >= (i64{1} << 30) || !aligned(16, x, w.w) ||
      !aligned(8, bias, out))
    return false;
  Product p{};
  p.rows = static_cast<int>(pixels), p.k = static_cast<int>(k), p.n = static_cast<int>(m.co);
  p.x = x, p.part[0] = {w.w, bias, out}, p.parts = 1, p.pitch = p.n, p.lasting = true;
  p.taps = {static_cast<int>(m.h),        static_cast<int>(m.w),  static_cast<int>(m.ci),
            static_cast<int>(m.oh),       static_cast<int>(m.ow), static_cast<int>(m.stride),
            static_cast<int>(m.y0),       static_cast<int>(m.x0), static_cast<int>(m.tw),
            static_cast<int>(m.th * m.tw)};
  constexpr int least[] = {64, 96, 96, 96, 0};
  return with_tile<Tile<48, 64, 3, 2, 2>, Tile<32, 64, 2, 2, 2>, Tile<32, 32, 1, 1, 8>,
                   Tile<16, 32, 1, 1, 8>, Tile<16, 16, 1, 1, 8>>(
      p, Rows::taps, least,
      [&](auto tile) { run<decltype(tile), Rows::taps, 0, false, F>("conv2d", p, NothingMore{}); });
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail::few_rows

#include "ppma/core/names_end.hpp"
