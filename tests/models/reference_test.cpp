// The networks against results computed elsewhere (tests/reference): every map, every gradient, the
// running statistics, the names and shapes of the published checkpoints.

#include "help.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/polyline/decay.hpp"
#include "sanitized.hpp"

using namespace ppma;
using namespace models_test;

namespace {

struct Precision {
  DType dtype;
  double map, gradient;
  Device device = Device::cpu;

  std::string name() const { return to_string(dtype) + " on " + to_string(device); }
};
const std::vector<Precision> precisions = [] {
  std::vector<Precision> all{{DType::f32, 1e-5, 1e-4}, {DType::f64, 1e-6, 1e-6}};
  if (cuda::available()) {
    all.push_back({DType::f32, 1e-5, 1e-4, Device::cuda});
    all.push_back({DType::f64, 1e-6, 1e-6, Device::cuda});
  }
  return all;
}();

template <class M>
void to(M& model, const Precision& p) {
  ppma::to(model, p.dtype);
  ppma::to(model, p.device);
}

PpmaConfig config_of(const Safetensors& file) {
  return config_from_text(file.metadata.at("config"), "the reference file");
}

// A network whose weights come next.
template <class M>
M made_empty(const PpmaConfig& config) {
  const SkipInit skip;
  return M(config);
}

// The small reference network with its weights, its input and target.
struct Mini {
  Safetensors io = read_safetensors(reference("mini_io.safetensors"));
  Ppma model = made_empty<Ppma>(config_of(io));
  Tensor input, target;

  explicit Mini(DType dtype) : Mini(Precision{dtype, 0, 0}) {}
  explicit Mini(const Precision& p) {
    to(model, p);
    const LoadReport report =
        load_state_dict(model, read_safetensors(reference("mini_weights.safetensors")).tensors);
    REQUIRE(report.loaded == 193);
    input = as(get(io.tensors, "input"), p.dtype, p.device),
    target = get(io.tensors, "target").to(p.device);
  }
};

// Positions as the reference has them in float64, not rounded to float32 on the way.
void exact_positions(Ppma& model) {
  for (std::size_t s = 0; s < 4; ++s) {
    Positions& at = model.backbone.layers[s].Relpos;
    const i64 heads = model.config.num_heads[s];
    at.angle = rotary_angle(model.config.embed_dims[s] / heads, DType::f64);
    if (at.decay.defined())
      at.decay = rmt_decay_log(heads, 2, model.config.heads_ranges[s], DType::f64);
  }
}

}  // namespace

TEST_CASE("the small network evaluates as the reference", "[models]") {
  for (const Precision& p : precisions) {
    Mini mini(p);
    Maps maps;
    Context ctx;
    mini.model.forward(mini.input, ctx, &maps);
    REQUIRE(maps.size() == 6);
    for (const auto& map : maps) {
      INFO(map.first << " " << p.name());
      CHECK(distance(map.second, get(mini.io.tensors, "eval." + map.first)) < p.map);
    }
  }
}

TEST_CASE("composed attention gives the small network the same maps", "[models]") {
  Mini mini(DType::f64);
  PpmaConfig composed = mini.model.config;
  composed.fused = false;
  Ppma other = made_empty<Ppma>(composed);
  to(other, DType::f64);
  load_state_dict(other, as_tensors(state_dict(mini.model)));
  CHECK(distance(other.forward(mini.input), get(mini.io.tensors, "eval.logits")) < 1e-6);
  CHECK(distance(other.forward(mini.input), mini.model.forward(mini.input)) < 1e-12);
}

