// The tool's commands from a program: what `ppma train`, `ppma eval` and `ppma export` do, with the
// same files and figures. Each is a function of a struct of options; nothing is printed but here.

#include <cmath>
#include <cstdio>
#include <filesystem>

#include "ppma/commands/evaluate.hpp"
#include "ppma/commands/export.hpp"
#include "ppma/commands/train.hpp"

using namespace ppma;

struct Watch : ClassifierObserver {  // hears of the run while it goes
  void epoch(const ClassifierRecord& r, bool is_best) override {
    std::fprintf(stderr, "epoch %lld: loss %.3f%s\n", static_cast<long long>(r.epoch + 1),
                 r.train_loss, is_best ? ", best" : "");
  }
};

int main() {
  const std::string out = (std::filesystem::temp_directory_path() / "ppma_commands").string();
  ClassifierTraining o;  // the defaults are the tool's: ppma_nano on generated shapes
  o.data.images = 480, o.data.test_images = 120, o.data.size = 32, o.epochs = 2;
  o.out = out, o.overwrite = true;
  Watch watch;
  const TrainedClassifier run = train_classifier(o, watch);
  std::printf("trained %lld epochs, tested on %lld images\n", static_cast<long long>(run.epochs),
              static_cast<long long>(run.test_images));

  EvaluationOptions e;
  e.network.weights = run.weights;  // which say what they were trained on
  const ClassifierEvaluation found = evaluate_classifier(e);
  std::printf("evaluated: as in training: %s\n",
              std::abs(found.acc1 - run.best) < 2 ? "yes" : "no");

  ExportOptions x{.network = e.network, .out = out + "/network.onnx"};
  std::printf("exported: %s\n", export_network(x).ends.c_str());
  std::filesystem::remove_all(out);
}
