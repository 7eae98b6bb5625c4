// What holds for every token mixer of the table.

#include "mixers/rounded.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/fold.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "sanitized.hpp"

using namespace mixers_test;

namespace {

PpmaConfig mixed_network(const std::string& mixers) {
  PpmaConfig c;
  c.embed_dims = {8, 8, 16, 16}, c.depths = {2, 1, 1, 1}, c.num_heads = {2, 2, 2, 2};
  c.mlp_ratios = {2, 2, 2, 2}, c.projection = 24, c.num_classes = 5, c.drop_path_rate = 0;
  c.layerscales = {true, false, false, false}, c.layer_init_values = 0.5;
  return with_mixers(c, mixers);
}

}  // namespace

TEST_CASE("mixers: gradients of tokens and of every parameter, against differences", "[mixers]") {
  for (const MixerKind& kind : mixers())
    for (const Shape& shape : {Shape{2, 3, 2, 8}, Shape{1, 8, 9, 8}}) {
      INFO(kind.name << " " << shape.str());
      Mixer m = mixer(kind.name, {8, 2, 1, 1});
      std::vector<Tensor> values{tokens(shape)};
      for (const Field& f : named_parameters(m)) values.push_back(f.tensor.detach());
      const GradCheck g = grad_check(
          [&](const std::vector<Tensor>& in) {
            std::size_t n = 1;
            for_each_field(m, [&](const std::string&, Tensor& t, Kind of) {
              if (of == Kind::parameter) t = in[n++];
            });
            return m.forward(in[0]);
          },
          values, {.least = brief() ? -1 : 1e-6, .max_elements = brief() ? 2 : 12});
      INFO(g.report);
      CHECK(g.ok);
    }
}

TEST_CASE("mixers: any grid, and f32 gives what f64 gives", "[mixers]") {
  for (const MixerKind& kind : mixers())
    for (const Shape& shape : {Shape{1, 1, 1, 12}, Shape{2, 2, 3, 12}, Shape{1, 8, 8, 12},
                               Shape{2, 13, 10, 12}, Shape{1, 20, 17, 12}}) {
      INFO(kind.name << " " << shape.str());
      const Mixer exact = mixer(kind.name, {12, 2}), single = mixer(kind.name, {12, 2}, DType::f32);
      const Tensor y = exact.forward(tokens(shape));
      CHECK(y.shape() == shape);
      CHECK(distance(single.forward(tokens(shape, DType::f32)), y) < 2e-5);
    }
  Rng rng;
  const Mixer m = mixer_of("mambaout").make({8, 2}, rng);
  CHECK(says(
      [&] {
        m.forward(Tensor::zeros({3, 8}));
      },
      "mixer: tokens must be (B,H,W,C), got (3, 8)"));
  CHECK(
      says([] { mixer_of("mambaot"); },
           "mixer: there is no \"mambaot\"; did you mean \"mambaout\"? there are none, mambaout"));
}

TEST_CASE("mixers: the images of a batch do not see each other", "[mixers]") {
  for (const MixerKind& kind : mixers()) {
    INFO(kind.name);
    const Mixer m = mixer(kind.name, {8, 2, 2, 1});
    const Tensor x = tokens({3, 9, 8, 8}), y = m.forward(x);
    for (i64 b = 0; b < 3; ++b)
      CHECK(distance(m.forward(narrow(x, 0, b, 1)), narrow(y, 0, b, 1)) < 1e-13);
  }
}

TEST_CASE("mixers: retnet written once more for its rounding is retnet", "[mixers]") {
  const MixerConfig c{16, 2, 3, 1};
  Mixer m = mixer("retnet", c);
  std::vector<Tensor> in{tokens({2, 7, 9, 16})};
  for (const Field& f : named_parameters(m)) in.push_back(f.tensor.detach());
  const Tensor y = m.forward(in[0]);
  CHECK(distance(written(c, in, as_it_is), y) < 1e-12);
  const double rough = distance(written(c, in, in_bf16), y);
  CHECK(rough > 1e-4);
  CHECK(rough < 2e-2);
}

