#pragma once
#include "ppma/core/names_begin.hpp"
// The operations of networks on ONNX values, under the names and with the shapes that they have on
// tensors (ops/): what is written for a forward pass is written so for a graph.

#include <string>
#include <vector>

#include "ppma/io/onnx.hpp"
#include "ppma/kernels/args.hpp"

namespace ppma::inline PPMA_ABI {

// ---- element by element ----

/// As the operations on tensors.
PPMA_API OnnxValue add(const OnnxValue& a, const OnnxValue& b);
PPMA_API OnnxValue mul(const OnnxValue& a, const OnnxValue& b);
PPMA_API OnnxValue exp(const OnnxValue& x);
PPMA_API OnnxValue relu(const OnnxValue& x);
PPMA_API OnnxValue sigmoid(const OnnxValue& x);
PPMA_API OnnxValue silu(const OnnxValue& x);
PPMA_API OnnxValue softplus(const OnnxValue& x);
PPMA_API OnnxValue gelu(const OnnxValue& x);
inline OnnxValue operator+(const OnnxValue& a, const OnnxValue& b) { return add(a, b); }
inline OnnxValue operator*(const OnnxValue& a, const OnnxValue& b) { return mul(a, b); }
PPMA_API OnnxValue scale(const OnnxValue& x, double factor);

// ---- sums ----

/// a (...,n,k) times b (...,k,m).
PPMA_API OnnxValue matmul(const OnnxValue& a, const OnnxValue& b);
/// Over the last axis.
PPMA_API OnnxValue softmax(const OnnxValue& x);
PPMA_API OnnxValue layer_norm(const OnnxValue& x, const OnnxValue& w, const OnnxValue& b,
                              double eps);
PPMA_API OnnxValue mean(const OnnxValue& x, const std::vector<i64>& axes);
PPMA_API OnnxValue cumsum(const OnnxValue& x, int axis);
/// x (...,n,n), or (...,n,1) with each column the same, with 0 on the diagonal and above it.
PPMA_API OnnxValue below_diagonal(const OnnxValue& x);

// ---- layout ----

/// Axis a of the result is axis axes[a] of x.
PPMA_API OnnxValue permute(const OnnxValue& x, const std::vector<i64>& axes);
/// Exchanges the last two axes.
PPMA_API OnnxValue transpose(const OnnxValue& x);
PPMA_API OnnxValue reshape(const OnnxValue& x, const std::vector<i64>& shape);
PPMA_API OnnxValue concat(const std::vector<OnnxValue>& parts, int axis);
PPMA_API OnnxValue narrow(const OnnxValue& x, int axis, i64 begin, i64 length);
/// Without the axis, at index i of it.
PPMA_API OnnxValue select(const OnnxValue& x, int axis, i64 i);
/// Elements of an axis by their numbers.
PPMA_API OnnxValue gather(const OnnxValue& x, int axis, const std::vector<i64>& numbers);
/// So many zeros in front of each axis.
PPMA_API OnnxValue pad_front(const OnnxValue& x, const std::vector<i64>& zeros);

// ---- images, channels first as ONNX has them: (B,C,H,W) ----

/// (B,H,W,C) -> (B,C,H,W), and back.
inline OnnxValue channels_first(const OnnxValue& x) { return permute(x, {0, 3, 1, 2}); }
inline OnnxValue channels_last(const OnnxValue& x) { return permute(x, {0, 2, 3, 1}); }
/// w (O,I/groups,k,k), b (O) or no value.
PPMA_API OnnxValue conv2d(const OnnxValue& x, const OnnxValue& w, const OnnxValue& b, i64 stride,
                          i64 padding, i64 groups);
/// The largest of k x k cells, every `stride` cells.
PPMA_API OnnxValue max_pool2d(const OnnxValue& x, i64 k, i64 stride);
/// By running statistics; all of (C).
PPMA_API OnnxValue batch_norm(const OnnxValue& x, const OnnxValue& w, const OnnxValue& b,
                              const OnnxValue& mean, const OnnxValue& var, double eps);
/// To (B,C,h,w).
PPMA_API OnnxValue resize(const OnnxValue& x, i64 h, i64 w, Resize how = Resize::bilinear);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_ONNX)

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline std::vector<i64> broadcast_sizes(const std::vector<i64>& a, const std::vector<i64>& b) {
  std::vector<i64> out(std::max(a.size(), b.size()));
  for (std::size_t i = 1; i <= out.size(); ++i) {
    const i64 n = i <= a.size() ? a[a.size() - i] : 1, m = i <= b.size() ? b[b.size() - i] : 1;
    check(n == m || n == 1 || m == 1, "onnx: sizes ", n, " and ", m, " do not broadcast");
    out[out.size() - i] = n == 1 ? m : n;
  }
  return out;
}

