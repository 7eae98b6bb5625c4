#pragma once
#include "ppma/core/names_begin.hpp"
// The GPU as a program sees it. The same for every program: one that was compiled without CUDA
// asks the same questions and hears that there is none.

#include <memory>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI::cuda {

/// Whether code for GPUs is in this program: nvcc compiled it, or the library that it links
/// (ppma::compiled_cuda).
PPMA_API bool compiled();

/// True if a kernel can run here: compiled(), and a driver and a GPU are there.
PPMA_API bool available();

/// Whether products of f32 tensors may round their factors to tf32 (10 bits of mantissa) for the
/// tensor cores. Off: exact.
PPMA_API bool& allow_tf32();

/// Waits until all kernels so far have run, and reports what went wrong in them.
PPMA_API void synchronize();

/// The number of the GPU in use, as CUDA counts them; 0 without CUDA.
PPMA_API int device_number();

/// Uses another GPU, in this thread; before anything else is done there. Error: there is no such.
PPMA_API void use_device(int number);

/// Exponentials that the GPU in use can compute in a second at its highest clock: 16 a cycle and
/// multiprocessor (CUDA C++ Programming Guide, arithmetic instructions). Error: there is no GPU.
PPMA_API double exponentials_per_second();

/// Milliseconds between two points of what the GPU does. Error: there is no GPU.
class Timer {
 public:
  PPMA_API Timer();
  PPMA_API ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  /// The first point: after what has been launched so far.
  PPMA_API void start();
  /// Waits for the GPU.
  PPMA_API double stop();

 private:
  struct Events;
  std::unique_ptr<Events> events_;
};

}  // namespace ppma::inline PPMA_ABI::cuda

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

#if PPMA_CUDA
#include "ppma/core/gpu.cuh"
#else

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI::cuda {

bool compiled() { return false; }
bool available() { return false; }
bool& allow_tf32() {
  static bool allowed = false;
  return allowed;
}
void synchronize() {}
int device_number() { return 0; }

namespace detail {
[[noreturn]] inline void none() {
  fail("cuda: this program was compiled without CUDA; ask cuda::available() first");
}
}  // namespace detail

void use_device(int) { detail::none(); }
double exponentials_per_second() { detail::none(); }

struct Timer::Events {};
Timer::Timer() { detail::none(); }
Timer::~Timer() = default;
void Timer::start() {}
double Timer::stop() { return 0; }

}  // namespace ppma::inline PPMA_ABI::cuda

#endif

#endif  // definitions

#include "ppma/core/names_end.hpp"
