#pragma once
#include "ppma/core/names_begin.hpp"
// tensor_pass.cuh's passes for lines of at most 56 tokens with heads of 16, or 32 with heads of 32,
// if there are many: a block has a line of four heads, a warp one of them; all that warps share is
// to load tiles and to write them.
// A line's weights P, the most that a pass has to work out, are made by queries, 16 at a time; the
// scores of all keys are in registers, and so are the sums over queries of all keys:
//
//   P x0;  sum P dP, dS;  dq = dS k;  dc of the queries and of all keys
//   dk += dS^T q,  P^T g  (transposed in registers)
//
// Results go to the tiles of what is not read any more, so that whole rows of all heads go out.
// Floor of 56 x 56 tokens of 4 heads of 16, batch 128, at 4.3 TB/s: 72 us for the first pass of
// both orders, 131 for the columns, 143 for the last, which reads what it adds to.

#include "ppma/kernels/cuda/criss_cross/short_weights.cuh"
#include "ppma/kernels/cuda/criss_cross/tensor_pass.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Tiles, in their order; x1 and g1 where there are two pairs.
enum { tile_q, tile_k, tile_x0, tile_g0, tile_x1, tile_g1 };
/// Of each pass: what there is beside dq, dk and P^T g0, and whether it may add to what is there.
template <int pairs, bool known>
struct ShortPass {
  // Two pairs whose weights' sums are not known: the second of three passes.
  static constexpr bool back1 = pairs == 2 && !known, mixes = pairs == 0 || back1;
  static constexpr bool adds = pairs > 0 && !back1, adds_back0 = pairs == 2 && known;
  static constexpr int tiles = pairs == 2 ? 6 : 4;
};

template <int D, int NT>
__device__ constexpr int tile_at(int which) {
  return which * short_tile<D, NT>;
}
/// Sums of all keys of a line, rounded and times f, to a tile from `at` on.
template <int D, int NT, class... F>
__device__ __forceinline__ void put_keys(unsigned char* at, unsigned place, const OfKeys<D, NT>& c,
                                         F... f) {
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i) {
    Packed<D> packed;
    pack_rows<D>(packed, c[i], f...);
    put_rows<D>(at + 16 * i * short_row<D>, place, packed);
  }
}
inline constexpr unsigned pair_of_ones = 0x3f803f80;

/// Calls f with every 16 queries of a line: their number, and how many a line can have, constants.
template <int NT, class F>
__device__ __forceinline__ void each_tile(int length, F&& f) {
  constexpr std::integral_constant<int, 16> all;
  constexpr std::integral_constant<int, (NT == 7 ? 8 : 16)> last;
  f(std::integral_constant<int, 0>{}, all);
  if (length > 16) f(std::integral_constant<int, 1>{}, all);
  if constexpr (NT > 4) {
    if (length > 32) f(std::integral_constant<int, 2>{}, all);
    if (length > 48) f(std::integral_constant<int, 3>{}, last);
  }
}

/// p = dS of weights that are t times a factor of their row; dq = dS k.
template <int D, int NT, int pairs, int rows>
__device__ __forceinline__ void slopes_of(Left<NT>& p, float (&dquery)[D / 8][4], float (&t)[NT][4],
                                          Two f, const Own& own, const Place<D>& in, int at) {
  float dp[NT][4];
  const Two sum = slopes<D, NT, pairs, rows>(dp, t, own.g0 + at, own.x0, own.g1 + at, own.x1, in),
            less{-sum.upper * f.upper * f.upper, -sum.lower * f.lower * f.lower};
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    t[n][0] *= ::fmaf(dp[n][0], f.upper, less.upper),
        t[n][1] *= ::fmaf(dp[n][1], f.upper, less.upper);
    if constexpr (rows == 16)
      t[n][2] *= ::fmaf(dp[n][2], f.lower, less.lower),
          t[n][3] *= ::fmaf(dp[n][3], f.lower, less.lower);
    else
      t[n][2] = t[n][3] = 0;
  }
  round_left<NT>(p, t);
  mix_rows<D, NT>(dquery, p, own.keys, in.left);
}

