#pragma once
#include "ppma/core/names_begin.hpp"
// Shape: the sizes of a tensor's axes, row-major (the last axis is contiguous). At most eight axes,
// no heap.

#include <initializer_list>
#include <string>
#include <vector>

#include "ppma/core/config.hpp"
#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

class Shape {
 public:
  static constexpr int max_rank = 8;

  Shape() = default;  // a scalar: no axes, one element
  /// From sizes, at most as many as the class has room for (Error).
  Shape(std::initializer_list<i64> dims) { assign(dims.begin(), dims.size()); }
  explicit Shape(const std::vector<i64>& dims) { assign(dims.data(), dims.size()); }

  /// How many axes.
  int rank() const { return rank_; }

  /// Axis number in [0, rank) from one that may count from the end: axis(-1) is the last.
  int axis(int a, const char* op = "shape") const {
    if (a < -rank_ || a >= rank_) [[unlikely]]
      no_axis(a, op);
    return a < 0 ? a + rank_ : a;
  }
  /// The size of axis a; negative a counts from the last axis. Error: no such axis.
  i64 operator[](int a) const { return dims_[axis(a)]; }
  /// Changes the size of axis a, as operator[] counts.
  void set(int a, i64 size) { dims_[axis(a)] = size; }

  /// How many elements: the product of all sizes, 1 for a scalar.
  i64 numel() const { return product(0, rank_); }
  /// Product of the sizes of axes first..last-1.
  i64 product(int first, int last) const {
    i64 n = 1;
    for (int a = first; a < last; ++a) n *= dims_[a];
    return n;
  }

  /// One axis more, the last. Error: too many.
  PPMA_API void push_back(i64 size);

  /// The sizes, for loops.
  const i64* begin() const { return dims_; }
  /// Behind the last size.
  const i64* end() const { return dims_ + rank_; }

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.dims_[i] != b.dims_[i]) return false;
    return true;
  }

  /// "(2, 3, 64, 96)".
  PPMA_API std::string str() const;
  friend std::string to_string(const Shape& s) { return s.str(); }

 private:
  PPMA_API void assign(const i64* dims, std::size_t n);
  // The message is made here, not wherever a size is read: that is everywhere.
  [[noreturn]] PPMA_COLD PPMA_API void no_axis(int a, const char* op) const;

  i64 dims_[max_rank] = {};
  int rank_ = 0;
};

/// The common shape of two operands, axes aligned at the end, sizes equal or 1 (numpy's rule).
PPMA_API Shape broadcast(const Shape& a, const Shape& b, const char* op);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

namespace ppma::inline PPMA_ABI {

void Shape::push_back(i64 size) {
  check(rank_ < max_rank, "shape: at most ", max_rank, " axes are supported, ", *this, " is full");
  check(size >= 0, "shape: sizes must not be negative, got ", size);
  dims_[rank_++] = size;
}

void Shape::no_axis(int a, const char* op) const {
  fail(op, ": axis ", a, " is outside of shape ", *this, " (", rank_, " axes); use ", -rank_,
       " to ", rank_ - 1);
}

std::string Shape::str() const {
  std::string s = "(";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) s += ", ";
    s += std::to_string(dims_[i]);
  }
  return s + ")";
}

void Shape::assign(const i64* dims, std::size_t n) {
  check(n <= static_cast<std::size_t>(max_rank), "shape: at most ", max_rank, " axes, got ", n);
  i64 elements = 1;
  for (std::size_t i = 0; i < n; ++i) {
    push_back(dims[i]);
    check(!__builtin_mul_overflow(elements, dims[i] > 0 ? dims[i] : 1, &elements), "shape: ", *this,
          " has more than 2^63 elements");
  }
}

Shape broadcast(const Shape& a, const Shape& b, const char* op) {
  const int rank = a.rank() > b.rank() ? a.rank() : b.rank();
  Shape out;
  for (int i = rank; i >= 1; --i) {
    const i64 n = i <= a.rank() ? a[-i] : 1;
    const i64 m = i <= b.rank() ? b[-i] : 1;
    check(n == m || n == 1 || m == 1, op, ": shapes ", a, " and ", b,
          " do not broadcast (from the end, sizes must be equal or 1)");
    out.push_back(n == 1 ? m : n);
  }
  return out;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
