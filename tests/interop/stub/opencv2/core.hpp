#pragma once
// What docs/interop.md uses of cv::Mat, for machines without OpenCV: a shared handle on 8-bit
// pixels.

#include <memory>
#include <vector>

#define CV_8UC3 16

namespace cv {

class Mat {
 public:
  Mat(int rows_, int cols_, int)
      : rows(rows_),
        cols(cols_),
        memory_(std::make_shared<std::vector<unsigned char>>(
            static_cast<std::size_t>(rows_ * cols_ * 3))) {
    data = memory_->data();
  }
  bool isContinuous() const { return true; }

  int rows, cols;
  unsigned char* data;

 private:
  std::shared_ptr<std::vector<unsigned char>> memory_;
};

}  // namespace cv
