// One attention layer of each kind against tests/reference/attention_*.safetensors: log masks,
// output, every gradient.

#include <map>

#include "polyline/help.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/rotary.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/masks.hpp"

using namespace polyline_test;

namespace reference_test {

namespace {

struct Reference {
  std::map<std::string, Tensor> t;
  i64 heads;
  explicit Reference(const std::string& kind) {
    const Safetensors file = read_safetensors(std::string(PPMA_TEST_REFERENCE_DIR) + "/attention_" +
                                              kind + ".safetensors");
    for (const auto& [name, tensor] : file.tensors) t[name] = tensor;
    heads = std::stol(file.metadata.at("heads"));
  }
  i64 d() const { return t.at("input").dim(3) / heads; }
};

// The layer of algorithm 3.4 from operations. `fused` picks the attention.
Tensor layer(const Reference& r, const Tensor& x, std::map<std::string, Tensor>& w,
             bool criss_cross, bool fused) {
  const auto project = [&](const char* name) {
    return linear(x, w[std::string(name) + ".weight"], w[std::string(name) + ".bias"]);
  };
  const Tensor angle = rotary_angle(r.d(), x.dtype());
  const Tensor q = rotary(project("q_proj"), angle, r.heads);
  const Tensor k =
      rotary(project("k_proj"), angle, r.heads, 1 / std::sqrt(static_cast<double>(r.d())));
  const Tensor v = project("v_proj");
  const Tensor &weight = w["path_embed.dt_linear.weight"], &bias = w["path_embed.dt_bias"],
               &a_log = w["path_embed.A_log"];
  const Tensor decays =
      fused ? log_decay(x, weight, bias, a_log) : log_decay_composed(x, weight, bias, a_log);
  const Tensor y = criss_cross ? (fused ? criss_cross_attention(q, k, v, r.heads, decays)
                                        : criss_cross_attention_composed(q, k, v, r.heads, decays))
                               : (fused ? whole_attention(q, k, v, r.heads, decays)
                                        : whole_attention_composed(q, k, v, r.heads, decays));
  return linear(depthwise_conv2d(v, w["lepe.conv.weight"], w["lepe.conv.bias"], y),
                w["out_proj.weight"], w["out_proj.bias"]);
}

void compare(const std::string& kind, DType type, bool fused, double value_tolerance,
             double gradient_tolerance) {
  const Reference r(kind);
  INFO(kind << " " << to_string(type) << (fused ? " fused" : " composed"));
  std::map<std::string, Tensor> weights;
  for (const auto& [name, tensor] : r.t)
    if (name.compare(0, 7, "weight.") == 0)
      weights[name.substr(7)] = cast(tensor, type).requires_grad(true);
  Tensor x = cast(r.t.at("input"), type).clone();
  x.requires_grad(true);
  const Tensor y = layer(r, x, weights, kind == "criss_cross", fused);
  CHECK(distance(y, r.t.at("output")) < value_tolerance);
  y.backward(cast(r.t.at("grad_output"), type));
  CHECK(distance(x.grad(), r.t.at("grad_input")) < gradient_tolerance);
  int compared = 0;
  for (const auto& [name, w] : weights) {
    INFO(name);
    CHECK(distance(w.grad(), r.t.at("grad." + name)) < gradient_tolerance);
    ++compared;
  }
  CHECK(compared == 13);
}

}  // namespace

TEST_CASE("reference: whole attention layer", "[polyline][reference]") {
  for (const bool fused : {false, true}) {
    compare("full", DType::f64, fused, 1e-6, 1e-6);
    compare("full", DType::f32, fused, 1e-5, 1e-4);
  }
}

TEST_CASE("reference: criss-cross attention layer", "[polyline][reference]") {
  for (const bool fused : {false, true}) {
    compare("criss_cross", DType::f64, fused, 1e-6, 1e-6);
    compare("criss_cross", DType::f32, fused, 1e-5, 1e-4);
  }
}

TEST_CASE("reference: log masks", "[polyline][reference]") {
  for (const DType type : {DType::f64, DType::f32}) {
    const double tolerance = type == DType::f64 ? 1e-6 : 1e-5;
    const auto decays = [type](const Reference& r) {
      const auto w = [&](const char* name) {
        return cast(r.t.at(std::string("weight.path_embed.") + name), type);
      };
      return log_decay(cast(r.t.at("input"), type), w("dt_linear.weight"), w("dt_bias"),
                       w("A_log"));
    };
    const Reference full("full"), criss("criss_cross");
    const Tensor d = decays(full), e = decays(criss);
    // "h2v" in the file's name reads the path from the query: it is log L.
    CHECK(distance(polyline_log_mask(d, Paths::v2h), full.t.at("log_mask.h2v")) < tolerance);
    const LineMasks lines = line_log_masks(e);
    CHECK(distance(permute(lines.rows, {0, 2, 1, 3, 4}), criss.t.at("log_mask.rows")) < tolerance);
    CHECK(distance(permute(lines.columns, {0, 2, 1, 3, 4}), criss.t.at("log_mask.cols")) <
          tolerance);
  }
}

}  // namespace reference_test
