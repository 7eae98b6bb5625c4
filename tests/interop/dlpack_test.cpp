#include "ppma/dlpack.hpp"

#include <memory>
#include <utility>
#include <vector>

#include "thrown.hpp"

using namespace ppma;

namespace {

// Another library's tensor: 2 x 3 floats; counts how often its deleter was called.
struct Other {
  std::vector<float> values{1, 2, 3, 4, 5, 6};
  std::vector<i64> shape{2, 3}, strides{3, 1};
  int deleted = 0;
  DLManagedTensor managed{};

  Other() {
    DLTensor& t = managed.dl_tensor;
    t.data = values.data();
    t.device = {kDLCPU, 0};
    t.ndim = 2, t.shape = shape.data(), t.strides = strides.data();
    t.dtype = {kDLFloat, 32, 1};
    managed.manager_ctx = this;
    managed.deleter = [](DLManagedTensor* self) {
      ++static_cast<Other*>(self->manager_ctx)->deleted;
    };
  }
};

}  // namespace

TEST_CASE("from_dlpack shares the elements and calls the deleter once") {
  Other other;
  Tensor t = from_dlpack(&other.managed), view = t.viewed_as({6});
  CHECK(t.shape() == Shape{2, 3});
  CHECK(std::as_const(t).data<float>() == other.values.data());
  other.values[5] = 60;
  t.data<float>()[0] = -1;
  CHECK(other.values[0] == -1);
  t = Tensor();
  CHECK(other.deleted == 0);
  CHECK(view.to_vector<float>() == std::vector<float>{-1, 2, 3, 4, 5, 60});
  view = Tensor();
  CHECK(other.deleted == 1);
}

TEST_CASE("from_dlpack: offsets, no strides, axes of one element, no deleter") {
  Other other;
  other.managed.dl_tensor.byte_offset = 8;
  other.managed.dl_tensor.strides = nullptr;
  other.managed.deleter = nullptr;
  other.shape = {1, 4};
  CHECK(from_dlpack(&other.managed).to_vector<float>() == std::vector<float>{3, 4, 5, 6});
  other.managed.dl_tensor.strides = other.strides.data();
  other.strides = {77, 1};  // of an axis of one element the stride says nothing
  CHECK(from_dlpack(&other.managed).shape() == Shape{1, 4});
  other.shape = {0, 4};
  other.managed.dl_tensor.data = nullptr;
  CHECK(from_dlpack(&other.managed).numel() == 0);
  other.managed.dl_tensor.ndim = 0;
  other.managed.dl_tensor.data = other.values.data();
  CHECK(from_dlpack(&other.managed).item() == 3);
}

TEST_CASE("from_dlpack refuses what tensors are not, and leaves it to the caller") {
  const auto refused = [](auto change, const char* message) {
    Other other;
    change(other);
    CHECK(says([&] { from_dlpack(&other.managed); }, message));
    CHECK(other.deleted == 0);
  };
  refused(
      [](Other& o) {
        o.strides = {1, 2};
      },
      "from_dlpack: axis 1 of shape (2, 3) has stride 2, row-major order without gaps has 1");
  refused([](Other& o) { o.strides = {4, 1}; }, "axis 0 of shape (2, 3) has stride 4");
  refused([](Other& o) { o.managed.dl_tensor.dtype.bits = 16; },
          "elements of type code 2 with 16 bits and 1 lanes");
  refused([](Other& o) { o.managed.dl_tensor.dtype.lanes = 4; }, "and 4 lanes");
  refused([](Other& o) { o.managed.dl_tensor.ndim = 9; }, "9 axes, at most 8");
  refused([](Other& o) { o.managed.dl_tensor.device.device_type = kDLMetal; }, "device type 8");
  refused([](Other& o) { o.managed.dl_tensor.byte_offset = 2; }, "must lie at a multiple of 4");
  refused([](Other& o) { o.managed.dl_tensor.data = nullptr; }, "a null pointer");
  CHECK(says([] { from_dlpack(nullptr); }, "from_dlpack: a null pointer"));
  if (!cuda::compiled())
    refused([](Other& o) { o.managed.dl_tensor.device = {kDLCUDA, 0}; }, "compiled without CUDA");
}

TEST_CASE("to_dlpack keeps the elements until the consumer is done") {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::int64, DType::uint8}) {
    Tensor t = Tensor::full({3, 1, 4}, 2, dtype);
    const void* const elements = std::as_const(t).raw();
    const i64 live = memory_stats().live_bytes;
    DLManagedTensor* const out = to_dlpack(t);
    t = Tensor();
    CHECK(memory_stats().live_bytes == live);
    const DLTensor& d = out->dl_tensor;
    CHECK((d.data == elements && d.ndim == 3 && d.byte_offset == 0));
    CHECK(std::vector<i64>(d.shape, d.shape + 3) == std::vector<i64>{3, 1, 4});
    CHECK(std::vector<i64>(d.strides, d.strides + 3) == std::vector<i64>{4, 4, 1});
    const Tensor back = from_dlpack(out);  // ours again
    CHECK((back.dtype() == dtype && back.raw() == elements && back.shape() == Shape{3, 1, 4}));
    CHECK(back.to_vector<float>() == std::vector<float>(12, 2));
  }
  const std::vector<float> constant{1, 2};
  CHECK(says([&] { to_dlpack(Tensor::wrap(constant.data(), {2})); },
             "to_dlpack: the tensor of shape (2) wraps const elements"));
  CHECK(says([] { to_dlpack(Tensor()); }, "to_dlpack: the tensor is undefined"));
}
