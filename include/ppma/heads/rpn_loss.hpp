#pragma once
#include "ppma/core/names_begin.hpp"
// What a proposal network (rpn.hpp) learns, recipes 3.1: which anchors are sampled, what each is to
// say, and both losses. A GPU chooses where it chooses the proposals; otherwise the host does.

#include "ppma/heads/rpn.hpp"

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>
#include <limits>

#include "ppma/core/parallel.hpp"
#include "ppma/heads/losses.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"

namespace ppma::inline PPMA_ABI {

RpnLoss RpnHead::loss(const RpnOutput& out, const std::vector<Frame>& frames,
                      const std::vector<Objects>& objects, const Rng& rng,
                      const Communicator* among) const {
  const u64 first = among == nullptr ? 0 : static_cast<u64>(among->rank) * frames.size();
  const detail::AnchorTargets t = chooses_on_gpu(out)
                                      ? targets_on_gpu(out, frames, objects, rng, first)
                                      : targets(out, frames, objects, rng, first);
  RpnLoss loss;
  for (std::size_t l = 0; l < t.levels.size(); ++l) {
    const auto& [label, chosen, delta, positive] = t.levels[l];
    const Tensor cls = weighted_bce(out.scores[l], label, chosen);
    const Tensor bbox = weighted_l1(out.deltas[l], delta, positive);
    loss.cls = l == 0 ? cls : add(loss.cls, cls), loss.bbox = l == 0 ? bbox : add(loss.bbox, bbox);
  }
  Tensor samples = cast(sum(t.samples), DType::f64);  // a scalar
  if (among != nullptr) {
    among->all_reduce_sum(samples);  // on a GPU the host does not wait for it
    samples = scale(samples, 1 / static_cast<double>(among->size));
  }
  samples = cast(clamp(samples, 1, std::numeric_limits<double>::infinity()), loss.cls.dtype())
                .to(loss.cls.device());
  loss.cls = scale(div(loss.cls, samples), config.cls_weight),
  loss.bbox = scale(div(loss.bbox, samples), config.bbox_weight);
  return loss;
}

detail::AnchorTargets RpnHead::targets_on_gpu(const RpnOutput& out,
                                              const std::vector<Frame>& frames,
                                              const std::vector<Objects>& objects, const Rng& rng,
                                              u64 first) const {
  const detail::Truths truths = detail::truths_of(frames, objects);
  return detail::anchor_targets(grid_of(out), truths.boxes, truths.sizes,
                                detail::rules_of(config.assign, config.sample),
                                config.coder.decoder(), rng, first);
}

detail::AnchorTargets RpnHead::targets(const RpnOutput& out, const std::vector<Frame>& frames,
                                       const std::vector<Objects>& objects, const Rng& rng,
                                       u64 first) const {
  detail::AnchorTargets t;
  std::vector<Box> boxes;  // of all levels
  std::vector<std::size_t> begin;
  for (std::size_t l = 0; l < out.scores.size(); ++l) {
    const i64 n = out.scores[l].numel();
    t.levels.push_back(
        {Tensor::zeros({n}), Tensor::zeros({n}), Tensor::zeros({4 * n}), Tensor::zeros({4 * n})});
    const std::vector<Box> level =
        anchors(out.scores[l].dim(1), out.scores[l].dim(2), config.strides[l], config.anchor);
    begin.push_back(boxes.size());
    boxes.insert(boxes.end(), level.begin(), level.end());
  }
  begin.push_back(boxes.size());
  t.samples = Tensor::zeros({static_cast<i64>(frames.size())});
  const auto of_image = [&](std::size_t b) {
    // Those of the image alone are assigned, not those of the padding beside a larger neighbour.
    std::vector<Box> inside;
    std::vector<std::size_t> number;
    for (std::size_t l = 0; l + 1 < begin.size(); ++l) {
      const i64 stride = config.strides[l], width = out.scores[l].dim(2), a = out.scores[l].dim(3);
      for (std::size_t k = begin[l]; k < begin[l + 1]; ++k) {
        const i64 cell = static_cast<i64>(k - begin[l]) / a;
        if (cell / width * stride >= frames[b].padded_height ||
            cell % width * stride >= frames[b].padded_width)
          continue;
        inside.push_back(boxes[k]), number.push_back(k);
      }
    }
    const std::vector<i64> of_inside = assign(inside, objects[b].boxes, config.assign);
    std::vector<i64> assigned(boxes.size(), assigned_ignored);
    for (std::size_t k = 0; k < inside.size(); ++k) assigned[number[k]] = of_inside[k];
    const Sampled s = sample(assigned, config.sample, rng.fork(first + b));
    t.samples.data<float>()[b] = static_cast<float>(s.positive.size() + s.negative.size());
    // the map of an anchor's level, and its place in it
    const auto place = [&](i64 k, std::size_t& at) -> detail::LevelTargets& {
      const auto n = static_cast<std::size_t>(k);
      const std::size_t l = static_cast<std::size_t>(
                                std::upper_bound(begin.begin(), begin.end(), n) - begin.begin()) -
                            1;
      at = b * (begin[l + 1] - begin[l]) + n - begin[l];
      return t.levels[l];
    };
    std::size_t at = 0;
    for (const i64 k : s.negative) place(k, at).chosen.data<float>()[at] = 1;
    for (const i64 k : s.positive) {
      detail::LevelTargets& to = place(k, at);
      to.chosen.data<float>()[at] = to.label.data<float>()[at] = 1;
      const auto n = static_cast<std::size_t>(k);
      const Delta d =
          encode(boxes[n], objects[b].boxes[static_cast<std::size_t>(assigned[n])], config.coder);
      const float deltas[4] = {d.dx, d.dy, d.dw, d.dh};
      std::copy_n(deltas, 4, to.delta.data<float>() + 4 * at);
      std::fill_n(to.positive.data<float>() + 4 * at, 4, 1.0f);
    }
  };
  parallel_for(static_cast<i64>(frames.size()), 1, [&](i64 from, i64 to) {
    for (i64 b = from; b < to; ++b) of_image(static_cast<std::size_t>(b));
  });
  return t;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
