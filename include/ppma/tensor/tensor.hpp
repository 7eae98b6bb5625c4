#pragma once
#include "ppma/core/names_begin.hpp"
// Tensor: a shared handle on a dense row-major array with a run-time dtype and device.
//
// Copying a Tensor copies the handle; the elements are shared. There are no strided views: every
// tensor is contiguous, so a kernel needs a pointer and sizes. Operators do not change their
// arguments; data<T>() of a non-const handle does (for filling, optimisers and buffers).
//
// Elements are in 64-byte aligned memory of the library, or where somebody else has them: wrap().

#include <algorithm>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/core/config.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/dtype.hpp"
#include "ppma/core/error.hpp"
#include "ppma/core/random.hpp"
#include "ppma/core/shape.hpp"

namespace ppma::inline PPMA_ABI {

// tensor/autograd.hpp: the gradient of a leaf, or the operation that made a tensor
struct GradInfo;

class Tensor {
 public:
  /// No tensor at all: an absent bias, "no gradient". defined() is false.
  Tensor() = default;
  // Functions, though they do what the compiler would write: inlined into all that holds tensors,
  // they are much of what a network costs to compile.
  PPMA_ONCE PPMA_API Tensor(const Tensor& other);
  PPMA_ONCE PPMA_API Tensor(Tensor&& other) noexcept;
  PPMA_ONCE PPMA_API Tensor& operator=(const Tensor& other);
  PPMA_ONCE PPMA_API Tensor& operator=(Tensor&& other) noexcept;
  PPMA_ONCE PPMA_API ~Tensor();

  // ---- making tensors ----
  /// Uninitialised elements.
  PPMA_API static Tensor empty(const Shape& shape, DType dtype = DType::f32,
                               Device device = Device::cpu);
  /// All 0.
  PPMA_API static Tensor zeros(const Shape& shape, DType dtype = DType::f32,
                               Device device = Device::cpu);
  /// All `value`.
  PPMA_API static Tensor full(const Shape& shape, double value, DType dtype = DType::f32,
                              Device device = Device::cpu);
  /// All 1.
  static Tensor ones(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu) {
    return full(shape, 1.0, dtype, device);
  }
  /// A scalar (shape ()).
  static Tensor scalar(double value, DType dtype = DType::f32) { return full({}, value, dtype); }
  /// From values in row-major order: Tensor::from<float>({1, 2, 3, 4}, {2, 2}).
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    check(static_cast<i64>(values.size()) == shape.numel(), "Tensor::from: ", values.size(),
          " values do not fill shape ", shape, " (", shape.numel(), " elements)");
    Tensor t = empty(shape, dtype_of<T>);
    std::copy(values.begin(), values.end(), t.data<T>());
    return t;
  }
  /// A tensor on elements that are somebody else's, where they lie, row-major and without gaps: a
  /// std::vector, an image of OpenCV, a camera's buffer, a GPU array of another library.
  ///
  /// `keep_alive` lives as long as any tensor shares the elements (std::make_shared<cv::Mat>(image)
  /// or any shared_ptr with a deleter). Without it the caller must keep the elements, unmoved,
  /// until then: until the last copy, result of reshape(), and backward() through them is gone.
  /// Const elements are read-only: to change them through the tensor (data() of a non-const handle,
  /// copy_from, an optimiser) is an error; clone() has elements of its own.
  /// No operation writes into its arguments, also not where it saves memory by working in place.
  /// Alignment: that of T; kernels ask no more on the CPU. On the GPU 256 bytes, as cudaMalloc
  /// gives it, and whoever wrote the elements must have finished (cudaStreamSynchronize).
  /// Errors: a null or badly aligned pointer, a span of another size than the shape.
  template <class T>
  static Tensor wrap(T* elements, const Shape& shape,
                     // NOLINTNEXTLINE(performance-unnecessary-value-param): it is moved on
                     std::shared_ptr<const void> keep_alive = nullptr,
                     Device device = Device::cpu) {
    return wrap_bytes(elements, shape, dtype_of<std::remove_const_t<T>>, device,
                      std::move(keep_alive), !std::is_const_v<T>);
  }
  template <class T>
  static Tensor wrap(std::span<T> elements, const Shape& shape,
                     std::shared_ptr<const void> keep_alive = nullptr) {
    check(static_cast<i64>(elements.size()) == shape.numel(), "Tensor::wrap: ", elements.size(),
          " elements do not fill shape ", shape, " (", shape.numel(), " elements)");
    return wrap(elements.data(), shape, std::move(keep_alive));
  }
  /// The same for a dtype that is known when the program runs.
  PPMA_API static Tensor wrap_bytes(const void* elements, const Shape& shape, DType dtype,
                                    Device device, std::shared_ptr<const void> keep_alive,
                                    bool writable);
  /// Elements begin .. of this tensor's in their order, as many as `shape` has; shared, without
  /// history. They keep the whole. Error: there are not so many.
  PPMA_API Tensor part(i64 begin, const Shape& shape) const;
  /// Independent draws, uniform in [low, high): the stream's next, in row-major order.
  PPMA_API static Tensor rand(const Shape& shape, Rng& rng, double low = 0, double high = 1,
                              DType dtype = DType::f32);
  /// Independent normal draws around 0 with the given standard deviation, likewise.
  PPMA_API static Tensor randn(const Shape& shape, Rng& rng, double deviation = 1,
                               DType dtype = DType::f32);

