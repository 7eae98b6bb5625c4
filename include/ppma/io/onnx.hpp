#pragma once
#include "ppma/core/names_begin.hpp"
// Networks as ONNX files (onnx.ai, opset 18), for other runtimes. A graph grows as a forward pass
// computes: a function of an operation's name (io/onnx_ops.hpp) adds its nodes.
//
//   OnnxGraph g("mlp");
//   const OnnxValue x = g.input("x", {OnnxGraph::batch, 8}, "what x is");
//   g.output("y", relu(matmul(x, g.weight("w", w))), "what y is");
//   save_onnx("mlp.onnx", g);
//
// All sizes are fixed but the batch's. Values are f32. Nodes and weights bear the names of the
// modules that are alive as a Scope.

#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

class OnnxGraph;

/// A value of a graph.
struct OnnxValue {
  OnnxGraph* graph = nullptr;  // none: no value, as an absent bias
  std::string name{};
  std::vector<i64> shape{};  // the batch's size is OnnxGraph::batch

  /// How many axes.
  int rank() const { return static_cast<int>(shape.size()); }
  /// The size of an axis; -1 is the last.
  i64 dim(int axis) const { return shape.at(place(axis)); }
  /// Where the size of an axis stands.
  std::size_t place(int axis) const {
    return static_cast<std::size_t>(axis < 0 ? axis + rank() : axis);
  }
};

/// An attribute of a node.
struct OnnxAttribute {
  std::string name;
  std::variant<i64, float, std::string, std::vector<i64>> value;
};

/// Its values point at it: it stays where it is.
class OnnxGraph {
 public:
  /// The size of the batch, which is not fixed; the set of operators.
  static constexpr i64 batch = -1, opset = 18;

  /// An empty graph; its name is for people.
  explicit OnnxGraph(std::string name) : name_(std::move(name)) {}
  OnnxGraph(const OnnxGraph&) = delete;
  OnnxGraph& operator=(const OnnxGraph&) = delete;

  /// An input, f32; `doc` is for people.
  PPMA_API OnnxValue input(const std::string& name, const std::vector<i64>& shape,
                           const std::string& doc);
  /// Gives a value a name outside. `open` names the size that is not fixed, `kind` its elements.
  PPMA_API void output(const std::string& name, const OnnxValue& x, const std::string& doc,
                       const std::string& open = "batch", DType kind = DType::f32);
  /// A parameter or a table of the module whose Scope is alive: floating elements as f32, others as
  /// int64. Where its name is there already, it is the same one: blocks of a stage share tables.
  PPMA_API OnnxValue weight(const std::string& name, const Tensor& t);
  /// A number.
  PPMA_API OnnxValue scalar(double value);
  /// A list of whole numbers, as axes and sizes are given.
  PPMA_API OnnxValue integers(const std::vector<i64>& values);
  /// One that is no list.
  PPMA_API OnnxValue integer(i64 value);
  /// A node of one output of this shape.
  PPMA_API OnnxValue node(const std::string& op, const std::vector<OnnxValue>& inputs,
                          const std::vector<i64>& shape,
                          const std::vector<OnnxAttribute>& attributes = {});
  /// One of several outputs.
  PPMA_API std::vector<OnnxValue> nodes(const std::string& op, const std::vector<OnnxValue>& inputs,
                                        const std::vector<std::vector<i64>>& shapes,
                                        const std::vector<OnnxAttribute>& attributes = {});

 private:
  friend void save_onnx(const std::string& path, const OnnxGraph& graph,
                        const std::map<std::string, std::string>& metadata);
  struct Constant {
    std::string name;
    Tensor values;  // f32 or int64, on the CPU
  };
  PPMA_API OnnxValue constant(const std::string& name, const Tensor& t);

  std::string name_;
  std::vector<std::string> nodes_, inputs_, outputs_;  // messages
  std::vector<Constant> constants_;
  std::map<std::string, std::vector<i64>> shapes_;  // of the constants
  std::map<std::vector<i64>, std::string> lists_;   // integers(): a list is kept once
};

/// Writes a graph; `metadata` becomes the file's metadata_props. Errors: the file would have 2 GiB
/// or more, which no protocol buffer has; it cannot be written.
PPMA_API void save_onnx(const std::string& path, const OnnxGraph& graph,
                        const std::map<std::string, std::string>& metadata = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_ONNX)

#include "ppma/core/error.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/protobuf.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Types of elements, onnx.proto's TensorProto.DataType.
inline constexpr i64 onnx_f32 = 1, onnx_int64 = 7;

inline Protobuf onnx_attribute(const OnnxAttribute& a) {
  enum { real = 1, integer = 2, text = 3, integers = 7 };  // AttributeProto.AttributeType
  Protobuf p;
  p.text(1, a.name);
  if (const auto* f = std::get_if<float>(&a.value)) p.real(2, *f).integer(20, real);
  if (const auto* i = std::get_if<i64>(&a.value)) p.integer(3, *i).integer(20, integer);
  if (const auto* s = std::get_if<std::string>(&a.value)) p.text(4, *s).integer(20, text);
  if (const auto* all = std::get_if<std::vector<i64>>(&a.value)) {
    for (const i64 i : *all) p.integer(8, i);
    p.integer(20, integers);
  }
  return p;
}

// A ValueInfoProto.
inline std::string onnx_described(const std::string& name, const std::vector<i64>& shape,
                                  const std::string& doc, const std::string& open,
                                  DType kind = DType::f32) {
  Protobuf sizes;
  for (const i64 n : shape)
    sizes.message(1, n == OnnxGraph::batch ? Protobuf().text(2, open) : Protobuf().integer(1, n));
  Protobuf type;
  type.message(1,
               Protobuf().integer(1, kind == DType::f32 ? onnx_f32 : onnx_int64).message(2, sizes));
  return Protobuf().text(1, name).message(2, type).text(3, doc).bytes();
}

}  // namespace detail

