#pragma once
// What the subcommands share: which network, with which weights, on how many threads; and how figures are reported.

#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ppma/data/augment.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/fold.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/parallel/nccl.hpp"
#include "ppma/parallel/tcp.hpp"
#include "ppma/train/trainer.hpp"

namespace tool {

using namespace ppma;
using Json = nlohmann::ordered_json;

// ---- options ----------------------------------------------------------------------------------------------------

/// --threads N: 0 takes every core that this process may use.
inline void add_threads(CLI::App& app) {
  app.add_option_function<int>(
         "--threads",
         [](int n) {
           if (n > 0) set_threads(n);
         },
         "threads to compute with; 0: all cores")
      ->default_str("0")
      ->check(CLI::NonNegativeNumber);
}

/// Where and in what to compute: --device, --dtype.
struct ComputeOptions {
  std::string device = "cpu", dtype = "f32";

  /// Checks the pair, sets the mode of f32 products, and says where activations live. Weights stay f32 under bf16.
  Placement placement() const {
    const Device where = device == "cuda" ? Device::cuda : Device::cpu;
    if (where == Device::cuda)
      check(cuda::available(), "--device cuda: ",
            PPMA_CUDA ? "no GPU is there" : "this program was compiled without CUDA; build it with cmake --preset cuda");
    check(where == Device::cuda || dtype == "f32" || dtype == "f64", "--dtype ", dtype, " needs --device cuda; on the CPU it is f32 or f64");
    cuda::allow_tf32() = dtype == "tf32";
    return {where, dtype == "f64" ? DType::f64 : dtype == "bf16" ? DType::bf16 : DType::f32};
  }
};

/// Converts and moves a network; optimisers are made afterwards. On the GPU, for inference, its norms are folded and its
/// weights kept in the dtype of the activations.
inline void place(Ppma& model, const Placement& at, bool inference = false) {
  to(model, accumulator_dtype(at.dtype));
  to(model, at.device);
  if (inference && at.device == Device::cuda) prepare_for_inference(model, at.dtype);
}

inline void add_compute(CLI::App& app, ComputeOptions& o) {
  app.add_option("--device", o.device, "where to compute")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--dtype", o.dtype, "element type to compute in; bf16 and tf32 on the GPU")
      ->check(CLI::IsMember({"f32", "f64", "bf16", "tf32"}))
      ->capture_default_str();
}

/// Which network: --config, --model, --mask, --weights; segmentor and detector: see dense_network.hpp.
struct NetworkOptions {
  std::string config, model, mask, weights, entry, segmentor, detector;
};

inline void add_network(CLI::App& app, NetworkOptions& o) {
  app.add_option("--weights", o.weights, "weights: .safetensors, .pth or .pt; random ones if absent")
      ->check(CLI::ExistingFile);
  app.add_option("--entry", o.entry,
                 "entry of a .pth (such as model_ema), or part of a training checkpoint (model, ema)");
  auto* config = app.add_option("--config", o.config, "configuration as JSON; default: what the weights file says")
                     ->check(CLI::ExistingFile);
  app.add_option("--model", o.model,
                 "a configuration by name: ppma_nano, ppma_tiny, ppma_small, ppma_base, ppma_large, rmt_...")
      ->excludes(config);
  app.add_option("--mask", o.mask, "another mask: polyline, none, rmt, v2h, shared, cross_scan, hilbert");
}

// ---- weights files ----------------------------------------------------------------------------------------------

/// A weights file: tensors by name, and what the file says about them and holds besides.
using WeightsFile = WeightsOfFile;

inline bool is_safetensors(const std::string& path) { return path.ends_with(".safetensors"); }

/// Reads weights. Of a training checkpoint (names model.*, ema.*, optimizer.*) it takes the part `entry`, else the
/// average where there is one. The prefixes `strip` are left out of names. What among the weights is no tensor is named
/// on stderr.
inline WeightsFile read_weights(const std::string& path, const std::string& entry = "", const std::vector<std::string>& strip = WeightOptions().strip) {
  WeightsFile file = weights_of_file(path, {.entry = entry, .strip = strip});
  if (!file.left_out.empty())
    std::fprintf(stderr, "ppma: %s: left out, as they are no tensors: %s\n", path.c_str(), listed(file.left_out).c_str());
  return file;
}

inline std::string read_text(const std::string& path) {
  const std::vector<u8> bytes = read_file(path);
  return {bytes.begin(), bytes.end()};
}

/// JSON that is about a network or a run. Error: where it is and what is wrong with it.
inline Json parse_json(const std::string& text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& e) {
    fail(where, ": not JSON, at byte ", static_cast<i64>(e.byte));
  }
}

template <class T>
constexpr bool is_list = !std::is_arithmetic_v<T> && !std::is_same_v<T, std::string>;

/// Whether JSON holds what a T is made of; a list of fixed length has that length.
template <class T>
bool holds(const Json& j) {
  if constexpr (is_list<T>) {
    if (!j.is_array()) return false;
    for (const Json& entry : j)
      if (!holds<typename T::value_type>(entry)) return false;
    if constexpr (!std::is_same_v<T, std::vector<typename T::value_type>>) return j.size() == T{}.size();
    return true;
  } else {
    return std::is_same_v<T, bool>      ? j.is_boolean()
           : std::is_unsigned_v<T>      ? j.is_number_unsigned()
           : std::is_integral_v<T>      ? j.is_number_integer()
           : std::is_floating_point_v<T> ? j.is_number()
                                        : j.is_string();
  }
}

