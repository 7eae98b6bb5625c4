#pragma once
#include "ppma/core/names_begin.hpp"
// Tensors of other libraries without a copy, by DLPack: PyTorch, NumPy, JAX, CuPy, TVM. Not part of
// ppma.hpp: it needs dlpack/dlpack.h (Debian: libdlpack-dev; https://github.com/dmlc/dlpack), a
// header of C structs.
//
// Both sides see the same elements, and who changes them changes them for both. In Python a
// DLManagedTensor travels in a capsule named "dltensor" (docs/interop.md has one of each way).

#if !__has_include(<dlpack/dlpack.h>)
#error "ppma/dlpack.hpp needs dlpack/dlpack.h (Debian: libdlpack-dev)"
#endif
#include <dlpack/dlpack.h>

#include <memory>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline DLDataType dlpack_type(DType t) {
  const u8 code = t == DType::bf16    ? kDLBfloat
                  : t == DType::int64 ? kDLInt
                  : t == DType::uint8 ? kDLUInt
                                      : kDLFloat;
  return {code, static_cast<u8>(8 * size_of(t)), 1};
}

inline DType dtype_of_dlpack(const DLDataType& type) {
  for (const DType t : {DType::f32, DType::f64, DType::bf16, DType::int64, DType::uint8}) {
    const DLDataType own = dlpack_type(t);
    if (type.code == own.code && type.bits == own.bits && type.lanes == 1) return t;
  }
  fail("from_dlpack: elements of type code ", static_cast<int>(type.code), " with ",
       static_cast<int>(type.bits), " bits and ", static_cast<int>(type.lanes),
       " lanes; tensors have f32, f64, bf16, int64 or uint8, convert them in the other library");
}

// Calls the deleter of another library's tensor.
struct Imported {
  DLManagedTensor* managed = nullptr;

  Imported() = default;
  Imported(const Imported&) = delete;
  Imported& operator=(const Imported&) = delete;
  ~Imported() {
    if (managed != nullptr && managed->deleter != nullptr) managed->deleter(managed);
  }
};

// A tensor and what DLPack points to, one allocation until the consumer is done with it.
struct Exported {
  DLManagedTensor managed{};
  Tensor tensor;
  i64 sizes[Shape::max_rank] = {}, strides[Shape::max_rank] = {};
};

}  // namespace detail

/// The elements of a DLManagedTensor, which is now the tensor's: its deleter runs when the last
/// tensor that shares them is gone. On an error it stays the caller's.
/// On the GPU whoever wrote the elements must have finished.
/// Errors: gaps or another order than row-major (call contiguous() first), an element type that
/// tensors do not have, more than eight axes, a device that is neither the CPU nor the GPU in use,
/// bad alignment (Tensor::wrap).
inline Tensor from_dlpack(DLManagedTensor* managed) {
  check(managed != nullptr, "from_dlpack: a null pointer");
  const DLTensor& t = managed->dl_tensor;
  check(t.ndim >= 0 && t.ndim <= Shape::max_rank, "from_dlpack: ", t.ndim, " axes, at most ",
        Shape::max_rank, " are supported");
  const Shape shape(std::vector<i64>(t.shape, t.shape + t.ndim));
  i64 step = 1;
  for (int a = t.ndim - 1; a >= 0 && t.strides != nullptr && shape.numel() > 0; --a) {
    check(t.shape[a] == 1 || t.strides[a] == step, "from_dlpack: axis ", a, " of shape ", shape,
          " has stride ", static_cast<i64>(t.strides[a]), ", row-major order without gaps has ",
          step, "; make it contiguous in the other library first");
    step *= t.shape[a];
  }
  const DLDevice where = t.device;
  const bool on_gpu = where.device_type == kDLCUDA;
  check(on_gpu || where.device_type == kDLCPU || where.device_type == kDLCUDAHost,
        "from_dlpack: device type ", static_cast<int>(where.device_type),
        "; move the elements to the CPU or to a CUDA device first");
  check(!on_gpu || !cuda::compiled() || where.device_id == cuda::device_number(),
        "from_dlpack: the elements are on GPU ", where.device_id, ", in use is ",
        cuda::device_number());
  const auto owner = std::make_shared<detail::Imported>();
  const Tensor tensor = Tensor::wrap_bytes(
      t.data == nullptr ? nullptr : static_cast<const char*>(t.data) + t.byte_offset, shape,
      detail::dtype_of_dlpack(t.dtype), on_gpu ? Device::cuda : Device::cpu, owner, true);
  owner->managed = managed;  // nothing throws any more
  return tensor;
}

/// The tensor's elements, without its gradient history, for another library, which calls the
/// deleter when it is done with them; until then they stay, whatever becomes of `tensor`. What our
/// kernels still write on the GPU is waited for.
/// Errors: an undefined tensor; one of const elements (DLPack's consumers may write into them).
inline DLManagedTensor* to_dlpack(const Tensor& tensor) {
  check(tensor.defined(), "to_dlpack: the tensor is undefined");
  check(tensor.writable(), "to_dlpack: the tensor of shape ", tensor.shape(),
        " wraps const elements, which other libraries could change; clone() it");
  auto out = std::make_unique<detail::Exported>();
  out->tensor = tensor.detach();
  i64 step = 1;
  for (int a = tensor.rank() - 1; a >= 0; --a) {
    out->sizes[a] = tensor.dim(a), out->strides[a] = step;
    step *= tensor.dim(a);
  }
  const bool on_gpu = tensor.device() == Device::cuda;
  if (on_gpu) cuda::synchronize();
  DLTensor& t = out->managed.dl_tensor;
  t.data = out->tensor.raw();
  t.device = {on_gpu ? kDLCUDA : kDLCPU, on_gpu ? cuda::device_number() : 0};
  t.ndim = tensor.rank(), t.shape = out->sizes, t.strides = out->strides;
  t.dtype = detail::dlpack_type(tensor.dtype());
  out->managed.manager_ctx = out.get();
  out->managed.deleter = [](DLManagedTensor* self) {
    delete static_cast<detail::Exported*>(self->manager_ctx);
  };
  return &out.release()->managed;
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
