#pragma once
#include "ppma/core/names_begin.hpp"
// Dataset: a number of samples and a function that loads one of them. A data set is a value; to add
// one, write a function that returns a Dataset (data/cifar.hpp is the shortest).

#include <functional>
#include <string>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Which part of a set: one to learn from, one to choose by, one to be judged by.
enum class Split : u8 { train, val, test };

/// "train", "val" or "test".
PPMA_API std::string to_string(Split split);

/// An image with what is in it.
struct Sample {
  Tensor image;      // uint8 (H,W,3)
  i64 label = 0;     // class
  std::string name;  // for messages: the file, or the number in the set
};

struct Dataset {
  std::string name;
  i64 size = 0;
  std::vector<std::string> class_names;
  std::string left_out;  // what of the files is not in the set and why, for messages
  // the same sample each time; called from several threads at once
  std::function<Sample(i64)> load{};
  // the class of a sample, without loading it; empty where only load() says it
  std::function<i64(i64)> label{};

  /// How many classes there are.
  i64 classes() const { return static_cast<i64>(class_names.size()); }

  /// Sample number `index`. Errors: no such sample; what load() throws.
  PPMA_API Sample get(i64 index) const;
};

/// The samples first .. first + count - 1.
PPMA_API Dataset subset(Dataset whole, i64 first, i64 count);

/// Loads every sample once, with all threads, and keeps it: for sets that fit into memory and are
/// slow to load.
PPMA_API Dataset in_memory(const Dataset& source);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <atomic>
#include <exception>
#include <memory>

#include "ppma/core/parallel.hpp"

namespace ppma::inline PPMA_ABI {

std::string to_string(Split split) {
  return split == Split::train ? "train" : split == Split::val ? "val" : "test";
}

Sample Dataset::get(i64 index) const {
  check(index >= 0 && index < size, name, ": sample ", index, " of ", size, " asked for");
  return load(index);
}

Dataset subset(Dataset whole, i64 first, i64 count) {
  check(first >= 0 && count >= 0 && first + count <= whole.size, whole.name, ": samples ", first,
        " to ", first + count - 1, " asked for, it has ", whole.size);
  Dataset part = whole;
  part.size = count;
  part.load = [all = std::move(whole.load), first](i64 i) { return all(first + i); };
  if (whole.label)
    part.label = [all = std::move(whole.label), first](i64 i) { return all(first + i); };
  return part;
}

Dataset in_memory(const Dataset& source) {
  auto samples = std::make_shared<std::vector<Sample>>(static_cast<std::size_t>(source.size));
  std::vector<std::exception_ptr> errors(samples->size());  // parallel_for lets no exception out
  std::atomic<bool> failed{false};
  parallel_for(source.size, 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end && !failed; ++i) try {
        (*samples)[static_cast<std::size_t>(i)] = source.get(i);
      } catch (...) {
        errors[static_cast<std::size_t>(i)] = std::current_exception();
        failed = true;
      }
  });
  for (const std::exception_ptr& e : errors)
    if (e) std::rethrow_exception(e);
  Dataset kept = source;
  kept.load = [samples](i64 i) { return (*samples)[static_cast<std::size_t>(i)]; };
  kept.label = [samples](i64 i) { return (*samples)[static_cast<std::size_t>(i)].label; };
  return kept;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
