#pragma once
#include "ppma/core/names_begin.hpp"
// Recipes: options of training under one name, as a run's train.json would have them.

#include <string>
#include <vector>

#include "ppma/commands/json.hpp"

namespace ppma::inline PPMA_ABI {

/// Options under a name.
struct Recipe {
  const char *name, *task, *about;
  const char* model;  // where neither a model nor weights are named; null: it is for weights
  Json options;
};

/// All there are. The published ones are those of the paper's training scripts: their batches are
/// of all processes together.
PPMA_API const std::vector<Recipe>& recipes();

/// The recipe of a name. Error: there is none.
PPMA_API const Recipe& recipe(const std::string& name);

/// The options of a recipe: of ClassifierTraining, SegmentorTraining or DetectorTraining, with the
/// network that it is for. Errors: there is none of this name; it is for another task.
template <class Options>
Options options_of_recipe(const std::string& name) {
  const Recipe& r = recipe(name);
  Options o;
  check(o.task == r.task, "the recipe \"", name, "\" is to ", r.task, ", not to ", o.task);
  read_kept(r.options, name, o);
  if (r.model != nullptr) o.network.model = r.model;
  return o;
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

namespace ppma::inline PPMA_ABI {

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all{
      {"published",
       "classify",
       "ImageNet-1K from scratch, as the published networks were trained",
       "ppma_tiny",
       {{"epochs", 300},
        {"batch", 1024},
        {"size", 224},
        {"optimizer", "adamw"},
        {"beta2", 0.999},
        {"weight_decay", 0.05},
        {"clip", 0},
        {"lr", 1e-3},
        {"schedule", "cosine"},
        {"warmup", 5},
        {"final_lr", 1e-5},
        {"rate_per_epoch", true},
        {"ema", 0.9999200016},
        {"ema_plain", true},
        {"mixup", 0.8},
        {"cutmix", 1},
        {"erasing", 0.25},
        {"label_smoothing", 0.1},
        {"rand_augment", 9},
        {"rand_changes", 2},
        {"repeats", 3}}},
      {"published-segment",
       "segment",
       "UperNet on ADE20K: 160,000 iterations of 16 images",
       "ppma_tiny",
       {{"epochs", 127},
        {"batch", 16},
        {"longer", 2048},
        {"shorter", 512},
        {"crop", 512},
        {"lr", 6e-5},
        {"weight_decay", 0.05},
        {"clip", 0},
        {"schedule", "poly"},
        {"warmup_iterations", 1500},
        {"evaluate_every", 13}}},
      {"published-detect",
       "detect",
       "Mask R-CNN on COCO, 1x: 12 epochs of 16 images a batch",
       "ppma_tiny",
       {{"epochs", 12},
        {"batch", 16},
        {"longer", 1333},
        {"shorter", 800},
        {"lr", 1e-4},
        {"weight_decay", 0.05},
        {"clip", 0},
        {"schedule", "step"},
        {"steps", {8, 11}},
        {"warmup_iterations", 500},
        {"evaluate_every", 1}}},
      {"small",
       "classify",
       "some thousand small images from scratch",
       "ppma_nano",
       {{"epochs", 60},
        {"batch", 32},
        {"lr", 2e-3},
        {"warmup", 3},
        {"label_smoothing", 0.1},
        {"rand_augment", 5},
        {"erasing", 0.1},
        {"ema", 0.998}}},
      {"finetune",
       "classify",
       "a trained network (`weights`) on other classes",
       nullptr,
       {{"epochs", 20},
        {"batch", 32},
        {"lr", 2e-4},
        {"beta2", 0.999},
        {"warmup", 1},
        {"final_lr", 1e-6},
        {"label_smoothing", 0.1},
        {"ema", 0.998}}}};
  return all;
}

const Recipe& recipe(const std::string& name) {
  std::string names;
  for (const Recipe& r : recipes()) {
    if (r.name == name) return r;
    names += (names.empty() ? "" : ", ") + std::string(r.name);
  }
  fail("there is no recipe \"", name, "\"; there are ", names);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
