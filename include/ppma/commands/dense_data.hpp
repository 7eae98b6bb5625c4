#pragma once
#include "ppma/core/names_begin.hpp"
// The images of segmentors and detectors: generated, or in one of the layouts of docs/data-sets.md.

#include <memory>
#include <string>
#include <vector>

#include "ppma/commands/data.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/data/segmentation.hpp"
#include "ppma/data/shapes.hpp"

namespace ppma::inline PPMA_ABI {

/// Both parts of a set with a class for every pixel.
struct SegmentationData {
  SegmentationSet train, test;
};

/// The set of the options: shapes; folder, cityscapes, ade20k, camvid or voc. What it leaves out is
/// noted. Errors: another kind; what its reader refuses.
PPMA_API SegmentationData make_segmentation_data(const DataOptions& o, u64 seed,
                                                 Observer& observer = nobody());

/// The files of a part ("train" or "val") of a set in one of the layouts: coco, voc, yolo. Without
/// `masks` those of COCO are not looked at. With `broken` what is wrong with single images goes
/// there, where the layout has files for each.
PPMA_API DetectionFiles detection_files(const std::string& kind, const std::string& root,
                                        const std::string& part, bool masks,
                                        std::vector<std::string>* broken = nullptr);

/// Both parts of a set with objects.
struct DetectionData {
  DetectionSet train, test;
  std::shared_ptr<const CocoTruth> truth;  // of test
  CocoSkips skips;                         // of train
  Normalization normalization{};
};

/// The set of the options: shapes, coco, voc or yolo; with the objects' masks, or boxes only. What
/// it leaves out is noted. Errors: another kind; masks where there are none; parts of other
/// classes; what its reader refuses.
PPMA_API DetectionData make_detection_data(const DataOptions& o, u64 seed, bool masks,
                                           Observer& observer = nobody());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <filesystem>
#include <optional>

#include "ppma/data/coco_evaluation.hpp"
#include "ppma/data/voc.hpp"
#include "ppma/data/voc_segmentation.hpp"
#include "ppma/data/yolo.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Generated images to train on, or to test on: the latter are the same for any seed.
inline ShapesOptions shapes_of(const DataOptions& o, u64 seed, Split split) {
  const bool trains = split == Split::train;
  return {.height = o.size,
          .width = o.size,
          .images = trains ? o.images : o.test_images,
          .seed = trains ? seed : 0,
          .split = split,
          .most_extra = 3};
}

/// The first of some paths that exists.
inline std::string existing(const std::vector<std::string>& paths) {
  for (const std::string& p : paths)
    if (std::filesystem::exists(p)) return p;
  std::string all;
  for (const std::string& p : paths) all += (all.empty() ? "" : ", ") + p;
  fail("there is none of ", all);
}

}  // namespace detail

SegmentationData make_segmentation_data(const DataOptions& o, u64 seed, Observer& observer) {
  if (o.kind == "shapes")
    return {shapes_segmentation(detail::shapes_of(o, seed, Split::train)),
            shapes_segmentation(detail::shapes_of(o, seed, Split::test))};
  check((o.kind == "folder" || tasks_of_data(o.kind).starts_with("segment")) && !o.folder.empty(),
        "`task` segment: `data` is shapes, or folder, cityscapes, ade20k, camvid or voc with "
        "`data_dir`");
  std::optional<SegmentationLayout> layout;  // folder: whichever it has
  for (const auto known :
       {SegmentationLayout::cityscapes, SegmentationLayout::ade20k, SegmentationLayout::camvid})
    if (o.kind == to_string(known)) layout = known;
  const auto part = [&](Split split) {
    return o.kind == "voc" ? voc_segmentation(o.folder, split)
                           : segmentation_folder(o.folder, split, layout);
  };
  SegmentationData d{part(Split::train), part(Split::val)};
  for (const std::string& name : d.train.class_names)
    check(is_utf8(name), o.folder, "/classes.txt: \"", name, "\" is not UTF-8");
  detail::note_left_out(observer, o.folder + " (training)", d.train.left_out);
  detail::note_left_out(observer, o.folder + " (validation)", d.test.left_out);
  return d;
}

DetectionFiles detection_files(const std::string& kind, const std::string& root,
                               const std::string& part, bool masks,
                               std::vector<std::string>* broken) {
  const Split split = part == "train" ? Split::train : Split::val;
  if (kind == "voc") return voc_files(root, split, broken);
  if (kind == "yolo") return yolo_files(root, split, broken);
  const std::string notes = root + "/annotations/instances_" + part;
  const std::string annotations = detail::existing({notes + ".json", notes + "2017.json"}),
                    images = detail::existing(
                        {root + "/images/" + part, root + "/" + part + "2017", root + "/" + part});
  return {std::make_shared<const CocoTruth>(read_coco(annotations, masks)), images};
}

DetectionData make_detection_data(const DataOptions& o, u64 seed, bool masks, Observer& observer) {
  DetectionData d;
  if (o.kind == "shapes") {
    d.train = shapes_set(detail::shapes_of(o, seed, Split::train));
    d.test = shapes_set(detail::shapes_of(o, seed, Split::test));
    d.truth = std::make_shared<const CocoTruth>(truth_of(d.test));
    d.normalization = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}};
    return d;
  }
  check(tasks_of_data(o.kind).ends_with("detect") && !o.folder.empty(),
        "`task` detect: `data` is shapes, or coco, voc or yolo with `data_dir`");
  check(!masks || o.kind != "voc",
        "`data` voc has boxes and no masks, which a mask head learns from; give `boxes_only`");
  const auto part = [&](const std::string& name, bool all, CocoSkips* skips) {
    const DetectionFiles files = detection_files(o.kind, o.folder, name, masks);
    d.truth = files.truth;  // the last one's stays
    detail::note_left_out(observer, o.folder + " (" + name + ")", files.left_out);
    return detection_set(files, masks, all, skips);
  };
  d.train = part("train", false, &d.skips);
  d.test = part("val", true, nullptr);
  // now, not after an epoch
  check_scorable(*d.truth, masks ? CocoType::segm : CocoType::bbox);
  const std::string difference = class_difference(d.train.class_names, d.test.class_names);
  check(difference.empty(), o.folder,
        ": the training and validation files must have the same categories; in the latter ",
        difference);
  check(d.train.category_ids == d.test.category_ids, o.folder,
        ": training and validation files number their categories differently");
  return d;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
