#pragma once
// What the detector's tests look at: random images with the same two objects, boxes and masks, on
// each.

#include "ppma/data/detection.hpp"

/// `images` of height x width, at least 60 x 90.
inline ppma::DetectionBatch scene(ppma::i64 height = 64, ppma::i64 width = 96,
                                  ppma::i64 images = 1) {
  using namespace ppma;
  DetectionBatch b;
  Rng rng(5);
  b.images = Tensor::randn({images, 3, height, width}, rng);
  Objects o;
  o.boxes = {{8, 8, 40, 40}, {50, 20, 90, 60}}, o.classes = {0, 1};
  o.masks = Tensor::zeros({2, height, width}, DType::uint8);
  for (i64 k = 0; k < 2; ++k)
    for (i64 y = 24; y < 40; ++y)
      for (i64 x = k == 0 ? 8 : 50; x < (k == 0 ? 40 : 90); ++x)
        o.masks.data<u8>()[(k * height + y) * width + x] = 1;
  for (i64 image = 0; image < images; ++image)
    b.frames.push_back({height, width, height, width, height, width, image + 1}),
        b.objects.push_back(o);
  return b;
}