TEST_CASE("mixers: a copy shares the elements of its tensors", "[mixers]") {
  Mixer a = mixer("mambaout", {8, 2});
  Mixer b = a;
  named_parameters(a)[0].tensor.copy_from(Tensor::full({20, 8}, 2, DType::f64));
  CHECK(named_parameters(b)[0].tensor.to_vector<double>()[0] == 2);
  Rng rng(1);
  b = mixer_of("none").make({8, 2}, rng);
  CHECK(parameter_count(b) == 0);
  CHECK(parameter_count(a) > 0);
}

TEST_CASE("mixers: networks learn a batch by heart, from weights that files keep", "[mixers]") {
  for (const MixerKind& kind : mixers()) {
    INFO(kind.name);
    const PpmaConfig c = mixed_network(kind.name);
    CHECK(c.name == str("custom_", kind.name));
    Ppma model(c, 1);
    const Tensor images = as(formula_image("mixers", {4, 3, 32, 32}), DType::f32);
    const Tensor labels = Tensor::from<i64>({0, 1, 2, 3}, {4});
    AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
    double last = 0;
    for (int step = 0; step < (sanitized() ? 2 : 60); ++step) {
      Context ctx{true, Rng(1, static_cast<u64>(step))};
      const Tensor loss = cross_entropy(model.forward(images, ctx), labels);
      loss.backward();
      optimizer.step(5e-3);
      optimizer.zero_grad();
      last = loss.item();
    }
    if (!sanitized()) CHECK(last < 0.1);

    // another network of the configuration as JSON, with these weights
    Ppma other(config_from_text(config_to_json(c).dump(), "test"), 2);
    CHECK(other.config == c);
    load_state_dict(other, as_tensors(state_dict(model)));
    const Tensor want = model.forward(images);
    CHECK(distance(other.forward(images), want) == 0);
    prepare_for_inference(other, DType::f32);
    const NoGrad off;
    CHECK(distance(other.forward(images), want) < 1e-5);
  }
}

TEST_CASE("mixers: configurations by name and by JSON, old ones as they were", "[mixers]") {
  CHECK_FALSE(config_to_json(ppma_tiny()).contains("mixers"));
  PpmaConfig c = config_from_text(
      R"({"model": "ppma_tiny", "mixers": ["window", "polyline_linear", "polyline_criss_cross", "polyline_whole"]})",
      "test");
  CHECK(c.mixers == std::array<std::string, 4>{"window", "polyline", "polyline", "polyline"});
  CHECK(c.chunkwise_recurrents == std::array<bool, 4>{false, false, true, false});
  CHECK(c.linear == std::array<bool, 4>{false, true, false, false});
  CHECK(config_from_json(config_to_json(c)) == c);
  CHECK_FALSE(c.all_polyline());
  c.depths[0] = 0;
  CHECK(c.all_polyline());
  // "polyline" leaves what the configuration says
  CHECK(config_from_text(
            R"({"model": "ppma_tiny", "mixers": ["polyline", "polyline", "polyline", "polyline"]})",
            "test") == ppma_tiny());
  CHECK(with_mixers(ppma_nano(), "polyline_whole").mixers == ppma_nano().mixers);
  CHECK(with_mixers(ppma_nano(), "none,none,window,polyline_whole").name ==
        "ppma_nano_none,none,window,polyline_whole");
  CHECK(says([] { with_mixers(ppma_nano(), "none,window"); },
             "config: mixers \"none,window\" names 2; it must be one for all stages, or four"));
  CHECK(says([] { with_mixers(ppma_nano(), "windov"); },
             "config: no mixer is called \"windov\"; did you mean \"window\"? there are "
             "polyline_whole, polyline_criss_cross, polyline_linear, none, "));
  c = ppma_nano();
  c.mixers[2] = "swin";
  CHECK(says([&] { check_config(c); }, "mixer: there is no \"swin\"; there are none, "));
  CHECK(says([] { config_from_text(R"({"mixers": ["none"]})", "f.json"); },
             "f.json: config: \"mixers\" must be a list of 4, each text"));
}

