#pragma once
#include "ppma/core/names_begin.hpp"
// What the training of segmentors and detectors has in common: the backbone's weights, a line of
// the log, pictures. A run's folder has beside training_run.hpp's:
//
//   OUT/pictures/epoch_N.png   what the network says of a few images of the test set
//   OUT/curve.png, curve.svg   losses and figures
//   OUT/confusion.png, .svg    segmentation: what pixels are taken for what
//   OUT/history/               decays over training (run_decays.hpp)
//   OUT/report.html            all that is known of the last evaluation and of the run

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "ppma/commands/dense_network.hpp"
#include "ppma/commands/dense_training.hpp"
#include "ppma/commands/training_run.hpp"
#include "ppma/data/sampling.hpp"
#include "ppma/io/image.hpp"
#include "ppma/train/trainer.hpp"
#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The part of a training set that `fraction` says.
template <class Set>
Set share_of_set(Set set, const DenseTraining& o) {
  if (o.data_fraction == 1) return set;
  std::vector<i64> which = share_of(set.size, o.data_fraction, o.seed);
  return chosen(std::move(set), std::move(which));
}

/// The network that is trained: by default the small one. `drop_path` is on top of what describes
/// it.
template <class Config>
Config training_config(const DenseTraining& o, const std::vector<NetworkDescription>& said) {
  Config c = dense_config<Config>(o.network, "ppma_nano", said);
  if (o.drop_path >= 0) c.backbone.drop_path_rate = o.drop_path;
  return c;
}

/// What images are brought to and what the classes are: `of_data`, but colours as the weights that
/// training begins with take them, and of a resumed run as it had them. Error: the run had other
/// classes.
inline InputInfo training_input(const TrainingRun& run, const DenseTraining& o, InputInfo of_data) {
  if (run.resumed()) {
    const auto had = InputInfo::of(read_safetensors(run.last()).metadata, run.last());
    if (!had) return of_data;
    check_classes_of_run(o.out, *had, of_data);
    return *had;
  }
  if (o.network.weights.empty()) return of_data;
  const WeightsOfFile file = read_weights(o.network, run.heard());
  if (const auto known = InputInfo::of(file.metadata, o.network.weights)) {
    of_data.normalization = known->normalization;
    note(run.heard(), "colours as ", o.network.weights, " says: its mean and deviation");
  }
  return of_data;
}

/// The backbone of `weights`, frozen where that is wanted; the network where and in what it is
/// trained; and how it is, but for the learning rate.
template <class Model>
TrainOptions place_for_training(const TrainingRun& run, Model& model, const DenseTraining& o) {
  if (const std::string& weights = o.network.weights; !weights.empty()) {
    const LoadReport report =
        load_state_dict(model.backbone, read_weights(o.network).tensors,
                        {.strict = false, .ignore = {"proj.", "norm.", "head."}});
    check(report.loaded > 0, weights, ": nothing in it fits the backbone (", report.text(), ")");
    run.heard().taken(report);
  }
  if (o.freeze_backbone) set_trainable(model.backbone, false);
  freeze(model, o.freeze);
  TrainOptions t;
  t.at = o.compute.placement(true);
  to(model, accumulator_dtype(t.at.dtype)), to(model, t.at.device);
  t.epochs = o.stop(), t.accumulate = o.accumulate, t.clip = o.clip, t.ema_decay = o.ema;
  t.rules = norm_rules(o.weight_decay), t.optimizer = o.optimizer_options();
  t.ema_warm = !o.ema_plain;
  t.evaluate_every = o.evaluate_every, t.seed = o.seed;
  t.checkpoint_blocks = o.checkpoint_blocks, t.processes = run.processes();
  return t;
}

/// An epoch's line in the log, with the keys of OpenMMLab's logs; figures follow.
inline Json dense_record(const EpochReport& r) {
  Json record{{"epoch", r.epoch}, {"lr", r.last_lr}, {"loss", r.train_loss}};
  for (const auto& [name, value] : r.parts) record[name] = value;
  return record;
}

/// What an epoch's line in the log ends with.
inline void put_times(Json& record, const EpochReport& r) {
  if (r.skipped > 0) record["skipped_steps"] = r.skipped;
  record["data_seconds"] = r.data_seconds, record["seconds"] = r.seconds;
}

/// Pixels of a picture's longer side in a sheet, at least. A sheet is compressed after every
/// evaluation: of small images more would take longer than a small network's epoch, and show
/// nothing more.
inline constexpr i64 picture_side = 320;

/// Pictures in two columns.
inline Picture sheet_of(const std::vector<Picture>& pictures) {
  i64 width = 0, height = 0;
  for (const Picture& p : pictures)
    width = std::max(width, p.width()), height = std::max(height, p.height());
  const i64 gap = 12, n = static_cast<i64>(pictures.size()), columns = std::min<i64>(n, 2);
  Picture all(columns * (width + gap) + gap, (n + 1) / 2 * (height + gap) + gap);
  for (std::size_t k = 0; k < pictures.size(); ++k)
    all.paste(gap + static_cast<i64>(k % 2) * (width + gap),
              gap + static_cast<i64>(k / 2) * (height + gap), pictures[k].image());
  return all;
}

/// The pictures of a test set's first images, as many as four, in a sheet of the run.
class FirstPictures {
 public:
  FirstPictures(TrainingRun& run, i64 test_images)
      : run_(run), wanted_(std::min<i64>(4, run.part().end(test_images))) {}

  /// draw() is the picture of an image of the test set.
  template <class F>
  void add(i64 index, F draw, const Testing& how) {
    if (index >= wanted_) return;
    if (index == 0) pictures_.clear();
    pictures_.push_back(draw());
    if (index + 1 < wanted_) return;
    const char* const ending = how.averaged ? "_averaged.png" : ".png";
    write_png(run_.folder().picture(str("epoch_", how.epoch, ending)), sheet_of(pictures_).image());
  }

 private:
  TrainingRun& run_;
  i64 wanted_;
  std::vector<Picture> pictures_{};
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
