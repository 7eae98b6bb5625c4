// What holds for every network of the table: PyTorch's values, the published checkpoint's names and
// sizes, gradients, that it learns, what it refuses.

#include "networks/help.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/models/onnx.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "sanitized.hpp"

using namespace networks_test;

TEST_CASE("networks: logits and every gradient are PyTorch's", "[networks]") {
  for (const NetworkKind& kind : networks()) {
    const Reference want(kind.name);
    for (const DType dtype : {DType::f32, DType::f64}) {
      INFO(kind.name << " " << to_string(dtype));
      const bool f32 = dtype == DType::f32;
      Network n = want.network(dtype);
      CHECK(distance(n.forward(want.input(dtype)), get(want.file.tensors, "eval.logits")) <
            (f32 ? 1e-5 : 1e-6));
      Context ctx{true, Rng(1)};
      const Tensor logits = n.forward(want.input(dtype), ctx);
      CHECK(distance(logits, get(want.file.tensors, "logits")) < (f32 ? 1e-5 : 1e-6));
      cross_entropy(logits, get(want.file.tensors, "target")).backward();
      // VVT's sums cancel: with -O2, which adds in another order than -O3, one was 1.3e-4 off.
      const double in_float = kind.name == std::string("vvt") ? 2e-4 : 1e-4;
      std::size_t compared = 0;
      for (const Field& f : named_parameters(n)) {
        INFO(f.name);
        const Tensor gradient = get(want.file.tensors, "grad." + f.name);
        REQUIRE(f.tensor.grad().defined());
        CHECK(f.tensor.grad().shape() == gradient.shape());
        if (models_test::norm(gradient) > 1e-12)
          CHECK(distance(f.tensor.grad(), gradient) < (f32 ? in_float : 1e-6));
        else  // 0 but for rounding: the bias before a batch norm
          CHECK(models_test::norm(f.tensor.grad()) < (f32 ? 1e-5 : 1e-12));
        ++compared;
      }
      CHECK(compared + 3 == want.file.tensors.size());
    }
  }
}

TEST_CASE("networks: names, shapes and sizes are those of the published checkpoints",
          "[networks]") {
  struct Published {
    const char *network, *parameters, *flops;  // as papers print them, in M and G
  };
  const std::vector<Published> published{
      {"mambaout", "26.5", "4.5"},   {"vmamba", "30", "4.9"},     {"spatial_mamba", "27", "4.5"},
      {"two_d_vmamba", "30", "4.9"}, {"biformer", "13.1", "2.2"}, {"vvt", "12.9", "3.0"}};
  REQUIRE(published.size() == networks().size());
  const SkipInit skip;
  for (const Published& paper : published) {
    INFO(paper.network);
    const auto want = models_test::read_json(std::string("networks/") + paper.network + ".json");
    const NetworkConfig c = network_of(paper.network).configs.at(0);
    CHECK(want["model"] == c.name);
    Network n(c);
    std::vector<std::string> ours, theirs;
    for (const Field& f : state_dict(n)) ours.push_back(f.name + f.tensor.shape().str());
    for (const auto& e : want["entries"])
      theirs.push_back(e["name"].get<std::string>() +
                       Shape(e["shape"].get<std::vector<i64>>()).str());
    CHECK(ours == theirs);
    CHECK(parameter_count(n) == want["num_parameters"]);
    const Summary s = summary(n, 1, 224, 224);
    CHECK(s.parameters() == want["num_parameters"]);
    CHECK(s.model == c.name);
    const auto printed = [](i64 value, double unit, const char* as_text) {
      const std::string text = as_text;
      const std::size_t point = text.find('.');
      const int digits = point == std::string::npos ? 0 : static_cast<int>(text.size() - point - 1);
      char buffer[32];
      std::snprintf(buffer, sizeof buffer, "%.*f", digits, static_cast<double>(value) / unit);
      return std::string(buffer);
    };
    CHECK(printed(s.parameters(), 1e6, paper.parameters) == paper.parameters);
    INFO(s.published());
    CHECK(printed(s.published(), 1e9, paper.flops) == paper.flops);
    i64 of_rows = 0;
    for (const LayerSummary& l : s.layers) of_rows += l.parameters;
    CHECK(of_rows == parameter_count(n));
    // the head is where the table says
    const std::string head = std::string(network_of(paper.network).head) + ".weight";
    CHECK(find(as_tensors(state_dict(n)), head) != nullptr);
    CHECK(find(as_tensors(state_dict(n)), head)->dim(0) == c.num_classes);
  }
}

