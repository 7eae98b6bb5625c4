#pragma once
// The op table: one line an op drives the comparison with PyTorch's values and gradients in
// float64, the gradient check, the same in float32, and an error message.
//
// To add an op:
//   1. tests/reference/op_values.py: one line with its inputs and the same thing in PyTorch; run
//      it with a Python that
//   has
//      torch: python tests/reference/op_values.py (writes op_values.json next to it).
//   2. tests/op_cases/<header>_test.cpp: one line with the same name, the call, a piece of the
//      message that a misuse
//   gives,
//      and the misuse:
//
//      {"gelu", [](In x) { return gelu(x[0]); }, "gelu: int64", [] { gelu(int64s({3})); }},
//
// Compiled as CUDA, a line also compares the GPU with the CPU, in f64, f32 and bf16.
// "softmax/first axis" is a second case of softmax. The first case of every op has a misuse.

#include <functional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "ppma/tensor/tensor.hpp"

namespace op_cases {

using namespace ppma;
using In = const std::vector<Tensor>&;

struct OpCase {
  std::string name;
  std::function<Tensor(In)> call;
  std::string message;  // empty: no misuse
  std::function<void()> misuse;
  // inputs that stay f32 where the others are bf16: biases, norms, decays
  std::vector<std::size_t> parameters{};
};

// Arguments for misuses.
inline Tensor zeros(const Shape& s) { return Tensor::zeros(s, DType::f64); }
inline Tensor int64s(const Shape& s) { return Tensor::zeros(s, DType::int64); }

/// Runs a table. An op without a misuse is an error.
void check_table(const std::vector<OpCase>& table);

}  // namespace op_cases
