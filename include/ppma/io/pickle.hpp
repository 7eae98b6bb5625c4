#pragma once
#include "ppma/core/names_begin.hpp"
// Python's pickle, protocols 2 to 5, read as data. Nothing is imported, called or executed: "call
// torch.foo with these arguments" becomes a value that says exactly that, and who understands
// torch.foo looks at it later (io/pth.hpp).
// What becomes of each Python type stands in io/pickle_value.hpp.

#include <string>
#include <vector>

#include "ppma/io/pickle_value.hpp"

namespace ppma::inline PPMA_ABI {

/// Reads one pickle; `name` is what errors call the file. Types: io/pickle_value.hpp.
PPMA_API PickleValue parse_pickle(std::vector<u8> input, const std::string& name);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <utility>

#include "ppma/io/element.hpp"
#include "ppma/io/pickle_containers.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Python's stack machine. Opcodes are those of CPython's Lib/pickletools.py.
class PickleReader : PickleContainers {
 public:
  PickleReader(std::vector<u8> input, const std::string& name)
      : PickleContainers(std::move(input), name) {}

  PickleValue read() {
    while (step()) {
    }
    const Cell value = pop();
    require(at_ == in_.size(), in_.size() - at_, " bytes follow its end");
    return {tree_, value};
  }

 private:
  // ---- the input ----
  Bytes take(u64 n) {
    require(n <= in_.size() - at_, "it ends in the middle, ", n, " more bytes were expected");
    if (at_ >= frame_end_) frame_end_ = 0;
    require(frame_end_ == 0 || n <= frame_end_ - at_, "a frame ends within a value");
    at_ += n;
    return in_.subspan(at_ - n, n);
  }
  template <class T>
  T number() {
    return load<T>(take(sizeof(T)).data());
  }
  Cell slice(Kind kind, u64 n) {
    const u64 begin = at_;
    const Bytes s = take(n);
    require(kind != Kind::text || is_utf8(s), "text that is not valid UTF-8");
    return pickle_cell(kind, begin << 27 | n);
  }
  // Python 2's str: what PyTorch takes for text, if it is.
  Cell old_text(u64 n) {
    const Cell c = slice(Kind::bytes, n);
    return is_utf8(tree_->slice(c)) ? pickle_cell(Kind::text, c.payload) : c;
  }
  void begin_frame() {
    const u64 n = load<u64>(take(8).data());
    require(at_ >= frame_end_, "a frame within a frame");
    require(n <= in_.size() - at_, "a frame of ", n, " bytes, more than follow");
    frame_end_ = at_ + n;
  }
  Cell line() {
    u64 end = at_;
    while (end < in_.size() && in_[end] != '\n') ++end;
    const Cell c = slice(Kind::text, end - at_);
    take(1);
    return c;
  }

