#pragma once
#include "ppma/core/names_begin.hpp"
// What a trained segmentor or detector says of image files: pictures and label maps, and results in
// COCO's form. A run's weights say all of the network; of others (OpenMMLab's .pth) the options say
// which network it is, sizes and colours are the published ones.
//
//   OUT/NAME.png          the image under its classes, with a legend; or with boxes, names, masks
//   OUT/NAME_labels.png   segmentor: the label map
//   OUT/results.json      COCO's results: a mask for each class of each image; or each object
//   OUT/images.json       which image and which class each of its numbers is

#include <string>
#include <vector>

#include "ppma/commands/dense_predict_options.hpp"
#include "ppma/heads/boxes.hpp"

namespace ppma::inline PPMA_ABI {

/// A class's share of an image.
struct ClassShare {
  i64 label = 0;
  std::string name;
  i64 pixels = 0;
  double share = 0;
};

/// What a segmentor says of an image.
struct SegmentedImage {
  std::string path;
  i64 image_id = 0;
  std::string picture{}, labels{};   // paths, where they were written
  std::vector<ClassShare> shares{};  // of the classes that are there
  std::string error{};               // why there is nothing: the file cannot be read
};

/// An object on an image, in its pixels.
struct FoundObject {
  i64 label = 0;
  std::string name;
  double score = 0;
  Box box{};
};

/// What a detector says of an image.
struct DetectedImage {
  std::string path;
  i64 image_id = 0;
  std::string picture{};               // path, where it was written
  std::vector<FoundObject> objects{};  // of `least_score` and more, best first
  std::string error{};                 // why there is nothing: the file cannot be read
};

/// Hears of each image, also of one that cannot be read, of which a note says why.
template <class Image>
struct DensePredictObserver : Observer {
  /// After the image.
  virtual void image(const Image& /*image*/) {}
};

/// Names every pixel of images. Errors: no weights, or none that say what they are of; results that
/// would lie in the place of what is read; what weights and memory refuse.
PPMA_API std::vector<SegmentedImage> predict_segments(
    const DensePredictOptions& o, DensePredictObserver<SegmentedImage>& observer =
                                      nobody<DensePredictObserver<SegmentedImage>>());

/// Finds objects on images. Errors: as of predict_segments().
PPMA_API std::vector<DetectedImage> predict_objects(
    const DensePredictOptions& o,
    DensePredictObserver<DetectedImage>& observer = nobody<DensePredictObserver<DetectedImage>>());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <utility>

#include "ppma/commands/dense_file.hpp"
#include "ppma/commands/dense_report.hpp"
#include "ppma/data/detection_batches.hpp"
#include "ppma/heads/mask_rcnn.hpp"
#include "ppma/heads/segment.hpp"
#include "ppma/heads/segmentation_heads.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/vis/overlay.hpp"
#include "ppma/vis/segment_picture.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The pixels of a class as a result in COCO's form; a label map has no scores: 1.
inline CocoResult class_result(const Tensor& labels, u8 label, i64 image_id, i64 category_id) {
  Tensor mask = Tensor::empty(labels.shape(), DType::uint8);
  for (i64 i = 0; i < labels.numel(); ++i) mask.data<u8>()[i] = labels.data<u8>()[i] == label;
  CocoResult r;
  r.image_id = image_id, r.category_id = category_id, r.score = 1;
  r.mask.rle = rle_encode(mask);
  return r;
}

/// The classes that are there, of a label map.
inline std::vector<ClassShare> shares_of(const Tensor& labels,
                                         const std::vector<std::string>& names) {
  std::vector<i64> count(names.size(), 0);
  for (i64 i = 0; i < labels.numel(); ++i) ++count[labels.data<u8>()[i]];
  std::vector<ClassShare> shares;
  for (std::size_t c = 0; c < names.size(); ++c)
    if (count[c] > 0)
      shares.push_back({static_cast<i64>(c), names[c], count[c],
                        static_cast<double>(count[c]) / static_cast<double>(labels.numel())});
  return shares;
}

template <class Head>
std::vector<SegmentedImage> predict_segments_with(const DenseFile& file,
                                                  DensePredictObserver<SegmentedImage>& observer) {
  const DensePredictOptions& o = file.o;
  const Placement at = o.compute.placement();
  auto model = file.load<Segmentor<Head>>(at);
  SegmentOptions how;
  how.longer = file.longer(2048), how.shorter = file.shorter(512);
  how.normalization = file.normalization();
  how.crop = o.crop, how.stride = o.stride > 0 ? o.stride : std::max<i64>(1, o.crop * 2 / 3),
  how.factors = o.scales, how.flip = o.flip;
  DenseResults results(file, classes_of(model.config), {".png", "_labels.png"});
  std::vector<SegmentedImage> all;
  for (std::size_t n = 0; n < file.images.size(); ++n) {
    const std::string& path = file.images[n].path;
    SegmentedImage& one =
        all.emplace_back(SegmentedImage{.path = path, .image_id = results.image_ids[n]});
    Tensor image;
    one.error = read_noted(path, observer, [&] { image = read_image(path, o.reading()); });
    if (one.error.empty()) {
      const Tensor labels = segment(model, image, how, at);
      if (o.pictures) {
        one.picture = results.stems[n] + ".png", one.labels = results.stems[n] + "_labels.png";
        write_png(one.picture, segment_picture(image, labels, results.names).image());
        write_png(one.labels, labels.viewed_as({labels.dim(0), labels.dim(1), 1}));
      }
      results.add_image(n, image);
      one.shares = shares_of(labels, results.names);
      for (const ClassShare& c : one.shares)
        if (o.results)
          results.found.push_back(class_result(labels, static_cast<u8>(c.label), one.image_id,
                                               results.ids[static_cast<std::size_t>(c.label)]));
    }
    observer.image(one);
  }
  results.write();
  return all;
}

}  // namespace detail

