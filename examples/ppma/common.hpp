#pragma once
// What the subcommands share: which network, with which weights, on how many threads; and how
// figures are reported.

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "input_info.hpp"
#include "json.hpp"
#include "needs.hpp"
#include "options.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/models/classifier.hpp"
#include "ppma/models/fold.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/parallel/nccl.hpp"
#include "ppma/parallel/tcp.hpp"
#include "ppma/train/trainer.hpp"
#include "system.hpp"

namespace tool {

// ---- options ----------------------------------------------------------------------------------

/// --threads N: 0 takes every core that this process may use.
inline void add_threads(CLI::App& app) {
  app.add_option_function<int>(
         "--threads",
         [](int n) {
           if (n > 0) set_threads(n);
         },
         "threads to compute with; 0: all cores")
      ->default_str("0")
      ->check(in_range(0, 1024));
}

/// Where and in what to compute: --device, --dtype.
struct ComputeOptions {
  std::string device = "cpu", dtype = "f32";

  /// Checks the pair, sets the mode of f32 products, and says where activations live. Weights that
  /// are trained stay f32 under bf16.
  Placement placement(bool train = false) const {
    const Device where = device == "cuda" ? Device::cuda : Device::cpu;
    if (where == Device::cuda)
      check(cuda::available(), "--device cuda: ",
            cuda::compiled()
                ? "no GPU is there"
                : "this program was compiled without CUDA; build it with cmake --preset cuda");
    check(where == Device::cuda || dtype != "tf32",
          "--dtype tf32 needs --device cuda; on the CPU it is f32, f64 or bf16");
    check(where == Device::cuda || dtype != "bf16" || !train,
          "--dtype bf16 trains with --device cuda only; on the CPU networks compute in it, and "
          "train in f32 or f64");
    cuda::allow_tf32() = dtype == "tf32";
    return {where, dtype == "f64" ? DType::f64 : dtype == "bf16" ? DType::bf16 : DType::f32};
  }
};

/// Converts and moves a network; optimisers are made afterwards. For inference its norms are folded
/// and its weights kept as its kernels read them.
template <class Model>
void place(Model& model, const Placement& at, bool inference = false) {
  to(model, accumulator_dtype(at.dtype));
  to(model, at.device);
  if (inference) prepare_for_inference(model, at.dtype);
}

inline void add_compute(CLI::App& app, ComputeOptions& o) {
  app.add_option("--device", o.device, "where to compute")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option(
         "--dtype", o.dtype,
         "element type to compute in; tf32 on the GPU, bf16 there or, of weights, in inference")
      ->check(CLI::IsMember({"f32", "f64", "bf16", "tf32"}))
      ->capture_default_str();
}

/// Which network: --config, --model, --mask, --mixer, --weights; segmentor and detector: see
/// dense_network.hpp.
struct NetworkOptions {
  std::string config, model, mask, mixer, weights, entry, segmentor, detector;
};

inline void add_network(CLI::App& app, NetworkOptions& o) {
  auto* weights = app.add_option("--weights", o.weights,
                                 "weights: .safetensors, .pth or .pt; random ones if absent")
                      ->check(CLI::ExistingFile);
  app.add_option(
         "--entry", o.entry,
         "entry of a .pth (such as model_ema), or part of a training checkpoint (model, ema)")
      ->check(some_text())
      ->needs(weights);
  auto* config = app.add_option("--config", o.config,
                                "configuration as JSON; default: what the weights file says")
                     ->check(CLI::ExistingFile);
  app.add_option("--model", o.model,
                 "a configuration by name: ppma_nano, ppma_tiny, ppma_small, ppma_base, "
                 "ppma_large, ppma_nano_linear, ppma_tiny_linear, rmt_...; plain transformers: "
                 "deit_tiny, vit_nano")
      ->excludes(config)
      ->check(accepted_by([](const std::string& name) { classifier_config_by_name(name); }));
  std::string names;
  try {
    for (const Mask& mask : masks()) names += (names.empty() ? "" : ", ") + std::string(mask.name);
  } catch (const Error&) {  // PPMA_ISA cannot be followed: the command says so, help goes without
  }
  app.add_option("--mask", o.mask, "another mask: " + names)
      ->check(accepted_by([](const std::string& name) { parse_mask_kind(name); }));
  names.clear();
  for (const std::string& name : mixer_names()) names += (names.empty() ? "" : ", ") + name;
  app.add_option("--mixer", o.mixer,
                 "another token mixer in all stages, or four with commas between: " + names)
      ->check(accepted_by([](const std::string& name) { with_mixers(PpmaConfig(), name); }));
}

// ---- weights files ----------------------------------------------------------------------------

/// A weights file: tensors by name, and what the file says about them and holds besides.
using WeightsFile = WeightsOfFile;

inline bool is_safetensors(const std::string& path) { return path.ends_with(".safetensors"); }

/// Reads weights. Of a training checkpoint (names model.*, ema.*, optimizer.*) it takes the part
/// `entry`, else the average where there is one. The prefixes `strip` are left out of names. What
/// among the weights is no tensor is named on stderr.
inline WeightsFile read_weights(const std::string& path, const std::string& entry = "",
                                const std::vector<std::string>& strip = WeightOptions().strip) {
  WeightsFile file = weights_of_file(path, {.entry = entry, .strip = strip});
  if (!file.left_out.empty())
    std::fprintf(stderr, "ppma: %s: left out, as they are no tensors: %s\n", path.c_str(),
                 listed(file.left_out).c_str());
  return file;
}

/// Those of --weights and --entry; nothing without.
inline WeightsFile read_weights(const NetworkOptions& o,
                                const std::vector<std::string>& strip = WeightOptions().strip) {
  return o.weights.empty() ? WeightsFile{} : read_weights(o.weights, o.entry, strip);
}

inline std::string read_text(const std::string& path) {
  const std::vector<u8> bytes = read_file(path);
  return {bytes.begin(), bytes.end()};
}

template <class Model>
struct NetworkOf {
  Model model;
  InputInfo input;
  bool has_weights, says_input;  // whether the weights say what `input` is
};
using Network = NetworkOf<Ppma>;

/// What configurations of all networks have: f(config) of the one that `c` is.
template <class F>
auto each_config(ClassifierConfig& c, F f) {
  return std::visit(f, c);
}
inline i64 classes_of(const ClassifierConfig& c) {
  return std::visit([](const auto& of) { return of.num_classes; }, c);
}

/// With --mixer, where it is given. Error: --mask beside it where no stage has a mask.
inline PpmaConfig mixed(const PpmaConfig& before, const NetworkOptions& o) {
  if (o.mixer.empty()) return before;
  PpmaConfig c = with_mixers(before, o.mixer);
  check(o.mask.empty() || std::find(c.mixers.begin(), c.mixers.end(), "polyline") != c.mixers.end(),
        "--mask: with --mixer ", o.mixer, " no stage has a polyline attention, whose mask it is; ",
        "leave it out");
  return c;
}

/// The configuration that the options (or the weights file) name.
inline ClassifierConfig classifier_config(const NetworkOptions& o, const WeightsFile& weights,
                                          const char* fallback = nullptr) {
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
            ", not a classifier; use it with --task ",
            std::string(other) == "segmentor" ? "segment" : "detect", " where a command has it");
    fail("which network? Give --config FILE or --model NAME",
         o.weights.empty() ? "" : "; the weights file does not say");
  }
  if (!o.mixer.empty()) {
    auto* ours = std::get_if<PpmaConfig>(&c);
    check(ours != nullptr,
          "--mixer: a plain transformer has attention alone; choose a network with four stages");
    *ours = mixed(*ours, o);
  }
  each_config(c, [&](auto& of) {
    if (!o.mask.empty()) of.mask = parse_mask_kind(o.mask);
    // A checkpoint of another head size says so itself.
    if (const Tensor* head = find(weights.tensors, "head.bias");
        head != nullptr && !o.model.empty())
      of.num_classes = head->dim(0);
  });
  return c;
}
/// The same of a network of this paper. Error: it is a plain transformer.
inline PpmaConfig network_config(const NetworkOptions& o, const WeightsFile& weights,
                                 const char* fallback = nullptr) {
  const ClassifierConfig c = classifier_config(o, weights, fallback);
  if (const auto* vit = std::get_if<VitConfig>(&c))
    fail(vit->name, " is a plain transformer, which train, eval, predict, ablate, summary and ",
         "export know; this is for the networks with four stages");
  return std::get<PpmaConfig>(c);
}

