#pragma once
// ppma run: a network on given tensors; of a classifier with --train one training-mode step with
// all gradients.

#include <memory>

#include "dense_network.hpp"

namespace tool {

struct RunOptions {
  NetworkOptions network;
  ComputeOptions compute;
  std::string input, output, task = "classify";
  bool train = false;
};

/// A result as it is written: on the CPU, and bf16 as f32.
inline Tensor written(const Tensor& t) {
  return t.dtype() == DType::bf16 ? cast(t.to(Device::cpu), DType::f32) : t.to(Device::cpu);
}

/// A tensor of the input file. Error: there is none of this name.
inline Tensor given(const RunOptions& o, const TensorMap& in, const std::string& name) {
  const Tensor* t = find(in, name);
  check(t != nullptr, o.input, ": has no tensor \"", name, "\"");
  return *t;
}

/// Images -> logits (B,H,W,K).
template <class Head>
void run_segmentor(const RunOptions& o, const WeightsOfFile& file) {
  const Placement at = o.compute.placement();
  const auto model = dense_network<Segmentor<Head>>(o.network, file, at, true, [](const auto&) {});
  const Tensor images = at(given(o, read_safetensors(o.input).tensors, "input"));
  const NoGrad not_recorded;
  Context context;
  write_safetensors(
      o.output, {{"logits", written(model.forward(images, context))}},
      {{"config", segmentor_to_json(model.config).dump()}, {"dtype", o.compute.dtype}});
}

/// One image, or the four maps of the backbone for it -> its objects, best first.
inline void run_detector(const RunOptions& o) {
  const Placement at = o.compute.placement();
  const auto model = dense_network<MaskRcnn>(o.network, dense_weights(o.network, notes()), at, true,
                                             [](const auto&) {});
  const TensorMap in = read_safetensors(o.input).tensors;
  const bool from_maps = find(in, "map0") != nullptr;
  const Tensor first = given(o, in, from_maps ? "map0" : "input");
  check(first.rank() == 4 && first.dim(0) == 1, o.input, ": a detector takes one image, got ",
        first.shape());
  const i64 scale = from_maps ? 4 : 1, height = scale * first.dim(2), width = scale * first.dim(3);
  const std::vector<Frame> frames{{height, width, height, width, height, width, 0}};
  std::vector<Tensor> maps;
  if (from_maps)
    for (const char* name : {"map0", "map1", "map2", "map3"})
      maps.push_back(permute(at(given(o, in, name)), {0, 2, 3, 1}));
  const std::vector<Detection> found =
      from_maps ? model.detect_on(maps, frames)[0] : model.detect(at(first), frames)[0];
  const i64 n = static_cast<i64>(found.size());
  Tensor boxes = Tensor::empty({n, 4}), scores = Tensor::empty({n}),
         labels = Tensor::empty({n}, DType::int64);
  for (i64 i = 0; i < n; ++i) {
    const Detection& d = found[static_cast<std::size_t>(i)];
    float* const b = boxes.data<float>() + 4 * i;
    b[0] = d.box.x1, b[1] = d.box.y1, b[2] = d.box.x2, b[3] = d.box.y2;
    scores.data<float>()[i] = static_cast<float>(d.score), labels.data<i64>()[i] = d.label;
  }
  write_safetensors(
      o.output, {{"boxes", boxes}, {"scores", scores}, {"labels", labels}},
      {{"config", detector_to_json(model.config).dump()}, {"dtype", o.compute.dtype}});
}

inline void run(const RunOptions& o) {
  check(o.task == "classify" || !o.train, "run --task ", o.task,
        ": runs inference; leave out --train");
  if (o.task == "segment")
    return with_segmentor(o.network, notes(), [&]<class Head>(const WeightsOfFile& file) {
      run_segmentor<Head>(o, file);
    });
  if (o.task == "detect") return run_detector(o);
  const Placement at = o.compute.placement(o.train);
  LoadedNetwork<Ppma> network = load_network(o.network, read_weights(o.network, notes()));
  Ppma& model = network.model;
  place(model, at, !o.train);
  const TensorMap in = read_safetensors(o.input).tensors;
  Tensor images = at(given(o, in, "input"));  // (B,3,H,W)

  Maps maps;
  TensorMap out;
  Context context{o.train, Rng(0)};
  if (o.train) {
    const Tensor target = given(o, in, "target").to(at.device);
    images.requires_grad(true);
    const Tensor loss = cross_entropy(model.forward(images, context, &maps), target);
    loss.backward();
    for (const auto& map : maps) out.emplace_back(map.first, written(map.second));
    out.emplace_back("loss", written(loss));
    out.emplace_back("grad.input", written(images.grad()));
    for (const Field& f : state_dict(model)) {
      if (f.kind == Kind::buffer)
        out.emplace_back("after." + f.name, written(f.tensor));
      else
        out.emplace_back("grad." + f.name, f.tensor.grad().defined()
                                               ? written(f.tensor.grad())
                                               : Tensor::zeros(f.tensor.shape(), f.tensor.dtype()));
    }
  } else {
    const NoGrad not_recorded;
    model.forward(images, context, &maps);
    for (const auto& map : maps) out.emplace_back(map.first, written(map.second));
  }
  write_safetensors(o.output, out,
                    {{"config", config_to_json(model.config).dump()}, {"dtype", o.compute.dtype}});
}

inline void add_run(CLI::App& app) {
  auto o = std::make_shared<RunOptions>();
  auto* c = app.add_subcommand(
      "run", "Runs a network on the tensors of a file, optionally one training step");
  add_network(*c, o->network);
  add_task(*c, o->task, o->network, "classify, segment or detect. ");
  c->add_option("--input", o->input,
                "safetensors with `input` (B,3,H,W), and `target` (B) for --train; detect: also "
                "map0 to map3 (1,C,H,W) of a backbone")
      ->required()
      ->check(CLI::ExistingFile);
  c->add_option("--output", o->output,
                "safetensors to write: patch_embed, stage0 to stage3 (B,H,W,C), logits; segment: "
                "logits (B,H,W,K); detect: boxes, scores, labels")
      ->required()
      ->check(some_text());
  c->add_flag("--train", o->train, "training mode; adds loss, grad.input, grad.NAME, after.BUFFER");
  add_compute(*c, o->compute);
  add_threads(*c);
  c->callback([o, c] {
    refuse_others(*c, o->task);
    run(*o);
  });
}

}  // namespace tool
