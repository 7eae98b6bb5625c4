#pragma once
#include "ppma/core/names_begin.hpp"
// What a network is trained for, as the training loop (trainer.hpp) sees it. A task is a class of
// one's own:
//
//   struct Autoencoder {
//     using Batch = ppma::Batch;                      // what a BatchStream gives; images first
//     Network& model;                                 // whose parameters are trained
//     Loss loss(const Batch& batch, Context& context) {
//       return {mse(model.forward(batch.images, context), batch.images)};
//     }
//     Quality evaluate(const Testing& how);           // with figure(): more is better
//   };
//
// The library's own: classification.hpp, segmentation.hpp, detection.hpp. A task may also have
//
//   static constexpr u64 stream = ...;       of random numbers: those of a step are keyed by seed,
//                                            epoch, batch and it
//   static constexpr bool reads_back = true; its loss looks at numbers that are computed (as a
//                                            detector's, which samples boxes): on a GPU its step is
//                                            then not captured as a graph

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/nn/context.hpp"
#include "ppma/parallel/communicator.hpp"
#include "ppma/train/options.hpp"

namespace ppma::inline PPMA_ABI {

/// What a task says of a batch, which is where the network is.
struct Loss {
  Tensor total;  // (), what is to become less: backward() begins here
  /// Scalars for the log, with the same names in each step. An undefined one counts as 0.
  std::vector<std::pair<std::string, Tensor>> parts{};
  double weight = 1;  // of the batch in the means over an epoch
};

/// How the network of a task is to be tested.
struct Testing {
  Placement at{};
  const Communicator* among = nullptr;  // other processes: each has the call and tests its share
  i64 epoch = 0;                        // how many have ended
  bool averaged = false;                // its weights are now their average
  std::function<void(i64 done, i64 all)> on_progress{};
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
