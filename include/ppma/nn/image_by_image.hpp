#pragma once
#include "ppma/core/names_begin.hpp"
// How images enter a network, and evaluation of a batch on the CPU, depth first: each thread takes
// an image through the whole network before it takes the next. So threads never wait for one
// another at the end of an operation, what a block leaves for the next is still in the cache, and
// the activations of one image a thread are all that is held, however large the batch.

#include <functional>
#include <vector>

#include "ppma/nn/context.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Images (B,3,Hin,Win), as files, loaders and other libraries have them, as everything behind sees
/// them, (B,Hin,Win,3): where they enter a network they are turned, once, and nothing turns back.
/// `network` is named in the error, that they are not such.
PPMA_API void check_images(const char* network, const Tensor& images);
PPMA_API Tensor channels_last(const char* network, const Tensor& images);

/// Whether image_by_image() gives what forward() would and is worth it: images (B,...) on the CPU,
/// in evaluation, with nobody watching and nothing recorded.
PPMA_API bool goes_image_by_image(const Tensor& images, const Context& ctx);

/// How image_by_image() cuts a batch into parts.
struct ImageParts {
  i64 images, count;  // of a part; parts that the threads share, what is left over is one more
};
/// For images (batch,3,height,width); count 0: all of the batch at once.
PPMA_API ImageParts parts_of_batch(i64 batch, i64 height, i64 width);

/// What forward(images, context) returns, tensors (B,...), from images (B,3,H,W) in parts of one
/// image, or of so many small ones that products have rows enough.
PPMA_API std::vector<Tensor> image_by_image(
    const Tensor& images,
    const std::function<std::vector<Tensor>(const Tensor&, Context&)>& forward);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NN)

#include <algorithm>
#include <cstring>
#include <mutex>

#include "ppma/core/parallel.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/tensor/tape.hpp"

namespace ppma::inline PPMA_ABI {

void check_images(const char* network, const Tensor& images) {
  check(images.defined() && images.rank() == 4 && images.dim(1) == 3, network,
        ": images must be (B,3,H,W), got ", images.shape());
}

Tensor channels_last(const char* network, const Tensor& images) {
  check_images(network, images);
  return permute(images, {0, 2, 3, 1});
}

// Images of a part: together as many pixels as one of 224 x 224, of which the last stage has 49
// tokens. Products of fewer rows would read their weights for little work. Each thread has as many
// parts.
ImageParts parts_of_batch(i64 batch, i64 height, i64 width) {
  const i64 pixels = std::max<i64>(1, height * width), images = (224 * 224 + pixels - 1) / pixels;
  return {images, batch / (images * threads()) * threads()};
}

bool goes_image_by_image(const Tensor& images, const Context& ctx) {
  return images.defined() && images.rank() == 4 && images.device() == Device::cpu &&
         !ctx.training && !ctx.observe && !grad_enabled() && images.dim(0) >= 2 &&
         parts_of_batch(images.dim(0), images.dim(2), images.dim(3)).count > 0;
}

std::vector<Tensor> image_by_image(
    const Tensor& images,
    const std::function<std::vector<Tensor>(const Tensor&, Context&)>& forward) {
  const i64 count = images.dim(0), image_bytes = images.bytes() / count;
  const ImageParts parts = parts_of_batch(count, images.dim(2), images.dim(3));
  std::vector<Tensor> results;
  std::mutex mutex;
  const auto run = [&](i64 first, i64 n) {
    const NoGrad off;
    Context evaluation;
    Shape shape = images.shape();
    shape.set(0, n);
    const char* const at = static_cast<const char*>(images.raw()) + first * image_bytes;
    const std::vector<Tensor> part = forward(
        Tensor::wrap_bytes(at, shape, images.dtype(), Device::cpu, nullptr, false), evaluation);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (results.empty())
        for (const Tensor& t : part) {
          Shape whole = t.shape();
          whole.set(0, count);
          results.push_back(Tensor::empty(whole, t.dtype()));
        }
    }
    for (std::size_t i = 0; i < part.size(); ++i)
      std::memcpy(static_cast<char*>(results[i].raw()) + part[i].bytes() / n * first, part[i].raw(),
                  static_cast<std::size_t>(part[i].bytes()));
  };
  parallel_for(parts.count, 1, [&](i64 begin, i64 end) {
    for (i64 p = begin; p < end; ++p) run(p * parts.images, parts.images);
  });
  // what is left over, on all threads
  const i64 done = parts.count * parts.images;
  if (done < count) run(done, count - done);
  return results;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
