#pragma once
#include "ppma/core/names_begin.hpp"
// Values out of Python's pickle, as data; io/pickle.hpp reads them.
//
//   in Python                                      here
//   None, bool, int, float, str, bytes, bytearray  none, boolean, integer (64 bits), real, text,
//   bytes, bytes int of more than 64 bits                       large_integer (little-endian bytes)
//   list, tuple, set, frozenset, dict              list, tuple, set, set, dict
//   OrderedDict, defaultdict, Counter              dict; their extra attributes are dropped
//   torch.Size                                     tuple
//   a class or function                            global, by its name
//   any other object, such as argparse.Namespace   object: class_name(), args(), state(),
//   list_items(), dict_items() persistent id (a storage of PyTorch)           persistent: args() is
//   the id
//
// Python lets values be shared and contain themselves; so do we. Values live in flat arrays, not in
// a tree of allocations: nesting costs no recursion, sharing no copies, and memory is bounded by a
// small multiple of the input.

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

/// Kinds of values.
enum class PickleKind : u8 {
  absent,
  none,
  boolean,
  integer,
  large_integer,
  real,
  text,
  bytes,
  list,
  tuple,
  set,
  dict,
  global,
  object,
  persistent
};

/// In Python's words, for messages.
PPMA_API std::string to_string(PickleKind k);

namespace detail {

// Eight bytes a value: the kind, and 59 bits that say where the rest is.
//   boolean                     the value
//   integer, real               index into numbers
//   text, bytes, large_integer  position and size in the input
//   everything else             index into runs
struct PickleCell {
  u64 kind_bits : 5;
  u64 payload : 59;

  PickleKind kind() const { return static_cast<PickleKind>(kind_bits); }
};

PPMA_API PickleCell pickle_cell(PickleKind kind, u64 payload = 0);

struct PickleTree {
  struct Run {  // the items of a container: a stretch of cells
    u32 begin, size, capacity;
    bool attributes = false;  // an OrderedDict: may be given some, which are dropped
  };
  std::string name;  // of the file, for messages
  std::vector<u8> input;
  std::vector<u64> numbers;
  std::vector<PickleCell> cells;
  std::vector<Run> runs;

  Bytes slice(PickleCell c) const {
    return Bytes(input).subspan(c.payload >> 27, c.payload & 0x7ffffff);
  }
  PickleCell item(PickleCell c, std::size_t i) const { return cells[runs[c.payload].begin + i]; }
  std::size_t size(PickleCell c) const { return runs[c.payload].size; }

  PPMA_API PickleCell make(PickleKind kind, const PickleCell* items, std::size_t n);
  PPMA_API void append(PickleCell to, const PickleCell* items, std::size_t n);
};

}  // namespace detail

/// One value of a pickle: a handle, cheap to copy, that keeps the whole pickle alive.
/// Asking for what a value is not throws Error, except for kind(), defined() and find().
class PickleValue {
 public:
  PickleValue() = default;
  /// A value of a pickle that was read.
  PickleValue(std::shared_ptr<const detail::PickleTree> tree, detail::PickleCell cell)
      : tree_(std::move(tree)), cell_(cell) {}

  /// Which kind it is.
  PickleKind kind() const { return cell_.kind(); }
  /// Whether it is of that kind.
  bool is(PickleKind k) const { return kind() == k; }
  /// Whether both are one value, not two that are equal.
  bool same(const PickleValue& o) const {
    return tree_ == o.tree_ && kind() == o.kind() && cell_.payload == o.cell_.payload;
  }
  /// False for what find() did not find.
  bool defined() const { return !is(PickleKind::absent); }

  /// True or False.
  bool boolean() const { return expect(PickleKind::boolean), cell_.payload != 0; }
  /// An int of 64 bits.
  PPMA_API i64 integer() const;
  /// A float, or an int as one.
  PPMA_API double real() const;
  /// A str, as UTF-8.
  PPMA_API std::string_view text() const;
  /// A bytes object; of an int that is too long for 64 bits, its digits.
  PPMA_API Bytes bytes() const;

  /// Items of a list, tuple or set; entries of a dict.
  PPMA_API std::size_t size() const;
  /// Item i of a list, tuple or set.
  PPMA_API PickleValue item(std::size_t i) const;
  /// The key of entry i of a dict.
  PickleValue key(std::size_t i) const { return entry(2 * i); }
  /// The value of entry i of a dict.
  PickleValue value(std::size_t i) const { return entry(2 * i + 1); }
  /// The value under a text key (the last one, as in Python), or an undefined value: also where
  /// this is no dict.
  PPMA_API PickleValue find(std::string_view key_text) const;

  /// "torch._utils._rebuild_tensor_v2": of a global, or of the class or function that an object was
  /// made with.
  PPMA_API std::string class_name() const;
  /// What an object was made from, usually a tuple; the id of a persistent value.
  PickleValue args() const { return is(PickleKind::persistent) ? at(0) : member(1); }
  /// What __setstate__ would get, usually a dict of the attributes; none if there was nothing.
  PickleValue state() const { return member(2); }
  /// Items that were appended or set on an object that is a list or a dict of a class of its own;
  /// none without.
  PickleValue list_items() const { return member(3); }
  /// Items that were set on an object that is a dict; none without.
  PickleValue dict_items() const { return member(4); }