/// What that is, for messages.
template <class T>
std::string kind_of() {
  if constexpr (is_list<T>)
    return (std::is_same_v<T, std::vector<typename T::value_type>> ? "a list of " : str("a list of ", T{}.size(), ", each ")) + kind_of<typename T::value_type>();
  else
    return std::is_same_v<T, bool> ? "true or false" : std::is_unsigned_v<T> ? "a whole number from 0" : std::is_integral_v<T> ? "a whole number" : std::is_floating_point_v<T> ? "a number" : "text";
}

/// Reads a member of one of our own files, at `where`; one that is not there, or null, leaves `into` as it is. Errors: no
/// object; a member of another kind.
template <class T>
void read_member(const Json& j, const char* key, const std::string& where, T& into) {
  check(j.is_object(), where, ": must be a JSON object, not ", j.type_name());
  const auto it = j.find(key);
  if (it == j.end() || it->is_null()) return;
  check(holds<T>(*it), where, ": \"", key, "\" must be ", kind_of<T>(), ", not ", it->dump());
  into = it->get<T>();
}

/// A member that must be there.
template <class T>
T member(const Json& j, const char* key, const std::string& where) {
  T value{};
  read_member(j, key, where, value);
  check(j.contains(key) && !j.at(key).is_null(), where, ": has no \"", key, "\"");
  return value;
}

/// f(), whose errors say where it was.
template <class F>
auto naming(const std::string& where, F f) {
  try {
    return f();
  } catch (const Error& e) {
    throw Error(str(where, ": ", e.what()));
  }
}

/// mean and deviation, a number a channel. Error: colours cannot be divided by such a deviation.
inline Normalization read_normalization(const Json& j, const std::string& where, Normalization n = {}) {
  read_member(j, "mean", where, n.mean), read_member(j, "deviation", where, n.deviation);
  for (const float d : n.deviation) check(d > 0, where, ": \"deviation\" must be positive, not ", d);
  return n;
}

/// What a trained network expects of an image and calls its classes; written into checkpoints by `train`.
struct InputInfo {
  i64 size = 224;
  double crop = 0.875;  // share of the shorter side that is kept
  Normalization normalization{};
  std::vector<std::string> classes;

  Json to_json() const {
    return {{"size", size},
            {"crop", crop},
            {"mean", normalization.mean},
            {"deviation", normalization.deviation},
            {"classes", classes}};
  }
  static InputInfo from_json(const Json& j, const std::string& where) {
    InputInfo info;
    read_member(j, "size", where, info.size), read_member(j, "crop", where, info.crop), read_member(j, "classes", where, info.classes);
    check(info.size > 0 && info.crop > 0 && info.crop <= 1, where, ": images of ", info.size, " pixels, ", info.crop, " of their side");
    info.normalization = read_normalization(j, where);
    return info;
  }
  std::string class_name(i64 c) const {
    return c < static_cast<i64>(classes.size()) ? classes[static_cast<std::size_t>(c)] : str("class ", c);
  }
};

struct Network {
  Ppma model;
  InputInfo input;
  bool has_weights;
};

/// The configuration that the options (or the weights file) name.
inline PpmaConfig network_config(const NetworkOptions& o, const WeightsFile& weights, const char* fallback = nullptr) {
  PpmaConfig c;
  const auto said = weights.metadata.find("config");
  if (!o.config.empty()) c = config_from_text(read_text(o.config), o.config);
  else if (!o.model.empty()) c = config_by_name(o.model);
  else if (said != weights.metadata.end()) c = config_from_text(said->second, o.weights);
  else if (fallback != nullptr) c = config_by_name(fallback);
  else
    fail("which network? Give --config FILE or --model NAME",
         o.weights.empty() ? "" : "; the weights file does not say");
  if (!o.mask.empty()) c.mask = parse_mask_kind(o.mask);
  // A checkpoint of another head size says so itself.
  if (const Tensor* head = find(weights.tensors, "head.bias"); head != nullptr && !o.model.empty())
    c.num_classes = head->dim(0);
  return c;
}

inline Network load_network(const NetworkOptions& o, const char* fallback = nullptr, u64 seed = 0) {
  WeightsFile file;
  if (!o.weights.empty()) file = read_weights(o.weights, o.entry);
  Network n{Ppma(network_config(o, file, fallback), seed), {}, !o.weights.empty()};
  if (n.has_weights) load_state_dict(n.model, file.tensors);
  if (const auto it = file.metadata.find("input"); it != file.metadata.end())
    n.input = InputInfo::from_json(parse_json(it->second, o.weights + ": input"), o.weights + ": input");
  return n;
}

// ---- reports ----------------------------------------------------------------------------------------------------

/// The most memory this process has had, in MiB.
inline double peak_memory_mib() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return static_cast<double>(usage.ru_maxrss) / 1048576.0;
#else
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
#endif
}

inline double mib(i64 bytes) { return static_cast<double>(bytes) / 1048576.0; }

/// 3.14159265 -> 3.142: figures for people and for JSON.
inline double rounded(double x, double step) { return std::round(x / step) * step; }

using ppma::detail::grouped_digits;  // 1234567 -> "1,234,567"

inline void print_json(const Json& j) { std::printf("%s\n", j.dump().c_str()); }

/// The other processes of a group that torchrun or mpirun started, and a GPU for each of this machine.
inline std::vector<Communicator> other_processes(const std::optional<Launch>& launch, [[maybe_unused]] Device device) {
  if (!launch || launch->size == 1) return {};
#if PPMA_CUDA
  if (device == Device::cuda) cuda::require(cudaSetDevice(static_cast<int>(launch->local_rank)), "a GPU for each process");
#if PPMA_NCCL
  if (device == Device::cuda) return connect_nccl(*launch);
#endif
#endif
  return connect_tcp(*launch, 2);
}

}  // namespace tool
