#pragma once
#include "ppma/core/names_begin.hpp"
// What a network costs, layer by layer, and the rows that the layers of nn/layers.hpp write
// (models/summary.hpp says what is counted), with their table.

#include <string>
#include <vector>

#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

struct LayerSummary {
  std::string name;  // "layers.0.blocks.1.retention.q_proj"
  Shape output;
  i64 parameters = 0, macs = 0, flops = 0;
  i64 norms = 0;  // what the published counter adds to the MACs
  i64 activation_bytes = 0;
};

struct Summary {
  std::string model;
  Shape input;
  std::vector<LayerSummary> layers;

  /// Of all layers.
  i64 parameters() const { return total(&LayerSummary::parameters); }
  /// Multiply-accumulates, algorithm 4.2.
  i64 macs() const { return total(&LayerSummary::macs); }
  /// Floating-point operations, two a multiply-accumulate.
  i64 flops() const { return total(&LayerSummary::flops); }
  /// As the paper counts: multiply-accumulates, 5 a layer norm's element, 2 a batch norm's.
  i64 published() const { return macs() + total(&LayerSummary::norms); }
  /// Bytes of all outputs of layers.
  i64 activation_bytes() const { return total(&LayerSummary::activation_bytes); }

  /// Layers joined under the first `depth` parts of their names (4: one row a block); the output is
  /// the last one's.
  PPMA_API std::vector<LayerSummary> grouped(int depth) const;
  /// A table of the grouped rows and the totals.
  PPMA_API std::string text(int depth = 4) const;

 private:
  PPMA_API i64 total(i64 LayerSummary::*what) const;
};

namespace detail {

// Operations an element, beside MACs.
inline constexpr i64 layer_norm_ops = 5, batch_norm_ops = 2, gelu_ops = 5, silu_ops = 4,
                     softmax_ops = 5, rotary_ops = 3, softplus_ops = 3;

class LayerRows {
 public:
  PPMA_API LayerRows(std::string model, const Shape& input, DType dtype);
  Summary result;

  /// Names of rows that f writes begin with name + ".".
  template <class F>
  void within(const std::string& name, F f) {
    const std::string before = prefix_;
    prefix_ += name + ".";
    f();
    prefix_ = before;
  }

  PPMA_API Shape row(const std::string& name, const Shape& out, i64 parameters, i64 macs, i64 other,
                     i64 norms = 0);
  PPMA_API Shape linear(const std::string& name, Linear& l, Shape x);
  PPMA_API Shape conv(const std::string& name, Conv2d& l, const Shape& x);
  /// A depthwise convolution and what is added to it.
  Shape depthwise(const std::string& name, DepthwiseConv2d& l, const Shape& x) {
    return row(name, x, parameter_count(l), x.numel() * l.weight.dim(2) * l.weight.dim(3),
               2 * x.numel());
  }
  Shape norm(const std::string& name, LayerNorm& l, const Shape& x) {
    return row(name, x, parameter_count(l), 0, layer_norm_ops * x.numel(),
               layer_norm_ops * x.numel());
  }
  Shape norm(const std::string& name, BatchNorm& l, const Shape& x) {
    return row(name, x, parameter_count(l), 0, batch_norm_ops * x.numel(),
               batch_norm_ops * x.numel());
  }
  Shape elementwise(const std::string& name, const Shape& x, i64 ops, i64 parameters = 0) {
    return row(name, x, parameters, 0, ops * x.numel());
  }

 private:
  std::string prefix_;
  i64 element_;
};

// 1234567 -> "1,234,567"
PPMA_API std::string grouped_digits(i64 n);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NN)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

i64 Summary::total(i64 LayerSummary::*what) const {
  i64 sum = 0;
  for (const LayerSummary& l : layers) sum += l.*what;
  return sum;
}

namespace detail {

LayerRows::LayerRows(std::string model, const Shape& input, DType dtype)
    : element_(size_of(dtype)) {
  result.model = std::move(model);
  result.input = input;
}

Shape LayerRows::row(const std::string& name, const Shape& out, i64 parameters, i64 macs, i64 other,
                     i64 norms) {
  result.layers.push_back(
      {prefix_ + name, out, parameters, macs, 2 * macs + other, norms, out.numel() * element_});
  return out;
}

Shape LayerRows::linear(const std::string& name, Linear& l, Shape x) {
  const i64 in = x[-1];
  x.set(-1, l.weight.dim(0));
  return row(name, x, parameter_count(l), x.numel() * in, l.bias.defined() ? x.numel() : 0);
}

Shape LayerRows::conv(const std::string& name, Conv2d& l, const Shape& x) {  // x (B,H,W,I)
  const auto size = [&](i64 n, i64 k) {
    return (n + 2 * l.options.padding - k) / l.options.stride + 1;
  };
  const Shape& w = l.weight.shape();
  const Shape y{x[0], size(x[1], w[2]), size(x[2], w[3]), w[0]};
  return row(name, y, parameter_count(l), y.numel() * (w.numel() / w[0]), y.numel());
}

std::string grouped_digits(i64 n) {
  const std::string digits = std::to_string(n);
  std::string s;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) s += ',';
    s += digits[i];
  }
  return s;
}

}  // namespace detail

std::vector<LayerSummary> Summary::grouped(int depth) const {
  check(depth >= 1, "summary: the depth must be at least 1, got ", depth);
  std::vector<LayerSummary> rows;
  for (const LayerSummary& l : layers) {
    std::size_t end = 0;
    for (int part = 0; part < depth && end != std::string::npos; ++part)
      end = l.name.find('.', part == 0 ? 0 : end + 1);
    const std::string name = l.name.substr(0, end);
    if (rows.empty() || rows.back().name != name) rows.push_back({name, l.output});
    LayerSummary& r = rows.back();
    r.output = l.output;
    r.parameters += l.parameters, r.macs += l.macs, r.flops += l.flops, r.norms += l.norms;
    r.activation_bytes += l.activation_bytes;
  }
  return rows;
}

std::string Summary::text(int depth) const {
  std::vector<std::vector<std::string>> cells{
      {"layer", "output", "parameters", "MACs", "FLOPs", "activations KiB"}};
  for (const LayerSummary& l : grouped(depth))
    cells.push_back({l.name, l.output.str(), detail::grouped_digits(l.parameters),
                     detail::grouped_digits(l.macs), detail::grouped_digits(l.flops),
                     detail::grouped_digits((l.activation_bytes + 1023) / 1024)});
  std::vector<std::size_t> width(cells[0].size(), 0);
  for (const auto& line : cells)
    for (std::size_t c = 0; c < line.size(); ++c) width[c] = std::max(width[c], line[c].size());
  std::string s = model + ", input " + input.str() + "\n";
  for (const auto& line : cells) {
    std::string out;
    for (std::size_t c = 0; c < line.size(); ++c) {
      const std::string space(width[c] - line[c].size(), ' ');
      out += (c == 0 ? "" : "  ") + (c < 2 ? line[c] + space : space + line[c]);
    }
    s += out + "\n";
  }
  const auto figure = [&](const char* name, i64 value, const char* what) {
    s += str(name, ": ", detail::grouped_digits(value), what, "\n");
  };
  figure("parameters", parameters(), "");
  figure("MACs", macs(), "");
  figure("FLOPs", flops(), " (2 a MAC, and norms, activations, softmax, mask)");
  figure("published", published(), " (MACs, 5 a layer norm's element, 2 a batch norm's)");
  figure("activations", activation_bytes(), " bytes");
  return s;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
