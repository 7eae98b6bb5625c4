#pragma once
#include "ppma/core/names_begin.hpp"
// With `tensorboard`: what a run says of itself, as OUT/events.out.tfevents.* for TensorBoard.
//
//   train/loss, train/lr, ...   some fifty points an epoch, each the mean since the one before
//   test/..., test_ema/...      figures after each evaluation, of the weights and of their average
//   decays, confusion, predictions   pictures

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "ppma/commands/json.hpp"
#include "ppma/train/epoch_sums.hpp"
#include "ppma/train/run_folder.hpp"
#include "ppma/train/tensorboard.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The curve that a figure of the log is in: test_ema_acc1 -> test_ema/acc1, ema_mIoU ->
/// test_ema/mIoU; "": it is none of an evaluation.
inline std::string figure_tag(const std::string& key) {
  for (const auto& [prefix, folder] :
       {std::pair{"test_ema_", "test_ema/"}, {"test_", "test/"}, {"ema_", "test_ema/"}})
    if (key.starts_with(prefix)) return folder + key.substr(std::string_view(prefix).size());
  for (const char* figure : {"mIoU", "aAcc", "mAcc", "bbox_", "segm_"})
    if (key.starts_with(figure)) return "test/" + key;
  return "";
}

class RunEvents {
 public:
  /// Of a run that is new, or goes on after some batches of an epoch. The folder must outlive it.
  RunEvents(const RunFolder& folder, bool resumed, i64 epoch, i64 batch, i64 batches)
      : folder_(folder),
        // The file is made where the run is once it is saved: before, that is another folder.
        events_(folder.home(), resumed ? epoch * batches + batch + 1 : -1) {}
  RunEvents(const RunEvents&) = delete;
  RunEvents& operator=(const RunEvents&) = delete;
  ~RunEvents() {  // of training that fails, its way there is worth most
    try {
      write();
    } catch (const Error&) {
    }
  }

  void batch(const StepReport& r) {
    const i64 every = std::max<i64>(1, r.batches / 50);
    if (r.batch < before_.batch || r.epoch != before_.epoch) before_ = {}, before_.epoch = r.epoch;
    if (r.batch % every != 0 && r.batch != r.batches) return;
    const i64 step = r.epoch * r.batches + r.batch;
    // Means of the epoch so far become those since the point before.
    const double n = static_cast<double>(r.images), m = static_cast<double>(before_.images);
    const auto since = [&](double mean, double mean_before) {
      return n > m ? (mean * n - mean_before * m) / (n - m) : mean;
    };
    events_.scalar("train/loss", since(r.loss, before_.loss), step);
    for (std::size_t k = 0; k < r.parts.size(); ++k)
      events_.scalar(
          "train/" + r.parts[k].first,
          since(r.parts[k].second, k < before_.parts.size() ? before_.parts[k].second : 0), step);
    events_.scalar("train/lr", r.rate, step);
    if (r.gradient_norm > 0) events_.scalar("train/gradient_norm", r.gradient_norm, step);
    before_ = r;
    if (folder_.saved() && std::chrono::steady_clock::now() - written_ > std::chrono::seconds(20))
      write();
  }
  /// Of an epoch that is saved, after `batches`, when its pictures are there.
  void epoch(const Json& record, i64 batches) {
    const i64 epochs = member<i64>(record, "epoch", "log.jsonl") + 1, step = epochs * batches;
    bool tested = false;
    for (const auto& [key, value] : record.items())
      if (const std::string tag = figure_tag(key); !tag.empty() && value.is_number())
        events_.scalar(tag, value.get<double>(), step), tested = true;
    if (tested) {
      add_image("decays", str("history/epoch_", epochs, ".png"), step);
      add_image("confusion", "confusion.png", step);
      add_image("predictions", str("pictures/epoch_", epochs, ".png"), step);
    }
    write();
  }
  /// What is there so far, once the run is saved.
  void write() {
    if (!folder_.saved() || events_.waiting() == 0) return;
    events_.write();
    written_ = std::chrono::steady_clock::now();
  }

 private:
  void add_image(const char* tag, const std::string& name, i64 step) {
    std::error_code absent;
    if (const std::string path = folder_.path(name); std::filesystem::exists(path, absent))
      events_.image(tag, read_file(path), step);
  }

  const RunFolder& folder_;
  EventFile events_;
  StepReport before_{};
  std::chrono::steady_clock::time_point written_ = std::chrono::steady_clock::now();
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