TEST_CASE("networks: gradients of images and of parameters, against differences", "[networks]") {
  for (const NetworkKind& kind : networks()) {
    INFO(kind.name);
    const Reference small(kind.name);
    Network n = small.network(DType::f64);
    std::vector<Tensor> values{as(formula_image("differences", {1, 3, 32, 37}), DType::f64)};
    const std::size_t each = 29;  // every 29th parameter; PyTorch's values are of all
    const std::vector<Field> parameters = named_parameters(n);
    for (std::size_t p = 0; p < parameters.size(); p += each)
      values.push_back(parameters[p].tensor.detach());
    const GradCheck g = grad_check(
        [&](const std::vector<Tensor>& in) {
          std::size_t p = 0;
          for_each_field(n, [&](const std::string&, Tensor& t, Kind of) {
            if (of != Kind::parameter) return;
            if (p % each == 0) t = in[1 + p / each];
            ++p;
          });
          Context ctx;
          return n.forward(in[0], ctx);
        },
        // ReLU has kinks; taps of large kernels beside the last stage's few tokens have no gradient
        values, {.tolerance = 1e-3, .least = -1, .max_elements = 2});
    INFO(g.report);
    CHECK(g.ok);
  }
}

TEST_CASE("networks: steps on generated images lower the loss, with paths dropped", "[networks]") {
  const Dataset set = shapes({.height = 32, .width = 32, .images = 8, .seed = 3});
  std::vector<float> pixels;
  std::vector<i64> labels;
  for (i64 i = 0; i < 8; ++i) {
    const Sample one = set.get(i);
    for (const double v : one.image.to_vector<double>())
      pixels.push_back(static_cast<float>(v / 128 - 1));
    labels.push_back(one.label % 5);
  }
  const Tensor images = permute(Tensor::from<float>(pixels, {8, 32, 32, 3}), {0, 3, 1, 2}),
               target = Tensor::from<i64>(labels, {8});
  for (const NetworkKind& kind : networks()) {
    INFO(kind.name);
    NetworkConfig c = Reference(kind.name).config;
    c.num_classes = 5, c.drop_path_rate = 0.1;
    Classifier model(c, 1);
    AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
    double first = 0, last = 0;
    for (int step = 0; step < (brief() ? 2 : 12); ++step) {
      Context ctx{true, Rng(1, static_cast<u64>(step))};
      const Tensor loss = cross_entropy(model.forward(images, ctx), target);
      loss.backward();
      optimizer.step(5e-3);
      optimizer.zero_grad();
      (step == 0 ? first : last) = loss.item();
    }
    if (!brief()) CHECK(last < 0.9 * first);
  }
}

TEST_CASE("networks: blocks computed again, packed weights and image by image change nothing",
          "[networks]") {
  for (const NetworkKind& kind : networks()) {
    INFO(kind.name);
    const Reference small(kind.name);
    NetworkConfig c = small.config;
    c.drop_path_rate = 0.5;
    const Tensor images = as(formula_image("same", {5, 3, 48, 33}), DType::f64),
                 target = Tensor::from<i64>({0, 1, 2, 3, 4}, {5});
    std::vector<double> before;
    for (const bool again : {false, true}) {
      Network n(c, 3);
      to(n, DType::f64);
      Context ctx{true, Rng(1)};
      ctx.checkpoint_blocks = again;
      cross_entropy(n.forward(images, ctx), target).backward();
      std::vector<double> gradients;
      for (const Field& f : named_parameters(n))
        for (const double v : f.tensor.grad().to_vector<double>()) gradients.push_back(v);
      if (again) CHECK(distance(gradients, before) < 1e-12);
      before = gradients;
    }
    // all at once, recorded, and each by itself
    Network n = small.network(DType::f64);
    Context ctx;
    const Tensor whole = n.forward(images, ctx);
    CHECK(distance(n.forward(images), whole) < 1e-12);
    const Tensor one = n.forward(narrow(images, 0, 3, 1));
    CHECK(distance(one, narrow(whole, 0, 3, 1)) < 1e-12);

    Classifier ready(small.config);
    models_test::fill_by_formula(ready);
    const Tensor plain = ready.forward(as(images, DType::f32));
    prepare_for_inference(ready, DType::f32);
    CHECK(distance(ready.forward(as(images, DType::f32)), plain) < 1e-5);
    CHECK(state_dict(ready).size() < state_dict(n).size());
    Classifier rounded(small.config);
    models_test::fill_by_formula(rounded);
    prepare_for_inference(rounded, DType::bf16);
    const double off = distance(rounded.forward(as(images, DType::f32)), plain);
    CHECK((off > 0 && off < 0.05));
  }
}

