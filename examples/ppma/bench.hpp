#pragma once
// ppma bench: time and memory of inference or of a training step, on random data; of a classifier
// under torchrun or mpirun, of a step that the processes share, each with a batch of its own.

#include <algorithm>
#include <memory>

#include "dense_network.hpp"
#include "floor.hpp"
#include "ppma/train/replay.hpp"
#include "ppma/train/transfer.hpp"

namespace tool {

struct BenchOptions {
  NetworkOptions network;
  ComputeOptions compute;
  std::string task = "classify";
  // size 0: see sized(); width 0: size
  i64 batch = 8, size = 0, width = 0, repeat = 10, warmup = 3;
  bool train = false, json = false, graph = true, heads_only = false, checkpoint_blocks = false;

  i64 image_width() const { return width > 0 ? width : size; }
};

/// Without --size, images are as the weights say that the network takes them: of a segmentor or
/// detector --shorter x --longer (of a detector up to the next multiple of 32), in training, which
/// crops, --shorter squared. Where they do not say, 224 pixels a side.
inline BenchOptions sized(BenchOptions o, const WeightsOfFile& file) {
  if (o.size > 0) return o;
  const InputInfo input = InputInfo::of(file.metadata, o.network.weights).value_or(InputInfo{});
  const auto side = [&o](i64 said) { return o.task == "detect" ? (said + 31) / 32 * 32 : said; };
  o.size = input.size > 0 ? input.size : side(input.shorter);
  if (input.size == 0 && o.width == 0 && !o.train) o.width = side(input.longer);
  check(o.size <= most_size && o.width <= most_size, o.network.weights, ": its images of ", o.size,
        " x ", o.image_width(), " pixels are more than ", most_size, " a side; give --size");
  return o;
}

/// What was measured of a step.
struct Timing {
  double ms = 0, least = 0;  // median, best
  i64 peak = 0;              // bytes in tensors
  double process = 0;        // most MiB of the process so far
  double page_faults = 0;    // a pass: new pages are touched, and cleared, while it runs
  bool captured = false;
  std::string reason;  // why not
  double floor = 0;    // ms (floor.hpp); 0: not counted
};

/// Runs once(), which runs `step`, to warm up and then to be timed; the processes `among` which it
/// is shared start together.
template <class F>
Timing time_step(const BenchOptions& o, const Placement& at, const Replay& step,
                 const Communicator* among, F&& once) {
  // before the step is captured: a replay takes its memory all at once
  reset_peak_memory(at.device);
  for (i64 i = 0; i < std::max<i64>(o.warmup, at.device == Device::cuda ? 4 : 1); ++i) once();
  cuda::synchronize();
  if (among != nullptr) among->barrier();
  const i64 faults = page_faults();
  const std::vector<double> ms = timed(o.repeat, at.device, once);
  Timing t{median(ms),
           *std::min_element(ms.begin(), ms.end()),
           memory_stats(at.device).peak_bytes,
           peak_memory_mib(),
           static_cast<double>(page_faults() - faults) / static_cast<double>(o.repeat),
           step.captured(),
           step.reason()};
  if (among != nullptr) among->barrier();
  return t;
}

/// Says what was measured of `network`; `extra` stands between the network and the sizes.
inline void report(const BenchOptions& o, const Timing& t, const std::string& network,
                   const std::string& what, Json extra, i64 ranks = 1) {
  const bool gpu = o.compute.device == "cuda";
  const double images = static_cast<double>(o.batch * ranks), per_second = 1000 * images / t.ms;
  if (o.json) {
    Json j;
    j["model"] = network;
    j.update(extra);
    j["batch"] = o.batch * ranks;
    if (ranks > 1) j["processes"] = ranks;
    j["size"] = o.size;
    if (o.image_width() != o.size) j["width"] = o.image_width();
    j["device"] = o.compute.device;
    j["threads"] = threads();
    j["dtype"] = o.compute.dtype;
    j["train"] = o.train;
    j["graph"] = t.captured;
    j["repeat"] = o.repeat;
    j["ms"] = rounded(t.ms, 1e-3);
    j["ms_min"] = rounded(t.least, 1e-3);
    j["images_per_s"] = rounded(per_second, 1e-2);
    if (t.floor > 0)
      j["floor_ms"] = rounded(t.floor, 1e-3), j["share_of_floor"] = rounded(t.floor / t.ms, 1e-3);
    j["peak_rss_MiB"] = rounded(t.process, 0.1);
    j["peak_tensors_MiB"] = rounded(mib(t.peak), 0.1);
    if (!gpu) j["page_faults"] = rounded(t.page_faults, 0.1);
    return print_json(j);
  }
  const std::string mask = extra.value("mask", "");
  std::printf("%s%s, %s, batch %lld, %lld x %lld, %s, %s%s\n", network.c_str(),
              mask.empty() ? "" : (", mask " + mask).c_str(), what.c_str(),
              static_cast<long long>(o.batch * ranks), static_cast<long long>(o.size),
              static_cast<long long>(o.image_width()),
              gpu ? "GPU" : str(threads(), " threads").c_str(), o.compute.dtype.c_str(),
              ranks > 1 ? str(", in ", ranks, " processes").c_str() : "");
  std::printf("  median of %lld   %.2f ms (best %.2f), %.2f images/s%s\n",
              static_cast<long long>(o.repeat), t.ms, t.least, per_second,
              t.captured ? ", replayed as a graph" : "");
  if (t.floor > 0)
    std::printf(
        "  floor          %.2f ms, %.0f %% of the time: its products and bytes at the machine's "
        "best rates\n",
        t.floor, 100 * t.floor / t.ms);
  if (gpu && o.graph && !t.captured && !t.reason.empty())
    std::printf("  not captured   %s\n", t.reason.c_str());
  std::printf("  peak memory    %.1f MiB of the process, %.1f MiB in tensors%s\n", t.process,
              mib(t.peak),
              gpu ? "" : str(", ", rounded(t.page_faults, 0.1), " page faults a pass").c_str());
  if (extra.contains("objects"))
    std::printf("  objects found  %lld\n", extra["objects"].get<long long>());
}

/// A training step that is replayed: `loss(context)` forward and backward, AdamW. What it draws
/// changes from step to step.
template <class Loss>
Timing time_training(const BenchOptions& o, const Placement& at, AdamW& optimizer,
                     const std::vector<Communicator>& processes, Loss&& loss_of) {
  const Communicator* const among = processes.empty() ? nullptr : processes.data();
  std::unique_ptr<GradientAverage> gradients;
  if (among != nullptr) {
    std::vector<Tensor> parameters;
    for (const Parameter& p : optimizer.parameters()) parameters.push_back(p.tensor);
    gradients = std::make_unique<GradientAverage>(processes[1], std::move(parameters));
  }
  u64 steps = 0;
  HostInputs drawn;
  Upload upload(at.device);
  Tensor result;  // stays: a captured step writes there
  Replay step(
      [&] {
        Context context{true, Rng(2)};
        context.host_inputs = &drawn, context.among = among,
        context.checkpoint_blocks = o.checkpoint_blocks;
        const Tensor loss = loss_of(context);
        if (gradients)
          gradients->backward(loss);
        else
          loss.backward();
        optimizer.update();
        optimizer.zero_grad();
        result = loss.detach();
      },
      at.device, o.graph && (among == nullptr || among->capturable));
  return time_step(o, at, step, among, [&] {
    drawn.refill(Rng(2, 0, steps++), [&](Tensor& to, const Tensor& from) { upload.add(to, from); });
    upload.send();
    optimizer.set_rate(1e-4);
    if (gradients) gradients->require_group();
    step();
  });
}

inline Tensor random_labels(const Shape& shape, i64 classes, Rng& rng) {
  Tensor labels = Tensor::empty(shape, DType::int64);
  for (i64 i = 0; i < labels.numel(); ++i) labels.data<i64>()[i] = rng.below(classes);
  return labels;
}

/// Error: more than this machine's memory holds.
inline void require_memory_for(const BenchOptions& o, const PpmaConfig& network,
                               std::optional<HeadNeeds> head = {}) {
  if (o.compute.device != "cpu") return;
  const double element = o.compute.dtype == "f64" ? 8.0 : 4.0;
  const NetworkPass work{network, o.batch, o.size, o.image_width(), o.train, o.checkpoint_blocks,
                         element, head,    o.train};
  require_memory(work, "--batch or --size", network_options(o.task));
}

/// A training step of a classifier on random images, which `processes` share, or inference.
template <class Model>
Timing time_classifier(const BenchOptions& o, const Placement& at, Model& model, i64 classes,
                       const std::vector<Communicator>& processes = {}) {
  Rng rng(1);
  const Tensor images = at(Tensor::randn({o.batch, 3, o.size, o.image_width()}, rng));
  const Tensor labels = random_labels({o.batch}, classes, rng).to(at.device);
  if (o.train) {
    AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
    return time_training(o, at, optimizer, processes, [&](Context& context) {
      return cross_entropy(model.forward(images, context), labels);
    });
  }
  Tensor result;  // stays: a captured step writes there
  Replay step([&] { result = model.forward(images); }, at.device, o.graph);
  return time_step(o, at, step, nullptr, step);
}

inline void bench_classifier(BenchOptions o) {
  const Placement at = o.compute.placement(o.train);
  const std::optional<Launch> launch = launch_from_environment();
  const std::vector<Communicator> processes = other_processes(launch, at.device);
  check(processes.empty() || o.train,
        "bench: several processes share a training step; add --train, or start one process without "
        "a launcher");
  const WeightsOfFile file = read_weights(o.network, notes());
  o = sized(std::move(o), file);
  const ClassifierConfig any = classifier_config(o.network, file, "ppma_tiny");
  const char* const what = o.train ? "training step" : "inference";
  const i64 ranks = processes.empty() ? 1 : processes[0].size;
  const bool speaks = processes.empty() || processes[0].rank == 0;
  if (const auto* other = std::get_if<NetworkConfig>(&any)) {  // nobody planned it
    Classifier model = load_classifier(o.network, file).model;
    place(model, at, !o.train);
    const Timing t = time_classifier(o, at, model, other->num_classes, processes);
    if (speaks) report(o, t, other->name, what, Json::object(), ranks);
    return;
  }
  require_memory_for(o, network_config(o.network, file, "ppma_tiny"));
  LoadedNetwork<Ppma> network = load_network(o.network, file, "ppma_tiny");
  Ppma& model = network.model;
  place(model, at, !o.train);
  Timing t = time_classifier(o, at, model, model.config.num_classes, processes);
  if (!speaks) return;
  if (model.config.all_polyline())  // of other mixers it is not known
    t.floor = 1000 * floor_of(model.config, measure_ceilings(at), o.batch, o.size, o.image_width(),
                              static_cast<double>(size_of(at.activations())), o.train);
  report(o, t, model.config.name, what, {{"mask", to_string(model.config.mask)}}, ranks);
}

/// The same of a segmentor.
template <class Head>
Timing time_segmentor(const BenchOptions& o, const Placement& at, Segmentor<Head>& model) {
  Rng rng(1);
  const Tensor images = at(Tensor::randn({o.batch, 3, o.size, o.image_width()}, rng));
  const Tensor labels =
      random_labels({o.batch, o.size, o.image_width()}, classes_of(model.config), rng)
          .to(at.device);
  if (o.train) {
    AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
    return time_training(o, at, optimizer, {}, [&](Context& context) {
      return model.loss(images, labels, context).total;
    });
  }
  Tensor result;
  Replay step(
      [&] {
        const NoGrad not_recorded;
        Context context;
        result = model.forward(images, context);
      },
      at.device, o.graph);
  return time_step(o, at, step, nullptr, step);
}

template <class Head>
void bench_segmentor(BenchOptions o, const WeightsOfFile& file) {
  const Placement at = o.compute.placement(o.train);
  auto model = dense_network<Segmentor<Head>>(
      o.network, file, at, !o.train, [&](const SegmentorConfig<Head>& c) {
        o = sized(std::move(o), file);
        require_memory_for(o, c.backbone, head_needs(c, o.size, o.image_width()));
      });
  const PpmaConfig& backbone = model.config.backbone;
  const Timing t = time_segmentor(o, at, model);
  report(o, t, std::string(Head::name) + " " + backbone.name,
         o.train ? "training step" : "inference",
         {{"task", "segment"}, {"mask", to_string(backbone.mask)}});
}

inline void bench_detector(BenchOptions o) {
  check(!o.train, "bench --task detect: times inference; leave out --train");
  const Placement at = o.compute.placement(o.train);
  const WeightsOfFile file = dense_weights(o.network, notes());
  auto model = dense_network<MaskRcnn>(o.network, file, at, true, [&](const MaskRcnnConfig& c) {
    o = sized(std::move(o), file);
    require_memory_for(o, c.backbone, head_needs(c, o.size, o.image_width()));
  });
  const PpmaConfig& backbone = model.config.backbone;
  Rng rng(1);
  const i64 height = o.size, width = o.image_width();
  check(height % 32 == 0 && width % 32 == 0,
        "bench --task detect: a detector sees images of multiples of 32, not ", height, " x ",
        width);
  const Tensor images = at(Tensor::randn({o.batch, 3, height, width}, rng));
  const std::vector<Frame> frames(static_cast<std::size_t>(o.batch),
                                  Frame{height, width, height, width, height, width, 0});
  std::vector<Tensor> maps;
  if (o.heads_only) {
    const NoGrad not_recorded;
    Context context;
    maps = model.backbone.forward(images, context);
  }
  std::size_t found = 0;
  Replay step(
      [&] {
        const auto all =
            o.heads_only ? model.detect_on(maps, frames) : model.detect(images, frames);
        found = 0;
        for (const auto& one : all) found += one.size();
      },
      at.device, false);  // boxes are chosen on the host: no graph
  BenchOptions plain = o;
  plain.graph = false;
  const Timing t = time_step(o, at, step, nullptr, step);
  report(plain, t, (model.config.with_mask ? "mask_rcnn " : "faster_rcnn ") + backbone.name,
         o.heads_only ? "heads alone" : "inference",
         {{"task", "detect"},
          {"mask", to_string(backbone.mask)},
          {"heads_only", o.heads_only},
          {"objects", found}});
}

inline void bench(const BenchOptions& o) {
  if (o.task == "classify") return bench_classifier(o);
  const std::optional<Launch> launch = launch_from_environment();
  check(!launch || launch->size == 1, "bench --task ", o.task,
        ": runs in one process; start it without a launcher");
  if (o.task == "segment")
    with_segmentor(o.network, notes(),
                   [&]<class Head>(const WeightsOfFile& file) { bench_segmentor<Head>(o, file); });
  else
    bench_detector(o);
}

inline void add_bench(CLI::App& app) {
  auto o = std::make_shared<BenchOptions>();
  auto* c = app.add_subcommand("bench", "Times inference or training steps on random data");
  add_network(*c, o->network);
  add_task(*c, o->task, o->network, "classify, segment or detect. ");
  c->add_flag("--heads-only", o->heads_only, "all but the backbone")->group("With --task detect");
  c->add_option("--batch", o->batch, "images at a time, of each process")
      ->check(in_range(i64{1}, most_batch))
      ->capture_default_str();
  c->add_option("--size", o->size, "height and width; 0: what the weights say, else 224")
      ->check(in_range(least_size, most_size, {0}))
      ->capture_default_str();
  c->add_option("--width", o->width, "another width than height")
      ->check(in_range(least_size, most_size));
  c->add_flag("--train", o->train, "forward, backward and AdamW instead of inference");
  c->add_option("--repeat", o->repeat, "timed runs")
      ->check(in_range(i64{1}, i64{1000000}))
      ->capture_default_str();
  c->add_option("--warmup", o->warmup, "runs before them")
      ->check(in_range(i64{0}, i64{1000000}))
      ->capture_default_str();
  c->add_flag("--checkpoint-blocks", o->checkpoint_blocks,
              "with --train, compute the blocks again in backward instead of keeping their results")
      ->needs("--train");
  c->add_flag("!--no-graph", o->graph,
              "on the GPU, launch kernel by kernel instead of replaying a captured graph");
  add_compute(*c, o->compute);
  add_threads(*c);
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o, c] {
    refuse_others(*c, o->task);
    bench(*o);
  });
}

}  // namespace tool