  // ---- what it is ----
  /// False for no tensor at all.
  bool defined() const { return buffer_ != nullptr; }
  /// Sizes of its axes.
  const Shape& shape() const { return shape_; }
  /// How many axes.
  int rank() const { return shape_.rank(); }
  /// The size of an axis; -1 is the last.
  i64 dim(int axis) const { return shape_[axis]; }
  /// How many elements.
  i64 numel() const { return shape_.numel(); }
  /// Kind of the elements.
  DType dtype() const { return dtype_; }
  /// Bytes of all elements.
  i64 bytes() const { return numel() * size_of(dtype_); }
  /// Where the elements are.
  Device device() const { return buffer_ ? buffer_->device() : Device::cpu; }

  // ---- elements ----
  /// The elements, row-major. Errors: another type than the dtype's; const ones were wrapped.
  template <class T>
  T* data() {
    check_type<T>();
    check_writable();
    return static_cast<T*>(buffer_->data());
  }
  template <class T>
  const T* data() const {
    check_type<T>();
    return static_cast<const T*>(buffer_->data());
  }
  /// The elements without their type.
  void* raw() {
    check_writable();
    return buffer_->data();
  }
  const void* raw() const { return buffer_->data(); }
  /// The value of a one-element tensor of any dtype.
  PPMA_API double item() const;
  /// All elements in row-major order, converted.
  template <class T>
  std::vector<T> to_vector() const {
    if (device() != Device::cpu) return to(Device::cpu).to_vector<T>();
    std::vector<T> v(static_cast<std::size_t>(numel()));
    visit_any(dtype_, [&](auto t) {
      const auto* p = data<decltype(t)>();
      for (std::size_t i = 0; i < v.size(); ++i) v[i] = cast_to<T>(static_cast<double>(p[i]));
    });
    return v;
  }
  /// Overwrites the elements with `source`'s (same shape, any dtype and device): for loading
  /// weights and for buffers.
  PPMA_API void copy_from(const Tensor& source);
  /// A tensor with elements and gradient history of its own: no history.
  PPMA_API Tensor clone() const;
  /// The elements on a device, without history: this tensor's own where it is there already.
  PPMA_API Tensor to(Device where) const;
  /// The same elements, cut off from the gradient history.
  PPMA_API Tensor detach() const;
  /// The same elements under another shape, without history; the differentiable reshape() is in
  /// ops/layout.hpp.
  PPMA_API Tensor viewed_as(const Shape& shape) const;
  /// True if nobody else shares the elements: no other tensor, and no one whose memory was wrapped.
  bool sole_owner() const { return buffer_.use_count() == 1 && !buffer_->foreign(); }
  /// False for wrapped const elements.
  bool writable() const { return defined() && buffer_->writable(); }