TEST_CASE("networks: on a GPU in f32, bf16, and a step", "[networks]") {
  if (!cuda::available()) return;
  for (const NetworkKind& kind : networks()) {
    INFO(kind.name);
    const Reference small(kind.name);
    Network n = small.network(DType::f32);
    to(n, Device::cuda);
    const Tensor want = get(small.file.tensors, "eval.logits"),
                 images = small.input(DType::f32).to(Device::cuda);
    CHECK(distance(n.forward(images).to(Device::cpu), want) < 1e-5);
    const Tensor narrow = n.forward(cast(images, DType::bf16));
    CHECK(narrow.dtype() == DType::f32);
    CHECK(distance(narrow.to(Device::cpu), want) < 0.05);
    Context ctx{true, Rng(1)};
    const Tensor target = get(small.file.tensors, "target").to(Device::cuda);
    cross_entropy(n.forward(images, ctx), target).backward();
    for (const Field& f : named_parameters(n)) {
      INFO(f.name);
      const Tensor gradient = get(small.file.tensors, "grad." + f.name);
      if (models_test::norm(gradient) > 1e-12)
        CHECK(distance(f.tensor.grad().to(Device::cpu), gradient) < 1e-4);
    }
  }
}

TEST_CASE("networks: a path that is dropped is the sample's own", "[networks]") {
  for (const NetworkKind& kind : networks()) {
    INFO(kind.name);
    NetworkConfig c = Reference(kind.name).config;
    c.drop_path_rate = 0.9;
    Network n(c, 1);
    models_test::fill_by_formula(n);
    const Tensor images = formula_image("drop", {3, 3, 32, 32});
    const auto logits = [&](u64 seed) {
      const NoGrad off;
      Context ctx{true, Rng(seed)};
      return n.forward(images, ctx);
    };
    CHECK(distance(logits(1), logits(1)) == 0);
    CHECK(distance(logits(1), logits(2)) > 1e-3);
  }
}

TEST_CASE("networks: values, configurations as JSON, weights of a file", "[networks]") {
  const Reference small("mambaout");
  Network a = small.network(DType::f32), b = a;
  Tensor first = state_dict(a)[0].tensor;
  first.copy_from(Tensor::full(first.shape(), 2));
  CHECK(state_dict(b)[0].tensor.to_vector<double>()[0] == 2);
  b = small.network(DType::f64);
  CHECK(state_dict(a)[0].tensor.dtype() == DType::f32);

  for (const std::string& name : network_names()) {
    INFO(name);
    const ClassifierConfig c = classifier_config_by_name(name);
    const auto j = classifier_config_to_json(c);
    CHECK(j["name"] == name);
    CHECK(classifier_config_to_json(classifier_config_from_text(j.dump(), "here")) == j);
    CHECK(head_of(c) == network_of(j["network"].get<std::string>()).head);
  }
  const auto read = [](const std::string& text) {
    return std::get<NetworkConfig>(classifier_config_from_text(text, "here"));
  };
  CHECK(read(R"({"model": "mambaout_nano", "num_classes": 3})").num_classes == 3);
  CHECK(read(R"({"network": "mambaout"})").depths == std::vector<i64>{3, 3, 9, 3});
  CHECK(read(R"({"network": "mambaout"})").name == "custom");

  Classifier from(read(R"({"model": "mambaout_nano"})"), 1), into(from.config(), 2);
  CHECK(load_state_dict(into, as_tensors(state_dict(from))).complete());
  const Tensor images = formula_image("values", {1, 3, 32, 32});
  CHECK(distance(into.forward(images), from.forward(images)) == 0);
}