TEST_CASE("a training step of the small network has the reference's loss, gradients and statistics",
          "[models]") {
  for (const Precision& p : precisions) {
    Mini mini(p);
    mini.input.requires_grad(true);
    Context ctx{true, Rng(1)};
    const Tensor logits = mini.model.forward(mini.input, ctx);
    const Tensor loss = cross_entropy(logits, mini.target);
    loss.backward();
    INFO(p.name());
    CHECK(distance(logits, get(mini.io.tensors, "train.logits")) < p.map);
    CHECK(loss.item() == Approx(get(mini.io.tensors, "train.loss").item()).epsilon(p.map));
    CHECK(distance(mini.input.grad(), get(mini.io.tensors, "train.grad.input")) < p.gradient);
    i64 gradients = 0, statistics = 0, zero = 0;
    for (const Field& f : state_dict(mini.model)) {
      INFO(f.name);
      if (f.kind == Kind::parameter) {
        const Tensor want = get(mini.io.tensors, "train.grad." + f.name);
        REQUIRE(f.tensor.grad().defined());
        ++gradients;
        // A bias that a batch norm takes away again (of each convolution and projection in front of
        // one, and the two of the last block that only shift its output) has no effect: its
        // gradient is rounding noise.
        if (norm(want) < 1e-12) {
          ++zero;
          CHECK(norm(f.tensor.grad()) < 100 * (p.dtype == DType::f32 ? 1.2e-7 : 2.3e-16));
        } else {
          CHECK(distance(f.tensor.grad(), want) < p.gradient);
        }
      } else if (ends_with(f.name, "running_mean") || ends_with(f.name, "running_var")) {
        ++statistics;
        CHECK(distance(f.tensor, get(mini.io.tensors, "train.after." + f.name)) < p.map);
      } else if (ends_with(f.name, "num_batches_tracked")) {
        CHECK(f.tensor.item() == 1);
      }
    }
    i64 given = 0;
    for (const auto& t : mini.io.tensors) given += t.first.rfind("train.grad.", 0) == 0;
    CHECK(gradients + 1 == given);
    CHECK(statistics == 16);
    CHECK(zero == 10);
  }
}

TEST_CASE("the dense backbone gives the reference's four maps", "[models]") {
  const Safetensors io = read_safetensors(reference("backbone_io.safetensors"));
  for (const Precision& p : precisions) {
    DenseBackbone model = made_empty<DenseBackbone>(config_of(io));
    fill_by_formula(model);
    to(model, p);
    const Tensor input = formula_image("backbone.input", {1, 3, 64, 96});
    CHECK(distance(input, get(io.tensors, "input")) == 0);
    Context ctx;
    const std::vector<Tensor> maps = model.forward(as(input, p.dtype, p.device), ctx);
    REQUIRE(maps.size() == 4);
    for (std::size_t s = 0; s < 4; ++s) {
      INFO("map " << s << " " << p.name());
      CHECK(distance(permute(maps[s], {0, 3, 1, 2}), get(io.tensors, str("out", s))) < p.map);
    }
  }
}

TEST_CASE("the published sizes give the reference's logits", "[models]") {
  if (brief()) return;  // the small network's operations, on more elements
  for (const std::string size : {"tiny", "small", "base"}) {
    if (sanitized() && size != "tiny") break;  // the same operations for minutes
    const TensorMap want = read_safetensors(reference("full_" + size + ".safetensors")).tensors;
    Ppma model = made_empty<Ppma>(config_by_name("ppma_" + size));
    fill_by_formula(model);
    for (const Precision& p : precisions) {
      // The CPU's are for machines without a GPU.
      if (cuda::available() && p.device == Device::cpu && size != "tiny") continue;
      to(model, p);
      i64 images = 0;
      for (const auto& entry : want) {
        if (!ends_with(entry.first, ".logits")) continue;
        ++images;
        const std::string name = entry.first.substr(0, entry.first.find('.'));  // "224x224"
        const i64 h = std::stol(name), w = std::stol(name.substr(name.find('x') + 1));
        Maps maps;
        Context ctx;
        const NoGrad off;
        model.forward(as(formula_image(size + "." + name, {1, 3, h, w}), p.dtype, p.device), ctx,
                      &maps);
        for (const auto& map : maps) {
          INFO(size << " " << name << " " << map.first << " " << p.name());
          if (map.first == "logits") {
            CHECK(distance(map.second, entry.second) < p.map);
            continue;
          }
          const std::vector<double> x = map.second.to_vector<double>();
          double sum = 0, square = 0;
          for (const double v : x) sum += v;
          const double n = static_cast<double>(x.size()), average = sum / n;
          for (const double v : x) square += (v - average) * (v - average);
          const std::vector<double> mean_std =
              get(want, name + "." + map.first + ".mean_std").to_vector<double>();
          CHECK(std::abs(average - mean_std[0]) < p.map * mean_std[1]);
          CHECK(std::sqrt(square / n) == Approx(mean_std[1]).epsilon(p.map));
        }
      }
      CHECK(images == (size == "tiny" ? 2 : 1));
    }
  }
}

