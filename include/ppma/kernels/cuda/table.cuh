#pragma once
#include "ppma/core/names_begin.hpp"
// Tables of numbers that kernels read, such as the orders in which curves visit a grid.

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// A table on the GPU: sent once, kept as long as the program runs.
template <class T>
const T* table_on_gpu(const std::vector<T>& table) {
  static std::mutex mutex;
  // never destroyed: the driver may end first
  static auto* const kept = new std::map<std::vector<T>, std::unique_ptr<Buffer>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Buffer>& there = (*kept)[table];
  if (there == nullptr) {
    const i64 bytes = static_cast<i64>(table.size() * sizeof(T));
    auto sent = std::make_unique<Buffer>(bytes, Device::cuda);
    copy_bytes(sent->data(), Device::cuda, table.data(), Device::cpu, bytes);
    there = std::move(sent);
  }
  return static_cast<const T*>(there->data());
}

/// Appends n numbers, which are small, to a table.
inline void append(std::vector<int>& table, const i64* numbers, i64 n) {
  for (i64 i = 0; i < n; ++i) table.push_back(static_cast<int>(numbers[i]));
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
