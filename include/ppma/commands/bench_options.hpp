#pragma once
#include "ppma/core/names_begin.hpp"
// What bench.hpp measures of a step, and how.

#include <string>

#include "ppma/commands/network.hpp"

namespace ppma::inline PPMA_ABI {

/// What is measured, and how often.
struct BenchOptions {
  NetworkOptions network{};  // none named: the published one on PPMA-T
  ComputeOptions compute{};
  std::string task = "classify";   // segment, detect
  i64 batch = 8;                   // images at a time, of each process
  i64 size = 0, width = 0;         // pixels; size 0: what the weights say, else 224; width 0: size
  i64 repeat = 10, warmup = 3;     // runs that are timed, and runs before them
  bool train = false;              // forward, backward and AdamW instead of inference
  bool checkpoint_blocks = false;  // of a training step: compute blocks again in backward
  bool graph = true;               // on the GPU, replay a captured graph
  bool heads_only = false;         // of a detector, all but the backbone

  /// Pixels.
  i64 image_width() const { return width > 0 ? width : size; }
};

/// What was measured of a step.
struct Timing {
  double ms = 0, least = 0;  // median, best
  i64 peak = 0;              // bytes in tensors
  double process = 0;        // most MiB of the process so far
  double page_faults = 0;    // a pass: new pages are touched, and cleared, while it runs
  bool captured = false;     // replayed as a graph
  std::string reason{};      // why not
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
