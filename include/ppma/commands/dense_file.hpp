#pragma once
#include "ppma/core/names_begin.hpp"
// What dense_predict.hpp reads and writes beside the images.

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

#include "ppma/commands/dense_network.hpp"
#include "ppma/commands/dense_predict_options.hpp"
#include "ppma/commands/json.hpp"
#include "ppma/io/coco.hpp"
#include "ppma/nn/init.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void make_folders(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  check(!error, path, ": cannot be made (", error.message(), ")");
}

/// OUT/STEM of each image, to which `endings` are put; `others` are written to OUT too. Makes the
/// folders where something is written.
/// Errors: two results in one file; a result in the place of a file that is read.
inline std::vector<std::string> result_stems(const DensePredictOptions& o,
                                             const std::vector<PredictInput>& images,
                                             const std::vector<std::string>& endings,
                                             const std::vector<std::string>& others) {
  namespace fs = std::filesystem;
  std::map<std::string, std::string> source;  // of a file that is written
  std::vector<std::string> stems;
  if (o.results)
    for (const std::string& name : others) source[o.out + "/" + name] = "the results";
  for (const PredictInput& image : images) {
    stems.push_back(o.out + "/" + fs::path(image.name).replace_extension().string());
    for (std::size_t k = 0; o.pictures && k < endings.size(); ++k) {
      const auto [at, is_new] = source.emplace(stems.back() + endings[k], image.path);
      check(is_new, "predict: ", at->second, " and ", image.path, " would both be written to ",
            at->first, "; predict them one after the other, with an `out` for each");
    }
  }
  std::vector<std::string> inputs;
  for (const PredictInput& image : images) inputs.push_back(image.path);
  inputs.insert(inputs.end(), {o.network.weights, o.network.config, o.network.segmentor,
                               o.network.detector, o.gt, o.classes});
  for (const auto& written : source)
    for (const std::string& input : inputs) {
      std::error_code absent;  // then it is not the same
      check(!fs::equivalent(written.first, input, absent), "predict: ", input,
            " would be overwritten by the picture of ", written.second,
            "; choose another `out` than ", o.out);
    }
  if (o.pictures || o.results) make_folders(o.out);
  for (const std::string& stem : stems)
    if (const std::string folder = fs::path(stem).parent_path().string();
        o.pictures && folder != o.out)
      make_folders(folder);
  return stems;
}

/// What predict has beside the images: weights, what describes their network, and what numbers and
/// names mean. A run's files say all of it; of others (OpenMMLab's .pth) the options say which
/// network it is, sizes and colours are the published ones.
struct DenseFile {
  const DensePredictOptions& o;
  Observer& observer;
  std::vector<PredictInput> images;
  WeightsOfFile file;
  std::vector<NetworkDescription> said;
  std::optional<InputInfo> input;  // nothing: the file does not say
  std::optional<CocoTruth> truth;  // --gt

