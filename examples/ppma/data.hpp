#pragma once
// Which images: --data shapes | cifar10 | cifar100 | folder, and what a network has to be told about them.

#include "common.hpp"
#include "images.hpp"
#include "ppma/data/cifar.hpp"
#include "ppma/data/image_folder.hpp"
#include "ppma/data/loader.hpp"
#include "ppma/data/shapes.hpp"

namespace tool {

struct DataOptions {
  std::string kind, folder;
  i64 size = 0;            // pixels; 0: what suits the set
  i64 images = 12000;      // of shapes: training images
  i64 test_images = 1000;  // of shapes
  i64 workers = 2;
  bool no_exif = false;  // of folder

  Json to_json() const {
    return {{"data", kind}, {"data_dir", folder}, {"size", size}, {"images", images}, {"test_images", test_images}, {"no_exif", no_exif}};
  }
  static DataOptions from_json(const Json& j, const std::string& where) {
    DataOptions o;
    read_member(j, "data", where, o.kind), read_member(j, "data_dir", where, o.folder), read_member(j, "size", where, o.size);
    read_member(j, "images", where, o.images), read_member(j, "test_images", where, o.test_images);
    read_member(j, "no_exif", where, o.no_exif);
    return o;
  }
};

inline void add_data(CLI::App& app, DataOptions& o) {
  app.add_option("--data", o.kind,
                 "shapes (generated), cifar10, cifar100 (binary versions), folder (train/CLASS/*, val/CLASS/*), or coco (annotations and images, to detect)")
      ->check(CLI::IsMember({"shapes", "cifar10", "cifar100", "folder", "coco"}))
      ->capture_default_str();
  app.add_option("--data-dir", o.folder, "where the files of cifar10, cifar100 or folder are")
      ->check(CLI::ExistingDirectory);
  app.add_option("--size", o.size, "pixels that images are brought to; 0: shapes 48, cifar 32, folder 224")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--images", o.images, "shapes: training images")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--test-images", o.test_images, "shapes: test images")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_no_exif(app, o.no_exif);
  app.add_option("--workers", o.workers, "threads that prepare images")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

/// Both parts of a set, what a network is told about its images, and how they are brought to size.
struct Data {
  Dataset train, test;
  InputInfo input;
  Transform augment, prepare;
};

/// Brings any image to the network's input: the shorter side resized, the middle taken.
inline Transform prepare_transform(const InputInfo& input) {
  return [size = input.size, ratio = input.crop](const Tensor& image, Rng&) {
    if (image.dim(0) == size && image.dim(1) == size && ratio == 1) return image;
    return center_crop(resize_shorter(image, static_cast<i64>(static_cast<double>(size) / ratio)), size, size);
  };
}

inline Data make_data(const DataOptions& o, u64 seed) {
  Data d;
  check(!o.no_exif || o.kind == "folder", "--no-exif is for --data folder, not ", o.kind);
  const auto file_backed = [&] { check(!o.folder.empty(), "--data ", o.kind, " needs --data-dir"); };
  if (o.kind == "shapes") {
    const i64 size = o.size > 0 ? o.size : 48;
    d.train = shapes({.height = size, .width = size, .images = o.images, .seed = seed, .split = Split::train});
    d.test = in_memory(shapes({.height = size, .width = size, .images = o.test_images, .split = Split::test}));
    d.input.size = size;
    d.input.crop = 1;
    d.input.normalization = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}};
    d.augment = [](const Tensor& image, Rng& rng) { return random_flip(image, rng); };
  } else if (o.kind == "cifar10" || o.kind == "cifar100") {
    file_backed();
    d.train = cifar(o.folder, Split::train), d.test = cifar(o.folder, Split::test);
    check(d.train.name == o.kind, o.folder, ": holds ", d.train.name, ", not ", o.kind);
    d.input.size = o.size > 0 ? o.size : 32;
    d.input.crop = 1;
    d.input.normalization = {{0.4914f, 0.4822f, 0.4465f}, {0.2470f, 0.2435f, 0.2616f}};
    d.augment = [size = d.input.size](const Tensor& image, Rng& rng) {
      const Tensor moved = random_flip(random_crop(image, 32, 32, 4, rng), rng);
      return size == 32 ? moved : resize_shorter(moved, size);
    };
  } else {
    check(o.kind == "folder", "--data ", o.kind, " is for --task detect");
    file_backed();
    const ImageReading reading{.orient = !o.no_exif};
    d.train = image_folder(o.folder + "/train", reading), d.test = image_folder(o.folder + "/val", reading);
    check(d.train.class_names == d.test.class_names, o.folder, ": train and val have different classes");
    d.input.size = o.size > 0 ? o.size : 224;
    d.input.crop = 0.875;
    d.augment = [size = d.input.size](const Tensor& image, Rng& rng) {
      return random_flip(random_resized_crop(image, size, size, rng), rng);
    };
  }
  d.input.classes = d.train.class_names;
  d.prepare = prepare_transform(d.input);
  for (const Dataset* part : {&d.train, &d.test}) warn_left_out(part->name, part->left_out);
  return d;
}

inline LoaderOptions test_loading(const Data& d, i64 batch, i64 workers) {
  LoaderOptions o;
  o.batch = batch;
  o.shuffle = o.drop_last = false;
  o.workers = workers;
  o.transform = d.prepare;
  o.normalization = d.input.normalization;
  return o;
}

/// An image file as the network takes it, (1,3,size,size).
inline Tensor network_input(const Tensor& image, const InputInfo& input) {
  Rng unused;
  return normalize(prepare_transform(input)(image, unused), input.normalization);
}

}  // namespace tool
