#pragma once
#include "ppma/core/names_begin.hpp"
// Which network a command is about, with which weights, and where it computes.

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ppma/commands/input_info.hpp"
#include "ppma/commands/memory_needs.hpp"
#include "ppma/commands/numbers.hpp"
#include "ppma/commands/observer.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/models/classifier.hpp"
#include "ppma/models/fold.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/parallel/launch.hpp"
#include "ppma/train/options.hpp"

namespace ppma::inline PPMA_ABI {

/// Where and in what to compute.
struct ComputeOptions {
  std::string device = "cpu";  // or "cuda"
  std::string dtype = "f32";   // f64, bf16; on the GPU tf32 too

  /// Checks the pair, sets the mode of f32 products, and says where activations live. Weights that
  /// are trained stay f32 under bf16. Errors: another word; a GPU that is not there; what the
  /// device does not compute in.
  PPMA_API Placement placement(bool train = false) const;
};

/// Converts and moves a network; optimisers are made afterwards. For inference its norms are folded
/// and its weights kept as its kernels read them.
template <class Model>
void place(Model& model, const Placement& at, bool inference = false) {
  to(model, accumulator_dtype(at.dtype));
  to(model, at.device);
  if (inference) prepare_for_inference(model, at.dtype);
}

/// Which network. Empty ones say nothing.
struct NetworkOptions {
  std::string config{};     // path: its configuration as JSON
  std::string model{};      // the name of a configuration: ppma_nano, deit_tiny, ...
  std::string mask{};       // another mask, by its name
  std::string mixer{};      // a token mixer for all stages, or four with commas (with_mixers())
  std::string weights{};    // path: .safetensors, .pth or .pt; none: random ones
  std::string entry{};      // of a .pth, such as model_ema; or part of a checkpoint: model, ema
  std::string segmentor{};  // path: keys of a segmentor's configuration as JSON, on top
  std::string detector{};   // the same of a detector
};

/// Whether a file is called so.
inline bool is_safetensors(const std::string& path) { return path.ends_with(".safetensors"); }

/// Reads weights. Of a training checkpoint (names model.*, ema.*, optimizer.*) it takes the part
/// `entry`, else the average where there is one. The prefixes `strip` are left out of names. What
/// among the weights is no tensor is noted. Errors: as weights_of_file().
PPMA_API WeightsOfFile read_weights(const std::string& path, const std::string& entry,
                                    Observer& observer,
                                    const std::vector<std::string>& strip = WeightOptions().strip);

/// Those of the options; nothing where they name none.
PPMA_API WeightsOfFile read_weights(const NetworkOptions& o, Observer& observer = nobody(),
                                    const std::vector<std::string>& strip = WeightOptions().strip);

/// All of a file as text.
PPMA_API std::string read_text(const std::string& path);

/// A network with what its weights say of images.
template <class Model>
struct LoadedNetwork {
  Model model;
  InputInfo input;
  bool has_weights, says_input;  // whether the weights say what `input` is
};

/// What configurations of all networks have: f(config) of the one that `c` is.
template <class F>
auto each_config(ClassifierConfig& c, F f) {
  return std::visit(f, c);
}
/// How many classes it tells apart.
inline i64 classes_of(const ClassifierConfig& c) {
  return std::visit([](const auto& of) { return of.num_classes; }, c);
}

/// With the options' mixers, where they name some. Error: a mask beside them that no stage has.
PPMA_API PpmaConfig with_mixers_of(const NetworkOptions& o, const PpmaConfig& c);

/// The configuration that the options name, else the weights, else `fallback`. Error: none does.
PPMA_API ClassifierConfig classifier_config(const NetworkOptions& o, const WeightsOfFile& weights,
                                            const char* fallback = nullptr);

/// The same of a network of this paper. Error: it is a plain transformer, or another paper's.
PPMA_API PpmaConfig network_config(const NetworkOptions& o, const WeightsOfFile& weights,
                                   const char* fallback = nullptr);

/// Error: a pass takes more memory than there is; `less` are the fields that can be smaller. Of
/// plain transformers it is not known, of networks of other papers their blocks' weights alone.
PPMA_API void require_memory_of(const ClassifierConfig& c, i64 batch, i64 size, const char* less,
                                bool trains = false, bool checkpoint_blocks = false);

/// The network of the options, with the weights in `file` where there are some. Errors: what is no
/// configuration; weights that do not fit.
PPMA_API LoadedNetwork<Ppma> load_network(const NetworkOptions& o, const WeightsOfFile& file,
                                          const char* fallback = nullptr, u64 seed = 0);
/// The same of any network that classifies.
PPMA_API LoadedNetwork<Classifier> load_classifier(const NetworkOptions& o,
                                                   const WeightsOfFile& file,
                                                   const char* fallback = nullptr);

/// The other processes of a group that torchrun or mpirun started, and a GPU for each of this
/// machine, whose cores they share (share_cores()); none alone.
PPMA_API std::vector<Communicator> other_processes(const std::optional<Launch>& launch,
                                                   Device device);

/// f() on rank 0 alone, for all of a group, while the others wait; alone it is just f(). Error:
/// that of f(), in every process, so that none is left waiting for one that is gone.
PPMA_API void first_alone(const std::vector<Communicator>& processes,
                          const std::function<void()>& f);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <cstring>
#include <exception>
#include <string_view>
#include <type_traits>

#include "ppma/core/gpu.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/io/utf8.hpp"
#include "ppma/parallel/nccl.hpp"
#include "ppma/parallel/tcp.hpp"

namespace ppma::inline PPMA_ABI {

Placement ComputeOptions::placement(bool train) const {
  check(device == "cpu" || device == "cuda", "`device` ", device, ": must be cpu or cuda");
  check(dtype == "f32" || dtype == "f64" || dtype == "bf16" || dtype == "tf32", "`dtype` ", dtype,
        ": must be f32, f64, bf16 or tf32");
  const Device where = device == "cuda" ? Device::cuda : Device::cpu;
  if (where == Device::cuda)
    check(cuda::available(), "`device` cuda: ",
          cuda::compiled()
              ? "no GPU is there"
              : "this program was compiled without CUDA; build it with cmake `preset` cuda");
  check(where == Device::cuda || dtype != "tf32",
        "`dtype` tf32 needs `device` cuda; on the CPU it is f32, f64 or bf16");
  check(where == Device::cuda || dtype != "bf16" || !train,
        "`dtype` bf16 trains with `device` cuda only; on the CPU networks compute in it, and "
        "train in f32 or f64");
  cuda::allow_tf32() = dtype == "tf32";
  return {where, dtype == "f64" ? DType::f64 : dtype == "bf16" ? DType::bf16 : DType::f32};
}

WeightsOfFile read_weights(const std::string& path, const std::string& entry, Observer& observer,
                           const std::vector<std::string>& strip) {
  WeightsOfFile file = weights_of_file(path, {.entry = entry, .strip = strip});
  if (!file.left_out.empty())
    detail::note(observer, path, ": left out, as they are no tensors: ", listed(file.left_out));
  return file;
}

WeightsOfFile read_weights(const NetworkOptions& o, Observer& observer,
                           const std::vector<std::string>& strip) {
  return o.weights.empty() ? WeightsOfFile{} : read_weights(o.weights, o.entry, observer, strip);
}

std::string read_text(const std::string& path) {
  const std::vector<u8> bytes = read_file(path);
  return {bytes.begin(), bytes.end()};
}

PpmaConfig with_mixers_of(const NetworkOptions& o, const PpmaConfig& before) {
  if (o.mixer.empty()) return before;
  PpmaConfig c = with_mixers(before, o.mixer);
  check(o.mask.empty() || std::find(c.mixers.begin(), c.mixers.end(), "polyline") != c.mixers.end(),
        "`mask` ", o.mask, ": with `mixer` ", o.mixer,
        " no stage has a polyline attention, whose mask it is; leave it out");
  return c;
}

ClassifierConfig classifier_config(const NetworkOptions& o, const WeightsOfFile& weights,
                                   const char* fallback) {
  ClassifierConfig c;
  const auto said = weights.metadata.find("config");
  if (!o.config.empty())
    c = classifier_config_from_text(read_text(o.config), o.config);
  else if (!o.model.empty())
    c = classifier_config_by_name(o.model);
  else if (said != weights.metadata.end())
    c = classifier_config_from_text(said->second, o.weights);
  else if (fallback != nullptr)
    c = classifier_config_by_name(fallback);
  else {
    for (const char* other : {"segmentor", "detector"})
      check(!weights.metadata.contains(other), o.weights, ": is a ", other,
            ", not a classifier; use it with `task` ",
            std::string(other) == "segmentor" ? "segment" : "detect", " where a command has it");
    fail("which network? Give `config` FILE or `model` NAME",
         o.weights.empty() ? "" : "; the weights file does not say");
  }
  if (!o.mixer.empty()) {
    auto* ours = std::get_if<PpmaConfig>(&c);
    check(
        ours != nullptr,
        "`mixer`: a plain transformer has attention alone, and a network of another paper its own "
        "mixer; choose a network of this one");
    *ours = with_mixers_of(o, *ours);
  }
  const std::string head_bias = head_of(c) + ".bias";
  each_config(c, [&](auto& of) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(of)>, NetworkConfig>)
      check(o.mask.empty(), "`mask` ", o.mask, ": ", of.name,
            " has no polyline attention, whose mask it is; leave it out");
    else if (!o.mask.empty())
      of.mask = parse_mask_kind(o.mask);
    // A checkpoint of another head size says so itself.
    if (const Tensor* head = find(weights.tensors, head_bias); head != nullptr && !o.model.empty())
      of.num_classes = head->dim(0);
  });
  return c;
}

