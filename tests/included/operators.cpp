// A program with operators and names of its own that uses ours beside them, all in one scope: each
// call means what it says, and none is ambiguous.

#include "included/operators.hpp"

#include <complex>
#include <ostream>
#include <ppma/ppma.hpp>
#include <string>
#include <vector>

// The caller's own containers with operators, as templates over all iterables.
namespace mine {
template <class T>
std::vector<T> operator+(const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<T> c;
  for (std::size_t i = 0; i < a.size(); ++i) c.push_back(a[i] + b[i]);
  return c;
}
template <class T>
std::ostream& operator<<(std::ostream& out, const std::vector<T>& v) {
  return out << v.size();
}
struct Error {
  int code;
};
struct Device {
  int id;
};
}  // namespace mine

int main() {
  using namespace ppma;
  using mine::operator+;
  const Tensor x = Tensor::from<double>({1, 2, 3}, {3}), y = Tensor::ones({3}, DType::f64);
  const Tensor z = -(2.0 * x + y) / 2 - 1.0;  // -2.5 -3.5 -4.5
  const Vec3 v = -(2.0 * Vec3{1, 2, 3} + Vec3{1, 1, 1});
  const Money<int> m = 2.0 * Money<int>{3} + Money<int>{4};
  const std::vector<int> w = std::vector<int>{1, 2} + std::vector<int>{3, 4};
  const std::complex<double> c = 2.0 * std::complex<double>(1, 1) + std::complex<double>(0, 1);
  const Extreme most = max(x, 0);
  const Tensor sum_of = most.values + max(y, 0).values;  // 4
  const bool right = z.to_vector<double>() == std::vector<double>{-2.5, -3.5, -4.5} && v.x == -3 &&
                     m.amount == 10 && w[1] == 6 && c.imag() == 3 && max(1, 2) == 2 &&
                     max(Vec3{1, 2, 3}) == 2 && exp(Vec3{5, 0, 0}) == 5 && sum_of.item() == 4 &&
                     exp(scale(y, 0)).to_vector<double>()[0] == 1 && text(3) == 3 &&
                     load("file") == 1 && store(1) == 2 && check(7) == 7 && row_map(4) == 4 &&
                     mine::Error{2}.code == 2 && mine::Device{1}.id == 1 &&
                     std::string("a") + "b" == "ab";
  return right ? 0 : 1;
}
