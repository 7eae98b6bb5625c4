#pragma once
#include "ppma/core/names_begin.hpp"
// What a pickle makes: the containers and objects of its tree (io/pickle_value.hpp), and what may
// be put into them. Which opcode asks for what stands in io/pickle.hpp.

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "ppma/io/known_files.hpp"
#include "ppma/io/pickle_value.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class PickleContainers {
 protected:
  using Cell = PickleCell;
  using Kind = PickleKind;
  using Items = std::pair<const Cell*, std::size_t>;

  PickleContainers(std::vector<u8> input, const std::string& name)
      : tree_(std::make_shared<PickleTree>()), name_(name) {
    // Positions and sizes have 27 bits; a checkpoint's pickle is a few hundred kilobytes.
    check(input.size() <= (std::size_t{64} << 20), name_, ": its pickle has ", input.size(),
          " bytes, more than 64 MiB; save the tensors alone, as a state_dict()");
    tree_->name = name;
    tree_->input = std::move(input);
    in_ = tree_->input;
  }

  template <class... Parts>
  void require(bool ok, const Parts&... what) const {
    check(ok, name_, ": damaged pickle: ", what..., " at byte ", at_, copy_again);
  }

  Cell make(Kind kind, const Cell* items, std::size_t n) {
    // Each costs at least two bytes in what any pickler writes; a hostile file may not make us pay
    // more for it.
    require(tree_->runs.size() < in_.size() / 2 + 64, "more containers than it can hold");
    return tree_->make(kind, items, n);
  }
  Cell make(Kind kind, std::initializer_list<Cell> items = {}) {
    return make(kind, items.begin(), items.size());
  }
  // callable(*args): one of a few harmless containers, or an opaque object.
  Cell made_by(Cell callable, Cell args) {
    if (callable.kind() == Kind::global && args.kind() == Kind::tuple) {
      const std::size_t n = tree_->size(args);
      const Cell first = n > 0 ? tree_->item(args, 0) : pickle_cell(Kind::none);
      if (named(callable, "collections", "OrderedDict")) {
        require(n == 0 || (n == 1 && (first.kind() == Kind::list || first.kind() == Kind::dict)),
                "an OrderedDict of something else than pairs");
        if (n == 1 && first.kind() == Kind::dict) return first;
        const Cell dict = n == 0 ? make(Kind::dict) : dict_of_pairs(first);
        tree_->runs[dict.payload].attributes = true;
        return dict;
      }
      if (named(callable, "collections", "defaultdict") && n <= 1) {
        const Cell dict = make(Kind::dict);
        tree_->runs[dict.payload].attributes = true;
        return dict;
      }
      if (named(callable, "collections", "Counter")) {
        require(n == 0 || (n == 1 && first.kind() == Kind::dict),
                "a Counter of something else than counts");
        const Cell dict = n == 0 ? make(Kind::dict) : first;
        tree_->runs[dict.payload].attributes = true;
        return dict;
      }
      if (named(callable, "torch", "Size")) {
        require(n == 1 && first.kind() == Kind::tuple,
                "a torch.Size of something else than a tuple");
        return first;
      }
      for (const char* module : {"builtins", "__builtin__"})
        for (const char* type : {"set", "frozenset"})
          if (named(callable, module, type) && n == 1 && first.kind() == Kind::list) {
            const auto [items, count] = copy_of(first);
            require_hashable(items, count, 1);
            return make(Kind::set, items, count);
          }
    }
    require(callable.kind() == Kind::global || callable.kind() == Kind::object,
            "a call of something that is no function");
    const Cell none = pickle_cell(Kind::none);
    return make(Kind::object, {callable, args, none, none, none});
  }
  void append(Cell to, Items items, Kind kind = Kind::list) {
    if (to.kind() == Kind::object) to = part_of(to, 3, Kind::list);
    require(to.kind() == kind || (kind == Kind::set && to.kind() == Kind::list),
            "items for something that is no ", kind);
    if (kind == Kind::set) require_hashable(items.first, items.second, 1);
    tree_->append(to, items.first, items.second);
  }
  void set_items(Cell to, Items items) {
    if (to.kind() == Kind::object) to = part_of(to, 4, Kind::dict);
    require(to.kind() == Kind::dict && items.second % 2 == 0,
            "entries for something that is no dict");
    require_hashable(items.first, items.second, 2);
    tree_->append(to, items.first, items.second);
  }
  void set_member(Cell object, std::size_t i, Cell value) {
    tree_->cells[tree_->runs[object.payload].begin + i] = value;
  }

  std::shared_ptr<PickleTree> tree_;
  const std::string& name_;
  Bytes in_;
  u64 at_ = 0;  // how much of it was read

 private:
  bool named(Cell global, std::string_view module, std::string_view name) const {
    const auto is = [&](std::size_t i, std::string_view s) {
      const Bytes b = tree_->slice(tree_->item(global, i));
      return std::string_view(reinterpret_cast<const char*>(b.data()), b.size()) == s;
    };
    return is(0, module) && is(1, name);
  }

  Cell dict_of_pairs(Cell list) {
    const auto [items, count] = copy_of(list);
    std::vector<Cell> entries;
    for (std::size_t i = 0; i < count; ++i) {
      require((items[i].kind() == Kind::list || items[i].kind() == Kind::tuple) &&
                  tree_->size(items[i]) == 2,
              "a dict from something else than pairs");
      entries.push_back(tree_->item(items[i], 0));
      entries.push_back(tree_->item(items[i], 1));
    }
    require_hashable(entries.data(), entries.size(), 2);
    return make(Kind::dict, entries.data(), entries.size());
  }
  // Cells move when a container grows or is made: items are copied before. Copies of one list made
  // again and again could cost the square of the input, so all of them together are limited.
  Items copy_of(Cell container) {
    const auto& run = tree_->runs[container.payload];
    copied_ += run.size;
    require(copied_ <= in_.size(), "more copies of a list than it can hold");
    scratch_.assign(tree_->cells.begin() + run.begin, tree_->cells.begin() + run.begin + run.size);
    return {scratch_.data(), run.size};
  }

  // Keys of a dict and members of a set, every step-th item: Python takes no lists, dicts and sets.
  void require_hashable(const Cell* items, std::size_t n, std::size_t step) const {
    for (std::size_t i = 0; i < n; i += step) {
      const Kind k = items[i].kind();
      require(k != Kind::list && k != Kind::dict && k != Kind::set, "a ", k, " as a key");
      if (k != Kind::tuple) continue;
      for (std::size_t j = 0; j < std::min<std::size_t>(tree_->size(items[i]), 8); ++j) {
        const Kind inner = tree_->item(items[i], j).kind();
        require(inner != Kind::list && inner != Kind::dict && inner != Kind::set, "a ", inner,
                " in a key");
      }
    }
  }

  Cell part_of(Cell object, std::size_t i, Kind kind) {
    if (tree_->item(object, i).kind() == Kind::none) set_member(object, i, make(kind));
    return tree_->item(object, i);
  }

  std::vector<Cell> scratch_;
  u64 copied_ = 0;
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