/// All of a head: into the tiles of q, g0 (P x0), k, x0, and dc. memory: the first tile's begin,
/// also that of `own`'s addresses.
template <int D, int NT, int pairs, bool known>
__device__ __forceinline__ void by_queries(const Own& own, const Place<D>& in,
                                           unsigned char* memory, const Backward& to) {
  const unsigned share = detail::rounded_pair(to.share, to.share);  // 1/2 or 1
  const int lane = lane_index();
  OfKeys<D, NT> out;
  [[maybe_unused]] OfKeys<D, pairs == 0 ? 1 : NT> dkey;
  [[maybe_unused]] DecaySums<NT> dc;
  each_tile<NT>(own.length, [&](auto which, auto there) {
    constexpr int tile = decltype(which)::value, rows = decltype(there)::value,
                  at = 16 * tile * short_row<D>;
    float t[NT][4], result[D / 8][4];
    Left<NT> p, turned;
    Sums of = weights_of<D, NT, tile, rows, known>(t, own, in);
    if constexpr (!known) scale_rows(t, of.factor), of.factor = {1, 1};
    round_left<NT>(p, t);
    if (pairs == 0 && own.log_sums_to != nullptr && lane % 4 == 0) {
      const int row = 16 * tile + lane / 4;
      if (row < own.length) own.log_sums_to[row * own.step] = of.logs.upper;
      if (rows == 16 && row + 8 < own.length) own.log_sums_to[(row + 8) * own.step] = of.logs.lower;
    }
    if constexpr (pairs == 0) mix_rows<D, NT>(result, p, own.x0, in.left);
    turn<NT, rows>(turned, p);
    sum_turned<tile == 0, D, NT>(out, turned, own.g0 + at, in.left);
    if constexpr (pairs > 0) {
      slopes_of<D, NT, pairs, rows>(p, result, t, of.factor, own, in, at);
      turn<NT, rows>(turned, p);
      sum_turned<tile == 0, D, NT>(dkey, turned, own.queries + at, in.left);
      if (pairs == 2 || to.dlog_decay) dc.template add<tile>(p, turned);
    }
    Packed<D> packed;
    if constexpr (pairs == 0)
      pack_rows<D, rows>(packed, result);
    else
      pack_rows<D, rows>(packed, result, share);
    __syncwarp();  // these rows of q and g have been read
    put_rows<D, rows>(memory + tile_at<D, NT>(pairs == 0 ? tile_g0 : tile_q) + at, in.result,
                      packed);
  });
  __syncwarp();  // the keys and x have been read
  if constexpr (pairs == 0) {
    put_keys<D, NT>(memory + tile_at<D, NT>(tile_x0), in.result, out);
  } else {
    put_keys<D, NT>(memory + tile_at<D, NT>(tile_x0), in.result, out,
                    to.back0_is_dv ? share : pair_of_ones);
    put_keys<D, NT>(memory + tile_at<D, NT>(tile_k), in.result, dkey, share);
    if (to.dlog_decay) dc.store(own.log_sums);
    __syncwarp();
  }
}

