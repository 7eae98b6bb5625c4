#pragma once
#include "ppma/core/names_begin.hpp"
// One line of a criss-cross attention on the CPU: its mask, its probabilities, their gradients.

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/kernels/cpu/head.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH::criss_cross {

// The probabilities of one line of n tokens (a row or a column), and its scratch.
template <class T>
struct Line {
  static constexpr i64 w = lanes<T>;
  bool masked;
  i64 n, d, lds, ldk;
  ZeroedWorkspace<T> kt, s, p;
  const T* queries = nullptr;  // of the line that was loaded, `step` apart
  i64 step = 0;
  // Where its tokens are visited in another order than they lie: the order, when each token is, and
  // room for the log decays and the mask by visits.
  const i64* order = nullptr;
  ZeroedWorkspace<T> ranks, by_visit, mask_by_visit;

  PPMA_ONCE Line(bool with_mask, i64 tokens, i64 head_width, bool in_orders)
      : masked(with_mask),
        n(tokens),
        d(head_width),
        lds(round_to_lanes<T>(n)),
        ldk(transposed_stride<T>(n)),
        kt(d * ldk),
        s(n * lds),
        p(n * lds),
        ranks(in_orders ? lds : 0),
        by_visit(in_orders ? n : 0),
        mask_by_visit(in_orders ? n * lds : 0) {
    // exp of the padding is 0
    for (i64 j = 0; j < n; ++j) std::fill_n(s.data() + j * lds + n, lds - n, T(-1e30));
  }

  // The order of the line that comes; null: its tokens are visited as they lie.
  void visit_in(const i64* line_order) {
    order = line_order;
    if (order == nullptr) return;
    for (i64 t = 0; t < n; ++t) ranks.data()[order[t]] = static_cast<T>(t);
  }

  // s = the line's log mask: at query j and key l the sum of the log decays between them.
  PPMA_ONCE void fill_mask(const T* log_decay) {
    if (order == nullptr) return fill_sums(log_decay, s.data());
    for (i64 t = 0; t < n; ++t) by_visit.data()[t] = log_decay[order[t]];
    fill_sums(by_visit.data(), mask_by_visit.data());
    for (i64 t = 0; t < n; ++t) {
      T* const to = s.data() + order[t] * lds;
      const T* const from = mask_by_visit.data() + t * lds;
      for (i64 u = 0; u < n; ++u) to[order[u]] = from[u];
      std::fill_n(to + n, lds - n, T(-1e30));
    }
  }
  // Sums for a query are those for its neighbour and one step more; walking away from the keys they
  // only grow (see outward() in kernels/cpu/head.hpp).
  PPMA_ONCE void fill_sums(const T* log_decay, T* mask) {
    for (i64 l = 0; l < n; l += w) {
      T* const to = mask + l;
      const i64 behind = std::min(l + w, n);
      Vec<T> sum = drop_first<T>(splat(T(-1e30)), n - l);  // the exponential of the padding is 0
      for (i64 j = behind - 1; j >= l; --j) {              // queries before some of the keys
        if (j + 1 < behind) sum += drop_first<T>(splat(log_decay[j + 1]), j + 1 - l);
        store(to + j * lds, sum);
      }
      if (l > 0) sum += log_decay[l];
      for (i64 j = l - 1; j >= 0; --j) {  // before all
        store(to + j * lds, sum);
        if (j > 0) sum += log_decay[j];
      }
      sum = Vec<T>{};
      for (i64 j = l + 1; j < behind; ++j) {  // behind some
        sum += keep_first<T>(splat(log_decay[j]), j - l);
        store(to + j * lds, load(to + j * lds) + sum);
      }
      for (i64 j = behind; j < n; ++j) store(to + j * lds, sum += log_decay[j]);  // behind all
    }
  }

  // Takes a line: queries and keys of tokens `stride` apart, and the mask of log_decay.
  void take(const T* q, const T* k, i64 stride, const T* log_decay) {
    queries = q, step = stride;
    copy_transposed(n, d, k, stride, kt.data(), ldk);
    if (masked) fill_mask(log_decay);
  }
  void take_row(const AttentionArgs<T>& here, i64 i) {
    const i64 at = i * n, stride = here.shape.channels();
    visit_in(here.row_orders ? here.row_orders + at : nullptr);
    take(here.q + at * stride, here.k + at * stride, stride,
         masked ? here.log_alpha + at : nullptr);
  }

  // out (count, n; rows lds apart) = rowsoftmax(q k^T + mask) of the queries j0 .. j0+count of the
  // line that was loaded, each once.
  void probabilities(i64 j0, i64 count, T* out) {
    T* const scores = s.data() + j0 * lds;
    multiply_small(count, n, d, queries + j0 * step, step, i64{1}, kt.data(), ldk, scores, lds,
                   masked);
    for (i64 j = 0; j < count; ++j) {
      T *const sj = scores + j * lds, *const pj = out + j * lds;
      Vec<T> top = splat(T(-1e30)), sum{};
      for (i64 l = 0; l < n; l += w) top = max_of(top, load(sj + l));
      const T m = lane_max<T>(top);
      for (i64 l = 0; l < n; l += w) {
        const Vec<T> e = exp_below_zero<Vec<T>>(load(sj + l) - m);
        store(pj + l, e);
        sum += e;
      }
      const T scale = T(1) / lane_sum<T>(sum);
      for (i64 l = 0; l < n; l += w) store(pj + l, load(pj + l) * scale);
    }
  }

  // y (n, columns) (+)= P v with the probabilities of the line that was loaded, a few queries at a
  // time, whose scores and probabilities then stay in the first cache. `kept` is where all of P
  // goes, or null.
  void attend(const T* v, i64 v_stride, i64 columns, T* y, i64 y_stride, bool accumulate, T* kept) {
    for (i64 j = 0; j < n; j += detail::tile_rows) {
      const i64 count = std::min<i64>(detail::tile_rows, n - j);
      T* const some = kept ? kept + j * lds : p.data();
      probabilities(j, count, some);
      multiply_small(count, columns, n, some, lds, i64{1}, v, v_stride, y + j * y_stride, y_stride,
                     accumulate);
    }
  }

  // ds = probs * (dprobs - <probs, dprobs>) by rows, over dprobs; dc += the mask's gradient.
  void softmax_backward(const T* probs, T* dprobs, T* dc) const {
    for (i64 j = 0; j < n; ++j) {
      const T* const pj = probs + j * lds;
      T* const gj = dprobs + j * lds;
      Vec<T> dot{};
      for (i64 l = 0; l < n; l += w) dot += load(pj + l) * load(gj + l);
      const T mean = lane_sum<T>(dot);
      for (i64 l = 0; l < n; l += w) store(gj + l, load(pj + l) * (load(gj + l) - mean));
      if (masked && order == nullptr) scatter_line(n, j, gj, dc);
      if (masked && order != nullptr) scatter_line(n, j, ranks.data(), gj, dc);
    }
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH::criss_cross

#include "ppma/core/names_end.hpp"
