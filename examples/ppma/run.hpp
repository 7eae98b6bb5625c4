#pragma once
// ppma run: a network on given tensors; with --train one training-mode step with all gradients.

#include <memory>

#include "common.hpp"

namespace tool {

struct RunOptions {
  NetworkOptions network;
  ComputeOptions compute;
  std::string input, output;
  bool train = false;
};

/// A result as it is written: on the CPU, and bf16 as f32.
inline Tensor written(const Tensor& t) {
  return t.dtype() == DType::bf16 ? cast(t.to(Device::cpu), DType::f32) : t.to(Device::cpu);
}

inline void run(const RunOptions& o) {
  const Placement at = o.compute.placement();
  Network network = load_network(o.network);
  Ppma& model = network.model;
  place(model, at, !o.train);
  const TensorMap in = read_safetensors(o.input).tensors;
  const auto given = [&](const char* name) {
    const Tensor* t = find(in, name);
    check(t != nullptr, o.input, ": has no tensor \"", name, "\"");
    return *t;
  };
  Tensor images = at(given("input"));  // (B,3,H,W)

  Maps maps;
  TensorMap out;
  Context context{o.train, Rng(0)};
  if (o.train) {
    const Tensor target = given("target").to(at.device);
    images.requires_grad(true);
    const Tensor loss = cross_entropy(model.forward(images, context, &maps), target);
    loss.backward();
    for (const auto& map : maps) out.emplace_back(map.first, written(map.second));
    out.emplace_back("loss", written(loss));
    out.emplace_back("grad.input", written(images.grad()));
    for (const Field& f : state_dict(model)) {
      if (f.kind == Kind::buffer) out.emplace_back("after." + f.name, written(f.tensor));
      else
        out.emplace_back("grad." + f.name,
                         f.tensor.grad().defined() ? written(f.tensor.grad()) : Tensor::zeros(f.tensor.shape(), f.tensor.dtype()));
    }
  } else {
    const NoGrad not_recorded;
    model.forward(images, context, &maps);
    for (const auto& map : maps) out.emplace_back(map.first, written(map.second));
  }
  write_safetensors(o.output, out, {{"config", config_to_json(model.config).dump()}, {"dtype", o.compute.dtype}});
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
  add_compute(*c, o->compute);
  add_threads(*c);
  c->callback([o] { run(*o); });
}

}  // namespace tool
