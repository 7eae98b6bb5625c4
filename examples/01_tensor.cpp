// 01: a tensor. Numbers in row-major order, and a shape that says how to read them.
//
// A Tensor is a handle: copies share the elements. Operations make new tensors and leave their
// arguments alone. Shapes that differ broadcast: aligned at the end, an axis of size 1 serves for
// any size.

#include <cstdio>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"

using namespace ppma;

namespace {

int failures = 0;

void show(const char* what, const Tensor& t) {
  std::printf("%-22s %-9s", what, t.shape().str().c_str());
  for (const double x : t.to_vector<double>()) std::printf(" %g", x);
  std::printf("\n");
}

void expect(bool ok, const char* what) {
  std::printf("%s: %s\n", ok ? "ok" : "FAILED", what);
  if (!ok) ++failures;
}

}  // namespace

int main() {
  const Tensor image = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});  // two rows of three pixels
  show("image", image);
  show("image + 10", image + 10);
  show("transposed", transpose(image, 0, 1));
  show("row sums", sum(image, {1}));
  show("column means", mean(image, {0}));

  // Broadcasting: (2,3) with (3) adds to every row, with (2,1) to every column.
  show("plus a row", image + Tensor::from<float>({100, 200, 300}, {3}));
  show("plus a column", image + Tensor::from<float>({100, 200}, {2, 1}));
  show("image image^T", matmul(image, image, false, true));

  // Copying the handle shares the elements; clone() does not.
  Tensor same = image, own = image.clone();
  same.data<float>()[0] = 7;
  expect(image.data<float>()[0] == 7, "a copied handle sees the change");
  expect(own.data<float>()[0] == 1, "a clone keeps its own elements");

  // Shapes that do not fit are an error that says what to do.
  try {
    image + Tensor::ones({2, 2});
    expect(false, "an error is thrown");
  } catch (const Error& e) {
    std::printf("error: %s\n", e.what());
  }
  return failures;
}

// Exercises (solutions/01_04.cpp):
//   1. Subtract from every pixel the mean of its row, in one expression.
//   2. Which shape has a tensor (3) plus one (2,1), and what is in it?
