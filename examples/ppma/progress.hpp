#pragma once
// How training shows itself: a bar that redraws on a terminal, one plain line an epoch everywhere.

#include <chrono>

#include "common.hpp"
#include "ppma/train/log.hpp"

namespace tool {

using ppma::detail::clock_text;

class Progress {
 public:
  /// Epochs first .. epochs - 1 are to come.
  Progress(i64 first, i64 epochs)
      : first_(first),
        epochs_(epochs),
        terminal_(output_is_terminal()),
        begin_(now()),
        epoch_begin_(begin_) {}

  void batch(const StepReport& r) {
    done_ = static_cast<double>(r.epoch - first_) +
            0.97 * static_cast<double>(r.batch) / static_cast<double>(r.batches);
    if (before_ < 0) {  // seen before the run went on
      before_ = r.batch == 1 ? 0 : r.images;
      waited_before_ = r.batch == 1 ? 0 : r.waited;
    }
    rate_ = static_cast<double>(r.images - before_) / std::max(1e-9, now() - epoch_begin_);
    std::snprintf(state_, sizeof state_, "epoch %lld/%lld", static_cast<long long>(r.epoch + 1),
                  static_cast<long long>(epochs_));
    waiting_ = (r.waited - waited_before_) / std::max(1e-9, now() - epoch_begin_);
    std::snprintf(detail_, sizeof detail_, "loss %.3f  %.0f images/s", r.loss, rate_);
    draw(static_cast<double>(r.batch) / static_cast<double>(r.batches));
  }
  void evaluation(i64 batch, i64 batches) {
    std::snprintf(detail_, sizeof detail_, "testing %lld/%lld", static_cast<long long>(batch),
                  static_cast<long long>(batches));
    draw(1);
  }
  void epoch(const ClassifierRecord& r, bool is_best) {
    if (terminal_) std::printf("\r\033[K");
    std::printf("epoch %3lld/%lld  loss %.4f", static_cast<long long>(r.epoch + 1),
                static_cast<long long>(epochs_), r.train_loss);
    if (r.test) std::printf("  test loss %.4f  top-1 %5.2f %%", r.test->loss, r.test->acc1);
    if (r.test_ema) std::printf("  averaged %5.2f %%", r.test_ema->acc1);
    if (r.skipped > 0) std::printf("  %lld steps skipped", static_cast<long long>(r.skipped));
    std::printf("  %.0f images/s (%.0f %% waiting for data)  %s left%s\n", rate_, 100 * waiting_,
                clock_text(left(static_cast<double>(r.epoch + 1 - first_))).c_str(),
                is_best ? "  best" : "");
    std::fflush(stdout);
    epoch_begin_ = now(), before_ = -1;
  }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  double left(double done) const {
    return done > 0 ? (now() - begin_) / done * (static_cast<double>(epochs_ - first_) - done) : 0;
  }
  void draw(double part) {
    if (!terminal_ || now() - drawn_ < 0.1) return;
    drawn_ = now();
    constexpr int width = 24;
    char bar[width + 1];
    for (int i = 0; i < width; ++i)
      bar[i] = i < static_cast<int>(part * width)    ? '='
               : i == static_cast<int>(part * width) ? '>'
                                                     : ' ';
    bar[width] = 0;
    std::printf("\r\033[K%s [%s] %s  %s left", state_, bar, detail_,
                clock_text(left(done_)).c_str());
    std::fflush(stdout);
  }

  i64 first_, epochs_, before_ = -1;
  bool terminal_;
  double begin_, epoch_begin_, drawn_ = 0, done_ = 0, rate_ = 0, waited_before_ = 0, waiting_ = 0;
  char state_[40] = "", detail_[80] = "";
};

}  // namespace tool
