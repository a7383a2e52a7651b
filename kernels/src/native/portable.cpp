// The path for every processor: plain loops of a fixed length, which compilers turn into vector instructions.
#include <algorithm>

#include "survivors.h"

namespace eyechart {
namespace {

constexpr int64_t CHUNK = 64;  // y rows that stay in the nearest cache while all x rows pass
constexpr int LANES = 16;      // float sums that do not wait for each other

void widen(const int8_t* codes, int64_t count, int16_t* out) {
    for (int64_t k = 0; k < count; ++k) out[k] = codes[k];
}

int32_t stage_distance(const int16_t* x, const int16_t* y) {
    int32_t sum = 0;
    for (int k = 0; k < STAGE; ++k) {
        const int16_t difference = static_cast<int16_t>(x[k] - y[k]);
        sum += difference * difference;
    }
    return sum;
}

bool within(const int16_t* x, const int16_t* y, int64_t columns, int32_t bound) {
    for (int64_t k = 0; k < columns; k += STAGE) {
        bound -= stage_distance(x + k, y + k);
        if (bound < 0) return false;
    }
    return true;
}

float dot(const float* a, const float* b, int64_t dim) {
    float sums[LANES] = {};
    int64_t k = 0;
    for (; k + LANES <= dim; k += LANES)
        for (int lane = 0; lane < LANES; ++lane) sums[lane] += a[k + lane] * b[k + lane];
    float total = 0;
    for (const float sum : sums) total += sum;
    for (; k < dim; ++k) total += a[k] * b[k];
    return total;
}

}  // namespace

void scan_portable(const Job& job, Found& found) {
    const int64_t columns = job.columns;
    std::vector<int16_t> left(columns), right(CHUNK * columns);
    Survivors survivors(job, dot, found);
    for (int64_t first = job.first; first < job.end; first += CHUNK) {
        const int64_t end = std::min(first + CHUNK, job.end);
        for (int64_t place = first; place < end; ++place)
            widen(job.code(job.y(place)), columns, &right[(place - first) * columns]);
        for (int64_t x = job.start; x < job.stop; ++x) {
            const int64_t nearest = job.ordered() ? std::max(first, x + 1) : first;
            if (nearest < end) widen(job.code(x), columns, left.data());
            for (int64_t place = nearest; place < end; ++place)
                if (within(left.data(), &right[(place - first) * columns], columns, job.bound))
                    survivors.add(x, job.y(place));
        }
    }
    survivors.decide();
}

}  // namespace eyechart
