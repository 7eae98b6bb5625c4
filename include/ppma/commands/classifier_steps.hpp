#pragma once
#include "ppma/core/names_begin.hpp"
// The steps of training a classifier, and what they begin with.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ppma/commands/classifier_training.hpp"
#include "ppma/commands/training_run.hpp"
#include "ppma/data/rand_augment.hpp"
#include "ppma/data/sampling.hpp"
#include "ppma/train/trainer.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// How training images are changed at random: as suits the set, and what the options add.
inline Transform augmentation(const ClassifierTraining& o, const Transform& usual) {
  if (o.rand_augment == 0) return usual;
  return [usual, how = RandAugment{.changes = o.rand_changes, .magnitude = o.rand_augment}](
             const Tensor& image, Rng& rng) { return rand_augment(usual(image, rng), rng, how); };
}

/// Brings `head` of `initial`, which knows what `known` says, to the classes of `data`: its rows
/// by the classes' names, or none, so that training begins with a new head. Says which it was.
inline std::string take_head(WeightsOfFile& initial, const std::optional<InputInfo>& known,
                             const ClassifierData& data, const std::string& where,
                             const std::string& head) {
  const Tensor* weight = find(initial.tensors, head + ".weight");
  if (weight == nullptr) return str("new, ", where, " has none");
  const std::vector<std::string>& classes = data.input.classes;
  const auto begin_anew = [&](const std::string& why) {
    std::erase_if(initial.tensors, [&](const auto& t) { return t.first.starts_with(head + "."); });
    return str("new, for ", classes.size(), " classes: ", why);
  };
  const i64 outputs = weight->dim(0);
  if (!known || known->classes.empty()) {
    if (outputs != static_cast<i64>(classes.size()))
      return begin_anew(str(where, " tells ", outputs, " apart"));
    return str("taken as it is; ", where, " does not name its classes");
  }
  known->check_outputs(outputs, where + ": input");
  const ClassMatch match = match_classes(known->classes, where, classes, data.test.name);
  if (!match.unknown.empty())
    return begin_anew(str(where, " does not know ", listed(match.unknown)));
  if (match.same) return "taken as it is, for the same classes";
  for (auto& [name, tensor] : initial.tensors)
    if (name.starts_with(head + ".")) tensor = chosen_rows(tensor, match.numbers);
  return "taken, its rows by the classes' names";
}

/// The network that is trained on a set: with its classes; a plain transformer, which takes images
/// of one size, with theirs.
inline ClassifierConfig training_config(const ClassifierTraining& o, const ClassifierData& data) {
  ClassifierConfig c = classifier_config(o.network, {}, "ppma_nano");
  if (auto* vit = std::get_if<VitConfig>(&c)) vit->image_size = data.input.size;
  each_config(c, [&](auto& of) {
    of.num_classes = data.train.classes();
    if (o.drop_path >= 0) of.drop_path_rate = o.drop_path;
  });
  return c;
}

/// Leaves of the training set what `fraction` says.
inline void take_share(const ClassifierTraining& o, ClassifierData& data) {
  if (o.data_fraction == 1) return;
  std::vector<i64> which = share_of(data.train, o.data_fraction, o.seed);
  data.train = chosen(std::move(data.train), std::move(which));
}

/// Loads what training begins with; returns which head it was, as take_head().
inline std::string load_initial(ppma::Classifier& model, WeightsOfFile& initial,
                                const std::optional<InputInfo>& known, const ClassifierData& data,
                                const std::string& where) {
  const std::string head = model.head(), taken = take_head(initial, known, data, where, head);
  std::vector<std::string> ignore;
  if (find(initial.tensors, head + ".weight") == nullptr) ignore.push_back(head + ".");
  load_state_dict(model, initial.tensors, {.strict = true, .ignore = ignore});
  return taken;
}

/// How a step is made, but for its learning rate.
inline TrainOptions step_options(const ClassifierTraining& o) {
  TrainOptions t;
  t.at = o.compute.placement(true);
  t.accumulate = o.accumulate, t.clip = o.clip;
  t.rules = no_decay_rules(o.weight_decay), t.optimizer = o.optimizer_options();
  t.checkpoint_blocks = o.checkpoint_blocks, t.seed = o.seed;
  return t;
}

/// How training images become batches of `batch`, or of all that there are.
inline ImageLoading training_images(const ClassifierTraining& o, const ClassifierData& data) {
  ImageLoading l;
  l.batch = std::min(o.batch, data.train.size), l.seed = o.seed;
  l.transform = augmentation(o, data.augment);
  l.repeats = o.repeats, l.balanced = o.balanced;
  l.normalization = data.input.normalization;
  l.erasing.probability = o.erasing;
  l.mix = {.mixup = o.mixup, .cutmix = o.cutmix, .smoothing = o.label_smoothing};
  return l;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