inline OnnxValue each(const char* op, const OnnxValue& x) {
  return x.graph->node(op, {x}, x.shape);
}
inline OnnxValue both(const char* op, const OnnxValue& a, const OnnxValue& b) {
  return a.graph->node(op, {a, b}, broadcast_sizes(a.shape, b.shape));
}

}  // namespace detail

OnnxValue add(const OnnxValue& a, const OnnxValue& b) { return detail::both("Add", a, b); }
OnnxValue mul(const OnnxValue& a, const OnnxValue& b) { return detail::both("Mul", a, b); }
OnnxValue exp(const OnnxValue& x) { return detail::each("Exp", x); }
OnnxValue relu(const OnnxValue& x) { return detail::each("Relu", x); }
OnnxValue sigmoid(const OnnxValue& x) { return detail::each("Sigmoid", x); }
OnnxValue silu(const OnnxValue& x) { return x * sigmoid(x); }
OnnxValue softplus(const OnnxValue& x) { return detail::each("Softplus", x); }
OnnxValue scale(const OnnxValue& x, double factor) { return x * x.graph->scalar(factor); }

// In the steps in which PyTorch exports it: runtimes know them as one.
OnnxValue gelu(const OnnxValue& x) {
  const OnnxValue erf =
      detail::each("Erf", detail::both("Div", x, x.graph->scalar(std::sqrt(2.0))));
  return scale(x * (erf + x.graph->scalar(1)), 0.5);
}

OnnxValue matmul(const OnnxValue& a, const OnnxValue& b) {
  check(a.dim(-1) == b.dim(-2), "onnx: matmul of ", a.dim(-1), " columns and ", b.dim(-2), " rows");
  std::vector<i64> shape = detail::broadcast_sizes({a.shape.begin(), a.shape.end() - 2},
                                                   {b.shape.begin(), b.shape.end() - 2});
  shape.push_back(a.dim(-2)), shape.push_back(b.dim(-1));
  return a.graph->node("MatMul", {a, b}, shape);
}

OnnxValue softmax(const OnnxValue& x) {
  return x.graph->node("Softmax", {x}, x.shape, {{"axis", i64{-1}}});
}

OnnxValue layer_norm(const OnnxValue& x, const OnnxValue& w, const OnnxValue& b, double eps) {
  return x.graph->node("LayerNormalization", {x, w, b}, x.shape,
                       {{"axis", i64{-1}}, {"epsilon", static_cast<float>(eps)}});
}

OnnxValue mean(const OnnxValue& x, const std::vector<i64>& axes) {
  const std::set<i64> gone(axes.begin(), axes.end());
  std::vector<i64> shape;
  for (int a = 0; a < x.rank(); ++a)
    if (!gone.contains(a)) shape.push_back(x.dim(a));
  return x.graph->node("ReduceMean", {x, x.graph->integers(axes)}, shape, {{"keepdims", i64{0}}});
}

OnnxValue cumsum(const OnnxValue& x, int axis) {
  const OnnxValue at = x.graph->integer(static_cast<i64>(x.place(axis)));
  return x.graph->node("CumSum", {x, at}, x.shape);
}

OnnxValue below_diagonal(const OnnxValue& x) {
  const i64 n = x.dim(-2);
  std::vector<i64> numbers;
  for (i64 i = 0; i < n; ++i) numbers.push_back(i);
  const OnnxValue row = x.graph->integers(numbers), column = reshape(row, {n, 1});
  const OnnxValue below = x.graph->node("Greater", {column, row}, {n, n});
  return x.graph->node("Where", {below, x, x.graph->scalar(0)},
                       detail::broadcast_sizes(x.shape, {n, n}));
}

OnnxValue permute(const OnnxValue& x, const std::vector<i64>& axes) {
  std::vector<i64> shape;
  for (const i64 a : axes) shape.push_back(x.dim(static_cast<int>(a)));
  return x.graph->node("Transpose", {x}, shape, {{"perm", axes}});
}

OnnxValue transpose(const OnnxValue& x) {
  std::vector<i64> axes;
  for (int a = 0; a < x.rank(); ++a) axes.push_back(a);
  std::swap(axes[axes.size() - 1], axes[axes.size() - 2]);
  return permute(x, axes);
}

