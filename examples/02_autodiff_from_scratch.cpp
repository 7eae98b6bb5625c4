// 02: reverse-mode differentiation from scratch, without the library. All of it fits on a page.
//
// Every value remembers which values it was made from, and how much it changes when each of them
// does (the local derivative). Values are created in order, so walking the list backwards meets
// each value after everything that was made from it: its gradient is complete then, and can be
// handed on. That is the chain rule, and it is all there is.

#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

namespace {

struct Node {
  double value;
  double gradient = 0;
  // (number of the input, derivative with respect to it)
  std::vector<std::pair<int, double>> inputs;
};

std::vector<Node> tape;  // every value ever made, oldest first

struct Value {
  int number;
  double value() const { return tape[static_cast<std::size_t>(number)].value; }
  double gradient() const { return tape[static_cast<std::size_t>(number)].gradient; }
};

Value record(double value, std::vector<std::pair<int, double>> inputs) {
  tape.push_back({value, 0, std::move(inputs)});
  return {static_cast<int>(tape.size()) - 1};
}

Value leaf(double x) { return record(x, {}); }
Value operator+(Value a, Value b) {
  return record(a.value() + b.value(), {{a.number, 1}, {b.number, 1}});
}
Value operator*(Value a, Value b) {
  return record(a.value() * b.value(), {{a.number, b.value()}, {b.number, a.value()}});
}
Value tanh(Value a) {
  const double y = std::tanh(a.value());
  return record(y, {{a.number, 1 - y * y}});
}

void backward(Value last) {
  tape[static_cast<std::size_t>(last.number)].gradient = 1;
  for (std::size_t i = tape.size(); i-- > 0;)
    for (const auto& [input, derivative] : tape[i].inputs)
      tape[static_cast<std::size_t>(input)].gradient += tape[i].gradient * derivative;
}

double neuron(double x, double w, double b) { return std::tanh(w * x + b) * (w * x + b); }

}  // namespace

int main() {
  // A neuron whose pre-activation is used twice: its gradient is the sum over both uses.
  const Value x = leaf(0.5), w = leaf(-1.5), b = leaf(2.0);
  const Value z = w * x + b;
  const Value y = tanh(z) * z;
  backward(y);
  std::printf("y = tanh(w x + b) (w x + b) = %.6f\n", y.value());

  // The same by shaking each input a little.
  const double h = 1e-6;
  const double numeric[] = {(neuron(0.5 + h, -1.5, 2) - neuron(0.5 - h, -1.5, 2)) / (2 * h),
                            (neuron(0.5, -1.5 + h, 2) - neuron(0.5, -1.5 - h, 2)) / (2 * h),
                            (neuron(0.5, -1.5, 2 + h) - neuron(0.5, -1.5, 2 - h)) / (2 * h)};
  const double exact[] = {x.gradient(), w.gradient(), b.gradient()};
  const char* name[] = {"x", "w", "b"};
  int failures = 0;
  for (int i = 0; i < 3; ++i) {
    const bool ok = std::fabs(exact[i] - numeric[i]) < 1e-8;
    std::printf("dy/d%s = %9.6f   by shaking: %9.6f   %s\n", name[i], exact[i], numeric[i],
                ok ? "ok" : "FAILED");
    if (!ok) ++failures;
  }
  std::printf("%zu values on the tape\n", tape.size());
  return failures;
}