  // ---- gradients (tensor/autograd.hpp) ----
  /// Marks a leaf (parameter or input) for differentiation; returns *this.
  PPMA_API Tensor& requires_grad(bool on);
  /// True for a marked leaf and for everything computed from one while gradients are recorded.
  bool requires_grad() const { return PPMA_GRADIENTS && info_ != nullptr; }
  /// The gradient of a leaf after backward(); undefined before.
  PPMA_API Tensor grad() const;
  /// Overwrites the gradient of a leaf. Errors: another shape; the tensor requires none.
  PPMA_API void set_grad(const Tensor& gradient);
  /// Forgets the gradient.
  PPMA_API void zero_grad();
  /// Differentiates this tensor (a scalar, or with an upstream gradient of its shape) and adds to
  /// each leaf's grad().
  PPMA_API void backward() const;
  PPMA_API void backward(const Tensor& upstream) const;

  /// The tape's part, for operations.
  const std::shared_ptr<GradInfo>& info() const { return info_; }
  /// Sets it.
  void set_info(std::shared_ptr<GradInfo> info) { info_ = std::move(info); }

 private:
  template <class T, class From>
  static T cast_to(From value) {
    if constexpr (std::is_same_v<T, bf16>)
      return bf16(static_cast<float>(value));
    else
      return static_cast<T>(value);
  }
  template <class Draw>
  static Tensor drawn(const Shape& shape, DType dtype, Rng& rng, u64 words, Draw draw);
  template <class T>
  void check_type() const {
    if (!defined() || dtype_ != dtype_of<T>) [[unlikely]]
      wrong_type(dtype_of<T>);
  }
  void check_writable() const {
    if (!buffer_->writable()) [[unlikely]]
      read_only();
  }
  [[noreturn]] PPMA_COLD PPMA_API void wrong_type(DType wanted) const;
  [[noreturn]] PPMA_COLD PPMA_API void read_only() const;

  std::shared_ptr<Buffer> buffer_;
  std::shared_ptr<GradInfo> info_;
  Shape shape_;
  DType dtype_ = DType::f32;
};

namespace detail {

template <class T>
T* data_or_null(Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}
template <class T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TENSOR)

#include <cstdint>
#include <string>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/convert.hpp"

namespace ppma::inline PPMA_ABI {

// Written out: of a defaulted function g++ 12 warns that it is both inline and not to be inlined.
Tensor::Tensor(const Tensor& other)
    : buffer_(other.buffer_), info_(other.info_), shape_(other.shape_), dtype_(other.dtype_) {}

Tensor::Tensor(Tensor&& other) noexcept
    : buffer_(std::move(other.buffer_)),
      info_(std::move(other.info_)),
      shape_(other.shape_),
      dtype_(other.dtype_) {}

Tensor& Tensor::operator=(const Tensor& other) {  // NOLINT(bugprone-unhandled-self-assignment)
  buffer_ = other.buffer_;
  info_ = other.info_;
  shape_ = other.shape_;
  dtype_ = other.dtype_;
  return *this;
}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  buffer_ = std::move(other.buffer_);
  info_ = std::move(other.info_);
  shape_ = other.shape_;
  dtype_ = other.dtype_;
  return *this;
}

Tensor::~Tensor() {}

void Tensor::wrong_type(DType wanted) const {
  check(defined(), "data: the tensor is undefined");
  fail("data: the tensor of shape ", shape_, " holds ", dtype_, ", not ", wanted);
}

void Tensor::read_only() const {
  fail("data: the tensor of shape ", shape_,
       " wraps const elements; clone() it to change them, or read them through a const Tensor");
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.buffer_ = std::make_shared<Buffer>(shape.numel() * size_of(dtype), device);
  t.shape_ = shape;
  t.dtype_ = dtype;
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  zero_bytes(t.raw(), device, t.bytes());
  return t;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  visit_any(dtype, [&](auto zero) {
    using T = decltype(zero);
    visit_device(device, "full",
                 [&](auto on) { kernels::fill(on, t.numel(), cast_to<T>(value), t.data<T>()); });
  });
  return t;
}

