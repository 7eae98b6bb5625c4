#pragma once
#include "ppma/core/names_begin.hpp"
// Communicators between GPUs through NCCL; TCP (parallel/tcp.hpp) brings the group together and
// watches over it.
//
//   options.processes = connect_nccl(launch);  // after cuda::use_device(launch.local_rank)
//
// The first sums on the stream of the computation, the second on a stream of its own: gradients
// travel while backward computes. A thread waits on the TCP connection; where that ends, the NCCL
// communicators are aborted, so that kernels that wait for the dead end, and the next call says who
// it was.
//
// CMake's PPMA_NCCL brings it; has_nccl() says whether it is here. Figures of two GPUs:
// benchmarks/gpu.md.

#include <vector>

#include "ppma/parallel/communicator.hpp"
#include "ppma/parallel/launch.hpp"

namespace ppma::inline PPMA_ABI {

/// Whether this program, or the library that it links, was compiled with NCCL.
PPMA_API bool has_nccl();

/// Two communicators for TrainOptions::processes, on the GPU that is in use. Errors: has_nccl() is
/// false; as connect_tcp; NCCL's own.
PPMA_API std::vector<Communicator> connect_nccl(const Launch& launch);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NCCL)

#if PPMA_CUDA && PPMA_NCCL
#include "ppma/parallel/nccl.cuh"
#endif

namespace ppma::inline PPMA_ABI {

#if PPMA_CUDA && PPMA_NCCL
bool has_nccl() { return true; }

std::vector<Communicator> connect_nccl(const Launch& launch) {
  return std::make_shared<NcclGroup>(launch)->communicators();
}
#else
bool has_nccl() { return false; }

std::vector<Communicator> connect_nccl(const Launch&) {
  fail("parallel: this program was compiled without NCCL; use connect_tcp, or build with CMake's ",
       "PPMA_CUDA and PPMA_NCCL");
}
#endif

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
