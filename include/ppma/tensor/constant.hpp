#pragma once
#include "ppma/core/names_begin.hpp"
// Constants of an operation (a table of places, a mask of windows) that the CPU computes: kept
// where they are needed. A step on the GPU copies nothing from the host then, and can be captured
// as a graph (train/replay.hpp).

#include <functional>
#include <string>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The numbers of make() as a tensor of that shape, without history. `key` names all that they
/// depend on beside shape and dtype. The latest 64, in all up to 64 MiB, are kept: do not write to
/// them. Error: make() gives another number of elements.
PPMA_API Tensor kept_constant(const std::string& key, const Shape& shape, DType dtype,
                              Device device, const std::function<std::vector<double>()>& make);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TENSOR)

#include <iterator>
#include <list>
#include <mutex>

#if PPMA_CUDA
#include "ppma/core/buffer.cuh"
#endif

namespace ppma::inline PPMA_ABI {

Tensor kept_constant(const std::string& key, const Shape& shape, DType dtype, Device device,
                     const std::function<std::vector<double>()>& make) {
  constexpr std::size_t most = 64;
  constexpr i64 most_bytes = i64{64} << 20;
  struct Kept {
    std::string key;
    Tensor tensor;
  };
  static std::mutex mutex;
  // never destroyed, like the pool under it
  static std::list<Kept>* const kept = new std::list<Kept>;
  const std::string full = str(key, " ", shape, " ", dtype, " ", device,
                               device == Device::cpu ? 0 : cuda::device_number());
  const auto found = [&] {
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto k = kept->begin(); k != kept->end(); ++k)
      if (k->key == full) {
        kept->splice(kept->begin(), *kept, k);
        return k->tensor;
      }
    return Tensor();
  };
  Tensor t = found();
  if (!t.defined()) {
    const std::vector<double> values = make();
    check(static_cast<i64>(values.size()) == shape.numel(), "kept_constant: \"", key, "\" has ",
          values.size(), " numbers for the shape ", shape);
    Tensor here = Tensor::empty(shape, dtype);
    here.copy_from(Tensor::from<double>(values, shape));
    t = here.to(device);
    const std::lock_guard<std::mutex> lock(mutex);
    kept->push_front({full, t});
    i64 bytes = 0;
    std::size_t count = 0;
    for (auto k = kept->begin(); k != kept->end();) {
      bytes += k->tensor.bytes();
      k = ++count > 1 && (count > most || bytes > most_bytes) ? kept->erase(k) : std::next(k);
    }
  }
#if PPMA_CUDA
  // a graph that is being captured will read it at each launch
  if (device == Device::cuda) detail::CudaPool::get().hold(t.raw());
#endif
  return t;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