  DenseFile(const DensePredictOptions& options, const std::string& task, Observer& heard)
      : o(options), observer(heard), images(predict_inputs(options.images, heard)) {
    const std::string& path = o.network.weights;
    check(!path.empty(), "predict `task` ", task, ": needs `weights`");
    file = dense_weights(o.network, heard);
    said = descriptions(o.network, task, file);
    check(!said.empty() || !o.network.model.empty(), path, ": does not describe a ",
          task == "segment" ? "segmentor" : "detector",
          "; take best.safetensors of a run, or say what it is with `model` or `config`");
    input = InputInfo::of(file.metadata, path);
    check(!input || input->longer > 0, where(), ": is of a classifier, not of a network that can ",
          task);
    if (!o.gt.empty()) truth = read_coco(o.gt, false);
  }
  /// The network with its weights, where it computes.
  template <class Model>
  Model load(const Placement& at) const {
    Model model = [&] {
      const SkipInit skip;
      const auto config =
          dense_config<decltype(Model::config)>(o.network, "ppma_tiny", said, file.tensors);
      require_weights(config, std::is_same_v<Model, MaskRcnn> ? "detect" : "segment");
      return Model(config);
    }();
    load_state_dict(model, file.tensors);
    place_dense(model, at, true);
    return model;
  }
  std::string where() const { return o.network.weights + ": input"; }
  Normalization normalization() const { return input ? input->normalization : Normalization{}; }
  /// What images are brought to: the option, else what the file says, else the published side.
  i64 longer(i64 published) const {
    return side("longer", o.longer, input ? input->longer : 0, published);
  }
  i64 shorter(i64 published) const {
    return side("shorter", o.shorter, input ? input->shorter : 0, published);
  }
  /// The classes' names: `classes`, else the weights file's, else those of `gt` where it has as
  /// many, else numbers. Error: other than one for each class of the network.
  std::vector<std::string> names(i64 classes) const {
    std::vector<std::string> list;
    std::istringstream lines(o.classes.empty() ? "" : read_text(o.classes));
    for (std::string line; std::getline(lines, line);)
      if (!line.empty()) list.push_back(line);
    if (input) input->check_outputs(classes, where());
    if (o.classes.empty() && input) return input->classes;
    if (o.classes.empty() && truth && static_cast<i64>(truth->categories.size()) == classes)
      for (const CocoCategory& c : truth->categories) list.push_back(c.name);
    else if (o.classes.empty())
      for (i64 c = 0; c < classes; ++c) list.push_back(str("class ", c));
    check(static_cast<i64>(list.size()) == classes, o.classes, ": names ", list.size(),
          " classes, the network tells ", classes, " apart");
    return list;
  }
  /// The classes' numbers in results: those that `gt` has for all the names, else the weights
  /// file's, else from 1. Error: `gt` has a name less, and the file no numbers.
  std::vector<i64> category_ids(const std::vector<std::string>& class_names) const {
    std::vector<i64> ids;
    std::string unknown;
    for (const std::string& name : class_names) {
      ids.push_back(static_cast<i64>(ids.size()) + 1);
      if (!truth) continue;
      const auto it = std::find_if(truth->categories.begin(), truth->categories.end(),
                                   [&](const CocoCategory& c) { return c.name == name; });
      if (it == truth->categories.end())
        unknown = name;
      else
        ids.back() = it->id;
    }
    const bool numbered = input && input->numbered;
    if (numbered && (!truth || !unknown.empty())) return input->category_ids;
    check(unknown.empty(), o.gt, ": has no category \"", unknown,
          "\"; name the network's classes as there, with `classes`");
    return ids;
  }
  /// The images' numbers in results: those of `gt` for a file of this name, else from 1.
  std::vector<i64> image_ids() const {
    std::vector<i64> ids;
    for (const auto& [image, name] : images) {
      ids.push_back(static_cast<i64>(ids.size()) + 1);
      if (!truth) continue;
      const std::string path =
          "/" + std::filesystem::absolute(image).lexically_normal().generic_string();
      std::size_t longest = 0;  // a file_name may hold folders
      for (const CocoImage& i : truth->images)
        if (i.file_name.size() > longest && path.ends_with("/" + i.file_name))
          longest = i.file_name.size(), ids.back() = i.id;
      check(longest > 0, o.gt, ": has no image with the file_name of ", image);
    }
    return ids;
  }

 private:
  i64 side(const char* name, i64 option, i64 told, i64 published) const {
    if (option > 0 && told > 0 && option != told)
      note(observer, "`", name, "` ", option, " instead of the ", told,
           " pixels that the weights say");
    return option > 0 ? option : told > 0 ? told : published;
  }
};

/// What is written of all images: their names and numbers, and COCO's results.
struct DenseResults {
  const DenseFile& file;
  std::vector<std::string> names;   // of the classes
  std::vector<i64> ids, image_ids;  // numbers of the classes, and of the images
  std::vector<std::string> stems;   // OUT/NAME of each image
  std::vector<CocoResult> found{};
  Json images = Json::array();

  /// Of a network that tells so many classes apart; `endings` of each image's files.
  DenseResults(const DenseFile& of, i64 classes, const std::vector<std::string>& endings)
      : file(of),
        names(of.names(classes)),
        ids(of.category_ids(names)),
        image_ids(of.image_ids()),
        stems(result_stems(of.o, of.images, endings, {"results.json", "images.json"})) {}

  /// An image that was read.
  void add_image(std::size_t n, const Tensor& image) {
    const std::string& name = file.images[n].name;
    images.push_back({{"id", image_ids[n]},
                      {"file_name", printable(name, name.size())},
                      {"height", image.dim(0)},
                      {"width", image.dim(1)}});
  }
  /// OUT/results.json in COCO's form, and OUT/images.json: which image and which class each of its
  /// numbers is, as in COCO's annotations.
  void write() const {
    if (!file.o.results) return;
    Json categories = Json::array();
    for (std::size_t c = 0; c < names.size(); ++c)
      categories.push_back({{"id", ids[c]}, {"name", names[c]}});
    write_coco_results(file.o.out + "/results.json", found);
    write_file(
        file.o.out + "/images.json",
        std::string_view(Json{{"images", images}, {"categories", categories}}.dump(1) + "\n"));
  }
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
