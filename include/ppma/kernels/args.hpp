#pragma once
#include "ppma/core/names_begin.hpp"
// What the interface of an operation and its kernels both speak of: plain values, without any loop.

#include "ppma/core/device.hpp"

namespace ppma::inline PPMA_ABI {

/// Which polyline paths from key to query a whole attention uses. V2H walks along the key's column
/// first, then along the query's row (log-mask M); H2V along the key's row, then the query's column
/// (M^T). `none` is plain softmax attention.
enum class Paths { none, v2h, h2v, both };

/// In which order a criss-cross attention mixes: rows first (O1, path H2V), columns first (O2, path
/// V2H), or the mean.
enum class Order { rows_first, columns_first, both };

/// What the derivative of an elementwise function needs, and so what is kept until backward.
enum class Keep { nothing, input, output };

/// Which neighbours a decaying sum runs over (ops/scan.hpp).
enum class ScanDirection { forward, backward, symmetric };

struct ConvOptions {
  i64 stride = 1, padding = 0, groups = 1;  // padding: rows and columns of zeros on each side
};

enum class Resize { bilinear, bilinear_align_corners, nearest };

struct RoiAlign {
  i64 height = 7, width = 7;  // cells
  double scale = 1;           // cells of the map a unit of the boxes: 1 / stride
  i64 sampling_ratio = 0;     // samples a cell and axis; 0: ceil(box size / cells)
};

namespace kernels {

/// Sizes of an attention over (B,H,W,C) tensors.
struct AttentionShape {
  i64 batch, height, width, heads, head_width;
  PPMA_HD i64 channels() const { return heads * head_width; }
  PPMA_HD i64 tokens() const { return height * width; }
  // Where head `which` of batch x heads begins in a (B,H,W,C) tensor.
  PPMA_HD i64 first_of(i64 which) const {
    return which / heads * tokens() * channels() + which % heads * head_width;
  }
  // How many heads with `keys` keys a query are enough work to wake a thread for.
  i64 grain(i64 keys) const { return 1 + (i64{1} << 18) / (tokens() * keys * head_width + 1); }
};

/// What every kernel of an attention reads: tokens (B,H,W,C), k scaled, and the log decays
/// (B,G,H,W) of the edges to the left and above; null: no mask. Criss-cross kernels take lines
/// whose tokens are visited in another order than they lie: row_orders (H,W) and column_orders
/// (W,H), in the host's memory, name the places of each line in turn, and a log decay is then that
/// between a token and the one visited before it. Null: as they lie.
template <class T>
struct AttentionArgs {
  AttentionShape shape;
  const T *q, *k, *v;
  const acc_t<T>* log_alpha;
  const acc_t<T>* log_beta;
  const i64* row_orders = nullptr;
  const i64* column_orders = nullptr;
  bool masked() const { return log_alpha != nullptr; }
  // Those of head `which` of batch x heads, whose tokens lie channels() apart.
  AttentionArgs head(i64 which) const {
    const i64 first = shape.first_of(which), edge = masked() ? which * shape.tokens() : 0;
    return {shape,           q + first,  k + first,    v + first, log_alpha + edge,
            log_beta + edge, row_orders, column_orders};
  }
};

/// What the kernels of its backward write, laid out alike.
template <class T>
struct AttentionGradients {
  T *dq, *dk, *dv;
  acc_t<T>* dlog_alpha;
  acc_t<T>* dlog_beta;
  AttentionGradients head(const AttentionShape& shape, i64 which) const {
    const i64 first = shape.first_of(which), edge = dlog_alpha ? which * shape.tokens() : 0;
    return {dq + first, dk + first, dv + first, dlog_alpha + edge, dlog_beta + edge};
  }
};

/// What the forward pass of a whole attention may leave for backward, all null where it does not:
/// its result y and the average y1 of the first softmax, (B,H,W,C), and the logs of both
/// normalisers, (B,G,H,W,2).
template <class T>
struct WholeKept {
  const T *y, *y1;
  const acc_t<T>* log_sums;
};

/// Sizes of log_decay: rows = 2 (alpha and beta) or 1 (shared).
struct DecayShape {
  i64 batch, tokens, heads, width, rows;
  static constexpr i64 block = 64;  // tokens worked on at a time
  PPMA_HD i64 blocks() const { return (tokens + block - 1) / block; }
  PPMA_HD i64 channels() const { return heads * width; }
};

/// What the next update of an optimiser reads: on the GPU written by a kernel, before the step.
struct StepSettings {
  double rate, gradient_factor;
};

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
