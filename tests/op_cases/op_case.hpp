#pragma once
// The op table: one line an op drives the comparison with values and gradients in float64 from
// somewhere else, the gradient check, the same in float32, and an error message.
//
// To add an op: tests/op_cases/<header>_test.cpp gets one line with its name, the call, a piece of
// the message that a misuse gives, and the misuse:
//
//   {"gelu", [](In x) { return gelu(x[0]); }, "gelu: int64", [] { gelu(int64s({3})); }},
//
// and what the values are, either from PyTorch or as a plain function:
//
//   - tests/reference/op_values.py: one line with the same name, the inputs and the same thing in
//     PyTorch; run it with a Python that has torch: python tests/reference/op_values.py (writes
//     op_values.json next to it).
//   - behind the misuse a Plain: the inputs, and the function on numbers, whose gradients are taken
//     by differences: {}, Plain{{{{2, 3}}}, {2, 3}, [](const Lists& x) { ... }}. softmax_test.cpp
//     has one.
//
// Compiled as CUDA, a line also compares the GPU with the CPU, in f64, f32 and bf16.
// "softmax/first axis" is a second case of softmax. The first case of every op has a misuse.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "ppma/tensor/tensor.hpp"

namespace op_cases {

using namespace ppma;
using In = const std::vector<Tensor>&;

/// An input of a plain function: numbers spread over [low, high).
struct PlainInput {
  std::vector<i64> shape;
  double low = -2, high = 2;
};
using Lists = std::vector<std::vector<double>>;

/// What an op computes, written in the plainest way: from its inputs' elements in row-major order
/// to those of its result.
struct Plain {
  std::vector<PlainInput> inputs;
  std::vector<i64> shape;  // of the result
  std::function<std::vector<double>(const Lists& inputs)> f;
};

struct OpCase {
  std::string name;
  std::function<Tensor(In)> call;
  std::string message;  // empty: no misuse
  std::function<void()> misuse;
  // inputs that stay f32 where the others are bf16: biases, norms, decays
  std::vector<std::size_t> parameters{};
  std::optional<Plain> plain{};  // none: op_values.py has the values
};

// Arguments for misuses.
inline Tensor zeros(const Shape& s) { return Tensor::zeros(s, DType::f64); }
inline Tensor int64s(const Shape& s) { return Tensor::zeros(s, DType::int64); }

/// Runs a table. An op without a misuse is an error.
void check_table(const std::vector<OpCase>& table);

}  // namespace op_cases
