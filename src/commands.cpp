// The definitions of include/ppma/commands/.
#define PPMA_DEFINES_COMMANDS
#include "ppma/commands/data.hpp"
#include "ppma/commands/data_find.hpp"
#include "ppma/commands/data_look.hpp"
#include "ppma/commands/dense_data.hpp"
#include "ppma/commands/dense_memory_needs.hpp"
#include "ppma/commands/dense_network.hpp"
#include "ppma/commands/input_info.hpp"
#include "ppma/commands/json.hpp"
#include "ppma/commands/machine.hpp"
#include "ppma/commands/memory_needs.hpp"
#include "ppma/commands/network.hpp"
