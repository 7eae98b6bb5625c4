#pragma once
#include "ppma/core/names_begin.hpp"
// A network on given tensors, its results and what lies between as tensors: to compare it with
// another program's. Of a classifier also one training step with all gradients.

#include <string>

#include "ppma/commands/network.hpp"

namespace ppma::inline PPMA_ABI {

/// Which network, on which tensors. Of a segmentor and a detector NetworkOptions is about the whole
/// network.
struct RunOptions {
  NetworkOptions network{};
  ComputeOptions compute{};
  std::string task = "classify";  // segment, detect
  std::string input{};            // path, .safetensors: `input` (B,3,H,W), and `target` (B) to
                                  // train; of a detector one image, or the backbone's maps `map0`
                                  // to `map3` (1,C,H,W)
  std::string output{};           // path, .safetensors; "": nothing is written
  bool train = false;             // of a classifier
};

/// Runs it. Returns what `output` holds, on the CPU, bf16 as f32. A classifier: patch_embed, stage0
/// to stage3 (B,H,W,C), logits (B,K); with `train` also loss, grad.input, grad.NAME of all
/// parameters, after.NAME of all buffers. A segmentor: logits (B,H,W,K). A detector: boxes (N,4),
/// scores (N), labels (N), best first. Errors: a tensor that is not there; `train` of another task;
/// a plain transformer or another paper's network; what weights and files refuse.
PPMA_API TensorMap run_network(const RunOptions& o, Observer& observer = nobody());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <utility>
#include <vector>

#include "ppma/commands/dense_network.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Results, and the network's configuration as the file holds it.
struct RanNetwork {
  TensorMap tensors;
  Json config;
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

template <class Head>
RanNetwork run_segmentor(const RunOptions& o, const WeightsOfFile& file) {
  const Placement at = o.compute.placement();
  const auto model = dense_network<Segmentor<Head>>(o.network, file, at, true, [](const auto&) {});
  const Tensor images = at(given(o, read_safetensors(o.input).tensors, "input"));
  const NoGrad not_recorded;
  Context context;
  return {{{"logits", written(model.forward(images, context))}}, segmentor_to_json(model.config)};
}

inline RanNetwork run_detector(const RunOptions& o, Observer& observer) {
  const Placement at = o.compute.placement();
  const auto model = dense_network<MaskRcnn>(o.network, dense_weights(o.network, observer), at,
                                             true, [](const auto&) {});
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
  return {{{"boxes", boxes}, {"scores", scores}, {"labels", labels}},
          detector_to_json(model.config)};
}

inline RanNetwork run_classifier(const RunOptions& o, Observer& observer) {
  const Placement at = o.compute.placement(o.train);
  LoadedNetwork<Ppma> network = load_network(o.network, read_weights(o.network, observer));
  Ppma& model = network.model;
  place(model, at, !o.train);
  const TensorMap in = read_safetensors(o.input).tensors;
  Tensor images = at(given(o, in, "input"));
  Maps maps;
  TensorMap out;
  Context context{o.train, Rng(0)};
  const auto keep_maps = [&] {
    for (const auto& map : maps) out.emplace_back(map.first, written(map.second));
  };
  if (!o.train) {
    const NoGrad not_recorded;
    model.forward(images, context, &maps);
    keep_maps();
  } else {
    const Tensor target = given(o, in, "target").to(at.device);
    images.requires_grad(true);
    const Tensor loss = cross_entropy(model.forward(images, context, &maps), target);
    loss.backward();
    keep_maps();
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
  }
  return {std::move(out), config_to_json(model.config)};
}

}  // namespace detail

TensorMap run_network(const RunOptions& o, Observer& observer) {
  check(o.task == "classify" || o.task == "segment" || o.task == "detect", "run: `task` ", o.task,
        ": must be classify, segment or detect");
  check(o.task == "classify" || !o.train, "run `task` ", o.task,
        ": runs inference; leave out `train`");
  check(!o.input.empty(), "run: needs `input`");
  detail::RanNetwork ran;
  if (o.task == "segment")
    with_segmentor(o.network, observer, [&]<class Head>(const WeightsOfFile& file) {
      ran = detail::run_segmentor<Head>(o, file);
    });
  else
    ran = o.task == "detect" ? detail::run_detector(o, observer)
                             : detail::run_classifier(o, observer);
  if (!o.output.empty())
    write_safetensors(o.output, ran.tensors,
                      {{"config", ran.config.dump()}, {"dtype", o.compute.dtype}});
  return std::move(ran.tensors);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
