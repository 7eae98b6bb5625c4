#pragma once
// ppma bench: time and memory of inference or of a training step, on random data.

#include <algorithm>
#include <chrono>
#include <memory>

#include "common.hpp"

namespace tool {

struct BenchOptions {
  NetworkOptions network;
  i64 batch = 8, size = 224, repeat = 10, warmup = 3;
  std::string dtype = "f32";
  bool train = false, json = false;
};

inline void bench(const BenchOptions& o) {
  const DType dtype = dtype_by_name(o.dtype);
  Network network = load_network(o.network, "ppma_tiny");
  Ppma& model = network.model;
  to(model, dtype);
  Rng rng(1);
  const Tensor images = Tensor::randn({o.batch, 3, o.size, o.size}, rng, 1, dtype);
  Tensor labels = Tensor::empty({o.batch}, DType::int64);
  for (i64 b = 0; b < o.batch; ++b) labels.data<i64>()[b] = rng.below(model.config.num_classes);

  std::optional<AdamW> optimizer;
  if (o.train) optimizer.emplace(parameters_of(model, no_decay_rules(0.05)));
  u64 steps = 0;
  const auto step = [&] {
    if (!o.train) {
      model.forward(images);
      return;
    }
    Context context{true, Rng(2, 0, steps++)};
    cross_entropy(model.forward(images, context), labels).backward();
    optimizer->step(1e-4);
    optimizer->zero_grad();
  };
  for (i64 i = 0; i < o.warmup; ++i) step();
  reset_peak_memory();
  std::vector<double> ms;
  for (i64 i = 0; i < o.repeat; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    step();
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(ms.begin(), ms.end());
  const double median = (ms[ms.size() / 2] + ms[(ms.size() - 1) / 2]) / 2;

  Json j;
  j["model"] = model.config.name;
  j["mask"] = to_string(model.config.mask);
  j["batch"] = o.batch;
  j["size"] = o.size;
  j["threads"] = threads();
  j["dtype"] = o.dtype;
  j["train"] = o.train;
  j["repeat"] = o.repeat;
  j["ms"] = rounded(median, 1e-3);
  j["ms_min"] = rounded(ms.front(), 1e-3);
  j["images_per_s"] = rounded(1000 * static_cast<double>(o.batch) / median, 1e-2);
  j["peak_rss_MiB"] = rounded(peak_memory_mib(), 0.1);
  j["peak_tensors_MiB"] = rounded(mib(memory_stats().peak_bytes), 0.1);
  if (o.json) return print_json(j);
  std::printf("%s, mask %s, %s, batch %lld, %lld x %lld, %d threads, %s\n", model.config.name.c_str(),
              to_string(model.config.mask).c_str(), o.train ? "training step" : "inference",
              static_cast<long long>(o.batch), static_cast<long long>(o.size), static_cast<long long>(o.size),
              threads(), o.dtype.c_str());
  std::printf("  median of %lld   %.2f ms (best %.2f), %.2f images/s\n", static_cast<long long>(o.repeat), median,
              ms.front(), 1000 * static_cast<double>(o.batch) / median);
  std::printf("  peak memory    %.1f MiB of the process, %.1f MiB in tensors\n", peak_memory_mib(),
              mib(memory_stats().peak_bytes));
}

inline void add_bench(CLI::App& app) {
  auto o = std::make_shared<BenchOptions>();
  auto* c = app.add_subcommand("bench", "Times inference or training steps on random data");
  add_network(*c, o->network);
  c->add_option("--batch", o->batch, "images at a time")->check(CLI::PositiveNumber)->capture_default_str();
  c->add_option("--size", o->size, "height and width")->check(CLI::Range(32, 16384))->capture_default_str();
  c->add_flag("--train", o->train, "forward, backward and AdamW instead of inference");
  c->add_option("--repeat", o->repeat, "timed runs")->check(CLI::PositiveNumber)->capture_default_str();
  c->add_option("--warmup", o->warmup, "runs before them")->check(CLI::NonNegativeNumber)->capture_default_str();
  add_dtype(*c, o->dtype);
  add_threads(*c);
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { bench(*o); });
}

}  // namespace tool