/// The same of two pairs whose weights' sums are not known: into the tiles of q, x1 (dk), g1
/// (P x0), x0, k (P^T g1), and dc. Three sums over queries do not fit beside weights and slopes, so
/// that the weights are made twice.
template <int D, int NT>
__device__ __forceinline__ void in_two_sweeps(const Own& own, const Place<D>& in,
                                              unsigned char* memory, const Backward& to) {
  const unsigned share = detail::rounded_pair(to.share, to.share);
  const int lane = lane_index();
  Packed<D> dquery[(NT + 1) / 2];
  DecaySums<NT> dc;
  {
    OfKeys<D, NT> dkey;
    each_tile<NT>(own.length, [&](auto which, auto there) {
      constexpr int tile = decltype(which)::value, rows = decltype(there)::value,
                    at = 16 * tile * short_row<D>;
      float t[NT][4], dq[D / 8][4];
      Left<NT> p, turned;
      const Sums of = weights_of<D, NT, tile, rows, false>(t, own, in);
      if (lane % 4 == 0)
        own.log_sums[16 * tile + lane / 4] = of.logs.upper,
                                        own.log_sums[16 * tile + lane / 4 + 8] = of.logs.lower;
      slopes_of<D, NT, 2, rows>(p, dq, t, of.factor, own, in, at);
      pack_rows<D, rows>(dquery[tile], dq, share);
      turn<NT, rows>(turned, p);
      sum_turned<tile == 0, D, NT>(dkey, turned, own.queries + at, in.left);
      dc.template add<tile>(p, turned);
    });
    __syncwarp();  // x1 has been read
    put_keys<D, NT>(memory + tile_at<D, NT>(tile_x1), in.result, dkey, share);
  }
  OfKeys<D, NT> out0, out1;
  each_tile<NT>(own.length, [&](auto which, auto there) {
    constexpr int tile = decltype(which)::value, rows = decltype(there)::value,
                  at = 16 * tile * short_row<D>;
    float t[NT][4], mixed[D / 8][4];
    Left<NT> p, turned;
    weights_of<D, NT, tile, rows, true>(t, own, in);
    round_left<NT>(p, t);
    mix_rows<D, NT>(mixed, p, own.x0, in.left);
    turn<NT, rows>(turned, p);
    sum_turned<tile == 0, D, NT>(out0, turned, own.g0 + at, in.left);
    sum_turned<tile == 0, D, NT>(out1, turned, own.g1 + at, in.left);
    Packed<D> packed;
    pack_rows<D, rows>(packed, mixed);
    __syncwarp();  // these rows of q and g1 have been read
    put_rows<D, rows>(memory + tile_at<D, NT>(tile_q) + at, in.result, dquery[tile]);
    put_rows<D, rows>(memory + tile_at<D, NT>(tile_g1) + at, in.result, packed);
  });
  __syncwarp();  // the keys and x0 have been read
  put_keys<D, NT>(memory + tile_at<D, NT>(tile_x0), in.result, out0,
                  to.back0_is_dv ? share : pair_of_ones);
  put_keys<D, NT>(memory + tile_at<D, NT>(tile_k), in.result, out1);
  if (to.dlog_decay) dc.store(own.log_sums);
  __syncwarp();
}

// Of a multiprocessor: 96 or 168 registers. Four blocks with pairs are slower than three: 205 us
// against 233 for columns of 56, 81 against 85 of 28.
template <int pairs>
inline constexpr int short_blocks = pairs == 0 ? 5 : 3;

/// As backward(); s.d = D, s.group = most_group; no order. known: to.log_sums are those of these
/// lines' weights; else, without pairs, they are written.
template <int D, int NT, int pairs, bool known>
__global__ void __launch_bounds__(short_threads, short_blocks<pairs>)
    short_backward(Lines s, const bf16* q, const bf16* k, const float* log_decay, Backward to) {
  using Pass = ShortPass<pairs, known>;
  extern __shared__ __align__(128) unsigned char short_memory[];
  unsigned char* const memory = short_memory;
  constexpr int padded = Rows<D, NT>::padded;
  Spot here(s, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.x),
            static_cast<int>(blockIdx.y) * short_heads);
  here.order = nullptr;
  float* const sums = reinterpret_cast<float*>(memory + tile_at<D, NT>(Pass::tiles));
  float* const log_sums = sums + short_heads * padded;
  const Rows<D, NT> rows(s, here, threadIdx.x);
  if constexpr (pairs == 2)
    rows.template fetch<6>(memory, {q, k, to.x0, to.g0, to.x1, to.g1});
  else
    rows.template fetch<4>(memory, {q, k, to.x0, to.g0});
  detail::copies_issued();
  const int head = warp_index(), first = head * padded;
  const i64 plane = here.plane + static_cast<i64>(head) * s.tokens;
  if constexpr (known)
    if (head < here.heads)
