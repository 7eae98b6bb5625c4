// The definitions of include/ppma/train/.
#define PPMA_DEFINES_TRAIN
#include "ppma/train/classification.hpp"
#include "ppma/train/csv.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/train/epoch_sums.hpp"
#include "ppma/train/finite.hpp"
#include "ppma/train/folder_lock.hpp"
#include "ppma/train/log.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/replayed_step.hpp"
#include "ppma/train/run_folder.hpp"
#include "ppma/train/segmentation.hpp"
#include "ppma/train/training_loop.hpp"
