// 07: polyline paths. In an image there are many ways from one token to another; the mask walks two
// of them, each with a single turn, and multiplies the decays of the edges on its way.
//
//   V2H: from the key along its column to the query's row, then along that row.
//         alpha: decay of the edge to the left
//   H2V: from the key along its row to the query's column, then along that column. beta: decay of
//   the edge above

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "check.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/path.hpp"
#include "ppma/polyline/types.hpp"

using namespace ppma;

namespace {

// Decays as a tensor of their logarithms, (B,G,H,W) = (1,1,H,W).
Tensor logs(std::vector<double> decays, i64 h, i64 w) {
  for (double& d : decays) d = std::log(d);
  return Tensor::from<double>(decays, {1, 1, h, w});
}

bool close(const std::vector<double>& a, const std::vector<double>& b) {
  double most = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i)
    most = std::fmax(most, std::fabs(a[i] - b[i]));
  return most < 1e-14;
}

// The 3 x 3 grid with one path, and the product of the decays on its way.
double walk(Cell key, Cell query, Paths path, const std::vector<double>& alpha,
            const std::vector<double>& beta) {
  const std::vector<Cell> cells = polyline_path(key, query, path);
  std::string picture[5];
  for (int r = 0; r < 5; ++r) picture[r] = r % 2 == 0 ? ".   .   ." : "         ";
  double product = 1;
  std::string steps;
  for (std::size_t s = 0; s < cells.size(); ++s) {
    picture[2 * cells[s].row][static_cast<std::size_t>(4 * cells[s].column)] = 'o';
    if (s == 0) continue;
    const Cell from = cells[s - 1], to = cells[s],
               end{std::max(from.row, to.row), std::max(from.column, to.column)};
    const bool horizontal = from.row == to.row;
    const double decay =
        (horizontal ? alpha : beta)[static_cast<std::size_t>(3 * end.row + end.column)];
    product *= decay;
    if (horizontal)
      picture[2 * end.row].replace(static_cast<std::size_t>(4 * end.column - 3), 3, "---");
    else
      picture[2 * end.row - 1][static_cast<std::size_t>(4 * end.column)] = '|';
    steps += (s > 1 ? " * " : "") + std::string(horizontal ? "alpha[" : "beta[") +
             std::to_string(end.row) + "," + std::to_string(end.column) + "]";
  }
  picture[2 * key.row][static_cast<std::size_t>(4 * key.column)] = 'K';
  picture[2 * query.row][static_cast<std::size_t>(4 * query.column)] = 'Q';
  for (const std::string& line : picture) std::printf("    %s\n", line.c_str());
  std::printf("  %s: %s = %.4f\n\n", to_string(path).c_str(), steps.c_str(), product);
  return product;
}

}  // namespace

int main() {
  // alpha[i][0] and beta[0][j] belong to no edge.
  const std::vector<double> alpha{1, .9, .8, 1, .7, .6, 1, .5, .4},
      beta{1, 1, 1, .95, .85, .75, .65, .55, .45};
  const Cell key{2, 0}, query{0, 2};
  std::printf("From key K = (2,0) to query Q = (0,2):\n");
  const double v2h = walk(key, query, Paths::v2h, alpha, beta),
               h2v = walk(key, query, Paths::h2v, alpha, beta);
  // (1,1,9,9), row: query, column: key
  const Tensor l = exp(polyline_log_mask(join_decays(logs(alpha, 3, 3), logs(beta, 3, 3))));
  const double* entry = l.data<double>();
  expect(std::fabs(entry[2 * 9 + 6] - v2h) < 1e-15, "L[query, key] is the product along V2H");
  expect(std::fabs(entry[6 * 9 + 2] - h2v) < 1e-15,
         "H2V is the same walk backwards from the other end: L[key, query], the transpose");

  // A 2 x 3 grid, all 36 entries.
  const Tensor decays = join_decays(logs({1, .5, .8, 1, .25, .4}, 2, 3),
                                    logs({1, 1, 1, .9, .6, .3}, 2, 3));  // (2,1,1,2,3)
  const Tensor mask = exp(polyline_log_mask(decays));
  std::printf("\nalpha = (- .5 .8 / - .25 .4), beta = (- - - / .9 .6 .3): L =\n");
  for (i64 u = 0; u < 6; ++u) {
    for (i64 v = 0; v < 6; ++v) std::printf(" %5.3f", mask.data<double>()[u * 6 + v]);
    std::printf("\n");
  }
  const Tensor x = Tensor::from<double>({1, 2, 3, 4, 5, 6}, {1, 2, 3, 1});
  const Tensor lx = apply_mask(x, decays, Paths::v2h), ltx = apply_mask(x, decays, Paths::h2v);
  std::printf("x     =  1 2 3 4 5 6\nL x   =");
  for (const double v : lx.to_vector<double>()) std::printf(" %6.3f", v);
  std::printf("\nL^T x =");
  for (const double v : ltx.to_vector<double>()) std::printf(" %6.3f", v);
  std::printf("\n");
  expect(
      close(mask.to_vector<double>(),
            {1,  .5,  .4,  .9, .3,  .12, .5,   1,  .8,  .45, .6, .24, .4,  .8,  1,  .36, .48, .3,
             .9, .15, .03, 1,  .25, .1,  .225, .6, .12, .25, 1,  .4,  .09, .24, .3, .1,  .4,  1}),
      "every entry is the product worked out by hand");
  expect(close(lx.to_vector<double>(), {9.02, 11.14, 10.64, 7.14, 10.185, 9.87}), "L x");
  expect(close(ltx.to_vector<double>(), {8.465, 9.94, 7.52, 8.73, 11.34, 9.9}), "L^T x");
  return failures;
}

// Exercises (solutions/05_08.cpp):
//   1. Set beta[1,0] of the 2 x 3 grid to 0.01. Which entries of L change?
//   2. Which decays make L and its transpose the same? Check an example.
