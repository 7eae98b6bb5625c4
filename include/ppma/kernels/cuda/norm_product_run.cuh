#pragma once
#include "ppma/core/names_begin.hpp"
// Which products of normalised tokens are one kernel, and which of two: that of many rows
// (norm_product.cuh) or that of few (few_rows.cuh).

#include "ppma/kernels/cuda/few_rows_run.cuh"
#include "ppma/kernels/cuda/norm_product.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail::norm_product {
inline i64 work(i64 rows, i64 c) { return 3 * rows * c * c; }
/// Rows of 128 channels from which blocks that stay pay for the weights they fetch.
inline constexpr i64 many_rows = 4096;
/// Whether there are so few rows that tiles are faster which each normalise theirs (few_rows.cuh):
/// so they were on an H200, beside the kernel of many rows (64 and 128 channels) or the operations
/// one by one.
inline bool few(i64 rows, i64 c, bool turns) {
  if (c == 64) return work(rows, c) <= i64{1} << 26;
  if (c == 128) return rows <= 2 * many_rows;
  return (c == 256 || c == 512) && work(rows, c) <= i64{1} << (turns ? 29 : 27);
}

/// As norm_products or, where nothing is turned, norm_gelu.
template <class T, int C, bool turns, class After>
void run_few(const NormProducts& p, const After& after) {
  few_rows::Product few{};
  few.rows = static_cast<int>(p.rows), few.k = few.n = C, few.x = p.x;
  for (int i = 0; i < 3; ++i) few.part[i] = {p.part[i].w, p.part[i].bias, p.part[i].y};
  few.parts = 3, few.pitch = static_cast<int>(p.pitch), few.lasting = true;
  few.gamma = p.gamma, few.beta = p.beta, few.eps = p.eps;
  few.cosine = p.cosine, few.sine = p.sine, few.d = p.d, few.scale = p.scale;
  few.tokens = static_cast<int>(p.tokens);
  using few_rows::Rows;
  if constexpr (turns)
    few_rows::run<T, Rows::normed, C, true, AsItIs>("norm_products", few, after);
  else
    few_rows::run<T, Rows::normed, C, false, FastGelu>("norm_gelu", few, after);
}
/// The tiles: the fastest of those tried on an H200 between kernels of a network.
template <bool turns, class After>
void run_few(const NormProducts& p, i64 c, const After& after) {
  using few_rows::Tile;
  const bool filled = work(p.rows, c) > i64{1} << 26;
  if (c == 64) {
    run_few<Tile<32, 64, 2, 2, 2>, 64, turns>(p, after);
  } else if (c == 128) {
    filled ? run_few<Tile<48, 128, 3, 4, 1, 2>, 128, turns>(p, after)
           : run_few<Tile<32, 64, 2, 2, 2>, 128, turns>(p, after);
  } else if (c == 512) {
    filled ? run_few<Tile<32, 128, 2, 4, 1>, 512, turns>(p, after)
           : run_few<Tile<16, 64, 1, 2, 4>, 512, turns>(p, after);
  } else if constexpr (turns) {
    // Large tiles pay where every multiprocessor has one, and of others several.
    const i64 processors = cuda::device().multiProcessorCount,
              alone = !std::is_same_v<After, NothingMore>, small = (p.rows + 31) / 32 * (6 + alone),
              large = (p.rows + 47) / 48 * (3 + alone);
    const bool one_wave = large <= processors && small > 2 * processors;
    one_wave ? run_few<Tile<48, 256, 3, 8, 1>, 256, turns>(p, after)
             : run_few<Tile<32, 128, 2, 4, 1>, 256, turns>(p, after);
  } else {
    filled ? run_few<Tile<32, 128, 2, 4, 1>, 256, turns>(p, after)
           : run_few<Tile<16, 64, 1, 2, 4>, 256, turns>(p, after);
  }
}
}  // namespace detail::norm_product

/// Whether norm_products takes rows of c channels in heads of d (0: nothing is turned), where a
/// block can have so much shared memory, and gains: few rows are done before the weights of 128
/// channels are there. logs: with log decays, for which heads of 64 of 128 channels leave no room.
/// recorded: with the means and deviations that backward reads, which the kernel of few rows does
/// not write. Places of log decays are 32-bit numbers.
inline bool multiplies_normed(i64 rows, i64 c, i64 d, bool logs, bool recorded) {
  if (d % 8 != 0 || d > 64 || (d & (d - 1)) != 0) return false;
  return (!recorded && d > 0 && detail::norm_product::few(rows, c, true)) ||
         (rows < (i64{1} << 27) &&
          (c == 64 || (c == 128 && rows >= detail::norm_product::many_rows)) &&
          detail::norm_product::shared_bytes(static_cast<int>(c), static_cast<int>(d), logs) <=
              static_cast<int>(cuda::device().sharedMemPerBlockOptin));
}

/// Whether norm_gelu takes rows of c channels: so few that it gains.
inline bool gelus_normed(i64 rows, i64 c) { return detail::norm_product::few(rows, c, false); }
/// GELU of the products, of which nothing is turned; no means or deviations.
inline void norm_gelu(Cuda, const NormProducts& p, i64 c) {
  if (p.rows > 0) detail::norm_product::run_few<false>(p, c, detail::NothingMore{});
}

/// The products; and the log decays (s.rows, batch, heads, tokens) of the normalised tokens at
/// `logs`, where they are wanted: as layer_norm_log_decay.
inline void norm_products(Cuda, const NormProducts& p, i64 c, const DecayShape& s,
                          const float* dt_weight, const float* dt_bias, const float* a_log,
                          float* logs) {
  using namespace detail;
  if (p.rows == 0) return;
  if (p.mean == nullptr && p.cosine && norm_product::few(p.rows, c, true))
    return logs ? norm_product::run_few<true>(
                      p, c, decays_of_row<bf16>(s, dt_weight, dt_bias, a_log, logs))
                : norm_product::run_few<true>(p, c, NothingMore{});
  const i64 tiles = (p.rows + norm_product::rows - 1) / norm_product::rows;
  const auto run = [&](auto cols, auto turns, const auto& after) {
    constexpr int C = decltype(cols)::value;
    const auto kernel =
        detail::norm_products<C, decltype(turns)::value, std::remove_cvref_t<decltype(after)>>;
    const int bytes = norm_product::shared_bytes(C, p.cosine ? p.d : 0, logs != nullptr);
    allow_shared(kernel, bytes, "norm_products");
    const i64 stay = std::min<i64>(tiles, cuda::device().multiProcessorCount * (C == 64 ? 2 : 1));
    cuda::launch("norm_products", kernel, static_cast<unsigned>(stay), norm_product::threads<C>,
                 static_cast<std::size_t>(bytes), p, after);
  };
  constexpr std::integral_constant<int, 64> c64;
  constexpr std::integral_constant<int, 128> c128;
  const auto decays = [&] { return decays_of_row<bf16>(s, dt_weight, dt_bias, a_log, logs); };
  const auto bare = [&](auto turns) {
    c == 64 ? run(c64, turns, NothingMore{}) : run(c128, turns, NothingMore{});
  };
  if (!p.cosine)
    bare(std::false_type{});
  else if (!logs)
    bare(std::true_type{});
  else if (c == 64)
    run(c64, std::true_type{}, norm_product::Decays<64>(decays()));
  else
    run(c128, std::true_type{}, norm_product::Decays<128>(decays()));
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
