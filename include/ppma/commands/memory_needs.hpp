#pragma once
#include "ppma/core/names_begin.hpp"
// How much memory work needs at least, from the configuration alone, before a network is made: what
// no machine like this can do is refused, by its field, instead of filling the memory first.
//
// Counted is only what must be there at the same time whatever the program does: weights (in
// training with gradients and AdamW's two moments), the batch, and of the maps the largest, in
// training all that backward reads. So what is refused never fits; what is not may still not fit.
// The heads of segmentors and detectors: dense_memory_needs.hpp.

#include <algorithm>
#include <optional>
#include <string>

#include "ppma/models/config.hpp"

namespace ppma::inline PPMA_ABI {

/// What a segmentor's or detector's heads add to the backbone, in elements; maps of one image.
struct HeadNeeds {
  double weights = 0;
  double kept = 0;     // in training, all that backward reads
  double largest = 0;  // at the same time in inference
};

/// A batch through a network: images (batch,3,height,width).
struct NetworkPass {
  const PpmaConfig& config;
  i64 batch, height, width;
  bool trains = false, again = false;  // again: blocks are computed again in backward
  double element = 4;                  // bytes
  std::optional<HeadNeeds> head{};     // instead of the classifier's
  bool head_trains = false;            // also where the backbone does not
};

/// As doubles, which do not overflow.
struct MemoryNeeds {
  double weights = 0, maps = 0;  // bytes
  double gradients = 0;          // of the weights, which count them: there when the maps are not
  double operations = 0;         // multiply-accumulates, and twenty for every score of a head

  /// At the same time at least.
  double bytes() const { return std::max(weights, weights - gradients + maps); }
};

/// What a pass needs at least.
PPMA_API MemoryNeeds needs_of(const NetworkPass& w);

/// 2.5e10 -> "23.3 GiB".
PPMA_API std::string bytes_text(double bytes);

/// Error: more bytes than this machine has; `what` needs them, `remedy` says what to do.
PPMA_API void require_bytes(double bytes, const std::string& what, const std::string& remedy);

/// Error: `work` does not fit into this machine's memory; `fields` are those that decide how
/// large its images and batches are, `network` those that decide its network.
PPMA_API void require_memory(const NetworkPass& work, const std::string& fields,
                             const std::string& network = "`config` or `model`");

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <cmath>
#include <cstdio>

#include "ppma/commands/machine.hpp"
#include "ppma/core/error.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

MemoryNeeds needs_of(const NetworkPass& w) {
  const PpmaConfig& c = w.config;
  double H = static_cast<double>(w.height), W = static_cast<double>(w.width), weights = 0;
  double kept = 3 * H * W, largest = 0, operations = 0;                 // elements of an image
  const auto convolution = [&](double in, double out, double stride) {  // 3 x 3
    const double before = H * W * in;
    H = std::ceil(H / stride), W = std::ceil(W / stride);
    weights += 9 * in * out, operations += 9 * in * out * H * W;
    largest = std::max(largest, before + H * W * out), kept += H * W * out;
  };
  const double stem = static_cast<double>(c.embed_dims[0]);
  convolution(3, stem / 2, 2), convolution(stem / 2, stem / 2, 1);
  convolution(stem / 2, stem, 2), convolution(stem, stem, 1);
  for (std::size_t s = 0; s < 4; ++s) {
    const double N = H * W, C = static_cast<double>(c.embed_dims[s]);
    const double G = static_cast<double>(c.num_heads[s]), blocks = static_cast<double>(c.depths[s]);
    const bool polyline = c.mixers[s] == "polyline";  // of other mixers nothing is counted
    const double hidden = std::floor(c.mlp_ratios[s] * C),
                 block = (polyline ? 4 * C * C : 0) + 2 * C * hidden;
    const double scores = N * (c.chunkwise_recurrents[s] ? H + W : N);
    weights += blocks * block;
    // of a linear attention, of each path: two products and four scans of d x d numbers a head
    const double attention = !polyline     ? 0
                             : c.linear[s] ? 12 * N * C * C / G
                                           : scores * (3 * C + 20 * G);
    operations += blocks * (N * block + attention);
    if (blocks > 0) largest = std::max(largest, N * (C + hidden));
    kept += blocks * N * (w.again ? C : (polyline ? 6 : 2) * C + 2 * hidden);
    if (s < 3) convolution(C, static_cast<double>(c.embed_dims[s + 1]), 2);
  }
  const double images = static_cast<double>(w.batch),
               input = 3.0 * static_cast<double>(w.height * w.width);
  const double weight = std::max(4.0, w.element);  // bytes
  if (w.head) {
    const HeadNeeds& h = *w.head;
    const double all = w.trains ? std::max(kept + h.kept, largest)
                                : input + std::max(largest, w.head_trains ? h.kept : h.largest);
    return {weight * (weights * (w.trains ? 4 : 1) + h.weights * (w.head_trains ? 4 : 1)),
            images * w.element * all,
            weight * ((w.trains ? weights : 0) + (w.head_trains ? h.weights : 0)),
            images * operations};
  }
  const double wide = static_cast<double>(c.projection), K = static_cast<double>(c.num_classes);
  weights += static_cast<double>(c.embed_dims[3]) * wide + wide * K;
  operations += H * W * static_cast<double>(c.embed_dims[3]) * wide + wide * K;
  return {weights * weight * (w.trains ? 4 : 1),
          images * w.element * (w.trains ? std::max(kept, largest) : input + largest),
          w.trains ? weights * weight : 0, images * operations};
}

std::string bytes_text(double bytes) {
  const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit < 6; ++unit) bytes /= 1024;
  char text[48];
  std::snprintf(text, sizeof text, "%.3g %s", bytes, units[unit]);
  return text;
}

void require_bytes(double bytes, const std::string& what, const std::string& remedy) {
  const double there = machine_memory();
  check(bytes <= there, what, " needs at least ", bytes_text(bytes),
        " of memory, this machine has ", bytes_text(there), "; ", remedy);
}

void require_memory(const NetworkPass& work, const std::string& fields,
                    const std::string& network) {
  const MemoryNeeds n = needs_of(work);
  require_bytes(n.weights,
                str("the network ", printable(work.config.name, work.config.name.size())),
                "choose a smaller one with " + network);
  require_bytes(n.bytes(),
                str(work.trains ? "a training step with " : "a pass with ", work.batch,
                    work.batch == 1 ? " image of " : " images of ", work.height, " x ", work.width,
                    " pixels"),
                "choose a smaller " + fields);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
