#pragma once
#include "ppma/core/names_begin.hpp"
// Time and memory of inference or of a training step, on random data; of a classifier under
// torchrun or mpirun, of a step that the processes share, each with a batch of its own.

#include <string>

#include "ppma/commands/bench_options.hpp"

namespace ppma::inline PPMA_ABI {

/// What a network took.
struct NetworkBench {
  std::string network{};                  // its name, behind its head's: "upernet ppma_tiny"
  std::string mask{};                     // "": another paper's network, which has none
  i64 images = 0, height = 0, width = 0;  // of a step, in all processes
  i64 processes = 1, rank = 0;            // that shared it; rank 0 alone counts the floor
  Timing timing{};
  i64 macs = 0;      // multiply-accumulates of an image, in its backbone
  double floor = 0;  // ms, the least that the work could take (floor.hpp); 0: not counted
  i64 objects = 0;   // that a detector found, on all images

  /// Of all processes.
  double images_per_second() const { return 1000 * static_cast<double>(images) / timing.ms; }
};

/// Measures it. Errors: what is not timed (a detector's training, inference in several processes);
/// images that the network does not take; what weights and memory refuse.
PPMA_API NetworkBench bench_network(const BenchOptions& o, Observer& observer = nobody());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "ppma/commands/bench_steps.hpp"
#include "ppma/commands/floor.hpp"
#include "ppma/models/summary.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Without a size, images are as the weights say that the network takes them: of a segmentor or
/// detector shorter x longer (of a detector up to the next multiple of 32), in training, which
/// crops, shorter squared. Where they do not say, 224 pixels a side.
inline BenchOptions sized(BenchOptions o, const WeightsOfFile& file) {
  if (o.size > 0) return o;
  const InputInfo input = InputInfo::of(file.metadata, o.network.weights).value_or(InputInfo{});
  const auto side = [&o](i64 said) { return o.task == "detect" ? (said + 31) / 32 * 32 : said; };
  o.size = input.size > 0 ? input.size : side(input.shorter);
  if (input.size == 0 && o.width == 0 && !o.train) o.width = side(input.longer);
  check(o.size <= most_size && o.width <= most_size, o.network.weights, ": its images of ", o.size,
        " x ", o.image_width(), " pixels are more than ", most_size, " a side; give `size`");
  return o;
}

/// Error: more than this machine's memory holds.
inline void require_memory_for(const BenchOptions& o, const PpmaConfig& network,
                               std::optional<HeadNeeds> head = {}) {
  if (o.compute.device != "cpu") return;
  const double element = o.compute.dtype == "f64" ? 8.0 : 4.0;
  const NetworkPass work{network, o.batch, o.size, o.image_width(), o.train, o.checkpoint_blocks,
                         element, head,    o.train};
  require_memory(work, "`batch` or `size`", network_options(o.task));
}

/// Those that a launcher started together, which share a training step.
inline std::vector<Communicator> sharing_processes(const BenchOptions& o, const Placement& at) {
  const std::optional<Launch> launch = launch_from_environment();
  check(!launch || launch->size == 1 || o.train,  // before anything waits for the others
        "bench: several processes share a training step; add `train`, or start one process without "
        "a launcher");
  return other_processes(launch, at.device);
}

/// Says in `b` who shared the step: each with a batch of its own.
inline void count_processes(NetworkBench& b, const BenchOptions& o,
                            const std::vector<Communicator>& processes) {
  if (!processes.empty()) b.processes = processes[0].size, b.rank = processes[0].rank;
  b.images = o.batch * b.processes;
}

inline NetworkBench bench_classifier(BenchOptions o, Observer& observer) {
  const Placement at = o.compute.placement(o.train);
  const std::vector<Communicator> processes = sharing_processes(o, at);
  const WeightsOfFile file = read_weights(o.network, observer);
  o = sized(std::move(o), file);
  const ClassifierConfig any = classifier_config(o.network, file, "ppma_tiny");
  NetworkBench b;
  b.height = o.size, b.width = o.image_width();
  count_processes(b, o, processes);
  if (const auto* other = std::get_if<NetworkConfig>(&any)) {  // nobody planned it
    b.network = other->name;
    ppma::Classifier model = load_classifier(o.network, file).model;
    b.macs = summary(std::get<Network>(model.network), 1, b.height, b.width).macs();
    place(model, at, !o.train);
    b.timing = time_classifier(o, at, model, other->num_classes, processes);
    return b;
  }
  require_memory_for(o, network_config(o.network, file, "ppma_tiny"));
  LoadedNetwork<Ppma> network = load_network(o.network, file, "ppma_tiny");
  Ppma& model = network.model;
  b.network = model.config.name, b.mask = to_string(model.config.mask);
  b.macs = summary(model, 1, b.height, b.width).macs();
  place(model, at, !o.train);
  b.timing = time_classifier(o, at, model, model.config.num_classes, processes);
  if (b.rank == 0 && model.config.all_polyline())  // of other mixers it is not known
    b.floor = 1000 * floor_of(model.config, measure_ceilings(at), o.batch, b.height, b.width,
                              static_cast<double>(size_of(at.activations())), o.train);
  return b;
}

template <class Head>
NetworkBench bench_segmentor(BenchOptions o, const WeightsOfFile& file) {
  const Placement at = o.compute.placement(o.train);
  const std::vector<Communicator> processes = sharing_processes(o, at);
  auto model = dense_network<Segmentor<Head>>(
      o.network, file, at, !o.train, [&](const SegmentorConfig<Head>& c) {
        o = sized(std::move(o), file);
        require_memory_for(o, c.backbone, head_needs(c, o.size, o.image_width()));
      });
  const PpmaConfig& backbone = model.config.backbone;
  NetworkBench b{.network = std::string(Head::name) + " " + backbone.name,
                 .mask = to_string(backbone.mask),
                 .height = o.size,
                 .width = o.image_width(),
                 .timing = time_segmentor(o, at, model, processes),
                 .macs = backbone_macs(backbone, o.size, o.image_width())};
  count_processes(b, o, processes);
  return b;
}

inline NetworkBench bench_detector(BenchOptions o, Observer& observer) {
  check(!o.train, "bench `task` detect: times inference; leave out `train`");
  const std::optional<Launch> launch = launch_from_environment();
  check(!launch || launch->size == 1,
        "bench `task` detect: runs in one process; start it without a launcher");
  const Placement at = o.compute.placement(o.train);
  const WeightsOfFile file = dense_weights(o.network, observer);
  auto model = dense_network<MaskRcnn>(o.network, file, at, true, [&](const MaskRcnnConfig& c) {
    o = sized(std::move(o), file);
    require_memory_for(o, c.backbone, head_needs(c, o.size, o.image_width()));
  });
  const PpmaConfig& backbone = model.config.backbone;
  Rng rng(1);
  const i64 height = o.size, width = o.image_width();
  check(height % 32 == 0 && width % 32 == 0,
        "bench `task` detect: a detector sees images of multiples of 32, not ", height, " x ",
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
  NetworkBench b{
      .network = (model.config.with_mask ? "mask_rcnn " : "faster_rcnn ") + backbone.name,
      .mask = to_string(backbone.mask),
      .images = o.batch,
      .height = height,
      .width = width,
      .macs = o.heads_only ? 0 : backbone_macs(backbone, o.size, o.image_width())};
  Replay step(
      [&] {
        const auto all =
            o.heads_only ? model.detect_on(maps, frames) : model.detect(images, frames);
        b.objects = 0;
        for (const auto& one : all) b.objects += static_cast<i64>(one.size());
      },
      at.device, false);  // boxes are chosen on the host: no graph
  b.timing = time_step(o, at, step, nullptr, step);
  return b;
}

}  // namespace detail

NetworkBench bench_network(const BenchOptions& o, Observer& observer) {
  check(o.task == "classify" || o.task == "segment" || o.task == "detect", "bench: `task` ", o.task,
        ": must be classify, segment or detect");
  check(o.batch > 0 && o.batch <= most_batch, "bench: `batch` is ", o.batch, "; it must be 1 to ",
        most_batch);
  for (const auto& [name, pixels] : {std::pair{"size", o.size}, {"width", o.width}})
    check(pixels == 0 || (pixels >= least_size && pixels <= most_size), "bench: `", name, "` is ",
          pixels, "; it must be 0, or ", least_size, " to ", most_size);
  check(o.repeat > 0 && o.warmup >= 0, "bench: `repeat` is ", o.repeat, ", `warmup` ", o.warmup,
        "; they must be at least 1 and 0");
  check(!o.checkpoint_blocks || o.train, "bench: `checkpoint_blocks` is for `train`");
  check(!o.heads_only || o.task == "detect", "bench: `heads_only` is for `task` detect");
  if (o.task == "classify") return detail::bench_classifier(o, observer);
  if (o.task == "detect") return detail::bench_detector(o, observer);
  NetworkBench b;
  with_segmentor(o.network, observer, [&]<class Head>(const WeightsOfFile& file) {
    b = detail::bench_segmentor<Head>(o, file);
  });
  return b;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