OnnxValue reshape(const OnnxValue& x, const std::vector<i64>& shape) {
  const auto count = [](const std::vector<i64>& sizes) {
    i64 n = 1;
    for (const i64 size : sizes) n *= size;
    return n;
  };
  check(count(x.shape) == count(shape), "onnx: reshape of ", count(x.shape), " elements to ",
        count(shape));
  return x.graph->node("Reshape", {x, x.graph->integers(shape)}, shape);
}

OnnxValue concat(const std::vector<OnnxValue>& parts, int axis) {
  std::vector<i64> shape = parts.front().shape;
  const std::size_t at = parts.front().place(axis);
  shape[at] = 0;
  for (const OnnxValue& x : parts) shape[at] += x.shape[at];
  return parts.front().graph->node("Concat", parts, shape, {{"axis", static_cast<i64>(at)}});
}

OnnxValue narrow(const OnnxValue& x, int axis, i64 begin, i64 length) {
  const std::size_t at = x.place(axis);
  std::vector<i64> shape = x.shape;
  shape[at] = length;
  OnnxGraph& g = *x.graph;
  return g.node(
      "Slice",
      {x, g.integers({begin}), g.integers({begin + length}), g.integers({static_cast<i64>(at)})},
      shape);
}

OnnxValue select(const OnnxValue& x, int axis, i64 i) {
  std::vector<i64> shape = x.shape;
  const std::size_t at = x.place(axis);
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(at));
  return x.graph->node("Gather", {x, x.graph->integer(i)}, shape, {{"axis", static_cast<i64>(at)}});
}

OnnxValue gather(const OnnxValue& x, int axis, const std::vector<i64>& numbers) {
  std::vector<i64> shape = x.shape;
  const std::size_t at = x.place(axis);
  shape[at] = static_cast<i64>(numbers.size());
  return x.graph->node("Gather", {x, x.graph->integers(numbers)}, shape,
                       {{"axis", static_cast<i64>(at)}});
}

OnnxValue pad_front(const OnnxValue& x, const std::vector<i64>& zeros) {
  std::vector<i64> shape = x.shape, pads = zeros;
  for (std::size_t a = 0; a < zeros.size(); ++a)
    if (zeros[a] > 0) shape[a] += zeros[a];
  pads.resize(2 * zeros.size());  // behind: none
  return x.graph->node("Pad", {x, x.graph->integers(pads)}, shape);
}

OnnxValue conv2d(const OnnxValue& x, const OnnxValue& w, const OnnxValue& b, i64 stride,
                 i64 padding, i64 groups) {
  const i64 k = w.dim(-1);
  const auto size = [=](i64 n) { return (n + 2 * padding - k) / stride + 1; };
  return x.graph->node("Conv", b.graph == nullptr ? std::vector{x, w} : std::vector{x, w, b},
                       {x.dim(0), w.dim(0), size(x.dim(2)), size(x.dim(3))},
                       {{"kernel_shape", std::vector<i64>{k, k}},
                        {"strides", std::vector<i64>{stride, stride}},
                        {"pads", std::vector<i64>(4, padding)},
                        {"group", groups}});
}

OnnxValue max_pool2d(const OnnxValue& x, i64 k, i64 stride) {
  const auto size = [=](i64 n) { return (n - k) / stride + 1; };
  return x.graph->node(
      "MaxPool", {x}, {x.dim(0), x.dim(1), size(x.dim(2)), size(x.dim(3))},
      {{"kernel_shape", std::vector<i64>{k, k}}, {"strides", std::vector<i64>{stride, stride}}});
}

OnnxValue batch_norm(const OnnxValue& x, const OnnxValue& w, const OnnxValue& b,
                     const OnnxValue& mean, const OnnxValue& var, double eps) {
  return x.graph->node("BatchNormalization", {x, w, b, mean, var}, x.shape,
                       {{"epsilon", static_cast<float>(eps)}});
}

OnnxValue resize(const OnnxValue& x, i64 h, i64 w, Resize how) {
  if (x.dim(2) == h && x.dim(3) == w) return x;
  const std::string mode = how == Resize::nearest ? "nearest" : "linear",
                    at = how == Resize::nearest                  ? "asymmetric"
                         : how == Resize::bilinear_align_corners ? "align_corners"
                                                                 : "half_pixel";
  const OnnxValue none;
  return x.graph->node("Resize", {x, none, none, x.graph->integers({h, w})},
                       {x.dim(0), x.dim(1), h, w},
                       {{"mode", mode},
                        {"coordinate_transformation_mode", at},
                        {"nearest_mode", std::string("floor")},
                        {"axes", std::vector<i64>{2, 3}}});
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