/// Error: a pass takes more memory than there is. Of plain transformers it is not known.
inline void require_memory_of(const ClassifierConfig& c, i64 batch, i64 size, const char* less,
                              bool trains = false, bool checkpoint_blocks = false) {
  if (const auto* config = std::get_if<PpmaConfig>(&c))
    require_memory({*config, batch, size, size, trains, checkpoint_blocks}, less);
}

template <class Model, class Config>
NetworkOf<Model> load_network_of(const NetworkOptions& o, const WeightsFile& file,
                                 const Config& config, u64 seed) {
  const std::optional<InputInfo> said = InputInfo::of(file.metadata, o.weights);
  require_memory_of(config, 0, least_size, "--size");  // of the weights alone
  NetworkOf<Model> n{Model(config, seed), said.value_or(InputInfo{}), !o.weights.empty(),
                     said.has_value()};
  n.input.check_outputs(classes_of(config), o.weights + ": input");
  if (n.has_weights) load_state_dict(n.model, file.tensors);
  return n;
}

/// The network of the options, with the weights in `file` where there are some.
inline Network load_network(const NetworkOptions& o, const WeightsFile& file,
                            const char* fallback = nullptr, u64 seed = 0) {
  return load_network_of<Ppma>(o, file, network_config(o, file, fallback), seed);
}
/// The same of any network that classifies.
inline NetworkOf<Classifier> load_classifier(const NetworkOptions& o, const WeightsFile& file,
                                             const char* fallback = nullptr) {
  return load_network_of<Classifier>(o, file, classifier_config(o, file, fallback), 0);
}
inline Network load_network(const NetworkOptions& o, const char* fallback = nullptr, u64 seed = 0) {
  return load_network(o, read_weights(o), fallback, seed);
}