TEST_CASE("networks: weights decay, scans' decays do not", "[networks]") {
  Classifier n(classifier_config_by_name("vmamba_nano"));
  int decays = 0;
  for (const Parameter& p : parameters_of(n, no_decay_rules(0.05))) {
    const bool of_scan = p.name.ends_with(".A_logs");
    if (of_scan) CHECK(p.weight_decay == 0);
    if (p.name.ends_with("proj.weight")) CHECK(p.weight_decay == 0.05);
    decays += of_scan;
  }
  CHECK(decays == 5);
}

TEST_CASE("networks: linear layers take the weights of convolutions 1 x 1", "[networks]") {
  Classifier from(classifier_config_by_name("vmamba_nano"), 1), into(from.config(), 2);
  TensorMap tensors = as_tensors(state_dict(from));
  for (auto& [name, t] : tensors)
    if (t.rank() == 2 && name.ends_with("proj.weight")) t = t.viewed_as({t.dim(0), t.dim(1), 1, 1});
  CHECK(load_state_dict(into, tensors).complete());
  const Tensor images = formula_image("values", {1, 3, 32, 32});
  CHECK(distance(into.forward(images), from.forward(images)) == 0);
  tensors.back().second = Tensor::zeros({2, 2});
  CHECK(says([&] { load_state_dict(into, tensors); }, "1 of another shape"));
}

TEST_CASE("networks: what they refuse", "[networks]") {
  for (const NetworkKind& kind : networks()) {
    INFO(kind.name);
    const Network n = Reference(kind.name).network(DType::f32);
    CHECK(says(
        [&] {
          n.forward(Tensor::zeros({1, 3, 31, 64}));
        },
        str(kind.name, ": images must be at least 32 x 32, got 31 x 64")));
    CHECK(says(
        [&] {
          n.forward(Tensor::zeros({1, 1, 32, 32}));
        },
        str(kind.name, ": images must be (B,3,H,W), got (1, 1, 32, 32)")));
  }
  const auto read = [](const char* text) {
    return [text] { classifier_config_from_text(text, "f.json"); };
  };
  CHECK(says(read(R"({"network": "mambaut"})"),
             "f.json: there is no network \"mambaut\"; it may be vit, mambaout, vmamba, "));
  CHECK(says(read(R"({"network": "mambaout", "depths": [1, 2]})"),
             "f.json: config: a network has four stages; depths are 2, dims are 4"));
  CHECK(says(read(R"({"network": "mambaout", "dims": [8, 0, 8, 8]})"),
             "f.json: config: dims[1] is 0; it must be 1 to 65536"));
  CHECK(
      says(read(R"({"network": "mambaout", "mask": "polyline"})"), "f.json: unknown key \"mask\""));
  CHECK(says(read(R"({"network": "mambaout", "heads": [1, 2]})"), "config: heads are 2"));
  CHECK(says(read(R"({"network": "mambaout", "model": "vmambo"})"),
             "f.json: there is no model \"vmambo\" of network mambaout"));
  CHECK(says(
      [] { Network(NetworkConfig{.network = "mambaut"}); },
      "network: there is no \"mambaut\"; did you mean \"mambaout\"? there are mambaout, vmamba, "));
  CHECK(says([] { classifier_config_by_name("mambaout_huge"); }, "vit_nano, mambaout_tiny"));
  CHECK(says(
      [] {
        Network(NetworkConfig{.network = "mambaout",
                              .depths = {1, 1, 1, 1},
                              .dims = {8, 8, 8, 8},
                              .heads = {1, 1, 1, 1}});
      },
      "mambaout: has no attention; leave heads out"));
  CHECK(says(
      [] {
        Network n(classifier_config_by_name("mambaout_nano").index() == 2
                      ? *network_config_by_name("mambaout_nano")
                      : NetworkConfig());
        summary(n, 0, 32, 32);
      },
      "summary: needs a batch and images of at least 32 x 32"));
  OnnxGraph g("x");
  const Classifier c(classifier_config_by_name("mambaout_nano"));
  CHECK(says([&] { export_onnx(c, g, 64, 64); },
             "onnx: mambaout_nano is a network of another paper, mambaout"));
}