#pragma unroll
      for (int i = lane_index(); i < padded; i += 32)
        log_sums[first + i] = i < s.length ? to.log_sums[plane + i * s.step] : -nowhere;
  if (Pass::adds && to.add) rows.ask_for(to.dq), rows.ask_for(to.dk);
  if (Pass::adds_back0 && to.add_back0) rows.ask_for(to.back0);
  sum_decays<NT>(sums, log_decay, s, here, log2_e);
  detail::copies_done<0>();
  __syncthreads();
  if (head < here.heads) {
    const Place<D> in(head);
    const unsigned at = detail::shared_address(memory);
    const auto address = [&](int which) {
      return at + static_cast<unsigned>(tile_at<D, NT>(which));
    };
    const Own own{address(tile_q),  address(tile_k),  address(tile_x0),
                  address(tile_g0), address(tile_x1), address(tile_g1),
                  sums + first,     log_sums + first, to.log_sums ? to.log_sums + plane : nullptr,
                  s.step,           s.length,         any_closed(sums + first, s.length, log2_e)};
    if constexpr (Pass::back1)
      in_two_sweeps<D, NT>(own, in, memory, to);
    else
      by_queries<D, NT, pairs, known>(own, in, memory, to);
  }
  unsigned thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));  // again: places need not stay in registers
  const Rows<D, NT> out(s, here, thread);
  // What is added comes while the warps wait for each other.
  [[maybe_unused]] typename Rows<D, NT>::Vectors dq, dk, back0;
  if constexpr (Pass::adds) out.load(dq, to.dq, to.add), out.load(dk, to.dk, to.add);
  if constexpr (Pass::adds_back0) out.load(back0, to.back0, to.add_back0);
  if (pairs > 0 && to.dlog_decay)
    sums_to_decays<NT>(sums, log_sums, to.share, to.dlog_decay, s, here, log2_e);
  __syncthreads();
  const auto tile = [&](int which) { return memory + tile_at<D, NT>(which); };
  if constexpr (Pass::mixes) out.write(to.mixed, tile(Pass::back1 ? tile_g1 : tile_g0));
  if constexpr (Pass::back1)
    out.write(to.back1, tile(tile_k)), out.write(to.dq, tile(tile_q)),
        out.write(to.dk, tile(tile_x1));
  if constexpr (Pass::adds) out.write(to.dq, tile(tile_q), dq), out.write(to.dk, tile(tile_k), dk);
  if constexpr (Pass::adds_back0)
    out.write(to.back0, tile(tile_x0), back0);
  else
    out.write(to.back0, tile(tile_x0));
}

inline constexpr i64 most_images = 65535;  // a grid's third dimension
/// False where lines are longer or visited in an order, or blocks would not have four heads as wide
/// as their tiles.
template <int D, int NT, int pairs, bool known>
bool run_short(const AttentionArgs<bf16>& in, const Lines& s, bool along_rows, const Backward& to) {
  if constexpr (NT < 8 && D <= 32 && most_group<D, NT> == short_heads) {
    using Pass = ShortPass<pairs, known>;
    if (s.d != D || s.group != short_heads || s.order != nullptr || in.shape.batch > most_images ||
        (to.add && !Pass::adds) || (to.add_back0 && !Pass::adds_back0))
      return false;
    constexpr int bytes =
        Pass::tiles * short_tile<D, NT> + 2 * short_heads * Rows<D, NT>::padded * 4;
    detail::allow_shared(short_backward<D, NT, pairs, known>, bytes, "criss_cross_attention");
    const dim3 blocks(static_cast<unsigned>(s.count), static_cast<unsigned>(s.groups),
                      static_cast<unsigned>(in.shape.batch));
    short_backward<D, NT, pairs, known><<<blocks, short_threads, bytes, cuda::stream()>>>(
        s, in.q, in.k, along_rows ? in.log_alpha : in.log_beta, to);
    return true;
  } else {
    return false;
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
