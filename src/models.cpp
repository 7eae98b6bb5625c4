// The definitions of include/ppma/models/.
#define PPMA_DEFINES_MODELS
#include "ppma/models/attention.hpp"
#include "ppma/models/block.hpp"
#include "ppma/models/classifier.hpp"
#include "ppma/models/config.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/fold.hpp"
#include "ppma/models/memory_plan.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/models/stem.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/models/summary_rows.hpp"
#include "ppma/models/vit.hpp"