// An element takes so many words of the stream, a uniform number of Rng two and a normal one four:
// a thread begins where those of its first element are.
template <class Draw>
Tensor Tensor::drawn(const Shape& shape, DType dtype, Rng& rng, u64 words, Draw draw) {
  Tensor t = empty(shape, dtype);
  const Rng stream = rng;
  rng.seek(stream.position() + static_cast<u64>(t.numel()) * words);
  visit_any(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* const to = t.data<T>();
    parallel_for(t.numel(), 1024, [&stream, &draw, words, to](i64 begin, i64 end) {
      Rng own = stream;
      own.seek(stream.position() + static_cast<u64>(begin) * words);
      for (i64 i = begin; i < end; ++i) to[i] = cast_to<T>(draw(own));
    });
  });
  return t;
}

Tensor Tensor::rand(const Shape& shape, Rng& rng, double low, double high, DType dtype) {
  return drawn(shape, dtype, rng, 2, [=](Rng& r) { return r.uniform(low, high); });
}

Tensor Tensor::randn(const Shape& shape, Rng& rng, double deviation, DType dtype) {
  return drawn(shape, dtype, rng, 4, [=](Rng& r) { return deviation * r.normal(); });
}

Tensor Tensor::wrap_bytes(const void* elements, const Shape& shape, DType dtype, Device device,
                          std::shared_ptr<const void> keep_alive, bool writable) {
  check(elements != nullptr || shape.numel() == 0,
        "Tensor::wrap: a null pointer for the elements of shape ", shape);
  check(device == Device::cpu || PPMA_CUDA,
        "Tensor::wrap: this program was compiled without CUDA; wrap memory of the host");
  const i64 alignment = device == Device::cpu ? size_of(dtype) : 256;
  check(reinterpret_cast<std::uintptr_t>(elements) % static_cast<std::uintptr_t>(alignment) == 0,
        "Tensor::wrap: the elements of shape ", shape, " must lie at a multiple of ", alignment,
        " bytes (", dtype, " on ", device, "); copy them into a tensor instead");
  Tensor t;
  // const_cast: Buffer has one pointer, and `writable` says whether it is to be written through.
  t.buffer_ = std::make_shared<Buffer>(const_cast<void*>(elements), shape.numel() * size_of(dtype),
                                       device, std::move(keep_alive), writable);
  t.shape_ = shape;
  t.dtype_ = dtype;
  return t;
}

Tensor Tensor::part(i64 begin, const Shape& shape) const {
  check(defined() && begin >= 0 && begin + shape.numel() <= numel(), "Tensor::part: elements ",
        begin, " to ", begin + shape.numel(), " are not in ",
        defined() ? shape_.str() : std::string("an undefined tensor"));
  Tensor t;
  t.buffer_ =
      std::make_shared<Buffer>(buffer_, begin * size_of(dtype_), shape.numel() * size_of(dtype_));
  t.shape_ = shape;
  t.dtype_ = dtype_;
  return t;
}

double Tensor::item() const {
  check(defined() && numel() == 1, "item: needs a tensor of one element, got ",
        defined() ? shape_.str() : std::string("an undefined tensor"));
  if (device() != Device::cpu) return to(Device::cpu).item();
  return visit_any(dtype_, [&](auto t) { return static_cast<double>(*data<decltype(t)>()); });
}

void Tensor::copy_from(const Tensor& source) {
  check(source.shape() == shape_, "copy_from: shape ", source.shape(), " into ", shape_);
  if (source.dtype() == dtype_)
    return copy_bytes(raw(), device(), source.raw(), source.device(), bytes());
  if (source.device() != device()) return copy_from(source.to(device()));
  visit_any(dtype_, [&](auto to) {
    visit_any(source.dtype(), [&](auto from) {
      visit_device(device(), "copy_from", [&](auto on) {
        kernels::convert(on, numel(), source.data<decltype(from)>(), data<decltype(to)>());
      });
    });
  });
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, dtype_, device());
  copy_bytes(t.raw(), device(), raw(), device(), bytes());
  return t;
}

Tensor Tensor::to(Device where) const {
  if (!defined() || where == device()) return detach();
  Tensor t = empty(shape_, dtype_, where);
  copy_bytes(t.raw(), where, raw(), device(), bytes());
  return t;
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.info_ = nullptr;
  return t;
}

Tensor Tensor::viewed_as(const Shape& shape) const {
  check(shape.numel() == numel(), "reshape: ", shape_, " has ", numel(), " elements, ", shape,
        " has ", shape.numel());
  Tensor t = detach();
  t.shape_ = shape;
  return t;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
