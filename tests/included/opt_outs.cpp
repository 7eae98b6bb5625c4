// What PPMA_F64=0 and PPMA_GRADIENTS=0 leave out is an error that names them, and the rest works.
#include <cstdio>
#include <string>

#include "ppma/nn/init.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"

static int failed = 0;

static void expect_that(bool ok, const char* what) {
  if (!ok) std::printf("wrong: %s\n", what), ++failed;
}

// The error of f, "" for none.
template <class F>
static std::string error_of(F f) {
  try {
    f();
  } catch (const ppma::Error& e) {
    return e.what();
  }
  return "";
}

static bool names(const std::string& error, const char* macro) {
  return error.find(macro) != std::string::npos;
}

int main() {
  using namespace ppma;
  const Tensor x = Tensor::from<float>({1, 2, 3}, {3}), wide = Tensor::from<double>({4, 5, 6}, {3});
  expect_that(mul(x, x).to_vector<float>() == std::vector<float>{1, 4, 9}, "f32 is computed");
  expect_that(gelu(x).to_vector<float>()[0] > 0.84f, "gelu in f32");

  expect_that(cast(wide, DType::f32).to_vector<float>() == std::vector<float>{4, 5, 6},
              "f64 is converted");
  const std::string of_f64 = error_of([&] { mul(wide, wide); });
  expect_that(PPMA_F64 ? of_f64.empty() : names(of_f64, "mul") && names(of_f64, "PPMA_F64=0"),
              "an operation in f64");

  Tensor w = parameter(x.clone());  // networks are made of these, with gradients or without
  const Tensor y = mul(w, w);
  expect_that(y.to_vector<float>() == std::vector<float>{1, 4, 9}, "what a parameter computes");
  expect_that(y.requires_grad() == (PPMA_GRADIENTS != 0), "what is recorded");
  const std::string of_mark = error_of([&] { x.clone().requires_grad(true); }),
                    of_backward = error_of([&] { y.backward(x); });
  if (PPMA_GRADIENTS) {
    expect_that(of_mark.empty() && of_backward.empty(), "gradients");
    expect_that(w.grad().to_vector<float>() == std::vector<float>{2, 8, 18}, "their values");
  } else {
    expect_that(names(of_mark, "PPMA_GRADIENTS=0"), "requires_grad(true)");
    expect_that(names(of_backward, "PPMA_GRADIENTS=0"), "backward()");
    expect_that(error_of([&] { w.requires_grad(false), w.zero_grad(); }).empty(), "no gradient");
  }
  return failed;
}