OnnxValue OnnxGraph::input(const std::string& name, const std::vector<i64>& shape,
                           const std::string& doc) {
  inputs_.push_back(detail::onnx_described(name, shape, doc, "batch"));
  return {this, name, shape};
}

void OnnxGraph::output(const std::string& name, const OnnxValue& x, const std::string& doc,
                       const std::string& open, DType kind) {
  outputs_.push_back(detail::onnx_described(name, x.shape, doc, open, kind));
  nodes_.push_back(
      Protobuf().text(1, x.name).text(2, name).text(3, name).text(4, "Identity").bytes());
}

OnnxValue OnnxGraph::constant(const std::string& name, const Tensor& t) {
  const std::vector<i64> shape(t.shape().begin(), t.shape().end());
  const auto [known, is_new] = shapes_.emplace(name, shape);
  check(known->second == shape, "onnx: two constants of different shapes are called \"", name,
        "\"");
  if (is_new) constants_.push_back({name, t});
  return {this, name, shape};
}

OnnxValue OnnxGraph::weight(const std::string& name, const Tensor& t) {
  const std::string path = Scope::path(), full = path.empty() ? name : path + "." + name;
  check(t.defined(), "onnx: ", full,
        " is undefined; a network that was made ready for inference has no plain weights any more: "
        "export it before");
  const Tensor plain = t.detach().to(Device::cpu);
  const bool other = is_floating(t.dtype()) && t.dtype() != DType::f32;
  return constant(full,
                  other ? Tensor::from<float>(plain.to_vector<float>(), plain.shape()) : plain);
}

OnnxValue OnnxGraph::scalar(double value) {
  return constant(str("number ", value), Tensor::scalar(value));
}

OnnxValue OnnxGraph::integers(const std::vector<i64>& values) {
  const std::string& name = lists_.emplace(values, str("integers ", lists_.size())).first->second;
  return constant(name, Tensor::from<i64>(values, {static_cast<i64>(values.size())}));
}

OnnxValue OnnxGraph::integer(i64 value) {
  return constant(str("integer ", value), Tensor::from<i64>({value}, {}));
}

OnnxValue OnnxGraph::node(const std::string& op, const std::vector<OnnxValue>& inputs,
                          const std::vector<i64>& shape,
                          const std::vector<OnnxAttribute>& attributes) {
  return nodes(op, inputs, {shape}, attributes)[0];
}

std::vector<OnnxValue> OnnxGraph::nodes(const std::string& op, const std::vector<OnnxValue>& inputs,
                                        const std::vector<std::vector<i64>>& shapes,
                                        const std::vector<OnnxAttribute>& attributes) {
  const std::string name = str(Scope::path(), "/", op, "_", nodes_.size());
  std::vector<OnnxValue> outputs;
  Protobuf p;
  for (const OnnxValue& x : inputs) p.text(1, x.name);
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    outputs.push_back({this, i == 0 ? name : str(name, ":", i), shapes[i]});
    p.text(2, outputs.back().name);
  }
  p.text(3, name).text(4, op);
  for (const OnnxAttribute& a : attributes) p.message(5, detail::onnx_attribute(a));
  nodes_.push_back(p.bytes());
  return outputs;
}

void save_onnx(const std::string& path, const OnnxGraph& graph,
               const std::map<std::string, std::string>& metadata) {
  // onnx.proto's fields. Weights are written from where they lie: what is made beforehand is the
  // rest, and how long it all will be.
  Protobuf before, after;
  for (const std::string& node : graph.nodes_) before.text(1, node);
  before.text(2, graph.name_);
  std::vector<std::string> heads;
  u64 size = 0;
  for (const auto& [name, t] : graph.constants_) {
    const u64 bytes = static_cast<u64>(t.bytes());
    Protobuf head;
    for (const i64 n : t.shape()) head.integer(1, n);
    head.integer(2, t.dtype() == DType::f32 ? detail::onnx_f32 : detail::onnx_int64).text(8, name);
    head.begin(9, bytes);
    heads.push_back(Protobuf().begin(5, head.bytes().size() + bytes).bytes() + head.bytes());
    size += heads.back().size() + bytes;
  }
  for (const std::string& input : graph.inputs_) after.text(11, input);
  for (const std::string& output : graph.outputs_) after.text(12, output);
  size += before.bytes().size() + after.bytes().size();

  Protobuf model, rest;
  constexpr i64 ir_version = 8;  // the first that has opset 18
  model.integer(1, ir_version).text(2, "ppma");
  model.text(3, str(PPMA_VERSION_MAJOR, ".", PPMA_VERSION_MINOR, ".", PPMA_VERSION_PATCH));
  model.begin(7, size);
  rest.message(8, Protobuf().text(1, "").integer(2, OnnxGraph::opset));
  for (const auto& [key, value] : metadata)
    rest.message(14, Protobuf().text(1, key).text(2, value));
  const u64 total = model.bytes().size() + size + rest.bytes().size(), most = (u64{1} << 31) - 1;
  check(total <= most, path, ": an ONNX file holds at most ", most, " bytes, and this would have ",
        total, "; export a smaller network, or smaller images");

  FileWriter file(path);
  file.write(model.bytes());
  file.write(before.bytes());
  for (std::size_t i = 0; i < heads.size(); ++i) {
    const Tensor& t = graph.constants_[i].values;
    file.write(heads[i]);
    file.write(t.raw(), static_cast<std::size_t>(t.bytes()));
  }
  file.write(after.bytes());
  file.write(rest.bytes());
  file.commit();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
