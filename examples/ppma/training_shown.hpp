#pragma once
// How `train` shows a run: what is trained, a bar or lines while it goes, figures in the end.

#include <chrono>
#include <optional>

#include "class_table.hpp"
#include "ppma/commands/train.hpp"
#include "progress.hpp"

namespace tool {

/// What is shown whatever is trained; SIGINT and SIGTERM have it rest.
template <class Evaluation>
class ShownRun : public TrainingObserver<Evaluation> {
 public:
  using Record = EpochRecord<Evaluation>;

  void note(const std::string& text) override { tool::note(text); }
  void taken(const LoadReport& report) override {
    std::printf("backbone: %s\n", report.text().c_str());
  }
  void skipped(const SkippedStep& s) override {
    if (output_is_terminal()) std::printf("\r\033[K"), std::fflush(stdout);
    note(str(s.text(), "; this step is skipped"));
  }
  int stop() override {
    if (!watch_) watch_.emplace();
    return SignalWatch::signal();
  }
  void rest(const RunRest& r) override {
    const long long epochs = static_cast<long long>(r.epoch);
    if (output_is_terminal()) std::printf("\r\033[K");
    if (r.patience > 0)
      std::printf("ended after epoch %lld: none of the last %lld evaluations was the best\n",
                  epochs, static_cast<long long>(r.patience));
    else
      std::printf("stopped %s; continue with --resume %s\n",
                  r.batch > 0
                      ? str("in epoch ", epochs + 1, ", after ", r.batch, " batches").c_str()
                      : str("after epoch ", epochs).c_str(),
                  r.folder.c_str());
    std::fflush(stdout);
  }
  /// Training is over. Interrupted after a signal, to this process or another of the run.
  void over(int stopped) {
    if (stopped == 0 && watch_) stopped = SignalWatch::signal();
    if (stopped != 0) throw Interrupted{stopped};
    watch_.reset();
  }

 private:
  std::optional<SignalWatch> watch_{};
};

/// ", mask polyline"; nothing of a network that has none.
inline std::string masked(const std::string& mask) { return mask.empty() ? "" : ", mask " + mask; }

class ShownClassifier : public ShownRun<Evaluation> {
 public:
  void begin(const RunStart& r) override {
    std::printf(
        "%s%s, %s parameters; %s: %s training and %s test images of %lld pixels, %zu "
        "classes\n",
        r.network.c_str(), masked(r.mask).c_str(), grouped_digits(r.parameters).c_str(),
        r.set.c_str(), grouped_digits(r.training_images).c_str(),
        grouped_digits(r.test_images).c_str(), static_cast<long long>(r.size), r.classes.size());
    std::printf("%s%lld threads, run folder %s%s\n",
                r.processes > 1 ? str(r.processes, " processes of ").c_str() : "",
                static_cast<long long>(threads()), r.folder.c_str(),
                r.resumed ? str(", resumed after epoch ", r.epoch).c_str() : "");
    std::fflush(stdout);
    progress_.emplace(r.epoch, r.epochs);
  }
  void batch(const StepReport& r) override { progress_->batch(r); }
  void evaluation(i64 done, i64 all) override { progress_->evaluation(done, all); }
  void epoch(const Record& r, bool is_best) override { progress_->epoch(r, is_best); }

 private:
  std::optional<Progress> progress_{};
};

/// A segmentor's or detector's; `per_class`: figures of all classes.
template <class Evaluation>
class ShownDense : public ShownRun<Evaluation> {
 public:
  explicit ShownDense(bool per_class) : per_class_(per_class) {}

  void begin(const RunStart& r) override {
    std::printf("%s, %s parameters; %s: %s training and %s test images, %zu classes\n",
                r.network.c_str(), grouped_digits(r.parameters).c_str(), r.set.c_str(),
                grouped_digits(r.training_images).c_str(), grouped_digits(r.test_images).c_str(),
                r.classes.size());
    if (!r.left_out.empty()) std::printf("left out: %s\n", r.left_out.c_str());
    std::fflush(stdout);
    names_ = shown_classes(r.classes), epochs_ = r.epochs;
    begin_ = std::chrono::steady_clock::now();
  }

 protected:
  /// The losses of an epoch or a part of it, and the time since training began.
  void end_line(const std::vector<std::pair<std::string, double>>& losses) const {
    for (const auto& [name, value] : losses) std::printf("  %s %.4f", name.c_str(), value);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin_;
    std::printf("  %s\n", clock_text(time.count()).c_str());
  }

