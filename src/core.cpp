// The definitions of include/ppma/core/.
#define PPMA_DEFINES_CORE
#include "ppma/core/buffer.hpp"
#include "ppma/core/closest.hpp"
#include "ppma/core/error.hpp"
#include "ppma/core/gpu.hpp"
#include "ppma/core/limits.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/core/shape.hpp"