  /// "a dict of 3", "an argparse.Namespace object": for messages.
  PPMA_API std::string describe() const;

 private:
  PPMA_API void expect(PickleKind k) const;
  std::string name() const { return tree_ ? tree_->name : "pickle"; }
  PickleValue at(std::size_t i) const { return {tree_, tree_->item(cell_, i)}; }
  PPMA_API PickleValue entry(std::size_t i) const;
  PickleValue member(std::size_t i) const { return expect(PickleKind::object), at(i); }

  std::shared_ptr<const detail::PickleTree> tree_;
  detail::PickleCell cell_ = detail::pickle_cell(PickleKind::absent);
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <cstddef>

#include "ppma/core/error.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

std::string to_string(PickleKind k) {
  static constexpr const char* names[] = {"nothing", "None", "bool",  "int",    "int",
                                          "float",   "str",  "bytes", "list",   "tuple",
                                          "set",     "dict", "class", "object", "persistent id"};
  return names[static_cast<int>(k)];
}

namespace detail {

PickleCell pickle_cell(PickleKind kind, u64 payload) {
  return {static_cast<u64>(kind) & 31u, payload & ((u64{1} << 59) - 1)};
}

PickleCell PickleTree::make(PickleKind kind, const PickleCell* items, std::size_t n) {
  runs.push_back({static_cast<u32>(cells.size()), static_cast<u32>(n), static_cast<u32>(n)});
  cells.insert(cells.end(), items, items + n);
  return pickle_cell(kind, runs.size() - 1);
}

void PickleTree::append(PickleCell to, const PickleCell* items, std::size_t n) {
  Run& run = runs[to.payload];
  if (run.size + n > run.capacity) {  // move to the end, with room to grow
    const std::size_t old = run.begin, capacity = (run.size + n) + (run.size + n) / 2;
    const std::size_t begin = cells.size();
    cells.resize(begin + capacity, pickle_cell(PickleKind::none));
    std::copy_n(cells.begin() + static_cast<std::ptrdiff_t>(old), run.size,
                cells.begin() + static_cast<std::ptrdiff_t>(begin));
    run.begin = static_cast<u32>(begin);
    run.capacity = static_cast<u32>(capacity);
  }
  std::copy_n(items, n,
              cells.begin() + static_cast<std::ptrdiff_t>(run.begin) +
                  static_cast<std::ptrdiff_t>(run.size));
  run.size += static_cast<u32>(n);
}

}  // namespace detail

i64 PickleValue::integer() const {
  expect(PickleKind::integer);
  return static_cast<i64>(tree_->numbers[cell_.payload]);
}

double PickleValue::real() const {
  if (is(PickleKind::integer)) return static_cast<double>(integer());
  expect(PickleKind::real);
  return detail::bits_as<double>(tree_->numbers[cell_.payload]);
}

std::string_view PickleValue::text() const {
  expect(PickleKind::text);
  const Bytes s = tree_->slice(cell_);
  return {reinterpret_cast<const char*>(s.data()), s.size()};
}

Bytes PickleValue::bytes() const {
  if (!is(PickleKind::large_integer)) expect(PickleKind::bytes);
  return tree_->slice(cell_);
}

std::size_t PickleValue::size() const {
  if (is(PickleKind::dict)) return tree_->size(cell_) / 2;
  if (!is(PickleKind::list) && !is(PickleKind::tuple) && !is(PickleKind::set))
    expect(PickleKind::list);
  return tree_->size(cell_);
}

PickleValue PickleValue::item(std::size_t i) const {
  check(!is(PickleKind::dict) && i < size(), name(), ": no item ", i, " in a ", kind(),
        "; copy or download the file again");
  return at(i);
}

PickleValue PickleValue::find(std::string_view key_text) const {
  if (!is(PickleKind::dict)) return {};
  for (std::size_t i = size(); i-- > 0;)
    if (const PickleValue k = key(i); k.is(PickleKind::text) && k.text() == key_text)
      return value(i);
  return {};
}

std::string PickleValue::class_name() const {
  if (is(PickleKind::object)) {
    const PickleValue made_by = at(0);
    return made_by.is(PickleKind::global) ? made_by.class_name() : "(computed)";
  }
  expect(PickleKind::global);
  return std::string(at(0).text()) + "." + std::string(at(1).text());
}

std::string PickleValue::describe() const {
  if (is(PickleKind::object)) return "an object of " + printable(class_name());
  if (is(PickleKind::global)) return "the name " + printable(class_name());
  if (is(PickleKind::list) || is(PickleKind::tuple) || is(PickleKind::set) || is(PickleKind::dict))
    return str("a ", kind(), " of ", size());
  return is(PickleKind::absent) ? "nothing" : str("a ", kind());
}

void PickleValue::expect(PickleKind k) const {
  if (!is(k))
    fail(name(), ": expected ", k, ", found ", describe(),
         "; the file is not what it was taken for");
}

PickleValue PickleValue::entry(std::size_t i) const {
  expect(PickleKind::dict);
  check(i / 2 < size(), name(), ": no entry ", i / 2, " in a dict of ", size(),
        "; copy or download the file again");
  return at(i);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
