#pragma once
#include "ppma/core/names_begin.hpp"
// Named tensors, and the element types that files know but the library does not compute with.
//
//   in the file                     in memory
//   f64 f32 bf16 int64 uint8        the same
//   f16                             f32 (exact)
//   int32 int16 int8                int64
//   uint64 uint32 uint16            int64; a uint64 above 2^63 - 1 is an error
//   boolean                         uint8, 0 or 1

#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Tensors by name, in the order of the file (or of the network).
using TensorMap = std::vector<std::pair<std::string, Tensor>>;

/// The tensor of that name, or nullptr.
PPMA_API const Tensor* find(const TensorMap& tensors, std::string_view name);

/// Bits of an IEEE half to the float of the same value; subnormals, infinities and NaN included.
PPMA_API float half_to_float(std::uint16_t half);

/// How one element is stored in a file, little-endian.
enum class Element : u8 {
  f64,
  f32,
  f16,
  bf16,
  int64,
  int32,
  int16,
  int8,
  uint64,
  uint32,
  uint16,
  uint8,
  boolean
};

namespace detail {

// Types of our own where C++ has none, or where two elements would share one.
struct StoredHalf {
  std::uint16_t bits;
};

struct StoredBool {
  u8 byte;
};

PPMA_API double kept(double x);
PPMA_API float kept(float x);
PPMA_API float kept(StoredHalf x);
PPMA_API bf16 kept(bf16 x);
PPMA_API i64 kept(i64 x);
PPMA_API i64 kept(std::int32_t x);
PPMA_API i64 kept(std::int16_t x);
PPMA_API i64 kept(std::int8_t x);
PPMA_API i64 kept(u64 x);  // require_kept() comes first
PPMA_API i64 kept(u32 x);
PPMA_API i64 kept(std::uint16_t x);
PPMA_API u8 kept(u8 x);
PPMA_API u8 kept(StoredBool x);

template <class Stored>
Stored load(const u8* from) {
  Stored x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

}  // namespace detail

/// Bytes of an element.
PPMA_API i64 size_of(Element e);

/// The dtype that such elements have in memory.
PPMA_API DType kept_as(Element e);

/// The element type that files store a dtype as.
PPMA_API Element element_of(DType t);

/// The shape of these sizes, as a file gives them: at most Shape::max_rank, which the caller has
/// checked. Errors name `where`: a negative size, more elements than can be counted.
PPMA_API Shape shape_of(const std::vector<i64>& sizes, std::string_view where);

/// A tensor from elements in row-major order at `from`; numel() * size_of(e) bytes are read.
/// `where` is what errors call it.
PPMA_API Tensor read_elements(Element e, const u8* from, const Shape& shape,
                              std::string_view where);

/// The same with a step per axis, in elements, as PyTorch stores views. The caller has checked that
/// every index is inside of the storage.
PPMA_API Tensor read_elements(Element e, const u8* from, const Shape& shape, const i64* strides,
                              std::string_view where);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <bit>
#include <limits>
#include <type_traits>

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

const Tensor* find(const TensorMap& tensors, std::string_view name) {
  for (const auto& entry : tensors)
    if (entry.first == name) return &entry.second;
  return nullptr;
}

float half_to_float(std::uint16_t half) {
  const u32 sign = static_cast<u32>(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude < 0x0400u) {  // zero or subnormal: a multiple of 2^-24
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  const u32 exponent = magnitude >= 0x7c00u ? 0x7f800000u : ((magnitude >> 10) + 112u) << 23;
  return detail::bits_as<float>(sign | exponent | ((magnitude & 0x3ffu) << 13));
}

namespace detail {

static_assert(std::endian::native == std::endian::little,
              "files are read on little-endian machines only");

double kept(double x) { return x; }
float kept(float x) { return x; }
float kept(StoredHalf x) { return half_to_float(x.bits); }
bf16 kept(bf16 x) { return x; }
i64 kept(i64 x) { return x; }
i64 kept(std::int32_t x) { return x; }
i64 kept(std::int16_t x) { return x; }
i64 kept(std::int8_t x) { return x; }
i64 kept(u64 x) { return static_cast<i64>(x); }
i64 kept(u32 x) { return x; }
i64 kept(std::uint16_t x) { return x; }
u8 kept(u8 x) { return x; }
u8 kept(StoredBool x) { return x.byte != 0; }

// The only elements that may not fit; `where` names the file and the tensor.
template <class Stored>
void require_kept(Stored x, std::string_view where) {
  if constexpr (std::is_same_v<Stored, u64>)
    check(x <= static_cast<u64>(std::numeric_limits<i64>::max()), where, ": a uint64 element, ", x,
          ", does not fit int64; save it as another type");
}

// Calls f(Stored{}) with the type of the element.
template <class F>
decltype(auto) visit_element(Element e, F&& f) {
  switch (e) {
    case Element::f64:
      return f(double{});
    case Element::f16:
      return f(StoredHalf{});
    case Element::bf16:
      return f(bf16{});
    case Element::int64:
      return f(i64{});
    case Element::int32:
      return f(std::int32_t{});
    case Element::int16:
      return f(std::int16_t{});
    case Element::int8:
      return f(std::int8_t{});
    case Element::uint64:
      return f(u64{});
    case Element::uint32:
      return f(u32{});
    case Element::uint16:
      return f(std::uint16_t{});
    case Element::uint8:
      return f(u8{});
    case Element::boolean:
      return f(StoredBool{});
    default:
      return f(float{});
  }
}

}  // namespace detail

i64 size_of(Element e) {
  return detail::visit_element(e, [](auto x) { return static_cast<i64>(sizeof x); });
}

DType kept_as(Element e) {
  return detail::visit_element(e, [](auto x) { return dtype_of<decltype(detail::kept(x))>; });
}

Element element_of(DType t) {
  switch (t) {
    case DType::f64:
      return Element::f64;
    case DType::bf16:
      return Element::bf16;
    case DType::int64:
      return Element::int64;
    case DType::uint8:
      return Element::uint8;
    default:
      return Element::f32;
  }
}

Shape shape_of(const std::vector<i64>& sizes, std::string_view where) {
  const auto listed = [&sizes] {
    std::string s;
    for (const i64 n : sizes) s += str(s.empty() ? "(" : ", ", n);
    return s + ")";
  };
  i64 elements = 1;
  for (const i64 n : sizes) {
    check(n >= 0, where, ": shape ", listed(),
          ": sizes must not be negative; copy or download the file again");
    check(!__builtin_mul_overflow(elements, n > 0 ? n : 1, &elements), where, ": shape ", listed(),
          " has more than 2^63 elements; copy or download the file again");
  }
  return Shape(sizes);
}

Tensor read_elements(Element e, const u8* from, const Shape& shape, std::string_view where) {
  Tensor t = Tensor::empty(shape, kept_as(e));
  detail::visit_element(e, [&](auto stored) {
    using Stored = decltype(stored);
    using Kept = decltype(detail::kept(stored));
    if constexpr (std::is_same_v<Stored, Kept>) {
      if (t.numel() > 0) std::memcpy(t.raw(), from, static_cast<std::size_t>(t.bytes()));
    } else {
      Kept* to = t.data<Kept>();
      for (i64 i = 0; i < t.numel(); ++i) {
        const Stored x = detail::load<Stored>(from + i * static_cast<i64>(sizeof(Stored)));
        detail::require_kept(x, where);
        to[i] = detail::kept(x);
      }
    }
  });
  return t;
}

Tensor read_elements(Element e, const u8* from, const Shape& shape, const i64* strides,
                     std::string_view where) {
  Tensor t = Tensor::empty(shape, kept_as(e));
  if (t.numel() == 0) return t;
  detail::visit_element(e, [&](auto stored) {
    using Stored = decltype(stored);
    auto* to = t.data<decltype(detail::kept(stored))>();
    i64 index[Shape::max_rank] = {};
    i64 position = 0;  // of the element at `index`, in the storage
    for (i64 i = 0; i < t.numel(); ++i) {
      const Stored x = detail::load<Stored>(from + position * static_cast<i64>(sizeof(Stored)));
      detail::require_kept(x, where);
      to[i] = detail::kept(x);
      for (int a = shape.rank() - 1; a >= 0; --a) {  // the next index, last axis first
        position += strides[a];
        if (++index[a] < shape[a]) break;
        position -= strides[a] * shape[a];
        index[a] = 0;
      }
    }
  });
  return t;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
