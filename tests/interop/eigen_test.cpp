#include "ppma/eigen.hpp"

#include <memory>
#include <utility>
#include <vector>

#include "ppma/ops/matmul.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("maps are a tensor's elements, row by row") {
  Tensor t = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor& fixed = t;
  auto m = as_matrix(t);
  CHECK((m.rows() == 2 && m.cols() == 3 && m(0, 2) == 3 && m(1, 0) == 4));
  CHECK(m.data() == fixed.data<float>());
  m(1, 2) = 60;
  CHECK(fixed.data<float>()[5] == 60);
  as_array(t) += 1.f;
  CHECK(t.to_vector<float>() == std::vector<float>{2, 3, 4, 5, 6, 61});
  // const in, const out
  static_assert(
      std::is_same_v<decltype(as_matrix(fixed)), Eigen::Map<const RowMajorMatrix<float>>>);
  static_assert(
      std::is_same_v<decltype(as_vector<double>(fixed)), Eigen::Map<const Eigen::VectorXd>>);
  static_assert(
      std::is_same_v<decltype(as_array<i64>(t)), Eigen::Map<Eigen::Array<i64, Eigen::Dynamic, 1>>>);
  const Tensor deep = Tensor::zeros({2, 3, 4, 5}, DType::f64), flat = Tensor::zeros({7}),
               scalar = Tensor::scalar(3), none = Tensor::zeros({0, 5});
  CHECK((as_matrix<double>(deep).rows() == 24 && as_matrix<double>(deep).cols() == 5));
  CHECK(as_array<double>(deep).size() == 120);
  CHECK(as_vector(flat).size() == 7);
  CHECK(as_array(scalar)(0) == 3);
  CHECK(as_matrix(none).rows() == 0);
  CHECK(says([&] { as_matrix(deep); }, "the tensor of shape (2, 3, 4, 5) holds f64, not f32"));
  CHECK(says([&] { as_matrix(flat); }, "as_matrix: a tensor of shape (7) has no rows and columns"));
  CHECK(says([&] { as_vector<double>(deep); }, "as_vector: a tensor of shape (2, 3, 4, 5) is no"));
  CHECK(says(
      [] {
        const Tensor t0;
        as_array(t0);
      },
      "the tensor is undefined"));
  const std::vector<float> constant{1, 2};
  Tensor read_only = Tensor::wrap(constant.data(), {2});
  CHECK(says([&] { as_vector(read_only); }, "wraps const elements"));
  CHECK(as_vector(std::as_const(read_only)).sum() == 3);
}

TEST_CASE("tensor_of copies expressions of any storage order") {
  Eigen::MatrixXf by_columns(2, 3);
  by_columns << 1, 2, 3, 4, 5, 6;
  const Tensor t = tensor_of(by_columns);
  CHECK(t.shape() == Shape{2, 3});
  CHECK(t.to_vector<float>() == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(tensor_of(by_columns.transpose()).to_vector<float>() ==
        std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(tensor_of(by_columns.col(1)).shape() == Shape{2});
  CHECK(tensor_of(by_columns.row(1)).to_vector<float>() == std::vector<float>{4, 5, 6});
  CHECK(tensor_of(by_columns.array().square() + 1).to_vector<float>() ==
        std::vector<float>{2, 5, 10, 17, 26, 37});
  CHECK(tensor_of(by_columns.cast<double>() * by_columns.transpose().cast<double>())
            .to_vector<double>() == std::vector<double>{14, 32, 32, 77});
  CHECK(tensor_of(Eigen::Matrix3d::Identity()).to_vector<double>() ==
        std::vector<double>{1, 0, 0, 0, 1, 0, 0, 0, 1});
  CHECK(tensor_of(Eigen::Vector3d::Zero()).shape() == Shape{3});
  CHECK(tensor_of(Eigen::MatrixXf(0, 3)).shape() == Shape{0, 3});
  CHECK(tensor_of(by_columns.cast<i64>()).dtype() == DType::int64);
  // the same product, by Eigen and by ours
  Rng rng(1);
  const Tensor a = Tensor::randn({5, 7}, rng), b = Tensor::randn({7, 4}, rng),
               c = tensor_of(as_matrix(a) * as_matrix(b)), d = matmul(a, b);
  CHECK(as_matrix(c).isApprox(as_matrix(d), 1e-6f));
}

TEST_CASE("wrap takes matrices where they lie") {
  RowMajorMatrix<double> m(2, 3);
  m << 1, 2, 3, 4, 5, 6;
  Tensor t = wrap(m);
  CHECK(t.shape() == Shape{2, 3});
  CHECK(std::as_const(t).data<double>() == m.data());
  m(1, 2) = 7;
  CHECK(t.to_vector<double>() == std::vector<double>{1, 2, 3, 4, 5, 7});
  t.data<double>()[0] = -1;
  CHECK(m(0, 0) == -1);
  const Eigen::VectorXf v = Eigen::VectorXf::LinSpaced(4, 0, 3);
  const Tensor fixed = wrap(v);
  CHECK((fixed.shape() == Shape{4} && fixed.data<float>() == v.data() && !fixed.writable()));

  const double* const at = m.data();
  Tensor taken = wrap(std::move(m));  // its memory moves with it
  CHECK(std::as_const(taken).data<double>() == at);
  t = Tensor();
  CHECK(taken.to_vector<double>() == std::vector<double>{-1, 2, 3, 4, 5, 7});
  CHECK(wrap(Eigen::ArrayXf(Eigen::ArrayXf::Ones(3))).to_vector<float>() ==
        std::vector<float>{1, 1, 1});

  RowMajorMatrix<float> wide = RowMajorMatrix<float>::Zero(4, 6);
  auto rows = wide.middleRows(1, 2);
  CHECK(wrap(rows).shape() == Shape{2, 6});
  auto block = wide.leftCols(3);
  CHECK(says([&] { wrap(block); }, "wrap: the 4 x 3 matrix has gaps (strides 6 and 1)"));
  auto column = wide.col(2);
  CHECK(says([&] { wrap(column); }, "has gaps"));
}