std::vector<SegmentedImage> predict_segments(const DensePredictOptions& o,
                                             DensePredictObserver<SegmentedImage>& observer) {
  const detail::DenseFile file(o, "segment", observer);
  std::vector<SegmentedImage> all;
  with_segmentation_head(head_in(file.said), [&]<class Head>() {
    all = detail::predict_segments_with<Head>(file, observer);
  });
  return all;
}

std::vector<DetectedImage> predict_objects(const DensePredictOptions& o,
                                           DensePredictObserver<DetectedImage>& observer) {
  const detail::DenseFile file(o, "detect", observer);
  const Placement at = o.compute.placement();
  MaskRcnn model = file.load<MaskRcnn>(at);
  DetectionLoading loading;
  loading.longer = file.longer(1333), loading.shorter = {file.shorter(800)};
  loading.normalization = file.normalization();
  detail::DenseResults results(file, classes_of(model.config), {".png"});
  std::vector<DetectedImage> all;
  for (std::size_t n = 0; n < file.images.size(); ++n) {
    const std::string& path = file.images[n].path;
    DetectedImage& one =
        all.emplace_back(DetectedImage{.path = path, .image_id = results.image_ids[n]});
    DetectionSample sample;
    one.error =
        detail::read_noted(path, observer, [&] { sample.image = read_image(path, o.reading()); });
    if (one.error.empty()) {
      sample.image_id = one.image_id, sample.name = path;
      const Tensor image = sample.image;
      results.add_image(n, image);
      const DetectionBatch batch = evaluation_batch(std::move(sample), loading);
      const std::vector<Detection> found = model.detect(at(batch.images), batch.frames)[0];
      if (o.pictures) {
        one.picture = results.stems[n] + ".png";
        write_png(one.picture,
                  overlay(image, detail::shown_of(found, results.names, o.least_score)).image());
      }
      for (const Detection& d : found) {
        const auto label = static_cast<std::size_t>(d.label);
        results.found.push_back(coco_result(d, one.image_id, results.ids[label]));
        if (d.score >= o.least_score)
          one.objects.push_back({d.label, results.names[label], d.score, d.box});
      }
    }
    observer.image(one);
  }
  results.write();
  return all;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