TEST_CASE("every map of the golden file", "[models]") {
  CHECK(golden(0, 0) == 0.7666216164272852);
  CHECK(golden(0, 1) == 0.1331231503445618);
  CHECK(golden(28, 0) == 0.0714739167692342);
  CHECK(golden(1000000, 0) == 0.9038911642212244);
  const nlohmann::json file = read_json("golden_forward.json");
  std::vector<std::pair<std::string, Device>> runs;
  for (const std::string name : {"ppma_tiny", "ppma_small", "ppma_base", "rmt_tiny"}) {
    if (sanitized() && !ends_with(name, "tiny")) continue;
    runs.emplace_back(name, Device::cpu);
    if (cuda::available()) runs.emplace_back(name, Device::cuda);
  }
  for (const auto& run : runs) {
    const std::string& name = run.first;
    const Device device = run.second;
    Ppma model = made_empty<Ppma>(config_by_name(name));
    to(model, DType::f64);
    fill_golden(model);
    exact_positions(model);
    ppma::to(model, device);
    for (const DType dtype : {DType::f64, DType::f32}) {
      to(model, dtype);
      Tensor input = Tensor::empty({1, 3, 64, 96}, dtype);
      fill_golden(input, 1000000, [](double r) { return r; });
      input = input.to(device);
      // A map's path among those seen, and its name in the file.
      std::map<std::string, Tensor> seen;
      Context ctx;
      ctx.observe = [&](const std::string& path, const Tensor& y) { seen[path] = y; };
      const NoGrad off;
      model.forward(input, ctx);
      i64 compared = 0;
      const auto compare = [&](const std::string& path, const std::string& key) {
        INFO(name << " " << key << " " << to_string(dtype) << " on " << to_string(device));
        REQUIRE(seen.count(path) == 1);
        const nlohmann::json& want = file[name][key];
        const std::vector<double> x = seen[path].to_vector<double>();
        double sum = 0;
        for (const double v : x) sum += v;
        const double size = norm(seen[path]), tolerance = dtype == DType::f64 ? 1e-9 : 1e-5;
        CHECK(size == Approx(want["l2"].get<double>()).epsilon(tolerance));
        const double per_element = size / std::sqrt(static_cast<double>(x.size()));
        CHECK(std::abs(sum - want["sum"].get<double>()) <
              tolerance * size * std::sqrt(static_cast<double>(x.size())));
        REQUIRE(want["first"].size() == 6);
        for (std::size_t i = 0; i < 6; ++i)
          CHECK(std::abs(x[i] - want["first"][i].get<double>()) < 10 * tolerance * per_element);
        ++compared;
      };
      compare("patch_embed", "patch_embed");
      for (int s = 0; s < 4; ++s) {
        compare(str("layers.", s, ".blocks.0.retention"), str("stage", s, "_block0_attn_out"));
        compare(str("layers.", s), str("stage", s, "_out"));
        if (s < 3) compare(str("layers.", s, ".downsample"), str("stage", s, "_downsampled"));
      }
      compare("head", "logits");
      CHECK(compared == 13);
      const std::vector<double> logits = seen["head"].to_vector<double>();
      CHECK(std::max_element(logits.begin(), logits.end()) - logits.begin() ==
            file[name]["argmax"].get<i64>());
    }
  }
}

TEST_CASE("state dicts have the published names, shapes, types and order", "[models]") {
  for (const std::string size : {"tiny", "small", "base"}) {
    const nlohmann::json want = read_json("state_dict_" + size + ".json");
    Ppma model = made_empty<Ppma>(config_by_name("ppma_" + size));
    const std::vector<Field> fields = state_dict(model);
    REQUIRE(fields.size() == want["num_entries"].get<std::size_t>());
    CHECK(parameter_count(model) == want["num_parameters"].get<i64>());
    i64 different = 0;
    for (std::size_t i = 0; i < fields.size(); ++i) {
      const nlohmann::json& entry = want["entries"][i];
      const Field& f = fields[i];
      // nlohmann's == is many, and slow to compile
      const auto published = [&entry](const char* key) { return entry[key].get<std::string>(); };
      const bool same =
          f.name == published("name") &&
          f.tensor.shape() == Shape(entry["shape"].get<std::vector<i64>>()) &&
          (f.tensor.dtype() == DType::int64 ? "int64" : "float32") == published("dtype") &&
          (f.kind == Kind::parameter ? "parameter" : "buffer") == published("kind") &&
          (f.kind == Kind::parameter) == f.tensor.requires_grad();
      if (!same)
        ++different, UNSCOPED_INFO(i << ": " << f.name << " " << f.tensor.shape().str()
                                     << ", published " << entry.dump());
    }
    CHECK(different == 0);
  }
}