  // ---- the stack ----
  void push(Cell c) { stack_.push_back(c); }
  Cell pop() {
    require(stack_.size() > floor(), "nothing left on the stack");
    const Cell c = stack_.back();
    stack_.pop_back();
    return c;
  }
  Cell& top() {
    require(stack_.size() > floor(), "nothing left on the stack");
    return stack_.back();
  }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  // The values above the last mark, which goes; they stay readable until the next call.
  Items pop_to_mark() {
    require(!marks_.empty(), "no mark on the stack");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    marked_.assign(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return {marked_.data(), marked_.size()};
  }

  // ---- values ----
  void push_number(Kind kind, u64 bits) {
    tree_->numbers.push_back(bits);
    push(pickle_cell(kind, tree_->numbers.size() - 1));
  }
  void push_tuple(std::size_t n) {
    require(stack_.size() >= floor() + n, "nothing left on the stack");
    const Cell tuple = make(Kind::tuple, stack_.data() + stack_.size() - n, n);
    stack_.resize(stack_.size() - n);
    push(tuple);
  }
  void push_long(u64 n) {
    const Cell digits = slice(Kind::large_integer, n);
    const Bytes b = tree_->slice(digits);
    if (n > 8) return push(digits);
    u64 value = n > 0 && (b[n - 1] & 0x80) != 0 ? ~u64{0} : 0;  // sign extension
    for (u64 i = n; i-- > 0;) value = value << 8 | b[i];
    push_number(Kind::integer, value);
  }

  void put(u64 index) {
    require(index <= in_.size(), "a memo index of ", index);  // picklers number from 0
    if (index >= memo_.size()) memo_.resize(index + 1, pickle_cell(Kind::absent));
    memoized_ += memo_[index].kind() == Kind::absent;
    memo_[index] = top();
  }
  void get(u64 index) {
    require(index < memo_.size() && memo_[index].kind() != Kind::absent, "nothing in memo ", index);
    push(memo_[index]);
  }

  // One opcode; false after STOP.
  bool step() {
    const u8 op = take(1)[0];
    switch (op) {
      case 0x80: {  // PROTO
        const int protocol = take(1)[0];
        require(protocol <= 5, "protocol ", protocol, " (2 to 5 are read)");
        return true;
      }
      case '.':
        return false;  // STOP
      case 0x95:
        return begin_frame(), true;
      // None, numbers
      case 'N':
        return push(pickle_cell(Kind::none)), true;
      case 0x88:
        return push(pickle_cell(Kind::boolean, 1)), true;  // NEWTRUE
      case 0x89:
        return push(pickle_cell(Kind::boolean, 0)), true;  // NEWFALSE
      case 'J':
        return push_number(Kind::integer, static_cast<u64>(i64{number<std::int32_t>()})), true;
      case 'K':
        return push_number(Kind::integer, number<u8>()), true;
      case 'M':
        return push_number(Kind::integer, number<std::uint16_t>()), true;
      case 0x8a:
        return push_long(number<u8>()), true;  // LONG1
      case 0x8b:
        return push_long(number<u32>()), true;  // LONG4
      case 'G': {                               // BINFLOAT: big-endian
        u64 bits = 0;
        for (const u8 byte : take(8)) bits = bits << 8 | byte;
        return push_number(Kind::real, bits), true;
      }
      // text and bytes
      case 'X':
        return push(slice(Kind::text, number<u32>())), true;
      case 0x8c:
        return push(slice(Kind::text, number<u8>())), true;
      case 0x8d:
        return push(slice(Kind::text, number<u64>())), true;
      case 'U':
        return push(old_text(number<u8>())), true;
      case 'T':
        return push(old_text(number<u32>())), true;
      case 'C':
        return push(slice(Kind::bytes, number<u8>())), true;
      case 'B':
        return push(slice(Kind::bytes, number<u32>())), true;
      case 0x8e:
        return push(slice(Kind::bytes, number<u64>())), true;
      case 0x96:
        return push(slice(Kind::bytes, number<u64>())), true;  // BYTEARRAY8
      // containers
      case ']':
        return push(make(Kind::list)), true;
      case '}':
        return push(make(Kind::dict)), true;
      case ')':
        return push(make(Kind::tuple)), true;
      case 0x8f:
        return push(make(Kind::set)), true;
      case 0x85:
        return push_tuple(1), true;
      case 0x86:
        return push_tuple(2), true;
      case 0x87:
        return push_tuple(3), true;
      case 't':
        return push_from_mark(Kind::tuple), true;
      case 'l':
        return push_from_mark(Kind::list), true;
      case 0x91:
        return push_from_mark(Kind::set), true;  // FROZENSET
      case 'd': {
        const auto items = pop_to_mark();
        require(items.second % 2 == 0, "a key without a value");
        return push(make(Kind::dict, items.first, items.second)), true;
      }
      case 'a': {
        const Cell item = pop();
        return append(top(), {&item, 1}), true;
      }
      case 'e':     // APPENDS
      case 0x90: {  // ADDITEMS
        const auto items = pop_to_mark();
        return append(top(), items, op == 'e' ? Kind::list : Kind::set), true;
      }
      case 's': {
        const Cell value = pop(), key = pop(), both[] = {key, value};
        return set_items(top(), {both, 2}), true;
      }
      case 'u': {
        const auto items = pop_to_mark();
        return set_items(top(), items), true;
      }
      // the stack and the memo
      case '(':
        return marks_.push_back(stack_.size()), true;
      case '0':
        return pop_or_unmark(), true;
      case '1':
        return pop_to_mark(), true;
      case '2':
        return push(top()), true;
      case 'q':
        return put(number<u8>()), true;
      case 'r':
        return put(number<u32>()), true;
      case 0x94:
        return put(memoized_), true;  // MEMOIZE
      case 'h':
        return get(number<u8>()), true;
      case 'j':
        return get(number<u32>()), true;
      // names and objects
      case 'c': {  // GLOBAL
        const Cell module = line(), name = line();
        return push(make(Kind::global, {module, name})), true;
      }
      case 0x93: {  // STACK_GLOBAL
        const Cell name = pop(), module = pop();
        require(name.kind() == Kind::text && module.kind() == Kind::text,
                "a class whose name is no text");
        return push(make(Kind::global, {module, name})), true;
      }
      case 'R':     // REDUCE
      case 0x81: {  // NEWOBJ
        const Cell args = pop(), callable = pop();
        return push(made_by(callable, args)), true;
      }
      case 0x92: {  // NEWOBJ_EX: args() is the pair of positional and named arguments
        const Cell named_args = pop(), args = pop(), callable = pop();
        return push(made_by(callable, make(Kind::tuple, {args, named_args}))), true;
      }
      case 'b': {  // BUILD: the state; a dict's attributes (such as _metadata of a state dict) are
                   // dropped
        const Cell state = pop(), to = top();
        require(
            to.kind() == Kind::object || (to.kind() == Kind::dict && state.kind() == Kind::dict &&
                                          tree_->runs[to.payload].attributes),
            "a state for something that has none");
        if (to.kind() == Kind::object) set_member(to, 2, state);
        return true;
      }
      case 'Q': {  // BINPERSID: PyTorch's name a storage
        const Cell id = pop();
        require(id.kind() == Kind::tuple, "a persistent id that is no tuple");
        return push(make(Kind::persistent, {id})), true;
      }
      default:
        require(false, "opcode ", static_cast<int>(op),
                " does not occur in protocols 2 to 5 of plain data");
        return false;
    }
  }
  void push_from_mark(Kind kind) {
    const auto items = pop_to_mark();
    push(make(kind, items.first, items.second));
  }
  void pop_or_unmark() {  // POP takes a mark if that is what lies on top
    if (!marks_.empty() && marks_.back() == stack_.size())
      marks_.pop_back();
    else
      pop();
  }

  u64 frame_end_ = 0;  // 0: in no frame
  std::vector<Cell> stack_, marked_, memo_;
  std::vector<std::size_t> marks_;
  u64 memoized_ = 0;
};

}  // namespace detail

PickleValue parse_pickle(std::vector<u8> input, const std::string& name) {
  return detail::PickleReader(std::move(input), name).read();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
