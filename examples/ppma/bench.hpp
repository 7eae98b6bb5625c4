#pragma once
// ppma bench: time and memory of inference or of a training step (ppma/commands/bench.hpp).

#include <memory>

#include "dense_network.hpp"
#include "ppma/commands/bench.hpp"

namespace tool {

struct BenchCommand : BenchOptions {
  bool json = false;
};

inline Json json_of(const BenchCommand& o, const NetworkBench& b) {
  Json j;
  j["model"] = b.network;
  if (o.task != "classify") j["task"] = o.task;
  if (!b.mask.empty()) j["mask"] = b.mask;
  if (o.task == "detect") j["heads_only"] = o.heads_only, j["objects"] = b.objects;
  j["batch"] = b.images;
  if (b.processes > 1) j["processes"] = b.processes;
  j["size"] = b.height;
  if (b.width != b.height) j["width"] = b.width;
  j["device"] = o.compute.device;
  j["threads"] = threads();
  j["dtype"] = o.compute.dtype;
  j["train"] = o.train;
  j["graph"] = b.timing.captured;
  j["repeat"] = o.repeat;
  j["ms"] = rounded(b.timing.ms, 1e-3);
  j["ms_min"] = rounded(b.timing.least, 1e-3);
  j["images_per_s"] = rounded(b.images_per_second(), 1e-2);
  if (b.floor > 0)
    j["floor_ms"] = rounded(b.floor, 1e-3),
    j["share_of_floor"] = rounded(b.floor / b.timing.ms, 1e-3);
  j["peak_rss_MiB"] = rounded(b.timing.process, 0.1);
  j["peak_tensors_MiB"] = rounded(mib(b.timing.peak), 0.1);
  if (o.compute.device != "cuda") j["page_faults"] = rounded(b.timing.page_faults, 0.1);
  return j;
}

inline void bench(const BenchCommand& o) {
  const NetworkBench b = bench_network(o, notes());
  if (b.rank > 0) return;
  if (o.json) return print_json(json_of(o, b));
  const bool gpu = o.compute.device == "cuda";
  const Timing& t = b.timing;
  std::printf("%s%s, %s, batch %lld, %lld x %lld, %s, %s%s\n", b.network.c_str(),
              b.mask.empty() ? "" : (", mask " + b.mask).c_str(),
              o.heads_only ? "heads alone"
              : o.train    ? "training step"
                           : "inference",
              static_cast<long long>(b.images), static_cast<long long>(b.height),
              static_cast<long long>(b.width), gpu ? "GPU" : str(threads(), " threads").c_str(),
              o.compute.dtype.c_str(),
              b.processes > 1 ? str(", in ", b.processes, " processes").c_str() : "");
  std::printf("  median of %lld   %.2f ms (best %.2f), %.2f images/s%s\n",
              static_cast<long long>(o.repeat), t.ms, t.least, b.images_per_second(),
              t.captured ? ", replayed as a graph" : "");
  if (b.floor > 0)
    std::printf(
        "  floor          %.2f ms, %.0f %% of the time: its products and bytes at the machine's "
        "best rates\n",
        b.floor, 100 * b.floor / t.ms);
  if (gpu && o.graph && !t.captured && !t.reason.empty())
    std::printf("  not captured   %s\n", t.reason.c_str());
  std::printf("  peak memory    %.1f MiB of the process, %.1f MiB in tensors%s\n", t.process,
              mib(t.peak),
              gpu ? "" : str(", ", rounded(t.page_faults, 0.1), " page faults a pass").c_str());
  if (o.task == "detect") std::printf("  objects found  %lld\n", static_cast<long long>(b.objects));
}

inline void add_bench(CLI::App& app) {
  auto o = std::make_shared<BenchCommand>();
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
