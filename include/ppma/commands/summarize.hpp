#pragma once
#include "ppma/core/names_begin.hpp"
// What a network costs, layer by layer (models/summary.hpp), and the memory that a pass takes.

#include <optional>

#include "ppma/commands/network.hpp"
#include "ppma/models/summary.hpp"

namespace ppma::inline PPMA_ABI {

/// Which network, on which images.
struct SummaryOptions {
  NetworkOptions network{};  // none named: ppma_tiny
  i64 size = 0;              // pixels a side; 0: what the weights say, else 224
  i64 batch = 1;             // images at a time
  bool measure = false;      // run both passes, in f32 on the CPU, beside what is planned
};

/// What a pass holds at most.
struct PassMemory {
  i64 planned = 0, measured = 0;  // bytes in tensors; measured 0: it was not
  double process = 0;             // MiB of the process, of all that it did so far
};

/// What a network costs.
struct NetworkSummary {
  Summary layers{};
  std::optional<PassMemory> inference{}, training{};  // of networks whose memory is planned
};

/// Counts, plans and measures. Errors: a network whose memory is not planned is to be measured;
/// what weights and memory refuse.
PPMA_API NetworkSummary summarize_network(const SummaryOptions& o, Observer& observer = nobody());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <string>
#include <utility>
#include <variant>

#include "ppma/commands/machine.hpp"
#include "ppma/core/buffer.hpp"
#include "ppma/models/memory_plan.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class F>
void measure_pass(PassMemory& m, F&& run) {
  reset_peak_memory();
  run();
  m.measured = memory_stats().peak_bytes, m.process = peak_memory_mib();
}

inline PassMemory inference_memory(const SummaryOptions& o, i64 size, LoadedNetwork<Ppma> network) {
  Ppma& model = network.model;
  PassMemory m{plan_inference(model.config, o.batch, size, size).bytes()};
  if (!o.measure) return m;
  prepare_for_inference(model, DType::f32);
  const Tensor images = Tensor::zeros({o.batch, 3, size, size});
  measure_pass(m, [&] { model.forward(images); });
  return m;
}

inline PassMemory training_memory(const SummaryOptions& o, i64 size, const PpmaConfig& config) {
  PassMemory m{plan_training_step(config, o.batch, size, size).bytes()};
  if (!o.measure) return m;
  Ppma model(config);
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
  Rng rng(1);
  const Tensor images = Tensor::randn({o.batch, 3, size, size}, rng),
               labels = Tensor::zeros({o.batch}, DType::int64);
  measure_pass(m, [&] {
    Context training{true, Rng(2)};
    cross_entropy(model.forward(images, training), labels).backward();
    optimizer.step(1e-4);
  });
  return m;
}

}  // namespace detail

NetworkSummary summarize_network(const SummaryOptions& o, Observer& observer) {
  check(o.batch > 0 && o.batch <= most_batch, "summary: `batch` is ", o.batch, "; it must be 1 to ",
        most_batch);
  check(o.size == 0 || (o.size >= least_size && o.size <= most_size), "summary: `size` is ", o.size,
        "; it must be 0, or ", least_size, " to ", most_size);
  NetworkSummary s;
  WeightsOfFile file = read_weights(o.network, observer);
  const ClassifierConfig any = classifier_config(o.network, file, "ppma_tiny");
  const auto refuse_to_measure = [&o](const std::string& name) {
    check(!o.measure, "summary `measure`: the memory of ", name, " is not planned; leave it out");
  };
  if (const auto* vit = std::get_if<VitConfig>(&any)) {
    refuse_to_measure(vit->name);
    Vit model(*vit);
    s.layers = summary(model, o.batch);
    return s;
  }
  const auto size_of_images = [&] {
    const std::optional<InputInfo> said = InputInfo::of(file.metadata, o.network.weights);
    return with_size(said.value_or(InputInfo{}), o.size, said.has_value(), observer).size;
  };
  if (const auto* other = std::get_if<NetworkConfig>(&any)) {
    refuse_to_measure(other->name);
    const i64 size = size_of_images();
    require_memory_of(any, o.batch, size, "`batch` or `size`");
    Network model(*other);
    s.layers = summary(model, o.batch, size, size);
    return s;
  }
  const PpmaConfig& config = std::get<PpmaConfig>(any);
  const i64 size = size_of_images();
  const double most = 4e18;  // figures are counted in 64 bits
  check(needs_of({config, o.batch, size, size}).operations < most, "a pass with ", o.batch,
        " images of ", size, " pixels takes more than ", most,
        " operations; choose a smaller `batch` or `size`");
  check(!o.measure || config.all_polyline(),
        "summary `measure`: the memory of mixers beside polyline attention is not planned");
  check(!o.measure || has_memory_plan(config), "summary `measure`: attention with mask ",
        to_string(config.mask), " visits tokens in another order, and its memory is not planned");
  if (o.measure) require_memory({config, o.batch, size, size, true}, "`batch` or `size`");
  LoadedNetwork<Ppma> network = load_network(o.network, file, "ppma_tiny");
  file = {};  // what is measured holds it once
  s.layers = summary(network.model, o.batch, size, size);
  if (!has_memory_plan(config)) return s;
  s.inference = detail::inference_memory(o, size, std::move(network));
  s.training = detail::training_memory(o, size, config);
  return s;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
