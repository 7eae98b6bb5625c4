#pragma once
#include "ppma/core/names_begin.hpp"
// Tensors as Eigen's matrices and back. Not part of ppma.hpp: it needs Eigen 3.4 (Debian:
// libeigen3-dev), which takes some two seconds to compile.
//
//   as_matrix, as_array, as_vector   a map of a tensor's elements, no copy
//   wrap                             a tensor of a matrix' elements, no copy
//   tensor_of                        a tensor with the values of any Eigen expression, copied
//
// A map refers to the elements and does not keep them: the tensor must live as long. So there is
// none of a temporary; name it first. Changes through a map are invisible to the tape, like those
// through data(): make them before the forward pass, or under NoGrad after it.

#include "ppma/tensor/tensor.hpp"

#if __has_include(<Eigen/Core>)
#include <Eigen/Core>
#elif __has_include(<eigen3/Eigen/Core>)
#include <eigen3/Eigen/Core>
#else
#error "ppma/eigen.hpp needs Eigen (Debian: libeigen3-dev), its folder eigen3 among the includes"
#endif

namespace ppma::inline PPMA_ABI {

/// A dense matrix of T as tensors lie in memory: the last axis is contiguous.
template <class T>
using RowMajorMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace detail {

// A map as a matrix type sees the elements; of a const Tensor, a const one.
template <class Plain, class Handle>
auto map_as(Handle& t, const char* what, i64 rows, i64 cols) {
  check(t.device() == Device::cpu, what, ": the tensor of shape ", t.shape(), " is on ", t.device(),
        "; move it with .to(Device::cpu)");
  using M = std::conditional_t<std::is_const_v<Handle>, const Plain, Plain>;
  return Eigen::Map<M>(t.template data<typename Plain::Scalar>(), static_cast<Eigen::Index>(rows),
                       static_cast<Eigen::Index>(cols));
}

template <class T, class Handle>
auto matrix_map(Handle& t) {
  check(t.rank() >= 2, "as_matrix: a tensor of shape ", t.shape(),
        " has no rows and columns; use as_vector or viewed_as");
  return map_as<RowMajorMatrix<T>>(t, "as_matrix", t.shape().product(0, t.rank() - 1), t.dim(-1));
}
template <class T, class Handle>
auto array_map(Handle& t) {
  return map_as<Eigen::Array<T, Eigen::Dynamic, 1>>(t, "as_array", t.numel(), 1);
}
template <class T, class Handle>
auto vector_map(Handle& t) {
  check(t.rank() == 1, "as_vector: a tensor of shape ", t.shape(),
        " is no vector; use as_array for all elements, as_matrix for rows");
  return map_as<Eigen::Matrix<T, Eigen::Dynamic, 1>>(t, "as_vector", t.numel(), 1);
}

template <class Derived>
Shape eigen_shape(const Eigen::DenseBase<Derived>& m) {
  if constexpr (Derived::IsVectorAtCompileTime)
    return {static_cast<i64>(m.size())};
  else
    return {static_cast<i64>(m.rows()), static_cast<i64>(m.cols())};
}

// Matrices, maps and references whose elements lie one after the other, in rows.
template <class Derived>
void check_in_rows(const Derived& m) {
  static_assert((Derived::Flags & Eigen::DirectAccessBit) != 0,
                "wrap: this expression has no memory; tensor_of() computes it into a tensor");
  static_assert(
      Derived::IsVectorAtCompileTime || Derived::IsRowMajor,
      "wrap: the matrix lies column by column (Eigen's default), a tensor row by row; use "
      "RowMajorMatrix, or tensor_of() for a copy");
  const i64 inner = static_cast<i64>(m.innerStride()), outer = static_cast<i64>(m.outerStride());
  check(m.size() == 0 ||
            (inner == 1 && (Derived::IsVectorAtCompileTime || m.rows() == 1 || outer == m.cols())),
        "wrap: the ", static_cast<i64>(m.rows()), " x ", static_cast<i64>(m.cols()),
        " matrix has gaps (strides ", outer, " and ", inner,
        "); a tensor has none, use tensor_of() for a copy");
}

}  // namespace detail

/// The elements of a (..., n) tensor as a matrix of n columns; the axes in front make the rows. A
/// map of a const tensor is read-only.
/// Errors: another dtype than T, fewer than two axes, a tensor on the GPU; a non-const tensor of
/// const elements (Tensor::wrap).
template <class T = float>
auto as_matrix(Tensor& t) {
  return detail::matrix_map<T>(t);
}
template <class T = float>
auto as_matrix(const Tensor& t) {
  return detail::matrix_map<T>(t);
}
template <class T = float>
void as_matrix(const Tensor&&) = delete;  // the map would outlive the tensor: name it first

/// All elements, in row-major order and of any shape, for elementwise arithmetic. Errors as above.
template <class T = float>
auto as_array(Tensor& t) {
  return detail::array_map<T>(t);
}
template <class T = float>
auto as_array(const Tensor& t) {
  return detail::array_map<T>(t);
}
template <class T = float>
void as_array(const Tensor&&) = delete;

/// A tensor of one axis as a column. Errors as above, and another number of axes.
template <class T = float>
auto as_vector(Tensor& t) {
  return detail::vector_map<T>(t);
}
template <class T = float>
auto as_vector(const Tensor& t) {
  return detail::vector_map<T>(t);
}
template <class T = float>
void as_vector(const Tensor&&) = delete;

/// A tensor with the values of any matrix, array or expression of f32, f64, int64 or uint8,
/// whatever its storage order: (rows, cols), or (size) of what is a vector when compiled.
///   tensor_of(a.transpose() * b)
template <class Derived>
Tensor tensor_of(const Eigen::DenseBase<Derived>& expression) {
  using T = typename Derived::Scalar;
  constexpr int rows = Derived::RowsAtCompileTime, cols = Derived::ColsAtCompileTime;
  // Row-major, as tensors are; Eigen takes a column only as column-major.
  using Plain =
      Eigen::Matrix<T, rows, cols, cols == 1 && rows != 1 ? Eigen::ColMajor : Eigen::RowMajor>;
  Tensor t = Tensor::empty(detail::eigen_shape(expression), dtype_of<T>);
  Eigen::Map<Plain>(t.data<T>(), expression.rows(), expression.cols()).noalias() =
      expression.derived().matrix();
  return t;
}

/// A tensor of the matrix' own elements, for row-major matrices without gaps and vectors: shape as
/// in tensor_of(). The matrix must live, and keep its size, as long as the tensor; a const one is
/// read-only.
/// Errors: a map or block with gaps.
template <class Derived>
Tensor wrap(Eigen::DenseBase<Derived>& matrix) {
  detail::check_in_rows(matrix.derived());
  return Tensor::wrap(matrix.derived().data(), detail::eigen_shape(matrix));
}
template <class Derived>
Tensor wrap(const Eigen::DenseBase<Derived>& matrix) {
  detail::check_in_rows(matrix.derived());
  return Tensor::wrap(static_cast<const typename Derived::Scalar*>(matrix.derived().data()),
                      detail::eigen_shape(matrix));
}
/// The tensor takes the matrix over: wrap(std::move(matrix)).
template <class Derived>
Tensor wrap(Eigen::PlainObjectBase<Derived>&& matrix) {
  const auto owner = std::make_shared<Derived>(std::move(matrix.derived()));
  detail::check_in_rows(*owner);
  return Tensor::wrap(owner->data(), detail::eigen_shape(*owner), owner);
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
