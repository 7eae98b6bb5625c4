#pragma once
#include "ppma/core/names_begin.hpp"
// Every segmentation head, by name: what reads a configuration or an option asks here. To add one:
// its struct (heads/segmentor.hpp says what it has), and its place in SegmentationHeads.

#include <string>
#include <vector>

#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/heads/upernet.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class... Heads>
struct HeadList {
  static std::vector<std::string> names() { return {Heads::name...}; }
  template <class F>
  static bool call(const std::string& name, F& f) {
    return ((name == Heads::name && (f.template operator()<Heads>(), true)) || ...);
  }
};

}  // namespace detail

/// The first is meant where no head is named.
using SegmentationHeads = detail::HeadList<UperNet, SemanticFpn>;

/// Calls f.operator()<Head>() for the head of this name. Error: there is none.
template <class F>
void with_segmentation_head(const std::string& name, F f) {
  if (SegmentationHeads::call(name, f)) return;
  std::string all;
  for (const std::string& known : SegmentationHeads::names())
    all += (all.empty() ? "" : ", ") + known;
  fail("config: there is no head \"", name, "\"; there are ", all);
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
