#pragma once
#include "ppma/core/names_begin.hpp"
// Tensors as std::mdspan and back, where the standard library has it (C++23: g++ 15, libc++ 17);
// elsewhere PPMA_MDSPAN is 0 and this header declares nothing. Not part of ppma.hpp.

#include <version>

#include "ppma/tensor/tensor.hpp"

#if defined(__cpp_lib_mdspan)
#define PPMA_MDSPAN 1
#else
#define PPMA_MDSPAN 0
#endif

#if PPMA_MDSPAN

#include <array>
#include <cstddef>
#include <mdspan>

namespace ppma::inline PPMA_ABI {

template <class T, std::size_t rank>
using Span = std::mdspan<T, std::dextents<i64, rank>>;

namespace detail {

template <class T, std::size_t rank, class Handle>
auto span_of(Handle& t) {
  check(t.device() == Device::cpu, "as_mdspan: the tensor of shape ", t.shape(), " is on ",
        t.device(), "; move it with .to(Device::cpu)");
  check(t.rank() == static_cast<int>(rank), "as_mdspan: ", rank, " axes of a tensor of shape ",
        t.shape());
  std::array<i64, rank> sizes;
  for (std::size_t a = 0; a < rank; ++a) sizes[a] = t.dim(static_cast<int>(a));
  using E = std::conditional_t<std::is_const_v<Handle>, const T, T>;
  return Span<E, rank>(t.template data<T>(), sizes);
}

}  // namespace detail

/// A tensor's elements, which it must outlive; of a const tensor const ones. No copy.
/// Errors: another dtype or number of axes, a tensor on the GPU, a non-const tensor of const
/// elements.
template <class T, std::size_t rank>
Span<T, rank> as_mdspan(Tensor& t) {
  return detail::span_of<T, rank>(t);
}
template <class T, std::size_t rank>
Span<const T, rank> as_mdspan(const Tensor& t) {
  return detail::span_of<T, rank>(t);
}
template <class T, std::size_t rank>
void as_mdspan(const Tensor&&) = delete;  // the span would outlive the tensor: name it first

/// A tensor of the span's elements, which must live as long; const ones are read-only. No copy.
/// layout_right alone: row-major without gaps, as tensors are.
template <class T, class Extents>
Tensor wrap(std::mdspan<T, Extents, std::layout_right> span,
            std::shared_ptr<const void> keep_alive = nullptr) {
  Shape shape;
  for (std::size_t a = 0; a < Extents::rank(); ++a)
    shape.push_back(static_cast<i64>(span.extent(a)));
  return Tensor::wrap(span.data_handle(), shape, std::move(keep_alive));
}

}  // namespace ppma::inline PPMA_ABI

#endif

#include "ppma/core/names_end.hpp"
