#pragma once
#include "ppma/core/names_begin.hpp"
// What dense_predict.hpp is told.

#include <string>
#include <vector>

#include "ppma/commands/predict.hpp"
#include "ppma/io/image.hpp"

namespace ppma::inline PPMA_ABI {

/// Which network, which images, and what is written.
struct DensePredictOptions {
  NetworkOptions network;  // with weights
  ComputeOptions compute;
  std::vector<std::string> images;  // as predict_inputs() takes them
  std::string out = "predictions";  // folder
  bool pictures = true;             // PNG files in it
  bool results = true;              // results.json and images.json in it
  std::string gt;                   // path of COCO's annotations, whose numbers results take
  std::string classes;              // path of the classes' names, one a line
  i64 longer = 0, shorter = 0;      // 0: what the weights say
  double least_score = 0.5;         // detector: of objects that are shown
  i64 crop = 0, stride = 0;         // segmentor: windows; 0: the whole image
  std::vector<double> scales{1.0};  // segmentor: sizes whose results are averaged
  bool flip = false;                // segmentor: each size also flipped
  bool no_exif = false;             // files as they are stored

  /// Annotations count stored pixels: results that are to be compared with those of `gt` do too.
  ImageReading reading() const { return {.orient = !no_exif && gt.empty()}; }
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
