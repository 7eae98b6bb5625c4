#pragma once
#include "ppma/core/names_begin.hpp"
// Training as the tool's `train` does it: train_classifier(), train_segmentor(), train_detector(),
// and recipes of their options.

#include "ppma/commands/recipes.hpp"
#include "ppma/commands/train_classifier.hpp"
#include "ppma/commands/train_detector.hpp"
#include "ppma/commands/train_segmentor.hpp"
#include "ppma/core/names_end.hpp"
