#pragma once
#include "ppma/core/names_begin.hpp"
// Which images, and what a network has to be told about them. The layouts of sets on disk:
// docs/data-sets.md.

#include <optional>
#include <string>
#include <vector>

#include "ppma/commands/input_info.hpp"
#include "ppma/commands/json.hpp"
#include "ppma/commands/numbers.hpp"
#include "ppma/commands/observer.hpp"
#include "ppma/core/limits.hpp"
#include "ppma/data/image_batches.hpp"

namespace ppma::inline PPMA_ABI {

/// Which images.
struct DataOptions {
  /// "data": shapes, paths (generated), cifar10, cifar100, idx, folder, csv, tar; to detect coco,
  /// voc, yolo; to segment cityscapes, ade20k, camvid, voc.
  std::string kind{};
  std::string folder{};             // "data_dir": where they are; of csv: the list
  i64 size = 0;                     // pixels; 0: what suits the set
  i64 images = 12000;               // of shapes and paths: training images
  i64 test_images = 1000;           // of shapes and paths
  std::string question = "region";  // of paths
  i64 difficulty = 2;               // of paths
  i64 workers = -1;                 // threads that prepare images, see stream_options()
  bool no_exif = false;             // of folder, csv and tar

  // All but workers, which change no result.
  template <class Options, class F>
  static void fields(Options& o, F f) {
    f("data", o.kind), f("data_dir", o.folder), f("no_exif", o.no_exif);
    f("size", o.size, Limits{least_size, most_size, {0}},
      "pixels that images are brought to; 0: what the weights say, else shapes 48, paths 64, "
      "cifar and idx 32, folder, csv and tar 224");
    f("images", o.images, counts(most_images), "shapes, paths: training images");
    f("test_images", o.test_images, counts(most_images / 10), "shapes, paths: test images");
    f("question", o.question,
      "paths: what is asked of the two marks: region (are they in one region of the picture?), "
      "curve (are they the ends of one curve?) or colour (have they one colour?)");
    f("difficulty", o.difficulty, Limits{1, 5}, "paths: how winding or how many the curves are");
  }
};

/// The tasks that a kind of data is for, "detect", "segment", "segment and detect"; "": sets that
/// can be classified, and `folder`, which can be segmented too.
PPMA_API std::string tasks_of_data(const std::string& kind);

/// How batches are made beside a network on `device`, "cpu" or "cuda": by o.workers threads, none
/// (0) beside the network's own; where nothing is said (-1) by two, which leave the cores to the
/// network, or beside a GPU by all, for it is faster than two cores can draw or decode. `ahead`:
/// batches made ahead at least. Error: fewer than -1 workers.
PPMA_API StreamOptions stream_options(const DataOptions& o, const std::string& device,
                                      i64 ahead = 4);

/// Whether a set is drawn, not read.
PPMA_API bool is_generated(const std::string& kind);

/// The data of which a run or its weights speak. Errors: as read_json_fields and check_fields.
PPMA_API DataOptions data_of(const Json& j, const std::string& where);

/// Both parts of a set, what a network is told about its images, and how they are brought to size.
/// `train` and `augment` stay empty where only the test images are wanted.
struct ClassifierData {
  Dataset train, test;
  InputInfo input;
  Transform augment, prepare;
};

/// Brings any image to the network's input: the shorter side resized, the middle taken.
PPMA_API Transform prepare_transform(const InputInfo& input);

/// What is drawn of a training image, whatever the set.
struct TrainingCrops {
  double flip = 0.5, least_area = 0.08;
};

/// The images, as `expected` says that a network takes them; where it says nothing, as suits the
/// set. `size` counts more. Errors: no such kind; what its reader refuses; an option of other data.
PPMA_API ClassifierData make_data(const DataOptions& o, u64 seed, bool trains = true,
                                  const std::optional<InputInfo>& expected = {},
                                  const TrainingCrops& crops = {}, Observer& observer = nobody());

/// How test images become batches: as they are brought to size, in their order.
PPMA_API ImageLoading test_loading(const ClassifierData& d, i64 batch);

/// The rows of a tensor, in the order of `which`.
PPMA_API Tensor chosen_rows(const Tensor& x, const std::vector<i64>& which);

/// An image file as the network takes it, (1,3,size,size).
PPMA_API Tensor network_input(const Tensor& image, const InputInfo& input);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <filesystem>

#include "ppma/core/parallel.hpp"
#include "ppma/data/cifar.hpp"
#include "ppma/data/idx_folder.hpp"
#include "ppma/data/image_folder.hpp"
#include "ppma/data/image_list.hpp"
#include "ppma/data/paths.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/data/tar_shards.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

StreamOptions stream_options(const DataOptions& o, const std::string& device, i64 ahead) {
  check(o.workers >= -1, "data: ", o.workers, " workers; there must be 0 or more, or -1");
  StreamOptions made;
  made.workers = o.workers >= 0 ? o.workers : std::max<i64>(2, device == "cuda" ? threads() : 0);
  made.ahead = std::max(ahead, made.workers);
  return made;
}

std::string tasks_of_data(const std::string& kind) {
  if (kind == "voc") return "segment and detect";
  for (const char* set : {"coco", "yolo"})
    if (kind == set) return "detect";
  for (const char* set : {"cityscapes", "ade20k", "camvid"})
    if (kind == set) return "segment";
  return "";
}

bool is_generated(const std::string& kind) { return kind == "shapes" || kind == "paths"; }

DataOptions data_of(const Json& j, const std::string& where) {
  DataOptions o;
  read_kept(j, where, o);
  return o;
}

Transform prepare_transform(const InputInfo& input) {
  return [size = input.size, ratio = input.crop](const Tensor& image, Rng&) {
    if (image.dim(0) == size && image.dim(1) == size && ratio == 1) return image;
    return center_crop(resize_shorter(image, static_cast<i64>(static_cast<double>(size) / ratio)),
                       size, size);
  };
}

namespace detail {

constexpr const char* data_kinds =
    "shapes, paths, cifar10, cifar100, idx, folder, csv and tar; coco, voc and yolo to detect; "
    "cityscapes, ade20k, camvid and voc to segment";

/// The class folders of `data` folder for a part of the set: DIR/val, or DIR itself where there are
/// test images alone.
inline Dataset class_folders(const std::string& root, Split split, const ImageReading& reading) {
  namespace fs = std::filesystem;
  const auto has = [&](const char* part) { return fs::is_directory(root + "/" + part); };
  if (split == Split::train) return image_folder(root + "/train", reading);
  return image_folder(has("val") || has("train") ? root + "/val" : root, reading);
}

/// Which part of a list is tested on: while a network is trained `val`, so that `test` stays
/// unseen, and then `test`; the other where there is none.
inline Split tested_split(const ImageList& list, bool trains) {
  const Split first = trains ? Split::val : Split::test, other = trains ? Split::test : Split::val;
  check(!list.has_splits() || list.has(first) || list.has(other), list.name,
        ": no image has the split val or test, to test on");
  return list.has(first) || !list.has_splits() ? first : other;
}

/// The parts of `data` tar. While a network is trained it is tested on the shards val*, then on
/// test*, or on the other where there is none; alone on all that are given, if none has such a
/// name.
inline void take_shards(ClassifierData& d, const std::string& path, bool trains,
                        const ImageReading& reading) {
  std::vector<std::string> tested = tar_paths(path, trains ? Split::val : Split::test);
  if (tested.empty()) tested = tar_paths(path, trains ? Split::test : Split::val);
  check(!tested.empty() || !trains, path,
        ": there are no shards to test on; their names begin with val or test, and they lie beside "
        "those to learn from");
  if (tested.empty()) tested = tar_paths(path);
  const TarShards test = read_tar_shards(tested);
  if (!trains) {
    d.test = tar_set(test, tar_classes({&test}), reading);
    return;
  }
  const std::vector<std::string> learnt = tar_paths(path, Split::train);
  check(!learnt.empty(), path,
        ": there are no shards to learn from; the names of all begin with val or test");
  const TarShards train = read_tar_shards(learnt);
  const std::vector<std::string> classes = tar_classes({&train, &test});
  d.train = tar_set(train, classes, reading), d.test = tar_set(test, classes, reading);
}

}  // namespace detail

ClassifierData make_data(const DataOptions& o, u64 seed, bool trains,
                         const std::optional<InputInfo>& expected, const TrainingCrops& crops,
                         Observer& observer) {
  ClassifierData d;
  check(!o.no_exif || o.kind == "folder" || o.kind == "csv" || o.kind == "tar",
        "`no_exif` is for `data` folder, csv and tar, not ", o.kind);
  const auto side = [&](i64 usual) {
    return o.size > 0 ? o.size : expected && expected->size > 0 ? expected->size : usual;
  };
  const auto file_backed = [&] {
    check(!o.folder.empty(), "`data` ", o.kind, " needs `data_dir`");
    if (o.kind == "tar") return;
    const bool is_list = std::filesystem::is_regular_file(o.folder),
               is_folder = std::filesystem::is_directory(o.folder);
    if (o.kind == "csv")
      check(!is_folder, "`data_dir`: ", o.folder, " is a folder; `data` csv reads a list, a file");
    else
      check(!is_list, "`data_dir`: ", o.folder, " is a file; `data` ", o.kind, " reads a folder");
  };
  if (o.kind == "shapes") {
    const i64 size = side(48);
    if (trains)
      d.train = shapes(
          {.height = size, .width = size, .images = o.images, .seed = seed, .split = Split::train});
    d.test = shapes({.height = size, .width = size, .images = o.test_images, .split = Split::test});
    d.input.size = size;
    d.input.crop = 1;
    d.input.normalization = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}};
    d.augment = [flip = crops.flip](const Tensor& image, Rng& rng) {
      return random_flip(image, rng, flip);
    };
  } else if (o.kind == "paths") {
    PathsOptions drawn{.task = parse_paths_task(o.question), .difficulty = o.difficulty};
    drawn.size = d.input.size = side(64);
    drawn.images = o.images, drawn.seed = seed;
    if (trains) d.train = paths(drawn);
    drawn.images = o.test_images, drawn.seed = 0, drawn.split = Split::test;
    d.test = paths(drawn);
    d.input.crop = 1;
    d.input.normalization = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}};
    d.augment = [flip = crops.flip](const Tensor& image, Rng& rng) {
      return random_flip(image, rng, flip);
    };
  } else if (o.kind == "cifar10" || o.kind == "cifar100") {
    file_backed();
    if (trains) d.train = cifar(o.folder, Split::train);
    d.test = cifar(o.folder, Split::test);
    check(d.test.name == o.kind, o.folder, ": holds ", d.test.name, ", not ", o.kind);
    d.input.size = side(32);
    d.input.crop = 1;
    d.input.normalization = {{0.4914f, 0.4822f, 0.4465f}, {0.2470f, 0.2435f, 0.2616f}};
    d.augment = [size = d.input.size, flip = crops.flip](const Tensor& image, Rng& rng) {
      const Tensor moved = random_flip(random_crop(image, 32, 32, 4, rng), rng, flip);
      return size == 32 ? moved : resize_shorter(moved, size);
    };
  } else if (o.kind == "idx") {
    file_backed();
    if (trains) d.train = idx_folder(o.folder, Split::train);
    d.test = idx_folder(o.folder, Split::test);
    d.input.size = side(32);
    d.input.crop = 1;
    // MNIST's; no flips, which would change what letters and digits are.
    d.input.normalization = {{0.1307f, 0.1307f, 0.1307f}, {0.3081f, 0.3081f, 0.3081f}};
    d.augment = [size = d.input.size](const Tensor& image, Rng& rng) {
      return random_crop(resize_shorter(image, size), size, size, size / 8, rng);
    };
  } else {
    check(
        o.kind == "folder" || o.kind == "csv" || o.kind == "tar" || !tasks_of_data(o.kind).empty(),
        "`data` ", o.kind, ": there is no such kind of data; there are ", detail::data_kinds);
    check(tasks_of_data(o.kind).empty(), "`data` ", o.kind, " is for `task` ",
          tasks_of_data(o.kind));
    file_backed();
    const ImageReading reading{.orient = !o.no_exif};
    if (o.kind == "tar") {
      detail::take_shards(d, o.folder, trains, reading);
    } else if (o.kind == "csv") {
      const ImageList list = read_image_list(o.folder);
      if (trains) d.train = image_list(list, Split::train, reading);
      d.test = image_list(list, detail::tested_split(list, trains), reading);
    } else {
      if (trains) d.train = detail::class_folders(o.folder, Split::train, reading);
      d.test = detail::class_folders(o.folder, Split::test, reading);
      const std::string difference =
          trains ? class_difference(d.train.class_names, d.test.class_names) : "";
      check(difference.empty(), o.folder, ": train and val must have the same classes; in val ",
            difference);
    }
    d.input.size = side(224);
    d.input.crop = 0.875;
    d.augment = [size = d.input.size, crops](const Tensor& image, Rng& rng) {
      const ResizedCrop area{.least_area = crops.least_area};
      return random_flip(random_resized_crop(image, size, size, rng, area), rng, crops.flip);
    };
  }
  d.input.classes = d.test.class_names;
  for (const std::string& name : d.input.classes)
    check(is_utf8(name), o.folder, ": the class \"", name,
          "\" is not named in UTF-8; rename its folder");
  if (expected && expected->size > 0) d.input.crop = expected->crop;
  if (expected) d.input.normalization = expected->normalization;
  d.prepare = prepare_transform(d.input);
  for (const Dataset* part : {&d.train, &d.test})
    detail::note_left_out(observer, part->name, part->left_out);
  return d;
}

ImageLoading test_loading(const ClassifierData& d, i64 batch) {
  ImageLoading o;
  o.batch = batch;
  o.shuffle = o.drop_last = false;
  o.transform = d.prepare;
  o.normalization = d.input.normalization;
  return o;
}

Tensor chosen_rows(const Tensor& x, const std::vector<i64>& which) {
  Shape shape{static_cast<i64>(which.size())};
  for (int axis = 1; axis < x.rank(); ++axis) shape.push_back(x.dim(axis));
  const i64 bytes = x.bytes() / x.dim(0);
  Tensor chosen = Tensor::empty(shape, x.dtype());
  char* to = static_cast<char*>(chosen.raw());
  for (const i64 row : which)
    to = std::copy_n(static_cast<const char*>(x.raw()) + row * bytes, bytes, to);
  return chosen;
}

Tensor network_input(const Tensor& image, const InputInfo& input) {
  Rng unused;
  return normalize(prepare_transform(input)(image, unused), input.normalization);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
