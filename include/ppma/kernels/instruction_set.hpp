#pragma once
#include "ppma/core/names_begin.hpp"
// The instructions that the CPU's kernels use.

#include <string>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// "avx512", "avx2", "sse2", "neon", or "generic" where registers of 16 bytes are all that is known
/// of the processor. A header-only program has what its compiler was allowed to use; the compiled
/// library chooses the best that the processor has when the program starts, or what PPMA_ISA in the
/// environment says.
/// Errors: PPMA_ISA names a set that the library was not compiled for or the processor lacks; every
/// operation throws the same.
PPMA_API std::string instruction_set();

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_KERNELS)

namespace ppma::inline PPMA_ABI {

std::string instruction_set() { return PPMA_INSTRUCTION_SET; }

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