PpmaConfig network_config(const NetworkOptions& o, const WeightsOfFile& weights,
                          const char* fallback) {
  const ClassifierConfig c = classifier_config(o, weights, fallback);
  if (const auto* vit = std::get_if<VitConfig>(&c))
    fail(vit->name, " is a plain transformer, which train, eval, predict, ablate, summary and ",
         "export know; this is for the networks with four stages");
  if (const auto* other = std::get_if<NetworkConfig>(&c))
    fail(other->name, " is a network of another paper, which train, eval, predict, bench and ",
         "summary know; this is for those of this one");
  return std::get<PpmaConfig>(c);
}

void require_memory_of(const ClassifierConfig& c, i64 batch, i64 size, const char* less,
                       bool trains, bool checkpoint_blocks) {
  if (const auto* config = std::get_if<PpmaConfig>(&c))
    require_memory({*config, batch, size, size, trains, checkpoint_blocks}, less);
  if (const auto* other = std::get_if<NetworkConfig>(&c)) {
    double weights = 0;  // more than 4 C^2 in each block
    for (std::size_t s = 0; s < std::min(other->depths.size(), other->dims.size()); ++s)
      weights += 4.0 * static_cast<double>(other->depths[s]) * static_cast<double>(other->dims[s]) *
                 static_cast<double>(other->dims[s]);
    // in training with gradients and two moments
    require_bytes((trains ? 4 : 1) * 4 * weights,
                  str("the network ", printable(other->name, other->name.size())),
                  "choose a smaller one with `config` or `model`");
  }
}

