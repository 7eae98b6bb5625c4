// 02: reverse-mode differentiation from scratch, without the library. All of it fits on a page.
//
// Every value remembers which values it was made from, and how much it changes when each of them
// does (the local derivative). Values are created in order, so walking the list backwards meets
// each value after everything that was made from it: its gradient is complete then, and can be
// handed on. That is the chain rule, and it is all there is.
//
// With matrices it is the same: with plain Eigen, a layer hands its gradients back in three lines.

#include <Eigen/Core>
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

// The same with Eigen, a layer at a time: y = sum of tanh(z) z, z = W x + b. Returns dy/dW.
Eigen::MatrixXd layer_gradient(const Eigen::MatrixXd& w, const Eigen::VectorXd& x,
                               const Eigen::VectorXd& b) {
  const Eigen::ArrayXd z = w * x + b, t = z.tanh();
  const Eigen::ArrayXd dz = (1 - t.square()) * z + t;  // both uses of z
  return dz.matrix() * x.transpose();                  // z_i = ... + w_ij x_j + ...
}

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
  int wrong = 0;
  for (int i = 0; i < 3; ++i) {
    const bool ok = std::fabs(exact[i] - numeric[i]) < 1e-8;
    std::printf("dy/d%s = %9.6f   by shaking: %9.6f   %s\n", name[i], exact[i], numeric[i],
                ok ? "ok" : "FAILED");
    if (!ok) ++wrong;
  }
  std::printf("%zu values on the tape\n", tape.size());

  // Two neurons of three inputs by the tape, and by Eigen.
  const Eigen::MatrixXd weights = Eigen::MatrixXd::Random(2, 3);
  const Eigen::VectorXd inputs = Eigen::VectorXd::Random(3), biases = Eigen::VectorXd::Random(2);
  tape.clear();
  std::vector<Value> leaves;
  Value total = leaf(0);
  for (int i = 0; i < 2; ++i) {
    Value sum = leaf(biases(i));
    for (int j = 0; j < 3; ++j) {
      leaves.push_back(leaf(weights(i, j)));
      sum = sum + leaves.back() * leaf(inputs(j));
    }
    total = total + tanh(sum) * sum;
  }
  backward(total);
  const Eigen::MatrixXd by_eigen = layer_gradient(weights, inputs, biases);
  double most = 0;
  for (int k = 0; k < 6; ++k)
    most = std::fmax(
        most, std::fabs(leaves[static_cast<std::size_t>(k)].gradient() - by_eigen(k / 3, k % 3)));
  std::printf("six weights of a layer, by Eigen: %s\n", most < 1e-14 ? "ok" : "FAILED");
  return wrong + (most < 1e-14 ? 0 : 1);
}

// Exercises (solutions/01_04.cpp):
//   1. Add exp to the operations of the tape, and check d/dx of exp(w x).
//   2. What would dy/dx of y = x * x be at 3 if backward() overwrote gradients?