TEST_CASE("mixers: a network has attention's parts where it has attention", "[mixers]") {
  Ppma model(mixed_network("none,window,polyline_whole,polyline_whole"), 1);
  bool attends = false, mixes = false;
  for (const Field& f : state_dict(model)) {
    INFO(f.name);
    const int stage = f.name.rfind("layers.", 0) == 0 ? f.name[7] - '0' : -1;
    const bool ours = f.name.find(".retention.") != std::string::npos ||
                      f.name.find("Relpos") != std::string::npos;
    const bool other = f.name.find(".mixer.") != std::string::npos;
    if (ours) CHECK(stage >= 2);
    if (other) CHECK(stage == 1);
    attends = attends || ours, mixes = mixes || other;
  }
  CHECK((attends && mixes));
  CHECK(says([&] { model.backbone.layers[1].blocks[0].attention(); },
             "block: it has another token mixer, not a polyline attention"));
  CHECK(model.backbone.layers[2].blocks[0].attention().config.heads == 2);
}

TEST_CASE("mixers: parameters and multiply-accumulates, counted by hand", "[mixers]") {
  // a grid of 14 x 14, N = 196 tokens of C = 32 channels in G = 2 heads, of the second stage
  const i64 N = 196, C = 32, d = 16, G = 2, E = 64, R = 2;
  struct Counted {
    const char* name;
    i64 parameters, macs;
  };
  const i64 W = 42;  // of the gated convolution
  const i64 Q = 49;  // tokens of a chunk, of 4
  // one selection: W_r W_B W_C, W_d, b, A, D; and a token's products with so many in its scan
  const auto selection = [&](i64 S) { return E * (R + 2 * S) + E * R + E + E * S + E; };
  const auto select = [&](i64 S, i64 scans) {
    return E * (R + 2 * S) + E * R + E * S * (2 + scans) + E;
  };
  const i64 S = 64, in = 2 * E + 2 * S + G;  // of Mamba-2
  const std::vector<Counted> all{
      {"none", 0, 0},
      {"mambaout", C * 2 * W + 2 * W + 49 * W + W + W * C + C, N * (C * 2 * W + 49 * W + W * C)},
      // four windows of 49 tokens
      {"window", 3 * C * C + 3 * C + 169 * G + C * C + C, N * 4 * C * C + 4 * 2 * 49 * 49 * C},
      // 49 regions of four tokens, each with four
      {"biformer", 3 * C * C + 3 * C + 25 * C + C + C * C + C,
       N * (4 * C * C + 25 * C) + 49 * 49 * C + N * 2 * 16 * C},
      {"vicinity", 3 * (C * C / 2 + C / 2) + C * C / 2 + C + C * C,
       N * 2 * C * C + C * C + N * 4 * (C / 2) * (2 * d / 2 + 1)},
      // 16 x 16 numbers a head are more than 196 tokens
      {"retnet", 5 * (C * C + C) + 2 * C, N * 5 * C * C + G * N * (Q * 2 * d + 2 * d * d)},
      {"mamba2", C * in + 5 * (E + 2 * S) + 3 * G + E + E * C,
       N * (C * in + 4 * (E + 2 * S) + E + E * C) + G * N * (Q * (S + E / G) + 2 * S * E / G)},
      {"vmamba", C * E + E + 10 * E + 4 * selection(1) + 2 * E + E * C + C,
       N * (2 * C * E + 9 * E + 4 * select(1, 1))},
      {"spatial_mamba", C * 2 * E + 2 * E + 10 * E + selection(1) + 27 * E + 2 * E + E * C + C,
       N * (3 * C * E + 9 * E + select(1, 1) + 27 * E)},
      {"two_d_mamba", C * 2 * E + 2 * E + 10 * E + selection(16) + E * C + C,
       N * (3 * C * E + 9 * E + select(16, 2))},
  };
  CHECK(all.size() == mixers().size());
  for (const Counted& one : all) {
    INFO(one.name);
    PpmaConfig c = mixed_network(one.name);
    c.embed_dims = {16, C, 16, 16};
    Ppma model(c);
    i64 parameters = 0, macs = 0;
    const Summary s = summary(model, 1, 112, 112);  // 28 x 28 in the first stage
    for (const LayerSummary& l : s.layers)
      if (l.name.rfind("layers.1.blocks.0.mixer.", 0) == 0)
        parameters += l.parameters, macs += l.macs;
    CHECK(parameters == one.parameters);
    CHECK(macs == one.macs);
    CHECK(s.parameters() == parameter_count(model));
  }
}
