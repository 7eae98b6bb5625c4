#pragma once
#include "ppma/core/names_begin.hpp"
// What a trained classifier says of image files; segmentors and detectors: dense_predict.hpp.

#include <string>
#include <vector>

#include "ppma/commands/network.hpp"

namespace ppma::inline PPMA_ABI {

/// An image to be predicted. `name` says which it is in results, and where they lie: the file's
/// name; for one of a folder or a pattern its path below it.
struct PredictInput {
  std::string path, name;
};

/// The images that the arguments name: files; folders with all below them, sorted; patterns with
/// wildcards and braces. A file's own name counts more than a pattern. What a folder holds besides
/// is noted. Errors: a folder without images.
PPMA_API std::vector<PredictInput> predict_inputs(const std::vector<std::string>& arguments,
                                                  Observer& observer = nobody());

/// Which classifier, and which images.
struct PredictOptions {
  NetworkOptions network;  // with weights
  ComputeOptions compute;
  std::vector<std::string> images;  // as predict_inputs() takes them
  i64 top = 5;                      // classes that are named
  bool no_exif = false;             // files as they are stored, not turned as their EXIF data say
};

/// A class of an image.
struct PredictedClass {
  i64 label = 0;
  std::string name;
  double probability = 0;
};

/// What is said of an image.
struct PredictedImage {
  std::string path;
  std::vector<PredictedClass> top{};  // the likeliest first
  std::string error{};                // why there is none: the file cannot be read
};

/// Hears of each image, also of one that cannot be read, of which a note says why.
struct PredictObserver : Observer {
  /// After the image.
  virtual void image(const PredictedImage& /*image*/) {}
};

/// Names what is on images; one that cannot be read is noted, and the others go on. Errors: no
/// weights; what weights and memory refuse.
PPMA_API std::vector<PredictedImage> predict_classes(
    const PredictOptions& o, PredictObserver& observer = nobody<PredictObserver>());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <exception>
#include <filesystem>
#include <numeric>
#include <system_error>

#include "ppma/commands/data.hpp"
#include "ppma/data/image_folder.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/path_pattern.hpp"
#include "ppma/ops/softmax.hpp"

namespace ppma::inline PPMA_ABI {

std::vector<PredictInput> predict_inputs(const std::vector<std::string>& arguments,
                                         Observer& observer) {
  namespace fs = std::filesystem;
  std::vector<PredictInput> all;
  for (const std::string& argument : arguments) {
    std::error_code absent;
    if (fs::is_directory(argument, absent)) {
      const FolderList list = files_below(argument, detail::image_endings());
      const std::string others = list.left_out(detail::image_kinds);
      check(!list.files.empty(), argument, ": has no images (", detail::image_kinds, ")",
            others.empty() ? "" : ", but " + others);
      detail::note_left_out(observer, argument, others);
      for (const std::string& file : list.files)
        all.push_back({(fs::path(argument) / file).string(), file});
      continue;
    }
    std::vector<std::string> patterns{argument};
    if (!fs::exists(argument, absent)) patterns = expand_braces(argument);
    for (const std::string& pattern : patterns) {
      std::vector<std::string> found{pattern};
      std::size_t before = std::string::npos;  // its name, if it is of wildcards
      if (!fs::exists(pattern, absent) && has_wildcards(pattern)) {
        found = matching_files(pattern);
        if (found.empty())
          found = {pattern};  // is named with the files that cannot be read
        else                  // behind the folders without wildcards
          before = pattern.rfind('/', pattern.find_first_of("*?[")) + 1;
      }
      for (const std::string& path : found)
        all.push_back({path, before == std::string::npos ? fs::path(path).filename().string()
                                                         : path.substr(before)});
    }
  }
  return all;
}

namespace detail {

/// read(), of an image; "", or why it failed, which is noted.
template <class F>
std::string read_noted(const std::string& path, Observer& observer, F read) {
  try {
    read();
    return "";
  } catch (const std::exception& e) {
    std::string reason = e.what();
    if (reason.find(path) == std::string::npos) reason = path + ": " + reason;
    observer.note(reason);
    return reason;
  }
}

/// The likeliest classes of logits (1,K), on the CPU.
inline std::vector<PredictedClass> top_classes(const Tensor& logits, i64 top,
                                               const InputInfo& input) {
  const std::vector<double> probability = softmax(logits).to_vector<double>();
  std::vector<i64> order(probability.size());
  std::iota(order.begin(), order.end(), i64{0});
  std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) {
    return probability[static_cast<std::size_t>(a)] > probability[static_cast<std::size_t>(b)];
  });
  order.resize(std::min(order.size(), static_cast<std::size_t>(top)));
  std::vector<PredictedClass> all;
  for (const i64 c : order)
    all.push_back({c, input.class_name(c), probability[static_cast<std::size_t>(c)]});
  return all;
}

}  // namespace detail

std::vector<PredictedImage> predict_classes(const PredictOptions& o, PredictObserver& observer) {
  check(!o.network.weights.empty(), "predict: needs `weights`");
  check(o.top > 0, "predict: `top` is ", o.top, "; it must be at least 1");
  LoadedNetwork<Classifier> network = load_classifier(o.network, read_weights(o.network, observer));
  if (!network.says_input)
    detail::note(observer, o.network.weights,
                 ": does not say how it takes images; they are brought to ", network.input.size,
                 " pixels with ImageNet's mean and deviation");
  if (o.compute.device == "cpu")
    require_memory_of(network.model.config(), 1, network.input.size,
                      "\"size\" in the weights' \"input\"");
  const Placement at = o.compute.placement();
  place(network.model, at, true);
  const NoGrad not_recorded;
  std::vector<PredictedImage> all;
  for (const PredictInput& each : predict_inputs(o.images, observer)) {
    PredictedImage& image = all.emplace_back(PredictedImage{.path = each.path});
    Tensor input;
    image.error = detail::read_noted(each.path, observer, [&] {
      input = network_input(read_image(each.path, {.orient = !o.no_exif}), network.input);
    });
    if (image.error.empty())
      image.top = detail::top_classes(network.model.forward(at(input)).to(Device::cpu), o.top,
                                      network.input);
    observer.image(image);
  }
  return all;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
