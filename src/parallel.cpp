// The definitions of include/ppma/parallel/.
#define PPMA_DEFINES_PARALLEL
#include "ppma/parallel/communicator.hpp"
#include "ppma/parallel/gradients.hpp"
#include "ppma/parallel/launch.hpp"
#include "ppma/parallel/socket.hpp"
#include "ppma/parallel/tcp.hpp"
