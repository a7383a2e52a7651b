#include "dots.h"

#include "fetch.h"

namespace eyechart {
namespace {

constexpr int LANES = 8;

double dot(const float* a, const float* b, int64_t dim) {
    double sums[LANES] = {};
    int64_t k = 0;
    for (; k + LANES <= dim; k += LANES)
        for (int lane = 0; lane < LANES; ++lane) sums[lane] += static_cast<double>(a[k + lane]) * b[k + lane];
    for (int lane = 0; k < dim; ++lane, ++k) sums[lane] += static_cast<double>(a[k]) * b[k];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    return sums[0];
}

}  // namespace

void double_dots(const Rows& rows, const int32_t* i, const int32_t* j, int64_t count, double* out) {
    for (int64_t pair = 0; pair < count; ++pair) {
        if (pair + AHEAD < count) {
            fetch(rows[i[pair + AHEAD]], rows.dim);
            fetch(rows[j[pair + AHEAD]], rows.dim);
        }
        out[pair] = dot(rows[i[pair]], rows[j[pair]], rows.dim);
    }
}

}  // namespace eyechart