  bool per_class_;
  std::vector<std::string> names_{};
  i64 epochs_ = 0;

 private:
  std::chrono::steady_clock::time_point begin_{};
};

class ShownSegmentor : public ShownDense<SegmentationEvaluation> {
 public:
  using ShownDense::ShownDense;

  void epoch(const Record& r, bool /*is_best*/) override {
    std::printf("epoch %3lld/%lld  lr %.2e  loss %.4f", static_cast<long long>(r.epoch + 1),
                static_cast<long long>(epochs_), r.last_lr, r.train_loss);
    end_line(r.parts);
    for (const auto& [what, f] : {std::pair{"", &r.test}, std::pair{"averaged ", &r.test_ema}})
      if (*f) {
        std::printf("  %smIoU %.2f  aAcc %.2f  mAcc %.2f\n", what, 100 * (*f)->mean_iou,
                    100 * (*f)->all_accuracy, 100 * (*f)->mean_accuracy);
        print_pixels(confusion_of((*f)->pixels), names_, per_class_, 4);
      }
    std::fflush(stdout);
  }
};

class ShownDetector : public ShownDense<DetectionEvaluation> {
 public:
  using ShownDense::ShownDense;

  void batch(const StepReport& s) override {
    if (s.batch % 50 != 0 && s.batch != s.batches) return;
    std::printf("epoch %lld [%lld/%lld] lr %.2e  loss %.4f", static_cast<long long>(s.epoch + 1),
                static_cast<long long>(s.batch), static_cast<long long>(s.batches), s.rate, s.loss);
    end_line(s.parts);
    std::fflush(stdout);
  }
  void epoch(const Record& r, bool /*is_best*/) override {
    for (const auto& [averaged, e] : {std::pair{"", &r.test}, {", averaged", &r.test_ema}})
      if (*e) {
        print_table(str("boxes", averaged), (*e)->boxes);
        if ((*e)->masks) print_table(str("masks", averaged), *(*e)->masks);
      }
    std::fflush(stdout);
  }

 private:
  void print_table(const std::string& what, const CocoScores& s) const {
    std::printf("  %-5s", what.c_str());
    for (std::size_t i = 0; i < 6; ++i)
      std::printf("  %s %.3f", coco_figure_names[i], s.figures[i]);
    std::printf("\n");
    print_ap(s, names_, per_class_, 4);
  }
};

/// Trains and shows it. `ready`: the images, where the caller has them and says himself what comes
/// of it.
inline TrainedRun train(const ClassifierTraining& o, const std::vector<Communicator>& processes,
                        bool per_class = false, const ClassifierData* ready = nullptr) {
  ShownClassifier shown;
  const TrainedClassifier r = train_classifier(o, shown, processes, ready);
  shown.over(r.stopped);
  if (r.best < 0) return r;  // nothing was evaluated yet
  std::printf("best accuracy %.2f %% on %s test images: %s\n", r.best,
              grouped_digits(r.test_images).c_str(), r.weights.c_str());
  std::printf("report: %s/report.html\n", r.folder.c_str());
  if (ready != nullptr || !r.confusion) return r;
  std::printf("after the last epoch: ");
  print_confusion(*r.confusion, shown_classes(r.classes), per_class);
  return r;
}

/// The last line of a run: the best of `what`, in a number of `digits`.
inline void print_best(const TrainedRun& r, const char* what, double best, int digits) {
  if (!r.first) return;
  if (r.best >= 0)
    std::printf("best %s %.*f: %s\n", what, digits, best, r.weights.c_str());
  else
    std::printf("there is no %s yet, so no best.safetensors; the weights are in %s/%s\n", what,
                r.folder.c_str(), "last.safetensors");
}

inline TrainedRun train(const SegmentorTraining& o, const std::vector<Communicator>& processes,
                        bool per_class = false) {
  ShownSegmentor shown(per_class);
  const TrainedSegmentor r = train_segmentor(o, shown, processes);
  shown.over(r.stopped);
  print_best(r, "mean IoU", 100 * r.best, 2);
  return r;
}

inline TrainedRun train(const DetectorTraining& o, const std::vector<Communicator>& processes,
                        bool per_class = false) {
  ShownDetector shown(per_class);
  const TrainedDetector r = train_detector(o, shown, processes);
  shown.over(r.stopped);
  print_best(r, "AP", r.best, 4);
  return r;
}

}  // namespace tool
