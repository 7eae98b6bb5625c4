#pragma once
// ppma bench: time and memory of inference or of a training step, on random data; under torchrun or mpirun, of a step that
// the processes share, each with a batch of its own.

#include <algorithm>
#include <chrono>
#include <memory>

#include "common.hpp"
#include "ppma/train/replay.hpp"
#include "ppma/train/transfer.hpp"

namespace tool {

struct BenchOptions {
  NetworkOptions network;
  ComputeOptions compute;
  i64 batch = 8, size = 224, repeat = 10, warmup = 3;
  bool train = false, json = false, graph = true;
};

/// Milliseconds of each of `repeat` runs of f, by the host's clock, or on the GPU by its events.
template <class F>
std::vector<double> timed(i64 repeat, Device device, F&& f) {
  std::vector<double> ms;
#if PPMA_CUDA
  if (device == Device::cuda) {
    cuda::Timer timer;
    for (i64 i = 0; i < repeat; ++i) {
      timer.start();
      f();
      ms.push_back(timer.stop());
    }
    return ms;
  }
#endif
  (void)device;
  for (i64 i = 0; i < repeat; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  return ms;
}

inline double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return (v[v.size() / 2] + v[(v.size() - 1) / 2]) / 2;
}

inline void bench(const BenchOptions& o) {
  const Placement at = o.compute.placement();
  const std::optional<Launch> launch = launch_from_environment();
  const std::vector<Communicator> processes = other_processes(launch, at.device);
  const Communicator* const among = processes.empty() ? nullptr : processes.data();
  check(among == nullptr || o.train, "bench: several processes share a training step; add --train, or start one process without a launcher");
  Network network = load_network(o.network, "ppma_tiny");
  Ppma& model = network.model;
  place(model, at, !o.train);
  Rng rng(1);
  const Tensor images = at(Tensor::randn({o.batch, 3, o.size, o.size}, rng));
  Tensor labels = Tensor::empty({o.batch}, DType::int64);
  for (i64 b = 0; b < o.batch; ++b) labels.data<i64>()[b] = rng.below(model.config.num_classes);
  labels = labels.to(at.device);

  std::optional<AdamW> optimizer;
  if (o.train) optimizer.emplace(parameters_of(model, no_decay_rules(0.05)));
  std::unique_ptr<GradientAverage> gradients;
  if (among != nullptr) {
    std::vector<Tensor> parameters;
    for (const Parameter& p : optimizer->parameters()) parameters.push_back(p.tensor);
    gradients = std::make_unique<GradientAverage>(processes[1], std::move(parameters));
  }
  u64 steps = 0;
  HostInputs drawn;
  Upload upload(at.device);
  Tensor result;  // stays: a captured step writes there
  Replay step(
      [&] {
        if (!o.train) {
          result = model.forward(images);
          return;
        }
        Context context{true, Rng(2)};
        context.host_inputs = &drawn, context.among = among;
        const Tensor loss = cross_entropy(model.forward(images, context), labels);
        if (gradients) gradients->backward(loss);
        else loss.backward();
        optimizer->update();
        optimizer->zero_grad();
        result = loss.detach();
      },
      at.device, o.graph && among == nullptr);
  const auto once = [&] {
    if (o.train) {
      drawn.refill(Rng(2, 0, steps++), [&](Tensor& to, const Tensor& from) { upload.add(to, from); });
      upload.send();
      optimizer->set_rate(1e-4);
    }
    step();
  };
  reset_peak_memory(at.device);  // before the step is captured: a replay takes its memory all at once
  for (i64 i = 0; i < std::max<i64>(o.warmup, at.device == Device::cuda ? 4 : 1); ++i) once();
  cuda::synchronize();
  if (among != nullptr) among->barrier();
  const std::vector<double> ms = timed(o.repeat, at.device, once);
  const double middle = median(ms), best = *std::min_element(ms.begin(), ms.end());
  const i64 peak = memory_stats(at.device).peak_bytes, ranks = among == nullptr ? 1 : among->size;
  if (among != nullptr) {
    among->barrier();
    if (among->rank != 0) return;
  }

  Json j;
  j["model"] = model.config.name;
  j["mask"] = to_string(model.config.mask);
  j["batch"] = o.batch * ranks;
  if (ranks > 1) j["processes"] = ranks;
  j["size"] = o.size;
  j["device"] = o.compute.device;
  j["threads"] = threads();
  j["dtype"] = o.compute.dtype;
  j["train"] = o.train;
  j["graph"] = step.captured();
  j["repeat"] = o.repeat;
  j["ms"] = rounded(middle, 1e-3);
  j["ms_min"] = rounded(best, 1e-3);
  j["images_per_s"] = rounded(1000 * static_cast<double>(o.batch * ranks) / middle, 1e-2);
  j["peak_rss_MiB"] = rounded(peak_memory_mib(), 0.1);
  j["peak_tensors_MiB"] = rounded(mib(peak), 0.1);
  if (o.json) return print_json(j);
  std::printf("%s, mask %s, %s, batch %lld, %lld x %lld, %s, %s%s\n", model.config.name.c_str(),
              to_string(model.config.mask).c_str(), o.train ? "training step" : "inference",
              static_cast<long long>(o.batch * ranks), static_cast<long long>(o.size), static_cast<long long>(o.size),
              at.device == Device::cuda ? "GPU" : str(threads(), " threads").c_str(), o.compute.dtype.c_str(),
              ranks > 1 ? str(", in ", ranks, " processes").c_str() : "");
  std::printf("  median of %lld   %.2f ms (best %.2f), %.2f images/s%s\n", static_cast<long long>(o.repeat), middle,
              best, 1000 * static_cast<double>(o.batch * ranks) / middle, step.captured() ? ", replayed as a graph" : "");
  if (at.device == Device::cuda && o.graph && ranks == 1 && !step.captured())
    std::printf("  not captured   %s\n", step.reason().c_str());
  std::printf("  peak memory    %.1f MiB of the process, %.1f MiB in tensors\n", peak_memory_mib(), mib(peak));
}

inline void add_bench(CLI::App& app) {
  auto o = std::make_shared<BenchOptions>();
  auto* c = app.add_subcommand("bench", "Times inference or training steps on random data");
  add_network(*c, o->network);
  c->add_option("--batch", o->batch, "images at a time, of each process")->check(CLI::PositiveNumber)->capture_default_str();
  c->add_option("--size", o->size, "height and width")->check(CLI::Range(32, 16384))->capture_default_str();
  c->add_flag("--train", o->train, "forward, backward and AdamW instead of inference");
  c->add_option("--repeat", o->repeat, "timed runs")->check(CLI::PositiveNumber)->capture_default_str();
  c->add_option("--warmup", o->warmup, "runs before them")->check(CLI::NonNegativeNumber)->capture_default_str();
  c->add_flag("!--no-graph", o->graph, "on the GPU, launch kernel by kernel instead of replaying a captured graph");
  add_compute(*c, o->compute);
  add_threads(*c);
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { bench(*o); });
}

}  // namespace tool