// ---- reports ----------------------------------------------------------------------------------

inline double mib(i64 bytes) { return static_cast<double>(bytes) / 1048576.0; }

/// 3.14159265 -> 3.142: figures for people and for JSON.
inline double rounded(double x, double step) { return std::round(x / step) * step; }

using ppma::detail::grouped_digits;  // 1234567 -> "1,234,567"

/// Images of a list, one after the other: one that cannot be read is named with its reason, the
/// others go on, and at the end it is an Error that there was one.
class EachImage {
 public:
  explicit EachImage(std::string command) : command_(std::move(command)) {}

  /// Runs read(); false, with a record in `all` and a line on the error output, where it failed.
  template <class F>
  bool read(const std::string& path, Json& all, F read) {
    ++images_;
    try {
      read();
      return true;
    } catch (const std::exception& e) {
      std::string reason = e.what();
      if (reason.find(path) == std::string::npos) reason = path + ": " + reason;
      note(reason);
      all.push_back({{"image", shown_name(path)}, {"error", shown(reason)}});
      ++failed_;
      return false;
    }
  }
  void end() const {
    check(failed_ == 0, command_, ": ", failed_, " of ", images_,
          " images could not be read; they are named above");
  }

 private:
  std::string command_;
  i64 images_ = 0, failed_ = 0;
};

inline void print_json(const Json& j) {
  std::printf("%s\n", j.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

/// The other processes of a group that torchrun or mpirun started, and a GPU for each of this
/// machine.
inline std::vector<Communicator> other_processes(const std::optional<Launch>& launch,
                                                 Device device) {
  if (!launch || launch->size == 1) return {};
  if (device == Device::cuda) {
    cuda::use_device(static_cast<int>(launch->local_rank));
    if (has_nccl()) return connect_nccl(*launch);
  }
  return connect_tcp(*launch, 2);
}

/// f() on rank 0 alone, for all of a group, while the others wait; alone it is just f(). Error:
/// that of f(), in every process, so that none is left waiting for one that is gone.
template <class F>
void first_alone(const std::vector<Communicator>& processes, F f) {
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

}  // namespace tool