namespace detail {

template <class Model, class Config>
LoadedNetwork<Model> load_network_of(const NetworkOptions& o, const WeightsOfFile& file,
                                     const Config& config, u64 seed) {
  const std::optional<InputInfo> said = InputInfo::of(file.metadata, o.weights);
  require_memory_of(config, 0, least_size, "`size`");  // of the weights alone
  LoadedNetwork<Model> n{Model(config, seed), said.value_or(InputInfo{}), !o.weights.empty(),
                         said.has_value()};
  n.input.check_outputs(classes_of(config), o.weights + ": input");
  if (n.has_weights) load_state_dict(n.model, file.tensors);
  return n;
}

}  // namespace detail

LoadedNetwork<Ppma> load_network(const NetworkOptions& o, const WeightsOfFile& file,
                                 const char* fallback, u64 seed) {
  return detail::load_network_of<Ppma>(o, file, network_config(o, file, fallback), seed);
}

LoadedNetwork<Classifier> load_classifier(const NetworkOptions& o, const WeightsOfFile& file,
                                          const char* fallback) {
  return detail::load_network_of<Classifier>(o, file, classifier_config(o, file, fallback), 0);
}

std::vector<Communicator> other_processes(const std::optional<Launch>& launch, Device device) {
  if (!launch || launch->size == 1) return {};
  share_cores(launch->local_size);
  if (device == Device::cuda) {
    cuda::use_device(static_cast<int>(launch->local_rank));
    if (has_nccl()) return connect_nccl(*launch);
  }
  return connect_tcp(*launch, 2);
}

void first_alone(const std::vector<Communicator>& processes, const std::function<void()>& f) {
  if (processes.empty()) return f();
  Tensor said = Tensor::zeros({4096}, DType::uint8);  // its message; none: all is well
  char* const text = reinterpret_cast<char*>(said.data<u8>());
  if (processes[0].rank == 0) {
    try {
      f();
    } catch (const std::exception& e) {
      std::strncpy(text, e.what(), static_cast<std::size_t>(said.numel() - 1));
    }
  }
  processes[0].broadcast(said, 0);
  check(*text == 0, std::string_view(text));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
