#pragma once
// ppma run: a network on given tensors; with --train one training-mode step with all gradients.

#include <memory>

#include "common.hpp"

namespace tool {

struct RunOptions {
  NetworkOptions network;
  std::string input, output, dtype = "f32", device = "cpu";
  bool train = false;
};

inline void run(const RunOptions& o) {
  check(o.device == "cpu", "--device ", o.device, ": this program was built without CUDA");
  const DType dtype = dtype_by_name(o.dtype);
  Network network = load_network(o.network);
  Ppma& model = network.model;
  to(model, dtype);
  const TensorMap in = read_safetensors(o.input).tensors;
  const auto given = [&](const char* name) {
    const Tensor* t = find(in, name);
    check(t != nullptr, o.input, ": has no tensor \"", name, "\"");
    return *t;
  };
  Tensor images = Tensor::empty(given("input").shape(), dtype);  // (B,3,H,W)
  images.copy_from(given("input"));

  Maps maps;
  TensorMap out;
  Context context{o.train, Rng(0)};
  if (o.train) {
    const Tensor target = given("target");
    images.requires_grad(true);
    const Tensor loss = cross_entropy(model.forward(images, context, &maps), target);
    loss.backward();
    for (const auto& map : maps) out.emplace_back(map.first, map.second.detach());
    out.emplace_back("loss", loss.detach());
    out.emplace_back("grad.input", images.grad());
    for (const Field& f : state_dict(model)) {
      if (f.kind == Kind::buffer) out.emplace_back("after." + f.name, f.tensor);
      else
        out.emplace_back("grad." + f.name,
                         f.tensor.grad().defined() ? f.tensor.grad() : Tensor::zeros(f.tensor.shape(), dtype));
    }
  } else {
    const NoGrad not_recorded;
    model.forward(images, context, &maps);
    for (const auto& map : maps) out.emplace_back(map.first, map.second);
  }
  write_safetensors(o.output, out, {{"config", config_to_json(model.config).dump()}, {"dtype", o.dtype}});
}

inline void add_run(CLI::App& app) {
  auto o = std::make_shared<RunOptions>();
  auto* c = app.add_subcommand("run", "Runs a network on the tensors of a file, optionally one training step");
  add_network(*c, o->network);
  c->add_option("--input", o->input, "safetensors with `input` (B,3,H,W), and `target` (B) for --train")
      ->required()
      ->check(CLI::ExistingFile);
  c->add_option("--output", o->output, "safetensors to write: patch_embed, stage0 to stage3 (B,H,W,C), logits")
      ->required();
  c->add_flag("--train", o->train, "training mode; adds loss, grad.input, grad.NAME, after.BUFFER");
  add_dtype(*c, o->dtype);
  c->add_option("--device", o->device, "where to compute")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  add_threads(*c);
  c->callback([o] { run(*o); });
}

}  // namespace tool
